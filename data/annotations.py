"""What is said about the images of a folder: a captions file, a sidecar .txt beside each image, or class folders."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

FILE_NAMES = tuple(
    f"{stem}.{suffix}" for stem in ("captions", "metadata") for suffix in ("json", "jsonl", "csv", "tsv")
)
FILE_COLUMNS = ("file_name", "file", "filename", "image", "path")
CAPTION_COLUMNS = ("caption", "text", "prompt", "description")
KINDS = ("auto", "file", "sidecar", "classes", "none")


@dataclass(frozen=True, eq=False)
class Annotations:
    """One entry per image; at most one of the two is there."""

    captions: list[str] | None = None
    classes: list[str] | None = None


def annotate(
    images: Sequence[tuple[str, Path]], roots: Sequence[Path], kind: str, captions_file: str | None
) -> Annotations:
    """Captions or classes of images given as (path relative to their root, path).

    Args:
        kind: "file", "sidecar", "classes" or "none"; "auto" takes the first of these that the folder shows: a file
            `captions` or `metadata` (.json, .jsonl, .csv, .tsv) in a root, a .txt beside an image, all images in
            subfolders.
        captions_file: a captions file under another name; relative names in it start at its own folder.

    Raises:
        ValueError: captions that do not cover exactly the images, or a captions file that cannot be read.
    """
    files = [Path(captions_file).expanduser()] if captions_file else _captions_files(roots)
    if kind == "auto":
        if files:
            kind = "file"
        elif any(path.with_suffix(".txt").exists() for _, path in images):
            kind = "sidecar"
        else:
            kind = "classes" if all("/" in name for name, _ in images) else "none"
    if kind == "file":
        return Annotations(captions=_from_files(images, roots, files))
    if kind == "sidecar":
        return Annotations(captions=_from_sidecars(images))
    if kind == "classes":
        return Annotations(classes=_from_folders(images))
    return Annotations()


def _captions_files(roots: Sequence[Path]) -> list[Path]:
    return [root / name for root in roots for name in FILE_NAMES if (root / name).is_file()]


def _from_files(images: Sequence[tuple[str, Path]], roots: Sequence[Path], files: Sequence[Path]) -> list[str]:
    if not files:
        raise ValueError(
            f"no captions file in {', '.join(map(str, roots))}; name it {FILE_NAMES[1]} or give its path "
            "(data.captions_file)."
        )
    captions: dict[Path, str] = {}
    for file in files:
        for name, caption in read_captions(file):
            path = (file.parent / name).resolve()
            if path in captions:
                raise ValueError(f"{file} has two captions for {name}; keep one per image.")
            captions[path] = caption
    resolved = [path.resolve() for _, path in images]
    _check_covered([path.name for path in resolved if path not in captions], len(images), f"in {files[0]}")
    # a captions file may speak of more images than are used here (another split), but not of images that do not exist
    lost = [str(path) for path in captions if not path.exists()]
    if lost:
        raise ValueError(f"{files[0]} names {len(lost)} images that do not exist, such as {lost[0]}.")
    return [captions[path] for path in resolved]


def _from_sidecars(images: Sequence[tuple[str, Path]]) -> list[str]:
    sidecars = [path.with_suffix(".txt") for _, path in images]
    missing = [sidecar.name for sidecar in sidecars if not sidecar.is_file()]
    _check_covered(missing, len(images), "in a .txt file of the same name")
    return [sidecar.read_text(encoding="utf-8").strip() for sidecar in sidecars]


def _from_folders(images: Sequence[tuple[str, Path]]) -> list[str]:
    loose = [name for name, _ in images if "/" not in name]
    if loose:
        raise ValueError(
            f"{len(loose)} images lie outside class folders, such as {loose[0]}; move them, or use data.captions=none."
        )
    return [PurePosixPath(name).parts[0] for name, _ in images]


def _check_covered(missing: Sequence[str], total: int, where: str) -> None:
    if missing:
        raise ValueError(
            f"{len(missing)} of {total} images have no caption {where}, such as {', '.join(missing[:3])}; "
            "add them, or use data.captions=none."
        )


def read_captions(file: Path) -> list[tuple[str, str]]:
    """(image name, caption) pairs of a captions file.

    JSON is an object {name: caption} or a list of objects, JSONL one object per line, CSV and TSV have a header; the
    name stands under one of FILE_COLUMNS, the caption under one of CAPTION_COLUMNS.

    Raises:
        ValueError: missing or unreadable file, or none of these columns.
    """
    if not file.is_file():
        raise ValueError(f"captions file {file} does not exist (data.captions_file).")
    try:
        text = file.read_text(encoding="utf-8-sig")
        if file.suffix == ".json":
            content = json.loads(text)
            if isinstance(content, dict):
                content = [{FILE_COLUMNS[0]: name, CAPTION_COLUMNS[0]: caption} for name, caption in content.items()]
        elif file.suffix == ".jsonl":
            content = [json.loads(line) for line in text.splitlines() if line.strip()]
        elif file.suffix in (".csv", ".tsv"):
            content = list(csv.DictReader(text.splitlines(), delimiter="\t" if file.suffix == ".tsv" else ","))
        else:
            raise ValueError("its suffix is none of .json, .jsonl, .csv, .tsv")
    except ValueError as error:  # broken JSON and undecodable text are ValueErrors too
        raise ValueError(f"captions file {file} cannot be read: {error} (data.captions_file).") from None
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise ValueError(f"captions file {file} must hold one object per image, or one object of name: caption.")
    if not content:
        raise ValueError(f"captions file {file} holds no captions.")
    name_column = _column(file, content[0], FILE_COLUMNS)
    caption_column = _column(file, content[0], CAPTION_COLUMNS)
    pairs = [(row.get(name_column), row.get(caption_column)) for row in content]
    for line, (name, caption) in enumerate(pairs, start=1):
        if not isinstance(name, str) or not isinstance(caption, str):
            raise ValueError(
                f"entry {line} of {file} lacks {name_column!r} or {caption_column!r}, or they are no text."
            )
    return [(str(name), str(caption)) for name, caption in pairs]


def _column(file: Path, row: dict, names: Sequence[str]) -> str:
    for name in names:
        if name in row:
            return name
    raise ValueError(f"{file} has columns {', '.join(map(str, row))}; it needs one of {', '.join(names)}.")
