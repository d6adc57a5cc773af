"""Light convolutional encoder and decoder without normalization: the family for small images and short training.

Space-to-depth instead of full-resolution stages, residual blocks that start as the identity, 2x2 strided convolutions
down and pixel-shuffle up. Without normalization it learns flat images several times faster than the VQGAN family at
the same width (per-sample statistics of nearly flat images are no help), and it needs no more than a fast optimizer.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from .vq import ConvDecoder, ConvEncoder


class LightBlock(nn.Module):
    """x + conv3x3(silu(conv3x3(silu(x)))); the second convolution starts at zero."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        assert self.conv2.bias is not None
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


def level(channels: int, num_blocks: int) -> nn.Sequential:
    return nn.Sequential(*(LightBlock(channels) for _ in range(num_blocks)))


class LightEncoder(ConvEncoder):
    """(B, 3, H, W) in [-1, 1] -> (B, widths[-1], H / stride, W / stride), stride = patch_size * 2^(levels - 1).

    Args:
        patch_size: side of the squares that pixel-unshuffle folds into channels.
        widths: channels of each level, full to coarse.
        num_blocks: residual blocks of each level.
    """

    def __init__(self, *, patch_size: int, widths: Sequence[int], num_blocks: Sequence[int]):
        super().__init__()
        check_levels(widths, num_blocks)
        self.stride = patch_size * 2 ** (len(widths) - 1)
        self.out_channels = widths[-1]
        self.stem = nn.Sequential(nn.PixelUnshuffle(patch_size), nn.Conv2d(3 * patch_size**2, widths[0], 3, padding=1))
        self.levels = nn.ModuleList(level(width, n) for width, n in zip(widths, num_blocks, strict=True))
        self.downs = nn.ModuleList(nn.Conv2d(low, high, 2, stride=2) for low, high in pairwise(widths))

    def forward(self, images: Tensor) -> Tensor:
        x = self.levels[0](self.stem(images))
        for down, blocks in zip(self.downs, self.levels[1:], strict=True):
            x = blocks(down(x))
        return x


class LightDecoder(ConvDecoder):
    """(B, in_channels, h, w) -> (B, 3, h * stride, w * stride): the encoder's mirror.

    Args:
        in_channels: channels after `VQTokenizer.from_codes`.
        patch_size, widths, num_blocks: as in the encoder, full to coarse as well; the coarsest level runs first.
    """

    def __init__(self, *, in_channels: int, patch_size: int, widths: Sequence[int], num_blocks: Sequence[int]):
        super().__init__()
        check_levels(widths, num_blocks)
        self.stride = patch_size * 2 ** (len(widths) - 1)
        self.in_channels = in_channels
        coarse_first = list(zip(widths, num_blocks, strict=True))[::-1]
        self.stem = nn.Conv2d(in_channels, widths[-1], 3, padding=1)
        self.levels = nn.ModuleList(level(width, n) for width, n in coarse_first)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(high, 4 * low, 1), nn.PixelShuffle(2)) for low, high in list(pairwise(widths))[::-1]
        )
        self.head = nn.Sequential(nn.Conv2d(widths[0], 3 * patch_size**2, 3, padding=1), nn.PixelShuffle(patch_size))

    def forward(self, z: Tensor) -> Tensor:
        x = self.levels[0](self.stem(z))
        for up, blocks in zip(self.ups, self.levels[1:], strict=True):
            x = blocks(up(x))
        return self.head(x)


def check_levels(widths: Sequence[int], num_blocks: Sequence[int]) -> None:
    if not widths or len(widths) != len(num_blocks):
        raise ValueError(
            f"widths={tuple(widths)} and num_blocks={tuple(num_blocks)} describe different numbers of levels; "
            "give one entry per level to both."
        )
