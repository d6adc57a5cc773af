"""Vector quantization whose little-used codes are drawn towards the vectors of each batch (CVQ-VAE)."""

import torch
from torch import Tensor

from .vq import VectorQuantizer


class ClusteringQuantizer(VectorQuantizer):
    """After each training step, every code moves towards its nearest vector of the batch, the more the less it is used.

    Zheng and Vedaldi 2023, arXiv:2307.15139, equations 4 and 5, with the constants of TA-TiTok (arXiv:2501.07730): code
    k becomes e_k (1 - d_k) + f_k d_k, where f_k is the nearest vector before any normalization, and
    d_k = exp(-10 K p_k / (1 - decay) - 0.001) with p_k the moving average of the share of vectors that get code k. A
    code in mean use (p_k = 1 / K) stays put; one that nobody uses is replaced. The codebook also learns by gradient.

    Args:
        decay: of the moving average of use, per step.
    """

    usage: Tensor

    def __init__(self, codebook_size: int, dim: int, *, normalize: bool, decay: float = 0.99):
        super().__init__(codebook_size, dim, normalize=normalize, decay=decay)
        self.register_buffer("usage", torch.zeros(codebook_size))  # (K,) p_k

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        z_q, ids, losses = super().forward(z)
        if self.training and ids is not None:
            self.attract(z.detach().float().reshape(-1, self.dim), ids.reshape(-1))
        return z_q, ids, losses

    @torch.no_grad()
    def attract(self, vectors: Tensor, ids: Tensor) -> None:
        """Update the usage and the codebook from vectors (N, C) as the encoder gave them, and their ids (N,)."""
        share = torch.zeros_like(self.usage).index_add_(0, ids, torch.ones_like(vectors[:, 0])) / len(ids)
        self.usage.lerp_(share, 1 - self.decay)
        distances = torch.cdist(
            self.unit(self.codebook), self.unit(vectors), compute_mode="donot_use_mm_for_euclid_dist"
        )  # (K, N)
        nearest = vectors[distances.argmin(1)]  # (K, C)
        pull = torch.exp(-self.usage * self.codebook_size * 10 / (1 - self.decay) - 1e-3)[:, None]
        self.codebook.copy_(self.codebook * (1 - pull) + nearest * pull)
