"""Tiny finished runs and the command line in this process, for the tests of commands, wrong inputs and resuming."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tessella.experiments import cli

PHASES = ("tokenizer", "siglip", "unified")
# A run of any phase in about a second. Overrides that come after these win.
TINY = (
    *(f"recipe.{phase}.{key}" for phase in PHASES for key in ("steps=4", "batch_size=8", "validate_every=2")),
    "llm.hidden_dim=32",
    "llm.num_layers=1",
    "llm.num_heads=2",
    "llm.ffn_dim=64",
    "data.train_size=64",
    "data.val_size=32",
    "data.test_size=32",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.log_every=1",
    "evaluation.num_images=8",
    "evaluation.batch_size=8",
    "evaluation.distances=false",
    "evaluation.generation.num_images=4",
    "evaluation.pictures=4",
)


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        return self.out.strip().splitlines()[-1]

    @property
    def notes(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.strip()]


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    """Overrides that make any phase small."""
    return TINY


@pytest.fixture
def tessella(capfd) -> Callable[..., Outcome]:
    """Runs `tessella <arguments>` in this process and in the working folder."""

    def run(*arguments: str) -> Outcome:
        capfd.readouterr()
        try:
            cli.main(arguments)
            code = 0
        except SystemExit as end:
            code = end.code or 0
        assert isinstance(code, int), f"exit with {code!r}"
        out, err = capfd.readouterr()
        return Outcome(code, out, err)

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A folder with runs/vq, runs/siglip (started from vq) and runs/unified (the two decoupled); never written to."""
    folder = tmp_path_factory.mktemp("trained")
    before = os.getcwd()
    os.chdir(folder)
    try:
        cli.main(["train", *TINY, "out=runs/vq"])
        cli.main(["train", *TINY, "phase=siglip", "tokenizer=nano/siglip", "warm_start=runs/vq", "out=runs/siglip"])
        pair = ["tokenizer.generation.folder=runs/vq", "tokenizer.understanding.folder=runs/siglip"]
        cli.main(["train", *TINY, "phase=unified", "tokenizer=trained_pair", *pair, "out=runs/unified"])
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def workshop(trained, tmp_path, monkeypatch) -> Path:
    """A working folder of its own with the same runs; files are linked, so replace them, never write into them."""
    for source in trained.rglob("*"):
        target = tmp_path / source.relative_to(trained)
        if source.is_dir():
            target.mkdir(parents=True)
        else:
            os.link(source, target)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def contents() -> Callable[[Path], dict[str, str]]:
    """Digest of every file below a folder, by relative path."""

    def digests(folder: Path) -> dict[str, str]:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    return digests
