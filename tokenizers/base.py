"""The contract every image tokenizer keeps: images to tokens and back, and what a language model reads."""

import math
from dataclasses import dataclass, field

from torch import Tensor, nn


@dataclass(frozen=True)
class Encoding:
    """What `ImageTokenizer.encode` gives.

    `latents` (B, N, C) is what `decode` consumes. `ids` (B, L) lie in [0, vocab_size) and are None when the latents are
    continuous: for a tokenizer without a codebook, and in training while a quantizer still lets latents pass.
    `losses` are scalars without weights; the weights live in one loss object (losses.py).
    """

    latents: Tensor
    ids: Tensor | None = None
    losses: dict[str, Tensor] = field(default_factory=dict)


class ImageTokenizer(nn.Module):
    """Images to tokens and back. Images are RGB floats (B, 3, H, W) in [0, 1] on both sides, H = W = image_size.

    Letters: B batch, L ids, N latent positions, C latent width, M features. Subclasses set the attributes below in
    `__init__` and never change them. One encoder, one decoder and any number of quantizers fit:
    `encode -> latents -> decode`, with ids beside the latents where there is a codebook.
    """

    image_size: int
    vocab_size: int | None  # None: continuous latents, no ids
    latent_dim: int  # C
    num_latents: int  # N
    step_lengths: tuple[int, ...]  # ids predicted together: (1,) * L is next-token, (1, 4, 16, ...) is next-scale
    codes_per_position: int = 1  # residual, product, multi-codebook: L = positions * codes, position-major

    @property
    def num_tokens(self) -> int:
        """Ids per image, L."""
        return sum(self.step_lengths)

    @property
    def min_tokens(self) -> int:
        """Fewest leading ids that decode to an image; fewer than `num_tokens` for variable-length tokenizers."""
        return self.num_tokens

    @property
    def feature_dim(self) -> int:
        """Width of `features`."""
        return self.latent_dim

    @property
    def num_features(self) -> int:
        """Features per image, M."""
        return self.num_latents

    @property
    def bits_per_image(self) -> float | None:
        """Size of the ids of one image in bits; None for continuous latents."""
        return None if self.vocab_size is None else self.num_tokens * math.log2(self.vocab_size)

    def encode(self, images: Tensor) -> Encoding:
        """(B, 3, H, W) in [0, 1] -> `Encoding`."""
        raise NotImplementedError

    def dequantize(self, ids: Tensor) -> Tensor:
        """(B, L') -> (B, N', C): the latents of any whole-step prefix of the ids; all L ids give all N latents."""
        raise NotImplementedError

    def decode(self, latents: Tensor) -> Tensor:
        """(B, N, C) -> (B, 3, H, W): in [0, 1] in eval mode, not clamped in training, where losses need gradients."""
        raise NotImplementedError

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, M, feature_dim): what a language model reads; the latents, unless overridden."""
        return self.encode(images).latents

    def step_inputs(self, ids: Tensor) -> Tensor:
        """Ids of steps 1..k -> inputs that predict steps 2..k+1 (2..K when the ids are complete).

        (B, L') -> (B, L'', C). The dequantized ids themselves fit next-token prediction with one code per position;
        other tokenizers override this.
        """
        return self.dequantize(ids)[:, : self.num_tokens - self.step_lengths[-1]]

    def set_step(self, step: int, total_steps: int) -> None:
        """Tell a tokenizer in training that optimizer step `step` of `total_steps` comes next.

        Called before every training step. Quantizers schedule their warm-up and code revival by it; others ignore it.
        """


class VisionEncoder(nn.Module):
    """Images to features for a language model; there is no way back to an image.

    Images are RGB floats (B, 3, H, W) in [0, 1], H = W = image_size; each encoder normalizes inside.
    """

    image_size: int
    feature_dim: int
    num_features: int  # M

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, M, feature_dim)."""
        raise NotImplementedError


def check_images(images: Tensor, image_size: int) -> None:
    """Raise ValueError unless `images` is a float (B, 3, image_size, image_size)."""
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, image_size, image_size) or not images.is_floating_point():
        raise ValueError(
            f"images are {images.dtype} {tuple(images.shape)}; this tokenizer needs floats in [0, 1] of shape "
            f"(B, 3, {image_size}, {image_size}) (tokenizer.image_size)."
        )
