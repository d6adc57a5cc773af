"""A semantic and a pixel encoder under one index, and a decoder for each (TokenFlow)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Encoding, ImageTokenizer, VisionEncoder, check_images
from .quantizers.dual import DualQuantizer
from .quantizers.multiscale import MultiScaleQuantizer
from .vq import ConvDecoder, ConvEncoder


class SemanticDecoder(nn.Module):
    """What `TokenFlow` needs to train its meaning: semantic codes (B, N, semantic_dim) -> (B, N, feature_dim).

    The result is compared with the features of a teacher. N is a whole grid in raster order.
    """

    feature_dim: int


class TokenFlow(ImageTokenizer):
    """Ids that carry meaning and pixels at once (Qu et al. 2024, arXiv:2412.03069).

    The semantic encoder gives one feature per cell of a grid, the convolutional one a vector for the same cell; their
    codes share an index. Latents are the quantized map, [semantic, pixel] in raster order: a language model reads all
    of it, the pixel decoder its pixel part, the semantic decoder its semantic part. The teacher whose features the
    semantic decoder learns is no part of the tokenizer.

    The pixel side works at one cell per stride; where that is not the image size (384 px with 27 x 27 cells of 16) the
    image is resized on the way in and out, bicubic as published.

    Args:
        scales: sides of the grids that ids describe one after the other, coarse to fine, the last the grid of the
            semantic encoder: next-scale prediction. None: one id per cell, in raster order.
        scale_drop: as in `MultiScaleQuantizer`.
    """

    def __init__(
        self,
        semantic_encoder: VisionEncoder,
        pixel_encoder: ConvEncoder,
        quantizer: DualQuantizer,
        pixel_decoder: ConvDecoder,
        semantic_decoder: SemanticDecoder,
        *,
        scales: Sequence[int] | None = None,
        scale_drop: float = 0.0,
    ):
        super().__init__()
        grid_size = math.isqrt(semantic_encoder.num_features)
        if grid_size**2 != semantic_encoder.num_features:
            raise ValueError(
                f"the semantic encoder gives {semantic_encoder.num_features} features per image; needed is one per "
                f"cell of a square grid, {grid_size**2} or {(grid_size + 1) ** 2} (tokenizer.semantic_encoder)."
            )
        if pixel_encoder.stride != pixel_decoder.stride:
            raise ValueError(
                f"the pixel encoder divides by {pixel_encoder.stride} and the pixel decoder multiplies by "
                f"{pixel_decoder.stride}; make them equal (tokenizer.pixel_encoder, tokenizer.pixel_decoder)."
            )
        if scales is not None and tuple(scales)[-1:] != (grid_size,):
            raise ValueError(
                f"scales={tuple(scales)} must end with {grid_size}, the grid of the semantic encoder "
                "(tokenizer.scales)."
            )
        if scales is None and scale_drop:
            raise ValueError(f"scale_drop={scale_drop} needs scales to drop; set scale_drop=0 (tokenizer.scale_drop).")
        self.image_size = semantic_encoder.image_size
        self.vocab_size = quantizer.codebook_size
        self.latent_dim = quantizer.dim
        self.semantic_dim = quantizer.semantic_dim
        self.grid_size = grid_size  # cells along one side
        self.num_latents = grid_size**2
        self.pixel_size = grid_size * pixel_encoder.stride  # side of the image on the pixel side
        self.semantic_encoder = semantic_encoder
        self.to_semantic = task_layer(semantic_encoder.feature_dim, quantizer.semantic_dim)
        self.pixel_encoder = pixel_encoder
        self.to_pixel = nn.Conv2d(pixel_encoder.out_channels, quantizer.pixel_dim, 1)
        self.from_pixel = nn.Conv2d(quantizer.pixel_dim, pixel_decoder.in_channels, 1)
        self.pixel_decoder = pixel_decoder
        self.semantic_decoder = semantic_decoder
        if scales is None:
            self.quantizer = quantizer
            self.step_lengths = (1,) * self.num_latents
        else:
            self.quantizer = MultiScaleQuantizer(quantizer, scales=scales, scale_drop=scale_drop)
            self.step_lengths = self.quantizer.step_lengths

    @property
    def min_tokens(self) -> int:
        return self.num_latents if isinstance(self.quantizer, DualQuantizer) else self.step_lengths[0]

    def encode(self, images: Tensor) -> Encoding:
        check_images(images, self.image_size)
        return self.quantize(self.semantic_encoder.features(images), images)

    def quantize(self, semantic_features: Tensor, images: Tensor) -> Encoding:
        """`encode` where the features of the semantic encoder (B, N, its feature_dim) are there already."""
        latents, ids, losses = self.quantizer(self.vectors(semantic_features, images))
        return Encoding(latents, None if ids is None else ids.flatten(1), losses)

    def vectors(self, semantic_features: Tensor, images: Tensor) -> Tensor:
        """What is quantized: (B, N, semantic_features) and (B, 3, H, W) -> (B, N, C), [semantic, pixel]."""
        pixel = self.to_pixel(self.pixel_encoder(resize(images * 2 - 1, self.pixel_size)))  # (B, C_p, h, w)
        return torch.cat([self.to_semantic(semantic_features), pixel.flatten(2).transpose(1, 2)], dim=-1)

    def dequantize(self, ids: Tensor) -> Tensor:
        """Ids of the first whole scales (B, L') -> (B, N, C); without scales (B, L') -> (B, L', C)."""
        if ids.ndim != 2 or ids.shape[1] > self.num_tokens:
            raise ValueError(f"ids have shape {tuple(ids.shape)}; needed is (B, L) with L <= {self.num_tokens}.")
        return self.quantizer.lookup(ids)

    def decode(self, latents: Tensor) -> Tensor:
        self._check_latents(latents)
        pixel = latents[..., self.semantic_dim :].transpose(1, 2).unflatten(2, (self.grid_size, self.grid_size))
        images = resize(self.pixel_decoder(self.from_pixel(pixel)).float(), self.image_size)
        images = (images + 1) / 2
        return images if self.training else images.clamp(0, 1)

    def semantic_decode(self, latents: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, semantic_decoder.feature_dim): what the features of the teacher are compared with."""
        self._check_latents(latents)
        return self.semantic_decoder(latents[..., : self.semantic_dim])

    def step_inputs(self, ids: Tensor) -> Tensor:
        if isinstance(self.quantizer, MultiScaleQuantizer):
            return self.quantizer.step_inputs(ids)
        return super().step_inputs(ids)

    def set_step(self, step: int, total_steps: int) -> None:
        self.quantizer.set_step(step, total_steps)

    def _check_latents(self, latents: Tensor) -> None:
        if latents.shape[1:] != (self.num_latents, self.latent_dim):
            raise ValueError(
                f"latents have shape {tuple(latents.shape)}; needed is (B, {self.num_latents}, {self.latent_dim}): "
                "this tokenizer decodes whole grids."
            )


def task_layer(in_dim: int, out_dim: int) -> nn.Sequential:
    """Between features and codes: keeps the width, tanh, then changes it."""
    return nn.Sequential(nn.Linear(in_dim, in_dim), nn.Tanh(), nn.Linear(in_dim, out_dim))


def semantic_loss(decoded: Tensor, target: Tensor) -> Tensor:
    """Mean over images and cells of 1 - cosine, of decoded and teacher's features (B, N, D).

    The paper speaks of the l2 distance; the published models were trained with this.
    """
    return 1 - F.cosine_similarity(decoded.float(), target.float(), dim=-1).mean()


def resize(images: Tensor, size: int) -> Tensor:
    return images if images.shape[-1] == size else F.interpolate(images, size=(size, size), mode="bicubic")
