"""How well decoded features agree with a teacher's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .results import Rows, row


class FeatureAgreement:
    """Streaming cosine between decoded features and a teacher's, place by place.

    Features of nearly equal images are nearly equal: a constant already has a high cosine. The row therefore carries a
    `floor`, what the best constant feature of each place would score on the same images.
    """

    def __init__(self) -> None:
        self._images = 0
        self._cosine = 0.0
        self._targets: Tensor | None = None  # (N, D) sum of unit features

    def update(self, decoded: Tensor, targets: Tensor) -> None:
        """Adds (B, N, D) twice."""
        if decoded.ndim != 3 or decoded.shape != targets.shape:
            raise ValueError(
                f"decoded features are {tuple(decoded.shape)} and the teacher's {tuple(targets.shape)}; both must be "
                "(B, N, D)."
            )
        units = F.normalize(targets.double(), dim=-1)
        self._cosine += float((F.normalize(decoded.double(), dim=-1) * units).sum(-1).mean(1).sum())
        total = units.sum(0)
        self._targets = total if self._targets is None else self._targets + total
        self._images += len(decoded)

    def rows(self) -> Rows:
        """`sem/cosine`: mean over places and images, n images."""
        if self._targets is None:
            raise ValueError("no features were compared; sem/cosine needs at least one image (is the split empty?).")
        floor = torch.linalg.vector_norm(self._targets / self._images, dim=-1).mean()
        return {"sem/cosine": row(self._cosine / self._images, self._images, floor=float(floor))}
