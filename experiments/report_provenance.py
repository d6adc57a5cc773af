"""What makes the numbers believable: fairness checks, what is missing and why, how to read a row, every configuration."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .report_collect import Design, Stage, Study
from .report_markup import details, facts, listing, paragraph, rows, scroll, swatch, tag, text
from .report_tables import Results

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
    note = paragraph(
        "Recomputed from the run folders of the unified models, per seed. Digests are sha256; the first 16 digits are shown."
    )
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


def missing_banner(study: Study) -> str:
    """What an unfinished study still lacks; empty when it is complete."""
    if not study.missing:
        return ""
    titles = {design.name: design.title for design in study.designs}
    lines: dict[tuple[str, str | None, str], list[Any]] = {}
    for row in study.missing:
        lines.setdefault((row["design"], row["stage"], row["reason"]), []).append(row["seed"])
    items = []
    for (design, stage, reason), seeds in lines.items():
        numbers = [str(seed) for seed in seeds if seed is not None]
        where = [titles[design], *([f"seed {listing(numbers)}"] if numbers else []), *([stage] if stage else [])]
        items.append(tag("li", text(f"{', '.join(where)}: {reason}")))
    head = tag("strong", text("This study is not complete."))
    return tag(
        "div", head, text(" Everything below covers what has finished. Missing:"), tag("ul", *items), class_="banner"
    )


def guide_section() -> str:
    """A short guide to names and intervals."""
    points = [
        ("Names are protocols.", "fd_efflite0 and kd_efflite0 are Fréchet and kernel distances in EfficientNet-Lite0 features. They are "
         "not FID or KID: rfid and gfid appear only when the standard Inception weights were there. Numbers of unlike protocols never share a column."),
        ("n is the number of test cases.", "Fréchet distances are biased at small n and compare only at equal n; kernel distances are unbiased."),
        ("Ceiling and floor.", "The oracle's score on reconstructions bounds what a generator over these tokens can reach; "
         "the floor is what chance or the majority answer reaches. A score means something between the two."),
        ("Intervals are 95 %.", "With two or more seeds: Student's t over trained runs. With one: Wilson, over test cases alone, for shares of known n."),
        ("Best and ≈.", "Best needs an interval that overlaps no other design's, and at least two seeds of every design. ≈ marks a tie. No mark: not decided."),
        ("Bits per image", "count what the ids could carry, tokens × log2(codebook), not what a coder would need. Loss per token is not comparable between tokenizers."),
        ("Seconds and images/s", "are wall time on the machine under Configuration; designs may have run side by side."),
        ("Pictures", "are the first ones saved, not chosen, and enlarged without smoothing."),
    ]  # fmt: skip
    return tag("ul", *(tag("li", tag("strong", text(head)), text(f" {rest}")) for head, rest in points), class_="guide")


def absent_section(results: Results) -> str:
    """Every number that is not there, with the reason, grouped by reason."""
    titles = {design.name: design.title for design in results.study.designs}
    grouped: dict[str, dict[tuple[str, ...], list[str]]] = {}
    by_name: dict[tuple[str, str], list[str]] = {}
    for design, reasons in results.absent.items():
        for name, reason in reasons.items():
            by_name.setdefault((name, reason), []).append(design)
    for (name, reason), designs in by_name.items():
        grouped.setdefault(reason, {}).setdefault(tuple(designs), []).append(name)
    lines = []
    for reason, members in grouped.items():
        for designs, names in members.items():
            who = "every design" if len(designs) == len(titles) else listing([titles[design] for design in designs])
            codes = tag("td", *(tag("code", text(name)) + " " for name in sorted(names)), class_="text")
            lines.append([codes, tag("td", text(who), class_="text"), tag("td", text(reason), class_="text")])
    if not lines:
        return ""
    head = [tag("th", text(word), scope="col", class_="text") for word in ("Number", "Design", "Reason")]
    return scroll(tag("table", tag("thead", rows([head])), tag("tbody", rows(lines)), class_="numbers"))


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
    return facts(pairs) + "".join(_design_details(study, index, design) for index, design in enumerate(study.designs))


def _distinct(stages: list[Stage], study: Study, words: Callable[[Stage], str]) -> str:
    """One line when every run agrees; otherwise each value with the number of runs that say so."""
    counts: dict[str, int] = {}
    for stage in stages:
        counts[words(stage)] = counts.get(words(stage), 0) + 1
    if len(counts) == 1:
        return text(next(iter(counts)))
    return "".join(tag("div", text(f"{value} ({count} runs)")) for value, count in counts.items())


def _git(stage: Stage) -> str:
    git = stage.run.get("git")
    if not git:
        return "not run from a git checkout"
    return str(git.get("commit", "unknown"))[:12] + (" with uncommitted changes" if git.get("dirty") else "")


def _host(stage: Stage) -> str:
    return ", ".join(f"{key} {value}" for key, value in (stage.run.get("host") or {}).items()) or "not recorded"


def _versions(stage: Stage) -> str:
    return ", ".join(f"{key} {value}" for key, value in (stage.run.get("versions") or {}).items()) or "not recorded"


def _design_details(study: Study, index: int, design: Design) -> str:
    blocks, reference = [], {}
    for seed in sorted(design.trials):
        for stage in design.trials[seed].stages:
            blocks.append(_stage_details(study, stage, seed, reference.get(stage.key)))
            reference.setdefault(stage.key, (seed, stage))
    count = sum(len(trial.stages) for trial in design.trials.values())
    summary = swatch(index) + tag("strong", text(design.title)) + text(f": {count} stage runs")
    return details(summary, *blocks)


def _stage_details(study: Study, stage: Stage, seed: int, reference: tuple[int, Stage] | None) -> str:
    run = stage.run
    state = stage.why_unfinished or "finished"
    users = [other.title for other in study.users_of(stage)]
    data = run.get("data") or {}
    numbers = {
        "Folder": stage.name,
        "Fingerprint": str(run.get("fingerprint", ""))[:16],
        "Steps × batch": _steps(stage),
        "Training": None if run.get("training_seconds") is None else f"{run['training_seconds']:.1f} s",
        "Threads": run.get("threads"),
        "Data": data.get("name"),
        "Preparation": ", ".join(f"{key} {value}" for key, value in (data.get("preparation") or {}).items()),
        "Train / test images": f"{data['train_size']} / {data['test_size']}"
        if {"train_size", "test_size"} <= data.keys()
        else None,
        "Skipped files": data.get("skipped"),
        "Shared by": listing(users) if len(users) > 1 else None,
    }
    pairs = [(name, text(value)) for name, value in numbers.items() if value not in (None, "")]
    command = tag("pre", text(run["command"])) if run.get("command") else ""
    summary = text(f"{stage.key} ({stage.phase}), seed {seed}: {state}")
    return details(summary, facts(pairs), command, _configuration(stage, reference))


def _configuration(stage: Stage, reference: tuple[int, Stage] | None) -> str:
    """The whole config.yaml; of further seeds only the lines that differ from the first one's."""
    own = stage.config_text
    if not own:
        return paragraph("No config.yaml yet.", class_="note")
    if reference is None or not reference[1].config_text:
        return tag("pre", text(own.rstrip()))
    seed, first = reference
    if first.folder == stage.folder:
        return paragraph(f"The same run as for seed {seed}.", class_="note")
    known = set(first.config_text.splitlines())
    differing = [line for line in own.splitlines() if line not in known]
    words = f"As for seed {seed}" + (", but for these lines of config.yaml:" if differing else ".")
    return paragraph(words, class_="note") + (tag("pre", text("\n".join(differing))) if differing else "")
