"""Vision transformer parts: pre-norm blocks with full attention, shared by every ViT of the published tokenizers."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head self-attention over all positions; query, key and value come from one matrix, in this order.

    Args:
        key_bias: without it, queries and values have a bias and keys have none (BEiT, arXiv:2106.08254).
    """

    def __init__(self, width: int, num_heads: int, *, key_bias: bool = True):
        super().__init__()
        if num_heads < 1 or width % num_heads:
            fitting = max(n for n in range(1, max(num_heads, 1) + 1) if width % n == 0)
            raise ValueError(f"width={width} does not divide into num_heads={num_heads}; use {fitting} heads.")
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width, bias=key_bias)
        self.query_bias = None if key_bias else nn.Parameter(torch.zeros(width))
        self.value_bias = None if key_bias else nn.Parameter(torch.zeros(width))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, L, D) -> (B, L, D). `mask` is bool, broadcastable to (B, 1, L, L): True where a query sees a key."""
        bias = self.qkv.bias
        if self.query_bias is not None and self.value_bias is not None:
            bias = torch.cat([self.query_bias, torch.zeros_like(self.query_bias), self.value_bias])
        qkv = F.linear(x, self.qkv.weight, bias)  # (B, L, 3 D)
        query, key, value = qkv.unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, L, D / heads)
        x = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(x.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)).

    Args:
        mlp_ratio: width between the two layers of the MLP, in widths of the block.
        eps: of both LayerNorms.
        activation: between the two layers of the MLP; `nn.GELU()` is the exact one.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        eps: float = 1e-5,
        activation: Callable[[], nn.Module] = nn.GELU,
        key_bias: bool = True,
    ):
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attention = Attention(width, num_heads, key_bias=key_bias)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), activation(), nn.Linear(hidden, width))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, L, D) -> (B, L, D); `mask` as in `Attention`."""
        x = x + self.attention(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


class Blocks(nn.ModuleList):
    """`depth` equal blocks, one after the other; arguments as in `Block`."""

    def __init__(
        self,
        depth: int,
        width: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        eps: float = 1e-5,
        activation: Callable[[], nn.Module] = nn.GELU,
        key_bias: bool = True,
    ):
        super().__init__(
            Block(width, num_heads, mlp_ratio=mlp_ratio, eps=eps, activation=activation, key_bias=key_bias)
            for _ in range(depth)
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, L, D) -> (B, L, D); `mask` as in `Attention`."""
        for block in self:
            x = block(x, mask)
        return x


def patch_grid(image_size: int, patch_size: int) -> int:
    """Patches along one side of a square image.

    Raises:
        ValueError: the image does not divide into patches.
    """
    if patch_size < 1 or image_size < patch_size or image_size % patch_size:
        low = max(image_size // max(patch_size, 1), 1) * max(patch_size, 1)
        raise ValueError(
            f"image_size={image_size} does not divide into patches of {patch_size}; use {low} or {low + patch_size} "
            "(image_size, patch_size)."
        )
    return image_size // patch_size


def reset_linear(module: nn.Module) -> None:
    """Linear and convolution layers start truncated normal (0.02) without bias, as in BERT; for `nn.Module.apply`.

    The matrix of queries, keys and values starts Xavier uniform, as torch's own multi-head attention.
    """
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, Attention):  # `apply` visits children first
        nn.init.xavier_uniform_(module.qkv.weight)
