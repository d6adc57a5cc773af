"""Two training stages for small 1D tokenizers: first the code vectors of a grid tokenizer, then pixels.

The published recipe (titok_stages.py) predicts the proxy's ids by cross-entropy. At small size the squared error to its
code vectors is learned in half the time, and needs no mixture over the codebook afterwards.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Encoding
from .cnn_light import level
from .latent_attention import LatentAttentionDecoder
from .one_d import OneDDecoder, OneDEncoder
from .quantizers.vq import VectorQuantizer
from .tail_drop import TailDrop
from .titok_stages import PixelStage, ProxyStage
from .vq import ConvDecoder, GridTokenizer


class CodeHead(ConvDecoder):
    """(B, in_channels, h, w) -> (B, dim, h, w) of unit length: a code vector for each cell, and no pixels yet.

    Args:
        stride: pixels along one side of a cell.
        dim: width of the proxy's codes.
    """

    def __init__(self, *, in_channels: int, stride: int, dim: int, num_blocks: int):
        super().__init__()
        self.stride = stride
        self.in_channels = in_channels
        self.blocks = level(in_channels, num_blocks)
        self.to_codes = nn.Conv2d(in_channels, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.to_codes(self.blocks(x)).float(), dim=1)


class LatentCodeDecoder(LatentAttentionDecoder):
    """(B, k, dim) -> (B, C, h, w): a map of code vectors in place of an image; its `pixels` is a `CodeHead`."""

    def forward(self, latents: Tensor, kept: Tensor | None = None) -> Tensor:
        return self.pixels(self.grid(latents, kept))


class CodeStage(ProxyStage):
    """Stage 1: the decoder gives the code vectors of a frozen proxy, which makes pictures of them.

    In training mode `encode` gives the squared error of code vectors as the loss "proxy", mean over all elements.

    Args:
        decoder: (B, k, dim) -> (B, C, h, w) of unit length.
        proxy: a trained grid tokenizer with normalized codes of width C, which stays as it is.
    """

    proxy: GridTokenizer

    def __init__(
        self,
        encoder: OneDEncoder,
        quantizer: VectorQuantizer,
        decoder: OneDDecoder,
        *,
        proxy: GridTokenizer,
        tail_drop: TailDrop | None = None,
        shortest: int | None = None,
    ):
        if not proxy.quantizer.normalize:
            raise ValueError(
                "the proxy's codes are of any length and the decoder gives code vectors of length 1; use a proxy with "
                "quantizer.normalize=true (tokenizer.proxy)."
            )
        super().__init__(encoder, quantizer, decoder, proxy=proxy, tail_drop=tail_drop, shortest=shortest)

    def encode(self, images: Tensor) -> Encoding:
        encoding = super(ProxyStage, self).encode(images)  # not with the cross-entropy
        if not self.training:
            return encoding
        with torch.no_grad():
            codes = self.proxy.encode(images).latents  # (B, h * w, C)
        error = F.mse_loss(self.decoded(encoding.latents).flatten(2).transpose(1, 2), codes)
        return replace(encoding, losses={**encoding.losses, "proxy": error})

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """(B, k, C) -> (B, 3, H, W) in [0, 1]: the proxy's picture of the code vectors; without gradients."""
        return self.proxy.decode(self.decoded(latents).flatten(2).transpose(1, 2))


class CodePixelStage(PixelStage):
    """Stage 2: encoder and codes stay as stage 1 left them; its decoder and the proxy's learn pixels together.

    Args:
        first: the trained first stage, of which everything but the proxy's encoder and codebook is taken over.
    """

    def __init__(self, first: CodeStage):
        parts = first.encoder, first.quantizer, first.decoder.requires_grad_(True)
        super().__init__(*parts, tail_drop=first.tail_drop, shortest=first.shortest)
        self.from_codes = first.proxy.from_codes.requires_grad_(True)
        self.pixels = first.proxy.decoder.requires_grad_(True)
        self.black, self.white = first.proxy.black, first.proxy.white

    def start_from(self, stage: ProxyStage) -> None:
        """Refused: this stage is made of its first one."""
        raise ValueError("this second stage is built from its first one (tokenizer.first=...); leave warm_start out.")

    def decode(self, latents: Tensor) -> Tensor:
        pixels = self.pixels(self.from_codes(self.decoded(latents)))
        images = (pixels.float() - self.black) / (self.white - self.black)
        return images if self.training else images.clamp(0, 1)
