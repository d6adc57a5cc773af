"""The data contract: what every source gives, whatever it reads."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Question:
    """One question about an image; `answer` is what a correct model says, word for word."""

    kind: str  # what accuracy is grouped by: "colour", "shape", ...
    text: str
    answer: str


@dataclass(frozen=True, eq=False)
class Example:
    """One image with everything the source knows about it."""

    image: Tensor  # (3, H, W) uint8 RGB; where it was decoded from a file, a view of (H, W, 3)
    caption: str | None
    label: int | None  # index into the dataset's `class_names`
    questions: tuple[Question, ...]
    key: str  # names the example in logs and reports; unique within its split


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples as a model reads them; row i of every field belongs to `indices[i]`."""

    images: Tensor  # (B, 3, H, W) float32 RGB in [0, 1]
    captions: list[str] | None  # None: the source has no captions
    labels: Tensor | None  # (B,) int64; None: the source has no labels
    questions: list[tuple[Question, ...]]
    indices: Tensor  # (B,) int64


class ImageDataset(ABC):
    """One split of a source at one image size: map-style and deterministic, so example i is the same at every visit."""

    name: str  # source and variant, e.g. "scenes/simple"
    image_size: int  # pixels; images are square
    has_captions: bool
    has_questions: bool
    class_names: tuple[str, ...] | None
    skipped: list[tuple[str, str]]  # (key, reason) of every unusable file met so far

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Example: ...

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hex digest of everything the examples depend on: content, split, image preparation, version of the code."""

    @property
    @abstractmethod
    def preparation(self) -> dict[str, Any]:
        """How images come to `image_size` (resize, crop, flip), as plain values; recorded in every run."""

    def batch(self, indices: Sequence[int] | Tensor, step: int | None = None) -> Batch:
        """Whole batches, the path that training uses; sources with a faster way override it.

        Args:
            indices: (B,) positions in [0, len(self)).
            step: the training step, which decides random crops and flips where a source has them; None: the plain view.
        """
        rows = torch.as_tensor(indices, dtype=torch.int64)
        examples = [self[index] for index in rows.tolist()]
        captions = [example.caption for example in examples if example.caption is not None]
        labels = [example.label for example in examples if example.label is not None]
        assert not self.has_captions or len(captions) == len(examples), f"{self.name}: an example without a caption"
        assert self.class_names is None or len(labels) == len(examples), f"{self.name}: an example without a label"
        return Batch(
            images=to_unit_range(torch.stack([example.image for example in examples])),
            captions=captions if self.has_captions else None,
            labels=torch.tensor(labels) if self.class_names is not None else None,
            questions=[example.questions for example in examples],
            indices=rows,
        )

    def annotations(self, indices: Sequence[int] | Tensor) -> tuple[list[str] | None, list[tuple[Question, ...]]]:
        """Captions and questions without images: all that training on cached ids and features needs.

        Sources that know them without decoding override it.
        """
        batch = self.batch(indices)
        return batch.captions, batch.questions


class DataSource(ABC):
    """Where images come from; built from yaml once, then asked for its splits at the tokenizer's image size."""

    name: str
    world: Any | None = None  # a world whose scenes can be checked against captions; None for everything but scenes

    @abstractmethod
    def split(self, name: Split, image_size: int) -> ImageDataset:
        """The examples of one split as square images of `image_size` pixels.

        Raises:
            ValueError: unknown split, or an image size the source cannot give.
        """


def to_unit_range(images: Tensor) -> Tensor:
    """uint8 (..., 3, H, W) in 0..255 to float32 of the same shape in [0, 1]."""
    return images.to(torch.float32).div_(255.0)


def check_split(name: str) -> None:
    """Raises ValueError, with the names there are, for a split no source has."""
    if name not in SPLITS:
        raise ValueError(f"split={name!r} is unknown; use one of {', '.join(SPLITS)}.")
