"""Emu3's vision tokenizer for still images (Wang et al. 2024, arXiv:2409.18869): a VQGAN of clips, read at one frame.

The published model compresses clips in time as well. A still image is a clip that repeats it; the first frame of the
decoded clip is the image. Both are computed here without the work that cannot change the result: the encoder runs
once, because the frames are equal, and only the first frame is decoded, because no convolution looks ahead in time.

Letters: C = z_channels, the width of the codes; T frames; h, w cells.
"""

from collections.abc import Collection, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cnn_blocks import group_norm
from .cnn_vqgan import VQGANDecoder, VQGANEncoder
from .vq import ConvDecoder, ConvEncoder

TIME_PADDING = 2  # frames of zeros before the first one, whatever the kernel: a kernel of 4 with stride 2 halves T


class CausalConv3d(nn.Module):
    """Convolution over (B, C, T, h, w) that sees no later frames; h and w stay."""

    def __init__(self, channels: int, kernel_size: tuple[int, int, int], *, time_stride: int = 1):
        super().__init__()
        self.conv = nn.Conv3d(channels, channels, kernel_size, stride=(time_stride, 1, 1))
        height, width = kernel_size[1] - 1, kernel_size[2] - 1
        left, top = (width + 1) // 2, (height + 1) // 2
        self.padding = (left, width - left, top, height - top, TIME_PADDING, 0)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, self.padding))


class TemporalBlock(nn.Module):
    """Two BatchNorm, silu, causal convolution, residual."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm1 = nn.BatchNorm3d(channels)
        self.conv1 = CausalConv3d(channels, (3, 3, 3))
        self.norm2 = nn.BatchNorm3d(channels)
        self.conv2 = CausalConv3d(channels, (3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(h)))


class CodeNorm(nn.Module):
    """GroupNorm whose scale and shift are read off the codes of a cell (MoVQ, Zheng et al. 2022, arXiv:2209.09002)."""

    def __init__(self, channels: int, num_groups: int, *, code_dim: int):
        super().__init__()
        self.group_norm = group_norm(channels, num_groups)
        self.scale = nn.Conv2d(code_dim, channels, 1)
        self.shift = nn.Conv2d(code_dim, channels, 1)

    def forward(self, x: Tensor, codes: Tensor) -> Tensor:
        """(B, channels, H, W) and (B, C, h, w) -> (B, channels, H, W); cells are spread over their pixels."""
        scale, shift = (
            F.interpolate(read(codes), size=x.shape[2:], mode="nearest") for read in (self.scale, self.shift)
        )
        return torch.addcmul(shift, self.group_norm(x), scale)


class Emu3Encoder(ConvEncoder):
    """(B, 3, H, W) in [-1, 1] -> (B, C, H / stride, W / stride), any H and W that stride divides.

    Args:
        channels, channel_multipliers, num_res_blocks, attention_levels, num_groups: as in VQGANEncoder.
        z_channels: C, and the width of the codes as well.
        num_frames: of the clip that becomes one frame of codes; a power of 2.
    """

    def __init__(
        self,
        *,
        channels: int,
        channel_multipliers: Sequence[int],
        num_res_blocks: int,
        attention_levels: Collection[int],
        z_channels: int,
        num_frames: int = 4,
        num_groups: int = 32,
    ):
        super().__init__()
        halvings = num_halvings(num_frames)
        self.num_frames = num_frames
        self.out_channels = z_channels
        self.frame = VQGANEncoder(
            channels=channels,
            channel_multipliers=channel_multipliers,
            num_res_blocks=num_res_blocks,
            attention_levels=attention_levels,
            z_channels=z_channels,
            num_groups=num_groups,
        )
        self.stride = self.frame.stride
        self.time_halves = nn.ModuleList(CausalConv3d(z_channels, (4, 3, 3), time_stride=2) for _ in range(halvings))
        self.time_blocks = nn.Sequential(*(TemporalBlock(z_channels) for _ in range(num_res_blocks)))
        self.to_codes = CausalConv3d(z_channels, (3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        x = self.frame(images)[:, :, None].expand(-1, -1, self.num_frames, -1, -1)  # (B, C, T, h, w)
        for halve in self.time_halves:
            x = F.silu(halve(x))
        return self.to_codes(self.time_blocks(x))[:, :, 0]  # one frame is left


class Emu3Decoder(ConvDecoder):
    """(B, C, h, w) codes -> (B, 3, h * stride, w * stride): VQGAN's decoder with norms that the codes modulate.

    Arguments as in the encoder. Frame 0 of the published decoder: its temporal convolutions pad the past with zeros,
    so frame 0 does not depend on the frames that upsampling in time would add.
    """

    def __init__(
        self,
        *,
        channels: int,
        channel_multipliers: Sequence[int],
        num_res_blocks: int,
        attention_levels: Collection[int],
        z_channels: int,
        num_frames: int = 4,
        num_groups: int = 32,
    ):
        super().__init__()
        doublings = num_halvings(num_frames)
        self.in_channels = z_channels
        self.from_codes = CausalConv3d(z_channels, (3, 1, 1))
        self.time_blocks = nn.Sequential(*(TemporalBlock(z_channels) for _ in range(num_res_blocks)))
        self.time_doubles = nn.ModuleList(CausalConv3d(z_channels, (3, 3, 3)) for _ in range(doublings))
        self.frame = VQGANDecoder(
            channels=channels,
            channel_multipliers=channel_multipliers,
            num_res_blocks=num_res_blocks,
            attention_levels=attention_levels,
            z_channels=z_channels,
            num_groups=num_groups,
            norm=partial(CodeNorm, code_dim=z_channels),
        )
        self.stride = self.frame.stride

    def forward(self, z: Tensor) -> Tensor:
        codes = z[:, :, None]  # (B, C, 1, h, w)
        # One batch: in training the BatchNorms see the latents and the codes together, as published.
        both = self.time_blocks(torch.cat([self.from_codes(codes).to(codes.dtype), codes]))
        for double in self.time_doubles:
            both = F.silu(double(both))
        latents, codes = both[:, :, 0].chunk(2)
        return self.frame(latents, codes)


def num_halvings(num_frames: int) -> int:
    halvings = num_frames.bit_length() - 1
    if num_frames < 1 or num_frames != 2**halvings:
        low = 2 ** max(halvings, 0)
        raise ValueError(f"num_frames={num_frames} is no power of 2; use {low} or {2 * low} (num_frames).")
    return halvings
