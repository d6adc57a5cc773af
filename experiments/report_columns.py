"""The tables of numbers: designs down, columns across, below each mean its interval and what bounds it."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence

from .report_charts import Dot, dot_chart
from .report_collect import Design, Study
from .report_markup import listing, named, paragraph, rows, scroll, tag, text
from .report_metrics import column_decimals, is_distance, printed, quantity
from .report_tables import Column, Results, Summary, Verdict

FEW = 2000  # a Fréchet distance of fewer images says little: its bias is larger than most differences


def metric_table(
    results: Results,
    names: Iterable[str],
    *,
    groups: Mapping[str, str] | None = None,
    bounds: bool = False,
    labels: Callable[[str], str] | None = None,
    with_absent: bool = True,
) -> str:
    """A table of `names`, one column for each protocol; empty when no design has any of them.

    Args:
        groups: name -> a head that spans neighbouring columns of the same group.
        bounds: print ceiling and floor below each value.
        labels: what to call a name instead of its usual label.
        with_absent: keep the rows of designs that have none of these numbers.
    """
    columns = [column for name in names for column in results.columns(name)]
    if not columns:
        return ""
    heads = [tag("th", text("Design"), scope="col"), *(_column_head(results, column, labels) for column in columns)]
    head = rows([heads])
    if groups and any(groups.get(column.name) for column in columns):
        head = tag("tr", *_group_heads(columns, groups), class_="groups") + head
    lines = []
    for index, design in enumerate(results.study.designs):
        if not with_absent and not any((design.name, column) in results.cells for column in columns):
            continue
        cells = [_value_cell(results, design, column, bounds) for column in columns]
        label = tag("th", named(index, design.title), _progress(results.study, design), scope="row")
        lines.append([label, *cells])
    class_ = "numbers wide" if len(columns) > 3 else "numbers"
    return scroll(tag("table", tag("thead", head), tag("tbody", rows(lines)), class_=class_))


def dot_panels(results: Results, names: Sequence[str]) -> str:
    """Small multiples of shares: one panel per column, one row per design."""
    panels = []
    for column in (column for name in names for column in results.columns(name)):
        found = [
            (i, design, results.cells.get((design.name, column))) for i, design in enumerate(results.study.designs)
        ]
        dots = [_dot(design, index, summary) for index, design, summary in found if summary is not None]
        words = results.protocol_difference(column)
        title = quantity(column.name).label + (f" ({words})" if words else "")
        panels.append(tag("figure", tag("figcaption", text(title)), dot_chart(dots, name=title)))
    seeds = "Faint dots: single seeds. " if results.study.repeats > 1 else ""
    key = f"Dot: mean. Band: 95 % interval. {seeds}Solid tick: ceiling. Dashed tick: floor."
    return tag("div", *panels, class_="panels") + paragraph(key, class_="note")


def shared_note(study: Study) -> str:
    """Which designs use one and the same trained stage: their equal numbers are one measurement, not two."""
    shared: dict[tuple[str, tuple[str, ...]], int] = {}
    for stage in study.stages:
        users = tuple(design.title for design in study.users_of(stage))
        if stage.phase != "unified" and len(users) > 1:
            shared[stage.key, users] = shared.get((stage.key, users), 0) + 1
    notes = [
        f"{listing(users)} use the same trained {key}{'' if count == 1 else f' ({count} runs, one per seed)'}: "
        "equal numbers from it are one measurement."
        for (key, users), count in shared.items()
    ]
    return paragraph(*notes, class_="note") if notes else ""


def distance_note(results: Results, names: Sequence[str]) -> str:
    """What a distance was measured with: its protocol in words, the hash of the weights, the number of real images."""
    measured: dict[str, list[str]] = {}
    for column in (column for name in names if is_distance(name) for column in results.columns(name)):
        parts = json.loads(column.protocol)
        words = [str(parts["protocol"])] if "protocol" in parts else []
        words += [f"{key.replace('_', ' ')} {parts[key]}" for key in ("weights", "n", "n_reference") if key in parts]
        measured.setdefault(", ".join(words), []).append(quantity(column.name).label)
    lines = [f"{listing(labels)}: {words}." for words, labels in measured.items() if words]
    return paragraph(*lines, class_="note") if lines else ""


def few_note(results: Results, names: Sequence[str]) -> str:
    """A warning when a distance stands on fewer images than it needs."""
    counts = [
        n for (_, column), s in results.cells.items() if column.name in names and is_distance(column.name) for n in s.n
    ]
    if not counts or min(counts) >= FEW:
        return ""
    return paragraph(
        f"n is below {FEW}: a Fréchet distance is biased upwards there and compares only with values of equal n;",
        "prefer the kernel distance, which is unbiased.",
        class_="note",
    )


def _group_heads(columns: Sequence[Column], groups: Mapping[str, str]) -> list[str]:
    cells, start = [tag("th")], 0
    while start < len(columns):
        name = groups.get(columns[start].name, "")
        stop = next((k for k in range(start, len(columns)) if groups.get(columns[k].name, "") != name), len(columns))
        cells.append(tag("th", tag("div", text(name)) if name else "", colspan=stop - start, scope="colgroup"))
        start = stop
    return cells


def _column_head(results: Results, column: Column, labels: Callable[[str], str] | None) -> str:
    known = quantity(column.name)
    arrow = {"higher": "\u00a0↑", "lower": "\u00a0↓", None: ""}[known.better]
    counts = sorted({n for summary in results.rows(column).values() for n in summary.n})
    lines = [known.unit] if known.unit and known.unit != "share" else []
    if counts:
        lines.append(
            "n " + " to ".join(f"{n:,}".replace(",", "\u202f") for n in dict.fromkeys((counts[0], counts[-1])))
        )
    lines += [words] if (words := results.protocol_difference(column)) else []
    if quantity(column.name).better and results.is_one_measurement(column):
        lines.append("same runs")
    elif _is_tie(results, results.verdict(column)):
        lines.append("≈ tie")
    label = labels(column.name) if labels else known.label
    smalls = (tag("small", text(line)) for line in lines)
    return tag("th", text(label + arrow), *smalls, scope="col", title=known.meaning or column.name)


def _is_tie(results: Results, verdict: Verdict | None) -> bool:
    """Every design ties: said once in the column's head, not in each cell."""
    return verdict is not None and len(verdict.designs) == len(results.study.designs)


