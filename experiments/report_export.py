"""results.json, results.csv (schema 1, docs/report.md) and the table in the terminal."""

import csv
import io
from typing import TYPE_CHECKING, Any

from .report_confusion import confusion
from .report_metrics import column_decimals, printed, quantity
from .report_prefixes import lengths
from .report_provenance import checks
from .report_tables import Results, Summary
from .report_tokens import token_changes

if TYPE_CHECKING:
    from rich.table import Table

SCHEMA = 1
CSV_COLUMNS = (
    "design", "title", "seed", "name", "unit", "better", "value", "low", "high", "interval",
    "n", "floor", "ceiling", "runs", "protocol", "stage", "note", "absent",
)  # fmt: skip
TERMINAL = (
    "size/parameters", "size/tokens_per_image", "size/bits_per_image", "codebook/usage", "rec/psnr", "gen/oracle/all",
    "gen/kd_efflite0", "und/accuracy", "cost/training_seconds", "cost/peak_memory_bytes",
    "cost/cuda_peak_memory_bytes", "cost/images_per_second",
)  # fmt: skip


def to_json(results: Results) -> dict[str, Any]:
    """Everything the page shows, unrounded, in stored units (bytes, parameters, seconds)."""
    study = results.study
    return {
        "schema": SCHEMA,
        "kind": study.kind,
        "name": study.name,
        "created": study.record.get("created"),
        "complete": not study.missing,
        "missing": study.missing,
        "seeds": study.seeds,
        "designs": {
            design.name: {
                "title": design.title,
                "stages": {
                    str(seed): {
                        stage.key: {
                            "folder": stage.name,
                            "phase": stage.phase,
                            "status": "finished" if stage.is_finished else stage.why_unfinished,
                            "fingerprint": stage.run.get("fingerprint"),
                            "training_seconds": stage.run.get("training_seconds"),
                            "shared_by": [user.name for user in study.users_of(stage)],
                        }
                        for stage in design.trials[seed].stages
                    }
                    for seed in sorted(design.trials)
                },
                "results": [_row(results, s) for (owner, _), s in results.cells.items() if owner == design.name],
                "absent": results.absent.get(design.name, {}),
                "by_length": lengths(results, design),
                "token_changes": token_changes(design),
                "confusion": confusion(design),
            }
            for design in study.designs
        },
        "ahead": _ahead(results),
        "checks": {
            check.key: {
                "equal": check.equal,
                "recorded": check.recorded,
                "by_seed": {str(seed): values for seed, values in sorted(check.by_seed.items())},
            }
            for check in checks(study)
        },
    }


def _row(results: Results, summary: Summary) -> dict[str, Any]:
    known = quantity(summary.column.name)
    return {
        "name": summary.column.name,
        "unit": stored_unit(summary.column.name),
        "better": known.better,
        "protocol": summary.column.protocol,
        "mean": summary.mean,
        "low": summary.low,
        "high": summary.high,
        "interval": summary.kind,
        "runs": summary.runs,
        "floor": summary.floor,
        "ceiling": summary.ceiling,
        "seeds": {
            str(value.seed): {
                "value": value.value, "n": value.n, "floor": value.floor, "ceiling": value.ceiling,
                "note": value.note, "stage": value.stage,
            }
            for value in summary.values
        },
    }  # fmt: skip


def _ahead(results: Results) -> list[dict[str, Any]]:
    found = []
    for column in dict.fromkeys(column for _, column in results.cells):
        verdict = results.verdict(column)
        if verdict:
            found.append(
                {
                    "name": column.name,
                    "protocol": column.protocol,
                    "designs": list(verdict.designs),
                    "clear": verdict.clear,
                }
            )
    return found


def stored_unit(name: str) -> str:
    """The unit of a value in results.json and results.csv."""
    if name.startswith("size/parameters"):
        return "parameters"
    return "bytes" if name.endswith("_bytes") else quantity(name).unit.lstrip("/")


def to_csv(results: Results) -> str:
    """One line per design, name and seed, one with seed `mean` per design and name, one per absent number."""
    file = io.StringIO()
    writer: csv.DictWriter[str] = csv.DictWriter(file, CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for design in results.study.designs:
        base = {"design": design.name, "title": design.title}
        for (owner, column), summary in results.cells.items():
            if owner != design.name:
                continue
            unit, better = stored_unit(column.name), quantity(column.name).better
            common = {**base, "name": column.name, "unit": unit, "better": better, "protocol": column.protocol}
            for value in summary.values:
                own = {key: getattr(value, key) for key in ("seed", "value", "n", "floor", "ceiling", "stage", "note")}
                writer.writerow({**common, **own, "runs": 1})
            mean = {
                "seed": "mean",
                "value": summary.mean,
                "low": summary.low,
                "high": summary.high,
                "interval": summary.kind,
            }
            bounds = {"floor": summary.floor, "ceiling": summary.ceiling, "runs": summary.runs}
            writer.writerow({**common, **mean, **bounds, "n": summary.n[0] if len(summary.n) == 1 else ""})
        for name, reason in results.absent.get(design.name, {}).items():
            writer.writerow({**base, "seed": "mean", "name": name, "unit": stored_unit(name), "absent": reason})
    return file.getvalue()


def terminal_table(results: Results) -> "Table":
    """The main columns for the terminal: means, and half the interval's width where there are seeds."""
    from rich.table import Table

    study = results.study
    names = [name for name in TERMINAL if results.columns(name)]
    if "gen/oracle/all" in names and "gen/kd_efflite0" in names:
        names.remove("gen/kd_efflite0")
    columns = [column for name in names for column in results.columns(name)]
    caption = (
        f"{study.repeats} seeds: mean ± half the 95 % interval"
        if study.repeats > 1
        else "one seed: no interval over trainings"
    )
    if study.missing:
        caption += f"; {len(study.missing)} stages missing, see the report"
    table = Table(title=study.name, caption=caption, title_justify="left", caption_justify="left")
    table.add_column("design")
    for column in columns:
        known = quantity(column.name)
        unit = known.unit if known.unit != "share" else ""
        table.add_column(f"{known.label}\n{unit}", justify="right")
    for design in study.designs:
        table.add_row(design.title, *(_terminal_cell(results, design.name, column) for column in columns))
    return table


def _terminal_cell(results: Results, design: str, column: Any) -> str:
    summary = results.cells.get((design, column))
    if summary is None:
        return "-"
    decimals = column_decimals(column.name, [row.mean for row in results.rows(column).values()])
    value = printed(column.name, summary.mean, decimals)
    if summary.kind != "t" or summary.low is None or summary.high is None or summary.low == summary.high:
        return value
    return f"{value} ±{printed(column.name, (summary.high - summary.low) / 2, decimals)}"
