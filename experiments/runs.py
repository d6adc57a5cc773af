"""A run is a folder: what was asked, what it ran on, what came out.

Files are written to a temporary name and renamed, so that a reader (or the next start after a kill) sees the old file
or the new one, never half of one. `run.json` and `metrics.json` are described in docs/runs.md.
"""

import hashlib
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from .. import __version__

SCHEMA = 1
PACKAGE = Path(__file__).resolve().parent.parent
# What decides the numbers of a training stage besides its configuration: editing the report must not retrain anything.
_EVERY_PHASE = (
    "tokenizers/**/*.py",
    "data/*.py",
    *(f"experiments/{name}.py" for name in ("build", "callbacks", "lit_base", "optimizers", "phase", "steps", "train")),
)
_SAMPLING = ("generate", "sampling", "decoder", "decoder_llama", "packed_linear")  # of unified/: not part of training
_LEARNING = sorted(path.stem for path in (PACKAGE / "unified").glob("*.py") if path.stem not in _SAMPLING)
TRAINING_CODE = {
    "tokenizer": (*_EVERY_PHASE, "experiments/lit_tokenizer.py", "experiments/distillation.py"),
    "siglip": (*_EVERY_PHASE, "experiments/lit_siglip.py"),
    "unified": (
        *_EVERY_PHASE,
        *(f"unified/{name}.py" for name in _LEARNING),
        "experiments/lit_unified.py",
        "experiments/token_store.py",
    ),
}
EVALUATION_CODE = ("metrics/*.py", "experiments/evaluate*.py", *(f"unified/{name}.py" for name in _SAMPLING))
_typed: str | None = None
LIBRARIES = (
    "torch",
    "lightning",
    "transformers",
    "hydra-core",
    "torchmetrics",
    "lpips",
    "tokenizers",
    "numpy",
    "scipy",
)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write `path` whole or not at all; an OSError (full disk, read-only folder) leaves an earlier file intact."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error  # a failed write does not name its file


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically; NaN and infinities are refused, since JSON has none."""
    write_atomic(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: the file is missing or is not JSON; names it.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(
            f"{path} does not exist: {path.parent} is not a run folder, or its run has not finished."
        ) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}); delete it and run the command again.") from error


def digest(value: Any) -> str:
    """sha256 of a JSON-able value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


@cache
def code_digest(patterns: tuple[str, ...]) -> str:
    """sha256 over the source files that decide the numbers of a stage (of its training; or of its evaluation)."""
    sha = hashlib.sha256(__version__.encode())
    for file in sorted({file for pattern in patterns for file in PACKAGE.glob(pattern)}):
        sha.update(file.relative_to(PACKAGE).as_posix().encode())
        sha.update(file.read_bytes())
    return sha.hexdigest()


def plain(cfg: Any) -> Any:
    """A resolved configuration as plain Python containers."""
    return OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else cfg


def save_config(folder: Path, cfg: DictConfig) -> None:
    write_atomic(folder / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))


def git_state() -> dict[str, Any] | None:
    """Commit of the source tree the package runs from, and whether it has uncommitted changes; None outside git."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(PACKAGE), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != PACKAGE:
            return None
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str]:
    found = {"tessella": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def host() -> dict[str, Any]:
    """The machine, in the terms a reader needs to judge seconds and images/s."""
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return {"cpu": name, "cores": os.cpu_count(), "system": platform.platform(terse=True)}


def command_line() -> str:
    """The command that this process runs, as typed; a study says so itself for its stages."""
    return os.environ.get("TESSELLA_COMMAND") or _typed or shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def remember_command(*arguments: str) -> None:
    """Keep what was typed, before short forms are rewritten to overrides."""
    global _typed
    _typed = shlex.join(["tessella", *arguments])


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def peak_memory_bytes() -> int:
    """Peak resident memory of this process (Linux reports KiB, macOS bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Clock:
    """Wall and CPU seconds of this process, continued across restarts of the same run."""

    def __init__(self, wall: float = 0.0, cpu: float = 0.0) -> None:
        self._wall, self._cpu = wall, cpu
        self._started, self._cpu_started = time.monotonic(), time.process_time()

    @property
    def wall(self) -> float:
        return self._wall + time.monotonic() - self._started

    @property
    def cpu(self) -> float:
        return self._cpu + time.process_time() - self._cpu_started
