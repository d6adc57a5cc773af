"""Paths as a user writes them (files, folders, globs, `{000..012}` ranges) to what is there."""

import difflib
import glob
import re
from collections.abc import Sequence
from pathlib import Path

RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def expand(patterns: str | Sequence[str], config_key: str) -> list[tuple[Path, Path]]:
    """Every existing (anchor, path) that the patterns mean, in sorted order per pattern.

    The anchor is the folder that keys are relative to: the path itself for a folder named outright, the deepest folder
    without a wildcard otherwise.

    Raises:
        ValueError: no pattern, or one that matches nothing; names the nearest thing there is.
    """
    listed = [patterns] if isinstance(patterns, str) else list(patterns)
    if not listed:
        raise ValueError(f"{config_key} is empty; give a path, a glob or a list of them.")
    found = []
    for pattern in listed:
        for single in _ranges(str(Path(pattern).expanduser())):
            if Path(single).exists():  # first, since names may hold brackets
                found.append((Path(single) if Path(single).is_dir() else Path(single).parent, Path(single)))
                continue
            matches = [Path(match) for match in sorted(glob.glob(single, recursive=True))]
            if not matches:
                raise ValueError(f"{config_key}={single} does not exist{_nearest(Path(single))}.")
            found += [(_fixed_part(single), match) for match in matches]
    return found


def short_name(patterns: str | Sequence[str]) -> str:
    """A readable name for the data behind patterns: the first one's last part, without wildcards and suffix."""
    first = patterns if isinstance(patterns, str) else next(iter(patterns), "")
    last = RANGE.sub("", Path(first).expanduser().name)
    return re.sub(r"[*?\[\]]+", "", Path(last).stem).strip("-_. ") or Path(first).parent.name or "images"


def _ranges(pattern: str) -> list[str]:
    """Expands the first `{000..012}` of a pattern and, by recursion, the others; zeros in front are kept."""
    match = RANGE.search(pattern)
    if match is None:
        return [pattern]
    first, last = match.groups()
    numbers = range(int(first), int(last) + 1)
    return [
        single
        for number in numbers
        for single in _ranges(pattern[: match.start()] + str(number).zfill(len(first)) + pattern[match.end() :])
    ]


def _fixed_part(pattern: str) -> Path:
    fixed = []
    for part in Path(pattern).parts:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return Path(*fixed)


def _nearest(missing: Path) -> str:
    """What lies beside the first missing part of a path, for the message."""
    parent = missing.parent
    while not parent.exists():
        missing, parent = parent, parent.parent
    there = sorted(entry.name for entry in parent.iterdir()) if parent.is_dir() else []
    near = difflib.get_close_matches(missing.name, there, n=3, cutoff=0.4) or there[:3]
    return f"; {parent} has {', '.join(near)}" if near else f"; {parent} is empty"
