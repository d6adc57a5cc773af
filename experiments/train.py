"""`tessella train`: one phase of one design, from configuration to a finished run folder.

A run goes through three states, kept in run.json: `running` (checkpoints/last.ckpt says how far), `trained` (weights
are saved, evaluation is missing) and `finished`. Starting the same command again goes on from the state it finds.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from . import runs
from .limits import check_values
from .run_folder import RunFolder
from .runs import Clock
from .stopping import StopRequest, end_with_parent

if TYPE_CHECKING:
    from .phase import Phase

PHASES = {
    "tokenizer": "tessella.experiments.lit_tokenizer.TokenizerPhase",
    "siglip": "tessella.experiments.lit_siglip.SiglipPhase",
    "unified": "tessella.experiments.lit_unified.UnifiedPhase",
}


def main(cfg: DictConfig) -> None:
    end_with_parent()
    print(run(cfg))


@dataclass(frozen=True)
class Plan:
    """Identity of a run: where it goes and what makes it the same run."""

    folder: Path
    fingerprint: str  # of everything that decides the trained weights
    evaluation: str  # of that and everything that decides the metrics


def plan(cfg: DictConfig) -> Plan:
    """Folder and fingerprints of the run that `cfg` describes, without training anything.

    The fingerprint covers the phase's own part of the configuration, the weights of the runs it builds on, the data and
    the code, so that an override re-runs exactly what depends on it.

    Raises:
        ValueError: a value out of its range, or an input run that is not finished.
    """
    check_values(cfg)  # before torch is loaded
    from .build import TRAINED, data_identity, identify_trained
    from .phase import resolve_accelerator, resolve_precision

    splits = data_identity(cfg)
    accelerator = resolve_accelerator(cfg.trainer.accelerator)
    sections = ["tokenizer"] + (["llm", "head", "reader"] if cfg.phase == "unified" else [])
    recipe = {key: value for key, value in runs.plain(cfg.recipe[cfg.phase]).items() if key != "validate_every"}
    identity: dict[str, Any] = {name: identify_trained(cfg[name]) for name in sections} | {
        "phase": cfg.phase,
        "seed": cfg.seed,
        "recipe": recipe,
        "numerics": [accelerator, resolve_precision(cfg.trainer.precision, accelerator), cfg.trainer.threads],
        "data": splits["train"],
        "code": runs.code_digest(runs.TRAINING_CODE[cfg.phase]),
    }
    if cfg.phase == "tokenizer" and cfg.get("teacher"):
        identity["teacher"] = identify_trained(cfg.teacher)
    if cfg.phase != "unified" and cfg.warm_start is not None:
        identity["warm_start"] = identify_trained({"_target_": TRAINED, "folder": cfg.warm_start})
    fingerprint = runs.digest(identity)
    folder = Path(cfg.out) if cfg.out else Path("runs") / f"{cfg.phase}-{fingerprint[:12]}"
    return Plan(folder, fingerprint, evaluation_fingerprint(fingerprint, cfg, splits))


def evaluation_fingerprint(training: str, cfg: DictConfig, splits: dict[str, str]) -> str:
    """What decides the metrics: training, test data, evaluation settings, the code and the networks that measure."""
    from ..metrics.extractors import extractor_classes
    from ..metrics.perceptual import LPIPS

    networks = [cls.__name__ for cls in (*extractor_classes(), LPIPS) if cls.unavailable() is None]
    code = runs.code_digest(runs.EVALUATION_CODE)
    return runs.digest([training, splits, runs.plain(cfg.evaluation), code, networks])


def run(cfg: DictConfig) -> Path:
    """Train, continue or reuse the run of `cfg`; returns its folder.

    Raises:
        ValueError: the folder holds a run of another fingerprint (it is left as it is).
    """
    from .build import rebuilt

    this = plan(cfg)
    with RunFolder(this.folder) as folder, StopRequest() as stop:
        record = folder.record()
        _refuse_other_run(this, record)
        if record.get("status") == "finished" and record.get("evaluation_fingerprint") == this.evaluation:
            print(f"{this.folder} already holds this run (fingerprint {this.fingerprint[:12]}).", file=sys.stderr)
            return this.folder
        set_threads(cfg)
        loggers = _extra_loggers(cfg, this.folder)
        is_trained = record.get("status") in ("trained", "finished")
        phase = build_phase(rebuilt(cfg, this.folder) if is_trained else cfg, this.folder)
        if is_trained:
            phase.restore()
            phase.to(phase.device)
        else:
            _train(cfg, this, phase, folder, stop, loggers)
        evaluate(phase, folder, stop, loggers)
        skipped = phase.data.skipped()
        folder.write_record(
            status="finished", evaluation_fingerprint=this.evaluation, finished=runs.now(), skipped=skipped
        )
    return this.folder


def build_phase(cfg: DictConfig, folder: Path) -> "Phase":
    from hydra.utils import get_class

    return get_class(PHASES[cfg.phase])(cfg, folder)


def _extra_loggers(cfg: DictConfig, folder: Path) -> list[Any]:
    """Loggers besides the curves, which are always written."""
    from hydra.utils import instantiate

    return [instantiate(cfg.logger, save_dir=str(folder))] if cfg.logger.get("_target_") else []


def evaluate(phase: "Phase", folder: RunFolder, stop: StopRequest, loggers: list[Any]) -> None:
    """Measure a trained phase and write metrics.json and the pictures."""
    from safetensors.torch import save

    result = phase.evaluate(lambda text: _note(stop, phase, f"evaluating: {text}"))
    runs.write_atomic(folder.folder / "pictures.safetensors", save(result.tensors))
    runs.write_json(folder.folder / "pictures.json", result.notes)
    folder.write_metrics(result.metrics, result.absent)
    for logger in loggers:
        logger.log_evaluation(result)


def _note(stop: StopRequest, phase: "Phase", text: str) -> None:
    """Say what is being done between training steps, and stop there when asked to."""
    stop.check(f"({text})")
    print(f"{phase.name} {phase.folder.name}  {text}", file=sys.stderr, flush=True)


def set_threads(cfg: DictConfig) -> None:
    """One thread is the default on CPU: designs run side by side, and results do not depend on the core count."""
    import torch

    if cfg.trainer.threads is not None:
        torch.set_num_threads(int(cfg.trainer.threads))


def _refuse_other_run(this: Plan, record: dict[str, Any]) -> None:
    if record and record.get("fingerprint") != this.fingerprint:
        raise ValueError(
            f"{this.folder} holds another run (fingerprint {str(record.get('fingerprint'))[:12]}, "
            f"{record.get('status')}, made by `{record.get('command')}`); "
            "name another folder with out=<folder> or delete it."
        )


def _quiet_lightning() -> None:
    """Lightning announces devices and products at every start; what matters is in run.json and the progress line."""
    import logging
    import warnings

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings(
        "ignore",
        message=r".*(does not have many workers|LeafSpec|number of training batches|in eval mode at the start).*",
    )


def _train(
    cfg: DictConfig, this: Plan, phase: "Phase", folder: RunFolder, stop: StopRequest, loggers: list[Any]
) -> None:
    import torch
    from lightning.pytorch import Trainer

    from ..data.order import TrainingOrder
    from .callbacks import Checkpoints, CurveLogger, Progress, SeedEachStep, StopAtStep
    from .phase import resolve_accelerator, resolve_precision
    from .steps import FixedBatches, StepLoader

    _quiet_lightning()
    recipe, options = phase.recipe, cfg.trainer
    steps, batch_size = int(recipe.steps), int(recipe.batch_size)
    order = TrainingOrder(len(phase.data.train), batch_size, cfg.seed)
    last = this.folder / "checkpoints" / "last.ckpt"
    start, clock = _resume_point(last)
    accelerator = resolve_accelerator(options.accelerator)
    precision = resolve_precision(options.precision, accelerator)
    accumulate = int(recipe.accumulate)
    if batch_size % accumulate:
        raise ValueError(
            f"recipe.{cfg.phase}.accumulate={accumulate} does not divide batch_size={batch_size}; use a divisor of it."
        )
    runs.save_config(this.folder, cfg)
    folder.write_record(
        phase=cfg.phase,
        status="running",
        seed=cfg.seed,
        fingerprint=this.fingerprint,
        command=runs.command_line(),
        started=folder.record().get("started", runs.now()),
        git=runs.git_state(),
        versions=runs.versions(),
        host=runs.host(),
        accelerator=accelerator,
        precision=precision,
        threads=torch.get_num_threads(),
        steps=steps,
        batch_size=batch_size,
        data=phase.data.record(),
        data_order=order.digest(steps),
        **phase.describe(),
    )
    phase.prepare(lambda text: _note(stop, phase, text))  # after the record: what it writes then has an owner
    checkpoints = Checkpoints(
        last.parent, clock, interval=options.checkpoint_seconds, monitor=phase.monitor, mode=phase.monitor_mode
    )
    curves = CurveLogger(this.folder / "curves.csv", resume_step=start)
    trainer = Trainer(
        accelerator=accelerator,
        devices=1,
        accumulate_grad_batches=accumulate,
        precision=precision,  # pyright: ignore[reportArgumentType]
        max_steps=steps,
        max_epochs=-1,
        logger=[curves, *loggers],
        callbacks=[
            SeedEachStep(cfg.seed),
            checkpoints,
            StopAtStep(stop, checkpoints),
            Progress(this.folder, f"{cfg.phase} {this.folder.name}", batch_size, start),
        ],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        val_check_interval=int(recipe.validate_every) * accumulate,
        check_val_every_n_epoch=None,
        log_every_n_steps=int(options.log_every),
        use_distributed_sampler=False,
    )
    loader = StepLoader(
        order,
        phase.load,
        start=start,
        stop=steps,
        accumulate=accumulate,
        num_workers=options.num_workers,
    )
    try:
        trainer.fit(
            phase.module,
            loader,
            FixedBatches(phase.validation()),
            ckpt_path=last if start else None,
            weights_only=True,
        )
    except SystemExit:  # Lightning answers a SIGTERM that comes between two steps with an exit of its own
        stop.check("between two steps; the last checkpoint stands")
        raise
    curves.save()
    phase.to(phase.device)  # Lightning has moved the module back to the CPU
    phase.finish_training()
    folder.write_record(
        status="trained",
        weights=phase.save(),
        training_seconds=clock.wall,
        cpu_seconds=clock.cpu,
        images_per_second=steps * batch_size / clock.wall,
        peak_memory_bytes=runs.peak_memory_bytes(),
        cuda_peak_memory_bytes=torch.cuda.max_memory_allocated() if accelerator == "cuda" else None,
    )
    last.unlink(missing_ok=True)


def _resume_point(last: Path) -> tuple[int, Clock]:
    """First step to train, and a clock that goes on from the seconds already spent."""
    import torch

    if not last.is_file():
        return 0, Clock()
    try:
        state = torch.load(last, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a damaged file
        raise ValueError(
            f"{last} cannot be read ({type(error).__name__}: {error}); delete it to start again."
        ) from error
    spent = next((value for name, value in state["callbacks"].items() if name.startswith("Checkpoints")), {})
    return state["global_step"], Clock(spent.get("wall", 0.0), spent.get("cpu", 0.0))


if __name__ == "__main__":
    from .cli import main as tessella

    tessella(["train", *sys.argv[1:]])
