"""Tail drop: training on random prefixes, so that the first tokens carry the most (One-D-Piece, arXiv:2501.10064)."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TailDrop:
    """How many leading tokens a decoder in training gets to see: a uniform number, or all of them.

    For any tokenizer whose tokens are ordered and whose decoder takes a prefix of them. As published (the defaults) one
    number is drawn per forward pass and shared by the batch, always, so that dropped tokens can simply be cut off.

    Args:
        probability: of drawing a number at all; otherwise everything is kept.
        per_sample: draw for each image of the batch on its own.
        begins: fraction of the run before which nothing is dropped.
    """

    probability: float = 1.0
    per_sample: bool = False
    begins: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(
                f"probability={self.probability} is none; use 0 <= probability <= 1 (tokenizer.tail_drop.probability)."
            )
        if not 0 <= self.begins < 1:
            raise ValueError(
                f"begins={self.begins} is no fraction of the run; use 0 <= begins < 1 (tokenizer.tail_drop.begins)."
            )

    def draw(self, batch_size: int, num_tokens: int, *, shortest: int = 1, progress: float = 1.0) -> Tensor:
        """(B,) int64 on the CPU: kept tokens of each image, uniform in shortest..num_tokens where drawn.

        From torch's global generator, which training seeds at each step.

        Args:
            progress: fraction of the run that is done.
        """
        if progress < self.begins:
            return torch.full((batch_size,), num_tokens, device="cpu")
        count = batch_size if self.per_sample else 1
        drawn = torch.randint(shortest, num_tokens + 1, (count,), device="cpu")
        kept = torch.where(torch.rand(count, device="cpu") < self.probability, drawn, num_tokens)
        return kept.expand(batch_size)
