"""Encoded images in some container, what is said about each, and the account of those that cannot be used."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

from .images import ImageError, header_size

HEADER_BYTES = 1 << 16  # enough for the header of nearly every file; the whole file is read where it is not
HASHED_BYTES = 1 << 30  # up to here contents are hashed in full, which takes about a second
TOLERATED = 0.01  # share of files that may be unusable


class Records(ABC):
    """What a container gives: encoded bytes by row, and per row a key and, where there is one, a caption and a label.

    Attributes:
        location: where the images lie, for messages.
        files: what was read, to find splits that share a file.
        identity: hex digest of the image content.
        keys: one name per row, unique.
        captions: one per row, or None.
        labels: one per row, names or integers, or None.
        class_names: the names of integer labels, or None.
    """

    location: str
    files: Sequence[Path]
    identity: str
    keys: Sequence[str]
    captions: list[str] | None = None
    labels: list | None = None  # of str or of int
    class_names: tuple[str, ...] | None = None

    @abstractmethod
    def read(self, row: int) -> bytes:
        """The encoded image of one row.

        Raises:
            ImageError: there is none.
        """

    def head(self, row: int) -> bytes:
        """At least the first HEADER_BYTES of `read(row)`, or all of it; overridden where that is cheaper."""
        return self.read(row)

    def check_header(self, row: int, min_size: int) -> None:
        """Raises ImageError for a row whose first bytes already show that it cannot be used."""
        try:
            height, width = header_size(self.head(row))
        except ImageError:
            height, width = header_size(self.read(row))
        if min(height, width) < min_size:
            raise ImageError(f"{width}x{height} pixels, less than min_size={min_size}")


class Unusable:
    """The account of corrupt, tiny and non-image files of one container; more than 1 % of them is an error.

    Attributes:
        reasons: row -> why it cannot be used, in the order met.
    """

    def __init__(self, records: Records) -> None:
        self.records = records
        self.reasons: dict[int, str] = {}

    def check_headers(self, min_size: int) -> None:
        """Reads every header, so that a broken collection is refused before any work is done.

        Raises:
            ValueError: more than 1 % cannot be used.
        """
        for row in range(len(self.records.keys)):
            try:
                self.records.check_header(row, min_size)
            except ImageError as error:
                self.reasons[row] = str(error)
        self._check_share()

    def add(self, row: int, reason: str) -> None:
        """Counts a file that turned out to be broken when it was decoded.

        Raises:
            ValueError: more than 1 % cannot be used.
        """
        self.reasons[row] = reason
        self._check_share()

    def _check_share(self) -> None:
        total, bad = len(self.records.keys), len(self.reasons)
        if bad > TOLERATED * total:
            named = "; ".join(f"{self.records.keys[row]}: {why}" for row, why in list(self.reasons.items())[:3])
            raise ValueError(
                f"{bad} of {total} images in {self.records.location} cannot be used, more than {TOLERATED:.0%} "
                f"({named}); remove or mend them, or lower data.min_size if they are only small."
            )


def content_identity(files: Iterable[tuple[str, Path]]) -> str:
    """Hex digest that names the content of files under the names given.

    Up to 1 GB in all, every byte counts, so the digest is the same on every machine. Above that, hashing would cost
    minutes at every start: size and modification time stand for the content, so a copy counts as new data, but changed
    data never as the old.
    """
    listed = sorted(files)
    in_full = sum(_stat(path)[0] for _, path in listed) <= HASHED_BYTES
    digest = hashlib.sha256()
    for name, path in listed:
        state = _content(path) if in_full else " ".join(map(str, _stat(path)))
        digest.update(f"{name}\0{state}\0".encode())
    return digest.hexdigest()


def _stat(path: Path) -> tuple[int, int]:
    """Size in bytes and modification time in ns; zeros for a file that cannot be reached (it is refused when read)."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def _content(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return "unreadable"
