"""An interrupted run ends like one that was not; nothing is done twice, nothing of another run is reused."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tessella.experiments.compose import compose_config
from tessella.experiments.train import plan

LONG = [
    f"recipe.{phase}.steps=30" for phase in ("tokenizer", "siglip", "unified")
]  # long enough to be met in the middle
PHASES = {
    "tokenizer": ["phase=tokenizer"],
    "siglip": ["phase=siglip", "tokenizer=nano/siglip", "warm_start=runs/vq"],
    "unified": ["phase=unified", "tokenizer=runs/vq"],
}


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def wait_until(happened: Callable[[], object], process: subprocess.Popen | None = None) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline, "waited two minutes in vain"
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.01)


def kill_in_the_middle(folder: Path, *arguments: str) -> None:
    """Start the command in a process of its own and kill -9 it after its next checkpoint."""
    before = saved(folder)
    process = subprocess.Popen(
        [sys.executable, "-m", "tessella.experiments.cli", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: saved(folder) > before, process)
    process.kill()
    assert process.wait() == -signal.SIGKILL


@contextmanager
def terminated_once(happened: Callable[[], object]) -> Iterator[None]:
    """SIGTERM to this process as soon as something has happened."""

    def terminate() -> None:
        wait_until(happened)
        os.kill(os.getpid(), signal.SIGTERM)

    killer = threading.Thread(target=terminate)
    killer.start()
    yield
    killer.join()


def saved(folder: Path) -> int:
    """When the last checkpoint was written, 0 without one."""
    file = folder / "checkpoints" / "last.ckpt"
    return file.stat().st_mtime_ns if file.is_file() else 0


def results(folder: Path, contents) -> dict:
    """Everything of a run that must not depend on how it came about."""
    record = read(folder / "run.json")
    kept = {key: record[key] for key in ("status", "fingerprint", "weights", "data_order", "llm_init", "steps")}
    same = ("metrics.json", "pictures.json", "pictures.safetensors", "weights.safetensors")
    return kept | {name: digest for name, digest in contents(folder).items() if name in same}


@pytest.mark.parametrize("phase", PHASES)
def test_a_killed_run_ends_like_an_uninterrupted_one(phase, workshop, tessella, tiny, contents):
    command = ["train", *tiny, *LONG, *PHASES[phase], "trainer.checkpoint_seconds=0"]
    whole, broken = workshop / "whole", workshop / "broken"
    assert tessella(*command, f"out={whole}").code == 0
    if phase == "tokenizer":  # first stopped politely, then killed
        with terminated_once(lambda: saved(broken)):
            stopped = tessella(*command, f"out={broken}")
        assert stopped.code == 143
        assert len([line for line in stopped.notes if line.startswith("tessella")]) == 1
        assert stopped.notes[-1].startswith("tessella train: stopped at step ")
        assert stopped.notes[-1].endswith(" of 30, checkpoint written; the same command continues.")
    kill_in_the_middle(broken, *command, f"out={broken}")
    assert read(broken / "run.json")["status"] == "running"
    again = tessella(*command, f"out={broken}")
    assert again.code == 0, again.err
    assert results(broken, contents) == results(whole, contents)
    # The row of the very step that a checkpoint was written at is not logged yet.
    rows, expected = (set((folder / "curves.csv").read_text().splitlines()) for folder in (broken, whole))
    assert rows <= expected
    assert len(expected - rows) <= 2  # interruptions
    assert not saved(broken)
    assert read(broken / "run.json")["training_seconds"] > 0


def test_a_run_that_ends_between_its_last_step_and_saving(workshop, tessella, tiny, contents, monkeypatch):
    def die(*_: object) -> str:
        raise KeyboardInterrupt

    command = ["train", *tiny, "trainer.checkpoint_seconds=0", "out=again"]
    with monkeypatch.context() as patch:
        patch.setattr("tessella.experiments.build.save_weights", die)
        outcome = tessella(*command)
    assert outcome.code == 130
    assert outcome.notes[-1] == "tessella train: interrupted."
    assert saved(workshop / "again")
    assert tessella(*command).code == 0
    assert results(workshop / "again", contents) == results(workshop / "runs/vq", contents)


def test_a_run_whose_evaluation_is_missing_is_only_evaluated(workshop, tessella, tiny, contents):
    whole = results(workshop / "runs/vq", contents)
    record = read(workshop / "runs/vq/run.json") | {"status": "trained"}
    for name in ("run.json", "metrics.json", "pictures.safetensors"):
        (workshop / "runs/vq" / name).unlink()
    (workshop / "runs/vq/run.json").write_text(json.dumps(record))
    outcome = tessella("train", *tiny, "out=runs/vq")
    assert outcome.code == 0, outcome.err
    assert "step" not in outcome.err
    assert results(workshop / "runs/vq", contents) == whole


def test_a_finished_run_is_reused(workshop, tessella, tiny, contents):
    before = contents(workshop)
    outcome = tessella("train", *tiny, "out=runs/vq")
    assert outcome.code == 0
    assert outcome.last_line == "runs/vq"
    assert len(outcome.notes) == 1
    assert "already holds this run" in outcome.notes[0]
    assert contents(workshop) == before


def test_other_evaluation_settings_measure_again_and_train_nothing(workshop, tessella, tiny):
    weights = (workshop / "runs/vq/weights.safetensors").stat().st_ino
    outcome = tessella("train", *tiny, "evaluation.num_images=16", "out=runs/vq")
    assert outcome.code == 0
    assert "step" not in outcome.err
    assert read(workshop / "runs/vq/metrics.json")["metrics"]["rec/psnr"]["n"] == 16
    assert (workshop / "runs/vq/weights.safetensors").stat().st_ino == weights


@pytest.mark.parametrize("phase", PHASES)
def test_same_seed_same_results_another_seed_others(phase, workshop, tessella, tiny, contents):
    found = {}
    for name, seed in (("first", 3), ("second", 3), ("other", 4)):
        assert tessella("train", *tiny, *PHASES[phase], f"seed={seed}", f"out={name}").code == 0
        found[name] = results(workshop / name, contents)
    assert found["first"] == found["second"]
    assert found["first"]["weights"] != found["other"]["weights"]
    if phase != "siglip":  # eight images are retrieved equally badly by any encoder of four steps
        assert found["first"]["metrics.json"] != found["other"]["metrics.json"]
    assert found["first"]["data_order"] != found["other"]["data_order"]


@pytest.mark.parametrize(
    ("override", "trained_again", "measured_again"),
    [
        ("recipe.tokenizer.steps=5", True, True),
        ("tokenizer.quantizer.codebook_size=64", True, True),
        ("data.train_size=48", True, True),
        ("seed=1", True, True),
        ("trainer.precision=bf16-mixed", True, True),
        ("evaluation.num_images=9", False, True),
        ("recipe.unified.steps=5", False, False),
        ("llm.hidden_dim=64", False, False),
        ("trainer.checkpoint_seconds=1", False, False),
        ("trainer.num_workers=1", False, False),
        ("logger=wandb", False, False),
        ("out=elsewhere", False, False),
    ],
)
def test_an_override_concerns_exactly_what_depends_on_it(override, trained_again, measured_again, tiny, tmp_path):
    usual, changed = (plan(compose_config("train", [*tiny, *more])) for more in ([], [override]))
    assert (usual.fingerprint != changed.fingerprint) == trained_again
    assert (usual.evaluation != changed.evaluation) == measured_again
    assert (usual.folder != changed.folder) == (trained_again or override.startswith("out"))


def test_other_input_weights_make_another_run(workshop, tiny):
    """The fingerprint follows the weights of the runs a run is built on, not the name of their folder."""
    (workshop / "moved").symlink_to(workshop / "runs/vq")
    usual, moved = (
        plan(compose_config("train", [*tiny, "phase=unified", f"tokenizer={folder}"]))
        for folder in ("runs/vq", "moved")
    )
    assert usual.fingerprint == moved.fingerprint
    record = read(workshop / "runs/vq/run.json") | {"weights": "others"}
    (workshop / "runs/vq/run.json").unlink()
    (workshop / "runs/vq/run.json").write_text(json.dumps(record))
    assert plan(compose_config("train", [*tiny, "phase=unified", "tokenizer=runs/vq"])).fingerprint != usual.fingerprint


def test_a_stopped_study_stops_its_stages_with_a_checkpoint(tessella, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stages = tmp_path / "runs/mine/stages"
    long = ["recipe.tokenizer.steps=4000", "trainer.checkpoint_seconds=0.2"]
    with terminated_once(lambda: any(saved(stage) for stage in stages.glob("tokenizer-*"))):
        outcome = tessella("ablate", "study=mine", "design=[single_vq]", *tiny, *long)
    assert outcome.code == 143
    assert "Traceback" not in outcome.err
    assert outcome.notes[-1].startswith(
        "tessella ablate: stopped with 0 of 2 stages finished; the same command continues"
    )
    (stage,) = stages.glob("tokenizer-*")
    assert "stopped at step" in (stage / "log.txt").read_text().splitlines()[-1]
    assert saved(stage)
    assert not (stage / ".owner").exists()


def test_a_stage_is_told_to_stop_when_its_study_was_killed(tmp_path):
    stage = (
        "import pathlib, sys, time; from tessella.experiments import stopping; place = pathlib.Path(sys.argv[1]);"
        "stop = stopping.StopRequest().__enter__(); stopping.end_with_parent(); (place / 'began').touch();"
        "[time.sleep(0.05) for _ in range(2400) if stop.received is None];"
        "(place / 'ended').write_text(str(stop.received))"
    )
    study = (
        "import os, subprocess, sys;"
        "subprocess.Popen(sys.argv[1:], env={**os.environ, 'TESSELLA_PARENT': str(os.getpid())}).wait()"
    )
    process = subprocess.Popen([sys.executable, "-c", study, sys.executable, "-c", stage, tmp_path])
    wait_until((tmp_path / "began").exists, process)
    process.kill()
    process.wait()
    wait_until(lambda: (tmp_path / "ended").exists() and (tmp_path / "ended").read_text())
    assert int((tmp_path / "ended").read_text()) == signal.SIGTERM
