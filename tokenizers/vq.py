"""Convolutional VQ tokenizer: encoder, quantizer and decoder over a grid of cells."""

from collections.abc import Sequence

from torch import Tensor, nn

from .base import Encoding, ImageTokenizer, check_images
from .quantizers.vq import VectorQuantizer


class ConvEncoder(nn.Module):
    """What a grid tokenizer needs of an encoder: (B, 3, H, W) in [-1, 1] -> (B, out_channels, H/stride, W/stride)."""

    stride: int
    out_channels: int


class ConvDecoder(nn.Module):
    """What a grid tokenizer needs of a decoder: (B, in_channels, h, w) -> (B, 3, h * stride, w * stride) in [-1, 1]."""

    stride: int
    in_channels: int


class GridTokenizer(ImageTokenizer):
    """One id per cell of a square grid, in raster order (VQGAN, Esser et al. 2021, arXiv:2012.09841).

    `to_codes` leads from the encoder to the quantizer and `from_codes` from the codes to the decoder; without them what
    the encoder gives is quantized as it is, and the decoder takes the codes (MaskGIT-VQGAN, Emu3).

    Args:
        pixel_range: what encoder and decoder see for black and white; MaskGIT-VQGAN (0, 1), the others (-1, 1).
    """

    def __init__(
        self,
        encoder: ConvEncoder,
        quantizer: VectorQuantizer,
        decoder: ConvDecoder,
        *,
        image_size: int,
        to_codes: nn.Module | None = None,
        from_codes: nn.Module | None = None,
        pixel_range: Sequence[float] = (-1, 1),
    ):
        super().__init__()
        stride = encoder.stride
        if decoder.stride != stride:
            raise ValueError(
                f"the encoder divides by {stride} and the decoder multiplies by {decoder.stride}; make them equal."
            )
        if image_size % stride or image_size < stride:
            low = max(image_size // stride, 1) * stride
            raise ValueError(
                f"image_size={image_size} does not divide into {stride}x{stride} cells; use {low} or {low + stride} "
                "(tokenizer.image_size)."
            )
        for part, width, projection in (
            ("encoder gives", encoder.out_channels, to_codes),
            ("decoder takes", decoder.in_channels, from_codes),
        ):
            if projection is None and width != quantizer.dim:
                raise ValueError(
                    f"the {part} {width} channels and the codes have {quantizer.dim}; make them equal (quantizer.dim)."
                )
        self.black, self.white = pixel_range
        if not self.black < self.white:
            raise ValueError(f"pixel_range={tuple(pixel_range)} must rise, such as (-1, 1) (tokenizer.pixel_range).")
        self.image_size = image_size
        self.vocab_size = quantizer.codebook_size
        self.latent_dim = quantizer.dim
        self.grid_size = image_size // stride  # cells along one side
        self.num_latents = self.grid_size**2
        self.step_lengths = (1,) * self.num_latents
        self.encoder = encoder
        self.to_codes = nn.Identity() if to_codes is None else to_codes
        self.quantizer = quantizer
        self.from_codes = nn.Identity() if from_codes is None else from_codes
        self.decoder = decoder

    def to_map(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in `pixel_range` -> (B, C, h, w), not yet quantized; any H and W that the stride divides."""
        return self.to_codes(self.encoder(pixels))

    def to_pixels(self, codes: Tensor) -> Tensor:
        """(B, C, h, w) codes of any grid -> (B, 3, H, W) in `pixel_range`, not clamped."""
        return self.decoder(self.from_codes(codes))

    def encode(self, images: Tensor) -> Encoding:
        check_images(images, self.image_size)
        z = self.to_map(images * (self.white - self.black) + self.black)  # (B, C, h, w)
        z = z.flatten(2).transpose(1, 2)  # (B, N, C)
        latents, ids, losses = self.quantizer(z)
        return Encoding(latents, ids, losses)

    def dequantize(self, ids: Tensor) -> Tensor:
        if ids.ndim != 2 or ids.shape[1] > self.num_tokens:
            raise ValueError(f"ids have shape {tuple(ids.shape)}; needed is (B, L) with L <= {self.num_tokens}.")
        return self.quantizer.lookup(ids)

    def decode(self, latents: Tensor) -> Tensor:
        if latents.shape[1:] != (self.num_latents, self.latent_dim):
            raise ValueError(
                f"latents have shape {tuple(latents.shape)}; needed is (B, {self.num_latents}, {self.latent_dim}): "
                "this tokenizer decodes whole grids."
            )
        z = latents.transpose(1, 2).unflatten(2, (self.grid_size, self.grid_size))  # (B, C, h, w)
        images = (self.to_pixels(z).float() - self.black) / (self.white - self.black)
        return images if self.training else images.clamp(0, 1)

    def set_step(self, step: int, total_steps: int) -> None:
        self.quantizer.set_step(step, total_steps)


class VQTokenizer(GridTokenizer):
    """With a 1x1 convolution from the encoder to the quantizer and another from the codes to the decoder.

    VQGAN, LlamaGen and Chameleon have them.
    """

    def __init__(self, encoder: ConvEncoder, quantizer: VectorQuantizer, decoder: ConvDecoder, *, image_size: int):
        to_codes = nn.Conv2d(encoder.out_channels, quantizer.dim, 1)
        from_codes = nn.Conv2d(quantizer.dim, decoder.in_channels, 1)
        super().__init__(encoder, quantizer, decoder, image_size=image_size, to_codes=to_codes, from_codes=from_codes)
