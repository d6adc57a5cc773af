"""The two training stages of TiTok and One-D-Piece: first the codes of a proxy tokenizer, then pixels through it."""

import torch
from torch import Tensor

from .base import Encoding, ImageTokenizer
from .one_d import OneDDecoder, OneDEncoder, OneDTokenizer
from .quantizers.vq import VectorQuantizer
from .tail_drop import TailDrop


class ProxyStage(OneDTokenizer):
    """Stage 1: the decoder predicts which code the frozen proxy gives each cell (TiTok, section 3.3).

    Codes are a target that is already free of texture, so that the latents learn what the image is before they learn
    how it looks. `ProxyLoss` (losses_1d.py) compares `logits` with `targets`.

    Args:
        decoder: with a head that gives logits (B, K, g, g), as `ProxyHead` does.
        proxy: a trained tokenizer with K codes on a g x g grid, which stays as it is. None: the stage has no images of
            its own, as in the official files of this stage, which come without the proxy.
    """

    proxy: ImageTokenizer | None

    def __init__(
        self,
        encoder: OneDEncoder,
        quantizer: VectorQuantizer,
        decoder: OneDDecoder,
        *,
        proxy: ImageTokenizer | None = None,
        tail_drop: TailDrop | None = None,
        shortest: int | None = None,
    ):
        super().__init__(encoder, quantizer, decoder, tail_drop=tail_drop, shortest=shortest)
        if proxy is not None and proxy.vocab_size is None:
            raise ValueError(
                "the proxy has continuous latents, and stage 1 predicts codes; use a tokenizer with ids "
                "(tokenizer.proxy)."
            )
        if proxy is not None and proxy.image_size != self.image_size:
            raise ValueError(
                f"the proxy takes images of {proxy.image_size} pixels and the encoder of {self.image_size}; make them "
                "equal (tokenizer.proxy.image_size)."
            )
        self.proxy = proxy
        if proxy is not None:
            proxy.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> "ProxyStage":
        super().train(mode)
        if self.proxy is not None:
            self.proxy.eval()  # not trained here: its ids must not depend on the mode
        return self

    def logits(self, latents: Tensor) -> Tensor:
        """(B, k, C) -> (B, K, g, g), in training mode after tail drop."""
        return self.decoded(latents)

    @torch.no_grad()
    def targets(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, g * g): the proxy's ids in raster order."""
        ids = self._needed_proxy().encode(images).ids
        assert ids is not None, "a proxy with a codebook gives ids in eval mode"
        return ids

    def decode(self, latents: Tensor) -> Tensor:
        """(B, k, C) -> (B, 3, H, W) in [0, 1]: the proxy's picture of the most likely codes; without gradients."""
        proxy = self._needed_proxy()
        with torch.no_grad():
            return proxy.decode(proxy.dequantize(self.logits(latents).argmax(1).flatten(1)))

    def _needed_proxy(self) -> ImageTokenizer:
        if self.proxy is None:
            raise ValueError(
                "this stage predicts codes of a proxy and has none to make images of them; give one (tokenizer.proxy)."
            )
        return self.proxy


class PixelStage(OneDTokenizer):
    """Stage 2: encoder and codes stay as stage 1 left them, the decoder learns pixels (TiTok, section 3.3).

    The published two-stage weights are of this stage. Nothing reaches the encoder, the latent tokens and the codebook:
    they run without gradients and in eval mode, and there are no quantizer losses, as officially.

    Args:
        decoder: with a head that gives images, as `MixtureHead` does.
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
        super().__init__(encoder, quantizer, decoder, tail_drop=tail_drop, shortest=shortest)
        encoder.requires_grad_(False)
        quantizer.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> "PixelStage":
        super().train(mode)
        self.encoder.eval()
        self.quantizer.eval()
        return self

    @torch.no_grad()
    def encode(self, images: Tensor) -> Encoding:
        encoding = super().encode(images)
        return Encoding(encoding.latents, encoding.ids)
