"""Small pictures that can be told apart, written as folders, tar shards and parquet files."""

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

COLORS = ("red", "green", "blue", "white", "black")


def pixels(number: int, height: int = 32, width: int = 40) -> np.ndarray:
    """A different picture for every number: (height, width, 3) uint8."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 3, columns * 3, np.full_like(rows, number % 256)], axis=-1).astype(np.uint8)


def png(number: int, **size: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(number, **size)).save(buffer, "PNG")
    return buffer.getvalue()


def caption(number: int) -> str:
    return f"picture number {number}"


def number_of(image: torch.Tensor) -> int:
    """Which picture an image (3, H, W) in uint8 or [0, 1] shows."""
    return round(float(image[2].float().mean()) * (1 if image.dtype == torch.uint8 else 255))


def fill_folder(folder, count: int, broken: dict[int, bytes] | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number:03}.png").write_bytes((broken or {}).get(number, png(number)))
    lines = [json.dumps({"file_name": f"{number:03}.png", "text": caption(number)}) for number in range(count)]
    (folder / "captions.jsonl").write_text("\n".join(lines))


def fill_tar(path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def fill_shards(folder, count: int, shards: int = 3) -> None:
    for shard in range(shards):
        members = {}
        for number in range(shard, count, shards):
            members[f"{number:03}.png"] = png(number)
            members[f"{number:03}.txt"] = caption(number).encode()
        fill_tar(folder / f"shard-{shard:02}.tar", members)


def fill_parquet(path, numbers, metadata=None, **columns) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {"image": [{"bytes": png(number), "path": f"{number}.png"} for number in numbers]}
    table |= columns or {"caption": [caption(number) for number in numbers]}
    pq.write_table(pa.table(table).replace_schema_metadata(metadata), path, row_group_size=7)


def use_hub(monkeypatch, tmp_path):
    """The `datasets` library, with its own cache inside the test's folder."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    datasets.disable_progress_bars()
    return datasets


def shown(dataset) -> list[int]:
    return [number_of(dataset[index].image) for index in range(len(dataset))]
