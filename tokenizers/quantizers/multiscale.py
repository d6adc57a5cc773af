"""Residual quantization over growing grids: each scale corrects what the coarser ones left."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .vq import VectorQuantizer

Choose = Callable[[Tensor], tuple[Tensor, Tensor, dict[str, Tensor]]]  # as `VectorQuantizer.quantize`


@dataclass(frozen=True)
class Scale:
    """What was found at one scale: vectors (B, side^2, C) as compared, ids (B, side^2), losses."""

    vectors: Tensor
    ids: Tensor
    losses: dict[str, Tensor]


class MultiScaleQuantizer(nn.Module):
    """A square map as codes of several grids, coarse to fine (VAR, Tian et al. 2024, arXiv:2404.02905, algorithm 1).

    At each scale the residual is averaged down to the grid of that scale, looked up in the one codebook that all scales
    share, and the codes, resized to the last grid, are taken off the residual. Their sum is the quantized map.
    As in TokenFlow (Qu et al. 2024, arXiv:2412.03069) there are no convolutions after resizing, and the residual is not
    normalized although codes may have unit length.

    Args:
        scales: sides of the grids, growing; the last is the side of the map.
        scale_drop: probability in training that a batch leaves out one scale, drawn among all but the first
            (TokenFlow: 0.1). The last may be the one; codes are still resized to its grid.
    """

    def __init__(self, quantizer: VectorQuantizer, *, scales: Sequence[int], scale_drop: float = 0.0):
        super().__init__()
        scales = tuple(scales)
        if not scales or scales[0] < 1 or any(low >= high for low, high in pairwise(scales)):
            raise ValueError(
                f"scales={scales} are no growing sides of grids; give for example (1, 2, 4, 8) (tokenizer.scales)."
            )
        if not 0 <= scale_drop <= 1 or (scale_drop and len(scales) == 1):
            raise ValueError(
                f"scale_drop={scale_drop} with {len(scales)} scales: needed is a probability in [0, 1], and 0 for a "
                "single scale, as the first is never left out (tokenizer.scale_drop)."
            )
        self.quantizer = quantizer
        self.scales = scales
        self.scale_drop = scale_drop
        self.codebook_size = quantizer.codebook_size
        self.dim = quantizer.dim
        self.step_lengths = tuple(side**2 for side in scales)

    def set_step(self, step: int, total_steps: int) -> None:
        self.quantizer.set_step(step, total_steps)

    def forward(self, z: Tensor, *, dropped: int | None = None) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """(B, N, C) with N = scales[-1]^2 -> (map (B, N, C), ids (B, L), losses as means over the scales).

        The ids are those of all scales in order, in raster order within a scale. In training the codebook is kept up
        once per call, with the vectors of all scales. While vectors pass unquantized ids are None, there are no
        losses, and each scale passes its vectors on as the quantizer would compare them.

        Args:
            dropped: position in `scales` of one to leave out; None: none, apart from `scale_drop` in training.
        """
        if dropped is None:
            dropped = self._draw_dropped()
        scales = [side for position, side in enumerate(self.scales) if position != dropped]
        quantizer, z = self.quantizer, z.float()
        if self.training:
            if quantizer.is_unquantized():
                return self._descend(z, scales, pass_through)[0], None, {}
            task = quantizer.maintenance()
            if task is not None:
                with torch.no_grad():
                    found = self._descend(z, scales, pass_through if task == "fill" else quantizer.quantize)[1]
                quantizer.maintain(flatten(found))
        total, found = self._descend(z, scales, quantizer.quantize)
        ids = torch.cat([scale.ids for scale in found], dim=1)  # (B, L)
        if self.training:
            quantizer.average(flatten(found), ids.flatten())
        losses = {name: torch.stack([scale.losses[name] for scale in found]).mean() for name in found[0].losses}
        return total, ids, losses

    def _descend(self, z: Tensor, scales: Sequence[int], choose: Choose) -> tuple[Tensor, list[Scale]]:
        """The map (B, N, C) that the codes of all scales make, and what was found at each."""
        total, residual, found = torch.zeros_like(z), z, []
        for side in scales:
            vectors = self.quantizer.unit(resize(residual, side, "area"))  # (B, side^2, C)
            codes, ids, losses = choose(vectors)
            found.append(Scale(vectors.detach(), ids, losses))
            large = resize(codes, self.scales[-1], "bicubic")  # (B, N, C)
            total, residual = total + large, residual - large.detach()
        return total, found

    def lookup(self, ids: Tensor) -> Tensor:
        """Ids of the first scales (B, L') -> the map they make (B, N, C)."""
        total = None
        for codes in self.codes_of_scales(ids):
            large = resize(codes, self.scales[-1], "bicubic")
            total = large if total is None else total + large
        assert total is not None
        return total

    def step_inputs(self, ids: Tensor, *, refined: int | None = None) -> Tensor:
        """Ids of the first k scales (B, L') -> what predicts scales 2..k+1, (B, their cells, C), or 2..K if complete.

        The block of a scale is the sum of the codes before it, resized from each grid to the next one in turn (not
        from the last grid, as in `lookup`).

        Args:
            refined: scale, counted from 1, whose block already includes its own codes, so that a model can look at what
                it drew there and draw again.
        """
        codes = self.codes_of_scales(ids)
        if refined is not None and not 1 <= refined < len(codes):
            raise ValueError(f"refined={refined} is no scale with ids and an input; use 1 to {len(codes) - 1}.")
        blocks: list[Tensor] = []
        running = codes[0]
        for position in range(1, min(len(codes) + 1, len(self.scales))):
            running = resize(running, self.scales[position], "bicubic")
            blocks.append(running)
            if position < len(codes):
                running = running + codes[position]
                if position == refined:
                    blocks[-1] = running
        return torch.cat(blocks, dim=1) if blocks else codes[0][:, :0]

    def codes_of_scales(self, ids: Tensor) -> list[Tensor]:
        """Ids of the first scales (B, L') -> codes of each of them, (B, side^2, C)."""
        lengths, given = [], 0
        for length in self.step_lengths:
            if given == ids.shape[-1] and lengths:
                break
            lengths.append(length)
            given += length
        if ids.ndim != 2 or given != ids.shape[1]:
            below = given - lengths[-1]
            raise ValueError(
                f"ids have shape {tuple(ids.shape)}; needed is (B, L) with the ids of whole scales, "
                f"{f'{below} or {given}' if below else given} (scales={self.scales})."
            )
        return [self.quantizer.lookup(part) for part in ids.split(lengths, dim=1)]

    def _draw_dropped(self) -> int | None:
        if not self.training or not self.scale_drop or torch.rand((), device="cpu").item() >= self.scale_drop:
            return None
        return int(torch.randint(1, len(self.scales), (), device="cpu"))


def pass_through(vectors: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """In place of a quantizer while vectors pass unquantized; the ids mean nothing."""
    return vectors, torch.zeros(vectors.shape[:-1], dtype=torch.int64, device=vectors.device), {}


def flatten(found: Sequence[Scale]) -> Tensor:
    """The vectors of all scales, (B * L, C)."""
    return torch.cat([scale.vectors for scale in found], dim=1).flatten(0, 1)


def resize(cells: Tensor, side: int, mode: Literal["area", "bicubic"]) -> Tensor:
    """A square map (B, N, C) on a grid of side^2 cells, (B, side^2, C)."""
    old = math.isqrt(cells.shape[1])
    if old == side:
        return cells
    grid = cells.transpose(1, 2).unflatten(2, (old, old))  # (B, C, old, old)
    return F.interpolate(grid, size=(side, side), mode=mode).flatten(2).transpose(1, 2)
