"""`tessella evaluate`: measure a trained run again, with this command's evaluation settings."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from . import runs
from .limits import check_values
from .run_folder import RunFolder
from .stopping import StopRequest
from .train import build_phase, evaluate, evaluation_fingerprint, set_threads


def main(cfg: DictConfig) -> None:
    print(run(cfg))


def run(cfg: DictConfig) -> Path:
    """Rewrite metrics.json and the pictures of `cfg.run`; returns its folder.

    Raises:
        ValueError: not a finished run, or a value out of its range.
    """
    check_values(cfg)
    from .build import data_identity, rebuilt, resolve_run, trained_node

    folder = resolve_run(cfg.run, ("tokenizer", "siglip", "unified"))
    node = trained_node(folder)
    record = runs.read_json(folder / "run.json")
    if "imported" in record:
        from .evaluate_imported import ImportedPhase, imported_config

        make, trained = ImportedPhase, imported_config(folder, node, cfg.get("data"), record["phase"])
    else:
        make, trained = build_phase, OmegaConf.load(folder / "config.yaml")
        if cfg.get("data") is not None:
            raise ValueError(
                f"{folder} is measured on the test split of its training data; data= is for imported weights."
            )
    assert isinstance(trained, DictConfig)
    trained.evaluation = cfg.evaluation
    if "imported" not in record:
        trained = rebuilt(trained, folder)
    with RunFolder(folder) as owned, StopRequest() as stop:
        set_threads(trained)
        phase = make(trained, folder)
        phase.restore()
        owned.write_record(evaluation_fingerprint=None)  # a kill must not leave new numbers under the old one
        phase.to(phase.device)
        evaluate(phase, owned, stop, loggers=[])
        runs.save_config(folder, trained)
        measured = {"data": phase.data.record(), "skipped": phase.data.skipped()} if "imported" in record else {}
        fingerprint = evaluation_fingerprint(record["fingerprint"], trained, data_identity(trained))
        owned.write_record(evaluation_fingerprint=fingerprint, **measured)
    return folder


if __name__ == "__main__":
    import sys

    from .cli import main as tessella

    tessella(["evaluate", *sys.argv[1:]])
