"""Wrong inputs: each gives one clear line and exit code 2, and leaves everything that was there as it was."""

import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from .image_files import fill_folder, fill_parquet, fill_tar, png

FOLDER = ["data=folder", "data.train=photos"]  # without the sizes of scenes


@dataclass(frozen=True)
class Wrong:
    """One row of the table.

    Args:
        command: as typed, without `tessella`; "TINY" stands for the overrides of a small run, "SMALL" for those of
            them that are not about scenes, "EVALUATION" for those that evaluation takes.
        says: what the line must contain: the file, key or value at fault, and what would be right.
        prepare: makes the working folder wrong before the command runs.
        begins: work has begun before the fault is met, so a run folder and notes of progress may be there.
    """

    command: list[str]
    says: tuple[str, ...]
    prepare: Callable[[Path], None] | None = None
    begins: bool = False


# What is wrong, put into the working folder ---------------------------------------------------------------------------


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
    """The folder belongs to a process that lives: this one's parent."""

    def prepare(folder: Path) -> None:
        from tessella.experiments import runs

        (folder / run).mkdir(parents=True, exist_ok=True)
        (folder / run / ".owner").write_text(f"{os.getppid()} {runs.process_start(os.getppid())}")

    return prepare


def stale_cache(folder: Path) -> None:
    for path in folder.glob("runs/cache/tokens-*/cache.json"):
        text = re.sub(r'"weights": "[0-9a-f]+', '"weights": "of another tokenizer', path.read_text())
        path.unlink()
        path.write_text(text)


def no_runs_possible(folder: Path) -> None:
    """A file where the folder of runs belongs: nobody, root included, can write below it."""
    shutil.move(folder / "runs", folder / "earlier")
    (folder / "runs").write_text("a file")


