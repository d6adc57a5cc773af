"""What a frozen tokenizer computes for the LLM: ids and features on disk, memory-mapped, under a checked key."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .cache_files import RECORD, STORED, ArraySpec, write_cache

VERSION = 1  # of the files; part of every key


class StaleCacheError(ValueError):
    """A cache that was computed from something else, or that is damaged; it is never read."""


class TokenCache:
    """Arrays with one row per example, read in batches of any order.

    `ids` are stored as uint16 (uint32 above 65536 codes), `features` as float16, bfloat16 or float32. The folder holds
    one raw file per array and `cache.json` with the key: everything the content depends on (weights, image preparation,
    data), the shapes, the stored types, the number of examples and the version of this format.
    """

    def __init__(self, folder: Path, arrays: Mapping[str, ArraySpec], num_examples: int, key: str) -> None:
        self.folder = folder
        self.key = key
        self._length = num_examples
        self._types = {name: kind for name, (_, kind) in arrays.items()}
        self._maps = {
            # a plain view: indexing numpy's memmap class costs more than the read
            name: np.asarray(np.memmap(folder / f"{name}.bin", STORED[kind], mode="r", shape=(num_examples, *shape)))
            for name, (shape, kind) in arrays.items()
        }

    @classmethod
    def open(cls, folder: str | Path, key_parts: Mapping[str, Any]) -> "TokenCache":
        """A finished cache whose key has exactly these parts.

        Raises:
            FileNotFoundError: there is none in this folder.
            StaleCacheError: it was computed from something else; names what differs.
        """
        return cls._open(Path(folder), {"version": VERSION, "parts": _plain(key_parts)})

    @classmethod
    def open_or_build(
        cls,
        folder: str | Path,
        key_parts: Mapping[str, Any],
        arrays: Mapping[str, ArraySpec],
        num_examples: int,
        batches: Callable[[], Iterable[Mapping[str, Tensor]]],
        progress: Callable[[int, int], None] | None = None,
    ) -> "TokenCache":
        """The cache in `folder`, computed first where there is none. Processes that ask at once compute it once.

        An interrupted build leaves nothing under the folder's name, and the next one starts over.

        Args:
            key_parts: everything the content depends on, by name: weights, preparation, data, ...
            arrays: name -> (shape of one example, stored type).
            batches: gives {name: (B, *shape)} for the examples in order; called only where there is no cache.
            progress: called with (examples written, num_examples) after each batch.

        Raises:
            StaleCacheError: the folder holds a cache of something else.
            ValueError: values that the stored type cannot hold, wrong shapes or numbers, too little free space.
        """
        record = {
            "version": VERSION,
            "parts": _plain(key_parts),
            "arrays": {name: [list(shape), kind] for name, (shape, kind) in arrays.items()},
            "num_examples": num_examples,
        }
        folder = Path(folder)
        if not (folder / RECORD).is_file():
            write_cache(folder, {**record, "key": _key(record)}, arrays, num_examples, batches, progress)
        return cls._open(folder, record)

    def __len__(self) -> int:
        return self._length

    def ids(self, indices: Sequence[int] | Tensor) -> Tensor:
        """(B,) rows to (B, L) int64 ids."""
        return torch.from_numpy(self._gather("ids", indices, np.dtype(np.int64)))

    def features(self, indices: Sequence[int] | Tensor) -> Tensor:
        """(B,) rows to (B, M, F) float32 features."""
        rows = torch.from_numpy(self._gather("features", indices, None))
        return (rows.view(torch.bfloat16) if self._types["features"] == "bfloat16" else rows).to(torch.float32)

    def _gather(self, name: str, indices: Sequence[int] | Tensor, dtype: np.dtype | None) -> np.ndarray:
        """Rows in the order asked for, read from disk in ascending order; `dtype` None keeps the stored type."""
        if name not in self._maps:
            raise ValueError(f"the token cache {self.folder} has no {name}; it has {', '.join(self._maps)}.")
        stored = self._maps[name]
        rows = np.asarray(indices, dtype=np.int64)
        if rows.size and not 0 <= rows.min() <= rows.max() < self._length:
            raise IndexError(f"rows {rows.min()} to {rows.max()} are outside the {self._length} of {self.folder}")
        order = np.argsort(rows)
        gathered = np.empty((len(rows), *stored.shape[1:]), dtype=dtype or stored.dtype)
        gathered[order] = stored[rows[order]]
        return gathered

    @classmethod
    def _open(cls, folder: Path, expected: Mapping[str, Any]) -> "TokenCache":
        if not (folder / RECORD).is_file():
            raise FileNotFoundError(f"there is no token cache in {folder}")
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        differing = [
            f"{name} is {_shown(found.get(part, {}), name)}, needed is {_shown(expected[part], name)}"
            for part in expected
            for name in _names(found.get(part), expected[part], part)
        ]
        if differing:
            raise StaleCacheError(f"the token cache {folder} was computed from something else: {'; '.join(differing)}.")
        arrays = {name: (tuple(shape), kind) for name, (shape, kind) in found["arrays"].items()}
        for name, (shape, kind) in arrays.items():
            file = folder / f"{name}.bin"
            needed = found["num_examples"] * int(np.prod(shape)) * np.dtype(STORED[kind]).itemsize
            there = file.stat().st_size if file.is_file() else 0
            if there != needed:
                raise StaleCacheError(f"{file} has {there} bytes of {needed}; delete {folder}, it is computed again.")
        return cls(folder, arrays, found["num_examples"], found["key"])


def _plain(key_parts: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in key_parts.items()}


def _key(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _names(found: Any, expected: Any, part: str) -> list[str]:
    """What differs between two values of one part of the record: names of entries, or the part itself."""
    if isinstance(found, dict) and isinstance(expected, dict):
        return [name for name in sorted({*found, *expected}) if found.get(name) != expected.get(name)]
    return [] if found == expected else [part]


def _shown(value: Any, name: str) -> str:
    return str(value.get(name, "absent") if isinstance(value, dict) else value)
