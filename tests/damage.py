"""What can be wrong with a working folder, how a wrong command is expanded, and what it must answer."""

import fcntl
import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image
from safetensors.torch import load_file, save_file

from .image_files import fill_folder, fill_parquet, fill_tar, png

HELD: list[IO[str]] = []  # locks of tests, to the end of the session
FOLDER = ["data=folder", "data.train=photos"]  # without the sizes of scenes
TRAIN = ["train", "TINY"]
UNIFIED = [*TRAIN, "phase=unified", "tokenizer=runs/vq"]
PAIR = ["tokenizer=trained_pair", "tokenizer.generation.folder=runs/vq", "tokenizer.understanding.folder=runs/siglip"]


def damage(path: str, content: bytes = b"{ not what it was") -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        (folder / path).unlink(missing_ok=True)  # files are links to the session's runs
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)

    return prepare


def photos(count: int = 40, **files: bytes) -> Callable[[Path], None]:
    """A folder of good pictures, and others by name (`a_jpg` is a.jpg)."""

    def prepare(folder: Path) -> None:
        fill_folder(folder / "photos", count)
        (folder / "photos" / "captions.jsonl").unlink()
        for name, content in files.items():
            (folder / "photos" / name.replace("_", ".")).write_bytes(content)

    return prepare


def jpeg(size: int = 64) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (size, size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


TRUNCATED = jpeg()[: len(jpeg()) // 2]


def parquet(folder: Path) -> None:
    fill_parquet(folder / "photos.parquet", range(20))


def broken_tar(folder: Path) -> None:
    fill_tar(folder / "photos.tar", {f"{i}.png": png(i) for i in range(20)})
    content = bytearray((folder / "photos.tar").read_bytes())
    content[2048:2600] = b"?" * 552
    (folder / "photos.tar").write_bytes(content)


def record(run: str, **fields: object) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        path = folder / run / "run.json"
        damage(f"{run}/run.json", json.dumps(json.loads(path.read_text()) | fields).encode())(folder)

    return prepare


def weights_of_another_shape(folder: Path) -> None:
    path = folder / "runs/vq/weights.safetensors"
    state = load_file(path)
    path.unlink()
    save_file({name: value[:7].clone() if "codebook" in name else value for name, value in state.items()}, path)


def checkpoint(content: bytes) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        record("runs/vq", status="running")(folder)
        damage("runs/vq/checkpoints/last.ckpt", content)(folder)

    return prepare


def busy(run: str) -> Callable[[Path], None]:
    """The folder is locked, as by another process: locks of one file opened twice exclude each other."""

    def prepare(folder: Path) -> None:
        (folder / run).mkdir(parents=True, exist_ok=True)
        held = (folder / run / ".owner").open("w")
        held.write("12345")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        HELD.append(held)

    return prepare


def stale_cache(folder: Path) -> None:
    for path in folder.glob("runs/cache/tokens-*/cache.json"):
        text = re.sub(r'"weights": "[0-9a-f]+', '"weights": "of another tokenizer', path.read_text())
        path.unlink()
        path.write_text(text)


VQ = {
    "ch": 8, "norm_num_groups": 4, "num_res_blocks": 1, "encoder_ch_mult": [1, 2], "decoder_ch_mult": [1, 2],
    "z_channels": 16, "codebook_size": 48, "codebook_embed_dim": 8,
}  # fmt: skip


def release(**config: object) -> Callable[[Path], None]:
    """An official file of LlamaGen with a configuration beside it; `config` says what is wrong with that."""

    def prepare(folder: Path) -> None:
        from tessella.tokenizers import official_llamagen
        from tessella.tokenizers.checkpoints import export_weights

        tokenizer = official_llamagen.from_official_config(VQ)
        save_file(export_weights(tokenizer, official_llamagen.layout(tokenizer)), folder / "vq.safetensors")
        (folder / "vq.json").write_text(json.dumps(VQ | config))

    return prepare


def pickle_with_code(folder: Path) -> None:
    import torch

    torch.save({"model": os.getcwd}, folder / "vq.pt")


def no_runs_possible(folder: Path) -> None:
    """A file where the folder of runs belongs: nobody, root included, can write below it."""
    shutil.move(folder / "runs", folder / "earlier")
    (folder / "runs").write_text("a file")


def expand(command: list[str], tiny: tuple[str, ...]) -> list[str]:
    known = {
        "TINY": tiny,
        "SMALL": [override for override in tiny if not override.startswith("data.")],
        "EVALUATION": [override for override in tiny if override.startswith("evaluation.")],
    }
    return [argument for word in command for argument in known.get(word, (word,))]


def check(outcome, says: tuple[str, ...], *, begins: bool) -> None:
    """One clear line, the last one; nothing else unless work had begun; exit code 2."""
    assert outcome.code == 2, outcome
    assert "Traceback" not in outcome.err
    assert len([line for line in outcome.notes if line.startswith("tessella")]) == 1, outcome.err
    assert outcome.notes[-1].startswith("tessella"), outcome.err
    assert begins or len(outcome.notes) == 1, outcome.err
    assert outcome.out == ""
    for fragment in says:
        assert fragment in outcome.notes[-1]
