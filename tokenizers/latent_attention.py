"""Attention between an image's cells and an ordered row of latents, in a form that trains within minutes on a CPU.

Random latent queries under layer-normalized attention need thousands of steps before the latents see any object. What
makes them see it from the start, each measured on one-object scenes: every latent begins as the query of a region of
the image (`region_centers`), query and key projections begin equal, so that a query finds the cells nearest to it, and
queries and keys are of unit length with a learned temperature. Nothing of this is fixed; all of it learns.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .one_d import OneDDecoder, OneDEncoder
from .vq import ConvDecoder, ConvEncoder


class LatentAttentionEncoder(OneDEncoder):
    """Convolutional cells, read by N learned queries in one cross-attention block: (B, 3, H, W) -> (B, N, dim).

    Args:
        trunk: gives the cells; its channels are the width of the attention and a multiple of 4 and of `num_heads`.
        dim: width of the latents.
        mlp_dim: hidden width of the block's feed-forward part.
    """

    def __init__(
        self, trunk: ConvEncoder, *, image_size: int, num_latents: int, dim: int, num_heads: int, mlp_dim: int
    ):
        super().__init__()
        grid_size = cells_along(image_size, trunk.stride)
        width = trunk.out_channels
        self.image_size = image_size
        self.num_latents = num_latents
        self.dim = dim
        self.trunk = trunk
        self.positions = nn.Parameter(position_features(grid_centers(grid_size, grid_size), width))
        self.queries = nn.Parameter(position_features(region_centers(num_latents), width))
        self.attention = CrossAttention(width, num_heads=num_heads, mlp_dim=mlp_dim)
        self.to_latents = nn.Linear(width, dim)

    def forward(self, images: Tensor) -> Tensor:
        cells = self.trunk(images * 2 - 1).flatten(2).transpose(1, 2)  # (B, M, D)
        cells = F.rms_norm(cells, cells.shape[-1:])
        return self.to_latents(self.attention(self.queries, cells + self.positions, cells))


class LatentAttentionDecoder(OneDDecoder):
    """One query per cell reads the kept latents in one cross-attention block; convolutions make the picture.

    Beside the latents each cell sees a learned null token, to which it can turn when the latents it wants are dropped.

    Args:
        pixels: cells to images; its input channels are the width of the attention, a multiple of 4 and `num_heads`.
        num_latents: of all latents.
        dim: width of the latents.
        mlp_dim: hidden width of the block's feed-forward part.
    """

    def __init__(
        self, pixels: ConvDecoder, *, image_size: int, num_latents: int, dim: int, num_heads: int, mlp_dim: int
    ):
        super().__init__()
        self.grid_size = cells_along(image_size, pixels.stride)
        width = pixels.in_channels
        self.dim = dim
        self.from_latents = nn.Linear(dim, width)
        self.positions = nn.Parameter(position_features(region_centers(num_latents), width))
        self.queries = nn.Parameter(position_features(grid_centers(self.grid_size, self.grid_size), width))
        self.null = nn.Parameter(torch.randn(1, width))
        self.attention = CrossAttention(width, num_heads=num_heads, mlp_dim=mlp_dim)
        self.pixels = pixels

    def forward(self, latents: Tensor, kept: Tensor | None = None) -> Tensor:
        return (self.pixels(self.grid(latents, kept)) + 1) / 2

    def grid(self, latents: Tensor, kept: Tensor | None = None) -> Tensor:
        """(B, k, dim), and (B,) kept latents of each image -> (B, D, h, w), what the convolutions see."""
        stream = self.from_latents(latents)
        stream = F.rms_norm(stream, stream.shape[-1:])  # (B, k, D)
        batch, length, width = stream.shape
        null = self.null.to(stream.dtype).expand(batch, 1, width)
        keys = torch.cat([null, stream + self.positions[:length]], dim=1)
        visible = None
        if kept is not None:
            visible = torch.arange(length + 1, device=kept.device) <= kept[:, None]  # (B, 1 + k): null first
        cells = (
            self.attention(self.queries, keys, torch.cat([null, stream], dim=1), visible) + self.queries
        )  # (B, M, D)
        return cells.transpose(1, 2).unflatten(2, (self.grid_size, self.grid_size))


class CrossAttention(nn.Module):
    """Queries that are the same for every image read values of each: (Q, D), (B, M, D), (B, M, D) -> (B, Q, D).

    Queries and keys have unit length and a learned temperature per head. Each head's projections of queries and of keys
    begin as the same orthonormal rows: attention begins as the similarity of queries and keys in random subspaces.
    """

    def __init__(self, width: int, *, num_heads: int, mlp_dim: int, temperature: float = 16.0):
        super().__init__()
        if width % num_heads:
            raise ValueError(
                f"num_heads={num_heads} does not divide the width {width}; use a divisor (tokenizer.encoder.num_heads, "
                "tokenizer.decoder.num_heads)."
            )
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.temperature = nn.Parameter(torch.full((num_heads, 1, 1), temperature))
        self.mlp = nn.Sequential(nn.Linear(width, mlp_dim), nn.SiLU(), nn.Linear(mlp_dim, width))
        with torch.no_grad():
            for rows in self.query.weight.split(width // num_heads):
                nn.init.orthogonal_(rows)
            self.key.weight.copy_(self.query.weight)
            for bias in (self.query.bias, self.key.bias):
                bias.zero_()

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None = None) -> Tensor:
        """`visible` (B, M) bool: which keys of each image can be seen; None: all."""
        q = F.normalize(self.query(queries).unflatten(-1, (self.num_heads, -1)).transpose(0, 1), dim=-1)  # (H, Q, E)
        k = F.normalize(self._heads(self.key(keys)), dim=-1)  # (B, H, M, E)
        scores = (q * self.temperature) @ k.mT  # (B, H, Q, M)
        if visible is not None:
            scores = scores.masked_fill(~visible[:, None, None], -math.inf)
        read = scores.softmax(-1).to(values.dtype) @ self._heads(self.value(values))
        x = self.out(read.transpose(1, 2).flatten(2))
        return x + self.mlp(F.rms_norm(x, x.shape[-1:]))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, M, D) -> (B, H, M, E)


def cells_along(image_size: int, stride: int) -> int:
    if image_size % stride or image_size < stride:
        low = max(image_size // stride, 1) * stride
        raise ValueError(
            f"image_size={image_size} does not divide into {stride}x{stride} cells; use {low} or {low + stride} "
            "(tokenizer.encoder.image_size)."
        )
    return image_size // stride


def grid_centers(rows: int, columns: int) -> Tensor:
    """(rows * columns, 2): y and x of the cell centers in (0, 1), in raster order."""
    y, x = (torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns
    return torch.cartesian_prod(y, x)


def region_centers(count: int) -> Tensor:
    """(count, 2): centers of the regions of the most nearly square grid of `count` cells, in a scattered order.

    The order is a fixed shuffle, so that encoder and decoder agree on it: neighboring latents begin far apart, and any
    leading ones see the whole image.
    """
    rows = next(rows for rows in range(math.isqrt(count), 0, -1) if count % rows == 0)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0), device="cpu")
    return grid_centers(rows, count // rows)[order.to(torch.get_default_device())]


def position_features(centers: Tensor, width: int) -> Tensor:
    """(n, 2) in (0, 1) -> (n, width): sines and cosines of both coordinates at width / 4 frequencies up to 8 pi."""
    if width % 4:
        raise ValueError(f"the width {width} of the attention is not a multiple of 4; use {width // 4 * 4 + 4}.")
    angles = centers[:, :, None] * (math.pi * torch.linspace(0.5, 8, width // 4))  # (n, 2, width / 4)
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)
