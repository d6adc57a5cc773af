"""Two codebooks under one index: the semantic and the pixel part of a code are chosen together."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .search import full_precision, nearest, search_table
from .vq import VectorQuantizer


class DualQuantizer(VectorQuantizer):
    """One index for two codebooks (TokenFlow, Qu et al. 2024, arXiv:2412.03069, section 3.1).

    Vectors and codes are [semantic, pixel]; each part is brought to unit length by itself. The index is the one with
    the least |z_s - e_s|^2 + pixel_weight * |z_p - e_p|^2. Losses are means over both parts together. The other
    arguments are `VectorQuantizer`'s: moving averages share one count, and revival takes both parts from one vector.

    Args:
        pixel_weight: of the pixel distance in the choice of the index; the paper uses 1.
    """

    def __init__(
        self,
        codebook_size: int,
        semantic_dim: int,
        pixel_dim: int,
        *,
        pixel_weight: float = 1.0,
        update: Literal["gradient", "ema"] = "gradient",
        decay: float = 0.99,
        unquantized_until: float = 0.0,
        revive_until: float = 0.0,
        revive_every: int = 10,
        revive_below: float = 0.03,
        entropy_temperature: float | None = None,
        seed: int = 0,
    ):
        if semantic_dim < 1 or pixel_dim < 1 or not pixel_weight >= 0:
            raise ValueError(
                f"semantic_dim={semantic_dim} and pixel_dim={pixel_dim} must be at least 1 and "
                f"pixel_weight={pixel_weight} at least 0 (quantizer)."
            )
        self.semantic_dim = semantic_dim  # before the base class, which brings the first codes to unit length
        self.pixel_dim = pixel_dim
        self.pixel_weight = pixel_weight
        super().__init__(
            codebook_size,
            semantic_dim + pixel_dim,
            normalize=True,
            update=update,
            decay=decay,
            unquantized_until=unquantized_until,
            revive_until=revive_until,
            revive_every=revive_every,
            revive_below=revive_below,
            entropy_temperature=entropy_temperature,
            seed=seed,
        )
        self._table_codebook = torch.empty(0)  # what `_table` was made from, as it is stored

    def split(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(..., C) -> the semantic part (..., semantic_dim) and the pixel part (..., pixel_dim)."""
        return vectors[..., : self.semantic_dim], vectors[..., self.semantic_dim :]

    def unit(self, vectors: Tensor) -> Tensor:
        return torch.cat([F.normalize(part, dim=-1) for part in self.split(vectors)], dim=-1)

    def part_distances(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(..., C) vectors that `unit` has been applied to -> squared distances (..., K) by meaning and by pixels."""
        pairs = zip(self.split(z.float()), self.split(self.unit(self.codebook.float())), strict=True)
        with full_precision(z.device.type):
            semantic, pixel = (
                part.square().sum(-1, keepdim=True) + codes.square().sum(-1) - 2 * part @ codes.T
                for part, codes in pairs
            )
        return semantic, pixel

    def squared_distances(self, z: Tensor) -> Tensor:
        semantic, pixel = self.part_distances(z)
        return semantic + self.pixel_weight * pixel

    def nearest_ids(self, vectors: Tensor) -> Tensor:
        codebook = self.codebook.detach()
        if codebook.is_meta or self._table is None or not self._is_current(codebook):
            self._table = search_table(self._weighted(self.unit(codebook.float())), normalize=False)
            self._table_codebook = codebook.clone()
        return nearest(self._weighted(vectors), self._table)

    def _is_current(self, codebook: Tensor) -> bool:
        """Whether the table was made from these codes; comparing costs less than normalizing them at every scale."""
        before = self._table_codebook
        return before.device == codebook.device and before.dtype == codebook.dtype and torch.equal(before, codebook)

    def _weighted(self, vectors: Tensor) -> Tensor:
        """Scale the pixel parts so that plain squared distances are the weighted ones."""
        if self.pixel_weight == 1:
            return vectors
        semantic, pixel = self.split(vectors)
        return torch.cat([semantic, pixel * self.pixel_weight**0.5], dim=-1)
