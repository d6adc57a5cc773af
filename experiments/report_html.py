"""The page: tables of every number with its interval, and what stands around them. One file, no scripts, nothing loaded."""

from collections.abc import Callable, Iterable, Sequence

from .report_charts import Dot, dot_chart, frequency_chart
from .report_collect import Design, Stage, Study
from .report_curves import curves_section
from .report_markup import color, listing, paragraph, rows, scroll, section, swatch, tag, text
from .report_metrics import ATTRIBUTES, column_decimals, is_distance, printed, quantity
from .report_pictures import question_cards, reconstruction_grid, sample_cards
from .report_provenance import absent_section, checks_section, guide_section, missing_banner, provenance_section
from .report_style import STYLE
from .report_tables import Column, Results, Summary

GLANCE = {
    "Size": ["size/parameters", "size/tokens_per_image", "size/bits_per_image"],
    "Reconstruction": ["codebook/usage", "rec/psnr"],
    "Generation": ["gen/oracle/all", "gen/kd_efflite0"],
    "Understanding": ["und/accuracy"],
    "Cost": ["cost/training_seconds", "cost/peak_memory_bytes", "cost/images_per_second"],
}
FEW = 2000  # a Fréchet distance of fewer images says little: its bias is larger than most differences


def page(results: Results) -> str:
    """The whole document."""
    study = results.study
    contents = [
        ("glance", "At a glance", glance_section(results)),
        ("checks", "Fairness", checks_section(study)),
        ("guide", "How to read this", guide_section(study)),
        ("reconstruction", "Reconstruction", reconstruction_section(results)),
        ("generation", "Generation", generation_section(results)),
        ("understanding", "Understanding", understanding_section(results)),
        ("codebook", "Codebook", codebook_section(results)),
        ("cost", "Cost", cost_section(results)),
        ("curves", "Learning curves", curves_section(study)),
        ("other", "Other recorded numbers", other_section(results)),
        ("absent", "Not measured", absent_section(results)),
        ("provenance", "Configuration", provenance_section(study)),
    ]
    contents = [entry for entry in contents if entry[2]]
    links = tag("nav", *(tag("a", text(title), href=f"#{anchor}") for anchor, title, _ in contents))
    body = [heading(study), missing_banner(study), links, *(section(a, title, markup) for a, title, markup in contents)]
    footer = tag(
        "footer", text("Every number here is in results.csv and results.json (schema 1) beside this page, unrounded.")
    )
    head = tag("meta", charset="utf-8") + tag("meta", name="viewport", content="width=device-width, initial-scale=1")
    head += tag("title", text(f"{study.name}: tessella report")) + f"<style>{STYLE}</style>"
    html = tag("html", tag("head", head), tag("body", tag("main", *body, footer)), lang="en")
    return f"<!DOCTYPE html>\n{html}\n"


def heading(study: Study) -> str:
    count = len(study.designs)
    what = f"{count} image {'tokenizer' if count == 1 else 'tokenizers'} inside the same language model"
    seeds = f"{len(study.seeds)} {'seed' if len(study.seeds) == 1 else 'seeds'}"
    data = listing(_data_words(study)) if _data_words(study) else "data not recorded yet"
    made = [text(part) for part in (study.record.get("created"),) if part]
    made += [tag("code", text(study.record["command"]))] if study.record.get("command") else []
    names = tag("p", *(tag("span", swatch(i), text(d.title)) for i, d in enumerate(study.designs)), class_="legend")
    lead = paragraph(
        f"{what}: {seeds}, {data}.".capitalize() if count == 1 else f"{what}: {seeds}, {data}.", class_="lead"
    )
    return tag("h1", text(study.name)) + lead + names + (tag("p", " · ".join(made), class_="note") if made else "")


def _data_words(study: Study) -> list[str]:
    found: list[str] = []
    for stage in study.stages:
        data = stage.run.get("data") or {}
        size = (data.get("preparation") or {}).get("image_size")
        if data.get("name"):
            found.append(f"{data['name']}" + (f" at {size} pixels" if size else ""))
    return list(dict.fromkeys(found))


def glance_section(results: Results) -> str:
    names = [name for group in GLANCE.values() for name in group if results.columns(name)]
    if "gen/oracle/all" in names and "gen/kd_efflite0" in names:
        names.remove("gen/kd_efflite0")
    groups = {name: group for group, members in GLANCE.items() for name in members}
    return seeds_note(results.study) + metric_table(results, names, groups=groups)


