"""WebDataset tar shards, read at random: an offset index and memory-mapped bytes instead of a stream."""

import mmap
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from .encoded_source import EncodedSource
from .images import ImageError
from .locations import expand
from .records import Records, content_identity
from .tar_index import IMAGE_MEMBERS, TarIndex, open_index


@dataclass(kw_only=True, eq=False)
class WebDataset(EncodedSource):
    """Tar shards with members <key>.jpg|png|webp and optionally <key>.txt (caption), <key>.cls, <key>.json.

    The whole index is known at the start, so shuffling is over all examples and any example can be resumed at.

    Args:
        cache_folder: where offset indexes are kept between runs; None rebuilds them at every start.
    """

    cache_folder: str | None = None

    def open(self, where: str | Sequence[str], config_key: str) -> Records:
        shards = []
        for anchor, path in expand(where, config_key):
            inside = sorted(path.glob("*.tar")) if path.is_dir() else [path]
            if not inside:
                raise ValueError(f"no .tar shards in {path} ({config_key}).")
            shards += [(shard.relative_to(anchor).as_posix(), shard) for shard in inside]
        kept = None if self.cache_folder is None else Path(self.cache_folder).expanduser()
        return TarRecords(list(dict.fromkeys(shards)), [open_index(shard, kept) for _, shard in dict.fromkeys(shards)])


class TarRecords(Records):
    """Samples of shards given as (name, path), in the order of the shards."""

    def __init__(self, shards: Sequence[tuple[str, Path]], indexes: Sequence[TarIndex]) -> None:
        self.files = [path for _, path in shards]
        self.location = str(self.files[0]) + (f" and {len(shards) - 1} more" if len(shards) > 1 else "")
        self.identity = content_identity(shards)
        self.keys = [
            f"{name.removesuffix('.tar')}/{key}"
            for (name, _), index in zip(shards, indexes, strict=True)
            for key in index.keys
        ]
        self.captions = self._complete([caption for index in indexes for caption in index.captions], "caption")
        self.labels = self._complete([label for index in indexes for label in index.labels], "label")
        self._offsets = [offset for index in indexes for offset in index.offsets]
        self._sizes = [size for index in indexes for size in index.sizes]
        self._ends = list(accumulate(len(index.keys) for index in indexes))
        self._maps: dict[int, mmap.mmap] = {}

    def read(self, row: int) -> bytes:
        size = self._sizes[row]
        if size < 0:
            raise ImageError(f"the sample has no image (.{', .'.join(IMAGE_MEMBERS)})")
        offset = self._offsets[row]
        return self._map(bisect_right(self._ends, row))[offset : offset + size]

    def _map(self, shard: int) -> mmap.mmap:
        if shard not in self._maps:
            with self.files[shard].open("rb") as stream:
                self._maps[shard] = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        return self._maps[shard]

    def _complete(self, said: list, what: str) -> list | None:
        """The list if every sample has an entry, None if no sample has one."""
        missing = [row for row, entry in enumerate(said) if entry is None]
        if len(missing) == len(said):
            return None
        if missing:
            named = ", ".join(self.keys[row] for row in missing[:3])
            raise ValueError(
                f"{len(missing)} of {len(said)} samples in {self.location} have no {what}, such as {named}."
            )
        return said
