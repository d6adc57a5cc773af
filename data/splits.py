"""Which examples belong to train, val and test: decided by the example's own key, never by what else is there."""

import hashlib
from collections.abc import Sequence

import numpy as np

from .base import Split


def positions(keys: Sequence[str], seed: int) -> np.ndarray:
    """(len(keys),) float64 in [0, 1): a seeded hash of each key.

    Adding or removing files never moves another example to another split.
    """
    salt = str(seed).encode()
    words = [hashlib.blake2b(key.encode(), digest_size=8, key=salt).digest() for key in keys]
    return (np.frombuffer(b"".join(words), dtype="<u8") >> np.uint64(11)).astype(np.float64) * 2.0**-53


def members(where: np.ndarray, split: Split, val_fraction: float, test_fraction: float) -> np.ndarray:
    """Rows of `split`: test lies in [0, test_fraction), val follows, train has the rest."""
    if split == "test":
        return np.flatnonzero(where < test_fraction)
    if split == "val":
        return np.flatnonzero((where >= test_fraction) & (where < test_fraction + val_fraction))
    return np.flatnonzero(where >= test_fraction + val_fraction)


def limited(rows: np.ndarray, where: np.ndarray, limit: int | None) -> np.ndarray:
    """At most `limit` of the rows, in source order, chosen by hash: a larger limit only adds examples."""
    if limit is None or len(rows) <= limit:
        return rows
    return np.sort(rows[np.argsort(where[rows], kind="stable")[:limit]])
