"""From run folders to numbers: every value by design and seed, its mean and interval, and who is ahead beyond noise.

A column is a name and a protocol (test images and their preparation; for distances also n and every word the
metric carries): values of unlike protocols land in different columns and are never averaged or compared.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from ..metrics.intervals import t_interval, wilson_interval
from .report_collect import Stage, Study, Trial
from .report_metrics import is_distance, quantity

# A design without such a stage or part lacks nothing, nor does one whose leading ids (k=) do not decode.
OWN_TO_A_DESIGN = ("cost/training_seconds/", "size/parameters/")


@dataclass(frozen=True)
class Value:
    """One number of one trial and the run folder it was measured in."""

    seed: int
    value: float
    stage: str
    n: int | None = None
    floor: float | None = None
    ceiling: float | None = None
    interval: tuple[float, float] | None = None
    note: str | None = None


@dataclass(frozen=True)
class Column:
    name: str
    protocol: str  # JSON of what must be equal for two values to be comparable


@dataclass(frozen=True)
class Summary:
    """All seeds of one design in one column. `kind`: t over seeds, wilson over n cases, given with the metric, none."""

    column: Column
    values: tuple[Value, ...]
    low: float | None
    high: float | None
    kind: Literal["t", "wilson", "given", "none"]

    @property
    def mean(self) -> float:
        return math.fsum(value.value for value in self.values) / len(self.values)

    @property
    def floor(self) -> float | None:
        return _mean([value.floor for value in self.values if value.floor is not None])

    @property
    def ceiling(self) -> float | None:
        return _mean([value.ceiling for value in self.values if value.ceiling is not None])

    @property
    def n(self) -> tuple[int, ...]:
        return tuple(sorted({value.n for value in self.values if value.n is not None}))

    @property
    def stages(self) -> frozenset[str]:
        """The run folders behind the mean."""
        return frozenset(value.stage for value in self.values)

    @property
    def runs(self) -> int:
        """Independent trainings behind the mean: a stage shared by several seeds counts once."""
        return len(self.stages)


@dataclass(frozen=True)
class Verdict:
    """`clear`: the one design's interval lies beyond all others; else the designs that cannot be told from the best."""

    designs: tuple[str, ...]
    clear: bool


@dataclass(frozen=True)
class Results:
    study: Study
    cells: dict[tuple[str, Column], Summary]
    absent: dict[str, dict[str, str]] = field(default_factory=dict)  # design -> name -> reason

    @cached_property
    def names(self) -> list[str]:
        """Every name that some design has, in order of first appearance."""
        return list(dict.fromkeys(column.name for _, column in self.cells))

    def columns(self, name: str) -> list[Column]:
        return list(dict.fromkeys(column for _, column in self.cells if column.name == name))

    def get(self, design: str, name: str) -> Summary | None:
        """The summary of a name that has one protocol in this design; None when absent."""
        return next(
            (summary for (owner, column), summary in self.cells.items() if (owner, column.name) == (design, name)), None
        )

    def protocol_difference(self, column: Column) -> str:
        """What tells this column from its siblings of the same name; empty when it has none."""
        siblings = [json.loads(other.protocol) for other in self.columns(column.name)]
        own = json.loads(column.protocol)
        differing = [key for key in own if any(other.get(key) != own[key] for other in siblings)]
        return ", ".join(f"{key} {_words(own[key])}" for key in differing)

    def rows(self, column: Column) -> dict[str, Summary]:
        """The summaries of one column by design."""
        return {design: summary for (design, other), summary in self.cells.items() if other == column}

    def is_one_measurement(self, column: Column) -> bool:
        """Whether several designs show this column from the very same run folders."""
        rows = self.rows(column)
        return len(rows) > 1 and len({row.stages for row in rows.values()}) == 1

    def verdict(self, column: Column) -> Verdict | None:
        """Who is ahead. None: nothing to compare, no direction, or a design with fewer than two trainings."""
        rows = self.rows(column)
        better = quantity(column.name).better
        if (
            better is None
            or len(rows) < 2
            or self.is_one_measurement(column)
            or any(row.runs < 2 for row in rows.values())
        ):
            return None
        pick = max if better == "higher" else min
        best = rows[pick(rows, key=lambda design: rows[design].mean)]
        near = tuple(design for design, row in rows.items() if _overlap(row, best))
        return Verdict(near, clear=len(near) == 1)


