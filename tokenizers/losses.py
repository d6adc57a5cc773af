"""Loss objects: the one place where loss weights live. Tokenizers and quantizers give terms without weights."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Encoding

BALANCE_FLOOR = 1e-4  # 40 dB: images that are right already do not take over


class PixelLoss(nn.Module):
    """Squared and absolute error of pixels, plus the tokenizer's own terms.

    Small objects on a flat ground barely count in a plain mean: a tokenizer that leaves them out has a good PSNR.
    `saturation_weight` weights each pixel by 1 + saturation_weight * (max - min over RGB of the original), normalized
    to mean 1 over the batch, so that colorful things count more. 0 weights all pixels alike.

    `error_balance` weights each image by its squared error to the power of minus `error_balance`, normalized to mean 1
    over the batch; 1 is the gradient of the mean PSNR. Under tail drop images of few tokens have errors tens of times
    larger than complete ones, and would have most of the gradient.

    Args:
        terms: weight of each loss in `Encoding.losses`, by name; every name that occurs must be listed.
    """

    def __init__(
        self,
        *,
        terms: Mapping[str, float],
        mse_weight: float = 1.0,
        l1_weight: float = 1.0,
        saturation_weight: float = 0.0,
        error_balance: float = 0.0,
    ):
        super().__init__()
        self.terms = dict(terms)
        self.mse_weight = mse_weight
        self.l1_weight = l1_weight
        self.saturation_weight = saturation_weight
        self.error_balance = error_balance

    def forward(self, images: Tensor, reconstruction: Tensor, encoding: Encoding) -> tuple[Tensor, dict[str, Tensor]]:
        """(B, 3, H, W) in [0, 1] twice -> (total, terms by name as they are logged, without their weights)."""
        error = reconstruction.float() - images
        logged = {"mse": error.square(), "l1": error.abs()}
        if self.saturation_weight:
            weight = 1 + self.saturation_weight * (images.amax(1, keepdim=True) - images.amin(1, keepdim=True))
            weight = weight / weight.mean()
            logged = {name: value * weight for name, value in logged.items()}
        if self.error_balance:
            error = logged["mse"].detach().mean((1, 2, 3), keepdim=True) + BALANCE_FLOOR
            weight = error**-self.error_balance
            weight = weight / weight.mean()
            logged = {name: value * weight for name, value in logged.items()}
        logged = {name: value.mean() for name, value in logged.items()}
        total = self.mse_weight * logged["mse"] + self.l1_weight * logged["l1"]
        for name, value in encoding.losses.items():
            if name not in self.terms:
                raise ValueError(
                    f"the tokenizer gives a loss {name!r} without a weight; add it to loss.terms, which has "
                    f"{', '.join(self.terms) or 'nothing'}."
                )
            total = total + self.terms[name] * value
            logged[name] = value
        return total, logged


class SigmoidLoss(nn.Module):
    """Every image-caption pair of a batch is a yes-no question (SigLIP, Zhai et al. 2023, arXiv:2303.15343, eq. 1).

    Deviation from the paper: equal captions count as matches, since small worlds repeat them within a batch.
    """

    def forward(self, logits: Tensor, captions: list[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits (B, B), image i against caption j -> (total, logged terms): summed over pairs, mean over images."""
        number = {caption: i for i, caption in enumerate(captions)}
        same = torch.tensor([number[caption] for caption in captions], device=logits.device)
        signs = (same[:, None] == same).to(logits.dtype) * 2 - 1
        loss = -F.logsigmoid(signs * logits.float()).sum() / len(captions)
        right = (logits.argmax(1)[:, None] == torch.arange(len(captions), device=logits.device)) & (signs > 0)
        return loss, {"sigmoid": loss, "retrieval": right.any(1).float().mean()}
