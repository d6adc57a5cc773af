"""The transformer that decodes TokenFlow's semantic codes to the features of a teacher."""

import math

import torch
from torch import Tensor, nn

from .tokenflow import SemanticDecoder, task_layer
from .vit import Blocks
from .vit_clip import resize_positions


class ViTSemanticDecoder(SemanticDecoder):
    """Semantic codes (B, N, in_dim) -> (B, N, feature_dim), a ViT without biases of keys (BEiT v2, arXiv:2208.06366).

    A class token runs along and is dropped; the last norm is that of patch tokens; two layers lead to the teacher.

    Args:
        feature_dim: width of the teacher's features.
        native_grid: side of the grid that the table of positions is for; it is interpolated for other grids of codes.
    """

    def __init__(
        self,
        *,
        in_dim: int,
        width: int,
        num_layers: int,
        num_heads: int,
        feature_dim: int,
        native_grid: int,
    ):
        super().__init__()
        self.feature_dim = feature_dim
        self.embed = nn.Conv2d(in_dim, width, 1)
        self.class_token = nn.Parameter(torch.randn(width) * 0.02)
        self.positions = nn.Parameter(torch.randn(native_grid**2 + 1, width) * 0.02)
        self.blocks = Blocks(num_layers, width, num_heads, eps=1e-6, key_bias=False)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.to_features = task_layer(width, feature_dim)

    def forward(self, codes: Tensor) -> Tensor:
        side = math.isqrt(codes.shape[1])
        x = codes.transpose(1, 2).unflatten(2, (side, side))  # (B, in_dim, h, w)
        x = self.embed(x).flatten(2).transpose(1, 2)  # (B, N, D)
        x = torch.cat([self.class_token.expand(len(x), 1, -1), x], dim=1)
        x = self.blocks(x + resize_positions(self.positions, side))[:, 1:]
        return self.to_features(self.norm(x))
