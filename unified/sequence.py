"""Documents of segments -> one packed batch: a single flat token stream, no padding, no loop over tokens.

Letters: T tokens of the stream, W images written, L ids of an image, R images read, M features of an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .attention import Packing


@dataclass(frozen=True)
class Text:
    """Text ids (n,), special tokens included; `loss` says whether the model learns to predict them."""

    ids: np.ndarray
    loss: bool = False


@dataclass(frozen=True)
class ReadImage:
    """An image the model reads: row `index` of the batch's features. Nothing is predicted."""

    index: int


@dataclass(frozen=True)
class WriteImage:
    """An image the model writes: row `index` of the batch's ids, every one of them predicted."""

    index: int


Segment = Text | ReadImage | WriteImage
Document = Sequence[Segment]


@dataclass(frozen=True)
class PackedBatch:
    """Documents side by side in one stream of T input tokens, each with positions of its own.

    The inputs of a document are its tokens without the last, the targets its tokens without the first. The embeddings
    of the stream are rows of `[embedded text_ids; embedded image_ids; adapted features]`, taken in the order of `rows`.
    """

    text_ids: Tensor  # (n,) text tokens of the inputs, in stream order
    image_ids: Tensor  # (W, L) ids of the images written
    features: Tensor | None  # (R, M, F) features of the images read, or their ids (R, M)
    rows: Tensor  # (T,) into n text rows, then W * L image rows, then R * M feature rows
    positions: Tensor  # (T,) restarting at 0 in every document
    packing: Packing
    text_at: Tensor  # (S,) stream positions whose next token is supervised text
    text_targets: Tensor  # (S,)
    image_at: Tensor  # (I,) stream positions whose next token is an image id
    image_targets: Tensor  # (I,)
    image_slots: Tensor  # (I,) which of the L ids of its image each target is

    @property
    def num_tokens(self) -> int:
        """Input tokens of the stream, T."""
        return self.rows.shape[0]

    def to(self, device: torch.device | str) -> "PackedBatch":
        """The same batch on a device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if value is not None}
        return replace(self, **moved)


def pack(documents: Sequence[Document], *, ids: Tensor | None = None, features: Tensor | None = None) -> PackedBatch:
    """Lay documents out in one stream.

    Args:
        documents: lists of segments in reading order, each document of at least two tokens.
        ids: (B, L) int64, what `WriteImage.index` points into.
        features: (B, M, F), what `ReadImage.index` points into; ids (B, M) where the model reads ids.

    Raises:
        ValueError: no documents, a document of fewer than two tokens, or an image segment without its tensor.
    """
    segments = [segment for document in documents for segment in document]
    writes = [segment.index for segment in segments if isinstance(segment, WriteImage)]
    reads = [segment.index for segment in segments if isinstance(segment, ReadImage)]
    if not documents:
        raise ValueError("there is nothing to pack; give at least one document.")
    if writes and ids is None:
        raise ValueError("a document writes an image, but no image ids were given (ids).")
    if reads and features is None:
        raise ValueError("a document reads an image, but no features were given (features).")
    length = ids.shape[1] if ids is not None else 0
    num_features = features.shape[1] if features is not None else 0
    image_ids = _select(ids, writes) if ids is not None else torch.zeros(0, 0, dtype=torch.int64)

    tokens, kinds, supervised, lengths = _flatten(documents, length, num_features)
    starts = np.cumsum(lengths) - lengths
    inner = np.ones(len(tokens), dtype=bool)
    inner[starts + lengths - 1] = False  # the last token of a document is nobody's input
    is_input = np.flatnonzero(inner)
    targets = is_input + 1

    kind = kinds[is_input]
    text_rows = tokens[is_input][kind == _TEXT]
    offsets = np.array([0, len(text_rows), len(text_rows) + len(writes) * length])
    rows = tokens[is_input] + offsets[kind]
    rows[kind == _TEXT] = np.arange(len(text_rows))
    input_lengths = lengths - 1
    positions = np.arange(len(rows)) - np.repeat(np.cumsum(input_lengths) - input_lengths, input_lengths)

    target_kind = kinds[targets]
    text_at = np.flatnonzero((target_kind == _TEXT) & supervised[targets])
    image_at = np.flatnonzero(target_kind == _WRITE)
    image_slots = torch.from_numpy(tokens[targets[image_at]])
    return PackedBatch(
        text_ids=torch.from_numpy(text_rows),
        image_ids=image_ids,
        features=_select(features, reads) if features is not None and reads else None,
        rows=torch.from_numpy(rows),
        positions=torch.from_numpy(positions),
        packing=Packing(input_lengths.tolist()),
        text_at=torch.from_numpy(text_at),
        text_targets=torch.from_numpy(tokens[targets[text_at]]),
        image_at=torch.from_numpy(image_at),
        image_targets=image_ids.flatten()[image_slots],
        image_slots=image_slots % max(length, 1),
    )


_TEXT, _WRITE, _READ = range(3)


def _flatten(documents: Sequence[Document], length: int, num_features: int) -> tuple[np.ndarray, ...]:
    """Every token of every document: its number among its kind, its kind, whether it is supervised; and the lengths.

    Text tokens are numbered by their id; image tokens count through the images in order of appearance.
    """
    tokens, kinds, supervised, sizes, lengths = [], [], [], [], []
    num_writes = num_reads = 0
    for document in documents:
        total = 0
        for segment in document:
            if isinstance(segment, Text):
                tokens.append(segment.ids)
                kinds.append(_TEXT)
                supervised.append(segment.loss)
            elif isinstance(segment, WriteImage):
                tokens.append(np.arange(num_writes * length, (num_writes + 1) * length))
                kinds.append(_WRITE)
                supervised.append(True)
                num_writes += 1
            else:
                tokens.append(np.arange(num_reads * num_features, (num_reads + 1) * num_features))
                kinds.append(_READ)
                supervised.append(False)
                num_reads += 1
            sizes.append(len(tokens[-1]))
            total += sizes[-1]
        if total < 2:
            raise ValueError(f"document {len(lengths)} has {total} tokens; predicting anything needs at least 2.")
        lengths.append(total)
    return np.concatenate(tokens), np.repeat(kinds, sizes), np.repeat(supervised, sizes), np.array(lengths)


def _select(rows: Tensor, indices: list[int]) -> Tensor:
    return rows[torch.tensor(indices, dtype=torch.int64, device=rows.device)]
