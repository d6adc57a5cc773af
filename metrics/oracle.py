"""Pictures of procedural scenes back to scenes, and scenes against captions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .intervals import wilson_interval
from .results import Rows, row
from .scene_blobs import Blobs, cut_windows, find_blobs
from .scene_templates import Matches, TemplateBank

PARSED_SIZE = 64  # pixels; larger images are reduced to it, smaller ones hold too little to tell shapes apart
SMALLEST_BLOB = 0.3  # of the smallest object's area; anything below is a speck
LARGEST_BLOB = 1.6  # of the largest object's area
LEAST_EXPLAINED = 0.4  # of a blob's energy; below, it has no known shape
LEAST_CHROMA = 0.1  # mean over a blob, RGB in [0, 1]; below, it has no colour (the palette starts at 0.38)
CHUNK = 64  # images parsed at once

Scene = TypeVar("Scene")
Verdict = dict[str, bool]


class World(Protocol[Scene]):
    """What the oracle has to know about the scenes; sizes in pixels of images of the given size."""

    textures: tuple[str, ...]  # plain, then striped where there are stripes
    greys: tuple[int, ...]  # of the backgrounds, 0..255
    palette: np.ndarray  # (colors, 3) in [0, 1]
    shades: np.ndarray  # (2,) brightness of a bright and of a dark stripe

    def coverage(self, image_size: int) -> np.ndarray: ...  # (shapes, sizes, S, S)

    def stripes(self, image_size: int) -> np.ndarray: ...  # (S,)

    def centers(self, image_size: int) -> np.ndarray: ...  # (3,) of rows and of columns

    def scene(self, objects: Sequence[Sequence[int]], background: int) -> Scene: ...

    def judge(self, caption: str, scene: Scene) -> Verdict: ...


class SceneOracle(Generic[Scene]):
    """Says what a picture shows, object by object, and which captions it keeps.

    Blobs that stand out from the border's colour are objects. Colour is the direction of the mean chroma, so a faded
    or darkened object keeps it; shape and size are the least-squares match over all outlines, blurs and shifts;
    texture is the strength of the stripes in that match; the place is the cell nearest to the matched centre.

    Args:
        world: the scenes' tables, geometry and captions.
        image_size: of the pictures, in pixels; 64 or more.

    Raises:
        ValueError: pictures too small to be judged.
    """

    def __init__(self, world: World[Scene], image_size: int) -> None:
        if image_size < PARSED_SIZE:
            raise ValueError(
                f"image_size={image_size} is too small to tell the shapes of scenes apart; "
                f"use {PARSED_SIZE} or more (tokenizer.image_size)."
            )
        self.world, self.image_size = world, image_size
        coverage = torch.from_numpy(world.coverage(PARSED_SIZE))
        areas = coverage.sum(dim=(2, 3))
        self._smallest = SMALLEST_BLOB * float(areas.min())
        self._largest = LARGEST_BLOB * float(areas.max())
        striped = torch.from_numpy(world.stripes(PARSED_SIZE)) if len(world.textures) > 1 else None
        self._bank = TemplateBank(coverage, striped)
        self._palette = torch.from_numpy(world.palette).float()
        self._hues = F.normalize(_chroma(self._palette), dim=1)
        # Colour that the stripes of each palette entry come and go by: half of bright minus dark.
        self._modulations = self._palette * float(world.shades[0] - world.shades[1]) / 2
        self._centers = torch.from_numpy(world.centers(PARSED_SIZE)).float()
        self._greys = torch.tensor(world.greys) / 255

    @torch.no_grad()
    def parse(self, images: Tensor) -> list[Scene]:
        """The scene in each picture, its objects from large to small: (B, 3, H, W) in [0, 1] -> B scenes.

        An object that is like no known one counts, with -1 for what could not be told; a picture without a flat
        background, such as noise, holds no objects.

        Raises:
            ValueError: pictures of another size than the oracle was made for.
        """
        if tuple(images.shape[1:]) != (3, self.image_size, self.image_size):
            raise ValueError(
                f"images of shape {tuple(images.shape)} do not fit an oracle for (B, 3, {self.image_size}, "
                f"{self.image_size}); build it with the images' size (tokenizer.image_size)."
            )
        return [scene for chunk in images.detach().cpu().split(CHUNK) for scene in self._parse(chunk)]

    def score(self, images: Tensor, captions: Sequence[str]) -> list[Verdict]:
        """Which parts of its caption each picture keeps, under the names that `summarize` reports.

        One-object worlds: each claimed attribute of the largest object, and `all`: the caption as a whole, with
        exactly one object. Worlds of several objects: `all`, and the same verdict as `kind/<kind of caption>`.

        Args:
            images: (B, 3, H, W) in [0, 1].
            captions: B captions.

        Raises:
            ValueError: another number of captions than of images, or a caption that no scene can be checked against.
        """
        if len(captions) != len(images):
            raise ValueError(f"{len(images)} images need as many captions, got {len(captions)}.")
        return [self.world.judge(caption, scene) for caption, scene in zip(captions, self.parse(images), strict=True)]

    def chance_floor(self, captions: Sequence[str], scenes: Sequence[Scene], partners: int = 16) -> dict[str, float]:
        """What pictures that ignore their captions score: every caption judged on the true scenes of other captions.

        Args:
            scenes: the true scene of each caption; at least two.
            partners: other scenes each caption is judged on, evenly spread.
        """
        n = len(captions)
        if len(scenes) != n or len(set(captions)) < 2:
            raise ValueError(
                f"a chance floor needs two different captions and the scene of each, got {n} captions, "
                f"{len(set(captions))} of them different, and {len(scenes)} scenes (evaluation.num_images)."
            )
        steps = sorted({1 + (n - 1) * k // partners for k in range(partners)})
        hits: defaultdict[str, list[bool]] = defaultdict(list)
        for i, caption in enumerate(captions):
            for other in ((i + step) % n for step in steps):
                if captions[other] != caption:
                    for name, kept in self.world.judge(caption, scenes[other]).items():
                        hits[name].append(kept)
        return {name: sum(kept) / len(kept) for name, kept in hits.items()}

    def _parse(self, images: Tensor) -> list[Scene]:
        pictures = images.float().clamp(0, 1)
        if self.image_size != PARSED_SIZE:
            pictures = F.adaptive_avg_pool2d(pictures, PARSED_SIZE)
        blobs = find_blobs(pictures, self._smallest)
        grey = (blobs.background.mean(dim=1, keepdim=True) - self._greys).abs().argmin(dim=1)
        objects: list[list[list[int]]] = [[] for _ in range(len(images))]
        rows = self._describe(blobs).tolist()
        images_and_areas = zip(blobs.image.tolist(), blobs.area.tolist(), rows, strict=True)
        for image, _, found in sorted(images_and_areas, key=lambda blob: -blob[1]):
            objects[image].append(found)
        return [self.world.scene(found, int(level)) for found, level in zip(objects, grey, strict=True)]

    def _describe(self, blobs: Blobs) -> Tensor:
        """(shape, color, size, texture, cell) of every blob: (n, 5) int64."""
        if len(blobs.area) == 0:
            return torch.empty(0, 5, dtype=torch.int64)
        middles = (blobs.box[:, 0::2] + blobs.box[:, 1::2]) // 2  # (n, 2)
        windows = cut_windows(blobs, middles, self._bank.half)
        matches = self._bank.match(windows)
        chroma = _chroma(windows.sum(dim=(2, 3)))  # of the background none is left, it was subtracted
        color = (chroma @ self._hues.T).argmax(dim=1)
        texture = self._texture(matches, color)
        colorless = chroma.norm(dim=1) / blobs.area < LEAST_CHROMA
        centers = (middles + matches.shift)[..., None].float()
        row_column = (centers - self._centers).abs().argmin(dim=-1)  # (n, 2)
        shapeless = (matches.explained < LEAST_EXPLAINED) | (blobs.area > self._largest)
        described = torch.stack([matches.shape, color, matches.size, texture], dim=1)
        described[colorless, 1] = -1
        described[shapeless] = -1
        return torch.cat([described, 3 * row_column[:, :1] + row_column[:, 1:]], dim=1)

    def _texture(self, matches: Matches, color: Tensor) -> Tensor:
        """1 where at least half of the stripes that this colour would have are there, else 0: (n,)."""
        expected = self._modulations[color]  # (n, 3)
        return ((matches.modulation * expected).sum(1) > 0.5 * expected.square().sum(1)).long()


def summarize(verdicts: Sequence[Verdict], prefix: str, floor: dict[str, float] | None = None) -> Rows:
    """Share of positive verdicts per name, with a 95 % Wilson interval: `<prefix>/colour`, ..., `<prefix>/all`.

    A name counts the verdicts that have it, so kinds of captions and attributes that few captions name report their
    own n.

    Args:
        prefix: where the verdicts come from, for example "gen/oracle".
        floor: scores of chance by name, reported beside the values.
    """
    if not verdicts:
        raise ValueError("there are no verdicts to summarize; score at least one image (evaluation.num_images).")
    hits: defaultdict[str, list[bool]] = defaultdict(list)
    for verdict in verdicts:
        for name, kept in verdict.items():
            hits[name].append(kept)
    return {
        f"{prefix}/{name}": row(
            sum(kept) / len(kept),
            len(kept),
            interval=list(wilson_interval(sum(kept), len(kept))),
            floor=None if floor is None else floor.get(name),
        )
        for name, kept in hits.items()
    }


def _chroma(colors: Tensor) -> Tensor:
    """What is left of (n, 3) RGB without its grey."""
    return colors - colors.mean(dim=1, keepdim=True)
