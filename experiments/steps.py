"""Training data by step number: what step `s` sees is a pure function of (data, batch size, seed, s).

That makes resuming exact (start at step s) and comparisons fair (every design sees the same examples in the same
order), without any loader state in checkpoints.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from ..data.order import TrainingOrder


def step_seed(seed: int, step: int, stream: str = "") -> int:
    """A 63-bit seed for the random numbers of one step; streams keep the uses of one step apart."""
    key = hashlib.blake2b(f"{seed}/{step}/{stream}".encode(), digest_size=8).digest()
    return int.from_bytes(key, "big") >> 1


class _StepDataset(Dataset):
    def __init__(self, order: TrainingOrder, load: Callable[[torch.Tensor, int], Any], parts: int) -> None:
        self.order, self.load, self.parts = order, load, parts

    def __getitem__(self, micro_step: int) -> tuple[int, Any]:
        step, part = divmod(micro_step, self.parts)
        return step, self.load(self.order.indices(step).chunk(self.parts)[part], step)


class StepLoader:
    """Iterates (step, batch) for the optimizer steps in [start, stop).

    It has no length on purpose: the number of steps is the trainer's, and a loader that knew its own would end a
    resumed epoch early.

    Args:
        load: (indices (B,), step) -> batch; runs in the workers.
        accumulate: parts that the examples of a step come in, one after another; must divide the batch size.
        num_workers: processes that load ahead; 0 loads in the training process.
    """

    def __init__(
        self,
        order: TrainingOrder,
        load: Callable[[torch.Tensor, int], Any],
        *,
        start: int,
        stop: int,
        accumulate: int = 1,
        num_workers: int = 0,
    ) -> None:
        self._loader = DataLoader(
            _StepDataset(order, load, accumulate),
            sampler=range(start * accumulate, stop * accumulate),
            batch_size=None,
            num_workers=num_workers,
        )

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        return iter(self._loader)


class FixedBatches:
    """The same few batches every time: Lightning would take a plain list for several loaders."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)
