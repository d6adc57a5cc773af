"""What makes a comparison believable: the fairness checks, and where every number comes from."""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from typing import Any

from .report_collect import Design, Stage, Study
from .report_markup import details, facts, listing, paragraph, swatch, tag, text

CHECKS: dict[str, tuple[str, Callable[[Stage], Any]]] = {
    "data_order": ("Same data in the same order", lambda stage: stage.run.get("data_order")),
    "llm_init": ("Same initial weights of the LLM", lambda stage: stage.run.get("llm_init")),
    "optimizer_steps": ("Same optimizer steps and batch", lambda stage: _steps(stage)),
}


@dataclass(frozen=True)
class Check:
    """One fairness check over the unified stages: `equal` None means that it cannot be decided yet."""

    key: str
    title: str
    equal: bool | None
    by_seed: dict[int, dict[str, str]]  # seed -> design -> digest
    recorded: bool | None  # what study.json says

    @property
    def words(self) -> str:
        if self.equal is None:
            return "Cannot be checked yet: fewer than two designs have recorded it."
        if self.recorded is not None and self.recorded != self.equal:
            return f"study.json says {'equal' if self.recorded else 'unequal'}, the run folders say otherwise."
        return "" if self.equal else "The designs differ: their numbers are not a controlled comparison."


def checks(study: Study) -> list[Check]:
    """The fairness checks, recomputed from the run folders; a check holds when designs agree within every seed."""
    found: list[Check] = []
    for key, (title, read) in CHECKS.items():
        by_seed: dict[int, dict[str, str]] = {}
        for design, trial in study.trials():
            value = read(trial.unified) if trial.unified else None
            if value is not None:
                by_seed.setdefault(trial.seed, {})[design.name] = str(value)
        compared = [set(values.values()) for values in by_seed.values() if len(values) > 1]
        equal = all(len(values) == 1 for values in compared) if compared else None
        recorded = ((study.record.get("checks") or {}).get(key) or {}).get("equal")
        found.append(Check(key, title, equal, by_seed, recorded))
    return found


def checks_section(study: Study) -> str:
    """Empty for a single design: there is nothing to compare."""
    if len(study.designs) < 2:
        return ""
    cards = [_check_card(study, check) for check in checks(study)]
    note = paragraph("Recomputed per seed from the run folders of the unified models (sha256, first 16 digits).")
    return note + tag("div", *cards, class_="checks")


def _check_card(study: Study, check: Check) -> str:
    state = {True: "equal", False: "unequal", None: "open"}[check.equal]
    lines = [tag("div", text(check.words))] if check.words else []
    titles = {design.name: design.title for design in study.designs}
    for seed, values in sorted(check.by_seed.items()):
        groups: dict[str, list[str]] = {}
        for design, value in values.items():
            groups.setdefault(value, []).append(titles[design])
        for value, members in groups.items():
            who = "all designs" if len(members) == len(titles) else listing(members)
            lines.append(tag("div", text(f"seed {seed}, {who}: "), tag("code", text(_brief(value)), title=value)))
    return tag("div", tag("h4", text(check.title)), *lines, class_=f"check {state}")


def _steps(stage: Stage) -> str | None:
    steps, batch = stage.run.get("steps"), stage.run.get("batch_size")
    return None if steps is None else f"{steps:,} steps of {batch}".replace(",", "\u202f")


def _brief(value: str) -> str:
    return value[:16] if len(value) >= 32 and " " not in value else value


def provenance_section(study: Study) -> str:
    """Where the numbers come from: command, commit, machine, versions, and the configuration of every stage."""
    runs = [stage for stage in study.stages if stage.run]
    if not runs:
        return ""
    pairs = [("Seeds", text(listing([str(seed) for seed in study.seeds])))]
    wall = study.record.get("wall_seconds")
    pairs += [("Wall time of the study", text(f"{wall:,.0f} s".replace(",", "\u202f")))] if wall is not None else []
    pairs += [("Git commit", _distinct(runs, study, _git)), ("Machine", _distinct(runs, study, _host))]
    pairs += [("Versions", _distinct(runs, study, _versions))]
    printed: dict[Path, str] = {}
    blocks = [_design_details(study, index, design, printed) for index, design in enumerate(study.designs)]
    return facts(pairs) + "".join(blocks)


