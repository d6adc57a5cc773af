"""One split of encoded images: decoded, prepared, and replaced where a file turns out to be broken."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .base import Batch, Example, ImageDataset, Question
from .images import ImageError, decode
from .preparation import Preparation
from .records import Records, Unusable

KEPT_BYTES = 512 * 2**20  # prepared splits up to here stay in memory after first use
VERSION = 1  # of the pixels this module gives for the same files and policy; part of every fingerprint


@dataclass(frozen=True, eq=False)
class Pool:
    """One opened container with everything its splits share. `captions` and `labels` are per row."""

    records: Records
    unusable: Unusable
    captions: list[str] | None
    labels: list[int] | None
    class_names: tuple[str, ...] | None


class EncodedImages(ImageDataset):
    """Rows of a pool as square images.

    A file that cannot be decoded is counted in `skipped` and its place is taken by the next row that can (cyclically),
    so what example i is depends on the files alone, not on the order of visits.

    Args:
        rows: (N,) rows of the pool in this split, none known to be unusable.
        skipped: (key, reason) of the files of this split that were refused when the pool was opened.
    """

    has_questions = False

    def __init__(
        self,
        name: str,
        pool: Pool,
        rows: np.ndarray,
        preparation: Preparation,
        image_size: int,
        skipped: list[tuple[str, str]],
    ) -> None:
        self.name = name
        self.image_size = image_size
        self.has_captions = pool.captions is not None
        self.class_names = pool.class_names
        self.skipped = skipped
        self._pool = pool
        self._rows = rows
        self._policy = preparation
        self._decodes: dict[int, bool] = {}  # positions tried so far
        self._keep = len(rows) * 3 * image_size**2 <= KEPT_BYTES
        # One array where all images have one size: numpy keeps it in huge pages, and JPEG is decoded in place.
        self._squares = np.empty((len(rows), image_size, image_size, 3), np.uint8) if self._keeps_squares else None
        self._kept: dict[int, np.ndarray] = {}  # by position; rows of `_squares` where there is one

    @property
    def _keeps_squares(self) -> bool:
        return self._keep and self._policy.crop != "random"

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is outside the {len(self)} examples of {self.name}")
        position, resized = self._resized(index)
        row = int(self._rows[position])
        pool = self._pool
        square = self._policy.view(resized, self.image_size, index, step=None)
        # Kept pixels are copied, so that what becomes of an example changes no other; others where torch needs it.
        own = square.copy() if self._keep else np.require(square, requirements=["C", "W"])
        return Example(
            image=torch.from_numpy(own).permute(2, 0, 1),
            caption=None if pool.captions is None else pool.captions[row],
            label=None if pool.labels is None else int(pool.labels[row]),
            questions=(),
            key=pool.records.keys[row],
        )

    def batch(self, indices: Sequence[int] | Tensor, step: int | None = None) -> Batch:
        """Whole batches.

        Args:
            indices: (B,) positions in [0, len(self)).
            step: which training step asks. Random crops and flips are a pure function of (seed, step, index), so a
                resumed run sees the same pixels. None: the plain view without chance, as `self[index]` gives it.
        """
        asked = torch.as_tensor(indices, dtype=torch.int64)
        pool, size = self._pool, self.image_size
        # allocated by numpy, whose large arrays use huge pages: half the time of torch.empty at 256 pixels
        images = np.empty((len(asked), 3, size, size), dtype=np.float32)
        rows = []
        for place, index in enumerate(asked.tolist()):
            if not 0 <= index < len(self):
                raise IndexError(f"index {index} is outside the {len(self)} examples of {self.name}")
            position, resized = self._resized(index)
            square = self._policy.view(resized, size, index, step)
            np.divide(square.transpose(2, 0, 1), np.float32(255), out=images[place])  # one pass: layout, float, [0, 1]
            rows.append(int(self._rows[position]))
        return Batch(
            images=torch.from_numpy(images),
            captions=None if pool.captions is None else [pool.captions[row] for row in rows],
            labels=None if pool.labels is None else torch.tensor([int(pool.labels[row]) for row in rows]),
            questions=[()] * len(rows),
            indices=asked,
        )

    @property
    def preparation(self) -> dict[str, Any]:
        return self._policy.record(self.image_size)

    def annotations(self, indices: Sequence[int] | Tensor) -> tuple[list[str] | None, list[tuple[Question, ...]]]:
        """Captions without images. A file is decoded once to learn whether another image stands in its place."""
        asked = torch.as_tensor(indices, dtype=torch.int64).tolist()
        captions = self._pool.captions
        if captions is None:
            return None, [()] * len(asked)
        answering = [index if self._decodes.get(index) else self._resized(index)[0] for index in asked]
        return [captions[int(self._rows[position])] for position in answering], [()] * len(asked)

    @cached_property
    def fingerprint(self) -> str:
        pool = self._pool
        digest = hashlib.sha256(json.dumps([VERSION, self.preparation, self.class_names]).encode())
        digest.update(pool.records.identity.encode())
        for row in self._rows.tolist():
            caption = "" if pool.captions is None else pool.captions[row]
            label = "" if pool.labels is None else pool.labels[row]
            digest.update(f"{pool.records.keys[row]}\0{caption}\0{label}\0".encode())
        return digest.hexdigest()

    def _resized(self, index: int) -> tuple[int, np.ndarray]:
        """The position that answers for `index`, and its pixels: the index itself unless its file is broken."""
        for offset in range(len(self)):
            position = (index + offset) % len(self)
            if self._decodes.get(position) is False:
                continue
            kept = self._kept.get(position)
            if kept is not None:
                return position, kept
            place = None if self._squares is None else self._squares[position]
            try:
                resized = self._load(position, place)
            except ImageError as error:
                self._refuse(position, str(error))
                continue
            self._decodes[position] = True
            if self._keep:
                if place is None:
                    place = resized.copy()  # the crop is a view that would keep the whole image alive
                elif not np.may_share_memory(place, resized):
                    place[:] = resized
                self._kept[position] = resized = place
            return position, resized
        raise ValueError(f"none of the {len(self)} images of {self.name} can be decoded.")

    def _load(self, position: int, place: np.ndarray | None) -> np.ndarray:
        pixels = decode(self._pool.records.read(int(self._rows[position])), place)
        if min(pixels.shape[:2]) < self._policy.min_size:
            raise ImageError(f"{pixels.shape[1]}x{pixels.shape[0]} pixels, less than min_size={self._policy.min_size}")
        return self._policy.resized(pixels, self.image_size)

    def _refuse(self, position: int, reason: str) -> None:
        row = int(self._rows[position])
        self._decodes[position] = False
        self.skipped.append((self._pool.records.keys[row], reason))
        self._pool.unusable.add(row, reason)
