"""Reads a study folder, a folder of runs or one run folder into designs x seeds x stages, finished or not.

Nothing is measured here and nothing is guessed: a stage that has not finished, or a file that is not there, is named in
`Study.missing`. Run and study folders are described in docs/runs.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from .runs import read_json

PHASES = ("tokenizer", "siglip", "unified")


@dataclass(frozen=True)
class Stage:
    """One run folder, as one step of a design: `key` is its role there ("vq", "unified")."""

    key: str
    folder: Path
    name: str  # folder relative to the study: how the report calls it
    problem: str | None = None  # why there is no folder to look into
    planned_phase: str | None = None  # what the study's configuration says of a stage that has no run.json yet

    @cached_property
    def run(self) -> dict[str, Any]:
        """run.json, or {} when the stage has not started."""
        path = self.folder / "run.json"
        return read_json(path) if path.is_file() else {}

    @property
    def phase(self) -> str:
        """tokenizer, siglip or unified: from run.json, else as planned, else from the folder's name or the role."""
        named = next((phase for phase in PHASES if self.folder.name.startswith(phase)), None)
        return self.run.get("phase") or self.planned_phase or named or (self.key if self.key in PHASES else PHASES[0])

    @property
    def is_finished(self) -> bool:
        return self.run.get("status") == "finished" and (self.folder / "metrics.json").is_file()

    @property
    def why_unfinished(self) -> str | None:
        """One clause for the reader, or None when the stage is finished."""
        if self.problem:
            return self.problem
        if not self.run:
            return f"not started ({self.name} holds no run.json)"
        if self.run.get("status") == "trained":
            return f"trained, not evaluated ({self.name})"
        if self.run.get("status") != "finished":
            return f"not finished ({self.name} says status {self.run.get('status')})"
        if not (self.folder / "metrics.json").is_file():
            return f"without metrics ({self.name} holds no metrics.json)"
        return None

    @cached_property
    def metrics(self) -> dict[str, dict[str, Any]]:
        return read_json(self.folder / "metrics.json").get("metrics", {}) if self.is_finished else {}

    @cached_property
    def absent(self) -> dict[str, str]:
        return read_json(self.folder / "metrics.json").get("absent", {}) if self.is_finished else {}

    @cached_property
    def pictures(self) -> dict[str, Any]:
        """pictures.json, or {} when there is none."""
        path = self.folder / "pictures.json"
        return read_json(path) if path.is_file() else {}

    @cached_property
    def tensors(self) -> dict[str, Any]:
        """pictures.safetensors as numpy arrays (n, 3, H, W) uint8, or {} when there is none."""
        path = self.folder / "pictures.safetensors"
        if not path.is_file():
            return {}
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(
                f"{path} is damaged ({error}); `tessella evaluate run={self.folder}` writes it again."
            ) from error

    @property
    def config_text(self) -> str:
        path = self.folder / "config.yaml"
        return path.read_text() if path.is_file() else ""


@dataclass(frozen=True)
class Trial:
    """One design trained with one seed: its stages in the order they are trained."""

    seed: int
    stages: tuple[Stage, ...]

    def _inputs_of(self, stage: Stage) -> list[Stage]:
        """The stages that `stage` reads weights from, generation first, matched by fingerprint, else by folder name."""
        inputs = stage.run.get("inputs") or {}
        found: list[Stage] = []
        for role in sorted(inputs, key=lambda role: (role != "generation", role)):
            wanted = inputs[role] or {}
            for other in self.stages:
                same = wanted.get("fingerprint") is not None and other.run.get("fingerprint") == wanted["fingerprint"]
                if other is not stage and (same or Path(str(wanted.get("folder", ""))).name == other.folder.name):
                    found.append(other)
                    break
        return found

    @cached_property
    def unified(self) -> Stage | None:
        return next((stage for stage in reversed(self.stages) if stage.phase == "unified"), None)

    @cached_property
    def measured(self) -> tuple[Stage, ...]:
        """The stages whose numbers are this design's numbers: the unified model and the encoders it reads directly.

        A proxy that only another tokenizer learned from is paid for (seconds) but never measured as the design.
        """
        inputs = self._inputs_of(self.unified) if self.unified else []
        if not inputs:
            last = [stage for stage in self.stages if stage.phase == "tokenizer"][-1:]
            inputs = last + [stage for stage in self.stages if stage.phase == "siglip"]
        return tuple([self.unified] if self.unified else []) + tuple(inputs)

    @property
    def tokenizer(self) -> Stage | None:
        """The stage that trained the tokenizer whose ids the LLM writes."""
        return next((stage for stage in self.measured if stage.phase == "tokenizer"), None)


@dataclass(frozen=True)
class Design:
    name: str
    title: str
    trials: dict[int, Trial]

    @property
    def first(self) -> Trial | None:
        """The trial of the lowest seed: the one whose pictures the report shows."""
        return self.trials[min(self.trials)] if self.trials else None


