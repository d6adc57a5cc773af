"""The patch discriminator of TiTok: blurred strides, group normalization, a fixed number of verdicts per image."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BlurDiscriminator(nn.Module):
    """(B, 3, H, W) in [0, 1] -> logits (B, 1, 16, 16) of being real; H and W at least 2^(stages + 4).

    Convolution 5x5; per stage convolution 3x3, blur with stride 2 (Zhang 2019, arXiv:1904.11486), GroupNorm; the
    strongest response of each of 16x16 regions; two more convolutions. Leaky ReLU (0.1) between all of them.

    Args:
        channels: of the first convolution and the first stage; each further stage doubles them.
    """

    def __init__(self, *, channels: int = 128, num_stages: int = 3, num_groups: int = 32):
        super().__init__()
        if channels % num_groups or num_stages < 1:
            raise ValueError(
                f"channels={channels} must be a multiple of num_groups={num_groups} and num_stages={num_stages} at "
                f"least 1; use channels={max(channels // num_groups, 1) * num_groups} (discriminator)."
            )
        widths = [channels, *(channels * 2**i for i in range(num_stages))]
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 5, padding=2), nn.LeakyReLU(0.1))
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(low, high, 3, padding=1), Blur(), nn.GroupNorm(num_groups, high), nn.LeakyReLU(0.1))
            for low, high in pairwise(widths)
        )
        self.head = nn.Sequential(
            nn.Conv2d(widths[-1], widths[-1], 1), nn.LeakyReLU(0.1), nn.Conv2d(widths[-1], 1, 5, padding=2)
        )

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for stage in self.stages:
            x = stage(x)
        return self.head(F.adaptive_max_pool2d(x, 16))


class Blur(nn.Module):
    """Halves height and width (rounding up) under the 4x4 binomial kernel, channel by channel."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        row = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", (row[:, None] * row)[None, None])  # (1, 1, 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        height, width = (same_padding(size) for size in x.shape[2:])
        kernel = self.kernel.expand(x.shape[1], -1, -1, -1)
        return F.conv2d(F.pad(x, (*width, *height)), kernel, stride=2, groups=x.shape[1])


def same_padding(size: int) -> tuple[int, int]:
    """Zeros before and after `size` values so that a kernel of 4 with stride 2 gives half as many, as in TensorFlow."""
    total = 3 if size % 2 else 2
    return total // 2, total - total // 2