def seeds_note(study: Study) -> str:
    if len(study.seeds) >= 2:
        return paragraph(
            f"Means over {len(study.seeds)} seeds; below each, the 95 % interval of the mean (Student's t).",
            "A value is marked best only where its interval overlaps no other; ≈ marks those that cannot be told from the best.",
        )
    return paragraph(
        "One seed: how much training itself varies is not known, so no value is marked best.",
        "Where an interval stands below a share it covers the test cases alone (95 %, Wilson).",
    )


def reconstruction_section(results: Results) -> str:
    names = ["rec/psnr", "rec/ssim", "rec/lpips", *_distances(results, "rec"), *_oracle(results, "rec")]
    names = [name for name in names if results.columns(name)]
    groups = {name: "Oracle on reconstructions: the ceiling of generation" for name in names if "/oracle/" in name}
    pictures = reconstruction_grid(results.study)
    table = metric_table(results, names, groups=groups) + shared_note(results.study) + few_note(results, names)
    return (table if names else "") + pictures


def generation_section(results: Results) -> str:
    attributes = _oracle(results, "gen")
    kinds = [name for name in results.names if name.startswith("gen/oracle/kind/")]
    distances = _distances(results, "gen")
    parts = []
    if attributes:
        parts.append(
            paragraph(
                "Share of generated images in which the oracle finds what the caption asks. The ceiling is the same score on",
                "reconstructions of true images (what the tokenizer lets through); chance is another caption's image.",
            )
        )
        parts.append(dot_panels(results, attributes))
        parts.append(metric_table(results, attributes, bounds=True))
    if kinds:
        parts += [tag("h3", text("By kind of caption")), metric_table(results, kinds, bounds=True)]
    if distances:
        table = metric_table(results, distances)
        parts += [tag("h3", text("Distances to test images")), table, few_note(results, distances)]
    cards = sample_cards(results.study)
    return "".join(parts) + ((tag("h3", text("Samples")) + cards) if cards else "")


def understanding_section(results: Results) -> str:
    kinds = [name for name in results.names if name.startswith("und/accuracy/")]
    names = [name for name in ("und/accuracy", *kinds) if results.columns(name)]
    more = [name for name in ("und/caption_bits_per_byte", "sem/retrieval") if results.columns(name)]
    parts = []
    if names:
        parts.append(
            paragraph(
                "Share of questions answered exactly, each asked alone about a test image. The floor answers every question",
                "of a kind with that kind's most common answer.",
            )
        )
        parts += [dot_panels(results, names), metric_table(results, names, bounds=True)]
    if more:
        parts.append(metric_table(results, more))
    cards = question_cards(results.study)
    return "".join(parts) + ((tag("h3", text("Questions and answers")) + cards) if cards else "")


def codebook_section(results: Results) -> str:
    names = ["size/codebook_size", "codebook/usage", "codebook/entropy_bits", "codebook/perplexity"]
    names = [name for name in names if results.columns(name)]
    panels: dict[object, str] = {}
    for design in results.study.designs:
        for seed in sorted(design.trials):
            stage = design.trials[seed].tokenizer
            counts = stage.pictures.get("codes_histogram") if stage else None
            if stage and counts:
                panels.setdefault(stage.folder, _frequency_panel(results.study, stage, counts, seed))
                break
    chart_note = paragraph(
        "Codes from the most to the least used, relative to uniform use (dashed). A curve that falls early is a codebook",
        "that is mostly unused.",
        class_="note",
    )
    charts = chart_note + tag("div", *panels.values(), class_="panels") if panels else ""
    return (metric_table(results, names) + shared_note(results.study) if names else "") + charts


def _frequency_panel(study: Study, stage: Stage, counts: Sequence[int], seed: int) -> str:
    users = study.users_of(stage)
    index = [design.name for design in study.designs].index(users[0].name)
    unused = sum(1 for count in counts if count == 0)
    note = tag("small", text(f" seed {seed}; {unused} of {len(counts)} codes never used"))
    title = tag("figcaption", swatch(index), text(listing([design.title for design in users])), note)
    return tag("figure", title, frequency_chart(counts, index))


def cost_section(results: Results) -> str:
    stages = [name for name in results.names if name.startswith("cost/training_seconds/")]
    parts = [name for name in results.names if name.startswith("size/parameters/")]
    totals = ["cost/training_seconds", "cost/cpu_seconds", "cost/peak_memory_bytes"]
    totals += ["cost/tokenizer_images_per_second", "cost/images_per_second"]
    totals = [name for name in totals if results.columns(name)]
    groups = {name: "Seconds of each stage" for name in stages}
    markup = ""
    if totals or stages:
        markup += paragraph(
            "Training seconds are the sum of every stage a design needs, encoders and proxies trained beforehand included.",
            "A stage that several designs share was trained once and is counted in full for each of them.",
        )
        markup += (
            _seconds_bars(results, stages)
            + metric_table(results, totals + stages, groups=groups)
            + shared_note(results.study)
        )
    if parts:
        sizes = metric_table(
            results,
            ["size/parameters", *parts],
            groups={name: name.split("/")[2] for name in parts},
            labels=_part_label,
        )
        markup += tag("h3", text("Parameters by part")) + sizes
    return markup