@dataclass(frozen=True)
class Study:
    """`kind`: "study" (a study folder), "runs" (a folder of run folders) or "run" (one run folder)."""

    kind: str
    name: str
    folder: Path
    designs: tuple[Design, ...]
    record: dict[str, Any] = field(default_factory=dict)  # study.json

    @property
    def seeds(self) -> list[int]:
        return sorted({seed for design in self.designs for seed in design.trials})

    def seeds_of(self, design: Design) -> list[int]:
        """The seeds a design should have: in a study all of them, in a folder of runs its own."""
        return self.seeds if self.kind == "study" else sorted(design.trials)

    @property
    def repeats(self) -> int:
        """Trainings of each design, at most."""
        return max((len(self.seeds_of(design)) for design in self.designs), default=0)

    def trials(self) -> Iterator[tuple[Design, Trial]]:
        for design in self.designs:
            for seed in sorted(design.trials):
                yield design, design.trials[seed]

    @property
    def stages(self) -> list[Stage]:
        """Every stage once, in order of first use."""
        return list({stage.folder: stage for _, trial in self.trials() for stage in trial.stages}.values())

    @cached_property
    def missing(self) -> list[dict[str, Any]]:
        """What a complete study would have and this one has not: design, seed, stage, reason."""
        found: list[dict[str, Any]] = []
        for design in self.designs:
            for seed in self.seeds_of(design) or [None]:
                trial = design.trials.get(seed) if seed is not None else None
                row = {"design": design.name, "seed": seed}
                if trial is None or not trial.stages:
                    found.append({**row, "stage": None, "reason": "not started"})
                    continue
                for stage in trial.stages:
                    if stage.why_unfinished:
                        found.append({**row, "stage": stage.key, "reason": stage.why_unfinished})
        return found

    def users_of(self, stage: Stage) -> list[Design]:
        """The designs that need this stage."""
        return [
            design
            for design in self.designs
            if any(other.folder == stage.folder for trial in design.trials.values() for other in trial.stages)
        ]


def collect(folder: Path) -> Study:
    """Read `folder`: a study, a run, or a folder with runs directly inside it.

    Raises:
        ValueError: the folder is none of these; names what was found instead.
    """
    folder = Path(folder).expanduser().resolve()
    if (folder / "study.json").is_file():
        return _collect_study(folder)
    if (folder / "run.json").is_file():
        return Study("run", folder.name, folder, _designs_of_runs([folder], folder.parent))
    runs = sorted(path.parent for path in folder.glob("*/run.json"))
    if runs:
        return Study("runs", folder.name, folder, _designs_of_runs(runs, folder))
    if not folder.is_dir():
        raise ValueError(f"{folder} does not exist; give a study folder, a run folder or a folder of runs (run=...).")
    studies = sorted(path.parent.name for path in folder.glob("*/study.json"))
    inside = (
        f"it holds the studies {', '.join(studies)}: give one of them"
        if studies
        else "give runs/<study> or a run folder"
    )
    raise ValueError(f"{folder} holds neither study.json nor run.json; {inside} (run=...).")


def _collect_study(folder: Path) -> Study:
    record = read_json(folder / "study.json")
    designs: list[Design] = []
    for name, entry in record.get("designs", {}).items():
        trials: dict[int, Trial] = {}
        planned = _planned_stages(record, name)
        for seed, listed in (entry.get("seeds") or {}).items():
            known = listed.get("stages") or {}
            keys = dict.fromkeys([*planned, *known] if planned else [*known, "unified"])
            stages = tuple(_listed_stage(folder, key, known.get(key), planned.get(key)) for key in keys)
            trials[int(seed)] = Trial(int(seed), stages)
        designs.append(Design(name, entry.get("title") or name.replace("_", " "), trials))
    if not designs:
        raise ValueError(f"{folder / 'study.json'} lists no designs; run `tessella ablate study={folder.name}` first.")
    return Study("study", str(record.get("name") or folder.name), folder, tuple(designs), record)


def _planned_stages(record: dict[str, Any], design: str) -> dict[str, Any]:
    """The stages that the study's own configuration asks for, also those that it has not reached yet; {} if unsaid."""
    designs = (record.get("config") or {}).get("designs") or {}
    return (designs.get(design) or {}).get("stages") or {}


def _listed_stage(folder: Path, key: str, where: str | None, planned: dict[str, Any] | None) -> Stage:
    phase = (planned or {}).get("phase")
    if not where:
        nowhere = folder / "stages" / f"{key}-not-started"
        return Stage(key, nowhere, key, problem="not started", planned_phase=phase)
    return Stage(key, (folder / where).resolve(), where, planned_phase=phase)


def _designs_of_runs(folders: list[Path], root: Path) -> tuple[Design, ...]:
    """Each run that no other run reads is a design of its own; the runs it reads come along as its earlier stages."""
    chains = {folder: _chain(folder, root, "run") for folder in folders}
    consumed = {stage.folder for chain in chains.values() for stage in chain[:-1]}
    designs: list[Design] = []
    for folder, chain in chains.items():
        if folder not in consumed:
            seed = int(chain[-1].run.get("seed") or 0)
            designs.append(Design(folder.name, folder.name, {seed: Trial(seed, tuple(chain))}))
    return tuple(designs)


def _chain(folder: Path, root: Path, key: str) -> list[Stage]:
    """The stages behind a run folder, earliest first, itself last."""
    name = str(folder.relative_to(root)) if folder.is_relative_to(root) else str(folder)
    stage = Stage(key, folder, name)
    stage = Stage(stage.phase, folder, name) if key == "run" else stage
    chain: list[Stage] = []
    for role, source in (stage.run.get("inputs") or {}).items():
        where = Path(str((source or {}).get("folder", "")))
        candidates = (
            [where] if where.is_absolute() else [folder / where, folder.parent / where, root / where, where.resolve()]
        )
        found = next((path.resolve() for path in candidates if (path / "run.json").is_file()), None)
        if found is None:
            lost = Stage(role, folder / role, role, problem=f"not found (run.json names {where} as its {role} input)")
            chain.append(lost)
        else:
            chain.extend(
                earlier for earlier in _chain(found, root, role) if earlier.folder not in {s.folder for s in chain}
            )
    return [*chain, stage]
