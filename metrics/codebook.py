"""How a tokenizer uses its codes over a whole split: usage, entropy, perplexity, dead codes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .results import Rows, row


class CodebookUsage:
    """Streaming histogram of ids.

    One batch says little: with fewer ids than codes usage cannot reach 1. Every row therefore carries its `ceiling` at
    the number of ids seen.

    Args:
        vocab_size: number of codes K; ids lie in [0, K).
        num_positions: ids per image L, to keep one histogram per position as well (L x K counts); None: one in all.
    """

    def __init__(self, vocab_size: int, num_positions: int | None = None) -> None:
        if vocab_size < 1:
            raise ValueError(
                f"vocab_size={vocab_size} must be at least 1 (a continuous tokenizer has no codes to count)."
            )
        self.vocab_size = vocab_size
        self.num_positions = num_positions
        self._counts = torch.zeros(num_positions or 1, vocab_size, dtype=torch.int64)  # (L or 1, K)

    def update(self, ids: Tensor) -> None:
        """Adds (B, L) int64 ids."""
        if ids.ndim != 2 or (self.num_positions is not None and ids.shape[1] != self.num_positions):
            wanted = "(B, L)" if self.num_positions is None else f"(B, {self.num_positions})"
            raise ValueError(f"ids have shape {tuple(ids.shape)}; {wanted} is needed.")
        if ids.numel() == 0:
            return
        ids = ids.detach().cpu()
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= self.vocab_size:
            raise ValueError(f"ids span [{low}, {high}]; they must lie in [0, {self.vocab_size - 1}] (vocab_size).")
        if self.num_positions is not None:
            ids = ids + torch.arange(self.num_positions) * self.vocab_size  # each position counts in its own stretch
        self._counts += torch.bincount(ids.flatten(), minlength=self._counts.numel()).view_as(self._counts)

    @property
    def counts(self) -> Tensor:
        """How often each code was chosen, (K,) int64."""
        return self._counts.sum(0)

    def position_counts(self) -> Tensor:
        """The same for each position, (L, K) int64."""
        if self.num_positions is None:
            raise ValueError("positions were not counted apart; build CodebookUsage(vocab_size, num_positions=L).")
        return self._counts

    def position_entropy_bits(self) -> Tensor:
        """Entropy of the codes at each position in bits, (L,) float64: 0 where a position never changes."""
        return _entropy_bits(self.position_counts())

    def rows(self) -> Rows:
        """`codebook/usage` (share of codes chosen at least once), `codebook/dead` (how many never were),
        `codebook/entropy_bits` and `codebook/perplexity` (2 to that power), each with the number of ids as n.

        The entropy is the plug-in estimate, which is low when n is not large against the number of codes.
        """
        counts = self.counts
        n = int(counts.sum())
        if n == 0:
            raise ValueError("no ids were counted; codebook metrics need at least one image (is the split empty?).")
        used = int((counts > 0).sum())
        entropy = float(_entropy_bits(counts[None])[0])
        reachable = min(self.vocab_size, n)
        return {
            "codebook/usage": row(used / self.vocab_size, n, ceiling=reachable / self.vocab_size),
            "codebook/dead": row(self.vocab_size - used, n, floor=self.vocab_size - reachable),
            "codebook/entropy_bits": row(entropy, n, ceiling=math.log2(reachable)),
            "codebook/perplexity": row(2**entropy, n, ceiling=reachable),
        }


def _entropy_bits(counts: Tensor) -> Tensor:
    """(L, K) counts -> (L,) entropies in bits; 0 for a row without counts."""
    p = counts.double() / counts.sum(1, keepdim=True).clamp_min(1)
    return (
        torch.special.xlogy(p, p).sum(1).abs().div(math.log(2))
    )  # every term is <= 0; abs turns -0.0 into 0.0 as well
