"""Which shape, size and texture a blob has: the nearest of all outlines, blurred and shifted, in free colours."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

BLURS = (0.0, 0.8, 1.4, 2.0)  # standard deviations in pixels; reconstructions are softer than what was drawn
SHIFT = 2  # pixels by which the middle of a blob's box may miss the centre of its outline
MARGIN = 3  # pixels around the largest shifted outline, for its blurred rim


@dataclass(frozen=True, eq=False)
class Matches:
    """The best template of n blobs."""

    shape: Tensor  # (n,) int64
    size: Tensor  # (n,) int64
    shift: Tensor  # (n, 2) int64: the outline's centre from the middle of the window, (y, x) in pixels
    explained: Tensor  # (n,) share in [0, 1] of the blob's energy that the template accounts for
    modulation: Tensor  # (n, 3) colour that comes and goes with the stripes, half of bright minus dark


class TemplateBank:
    """Least-squares match of coloured windows against every (shape, size, blur, shift).

    A plain object is its coverage times one colour, a striped one adds its coverage times the stripes times another.
    Both colours are free, so a template is a plane of at most two directions per channel, and the best template is
    the one whose plane holds the most of the window's energy: no colour, background or contrast has to be known.

    Args:
        coverage: (shapes, sizes, S, S) in [0, 1].
        stripes: (S,) share of each row that is bright, in [0, 1]; None: the world has no striped objects.
    """

    def __init__(self, coverage: Tensor, stripes: Tensor | None) -> None:
        margin = SHIFT + MARGIN
        self.half = coverage.shape[-1] // 2 + margin  # of the windows, pixels
        self._sizes = coverage.shape[1]
        outlines = F.pad(coverage.flatten(0, 1), (margin,) * 4)  # (shapes * sizes, W, W)
        steps = range(-SHIFT, SHIFT + 1)
        self._shifts = torch.tensor([(y, x) for _ in BLURS for y in steps for x in steps])
        plain = self._vary(outlines)  # (templates, W * W)
        norms = plain.norm(dim=1, keepdim=True)
        self._planes = plain / norms
        self._modulation_norms: Tensor | None = None
        if stripes is not None:
            signs = F.pad(2 * stripes - 1, (margin, margin))  # 1 in bright rows, -1 in dark ones
            striped = self._vary(outlines * signs[:, None])
            rest = striped - (striped * self._planes).sum(1, keepdim=True) * self._planes
            self._modulation_norms = rest.norm(dim=1)
            self._planes = torch.cat([self._planes, rest / self._modulation_norms[:, None]])
        self._planes = self._planes.T.contiguous()  # (W * W, templates * directions)

    def match(self, windows: Tensor) -> Matches:
        """The best template of each window: (n, 3, 2 half, 2 half), as differences from the background."""
        rows = torch.arange(len(windows))
        parts = windows.flatten(2) @ self._planes  # (n, 3, templates * directions)
        energies = parts.square().sum(1)
        templates = energies.shape[1] // (1 if self._modulation_norms is None else 2)
        explained, best = energies.unflatten(1, (-1, templates)).sum(1).max(dim=1)
        if self._modulation_norms is None:
            modulation = torch.zeros(len(windows), 3)
        else:
            modulation = parts[rows, :, templates + best] / self._modulation_norms[best, None]
        outline, variant = best // len(self._shifts), best % len(self._shifts)
        return Matches(
            shape=outline // self._sizes,
            size=outline % self._sizes,
            shift=self._shifts[variant],
            explained=explained / windows.square().sum(dim=(1, 2, 3)).clamp(min=1e-9),
            modulation=modulation,
        )

    def _vary(self, pictures: Tensor) -> Tensor:
        """Every blur and shift of every picture: (outlines, W, W) -> (outlines * blurs * shifts, W * W)."""
        steps = range(-SHIFT, SHIFT + 1)
        blurred = [_blur(pictures, sigma) for sigma in BLURS]
        moved = [picture.roll((y, x), dims=(1, 2)) for picture in blurred for y in steps for x in steps]
        return torch.stack(moved, dim=1).flatten(2).flatten(0, 1)


def _blur(pictures: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (n, W, W), zero outside."""
    if sigma == 0:
        return pictures
    reach = int(3 * sigma + 1)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = kernel / kernel.sum()
    rows = F.conv2d(pictures[:, None], kernel[None, None, :, None], padding=(reach, 0))
    return F.conv2d(rows, kernel[None, None, None, :], padding=(0, reach))[:, 0]
