"""`tessella ablate`: train and compare designs inside the same LLM, and write one report.

Each stage is a `tessella train` of its own process: its peak memory is its own, a crash is its own, and its command
stands in its run record. Finished stages are reused by fingerprint.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from . import runs
from .limits import check_values
from .run_folder import RunFolder
from .stopping import StopRequest
from .study import Stage, all_stages, fairness, plan_stages

POLL_SECONDS = 0.2
# glibc gives large blocks back to the system as soon as they are free, and clears their pages when they come again;
# a tokenizer stage that keeps them has half the page faults. Other systems read no such variables.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}


def main(cfg: DictConfig) -> None:
    print(run(cfg))


def run(cfg: DictConfig) -> Path:
    """Train what is missing, check that the comparison is fair, write the report; returns its path.

    Raises:
        ValueError: bad configuration, a failed stage (names its log), or designs that did not see the same data.
    """
    from .report import build_report, print_table

    started = time.monotonic()
    check_values(cfg)
    study = Path("runs") / _name(cfg.study)
    planned = plan_stages(cfg)
    _check_stages(planned)
    with RunFolder(study) as folder, StopRequest() as stop:
        earlier = _earlier_seconds(study)
        book = _Book(cfg, study, planned, earlier)
        scheduler = _Scheduler(cfg, study, stop, book)
        scheduler.run(list(all_stages(planned)))
        book.write(wall_seconds=earlier + time.monotonic() - started, checks=_check(study, planned))
        page = build_report(folder.folder)
    print_table(study)
    return page.resolve()


def _name(study: Any) -> str:
    name = str(study)
    if not name or name.startswith((".", "/", "~")) or ".." in Path(name).parts:
        raise ValueError(f"study={name!r} must be a name for a folder below ./runs, such as study=three-seeds.")
    return name


def _check_stages(planned: dict) -> None:
    """Refuse a wrong key or value of any stage before the first one trains."""
    from .compose import compose_config

    for overrides in {(stage.phase, *stage.overrides): None for stage in all_stages(planned)}:
        check_values(compose_config("train", [f"phase={overrides[0]}", *overrides[1:]]))


def _earlier_seconds(study: Path) -> float:
    file = study / "study.json"
    return runs.read_json(file).get("wall_seconds", 0.0) if file.is_file() else 0.0


class _Book:
    """study.json: what the study consists of, rewritten as stages become known."""

    def __init__(self, cfg: DictConfig, study: Path, planned: dict, earlier: float) -> None:
        self.cfg, self.study, self.planned = cfg, study, planned
        self.head: dict[str, Any] = {
            "schema": runs.SCHEMA,
            "name": str(cfg.study),
            "command": runs.command_line(),
            "created": runs.now(),
            "git": runs.git_state(),
            "versions": runs.versions(),
            "host": runs.host(),
            "config": runs.plain(cfg),
            "wall_seconds": earlier,
        }

    def write(self, **fields: Any) -> None:
        designs = {
            design: {
                "title": self.cfg.designs[design].title,
                "seeds": {
                    str(seed): {"stages": {name: stage.folder for name, stage in stages.items() if stage.folder}}
                    for seed, stages in seeds.items()
                },
            }
            for design, seeds in self.planned.items()
        }
        self.head |= fields
        runs.write_json(self.study / "study.json", {**self.head, "designs": designs})


@dataclass(frozen=True)
class _Worker:
    """The process of a running stage, and the GPU it has to itself."""

    process: subprocess.Popen
    device: str | None


class _Scheduler:
    """Runs ready stages in `workers` processes, longest chains first."""

    def __init__(self, cfg: DictConfig, study: Path, stop: StopRequest, book: _Book) -> None:
        self.cfg, self.study, self.stop, self.book = cfg, study, stop, book
        self.workers, self.devices = _workers(cfg.workers)
        self.running: dict[Stage, _Worker] = {}
        self.folder_of: dict[Stage, str] = {}
        self._printed = time.monotonic()

    def run(self, stages: list[Stage]) -> None:
        waiting = sorted(stages, key=lambda stage: (-stage.depth, stage.seed))
        total = len(waiting)
        try:
            while waiting or self.running:
                self.stop.check(f"with {len(self.folder_of)} of {total} stages finished")
                ready = [s for s in waiting if all(source in self.folder_of for source in s.inputs.values())]
                for stage in ready[: self.workers - len(self.running)]:
                    waiting.remove(stage)
                    self._start(stage)
                self._collect()
                self._show(total)
                time.sleep(POLL_SECONDS)
        finally:
            self._end_children()

    def _start(self, stage: Stage) -> None:
        from .compose import compose_config
        from .train import plan

        overrides = stage.train_overrides(self.folder_of)
        cfg = compose_config("train", overrides)
        this = plan(cfg)
        folder = self.study / "stages" / this.folder.name
        stage.folder = folder.relative_to(self.study).as_posix()
        self.book.write()
        record = runs.read_json(folder / "run.json") if (folder / "run.json").is_file() else {}
        if record.get("status") == "finished" and record.get("evaluation_fingerprint") == this.evaluation:
            self.folder_of[stage] = str(folder.resolve())
            _say(f"{stage.label}: reused {folder}")
            return
        folder.mkdir(parents=True, exist_ok=True)
        command = ["train", *overrides, f"out='{folder}'"]
        threads = str(cfg.trainer.threads or os.cpu_count())
        environment = {
            **KEEP_MEMORY,
            **os.environ,
            "OMP_NUM_THREADS": threads,
            "TESSELLA_COMMAND": shlex.join(["tessella", *command]),
            "TESSELLA_PARENT": str(os.getpid()),
        }
        taken = {worker.device for worker in self.running.values()}
        device = next((device for device in self.devices if device not in taken), None)
        if device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = device
        with open(folder / "log.txt", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tessella.experiments.cli", *command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True,
            )  # fmt: skip
        self.running[stage] = _Worker(process, device)
        _say(f"{stage.label}: {'continues' if record else 'starts'} in {folder}")

    def _collect(self) -> None:
        for stage, worker in list(self.running.items()):
            code = worker.process.poll()
            if code is None:
                continue
            del self.running[stage]
            folder = self.study / str(stage.folder)
            if code != 0:
                raise ValueError(
                    f"stage {stage.label} failed (exit {code}): {_last_line(folder / 'log.txt')} "
                    f"(log: {folder / 'log.txt'}). Finished stages are kept; the same command continues."
                )
            self.folder_of[stage] = str(folder.resolve())
            _say(f"{stage.label}: finished ({len(self.folder_of)} stages)")

    def _show(self, total: int) -> None:
        interval = 1.0 if sys.stderr.isatty() else 20.0
        if time.monotonic() - self._printed < interval or not self.running:
            return
        self._printed = time.monotonic()
        parts = [f"{len(self.folder_of)}/{total} stages"]
        for stage in self.running:
            with suppress(ValueError, OSError):
                p = runs.read_json(self.study / str(stage.folder) / "progress.json")
                parts.append(
                    f"{stage.label} {p['step']}/{p['steps']} loss {p['loss']} {p['images_per_second']:.0f} images/s"
                )
        line = "  |  ".join(parts)
        if sys.stderr.isatty():
            width = os.get_terminal_size(sys.stderr.fileno()).columns
            print(f"\r\033[K{line[: width - 1]}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def _end_children(self) -> None:
        """On a stop or a failure the running stages save and end; the next start continues them."""
        for worker in self.running.values():
            with suppress(ProcessLookupError):
                worker.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 60
        for worker in self.running.values():
            try:
                worker.process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                worker.process.kill()


def _workers(workers: Any) -> tuple[int, list[str]]:
    """Number of stages at a time, and the GPUs they take turns on."""
    import torch

    allotted = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = allotted.split(",") if allotted else [str(index) for index in range(torch.cuda.device_count())]
    gpus = gpus if torch.cuda.is_available() else []
    if workers == "auto":
        return (len(gpus) or max(len(os.sched_getaffinity(0)), 1)), gpus
    if not isinstance(workers, int) or workers < 1:
        raise ValueError(f"workers={workers!r} must be `auto` or an integer of at least 1.")
    return workers, gpus if len(gpus) >= workers else []


def _check(study: Path, planned: dict) -> dict[str, Any]:
    """What must be equal between designs; a difference is an error, not a footnote."""
    records: dict[str, dict[str, dict[str, Any]]] = {}
    for design, seeds in planned.items():
        for seed, stages in seeds.items():
            last = list(stages.values())[-1]
            if last.phase == "unified":
                records.setdefault(design, {})[str(seed)] = runs.read_json(study / last.folder / "run.json")
    checks = fairness(records)
    unequal = [name for name, check in checks.items() if not check["equal"]]
    if unequal:
        raise ValueError(f"the designs are not comparable, they differ in {', '.join(unequal)}: {checks}")
    return checks


def _last_line(log: Path) -> str:
    with suppress(OSError):
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        return next((line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else "no output")
    return "no output"


def _say(text: str) -> None:
    clear = "\r\033[K" if sys.stderr.isatty() else ""
    print(f"{clear}{text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    from .cli import main as tessella

    tessella(["ablate", *sys.argv[1:]])
