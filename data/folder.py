"""Any tree of image files, with captions from a file, from sidecars or from the names of class folders."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .annotations import KINDS, Annotations, annotate
from .encoded_source import EncodedSource
from .images import IMAGE_SUFFIXES, ImageError
from .locations import expand
from .records import HEADER_BYTES, Records, content_identity


@dataclass(kw_only=True, eq=False)
class Folder(EncodedSource):
    """Image files below one or more folders.

    Every file with an image suffix counts as an image; hidden files and all others are left alone.

    Args:
        captions: "file", "sidecar", "classes", "none", or "auto" (see `annotate`). With classes, captions are
            "a photo of a <class>".
        captions_file: path of a captions file that is not called captions.* or metadata.*.
    """

    captions: Literal["auto", "file", "sidecar", "classes", "none"] = "auto"
    captions_file: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.captions not in KINDS:
            raise ValueError(f"captions={self.captions!r} is unknown; use one of {', '.join(KINDS)} (data.captions).")
        if self.captions_file is not None and self.captions not in ("auto", "file"):
            raise ValueError(f"captions_file is given, so captions={self.captions} must be file (data.captions).")

    def open(self, where: str | Sequence[str], config_key: str) -> Records:
        found = expand(where, config_key)
        roots = list(dict.fromkeys(anchor for anchor, _ in found))
        named: dict[Path, tuple[str, str]] = {}  # path -> key, path relative to its root
        for anchor, path in found:
            for file in _image_files(path):
                relative = file.relative_to(anchor).as_posix()
                named.setdefault(file, (relative if len(roots) == 1 else f"{anchor.name}/{relative}", relative))
        location = ", ".join(str(root) for root in roots)
        if not named:
            raise ValueError(f"no image files ({' '.join(IMAGE_SUFFIXES)}) in {location} ({config_key}).")
        images = sorted((key, path) for path, (key, _) in named.items())
        said = annotate([(named[path][1], path) for _, path in images], roots, self.captions, self.captions_file)
        return FolderRecords(location, images, said)


class FolderRecords(Records):
    """Image files as (key, path), sorted by key."""

    def __init__(self, location: str, images: Sequence[tuple[str, Path]], said: Annotations) -> None:
        self.location = location
        self.keys = [key for key, _ in images]
        self.files = [path for _, path in images]
        self.identity = content_identity(images)
        self.captions, self.labels = said.captions, said.classes

    def read(self, row: int) -> bytes:
        try:
            return self.files[row].read_bytes()
        except OSError as error:
            raise ImageError(f"unreadable file: {error.strerror}") from None

    def head(self, row: int) -> bytes:
        try:
            with self.files[row].open("rb") as stream:
                return stream.read(HEADER_BYTES)
        except OSError as error:
            raise ImageError(f"unreadable file: {error.strerror}") from None


def _image_files(path: Path) -> Iterator[Path]:
    if path.is_file():
        if _is_image(path.name):
            yield path
        return
    entered = set()
    for folder, subfolders, names in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        if real in entered:  # a link back up the tree
            subfolders.clear()
            continue
        entered.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield from (Path(folder) / name for name in names if _is_image(name))


def _is_image(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)
