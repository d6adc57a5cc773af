"""Encoder and decoder of TiTok (Yu et al. 2024, arXiv:2406.07550), which are also those of One-D-Piece."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .one_d import OneDDecoder, OneDEncoder
from .vit import Blocks, patch_grid, reset_linear


class TiTokEncoder(OneDEncoder):
    """ViT over a class token, the patches and N learned latent tokens, of which the latter are kept.

    (B, 3, H, W) in [0, 1], not normalized further -> (B, num_latents, dim).

    Args:
        dim: width of a latent vector; a variational tokenizer takes half of it as mean, half as log variance.
        legacy_reshape: the two-stage TiTok weights and all One-D-Piece weights were trained with the (N, width) latents
            read as (width, N) without a transpose before the last projection, so that token i sees feature
            (c * N + i) mod width of latent (c * N + i) div width on channel c, and tail drop orders slices of features.
            Only those weights need it; without it, token i comes from latent i alone.
    """

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        width: int,
        depth: int,
        num_heads: int,
        num_latents: int,
        dim: int,
        mlp_ratio: float = 4.0,
        legacy_reshape: bool = False,
    ):
        super().__init__()
        check_num_latents(num_latents)
        self.image_size = image_size
        self.num_latents = num_latents
        self.dim = dim
        self.legacy_reshape = legacy_reshape
        self.patches = nn.Conv2d(3, width, patch_size, stride=patch_size)
        self.class_token = embeddings(1, width)
        self.positions = embeddings(1 + patch_grid(image_size, patch_size) ** 2, width)
        self.latent_tokens = embeddings(num_latents, width)
        self.latent_positions = embeddings(num_latents, width)
        self.norm_in = nn.LayerNorm(width)
        self.blocks = Blocks(depth, width, num_heads, mlp_ratio=mlp_ratio)
        self.norm_out = nn.LayerNorm(width)
        self.out = nn.Linear(width, dim)
        self.apply(reset_linear)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patches(images).flatten(2).transpose(1, 2)  # (B, grid^2, D)
        class_token = self.class_token.expand(len(images), -1, -1)
        latents = (self.latent_tokens + self.latent_positions).expand(len(images), -1, -1)  # (B, N, D)
        x = torch.cat([torch.cat([class_token, patches], 1) + self.positions, latents], 1)  # (B, 1 + grid^2 + N, D)
        x = self.norm_out(self.blocks(self.norm_in(x))[:, -self.num_latents :])  # (B, N, D)
        if self.legacy_reshape:
            x = x.reshape(len(x), -1, self.num_latents).transpose(1, 2)  # (B, N, D), features of all latents mixed
        return self.out(x)


class TiTokDecoder(OneDDecoder):
    """ViT over a class token, one mask token per patch and the latents; the patches go to `head`.

    (B, k, dim) for 1 <= k <= num_latents -> whatever the head makes of a grid: an image, or logits of proxy codes.
    Latents that are left out are simply not there: nothing stands in for them.

    Args:
        head: builds the head from (width, patch_size); see titok_heads.py.
    """

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        width: int,
        depth: int,
        num_heads: int,
        num_latents: int,
        dim: int,
        head: Callable[[int, int], nn.Module],
        mlp_ratio: float = 4.0,
    ):
        super().__init__()
        check_num_latents(num_latents)
        self.dim = dim
        self.num_latents = num_latents
        self.grid_size = patch_grid(image_size, patch_size)  # patches along one side
        self.embed = nn.Linear(dim, width)
        self.class_token = embeddings(1, width)
        self.mask_token = nn.Parameter(torch.randn(1, 1, width) * width**-0.5)
        self.positions = embeddings(1 + self.grid_size**2, width)
        self.latent_positions = embeddings(num_latents, width)
        self.norm_in = nn.LayerNorm(width)
        self.blocks = Blocks(depth, width, num_heads, mlp_ratio=mlp_ratio)
        self.norm_out = nn.LayerNorm(width)
        self.apply(reset_linear)
        self.head = head(width, patch_size)

    def forward(self, latents: Tensor, kept: Tensor | None = None) -> Tensor:
        return self.head(self.grid(latents, kept))

    def grid(self, latents: Tensor, kept: Tensor | None = None) -> Tensor:
        """(B, k, dim) -> (B, width, g, g), what the head sees; with `kept` (B,) image b has its first kept[b] alone."""
        batch, count, _ = latents.shape
        cells = self.grid_size**2
        latents = self.embed(latents) + self.latent_positions[:count]  # (B, k, D)
        queries = torch.cat([self.class_token[None], self.mask_token.expand(1, cells, -1)], 1) + self.positions
        x = torch.cat([queries.expand(batch, -1, -1), latents], 1)  # (B, 1 + grid^2 + k, D)
        mask = None
        if kept is not None:
            place = torch.arange(x.shape[1], device=x.device)
            mask = (place < 1 + cells + kept[:, None])[:, None, None]  # (B, 1, 1, L): nobody sees a dropped latent
        x = self.norm_out(self.blocks(self.norm_in(x), mask)[:, 1 : 1 + cells])  # (B, grid^2, D)
        return x.transpose(1, 2).unflatten(2, (self.grid_size, self.grid_size))


def embeddings(count: int, width: int) -> nn.Parameter:
    """(count, width) learned vectors of about unit length."""
    return nn.Parameter(torch.randn(count, width) * width**-0.5)


def check_num_latents(num_latents: int) -> None:
    if num_latents < 1:
        raise ValueError(f"num_latents={num_latents} makes no token; use at least 1 (num_latents).")
