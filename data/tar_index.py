"""Where every sample of a tar shard lies: read from the tar once, kept as a small JSON file when a folder is given."""

import hashlib
import json
import os
import tarfile
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

VERSION = 1  # of the index file
IMAGE_MEMBERS = ("jpg", "jpeg", "png", "webp")
CAPTION_FIELDS = ("caption", "text")
LABEL_FIELDS = ("label", "class", "cls")


@dataclass(eq=False)
class TarIndex:
    """Parallel lists, one entry per sample (members that share a name up to the first dot of its last part).

    Attributes:
        offsets, sizes: bytes of the image in the tar; size -1 where the sample has no image.
        captions: from .txt, else from the JSON's caption; None where there is none.
        labels: from .cls, else from the JSON's label; integer or name.
    """

    keys: list[str]
    offsets: list[int]
    sizes: list[int]
    captions: list[str | None]
    labels: list[str | int | None]


def open_index(shard: Path, folder: Path | None) -> TarIndex:
    """The index of a shard, taken from `folder` when it was kept there for exactly this file.

    Raises:
        ValueError: not a tar, compressed, broken, or without samples.
    """
    if folder is None:
        return build_index(shard)
    stat = shard.stat()
    identity = [VERSION, str(shard.resolve()), stat.st_size, stat.st_mtime_ns]
    kept = folder / f"{shard.stem}-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]}.json"
    if kept.is_file():
        return TarIndex(**json.loads(kept.read_text(encoding="utf-8")))
    index = build_index(shard)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".partial", delete=False, encoding="utf-8") as stream:
        json.dump(asdict(index), stream)
    os.replace(stream.name, kept)
    return index


def build_index(shard: Path) -> TarIndex:
    """Walks the headers of a tar; reads the text members, skips over the images."""
    samples: dict[str, dict[str, tarfile.TarInfo]] = {}
    texts: dict[tuple[str, str], bytes] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                folder, _, file = member.name.rpartition("/")
                stem, _, suffix = file.partition(".")
                if not stem:  # hidden files
                    continue
                key, suffix = f"{folder}/{stem}" if folder else stem, suffix.lower()
                sample = samples.setdefault(key, {})
                if suffix in sample:
                    raise ValueError(f"tar {shard} has two members {member.name}; every sample needs its own name.")
                sample[suffix] = member
                if suffix in ("txt", "cls", "json"):
                    stream = tar.extractfile(member)
                    assert stream is not None, "a regular file has content"
                    texts[key, suffix] = stream.read()
            _check_end(shard, tar)
    except tarfile.TarError as error:
        raise ValueError(_complaint(shard, str(error))) from None
    index = TarIndex([], [], [], [], [])
    for key, sample in samples.items():
        image = next((sample[suffix] for suffix in IMAGE_MEMBERS if suffix in sample), None)
        caption, label = _said(shard, key, texts)
        index.keys.append(key)
        index.offsets.append(-1 if image is None else image.offset_data)
        index.sizes.append(-1 if image is None else image.size)
        index.captions.append(caption)
        index.labels.append(label)
    if all(size < 0 for size in index.sizes):
        raise ValueError(f"tar {shard} holds no images (members ending in {', '.join(IMAGE_MEMBERS)}).")
    return index


def _said(shard: Path, key: str, texts: dict[tuple[str, str], bytes]) -> tuple[str | None, str | int | None]:
    """Caption and label of one sample."""
    try:
        said = json.loads(texts.get((key, "json"), b"{}"))
        caption = next((said[name] for name in CAPTION_FIELDS if isinstance(said.get(name), str)), None)
        label = next((said[name] for name in LABEL_FIELDS if isinstance(said.get(name), (str, int))), None)
        if (key, "txt") in texts:
            caption = texts[key, "txt"].decode().strip()
        if (key, "cls") in texts:
            label = int(texts[key, "cls"])
    except (ValueError, AttributeError) as error:
        raise ValueError(f"sample {key} of {shard} has unreadable text: {error}.") from None
    return caption, label


def _check_end(shard: Path, tar: tarfile.TarFile) -> None:
    """tarfile takes a damaged header for the end of the archive; a real end is zeros or the end of the file."""
    with shard.open("rb") as stream:
        stream.seek(tar.offset)
        block = stream.read(tarfile.BLOCKSIZE)
    if block.strip(b"\0"):
        raise tarfile.ReadError(f"damaged header at byte {tar.offset}")


def _complaint(shard: Path, reason: str) -> str:
    with shard.open("rb") as stream:
        start = stream.read(4)
    if start[:2] == b"\x1f\x8b" or start == b"\x28\xb5\x2f\xfd":
        return f"tar {shard} is compressed, which allows no random access; decompress it first."
    return f"broken tar {shard}: {reason}."