def _distinct(stages: list[Stage], study: Study, words: Callable[[Stage], str]) -> str:
    """One line when every run agrees; otherwise each value with the number of runs that say so."""
    counts: dict[str, int] = {}
    for stage in stages:
        counts[words(stage)] = counts.get(words(stage), 0) + 1
    if len(counts) == 1:
        return text(next(iter(counts)))
    return "".join(tag("div", text(f"{value} ({count} run{'s'[: count != 1]})")) for value, count in counts.items())


def _git(stage: Stage) -> str:
    git = stage.run.get("git")
    if not git:
        return "not run from a git checkout"
    return str(git.get("commit", "unknown"))[:12] + (" with uncommitted changes" if git.get("dirty") else "")


def _host(stage: Stage) -> str:
    return ", ".join(f"{key} {value}" for key, value in (stage.run.get("host") or {}).items()) or "not recorded"


def _versions(stage: Stage) -> str:
    return ", ".join(f"{key} {value}" for key, value in (stage.run.get("versions") or {}).items()) or "not recorded"


def _design_details(study: Study, index: int, design: Design, printed: dict[Path, str]) -> str:
    """Every stage of a design; `printed` remembers which run folders stand in the page already, and where."""
    blocks: list[str] = []
    reference: dict[str, tuple[int, Stage]] = {}
    for seed in sorted(design.trials):
        for stage in design.trials[seed].stages:
            if stage.folder in printed:
                body = paragraph(f"The same run as under {printed[stage.folder]}.", class_="note")
            else:
                body = _stage_facts(study, stage) + _configuration(stage, reference.get(stage.key))
            printed.setdefault(stage.folder, f"{design.title}, seed {seed}")
            reference.setdefault(stage.key, (seed, stage))
            phase = "" if stage.phase == stage.key else f" ({stage.phase})"
            state = stage.why_unfinished or "finished"
            blocks.append(details(text(f"{stage.key}{phase}, seed {seed}: {state}"), body))
    count = sum(len(trial.stages) for trial in design.trials.values())
    return details(
        swatch(index) + tag("strong", text(design.title)) + text(f": {count} stage run{'s'[: count != 1]}"), *blocks
    )


def _stage_facts(study: Study, stage: Stage) -> str:
    run, data = stage.run, stage.run.get("data") or {}
    users = [other.title for other in study.users_of(stage)]
    sizes = [data.get("train_size"), data.get("test_size")]
    numbers = {
        "Folder": stage.name,
        "Fingerprint": str(run.get("fingerprint", ""))[:16],
        "Steps and batch": _steps(stage),
        "Training": None if run.get("training_seconds") is None else f"{run['training_seconds']:.1f} s",
        "Device": " ".join(str(run[key]) for key in ("accelerator", "precision") if run.get(key)),
        "Threads": run.get("threads"),
        "Data": data.get("name"),
        "Preparation": ", ".join(f"{key} {value}" for key, value in (data.get("preparation") or {}).items()),
        "Training and test images": None if None in sizes else f"{sizes[0]} and {sizes[1]}",
        "Skipped files": data.get("skipped"),
        "Shared by": listing(users) if len(users) > 1 else None,
    }
    pairs = [(name, text(value)) for name, value in numbers.items() if value not in (None, "")]
    return facts(pairs) + (tag("pre", text(run["command"])) if run.get("command") else "")


def _configuration(stage: Stage, reference: tuple[int, Stage] | None) -> str:
    """The whole config.yaml; of further seeds its differences from the first one's."""
    own = stage.config_text
    if not own:
        return paragraph("No config.yaml yet.", class_="note")
    if reference is None or not reference[1].config_text:
        return tag("pre", text(own.rstrip()))
    seed, first = reference
    changes = list(unified_diff(first.config_text.splitlines(), own.splitlines(), n=1, lineterm=""))[2:]
    words = f"As for seed {seed}" + (", but for these changes of config.yaml:" if changes else ".")
    return paragraph(words, class_="note") + (tag("pre", text("\n".join(changes))) if changes else "")
