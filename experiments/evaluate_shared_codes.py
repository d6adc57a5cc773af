"""What a code stands for: patches of different test images that were given the same one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.base import ImageDataset
from ..metrics.images import to_uint8
from ..tokenizers.base import ImageTokenizer
from .phase import Evaluation

CODES = 4  # per grid and ranking
PATCHES = 8  # per code, each of another image
MOST_PIXELS = 64  # side of a kept patch; larger ones are reduced


@dataclass(frozen=True)
class Grid:
    """Ids `start` to `start + side**2` of an image, one for each cell of a square grid in raster order."""

    start: int
    side: int

    def cell(self, position: int, image_size: int) -> tuple[int, int, int]:
        """Top, left and size in pixels of the cell that the id at `position` (from `start`) belongs to."""
        row, column = divmod(position, self.side)
        return row * image_size // self.side, column * image_size // self.side, image_size // self.side


def token_grids(tokenizer: ImageTokenizer) -> list[Grid]:
    """The grids that the ids of an image describe: one, one for each scale, or none (one-dimensional tokenizers)."""
    side = getattr(tokenizer, "grid_size", None)
    if side is None or tokenizer.codes_per_position != 1 or tokenizer.vocab_size is None:
        return []
    if tokenizer.num_tokens == side**2:
        return [Grid(0, side)]
    sides = [math.isqrt(length) for length in tokenizer.step_lengths]
    if [s**2 for s in sides] != list(tokenizer.step_lengths) or sides[-1] != side:
        return []
    ends = list(accumulate(tokenizer.step_lengths))
    return [Grid(end - s**2, s) for end, s in zip(ends, sides, strict=True)]


class SharedCodes:
    """Streams test images and their ids, then keeps patches of codes that several of the images share.

    Of each grid the codes that most images hold, which mostly stand for empty ground, and those that carry the most
    detail: pixel variance within a cell, summed over the code's cells.
    """

    def __init__(self, tokenizer: ImageTokenizer) -> None:
        self.vocab_size = tokenizer.vocab_size or 0
        self.grids = token_grids(tokenizer)
        self._ids: list[Tensor] = []
        self._detail: list[list[Tensor]] = [[] for _ in self.grids]

    def update(self, images: Tensor, ids: Tensor) -> None:
        """The next test images (B, 3, H, W) in [0, 1] and their ids (B, L)."""
        if not self.grids:
            return
        self._ids.append(ids.cpu())
        for grid, kept in zip(self.grids, self._detail, strict=True):
            mean = F.adaptive_avg_pool2d(images, grid.side)
            variance = F.adaptive_avg_pool2d(images.square(), grid.side) - mean.square()
            kept.append(variance.mean(1).flatten(1).clamp_min(0).cpu())  # (B, cells)

    def add_to(self, result: Evaluation, test: ImageDataset) -> None:
        """`patches/<side>` (n, 3, p, p) uint8 for each grid; `notes["shared_codes"]` in the order of the patches."""
        found: list[dict[str, Any]] = []
        for grid, detail in zip(self.grids, self._detail, strict=True):
            ids = torch.cat(self._ids)[:, grid.start : grid.start + grid.side**2]
            rows = shared_codes(ids, torch.cat(detail), self.vocab_size)
            if rows:
                places = [place for row in rows for place in row["patches"]]
                result.tensors[f"patches/{grid.side}"] = _cut(test, grid, places).contiguous()
                found += [{"grid": grid.side, **row} for row in rows]
        if found:
            result.notes["shared_codes"] = found


def shared_codes(ids: Tensor, detail: Tensor, vocab_size: int) -> list[dict[str, Any]]:
    """The `CODES` codes that most images hold, then the `CODES` others with most detail; each in two images or more.

    Each row has `code`, `by` ("images" or "detail"), `rank` there, `uses`, `images` and `patches`: (image, position) in
    the first images that hold the code, in each at the middle one of its places.

    Args:
        ids, detail: (B, cells).
    """
    flat = ids.flatten()
    uses = torch.bincount(flat, minlength=vocab_size)
    details = torch.zeros(vocab_size, dtype=torch.float64).index_add_(0, flat, detail.flatten().double())
    holders = torch.zeros(vocab_size, dtype=torch.int64)
    for row in ids:
        holders[row.unique()] += 1
    shared = holders.ge(2).nonzero()[:, 0].tolist()
    by_images = sorted(shared, key=lambda code: (-int(holders[code]), -int(uses[code]), code))[:CODES]
    rest = [code for code in shared if code not in by_images and details[code] > 0]
    by_detail = sorted(rest, key=lambda code: (-float(details[code]), code))[:CODES]
    rows: list[dict[str, Any]] = []
    for by, codes in (("images", by_images), ("detail", by_detail)):
        for rank, code in enumerate(codes, 1):
            patches: list[list[int]] = []
            for image in (ids == code).any(1).nonzero()[:PATCHES, 0].tolist():
                places = (ids[image] == code).nonzero()[:, 0].tolist()
                patches.append([image, places[len(places) // 2]])
            shown = {"code": code, "by": by, "rank": rank, "uses": int(uses[code]), "images": int(holders[code])}
            rows.append({**shown, "patches": patches})
    return rows


def _cut(test: ImageDataset, grid: Grid, places: Sequence[Sequence[int]]) -> Tensor:
    images = {image: test.batch([image]).images[0] for image in sorted({image for image, _ in places})}
    patches = []
    for image, position in places:
        top, left, size = grid.cell(position, test.image_size)
        patches.append(images[image][:, top : top + size, left : left + size])
    stacked = torch.stack(patches)
    if stacked.shape[-1] > MOST_PIXELS:
        stacked = F.adaptive_avg_pool2d(stacked, MOST_PIXELS)
    return to_uint8(stacked).cpu()
