"""The plan of a study: which stages its designs need, in which order, and which of them are the same."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig

from .runs import digest, plain


@dataclass(eq=False)
class Stage:
    """One `tessella train` of a study. Designs that need the same stage share it.

    `inputs` maps configuration keys to the stages whose run folders they receive.
    """

    label: str  # "vq", or "decoupled/unified": how progress names it
    phase: str
    seed: int
    overrides: tuple[str, ...]
    inputs: Mapping[str, "Stage"]
    folder: str | None = None  # relative to the study, once its fingerprint is known
    needed_by: list["Stage"] = field(default_factory=list)

    @property
    def identity(self) -> str:
        inputs = {key: stage.identity for key, stage in self.inputs.items()}
        return digest([self.phase, self.seed, self.overrides, inputs])

    @property
    def depth(self) -> int:
        """Stages on the longest chain that waits for this one; the scheduler starts long chains first."""
        return 1 + max((stage.depth for stage in self.needed_by), default=0)

    def train_overrides(self, folder_of: Mapping["Stage", str]) -> list[str]:
        """The overrides of its `tessella train`, without the run folder."""
        inputs = [f"{key}='{folder_of[stage]}'" for key, stage in self.inputs.items()]
        return [f"phase={self.phase}", *self.overrides, *inputs, f"seed={self.seed}"]


def plan_stages(cfg: DictConfig) -> dict[str, dict[int, dict[str, Stage]]]:
    """Stages by design, seed and stage name; equal stages are one object.

    Raises:
        ValueError: a design without stages, a stage that builds on one that does not come before it, a repeated seed.
    """
    seeds = plain(cfg.seeds)
    if (
        not isinstance(seeds, list)
        or not seeds
        or not all(isinstance(seed, int) and seed >= 0 for seed in seeds)
        or len(set(seeds)) != len(seeds)
    ):
        raise ValueError(f"seeds={seeds} must be a list of different integers of at least 0, such as seeds=[0,1,2].")
    common = [f"recipe={cfg.size}", f"llm={cfg.size}"]
    shared: dict[str, Stage] = {}
    planned: dict[str, dict[int, dict[str, Stage]]] = {}
    for design, node in plain(cfg.designs).items():
        planned[design] = {}
        for seed in seeds:
            stages: dict[str, Stage] = {}
            for name, spec in node["stages"].items():
                inputs = {key: _earlier(stages, source, design, name) for key, source in spec.get("from", {}).items()}
                overrides = (*common, *spec["overrides"], *cfg.overrides)
                stage = Stage(name, spec["phase"], seed, overrides, inputs)
                known = shared.setdefault(stage.identity, stage)
                if known is stage:
                    for source in inputs.values():
                        source.needed_by.append(stage)
                stages[name] = known
            planned[design][seed] = stages
    _label(planned)
    return planned


def _earlier(stages: dict[str, Stage], source: Any, design: str, name: str) -> Stage:
    if source not in stages:
        raise ValueError(
            f"design.{design}: stage {name!r} builds on {source!r}, which does not come before it; "
            f"stages before it: {', '.join(stages) or 'none'}."
        )
    return stages[source]


def _label(planned: dict[str, dict[int, dict[str, Stage]]]) -> None:
    users: dict[Stage, set[str]] = {}
    for design, stage in ((d, s) for d, seeds in planned.items() for stages in seeds.values() for s in stages.values()):
        users.setdefault(stage, set()).add(design)
    several_seeds = any(len(seeds) > 1 for seeds in planned.values())
    for stage, designs in users.items():
        seed = f" seed {stage.seed}" if several_seeds else ""
        stage.label = f"{'+'.join(sorted(designs)) if len(designs) < len(planned) else 'all'}/{stage.label}{seed}"


def all_stages(planned: dict[str, dict[int, dict[str, Stage]]]) -> Iterator[Stage]:
    """Every stage once."""
    seen: set[Stage] = set()
    for seeds in planned.values():
        for stages in seeds.values():
            for stage in stages.values():
                if stage not in seen:
                    seen.add(stage)
                    yield stage


CHECKS = {
    "data_order": lambda record: record["data_order"],
    "data": lambda record: digest(record["data"]["fingerprint"]),
    "llm_init": lambda record: record["llm_init"],
    "optimizer_steps": lambda record: record["steps"],
    "batch_size": lambda record: record["batch_size"],
    "precision": lambda record: record["precision"],
}


def fairness(records: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The things that must be equal between designs, per seed, from the run records of their unified stage.

    Args:
        records: design -> seed -> run.json of its unified run.

    Returns:
        check -> {"equal": bool, "by_seed": {seed: {design: value}}}.
    """
    checks = {}
    for name, value in CHECKS.items():
        by_seed: dict[str, dict[str, Any]] = {}
        for design, seeds in records.items():
            for seed, record in seeds.items():
                by_seed.setdefault(seed, {})[design] = value(record)
        checks[name] = {"equal": all(len(set(values.values())) == 1 for values in by_seed.values()), "by_seed": by_seed}
    return checks
