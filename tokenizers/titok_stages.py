"""The two training stages of TiTok and One-D-Piece: first the codes of a proxy tokenizer, then pixels through it."""

from dataclasses import replace

import torch
from torch import Tensor

from .base import Encoding, ImageTokenizer
from .losses_1d import proxy_entropy
from .one_d import OneDDecoder, OneDEncoder, OneDTokenizer
from .quantizers.vq import VectorQuantizer
from .tail_drop import TailDrop
from .titok_heads import MixtureHead
from .vq import GridTokenizer


class ProxyStage(OneDTokenizer):
    """Stage 1: the decoder predicts which code the frozen proxy gives each cell (TiTok, section 3.3).

    Codes are a target that is already free of texture, so that the latents learn what the image is before they learn
    how it looks. In training mode `encode` gives the cross-entropy as the loss "proxy" beside those of the quantizer;
    it is all that trains the decoder, as images pass through the proxy without gradients.

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
        grid_size = getattr(decoder, "grid_size", None)
        if proxy is not None and grid_size is not None and proxy.num_tokens != grid_size**2:
            raise ValueError(
                f"the proxy gives {proxy.num_tokens} codes an image and the decoder predicts {grid_size**2}; make them "
                "equal (tokenizer.proxy, tokenizer.decoder.patch_size)."
            )
        num_codes = getattr(getattr(decoder, "head", None), "num_codes", None)
        if proxy is not None and num_codes not in (None, proxy.vocab_size):
            raise ValueError(
                f"the proxy has {proxy.vocab_size} codes and the decoder's head {num_codes}; make them equal "
                "(tokenizer.decoder.head.num_codes)."
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

    def encode(self, images: Tensor) -> Encoding:
        encoding = super().encode(images)
        if not self.training or self.proxy is None:
            return encoding
        return replace(encoding, losses={**encoding.losses, "proxy": self.proxy_loss(images, encoding.latents)})

    def proxy_loss(self, images: Tensor, latents: Tensor) -> Tensor:
        """How far what the decoder makes of the latents is from what the proxy says of the images."""
        return proxy_entropy(self.logits(latents), self.targets(images))

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

    @torch.no_grad()
    def start_from(self, stage: ProxyStage) -> None:
        """Take over stage 1, and what its proxy makes of codes, into a decoder with a `MixtureHead`.

        Raises:
            ValueError: the two stages, or the head and the proxy, are not of the same sizes.
        """
        proxy, head = stage.proxy, self.decoder.get_submodule("head")
        if not isinstance(proxy, GridTokenizer) or not isinstance(head, MixtureHead):
            raise ValueError(
                f"a {type(head).__name__} cannot go on from the codes of a {type(proxy).__name__}; stage 2 needs a "
                "MixtureHead (tokenizer.decoder.head) and a stage 1 whose proxy is a grid tokenizer."
            )
        if head.logits.num_codes != proxy.vocab_size:
            raise ValueError(
                f"the head has {head.logits.num_codes} codes and the proxy {proxy.vocab_size}; make them equal "
                "(tokenizer.decoder.head.num_codes)."
            )
        if (head.black, head.white) != (proxy.black, proxy.white):
            raise ValueError(
                f"the head reads pixels in ({head.black}, {head.white}) and the proxy gives ({proxy.black}, "
                f"{proxy.white}); make them equal (tokenizer.decoder.head.pixel_range)."
            )
        codes = proxy.quantizer.lookup(torch.arange(head.logits.num_codes, device=head.codebook.device))
        # A projection of codes is affine and the shares of a mixture add up to 1, so it may come before the mixture.
        codes = proxy.from_codes(codes.T[None, :, :, None])[0, :, :, 0].T  # (K, C)
        stage1 = {key.replace("head.", "head.logits.", 1): value for key, value in stage.decoder.state_dict().items()}
        stage1 |= {f"head.renderer.{key}": value for key, value in proxy.decoder.state_dict().items()}
        try:
            self.encoder.load_state_dict(stage.encoder.state_dict())
            self.quantizer.load_state_dict(stage.quantizer.state_dict())
            self.decoder.load_state_dict(stage1 | {"head.codebook": codes})
        except RuntimeError as error:
            raise ValueError(f"stage 2 is not built like stage 1 and its proxy: {error}") from None
