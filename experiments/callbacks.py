"""Lightning callbacks of every phase: checkpoints that survive a kill, progress, a graceful stop, the curves."""

import csv
import io
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers.logger import Logger

from .runs import Clock, write_atomic, write_json
from .steps import step_seed
from .stopping import StopRequest


class SeedEachStep(Callback):
    """Random numbers of a step depend on (seed, step) alone, so a resumed run draws what the uninterrupted one drew."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        torch.manual_seed(
            step_seed(self.seed, trainer.global_step, f"micro{batch_idx % trainer.accumulate_grad_batches}")
        )


class Checkpoints(Callback):
    """`last.ckpt` every `interval` seconds and at a stop, `best.ckpt` at the best value of `monitor`.

    Both are written beside and renamed. Wall and CPU seconds travel in the checkpoint, so that the training time of an
    interrupted run is the sum of its parts.
    """

    def __init__(self, folder: Path, clock: Clock, *, interval: float, monitor: str, mode: str) -> None:
        self.folder, self.clock, self.interval = folder, clock, interval
        self.monitor, self.sign = monitor, 1.0 if mode == "max" else -1.0
        self.best: float | None = None
        self._saved_at, self._cost = time.monotonic(), 0.0

    @property
    def last(self) -> Path:
        return self.folder / "last.ckpt"

    def save(self, trainer: Trainer, name: str = "last.ckpt") -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".{name}.tmp"
        started = time.monotonic()
        for logger in trainer.loggers:
            logger.save()  # before the checkpoint: rows beyond it are dropped on resuming, missing ones would be lost
        try:
            trainer.save_checkpoint(temporary)
            if trainer.is_global_zero:
                os.replace(temporary, self.folder / name)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise OSError(f"cannot write the checkpoint {self.folder / name}: {error}") from error
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - started

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        # A large model takes long to save: saving may cost a twentieth of the time, not more.
        if time.monotonic() - self._saved_at >= max(self.interval, 20 * self._cost):
            self.save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        value = trainer.callback_metrics.get(self.monitor)
        if trainer.sanity_checking or value is None:
            return
        if self.best is None or self.sign * float(value) > self.sign * self.best:
            self.best = float(value)
            self.save(trainer, "best.ckpt")

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "wall": self.clock.wall, "cpu": self.clock.cpu}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]


class StopAtStep(Callback):
    """Ends training after the current step when a stop was asked for, with a checkpoint."""

    def __init__(self, stop: StopRequest, checkpoints: Checkpoints) -> None:
        self.stop, self.checkpoints = stop, checkpoints

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.stop.take_signals()  # from Lightning, which would end with exit code 0 wherever it meets SIGTERM

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if self.stop.received is not None:
            self.checkpoints.save(trainer)
            self.stop.check(f"at step {trainer.global_step} of {trainer.max_steps}, checkpoint written")


class Progress(Callback):
    """One line on a terminal, a line every 15 s elsewhere, and `progress.json` for whoever watches the folder."""

    def __init__(self, folder: Path, title: str, images_per_step: int, start: int) -> None:
        self.folder, self.title, self.images_per_step = folder, title, images_per_step
        self._first, self._first_time = start, time.monotonic()
        self._printed = self._noted = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._first_time = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        moment = time.monotonic()
        done = trainer.global_step >= trainer.max_steps
        if not trainer.is_global_zero or (moment - self._noted < 1.0 and not done):
            return
        self._noted = moment
        rate = (trainer.global_step - self._first) * self.images_per_step / max(moment - self._first_time, 1e-9)
        loss = float(outputs["loss"]) if isinstance(outputs, dict) and "loss" in outputs else float("nan")
        text = f"{self.title}  step {trainer.global_step}/{trainer.max_steps}  loss {loss:.4f}  {rate:.0f} images/s"
        with suppress(OSError):  # progress is a courtesy: a full disk must surface where it matters
            write_json(
                self.folder / "progress.json",
                {
                    "step": trainer.global_step,
                    "steps": trainer.max_steps,
                    "loss": f"{loss:.4f}",
                    "images_per_second": rate,
                },
            )
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="\n" if done else "", file=sys.stderr, flush=True)
        elif done or moment - self._printed >= 15:
            self._printed = moment
            print(text, file=sys.stderr, flush=True)


class CurveLogger(Logger):
    """Lightning logger that keeps `curves.csv`: a step column, then one column per logged name.

    Rows beyond the step a run resumes from are dropped, so that a curve never shows a step twice.
    """

    def __init__(self, file: Path, resume_step: int = 0) -> None:
        super().__init__()
        self.file = file
        self.rows: dict[int, dict[str, float]] = {}
        self._written = time.monotonic()
        if resume_step and file.is_file():
            with open(file, newline="") as lines:
                for row in csv.DictReader(lines):
                    step = int(row.pop("step"))
                    if step <= resume_step:
                        self.rows[step] = {name: float(value) for name, value in row.items() if value}

    @property
    def name(self) -> str:
        return "curves"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The configuration is written by the run itself (config.yaml)."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        row = self.rows.setdefault(int(step or 0), {})
        row.update({name: float(value) for name, value in metrics.items() if name != "epoch"})
        if time.monotonic() - self._written > 10:
            self.save()

    def save(self) -> None:
        names = sorted({name for row in self.rows.values() for name in row})
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["step", *names])
        for step in sorted(self.rows):
            row = self.rows[step]
            writer.writerow([step, *(f"{row[name]:.6g}" if name in row else "" for name in names)])
        write_atomic(self.file, text.getvalue())
        self._written = time.monotonic()

    def finalize(self, status: str) -> None:
        if self.rows:
            self.save()
