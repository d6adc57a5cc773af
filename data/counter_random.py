"""Random numbers that are a pure function of (key, index): any example can be drawn at any time, in any order."""

import hashlib
from math import prod

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def uniforms(key: str, indices: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """`count` independent numbers in [0, 1) for each index: (B,) -> (B, count).

    SplitMix64 (Steele, Lea and Flood 2014) as a counter-based generator: the state is a hash of `key` plus the counter
    of the draw, and the finalizer is applied twice because the counters of neighbouring draws differ in few bits.
    """
    start = np.uint64(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little"))
    counters = indices.astype(np.uint64)[:, None] * np.uint64(count) + np.arange(count, dtype=np.uint64)  # (B, count)
    mixed = _finalize(_finalize(start + counters * _GOLDEN) + _GOLDEN)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def choices(uniform: NDArray[np.float64], options: int) -> NDArray[np.int64]:
    """Numbers in [0, 1) to whole numbers in [0, options), all equally likely; the shape stays."""
    return (uniform * options).astype(np.int64)


class Draws:
    """Random numbers for a batch of indices, drawn one after the other; each draw is independent of the others."""

    def __init__(self, key: str, indices: NDArray[np.int64]) -> None:
        self._key, self._indices, self._drawn = key, indices, 0

    def unit(self, *shape: int) -> NDArray[np.float64]:
        """Numbers in [0, 1): (B, *shape)."""
        self._drawn += 1
        numbers = uniforms(f"{self._key}/{self._drawn}", self._indices, prod(shape))
        return numbers.reshape(len(self._indices), *shape)

    def below(self, options: int, *shape: int) -> NDArray[np.int64]:
        """Whole numbers in [0, options): (B, *shape)."""
        return choices(self.unit(*shape), options)


def _finalize(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))
