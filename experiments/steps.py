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
    def __init__(
        self, order: TrainingOrder, load: Callable[[torch.Tensor, int], Any], rank: int, world_size: int
    ) -> None:
        self.order, self.load, self.rank, self.world_size = order, load, rank, world_size

    def __getitem__(self, step: int) -> tuple[int, Any]:
        indices = self.order.indices(step)[self.rank :: self.world_size]
        return step, self.load(indices, step)


class StepLoader:
    """Iterates (step, batch) for the steps in [start, stop).

    It has no length on purpose: the number of steps is the trainer's, and a loader that knew its own would end a
    resumed epoch early.

    Args:
        load: (indices (B,), step) -> batch; runs in the workers.
        num_workers: processes that load ahead; 0 loads in the training process.
    """

    def __init__(
        self,
        order: TrainingOrder,
        load: Callable[[torch.Tensor, int], Any],
        *,
        start: int,
        stop: int,
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.start, self.stop = start, stop
        self._loader = DataLoader(
            _StepDataset(order, load, rank, world_size),
            sampler=range(start, stop),
            batch_size=None,
            num_workers=num_workers,
            persistent_workers=False,
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
