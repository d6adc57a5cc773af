"""Procedural scenes as a data source: no files, any resolution, the embedded default."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .base import Batch, DataSource, Example, ImageDataset, Question, Split, check_split, to_unit_range
from .scene_full import FullScenes
from .scene_objects import Integers, Scene
from .scene_shapes import SUPERSAMPLING
from .scene_simple import SimpleScenes
from .scene_world import Level, SceneWorld

VERSION = 1  # raise when the same (seed, split, index) gives another example: old runs then count as stale

Indices = Sequence[int] | Tensor | Integers


class Scenes(DataSource):
    """Pictures of coloured shapes with captions that can be checked and questions with known answers.

    Splits: `train`, `val` (fresh pictures of what training has seen) and `test` (combinations of attributes that
    training never shows, in turn, so that every held-out caption is asked for).

    Args:
        level: `simple` or `full`, see `SceneWorld`.
        train_size, val_size, test_size: examples per split.
        seed: draws other scenes from the same world; the held-out combinations stay the same.
    """

    world: SceneWorld

    def __init__(
        self, level: Level = "simple", train_size: int = 8000, val_size: int = 512, test_size: int = 512, seed: int = 0
    ) -> None:
        self.sizes: dict[Split, int] = {"train": train_size, "val": val_size, "test": test_size}
        for name, size in self.sizes.items():
            if size < 1:
                raise ValueError(f"{name}_size={size} leaves the split empty; use 1 or more (data.{name}_size).")
        self.world = SceneWorld(level)
        self.name = f"scenes/{level}"
        self.seed = seed
        self.sampler = SimpleScenes(self.world) if level == "simple" else FullScenes(self.world)

    def split(self, name: Split, image_size: int) -> "SceneSplit":
        check_split(name)
        self.world.check_image_size(image_size)
        return SceneSplit(self, name, image_size)


class SceneSplit(ImageDataset):
    """One split at one image size; an example is a pure function of (seed, split, index)."""

    has_captions = True
    has_questions = True
    class_names = None

    def __init__(self, source: Scenes, split: Split, image_size: int) -> None:
        self.name = source.name
        self.world = source.world
        self.image_size = image_size
        self.skipped: list[tuple[str, str]] = []
        self.split_name: Split = split
        self._sampler, self._seed, self._size = source.sampler, source.seed, source.sizes[split]

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Example:
        rows = self._rows([index])
        scenes, captions = self._sampler.draw(self.split_name, self._seed, rows)
        return Example(
            image=torch.from_numpy(self.world.render(scenes, self.image_size)[0]),
            caption=captions[0],
            label=None,
            questions=self._sampler.ask(self.split_name, self._seed, rows, scenes)[0],
            key=f"{self.split_name}/{index}",
        )

    def batch(self, indices: Indices, step: int | None = None) -> Batch:
        rows = self._rows(indices)
        scenes, captions = self._sampler.draw(self.split_name, self._seed, rows)
        return Batch(
            images=to_unit_range(torch.from_numpy(self.world.render(scenes, self.image_size))),
            captions=captions,
            labels=None,
            questions=self._sampler.ask(self.split_name, self._seed, rows, scenes),
            indices=torch.from_numpy(rows),
        )

    def annotations(self, indices: Indices) -> tuple[list[str], list[tuple[Question, ...]]]:
        rows = self._rows(indices)
        scenes, captions = self._sampler.draw(self.split_name, self._seed, rows)
        return captions, self._sampler.ask(self.split_name, self._seed, rows, scenes)

    def scenes(self, indices: Indices) -> list[Scene]:
        """What the examples show, object by object."""
        return self._sampler.draw(self.split_name, self._seed, self._rows(indices))[0].scenes()

    @property
    def fingerprint(self) -> str:
        identity = [VERSION, self.name, self._seed, self.split_name, len(self), self.image_size]
        return hashlib.sha256(repr(identity).encode()).hexdigest()

    @property
    def preparation(self) -> dict[str, Any]:
        return {"resize": "none (drawn at this size)", "crop": "none", "flip": False, "supersampling": SUPERSAMPLING}

    def _rows(self, indices: Indices) -> Integers:
        rows = indices.cpu().numpy() if isinstance(indices, Tensor) else np.asarray(indices)
        rows = rows.astype(np.int64)
        if rows.size and not (rows.min() >= 0 and rows.max() < len(self)):
            raise IndexError(f"{self.name} {self.split_name} has examples 0 to {len(self) - 1}, not {rows.tolist()}")
        return rows
