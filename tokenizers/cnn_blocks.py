"""Blocks and levels that the convolutional tokenizers are made of (Esser et al. 2021, arXiv:2012.09841)."""

from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from .vq import ConvDecoder, ConvEncoder


def group_norm(channels: int, num_groups: int) -> nn.Module:
    if channels % num_groups:
        raise ValueError(
            f"{channels} channels do not divide into num_groups={num_groups}; use a divisor of {channels} (num_groups)."
        )
    return nn.GroupNorm(num_groups, channels, eps=1e-6)


# Makes a norm of (channels, num_groups). A norm that depends on more than its input (Emu3's on the codes) receives what
# the decoder was given as `conditions`, through every block.
MakeNorm = Callable[[int, int], nn.Module]
MakeBlock = Callable[[int, int], nn.Module]  # of (in_channels, out_channels)


class ResidualBlock(nn.Module):
    """Two norm, silu, conv3x3, with dropout before the second convolution.

    silu replaces the output of the norm, which nothing else needs: one large tensor less to make, the same values.

    Args:
        bias: of all convolutions of the block.
        shortcut: where the width changes, a 1x1 convolution leads around the block from its "input". With "output" it
            reads what the block has computed, and the input is lost: MaskGIT-VQGAN's weights were trained like that,
            and only they need it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_groups: int,
        *,
        norm: MakeNorm = group_norm,
        bias: bool = True,
        dropout: float = 0.0,
        shortcut: Literal["input", "output"] = "input",
    ):
        super().__init__()
        if shortcut not in ("input", "output"):
            raise ValueError(f"shortcut={shortcut!r} must be 'input' or 'output' (shortcut).")
        self.norm1 = norm(in_channels, num_groups)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)
        self.norm2 = norm(out_channels, num_groups)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=bias)
        self.reads_output = shortcut == "output" and in_channels != out_channels
        around = out_channels if self.reads_output else in_channels
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv2d(around, out_channels, 1, bias=bias)

    def forward(self, x: Tensor, *conditions: Tensor) -> Tensor:
        # One name for every intermediate result, so that each is gone before the next but one is made.
        h = F.silu(self.norm1(x, *conditions), inplace=True)
        h = self.conv1(h)
        h = F.silu(self.norm2(h, *conditions), inplace=True)
        h = self.conv2(self.dropout(h))
        return self.shortcut(h if self.reads_output else x) + h


class AttentionBlock(nn.Module):
    """Self-attention over all positions with one head, residual."""

    def __init__(self, channels: int, num_groups: int, *, norm: MakeNorm = group_norm):
        super().__init__()
        self.norm = norm(channels, num_groups)
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, *conditions: Tensor) -> Tensor:
        h = self.norm(x, *conditions)
        query, key, value = (
            project(h).flatten(2).transpose(1, 2)[:, None]  # (B, 1, h*w, C)
            for project in (self.query, self.key, self.value)
        )
        h = F.scaled_dot_product_attention(query, key, value)[:, 0].transpose(1, 2).unflatten(2, x.shape[2:])
        return x + self.out(h)


class Downsample(nn.Module):
    """conv3x3 with stride 2, padded by one row and column at the bottom right alone, as in VQGAN."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Nearest x2, then conv3x3."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Unchanged(nn.Module):
    """The place of a block that is not there."""

    def forward(self, x: Tensor, *conditions: Tensor) -> Tensor:
        return x


class Chain(nn.Sequential):
    """Blocks one after the other, all seeing the same conditions."""

    def forward(self, x: Tensor, *conditions: Tensor) -> Tensor:
        for block in self:
            x = block(x, *conditions)
        return x


class Level(nn.Module):
    """Blocks at one resolution, each followed by attention if there is any, then `resample`."""

    def __init__(
        self,
        widths: Sequence[int],
        block: MakeBlock,
        *,
        attention: Callable[[int], nn.Module] | None = None,
        resample: nn.Module | None = None,
    ):
        super().__init__()
        pairs = list(pairwise(widths))
        self.blocks = nn.ModuleList(block(low, high) for low, high in pairs)
        self.attention = nn.ModuleList(attention(high) if attention else Unchanged() for _, high in pairs)
        self.resample = resample or nn.Identity()

    def forward(self, x: Tensor, *conditions: Tensor) -> Tensor:
        for block, attention in zip(self.blocks, self.attention, strict=True):
            x = attention(block(x, *conditions), *conditions)
        return self.resample(x)


class LevelsEncoder(ConvEncoder):
    """Stem, levels from full resolution down, middle, norm, silu, head: each factor of 2 is the end of a level."""

    def __init__(self, stem: nn.Module, levels: Sequence[Level], middle: Chain, norm: nn.Module, head: nn.Conv2d):
        super().__init__()
        self.stride = 2 ** (len(levels) - 1)
        self.out_channels = head.out_channels
        self.stem = stem
        self.levels = nn.ModuleList(levels)
        self.middle = middle
        self.norm = norm
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for level in self.levels:
            x = level(x)
        return self.head(F.silu(self.norm(self.middle(x)), inplace=True))


class LevelsDecoder(ConvDecoder):
    """Stem, middle, levels from the deepest up, norm, silu, head. What is given beside `z` reaches every norm."""

    def __init__(self, stem: nn.Conv2d, middle: Chain, levels: Sequence[Level], norm: nn.Module, head: nn.Module):
        super().__init__()
        self.stride = 2 ** (len(levels) - 1)
        self.in_channels = stem.in_channels
        self.stem = stem
        self.middle = middle
        self.levels = nn.ModuleList(levels)
        self.norm = norm
        self.head = head

    def forward(self, z: Tensor, *conditions: Tensor) -> Tensor:
        x = self.middle(self.stem(z), *conditions)
        for level in self.levels:
            x = level(x, *conditions)
        return self.head(F.silu(self.norm(x, *conditions), inplace=True))


def level_widths(channels: int, multipliers: Sequence[int], attention_levels: Collection[int] = ()) -> tuple[int, ...]:
    outside = [i for i in attention_levels if not 0 <= i < len(multipliers)]
    if not multipliers or outside:
        raise ValueError(
            f"channel_multipliers={tuple(multipliers)} has {len(multipliers)} levels, numbered from 0; "
            f"attention_levels={tuple(attention_levels)} must name some of them."
        )
    return tuple(channels * multiplier for multiplier in multipliers)