def _part_label(name: str) -> str:
    return name.split("/", 3)[3] if name.count("/") >= 3 else "total"


def _seconds_bars(results: Results, stages: Sequence[str]) -> str:
    totals = {design.name: [results.get(design.name, name) for name in stages] for design in results.study.designs}
    longest = max((sum(s.mean for s in row if s) for row in totals.values()), default=0.0)
    if not longest:
        return ""
    cells: list[str] = []
    for index, design in enumerate(results.study.designs):
        row = [summary for summary in totals[design.name] if summary]
        spans = []
        for position, summary in enumerate(row):
            share = 100 * summary.mean / longest
            label = summary.column.name.removeprefix("cost/training_seconds/")
            shade = (
                f"background:color-mix(in srgb, {color(index)} {100 - 22 * (len(row) - 1 - position)}%, var(--paper))"
            )
            shade = f"width:{share:.2f}%;background:{color(index)};opacity:{1 - 0.18 * (len(row) - 1 - position):.2f}"
            words = text(label) if share > 9 else ""
            spans.append(
                tag(
                    "span", words, style=shade, title=f"{label}: {summary.mean:.1f} s", class_=None if words else "thin"
                )
            )
        total = printed("cost/training_seconds", sum(summary.mean for summary in row), 0)
        cells += [
            tag("div", swatch(index), text(design.title)),
            tag("div", *spans, class_="bar"),
            tag("div", text(f"{total} s")),
        ]
    return tag("div", *cells, class_="bars")


def other_section(results: Results) -> str:
    """Numbers under names the report does not know: shown as they are."""
    shown = {
        "rec/psnr",
        "rec/ssim",
        "rec/lpips",
        "rec/rfid",
        "gen/gfid",
        "und/accuracy",
        "und/floor",
        "und/caption_bits_per_byte",
    }
    groups = (
        "size/",
        "cost/",
        "codebook/usage",
        "codebook/entropy_bits",
        "codebook/perplexity",
        "und/accuracy/",
        "und/floor/",
    )
    names = [
        name
        for name in results.names
        if name not in shown
        and not name.startswith(groups)
        and "/oracle/" not in name
        and not is_distance(name)
        and name != "sem/retrieval"
    ]
    return metric_table(results, names) if names else ""


def metric_table(
    results: Results,
    names: Iterable[str],
    *,
    groups: dict[str, str] | None = None,
    bounds: bool = False,
    labels: Callable[[str], str] | None = None,
) -> str:
    """Designs down, columns across. `groups`: name -> spanning head; `bounds`: ceiling and floor below each value."""
    columns = [column for name in names for column in results.columns(name)]
    if not columns:
        return ""
    head = [tag("th", text("Design"), scope="col"), *(_column_head(results, column, labels) for column in columns)]
    lines = []
    for index, design in enumerate(results.study.designs):
        cells = [_value_cell(results, design, column, bounds) for column in columns]
        lines.append(
            [tag("th", swatch(index), text(design.title), _seeds_words(results.study, design), scope="row"), *cells]
        )
    heads = rows([head])
    if groups and any(groups.get(column.name) for column in columns):
        heads = tag("tr", *_group_heads(columns, groups), class_="groups") + heads
    return scroll(tag("table", tag("thead", heads), tag("tbody", rows(lines)), class_="numbers"))


def _group_heads(columns: Sequence[Column], groups: dict[str, str]) -> list[str]:
    cells, start = [tag("th")], 0
    while start < len(columns):
        name = groups.get(columns[start].name, "")
        stop = next((k for k in range(start, len(columns)) if groups.get(columns[k].name, "") != name), len(columns))
        cells.append(tag("th", text(name), colspan=stop - start, scope="colgroup"))
        start = stop
    return cells


def _column_head(results: Results, column: Column, labels: Callable[[str], str] | None) -> str:
    known = quantity(column.name)
    arrow = {"higher": " ↑", "lower": " ↓", None: ""}[known.better]
    counts = sorted({n for (_, other), summary in results.cells.items() if other == column for n in summary.n})
    lines = [known.unit] if known.unit and known.unit != "share" else []
    if counts:
        lines.append(f"n {counts[0]}" if len(counts) == 1 else f"n {counts[0]} to {counts[-1]}")
    lines += [words] if (words := results.protocol_difference(column)) else []
    label = labels(column.name) if labels else known.label
    return tag(
        "th",
        text(label + arrow),
        *(tag("small", text(line)) for line in lines),
        scope="col",
        title=known.meaning or column.name,
    )