def results(study: Study) -> Results:
    """Every number of the study, per design and column."""
    gathered: dict[tuple[str, Column], list[Value]] = {}
    for design, trial in study.trials():
        for name, value, protocol in _numbers(trial):
            gathered.setdefault((design.name, Column(name, protocol)), []).append(value)
    cells = {key: summarize(key[1], values) for key, values in gathered.items()}
    return Results(study, cells, _absent(study, {(design, column.name) for design, column in cells}))


def summarize(column: Column, values: Sequence[Value]) -> Summary:
    """Mean and 95 % interval: t over independent trainings when there are two, else over the test cases of the one.

    Trainings that agree to the last digit on a share (all 1.000) have no spread, not no uncertainty: the interval is
    then the one over test cases too.
    """
    distinct = list({value.stage: value.value for value in values}.values())
    is_proportion = quantity(column.name).is_proportion
    only = values[0]
    is_flat = is_proportion and bool(only.n) and len(set(distinct)) == 1
    if len(distinct) >= 2 and not is_flat:
        _, low, high = t_interval(distinct)
        if is_proportion:
            low, high = max(low, 0.0), min(high, 1.0)
        return Summary(column, tuple(values), low, high, "t")
    if only.interval is not None:
        return Summary(column, tuple(values), *only.interval, "given")
    if is_proportion and only.n:
        return Summary(column, tuple(values), *wilson_interval(round(only.value * only.n), only.n), "wilson")
    return Summary(column, tuple(values), None, None, "none")


def _numbers(trial: Trial) -> list[tuple[str, Value, str]]:
    """(name, value, protocol) of everything one trial has: sizes and costs from run.json, metrics from metrics.json."""
    found: dict[str, tuple[str, Value, str]] = {}
    for name, (value, stage) in _sizes_and_costs(trial).items():
        found[name] = (name, Value(trial.seed, value, stage), "{}")
    recorded = {name: entry for stage in reversed(trial.measured) for name, entry in stage.metrics.items()}
    for stage in trial.measured:
        for name, entry in stage.metrics.items():
            if name not in found and entry.get("value") is not None:
                found[name] = (name, _value(trial, stage, name, entry, recorded), _protocol(stage, name, entry))
    return list(found.values())


def _value(trial: Trial, stage: Stage, name: str, entry: dict[str, Any], recorded: dict[str, dict[str, Any]]) -> Value:
    """A metric with its floor and ceiling, which may stand beside it under names of their own."""
    floor, ceiling = entry.get("floor"), entry.get("ceiling")
    if floor is None and name.startswith("und/accuracy"):
        floor = recorded.get(name.replace("accuracy", "floor"), {}).get("value")
    if ceiling is None and name.startswith("gen/oracle/"):
        ceiling = recorded.get(name.replace("gen/", "rec/"), {}).get("value")
    interval = entry.get("interval")
    pair = (float(interval[0]), float(interval[1])) if interval else None
    return Value(trial.seed, entry["value"], stage.name, entry.get("n"), floor, ceiling, pair, entry.get("note"))


def _protocol(stage: Stage, name: str, entry: dict[str, Any]) -> str:
    data = stage.run.get("data") or {}
    parts = {key: data[key] for key in ("name", "image_size", "preparation", "test_size") if key in data}
    parts |= {"test": data["fingerprint"]["test"][:12]} if "fingerprint" in data else {}
    parts |= {key: value for key, value in entry.items() if isinstance(value, str) and key != "note"}
    if is_distance(name):
        parts |= {key: entry[key] for key in ("n", "n_reference") if key in entry}
    return json.dumps(parts, sort_keys=True)


