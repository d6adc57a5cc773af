"""Which examples each training step sees: the same for every design that trains with the same seed."""

import hashlib

import numpy as np
import torch
from torch import Tensor

from .counter_random import uniforms


class TrainingOrder:
    """Shuffled batches as a pure function of (seed, step), so a run resumes at any step without replaying the others.

    Each epoch is a new permutation, cut into whole batches. The fewer than `batch_size` examples left over are dropped,
    so no example comes twice in one epoch or in one batch; they are others in every epoch. The shuffle is integer
    hashing, equal on every machine and under every version of the libraries.

    Args:
        num_examples: size of the training split.
        batch_size: examples per optimizer step.
        seed: of the order.

    Raises:
        ValueError: a batch larger than the data set.
    """

    def __init__(self, num_examples: int, batch_size: int, seed: int) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1.")
        if batch_size > num_examples:
            raise ValueError(
                f"batch_size={batch_size} exceeds the {num_examples} training examples; use at most {num_examples}."
            )
        self.num_examples = num_examples
        self.batch_size = batch_size
        self.seed = seed
        self.steps_per_epoch = num_examples // batch_size
        self._latest: tuple[int, np.ndarray] | None = None  # one epoch's permutation; steps come in order

    def permutation(self, epoch: int) -> np.ndarray:
        """All of [0, num_examples) in the order of one epoch, (num_examples,) int64."""
        if self._latest is None or self._latest[0] != epoch:
            draws = uniforms(f"order/{self.seed}/{epoch}", np.arange(self.num_examples), 1)[:, 0]
            self._latest = epoch, np.argsort(draws, kind="stable")
        return self._latest[1]

    def indices(self, step: int) -> Tensor:
        """The examples of optimizer step `step` (from 0), (batch_size,) int64."""
        if step < 0:
            raise ValueError(f"step={step} must be 0 or more.")
        epoch, batch = divmod(step, self.steps_per_epoch)
        start = batch * self.batch_size
        return torch.from_numpy(self.permutation(epoch)[start : start + self.batch_size].copy())

    def digest(self, steps: int) -> str:
        """sha256 over the indices of the first `steps` steps; equal where two runs saw the same data in order."""
        sha = hashlib.sha256()
        for step in range(steps):
            sha.update(self.indices(step).numpy().astype("<i8").tobytes())
        return sha.hexdigest()