TRAIN = ["train", "TINY"]
UNIFIED = [*TRAIN, "phase=unified", "tokenizer=runs/vq"]
PAIR = ["tokenizer=trained_pair", "tokenizer.generation.folder=runs/vq", "tokenizer.understanding.folder=runs/siglip"]
WRONG = {
    # the command line
    "misspelt command": Wrong(["trian"], ("'trian'", "Nearest: train")),
    "misspelt flag": Wrong(["train", "--multirum"], ("'--multirum'", "--multirun")),
    "flag with a wrong value": Wrong(["train", "--cfg", "jop"], ("'jop'", "--cfg", "job")),
    "argument too many": Wrong(["train", "photo.jpg"], ("'photo.jpg'", "key=value")),
    "override that does not parse": Wrong([*TRAIN, "seed=[1"], ("'[1'", "tessella train --help")),
    "several values without --multirun": Wrong([*TRAIN, "seed=0,1"], ("seed=0,1", "--multirun")),
    # names
    "misspelt option of a group": Wrong([*TRAIN, "tokenizer=nano/vqq"], ("tokenizer=nano/vqq", "Nearest: nano/vq")),
    "misspelt option in a sweep": Wrong(
        ["train", "--multirun", "TINY", "seed=0,1", "tokenizer=nano/vqq"], ("tokenizer=nano/vqq", "Nearest: nano/vq")
    ),
    "misspelt group": Wrong([*TRAIN, "datta=folder"], ("datta", "Nearest: data")),
    "misspelt key": Wrong(
        [*TRAIN, "recipe.tokenizer.stepz=3"], ("recipe.tokenizer.stepz", "Nearest: recipe.tokenizer.steps")
    ),
    "misspelt key of another option": Wrong(
        ["train", "data=folder", "data.trian=photos"], ("data.trian", "Nearest: data.train")
    ),
    "misspelt key of a study": Wrong(["ablate", "studdy=mine"], ("'studdy'", "Nearest: study")),
    "misspelt key of a study's stages": Wrong(
        ["ablate", "recipe.unified.stepz=3"], ("recipe.unified.stepz", "Nearest: recipe.unified.steps")
    ),
    "unknown design": Wrong(["ablate", "design=[single_vqq]"], ("design=single_vqq", "single_vq")),
    "unknown size": Wrong(["ablate", "size=nanno"], ("nanno", "Nearest: nano")),
    "seed of a run given to a study": Wrong(["ablate", "seed=1"], ("seed=1", "seeds=[0,1,2]")),
    "tokenizer given to a study": Wrong(["ablate", "tokenizer=nano/vq"], ("tokenizer=nano/vq", "designs.<design>")),
    "unknown phase": Wrong([*TRAIN, "phase=unifed"], ("'unifed'", "Nearest: unified")),
    "unknown precision": Wrong([*TRAIN, "trainer.precision=bf61"], ("trainer.precision", "'bf61'", "bf16-mixed")),
    "unknown accelerator": Wrong([*TRAIN, "trainer.accelerator=gpus"], ("'gpus'", "Nearest: gpu")),
    "accumulate of no parts": Wrong([*TRAIN, "recipe.tokenizer.accumulate=0"], ("accumulate=0", "at least 1")),
    "unknown level of scenes": Wrong([*TRAIN, "data.level=hard"], ("hard", "simple", "full")),
    # values out of range
    "no steps": Wrong([*TRAIN, "recipe.tokenizer.steps=0"], ("recipe.tokenizer.steps=0", "at least 1")),
    "steps that are no number": Wrong([*TRAIN, "recipe.tokenizer.steps=many"], ("'many'", "integer")),
    "no batch": Wrong([*TRAIN, "recipe.tokenizer.batch_size=0"], ("recipe.tokenizer.batch_size=0", "at least 1")),
    "batch larger than the data": Wrong(
        [*TRAIN, "recipe.tokenizer.batch_size=65"], ("batch_size=65", "at most 64"), begins=True
    ),
    "negative seed": Wrong([*TRAIN, "seed=-1"], ("seed=-1", "at least 0")),
    "negative learning rate": Wrong([*TRAIN, "recipe.tokenizer.optimizer.lr=-0.1"], ("lr=-0.1", "above 0")),
    "negative checkpoint interval": Wrong(
        [*TRAIN, "trainer.checkpoint_seconds=-1"], ("checkpoint_seconds=-1", "at least 0")
    ),
    "no threads": Wrong([*TRAIN, "trainer.threads=0"], ("trainer.threads=0", "at least 1")),
    "average that never moves": Wrong([*TRAIN, "recipe.tokenizer.ema_decay=1"], ("ema_decay=1", "below 1")),
    "no codes": Wrong([*TRAIN, "tokenizer.quantizer.codebook_size=0"], ("codebook_size=0", "at least 1")),
    "image size that does not divide": Wrong([*TRAIN, "tokenizer.image_size=60"], ("image_size=60", "use 56 or 64")),
    "empty split": Wrong([*TRAIN, "data.train_size=0"], ("train_size=0", "data.train_size")),
    "negative task weight": Wrong(
        [*UNIFIED, "recipe.unified.mixture.text_to_image=-1"], ("text_to_image=-1", "at least 0")
    ),
    "heads that do not divide": Wrong([*UNIFIED, "llm.hidden_dim=30"], ("hidden_dim=30", "llm.hidden_dim")),
    "no evaluation images": Wrong(["evaluate", "run=runs/vq", "evaluation.num_images=0"], ("evaluation.num_images=0",)),
    "no seeds": Wrong(["ablate", "seeds=[]"], ("seeds=[]", "seeds=[0,1,2]")),
    "repeated seed": Wrong(["ablate", "seeds=[1,1]"], ("seeds=[1, 1]", "different")),
    "no workers": Wrong(["ablate", "workers=0"], ("workers=0", "auto")),
    "top_p above 1": Wrong(["sample", "a red circle", "top_p=2"], ("top_p=2", "at most 1")),
    "top_k of nothing": Wrong(["sample", "a red circle", "top_k=0"], ("top_k=0", "null")),
    "negative temperature": Wrong(["sample", "a red circle", "temperature=-1"], ("temperature=-1", "at least 0")),
    "negative guidance": Wrong(["sample", "a red circle", "cfg_scale=-2"], ("cfg_scale=-2", "at least 0")),
    "no images": Wrong(["sample", "a red circle", "num=0"], ("num=0", "at least 1")),
    "no prompt": Wrong(["sample"], ("prompt", "prompt=")),
    "empty prompt": Wrong(["sample", " "], ("prompt is empty",)),
    "no question": Wrong(["ask", "photo.png"], ("question", "question=")),
    "empty question": Wrong(["ask", "photo.png", ""], ("question is empty",)),
    # pictures and data
    "missing picture": Wrong(["reconstruct", "photo.jpg", "run=runs/vq"], ("photo.jpg", "does not exist")),
    "folder without pictures": Wrong(
        ["reconstruct", "empty", "run=runs/vq"], ("empty", "holds no pictures"), lambda f: (f / "empty").mkdir()
    ),
    "text file named .jpg": Wrong(
        ["reconstruct", "photo.jpg", "run=runs/vq"], ("photo.jpg", "not an image"), damage("photo.jpg", b"a red circle")
    ),
    "truncated JPEG": Wrong(
        ["reconstruct", "photo.jpg", "run=runs/vq"], ("photo.jpg", "corrupt"), damage("photo.jpg", TRUNCATED)
    ),
    "question about no picture": Wrong(
        ["ask", "notes.txt", "what colour?", "run=runs/unified"], ("notes.txt", "not an image"), damage("notes.txt")
    ),
    "data folder not named": Wrong(["train", "data=folder"], ("data.train", "no value")),
    "data folder missing": Wrong(
        ["train", "data=folder", "data.train=fotos"], ("data.train=fotos", "photos"), photos()
    ),
    "data folder empty": Wrong(["train", *FOLDER], ("photos", "no image files"), photos(0)),
    "data: text file named .jpg": Wrong(
        ["train", *FOLDER], ("a.jpg", "not an image", "more than 1%"), photos(a_jpg=b"a red circle")
    ),
    "data: truncated JPEG": Wrong(
        ["train", *FOLDER, "SMALL"], ("a.jpg", "corrupt"), photos(40, a_jpg=TRUNCATED), begins=True
    ),
    "data: one picture": Wrong(["train", *FOLDER], ("examples", "data."), photos(1)),
    "broken tar": Wrong(["train", "data=webdataset", "data.train=photos.tar"], ("photos.tar", "broken"), broken_tar),
    "parquet without the column": Wrong(
        ["train", "data=parquet", "data.train=photos.parquet", "data.image_column=picture"],
        ("photos.parquet", "'picture'", "it has image, caption"),
        parquet,
    ),
    "text file named .parquet": Wrong(
        ["train", "data=parquet", "data.train=photos.parquet"],
        ("photos.parquet", "not a readable parquet"),
        damage("photos.parquet"),
    ),
    "hub data set without the network": Wrong(
        ["train", "data=hf", "data.dataset=nobody/nothing"],
        ("data.dataset=nobody/nothing", "Without the network"),
    ),
    "pretrained LLM without the network": Wrong(
        ["train", "phase=unified", "tokenizer=runs/vq", "llm=pretrained", "llm.name=nobody/nothing"],
        ("nobody/nothing", "llm.name"),
        begins=True,
    ),
    "no captions for the LLM": Wrong(
        ["train", "phase=unified", "tokenizer=runs/vq", *FOLDER],
        ("no captions", "data.captions"),
        photos(),
        begins=True,
    ),
    "no captions for SigLIP": Wrong(
        ["train", "phase=siglip", "tokenizer=nano/siglip", *FOLDER], ("no captions",), photos(), begins=True
    ),
    # runs
    "run that is not there": Wrong(["sample", "a red circle", "run=runs/none"], ("runs/none", "not a run folder")),
    "tokenizer run for the LLM's work": Wrong(
        ["sample", "a red circle", "run=runs/vq"], ("runs/vq", "tokenizer run", "unified run")
    ),
    "unfinished run": Wrong(
        ["reconstruct", "photo.png", "run=runs/vq"],
        ("runs/vq", "not finished", "tessella train"),
        lambda f: (record("runs/vq", status="running")(f), damage("photo.png", png(0))(f))[0],
    ),
    "weights of another design": Wrong(
        ["evaluate", "run=runs/vq"],
        ("runs/vq/weights.safetensors", "codebook", "another design"),
        weights_of_another_shape,
    ),
    "damaged weights": Wrong(
        ["evaluate", "run=runs/vq"], ("weights.safetensors", "cannot be read"), damage("runs/vq/weights.safetensors")
    ),
    "damaged run.json": Wrong(
        ["evaluate", "run=runs/vq"], ("runs/vq/run.json", "not JSON"), damage("runs/vq/run.json")
    ),
    "damaged model.yaml": Wrong(["evaluate", "run=runs/vq"], ("runs/vq/model.yaml",), damage("runs/vq/model.yaml")),
    "damaged text tokenizer": Wrong(
        ["sample", "a red circle", "run=runs/unified"], ("runs/unified/text.json",), damage("runs/unified/text.json")
    ),
    "damaged checkpoint": Wrong(
        [*TRAIN, "out=runs/vq"],
        ("last.ckpt", "cannot be read", "delete it"),
        checkpoint(b"PK not a checkpoint"),
        begins=True,
    ),
    "folder of another run": Wrong([*TRAIN, "seed=7", "out=runs/vq"], ("runs/vq", "holds another run", "out=<folder>")),
    "tokenizer folder without a run": Wrong([*TRAIN, "tokenizer=runs/none"], ("tokenizer=runs/none", "no such")),
    "semantic encoder as the tokenizer": Wrong(
        [*TRAIN, "phase=unified", "tokenizer=runs/siglip"], ("SmallSigLIP", "image tokenizer"), begins=True
    ),
    "warm start from the wrong kind": Wrong(
        [*TRAIN, "phase=siglip", "tokenizer=nano/siglip", "warm_start=runs/unified"],
        ("runs/unified", "unified run"),
        begins=True,
    ),
    "SigLIP phase with a VQ": Wrong([*TRAIN, "phase=siglip"], ("VQTokenizer", "tokenizer=nano/siglip"), begins=True),
    "tokenizer phase with a SigLIP": Wrong(
        [*TRAIN, "tokenizer=nano/siglip"], ("SmallSigLIP", "phase=siglip"), begins=True
    ),
    "stale token cache": Wrong(
        [*TRAIN, "phase=unified", *PAIR], ("token cache", "something else", "weights"), stale_cache, begins=True
    ),
    "damaged config.yaml": Wrong(["evaluate", "run=runs/vq"], ("runs/vq/config.yaml",), damage("runs/vq/config.yaml")),
    "run.json of something else": Wrong(
        ["evaluate", "run=runs/vq"], ("run=runs/vq",), damage("runs/vq/run.json", b"{}")
    ),
    "damaged study": Wrong(["ablate", "study=mine"], ("runs/mine/study.json",), damage("runs/mine/study.json")),
    "design that a study has not": Wrong(
        ["sample", "a red circle", "run=runs/mine/tripled"],
        ("'tripled'", "runs/mine", "single_vq"),
        damage("runs/mine/study.json", b'{"designs": {"single_vq": {"seeds": {}}}}'),
    ),
    "damaged metrics": Wrong(["report", "run=runs/vq"], ("runs/vq/metrics.json",), damage("runs/vq/metrics.json")),
    "report of nothing": Wrong(["report", "run=photos"], ("photos", "run=..."), photos(1)),
    # the place
    "run folder busy": Wrong([*TRAIN, "out=runs/vq"], ("runs/vq", "process", "wait"), busy("runs/vq")),
    "study busy": Wrong(["ablate", "study=mine"], ("runs/mine", "process", "wait"), busy("runs/mine")),
    "nowhere to write a run": Wrong(TRAIN, ("runs/tokenizer-", "out=<folder>"), no_runs_possible),
    "file in place of the run folder": Wrong(
        [*TRAIN, "out=photo.png"], ("photo.png", "out=<folder>"), damage("photo.png")
    ),
    "nowhere to write pictures": Wrong(
        ["sample", "a red circle", "run=runs/unified", "out=photo.png"], ("photo.png",), damage("photo.png")
    ),
}


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


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_clear_line_and_changes_nothing(name, workshop, tessella, tiny, contents, monkeypatch):
    monkeypatch.setattr("tessella.experiments.runs.LOCK_SECONDS", 0.1)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    row = WRONG[name]
    if row.prepare is not None:
        row.prepare(workshop)
    before = contents(workshop)
    outcome = tessella(*expand(row.command, tiny))
    check(outcome, row.says, begins=row.begins)
    after = contents(workshop)
    assert {path: after.get(path) for path in before} == before
    assert row.begins or after.keys() == before.keys()


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