SUMMED_UP = {
    "training_seconds": math.fsum,
    "cpu_seconds": math.fsum,
    "peak_memory_bytes": max,
    "cuda_peak_memory_bytes": max,
}


def _sizes_and_costs(trial: Trial) -> dict[str, tuple[float, str]]:
    """Derived numbers and the stage that decides them; sums over stages only when every stage has finished."""
    found: dict[str, tuple[float, str]] = {}
    parts = parameter_parts(trial)
    if parts and all(stage.run for stage in trial.measured):
        whole = trial.measured[0]
        found["size/parameters"] = (sum((whole.run.get("parameters") or {}).values()), whole.name)
        found |= {f"size/parameters/{key}": (count, whole.name) for key, count in parts.items()}
    for key in ("tokens_per_image", "bits_per_image", "codebook_size"):
        for stage in trial.measured:
            if stage.run.get(key) is not None:
                found.setdefault(f"size/{key}", (stage.run[key], stage.name))
    if trial.stages and all(stage.is_finished for stage in trial.stages):
        last = trial.stages[-1].name
        for key, total in SUMMED_UP.items():
            values = [stage.run[key] for stage in trial.stages if stage.run.get(key) is not None]
            if len(values) == len(trial.stages):
                found[f"cost/{key}"] = (total(values), last)
    for stage in trial.stages:
        if stage.is_finished and stage.run.get("training_seconds") is not None:
            found[f"cost/training_seconds/{stage.key}"] = (stage.run["training_seconds"], stage.name)
    for prefix, stage in (("", trial.unified), ("tokenizer_", trial.tokenizer)):
        if stage is not None and stage.is_finished and stage.run.get("images_per_second") is not None:
            found[f"cost/{prefix}images_per_second"] = (stage.run["images_per_second"], stage.name)
    return found


def parameter_parts(trial: Trial) -> dict[str, int]:
    """Parameters by stage and part, the whole design's first; stages behind it break down what it holds of them."""
    return {f"{s.key}/{part}": n for s in trial.measured for part, n in (s.run.get("parameters") or {}).items()}


def _absent(study: Study, present: set[tuple[str, str]]) -> dict[str, dict[str, str]]:
    """Per design, every name that some run reports or declares absent and this design has not, with the reason."""
    metrics = [name for stage in study.stages for name in (*stage.metrics, *stage.absent)]
    names = ["size/parameters", "cost/training_seconds", "rec/psnr", *metrics]
    if any(stage.phase == "unified" for stage in study.stages):
        is_scored = any(name.startswith("gen/oracle") for name in metrics) or not any(
            n.startswith("gen/") for n in metrics
        )
        names += ["und/accuracy", *(["gen/oracle/all"] if is_scored else [])]
    names += sorted(name for _, name in present if not name.startswith(OWN_TO_A_DESIGN))
    wanted = dict.fromkeys(name for name in names if "/k=" not in name)
    found: dict[str, dict[str, str]] = {}
    for design in study.designs:
        reasons = {
            name: _why_absent(study, design.trials.values(), name)
            for name in wanted
            if (design.name, name) not in present
        }
        found[design.name] = {name: reason for name, reason in reasons.items() if reason}
    return found


def _why_absent(study: Study, trials: Any, name: str) -> str:
    declared = [stage.absent[name] for trial in trials for stage in trial.measured if name in stage.absent]
    unfinished = [
        f"{stage.key}: {stage.why_unfinished}" for trial in trials for stage in trial.stages if stage.why_unfinished
    ]
    if declared:
        return declared[0]
    if unfinished:
        return unfinished[0]
    if not trials:
        return "not started"
    return "this design has no stage that measures it"


def _overlap(one: Summary, other: Summary) -> bool:
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return True
    return one.low <= other.high and other.low <= one.high


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _words(value: Any) -> str:
    return " ".join(f"{key} {value[key]}" for key in sorted(value)) if isinstance(value, dict) else str(value)