def _value_cell(results: Results, design: Design, column: Column, bounds: bool) -> str:
    summary = results.cells.get((design.name, column))
    if summary is None:
        reason = results.absent.get(design.name, {}).get(column.name)
        if reason is None:
            return tag("td", text("–"), class_="gone", title="this design has no such number")
        return tag("td", tag("a", text("absent"), href="#absent"), class_="gone", title=reason)
    decimals = column_decimals(column.name, [row.mean for row in results.rows(column).values()])
    verdict = results.verdict(column)
    mark = None
    if verdict and design.name in verdict.designs and not _is_tie(results, verdict):
        mark = "best" if verdict.clear else "tie"
    value = tag("data", text(printed(column.name, summary.mean, decimals)), value=repr(summary.mean))
    smalls = (
        tag("small", text(line))
        for line in _small_lines(summary, decimals, bounds, len(results.study.seeds_of(design)))
    )
    notes = "; ".join(dict.fromkeys(value.note for value in summary.values if value.note))
    return tag("td", value, *smalls, class_=mark, title=notes or None)


def _small_lines(summary: Summary, decimals: int, bounds: bool, seeds: int) -> list[str]:
    name = summary.column.name
    lines = []
    if summary.low is not None and summary.high is not None and summary.low != summary.high:
        lines.append(f"{printed(name, summary.low, decimals)}\u2009–\u2009{printed(name, summary.high, decimals)}")
    if bounds and summary.ceiling is not None:
        lines.append(f"ceiling {printed(name, summary.ceiling, decimals)}")
    if bounds and summary.floor is not None:
        lines.append(f"{'chance' if name.startswith('gen/') else 'floor'} {printed(name, summary.floor, decimals)}")
    if len(summary.values) < seeds:
        lines.append(f"{len(summary.values)} of {seeds} seeds")
    return lines


def _progress(study: Study, design: Design) -> str:
    done = sum(1 for t in design.trials.values() if t.stages and all(stage.is_finished for stage in t.stages))
    wanted = len(study.seeds_of(design))
    if done == wanted:
        return ""
    return tag("small", text(f"{done} of {wanted} seeds finished" if study.kind == "study" else "not finished"))


def _dot(design: Design, index: int, summary: Summary) -> Dot:
    return Dot(
        design.title,
        index,
        summary.mean,
        printed(summary.column.name, summary.mean, 3),
        summary.low,
        summary.high,
        tuple(value.value for value in summary.values) if len(summary.values) > 1 else (),
        summary.floor,
        summary.ceiling,
    )
