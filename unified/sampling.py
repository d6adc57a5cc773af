"""From logits to ids: guidance, temperature, top-k, top-p; pure functions over the last axis."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How ids are drawn.

    Args:
        temperature: 0 takes the likeliest id.
        guidance: weight of the caption: 1 is none, above 1 moves away from what is likely without a caption.
        top_k: keep the k likeliest ids; None keeps all.
        top_p: keep the likeliest ids that together reach this probability, after temperature and top-k; None keeps all.

    Raises:
        ValueError: a value out of its range.
    """

    temperature: float = 0.0
    guidance: float = 2.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self):
        if self.temperature < 0:
            raise ValueError(f"temperature={self.temperature} is negative; use 0 for the likeliest id (temperature).")
        if self.guidance < 0:
            raise ValueError(f"guidance={self.guidance} is negative; use 1 for none (cfg_scale).")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k={self.top_k} keeps nothing; use at least 1, or null for all (top_k).")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} is outside (0, 1]; use null for all (top_p).")


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (arXiv 2207.12598): unconditional + scale * (conditional - unconditional)."""
    return torch.lerp(unconditional, conditional, scale)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """All but the k largest logits become -inf; logits equal to the k-th stay."""
    least = logits.topk(min(k, logits.shape[-1])).values[..., -1:]
    return logits.masked_fill(logits < least, float("-inf"))


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """The smallest set of likeliest ids whose probability reaches p stays; the others become -inf."""
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities  # what is likelier than each id, summed
    dropped = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before >= p)
    return logits.masked_fill(dropped, float("-inf"))


def draw(logits: Tensor, sampling: Sampling, uniform: Tensor | None) -> Tensor:
    """Ids (B,) from logits (B, K).

    Args:
        uniform: (B,) float64 draws in [0, 1): id i is where the cumulative distribution first exceeds the draw. One
            number a row instead of one for each id, which would take longer than the rest. None for temperature 0.
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    assert uniform is not None
    logits = logits.float() / sampling.temperature
    if sampling.top_k is not None:
        logits = keep_top_k(logits, sampling.top_k)
    if sampling.top_p is not None:
        logits = keep_top_p(logits, sampling.top_p)
    cumulative = logits.softmax(-1).cumsum(-1, dtype=torch.float64)
    # of the sum that was reached, not of 1: so the draw lies below it, and an id of probability 0 is never chosen
    return torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True)[:, 0]


def image_noise(seeds: Sequence[int], length: int, device: torch.device) -> Tensor:
    """Draws (B, length) for the ids of B images, each from its own seed: an image does not depend on its batch."""
    rows = [torch.rand(length, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows).to(device)
