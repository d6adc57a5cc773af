"""Exact nearest-code search in bounded memory.

The index is the one an exact search in float64 gives: scores are computed in float32, and the few vectors whose best
scores lie closer together than float32 can tell apart are searched again in float64. Ties go to the lowest index.
Half precision never enters: it changes several percent of the ids of a large codebook.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Scores of one chunk, in elements. On a CPU they must stay in cache (4 MB); a GPU needs rows to be busy (32 MB).
CPU_SCORES = 1 << 20
GPU_SCORES = 1 << 23
CHUNK_ROWS = (16, 2048)


@dataclass(frozen=True)
class SearchTable:
    """A codebook prepared for search; build it with `search_table` again whenever the codebook changes."""

    source: Tensor  # (K, C) a copy of the codebook this was built from
    codes: Tensor  # (K', C) float32, unit length if normalized, K' padded to whole blocks
    bias: Tensor | None  # (K', 1) -|e|^2 / 2; None if normalized: all codes are equally long
    radius: Tensor  # () length of the longest code
    block: int  # codes per block of the two-level search

    @property
    def normalized(self) -> bool:
        return self.bias is None

    def fits(self, codebook: Tensor) -> bool:
        """Whether the codebook still has the values this table was built from (comparing costs less than a search)."""
        source = self.source
        return source.device == codebook.device and source.shape == codebook.shape and torch.equal(source, codebook)


@torch.no_grad()
def search_table(codebook: Tensor, *, normalize: bool) -> SearchTable:
    """Prepare a codebook (K, C) for `nearest`, by cosine (`normalize`) or by Euclidean distance."""
    source = codebook.detach().float().clone()
    size = len(source)
    # Two levels of about sqrt(K) candidates each: a maximum over blocks is fast, an argmax over all codes is not.
    block = 2 ** math.ceil(math.log2(max(size, 2)) / 2)
    codes = F.normalize(source, dim=-1) if normalize else source
    codes = F.pad(codes, (0, 0, 0, -size % block))
    squares = codes.square().sum(-1, keepdim=True)
    return SearchTable(source, codes, None if normalize else -squares / 2, squares.max().sqrt(), block)


@torch.no_grad()
def nearest(z: Tensor, table: SearchTable) -> Tensor:
    """Vectors (N, C) -> ids (N,) int64 of their nearest codes. Extra memory does not grow with N, apart from the ids.

    |z - e|^2 is least where z.e - |e|^2 / 2 is greatest; with codes of unit length the second term is a constant.
    """
    ids = torch.empty(len(z), dtype=torch.int64, device=z.device)
    if z.is_meta:
        return ids
    unclear = torch.empty(len(z), dtype=torch.bool, device=z.device)
    size, padded = len(table.source), len(table.codes)
    budget = CPU_SCORES if z.device.type == "cpu" else GPU_SCORES
    rows = max(CHUNK_ROWS[0], min(CHUNK_ROWS[1], budget // padded))
    scores_buffer = torch.empty(padded, min(rows, len(z)), device=z.device)
    with full_precision(z.device.type):
        for start in range(0, len(z), rows):
            chunk = z[start : start + rows].float()  # (n, C)
            scores = (
                scores_buffer if len(chunk) == scores_buffer.shape[1] else scores_buffer[:, : len(chunk)].contiguous()
            )
            if table.bias is None:
                torch.mm(table.codes, chunk.T, out=scores)  # (K', n)
            else:
                torch.addmm(table.bias, table.codes, chunk.T, out=scores)
            scores[size:].fill_(-math.inf)
            blocks = scores.view(-1, table.block, len(chunk))  # (blocks, codes of a block, n)
            best_of_blocks = blocks.amax(1)  # (blocks, n)
            best, winner = best_of_blocks.max(0)  # (n,)
            inside = blocks[winner, :, torch.arange(len(chunk), device=z.device)]  # (n, codes of a block)
            ids[start : start + rows] = winner * table.block + inside.argmax(1)
            floor = best - rounding(chunk, table)
            rivals = (best_of_blocks >= floor).sum(0) + (inside >= floor[:, None]).sum(1)
            unclear[start : start + rows] = rivals > 2  # the best block and the best code count themselves
        for again in unclear.nonzero()[:, 0].split(max(1, budget // (4 * padded))):
            ids[again] = nearest_float64(z[again], table)
    return ids


def rounding(z: Tensor, table: SearchTable) -> Tensor:
    """(n,) the most by which two float32 scores can lie on the wrong side of each other: a bound, not an estimate."""
    unit = (z.shape[-1] + 8) * 2.0**-24  # C products and sums, the bias, the normalization of the code
    length = z.norm(dim=-1) * table.radius
    return 2 * unit * (length if table.normalized else length + table.radius.square())


def nearest_float64(z: Tensor, table: SearchTable) -> Tensor:
    """(n, C) -> (n,): the same search in float64, plainly. Costs n * K * 8 bytes."""
    z, codes = z.double(), table.source.double()
    if table.normalized:
        return (z @ F.normalize(codes, dim=-1).T).argmax(-1)
    return (z @ codes.T - codes.square().sum(-1) / 2).argmax(-1)


@contextmanager
def full_precision(device_type: str) -> Iterator[None]:
    """Real float32 matrix products: no autocast and no TF32 or bfloat16 behind float32, whatever the caller has set."""
    before = torch.get_float32_matmul_precision()
    if before != "highest":
        torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        if before != "highest":
            torch.set_float32_matmul_precision(before)
