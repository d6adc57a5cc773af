"""The vision tower of CLIP (Radford et al. 2021, arXiv:2103.00020)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import VisionEncoder, check_images
from .vit import Blocks, patch_grid

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the approximation that CLIP was trained with."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class CLIPVision(VisionEncoder):
    """Patch features of CLIP's ViT in raster order, without the one of the class token.

    Args:
        native_size: image size that the table of positions was trained at; it is interpolated for another image_size.
        projection_dim: width of CLIP's common space, into which features are projected as for its contrastive loss;
            None: features as they are after the last norm.
        normalize_images: with CLIP's mean and deviation, as the tower was trained. False gives it images in [-1, 1]
            instead: the semantic encoder of TokenFlow-B was trained so, and its published weights need it.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        width: int,
        num_layers: int,
        num_heads: int,
        native_size: int | None = None,
        projection_dim: int | None = None,
        normalize_images: bool = True,
    ):
        super().__init__()
        grid = patch_grid(image_size, patch_size)
        native_grid = grid if native_size is None else patch_grid(native_size, patch_size)
        self.image_size = image_size
        self.grid_size = grid
        self.num_features = grid**2
        self.feature_dim = width if projection_dim is None else projection_dim
        mean, std = (MEAN, STD) if normalize_images else ((0.5,) * 3, (0.5,) * 3)
        self.normalize_images = normalize_images
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.patches = nn.Conv2d(3, width, patch_size, stride=patch_size, bias=False)
        self.class_token = nn.Parameter(torch.randn(width) * width**-0.5)
        self.positions = nn.Parameter(torch.randn(native_grid**2 + 1, width) * width**-0.5)
        self.norm_before = nn.LayerNorm(width)
        self.blocks = Blocks(num_layers, width, num_heads, activation=QuickGELU)
        self.norm_after = nn.LayerNorm(width)
        self.projection = None
        if projection_dim is not None:
            self.projection = nn.Parameter(torch.randn(width, projection_dim) * width**-0.5)

    def features(self, images: Tensor) -> Tensor:
        check_images(images, self.image_size)
        if self.normalize_images:
            images = images.clamp(0, 1)
        x = self.patches((images - self.mean) / self.std).flatten(2).transpose(1, 2)  # (B, N, D)
        x = torch.cat([self.class_token.expand(len(x), 1, -1), x], dim=1)  # (B, 1 + N, D)
        x = x + resize_positions(self.positions, self.grid_size)
        x = self.norm_after(self.blocks(self.norm_before(x))[:, 1:])
        return x if self.projection is None else x @ self.projection


def resize_positions(positions: Tensor, grid_size: int) -> Tensor:
    """A table (1 + old^2, D), the class token's first, for another grid: (1 + grid_size^2, D), bicubic.

    The factor is (grid_size + 0.1) / old as in DINO's and CLIP's code. It is more than a guard against a grid one too
    small: it sets where samples are taken, and published weights were used with it.
    """
    old = math.isqrt(len(positions) - 1)
    if old == grid_size:
        return positions
    table = positions[1:].T.unflatten(1, (old, old))[None]  # (1, D, old, old)
    table = F.interpolate(table, scale_factor=(grid_size + 0.1) / old, mode="bicubic")
    assert table.shape[2:] == (grid_size, grid_size)
    return torch.cat([positions[:1], table[0].flatten(1).T])
