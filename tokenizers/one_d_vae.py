"""Continuous one-dimensional tokenizer: a normal distribution per latent instead of a code (TiTok VAE)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Encoding, ImageTokenizer, check_images
from .one_d import OneDDecoder, OneDEncoder


@dataclass(frozen=True)
class DiagonalNormal:
    """Independent normal distributions; `mean` and `logvar` (B, N, C)."""

    mean: Tensor
    logvar: Tensor

    @classmethod
    def of_moments(cls, moments: Tensor) -> "DiagonalNormal":
        """(B, N, 2 C): means, then log variances, which are kept in [-30, 20] as in latent diffusion."""
        mean, logvar = moments.float().chunk(2, dim=-1)
        return cls(mean, logvar.clamp(-30, 20))

    @property
    def std(self) -> Tensor:
        return torch.exp(0.5 * self.logvar)

    def sample(self, noise: Tensor) -> Tensor:
        """Standard normal noise (B, N, C) -> a sample (B, N, C)."""
        return self.mean + self.std * noise

    def kl(self) -> Tensor:
        """(B, N): divergence from the standard normal distribution, summed over channels, in nats."""
        return 0.5 * (self.mean.square() + self.logvar.exp() - 1 - self.logvar).sum(-1)


class OneDVAE(ImageTokenizer):
    """N continuous latents of the whole image (TiTok VAE, arXiv:2501.07730; VAE of Kingma and Welling 2013).

    In training mode `encode` samples, in eval mode it gives the mean. The official code samples in both; the mean is
    what a reconstruction should be measured on, and eval mode has no hidden randomness here. `posterior` and
    `DiagonalNormal.sample` give the official latents for a given noise. The loss "kl" is summed over latents and
    averaged over images, as officially; the published weight is 1e-6.

    Args:
        encoder: gives vectors twice as wide as a latent, means and log variances.
    """

    def __init__(self, encoder: OneDEncoder, decoder: OneDDecoder):
        super().__init__()
        if encoder.dim != 2 * decoder.dim:
            raise ValueError(
                f"the encoder gives vectors of width {encoder.dim} and the decoder takes latents of width "
                f"{decoder.dim}; use encoder.dim={2 * decoder.dim}, a mean and a log variance per channel "
                "(tokenizer.encoder.dim)."
            )
        self.image_size = encoder.image_size
        self.vocab_size = None
        self.latent_dim = decoder.dim
        self.num_latents = encoder.num_latents
        self.step_lengths = (1,) * self.num_latents
        self.encoder = encoder
        self.decoder = decoder

    def posterior(self, images: Tensor) -> DiagonalNormal:
        """(B, 3, H, W) in [0, 1] -> the distribution of the latents."""
        check_images(images, self.image_size)
        return DiagonalNormal.of_moments(self.encoder(images))

    def encode(self, images: Tensor) -> Encoding:
        posterior = self.posterior(images)
        latents = posterior.sample(torch.randn_like(posterior.mean)) if self.training else posterior.mean
        return Encoding(latents, losses={"kl": posterior.kl().sum() / len(images)})

    def decode(self, latents: Tensor) -> Tensor:
        if latents.ndim != 3 or latents.shape[1:] != (self.num_latents, self.latent_dim):
            raise ValueError(
                f"latents have shape {tuple(latents.shape)}; needed is (B, {self.num_latents}, {self.latent_dim})."
            )
        images = self.decoder(latents).float()
        return images if self.training else images.clamp(0, 1)