def _value_cell(results: Results, design: Design, column: Column, bounds: bool) -> str:
    summary = results.cells.get((design.name, column))
    if summary is None:
        reason = results.absent.get(design.name, {}).get(column.name)
        if reason is None:
            return tag("td", text("–"), class_="gone", title="this design has no such number")
        return tag("td", tag("a", text("absent"), href="#absent"), class_="gone", title=reason)
    decimals = column_decimals(column.name, [s.mean for (_, other), s in results.cells.items() if other == column])
    lines = _small_lines(results, summary, decimals, bounds)
    verdict = results.verdict(column)
    mark = None
    if verdict and design.name in verdict.designs:
        mark = "best" if verdict.clear else "tie"
    value = tag("data", text(printed(column.name, summary.mean, decimals)), value=repr(summary.mean))
    return tag("td", value, *(tag("small", text(line)) for line in lines), class_=mark)


def _small_lines(results: Results, summary: Summary, decimals: int, bounds: bool) -> list[str]:
    name = summary.column.name
    lines = []
    if summary.low is not None and summary.high is not None and summary.low != summary.high:
        lines.append(f"{printed(name, summary.low, decimals)} – {printed(name, summary.high, decimals)}")
    if bounds and summary.ceiling is not None:
        lines.append(f"ceiling {printed(name, summary.ceiling, decimals)}")
    if bounds and summary.floor is not None:
        lines.append(f"{'chance' if name.startswith('gen/') else 'floor'} {printed(name, summary.floor, decimals)}")
    if len(summary.values) < len(results.study.seeds):
        lines.append(f"{len(summary.values)} of {len(results.study.seeds)} seeds")
    return lines


def _seeds_words(study: Study, design: Design) -> str:
    done = sum(
        1 for trial in design.trials.values() if trial.stages and all(stage.is_finished for stage in trial.stages)
    )
    return tag("small", text(f"{done} of {len(study.seeds)} seeds finished")) if done < len(study.seeds) else ""


def dot_panels(results: Results, names: Sequence[str]) -> str:
    """Small multiples: one panel per share, one row per design."""
    panels = []
    for name in names:
        for column in results.columns(name):
            dots = []
            for index, design in enumerate(results.study.designs):
                summary = results.cells.get((design.name, column))
                if summary is not None:
                    dots.append(_dot(design, index, summary))
            words = results.protocol_difference(column)
            title = quantity(name).label + (f" ({words})" if words else "")
            panels.append(tag("figure", tag("figcaption", text(title)), dot_chart(dots, name=title)))
    key = "Dot: mean. Band: 95 % interval. Faint dots: single seeds. Solid tick: ceiling. Dashed tick: floor."
    return tag("div", *panels, class_="panels") + paragraph(key, class_="note")


def _dot(design: Design, index: int, summary: Summary) -> Dot:
    seeds = tuple(value.value for value in summary.values) if len(summary.values) > 1 else ()
    return Dot(
        design.title, index, summary.mean, printed(summary.column.name, summary.mean, 3),
        summary.low, summary.high, seeds, summary.floor, summary.ceiling,
    )  # fmt: skip


def shared_note(study: Study) -> str:
    """Which designs use one and the same trained tokenizer: their equal numbers are one measurement."""
    notes = []
    for stage in study.stages:
        users = study.users_of(stage)
        if stage.phase != "unified" and len(users) > 1:
            names = listing([design.title for design in users])
            notes.append(f"{names} share the stage {stage.name}: equal numbers from it are one measurement.")
    if len(notes) > 2:
        notes = [*notes[:1], f"The same holds for {len(notes) - 1} more stages, listed under Configuration."]
    return paragraph(*notes, class_="note") if notes else ""


def few_note(results: Results, names: Sequence[str]) -> str:
    counts = [
        n for (_, column), s in results.cells.items() if column.name in names and is_distance(column.name) for n in s.n
    ]
    if not counts or min(counts) >= FEW:
        return ""
    return paragraph(
        f"n is below {FEW}: a Fréchet distance is biased upwards at this n and compares only with values of the same n;",
        "prefer the kernel distance, which is unbiased.",
        class_="note",
    )


def _distances(results: Results, group: str) -> list[str]:
    return [name for name in results.names if name.startswith(f"{group}/") and is_distance(name)]


def _oracle(results: Results, group: str) -> list[str]:
    return [f"{group}/oracle/{attribute}" for attribute in ATTRIBUTES if results.columns(f"{group}/oracle/{attribute}")]
