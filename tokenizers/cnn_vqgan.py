"""The convolutional encoder and decoder of VQGAN (Esser et al. 2021, arXiv:2012.09841), LlamaGen and Chameleon."""

from collections.abc import Collection, Sequence
from functools import partial

from torch import nn

from .cnn_blocks import (
    AttentionBlock,
    Chain,
    Downsample,
    Level,
    LevelsDecoder,
    LevelsEncoder,
    MakeNorm,
    ResidualBlock,
    Upsample,
    group_norm,
    level_widths,
)


class VQGANEncoder(LevelsEncoder):
    """(B, 3, H, W) in [-1, 1] -> (B, z_channels, H / stride, W / stride).

    Args:
        channels: width of the stem; level i has `channels * channel_multipliers[i]`, full resolution first.
        num_res_blocks: residual blocks per level.
        attention_levels: indices of the levels with attention after every residual block; the middle always has one.
            LlamaGen: the last level alone. Chameleon: none.
        num_groups: of every norm.
        dropout: in every residual block.
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
        dropout: float = 0.0,
    ):
        widths = level_widths(channels, channel_multipliers, attention_levels)
        block = partial(ResidualBlock, num_groups=num_groups, dropout=dropout)
        attention = partial(AttentionBlock, num_groups=num_groups)
        last = len(widths) - 1
        super().__init__(
            stem=nn.Conv2d(3, channels, 3, padding=1),
            levels=[
                Level(
                    (below, *[width] * num_res_blocks),
                    block,
                    attention=attention if i in attention_levels else None,
                    resample=None if i == last else Downsample(width),
                )
                for i, (below, width) in enumerate(zip((channels, *widths), widths, strict=False))
            ],
            middle=Chain(block(widths[-1], widths[-1]), attention(widths[-1]), block(widths[-1], widths[-1])),
            norm=group_norm(widths[-1], num_groups),
            head=nn.Conv2d(widths[-1], z_channels, 3, padding=1),
        )


class VQGANDecoder(LevelsDecoder):
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
        dropout: float = 0.0,
        norm: MakeNorm = group_norm,
    ):
        widths = level_widths(channels, channel_multipliers, attention_levels)
        block = partial(ResidualBlock, num_groups=num_groups, norm=norm, dropout=dropout)
        attention = partial(AttentionBlock, num_groups=num_groups, norm=norm)
        above = (*widths[1:], widths[-1])
        super().__init__(
            stem=nn.Conv2d(z_channels, widths[-1], 3, padding=1),
            middle=Chain(block(widths[-1], widths[-1]), attention(widths[-1]), block(widths[-1], widths[-1])),
            levels=[
                Level(
                    (above[i], *[widths[i]] * (num_res_blocks + 1)),
                    block,
                    attention=attention if i in attention_levels else None,
                    resample=None if i == 0 else Upsample(widths[i]),
                )
                for i in reversed(range(len(widths)))
            ],
            norm=norm(widths[0], num_groups),
            head=nn.Conv2d(widths[0], 3, 3, padding=1),
        )
