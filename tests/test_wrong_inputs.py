"""Wrong inputs: each gives one clear line and exit code 2, and leaves everything that was there as it was."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from .damage import (
    FOLDER,
    PAIR,
    TRAIN,
    TRUNCATED,
    UNIFIED,
    broken_tar,
    busy,
    check,
    checkpoint,
    damage,
    expand,
    no_runs_possible,
    parquet,
    photos,
    pickle_with_code,
    record,
    release,
    stale_cache,
    weights_of_another_shape,
)
from .image_files import png


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
    # published weights
    "system not named": Wrong(["convert"], ("system", "system=")),
    "misspelt system": Wrong(["convert", "lamagen", "vq.pt", "new"], ("'lamagen'", "Nearest: llamagen")),
    "missing official file": Wrong(["convert", "llamagen", "vq.pt", "new"], ("vq.pt does not exist",)),
    "official file that is no file of weights": Wrong(
        ["convert", "llamagen", "notes.txt", "new"], ("notes.txt", ".safetensors"), damage("notes.txt")
    ),
    "damaged official file": Wrong(
        ["convert", "llamagen", "vq.safetensors", "new"], ("no readable safetensors",), damage("vq.safetensors")
    ),
    "pickle with code": Wrong(["convert", "llamagen", "vq.pt", "new"], ("vq.pt", "tensors alone"), pickle_with_code),
    "folder without weights": Wrong(["convert", "llamagen", "photos", "new"], ("photos", "one file of"), photos(1)),
    "official sizes that do not fit": Wrong(
        ["convert", "llamagen", "vq.safetensors", "new"],
        ("vq.safetensors", "vq.json", "encoder.conv_in.weight (8, 3, 3, 3)", "tokenizer=<name>"),
        release(ch=16),
    ),
    "configuration of another system": Wrong(
        ["convert", "emu3", "vq.safetensors", "new"], ("temporal_downsample_factor",), release()
    ),
    "damaged official configuration": Wrong(
        ["convert", "llamagen", "vq.safetensors", "new"],
        ("vq.json cannot be read",),
        lambda f: (release()(f), damage("vq.json")(f))[0],
    ),
    "official configuration missing": Wrong(
        ["convert", "llamagen", "vq.safetensors", "new", "config=sizes.json"], ("config=sizes.json",), release()
    ),
    "two configurations": Wrong(
        ["convert", "llamagen", "vq.safetensors", "new", "config=vq.json", "tokenizer=vq8"],
        ("config=vq.json", "leave one"),
        release(),
    ),
    "sizes unknown": Wrong(
        ["convert", "titok", "weights.safetensors", "new"],
        ("weights.safetensors", "tokenizer=titok_l32", "config=<file>"),
        lambda f: (release()(f), (f / "vq.safetensors").rename(f / "weights.safetensors"))[0],
    ),
    "tokenizer of another design": Wrong(
        ["convert", "llamagen", "vq.safetensors", "new", "tokenizer=nano/vq"], ("llamagen", "which system"), release()
    ),
    "image size that is fixed": Wrong(
        ["convert", "siglip", "vq.safetensors", "new", "image_size=64"], ("image_size=64", "siglip"), release()
    ),
    "converted folder exists": Wrong(
        ["convert", "llamagen", "vq.safetensors", "runs/vq"], ("out=runs/vq", "not overwritten"), release()
    ),
    "file named for a converted folder": Wrong(
        ["convert", "llamagen", "vq.safetensors", "new.safetensors"], ("new.safetensors", "name a folder"), release()
    ),
    "folder named for an official file": Wrong(
        ["convert", "llamagen", "runs/vq", "new"], ("out=new", "new.safetensors")
    ),
    "run of another system": Wrong(
        ["convert", "llamagen", "runs/vq", "new.safetensors"], ("no tokenizer of llamagen",)
    ),
    "hub id without the network": Wrong(
        ["convert", "llamagen", "hub:nobody/nothing", "new"],
        ("hub:nobody/nothing", "Without the network", "https://huggingface.co/nobody/nothing", "nothing/"),
    ),
    "hub id without a name": Wrong(["convert", "llamagen", "hub:nobody", "new"], ("hub:nobody", "<owner>/<name>")),
    "data for a trained run": Wrong(["evaluate", "run=runs/vq", "data=scenes"], ("runs/vq", "imported weights")),
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


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_clear_line_and_changes_nothing(name, workshop, tessella, tiny, contents, monkeypatch):
    monkeypatch.setattr("tessella.experiments.run_folder.LOCK_SECONDS", 0.1)
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
