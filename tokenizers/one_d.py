"""One-dimensional tokenizers: an ordered row of tokens instead of a grid (TiTok, One-D-Piece)."""

from torch import Tensor, nn

from .base import Encoding, ImageTokenizer, check_images
from .quantizers.vq import VectorQuantizer
from .tail_drop import TailDrop


class OneDEncoder(nn.Module):
    """What `OneDTokenizer` needs of an encoder: (B, 3, H, W) in [0, 1] -> (B, num_latents, dim)."""

    image_size: int
    num_latents: int
    dim: int


class OneDDecoder(nn.Module):
    """What `OneDTokenizer` needs of a decoder: the k leading latents (B, k, dim) -> (B, 3, H, W) around [0, 1].

    With tail drop per image, `forward` also takes `kept` (B,) int64 in 1..k: image b has to come out as if it had been
    given its first kept[b] latents alone. Without `kept` all k count.
    """

    dim: int


class OneDTokenizer(ImageTokenizer):
    """N latent vectors of the whole image, quantized one by one; any leading ones decode.

    TiTok (Yu et al. 2024, arXiv:2406.07550) and, with `tail_drop`, One-D-Piece (Miwa et al. 2025, arXiv:2501.10064).

    Args:
        tail_drop: in training mode `decode` shows the decoder a random number of leading latents; the quantizer's
            losses count all of them.
        shortest: fewest latents that `decode` accepts and tail drop keeps; None: 1 with tail drop, otherwise all.
    """

    def __init__(
        self,
        encoder: OneDEncoder,
        quantizer: VectorQuantizer,
        decoder: OneDDecoder,
        *,
        tail_drop: TailDrop | None = None,
        shortest: int | None = None,
    ):
        super().__init__()
        if not encoder.dim == quantizer.dim == decoder.dim:
            raise ValueError(
                f"the encoder gives vectors of width {encoder.dim}, the quantizer takes {quantizer.dim} and the "
                f"decoder {decoder.dim}; make them equal (tokenizer.encoder.dim, quantizer.dim, decoder.dim)."
            )
        if shortest is None:
            shortest = encoder.num_latents if tail_drop is None else 1
        if not 1 <= shortest <= encoder.num_latents:
            raise ValueError(
                f"shortest={shortest} latents cannot be kept of {encoder.num_latents}; use 1 to {encoder.num_latents} "
                "(tokenizer.shortest)."
            )
        self.image_size = encoder.image_size
        self.vocab_size = quantizer.codebook_size
        self.latent_dim = quantizer.dim
        self.num_latents = encoder.num_latents
        self.step_lengths = (1,) * self.num_latents
        self.shortest = shortest
        self.tail_drop = tail_drop
        self.encoder = encoder
        self.quantizer = quantizer
        self.decoder = decoder
        self._progress = 1.0

    @property
    def min_tokens(self) -> int:
        return self.shortest

    def encode(self, images: Tensor) -> Encoding:
        check_images(images, self.image_size)
        latents, ids, losses = self.quantizer(self.encoder(images))
        return Encoding(latents, ids, losses)

    def dequantize(self, ids: Tensor) -> Tensor:
        if ids.ndim != 2 or ids.shape[1] > self.num_tokens:
            raise ValueError(f"ids have shape {tuple(ids.shape)}; needed is (B, k) with k <= {self.num_tokens}.")
        return self.quantizer.lookup(ids)

    def decode(self, latents: Tensor) -> Tensor:
        """(B, k, C) -> (B, 3, H, W) for any k from `min_tokens` to all; tail drop shortens them in training mode."""
        images = self.decoded(latents)
        return images if self.training else images.clamp(0, 1)

    def decoded(self, latents: Tensor) -> Tensor:
        """(B, k, C) -> what the decoder makes of them, float32; in training mode after tail drop."""
        self._check_latents(latents)
        if not self.training or self.tail_drop is None:
            return self.decoder(latents).float()
        drawn = self.tail_drop.draw(
            len(latents), self.num_latents, shortest=self.shortest, progress=self._progress
        )  # of all latents, as published: what was given may be shorter still
        kept = drawn.clamp(max=latents.shape[1])
        longest = int(kept.max())
        latents = latents[:, :longest]
        if bool((kept == longest).all()):
            return self.decoder(latents).float()
        return self.decoder(latents, kept.to(latents.device)).float()

    def _check_latents(self, latents: Tensor) -> None:
        count = latents.shape[1] if latents.ndim == 3 else -1
        if not self.shortest <= count <= self.num_latents or latents.shape[2] != self.latent_dim:
            lengths = "" if self.shortest == self.num_latents else f"{self.shortest} to "
            raise ValueError(
                f"latents have shape {tuple(latents.shape)}; needed is (B, k, {self.latent_dim}) with k = "
                f"{lengths}{self.num_latents}."
            )

    def set_step(self, step: int, total_steps: int) -> None:
        self._progress = step / total_steps
        self.quantizer.set_step(step, total_steps)
