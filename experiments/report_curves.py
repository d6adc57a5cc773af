"""Learning curves of a study: curves.csv of every stage, drawn as small multiples by phase."""

import csv
import math
from itertools import pairwise
from pathlib import Path

from .report_charts import Line, is_logarithmic, line_chart
from .report_collect import PHASES, Stage, Study
from .report_markup import details, listing, named, paragraph, tag, text

POINTS = 160  # at most this many drawn per curve: means of equal runs of steps
TITLES = {"tokenizer": "Tokenizers", "siglip": "Semantic encoders", "unified": "Unified models"}
FIRST = ("train/loss", "val/")  # what stands open; the rest folds away


def read_curves(file: Path) -> dict[str, list[tuple[float, float]]]:
    """curves.csv as name -> [(step, value)]; empty and non-finite cells are left out."""
    if not file.is_file():
        return {}
    curves: dict[str, list[tuple[float, float]]] = {}
    with open(file, newline="") as lines:
        for row in csv.DictReader(lines):
            step = row.get("step") or ""
            for name, cell in row.items():
                if name in ("step", "epoch", None) or not cell or not step:
                    continue
                value = float(cell)
                if math.isfinite(value):
                    curves.setdefault(name, []).append((float(step), value))
    return curves


def thin(points: list[tuple[float, float]], most: int = POINTS) -> tuple[tuple[float, float], ...]:
    """At most `most` points: each the mean of a run of neighbours; the last step is kept."""
    if len(points) <= most:
        return tuple(points)
    edges = [round(k * len(points) / most) for k in range(most + 1)]
    runs = [points[a:b] for a, b in pairwise(edges)]
    return tuple((run[-1][0], math.fsum(y for _, y in run) / len(run)) for run in runs)


def curves_section(study: Study) -> str:
    """One block of small multiples per phase that has curves; empty when there are none."""
    blocks = [_phase_block(study, phase) for phase in PHASES]
    return "".join(block for block in blocks if block)


def _phase_block(study: Study, phase: str) -> str:
    stages = [stage for stage in study.stages if stage.phase == phase]
    lines: dict[str, list[Line]] = {}
    legend: dict[str, str] = {}
    for stage in stages:
        index, label, is_dashed = _identity(study, stage)
        for name, points in read_curves(stage.folder / "curves.csv").items():
            lines.setdefault(name, []).append(Line(label, thin(points), index, is_dashed))
            legend[label] = named(index, label + (" (dashed)" if is_dashed else ""))
    if not lines:
        return ""
    shown = sorted(
        (name for name in lines if name == FIRST[0] or name.startswith(FIRST[1])), key=lambda n: (n != FIRST[0], n)
    )
    rest = sorted(name for name in lines if name not in shown)
    parts = [tag("h3", text(TITLES.get(phase, phase))), tag("p", *legend.values(), class_="legend")]
    if study.repeats > 1:
        parts.append(paragraph("One line per trained run; seeds share a color.", class_="note"))
    parts.append(tag("div", *(_panel(name, lines[name]) for name in shown), class_="panels"))
    if rest:
        more = tag("div", *(_panel(name, lines[name]) for name in rest), class_="panels")
        parts.append(details(text(f"{len(rest)} more logged {'curve' if len(rest) == 1 else 'curves'}"), more))
    return "".join(parts)


def _identity(study: Study, stage: Stage) -> tuple[int, str, bool]:
    """(color index, label, dashed) of a stage: the designs that need it; its role where a design has two of a phase."""
    users = study.users_of(stage)
    names = [design.name for design in study.designs]
    index = names.index(users[0].name)
    label = listing([design.title for design in users])
    same_phase = list(
        dict.fromkeys(
            other.key
            for design in users
            for trial in design.trials.values()
            for other in trial.stages
            if other.phase == stage.phase
        )
    )
    if len(same_phase) < 2:
        return index, label, False
    key = next(
        other.key for trial in users[0].trials.values() for other in trial.stages if other.folder == stage.folder
    )
    return index, f"{label}: {key}", same_phase.index(key) < len(same_phase) - 1


def _panel(name: str, lines: list[Line]) -> str:
    scale = tag("small", text(" log scale")) if is_logarithmic(lines) else ""
    return tag("figure", tag("figcaption", text(name), scale), line_chart(lines, name=name))
