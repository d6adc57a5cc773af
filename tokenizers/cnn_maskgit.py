"""The convolutional encoder and decoder of MaskGIT's VQGAN (Chang et al. 2022, arXiv:2202.04200), TiTok's pixel side.

VQGAN's levels without attention, with average pooling and fewer biases. Two things differ beyond the parts: pixels are
in [0, 1] on both sides (`GridTokenizer(pixel_range=(0, 1))`), and the middle has as many blocks as a level.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal

from torch import nn

from .cnn_blocks import Chain, Level, LevelsDecoder, LevelsEncoder, ResidualBlock, Upsample, group_norm, level_widths


class MaskGITEncoder(LevelsEncoder):
    """(B, 3, H, W) -> (B, z_channels, H / stride, W / stride).

    Args:
        channels: width of the stem; level i has `channels * channel_multipliers[i]`, full resolution first.
        num_res_blocks: per level and in the middle.
        num_groups: of every GroupNorm.
        dropout: in every residual block.
        shortcut: as in `ResidualBlock`; the published weights need "output".
    """

    def __init__(
        self,
        *,
        channels: int,
        channel_multipliers: Sequence[int],
        num_res_blocks: int,
        z_channels: int,
        num_groups: int = 32,
        dropout: float = 0.0,
        shortcut: Literal["input", "output"] = "input",
    ):
        widths = level_widths(channels, channel_multipliers)
        block = partial(ResidualBlock, num_groups=num_groups, bias=False, dropout=dropout, shortcut=shortcut)
        last = len(widths) - 1
        super().__init__(
            stem=nn.Conv2d(3, channels, 3, padding=1, bias=False),
            levels=[
                Level((below, *[width] * num_res_blocks), block, resample=None if i == last else nn.AvgPool2d(2))
                for i, (below, width) in enumerate(zip((channels, *widths), widths, strict=False))
            ],
            middle=Chain(*(block(widths[-1], widths[-1]) for _ in range(num_res_blocks))),
            norm=group_norm(widths[-1], num_groups),
            head=nn.Conv2d(widths[-1], z_channels, 1),
        )


class MaskGITDecoder(LevelsDecoder):
    """(B, z_channels, h, w) -> (B, 3, h * stride, w * stride). Arguments as in the encoder."""

    def __init__(
        self,
        *,
        channels: int,
        channel_multipliers: Sequence[int],
        num_res_blocks: int,
        z_channels: int,
        num_groups: int = 32,
        dropout: float = 0.0,
        shortcut: Literal["input", "output"] = "input",
    ):
        widths = level_widths(channels, channel_multipliers)
        block = partial(ResidualBlock, num_groups=num_groups, bias=False, dropout=dropout, shortcut=shortcut)
        above = (*widths[1:], widths[-1])
        super().__init__(
            stem=nn.Conv2d(z_channels, widths[-1], 3, padding=1),
            middle=Chain(*(block(widths[-1], widths[-1]) for _ in range(num_res_blocks))),
            levels=[
                Level(
                    (above[i], *[widths[i]] * num_res_blocks), block, resample=None if i == 0 else Upsample(widths[i])
                )
                for i in reversed(range(len(widths)))
            ],
            norm=group_norm(widths[0], num_groups),
            head=nn.Conv2d(widths[0], 3, 3, padding=1),
        )
