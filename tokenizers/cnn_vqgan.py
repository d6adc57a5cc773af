"""The convolutional encoder and decoder of VQGAN (Esser et al. 2021, arXiv:2012.09841), LlamaGen and Chameleon."""

from collections.abc import Callable, Collection, Sequence
from itertools import pairwise

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


class ResidualBlock(nn.Module):
    """Two GroupNorm, silu, conv3x3; the shortcut is a 1x1 convolution where the width changes."""

    def __init__(self, in_channels: int, out_channels: int, num_groups: int, *, norm: MakeNorm = group_norm):
        super().__init__()
        self.norm1 = norm(in_channels, num_groups)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = norm(out_channels, num_groups)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, *conditions: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x, *conditions)))
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h, *conditions)))


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


class Level(nn.Module):
    """Residual blocks at one resolution, each followed by attention if asked for, then `resample`."""

    def __init__(
        self,
        widths: Sequence[int],
        num_groups: int,
        *,
        attention: bool,
        resample: nn.Module,
        norm: MakeNorm = group_norm,
    ):
        super().__init__()
        pairs = list(pairwise(widths))
        self.blocks = nn.ModuleList(ResidualBlock(low, high, num_groups, norm=norm) for low, high in pairs)
        self.attention = nn.ModuleList(
            AttentionBlock(high, num_groups, norm=norm) if attention else Unchanged() for _, high in pairs
        )
        self.resample = resample

    def forward(self, x: Tensor, *conditions: Tensor) -> Tensor:
        for block, attention in zip(self.blocks, self.attention, strict=True):
            x = attention(block(x, *conditions), *conditions)
        return self.resample(x)


class Middle(nn.Sequential):
    """Residual block, attention, residual block at the lowest resolution."""

    def __init__(self, channels: int, num_groups: int, *, norm: MakeNorm = group_norm):
        super().__init__(
            ResidualBlock(channels, channels, num_groups, norm=norm),
            AttentionBlock(channels, num_groups, norm=norm),
            ResidualBlock(channels, channels, num_groups, norm=norm),
        )

    def forward(self, x: Tensor, *conditions: Tensor) -> Tensor:
        for block in self:
            x = block(x, *conditions)
        return x


class VQGANEncoder(ConvEncoder):
    """(B, 3, H, W) in [-1, 1] -> (B, z_channels, H / stride, W / stride).

    Args:
        channels: width of the stem; level i has `channels * channel_multipliers[i]`, full resolution first.
        num_res_blocks: residual blocks per level.
        attention_levels: indices of the levels with attention after every residual block; the middle always has one.
            LlamaGen: the last level alone. Chameleon: none.
        num_groups: of every GroupNorm.
    """

    def __init__(
        self,
        *,
        channels: int,
        channel_multipliers: Sequence[int],
        num_res_blocks: int,
        attention_levels: Collection[int],
        z_channels: int,
        num_groups: int = 32,
    ):
        super().__init__()
        widths = level_widths(channels, channel_multipliers, attention_levels)
        last = len(widths) - 1
        self.stride = 2**last
        self.out_channels = z_channels
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.levels = nn.ModuleList(
            Level(
                (below, *[width] * num_res_blocks),
                num_groups,
                attention=i in attention_levels,
                resample=nn.Identity() if i == last else Downsample(width),
            )
            for i, (below, width) in enumerate(zip((channels, *widths), widths, strict=False))
        )
        self.middle = Middle(widths[-1], num_groups)
        self.norm = group_norm(widths[-1], num_groups)
        self.head = nn.Conv2d(widths[-1], z_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for level in self.levels:
            x = level(x)
        return self.head(F.silu(self.norm(self.middle(x))))


class VQGANDecoder(ConvDecoder):
    """(B, z_channels, h, w) -> (B, 3, h * stride, w * stride), one residual block more per level than the encoder.

    Arguments as in the encoder, full resolution first; `levels` runs from the deepest up. `norm` makes every norm.
    """

    def __init__(
        self,
        *,
        channels: int,
        channel_multipliers: Sequence[int],
        num_res_blocks: int,
        attention_levels: Collection[int],
        z_channels: int,
        num_groups: int = 32,
        norm: MakeNorm = group_norm,
    ):
        super().__init__()
        widths = level_widths(channels, channel_multipliers, attention_levels)
        self.stride = 2 ** (len(widths) - 1)
        self.in_channels = z_channels
        self.stem = nn.Conv2d(z_channels, widths[-1], 3, padding=1)
        self.middle = Middle(widths[-1], num_groups, norm=norm)
        above = (*widths[1:], widths[-1])
        self.levels = nn.ModuleList(
            Level(
                (above[i], *[widths[i]] * (num_res_blocks + 1)),
                num_groups,
                attention=i in attention_levels,
                resample=nn.Identity() if i == 0 else Upsample(widths[i]),
                norm=norm,
            )
            for i in reversed(range(len(widths)))
        )
        self.norm = norm(widths[0], num_groups)
        self.head = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, z: Tensor, *conditions: Tensor) -> Tensor:
        x = self.middle(self.stem(z), *conditions)
        for level in self.levels:
            x = level(x, *conditions)
        return self.head(F.silu(self.norm(x, *conditions)))


def level_widths(channels: int, multipliers: Sequence[int], attention_levels: Collection[int]) -> tuple[int, ...]:
    outside = [i for i in attention_levels if not 0 <= i < len(multipliers)]
    if not multipliers or outside:
        raise ValueError(
            f"channel_multipliers={tuple(multipliers)} has {len(multipliers)} levels, numbered from 0; "
            f"attention_levels={tuple(attention_levels)} must name some of them."
        )
    return tuple(channels * multiplier for multiplier in multipliers)
