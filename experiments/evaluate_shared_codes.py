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
from ..tokenizers.base import ImageTokenizer
from .phase import Evaluation
from .pictures import to_uint8

CODES = 8  # per grid
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


def add_shared_codes(result: Evaluation, tokenizer: ImageTokenizer, ids: Tensor, test: ImageDataset) -> None:
    """Keep patches of codes that several test images share: `patches/<side>` (n, 3, p, p) uint8 for each grid.

    Codes are ranked by the number of images that hold them; those of rank 1, 2, 4, 8, ... are shown, so that rare codes
    are seen beside frequent ones and none is picked by hand. `notes["shared_codes"]` lists them in the order of their
    patches.

    Args:
        ids: (B, L) of test images 0 to B - 1.
    """
    found: list[dict[str, Any]] = []
    assert tokenizer.vocab_size is not None
    for grid in token_grids(tokenizer):
        rows = shared_codes(ids[:, grid.start : grid.start + grid.side**2].cpu(), tokenizer.vocab_size)
        if rows:
            places = [place for row in rows for place in row["patches"]]
            result.tensors[f"patches/{grid.side}"] = _cut(test, grid, places).contiguous()
            found += [{"grid": grid.side, **row} for row in rows]
    if found:
        result.notes["shared_codes"] = found


def shared_codes(ids: Tensor, vocab_size: int) -> list[dict[str, Any]]:
    """Of (B, cells) ids the codes of rank 1, 2, 4, ... by images that hold them, at least two each.

    Each row has `code`, `rank`, `uses`, `images` and `patches`: (image, position) in the first images that hold the
    code, in each at the middle one of its places.
    """
    uses = torch.bincount(ids.flatten(), minlength=vocab_size)
    holders = torch.zeros(vocab_size, dtype=torch.int64)
    for row in ids:
        holders[row.unique()] += 1
    order = sorted((-int(holders[code]), -int(uses[code]), code) for code in holders.ge(2).nonzero()[:, 0].tolist())
    rows: list[dict[str, Any]] = []
    for rank in (2**power for power in range(CODES)):
        if rank > len(order):
            break
        code = order[rank - 1][2]
        patches: list[list[int]] = []
        for image in (ids == code).any(1).nonzero()[:PATCHES, 0].tolist():
            places = (ids[image] == code).nonzero()[:, 0].tolist()
            patches.append([image, places[len(places) // 2]])
        shown = {"code": code, "rank": rank, "uses": int(uses[code]), "images": int(holders[code])}
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
    return to_uint8(stacked)
