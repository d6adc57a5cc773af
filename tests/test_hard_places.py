"""Full disks, missing parts, failed stages: one clear line as well. Unusual pictures: no fault at all."""

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from .damage import (
    FOLDER,
    TRAIN,
    UNIFIED,
    check,
    damage,
    expand,
    parquet,
    photos,
)
from .image_files import png


def test_gpu_asked_for_without_one(workshop, tessella, tiny):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    check(tessella("train", *tiny, "trainer.accelerator=gpu"), ("trainer.accelerator=gpu", "cpu"), begins=True)


@pytest.mark.parametrize(("package", "data"), [("datasets", "hf"), ("pyarrow", "parquet")])
def test_data_package_that_is_not_installed(package, data, workshop, tessella, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)  # importing it now fails
    parquet(workshop)
    where = {"hf": "data.dataset=photos", "parquet": "data.train=photos.parquet"}[data]
    check(tessella("train", f"data={data}", where), (package, "pip install 'tessella[data]'"), begins=False)


@contextmanager
def full_disk(free: int) -> Iterator[None]:
    """No file can grow beyond `free` bytes: what a full disk does to a writer, for root and for everybody else."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("command", "free", "says"),
    [
        ([*TRAIN, "out=runs/new"], 500_000, "runs/new/checkpoints/best.ckpt"),
        ([*TRAIN, "recipe.tokenizer.validate_every=9", "out=runs/new"], 500_000, "runs/new/weights.safetensors"),
        ([*UNIFIED, "out=runs/new"], 20_000, "runs/cache/tokens-"),
        (["evaluate", "EVALUATION", "run=runs/vq"], 20_000, "runs/vq/pictures.safetensors"),
        (["sample", "a red circle", "run=runs/unified"], 1_000, "samples/"),
        (["reconstruct", "photo.png", "run=runs/vq"], 1_000, "reconstructions/photo.png"),
    ],
    ids=["checkpoint", "weights", "token cache", "evaluation", "samples", "reconstructions"],
)
def test_full_disk_is_one_clear_line_and_earlier_results_stay(command, free, says, workshop, tessella, tiny, contents):
    damage("photo.png", png(0))(workshop)
    before = contents(workshop)
    arguments = expand(command, tiny)
    with full_disk(free):
        check(tessella(*arguments), (says, "large"), begins=True)
    after = contents(workshop)
    if command[0] == "evaluate":  # the record now says that its metrics have to be measured again
        assert json.loads((workshop / "runs/vq/run.json").read_text())["evaluation_fingerprint"] is None
        after["runs/vq/run.json"] = before["runs/vq/run.json"]
    assert {path: after.get(path) for path in before} == before
    assert not [path for path in after if path.endswith(".tmp")]
    if command[0] == "train":
        assert tessella(*arguments).code == 0  # with space again the same command goes on


def test_failed_stage_of_a_study_names_its_log(workshop, tessella, tiny):
    outcome = tessella("ablate", "study=mine", "design=[single_vq]", *tiny, "recipe.tokenizer.batch_size=65")
    check(outcome, ("vq failed", "batch_size=65", "at most 64", "log.txt"), begins=True)


@pytest.mark.parametrize("command", [["trian"], ["sample", "a red circle", "run=runs/none"]])
def test_console_script_ends_with_one_line(command, tmp_path):
    script = Path(sys.executable).with_name("tessella")
    done = subprocess.run([script, *command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("tessella")
    assert not list(tmp_path.iterdir())


def picture(mode: str) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 70, 3), dtype=np.uint8)).convert(mode)


@pytest.mark.parametrize(
    ("name", "mode"),
    [("grey.jpg", "L"), ("grey.png", "L"), ("alpha.png", "RGBA"), ("alpha.png", "LA"), ("palette.gif", "P"),
     ("print.jpg", "CMYK"), ("lines.png", "1"), ("deep.png", "I;16")],
)  # fmt: skip
def test_pictures_that_are_not_plain_rgb_work(name, mode, workshop, tessella):
    (picture("L").convert("I;16") if mode == "I;16" else picture(mode)).save(workshop / name)
    assert tessella("reconstruct", name, "run=runs/vq").code == 0
    assert tessella("ask", name, "what colour is the shape?", "run=runs/unified").code == 0


def test_data_of_grey_and_transparent_pictures_trains(workshop, tessella, tiny):
    photos(0)(workshop)
    for number in range(40):
        picture(("L", "RGBA", "RGB")[number % 3]).save(workshop / "photos" / f"{number}.png")
    assert tessella(*expand(["train", "SMALL", *FOLDER, "data.val_fraction=0.2"], tiny)).code == 0
