"""The page: its sections in reading order. One file that opens offline: no scripts, nothing loaded from elsewhere."""

from collections.abc import Sequence

from .report_caveats import absent_section, guide_section, missing_banner
from .report_charts import frequency_chart
from .report_collect import Stage, Study
from .report_columns import distance_note, dot_panels, few_note, metric_table, shared_note
from .report_confusion import confusion_section
from .report_curves import curves_section
from .report_markup import color, listing, named, paragraph, section, tag, text
from .report_metrics import ATTRIBUTES, is_distance, printed, quantity
from .report_pictures import question_cards, reconstruction_grid, sample_cards
from .report_prefixes import prefixes_section
from .report_provenance import checks_section, provenance_section
from .report_style import STYLE
from .report_tables import Results
from .report_tokens import tokens_section

GLANCE = {
    "Size": ["size/parameters", "size/tokens_per_image", "size/bits_per_image"],
    "Reconstruction": ["codebook/usage", "rec/psnr"],
    "Generation": ["gen/oracle/all", "gen/kd_efflite0"],
    "Understanding": ["und/accuracy"],
    "Cost": [
        "cost/training_seconds",
        "cost/peak_memory_bytes",
        "cost/cuda_peak_memory_bytes",
        "cost/images_per_second",
    ],
}


def page(results: Results) -> str:
    """The whole document."""
    study = results.study
    contents = [
        ("glance", "At a glance", glance_section(results)),
        ("checks", "Fairness", checks_section(study)),
        ("guide", "How to read this", guide_section()),
        ("reconstruction", "Reconstruction", reconstruction_section(results)),
        ("prefixes", "Fewer tokens", prefixes_section(results)),
        ("tokens", "What tokens do", tokens_section(study)),
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
    end = "Every number here is in results.csv and results.json (schema 1) beside this page, unrounded."
    head = tag("meta", charset="utf-8") + tag("meta", name="viewport", content="width=device-width, initial-scale=1")
    head += tag("title", text(f"{study.name}: tessella report")) + tag("style", STYLE)
    main = tag("main", *body, tag("footer", text(end)))
    return f"<!DOCTYPE html>\n{tag('html', tag('head', head), tag('body', main), lang='en')}\n"


def heading(study: Study) -> str:
    count = len(study.designs)
    seeds = f"{study.repeats} seeds" if study.repeats > 1 else f"seed {' or '.join(map(str, study.seeds))}"
    lead = {
        "study": f"{count} image tokenizer{'s'[: count != 1]} inside the same language model",
        "runs": f"{count} designs found as run folders; nothing says that they were trained alike",
        "run": "One run",
    }[study.kind]
    lead += f": {', '.join([*([seeds] if study.seeds else []), *_data_words(study)])}."
    names = (named(i, design.title) for i, design in enumerate(study.designs))
    made = (
        [text(str(study.record["created"]).replace("T", " ").replace("+00:00", " UTC"))]
        if "created" in study.record
        else []
    )
    made += [tag("code", text(study.record["command"]))] if study.record.get("command") else []
    note = tag("p", " · ".join(made), class_="note") if made else ""
    return tag("h1", text(study.name)) + paragraph(lead, class_="lead") + tag("p", *names, class_="legend") + note


def _data_words(study: Study) -> list[str]:
    found: list[str] = []
    for stage in study.stages:
        data = stage.run.get("data") or {}
        if data.get("name"):
            found.append(f"{data['name']} at {data['image_size']} pixels")
    return list(dict.fromkeys(found))


def glance_section(results: Results) -> str:
    names = [name for group in GLANCE.values() for name in group if results.columns(name)]
    if "gen/oracle/all" in names and "gen/kd_efflite0" in names:
        names.remove("gen/kd_efflite0")
    groups = {name: group for group, members in GLANCE.items() for name in members}
    return seeds_note(results.study) + metric_table(results, names, groups=groups)


def seeds_note(study: Study) -> str:
    if study.repeats >= 2:
        return paragraph(
            f"Means over {study.repeats} seeds; below each, the 95 % interval of the mean (Student's t).",
            "A value is marked best only where its interval overlaps no other design's;",
            "≈ marks what cannot be told from the best.",
        )
    one = {"study": "One seed", "runs": "One training of each design", "run": "One training"}[study.kind]
    return paragraph(
        f"{one}: how much training itself varies is not known, so no value is marked best.",
        "Where an interval stands below a share it covers the test cases alone (95 %, Wilson).",
    )


def reconstruction_section(results: Results) -> str:
    names = ["rec/psnr", "rec/ssim", "rec/lpips", *_distances(results, "rec"), *_oracle(results, "rec")]
    names = [name for name in names if results.columns(name)]
    groups = {name: "Oracle on reconstructions: the ceiling of generation" for name in names if "/oracle/" in name}
    table = metric_table(results, names, groups=groups)
    notes = shared_note(results.study) + distance_note(results, names) + few_note(results, names) if table else ""
    return table + notes + reconstruction_grid(results.study)


def generation_section(results: Results) -> str:
    attributes = _oracle(results, "gen")
    kinds = [name for name in results.names if name.startswith("gen/oracle/kind/")]
    distances = _distances(results, "gen")
    parts = []
    if attributes:
        parts.append(
            paragraph(
                "Share of generated images in which the oracle finds what the caption asks. The ceiling is the same",
                "score on reconstructions of true images: what the tokenizer lets through. Chance is an image made for",
                "another caption.",
            )
        )
        parts += [dot_panels(results, attributes), metric_table(results, attributes, bounds=True)]
    if kinds:
        parts += [tag("h3", text("By kind of caption")), metric_table(results, kinds, bounds=True)]
    if distances:
        parts += [tag("h3", text("Distances to test images")), metric_table(results, distances)]
        parts += [distance_note(results, distances), few_note(results, distances)]
    cards = sample_cards(results.study)
    return "".join(parts) + ((tag("h3", text("Samples")) + cards) if cards else "")


def understanding_section(results: Results) -> str:
    kinds = [name for name in results.names if name.startswith("und/accuracy/")]
    names = [name for name in ("und/accuracy", *kinds) if results.columns(name)]
    more = [name for name in ("und/caption_bits_per_byte", "sem/retrieval", "sem/cosine") if results.columns(name)]
    parts = []
    if names:
        parts.append(
            paragraph(
                "Share of questions answered exactly, each asked alone about a test image. The floor answers every",
                "question of a kind with that kind's most common answer.",
            )
        )
        parts += [dot_panels(results, names), metric_table(results, names, bounds=True)]
    if more:
        parts.append(metric_table(results, more, bounds=True, with_absent=False))
    parts.append(confusion_section(results.study))
    cards = question_cards(results.study)
    return "".join(parts) + ((tag("h3", text("Questions and answers")) + cards) if cards else "")


def codebook_section(results: Results) -> str:
    names = ["size/codebook_size", "codebook/usage", "codebook/dead", "codebook/entropy_bits", "codebook/perplexity"]
    table = metric_table(results, [name for name in names if results.columns(name)])
    panels: dict[object, str] = {}
    for design in results.study.designs:
        for seed in sorted(design.trials):
            stage = design.trials[seed].tokenizer
            counts = stage.pictures.get("codes_histogram") if stage else None
            if stage and counts:
                panels.setdefault(stage.folder, _frequency_panel(results.study, stage, counts, seed))
                break
    if not panels:
        return table
    note = paragraph(
        "Codes from the most to the least used, relative to uniform use (dashed).",
        "A curve that falls early is a codebook that is mostly unused.",
        class_="note",
    )
    return table + note + tag("div", *panels.values(), class_="panels")


def _frequency_panel(study: Study, stage: Stage, counts: Sequence[int], seed: int) -> str:
    users = study.users_of(stage)
    index = [design.name for design in study.designs].index(users[0].name)
    unused = sum(1 for count in counts if count == 0)
    note = tag("small", text(f"seed {seed}; {unused} of {len(counts)} codes never used"))
    title = tag("figcaption", named(index, listing([design.title for design in users])), note)
    return tag("figure", title, frequency_chart(counts, index))


def cost_section(results: Results) -> str:
    keys = dict.fromkeys(
        stage.key for _, trial in results.study.trials() for stage in trial.stages if stage.key != "unified"
    )
    stages = [f"cost/training_seconds/{key}" for key in (*keys, "unified")]
    stages = [name for name in stages if results.columns(name)]
    totals = ["cost/training_seconds", "cost/cpu_seconds", "cost/peak_memory_bytes", "cost/cuda_peak_memory_bytes"]
    totals += ["cost/tokenizer_images_per_second", "cost/images_per_second"]
    groups = {name: "Seconds of each stage" for name in stages}
    table = metric_table(results, totals + stages, groups=groups)
    markup = ""
    if table:
        intro = paragraph(
            "Training seconds are the sum of every stage a design needs, encoders and proxies trained beforehand",
            "included. A stage that several designs share was trained once and is counted in full for each of them.",
        )
        markup = intro + _seconds_bars(results, stages) + table
    parts = [name for name in results.names if name.startswith("size/parameters/")]
    if parts:
        wholes = {trial.measured[0].key for _, trial in results.study.trials() if trial.measured}
        keys = {name: name.split("/")[2] for name in parts}
        groups = {name: key if key in wholes else f"of it: {key}" for name, key in keys.items()}
        sizes = metric_table(results, ["size/parameters", *parts], groups=groups, labels=_part_label)
        markup += tag("h3", text("Parameters by part")) + sizes
    return markup


def _part_label(name: str) -> str:
    return name.split("/", 3)[3].replace("_", " ") if name.count("/") >= 3 else "total"


def _seconds_bars(results: Results, stages: Sequence[str]) -> str:
    """One bar per design, its stages end to end, all on one scale."""
    found = {design.name: [results.get(design.name, name) for name in stages] for design in results.study.designs}
    longest = max((sum(s.mean for s in row if s) for row in found.values()), default=0.0)
    if not longest:
        return ""
    cells: list[str] = []
    for index, design in enumerate(results.study.designs):
        done = [summary for summary in found[design.name] if summary]
        spans = []
        for summary in done:
            share = 100 * summary.mean / longest
            label = summary.column.name.removeprefix("cost/training_seconds/")
            style = f"width:{share:.2f}%;background:{color(index)}"
            words = text(label) if share > 9 else ""
            title = f"{label}: {summary.mean:.1f} s"
            spans.append(tag("span", words, style=style, title=title, class_=None if words else "thin"))
        total = printed("cost/training_seconds", sum(summary.mean for summary in done), 0) + " s"
        bar = tag("div", *spans, class_="bar")
        if not results.get(design.name, "cost/training_seconds"):
            total = f"{total} so far" if done else "not finished"
        cells.append(tag("div", named(index, design.title), bar, tag("div", text(total))))
    return tag("div", *cells, class_="bars")


def other_section(results: Results) -> str:
    """Numbers under names the report does not know: shown as they are, so that nothing recorded is hidden."""
    names = [name for name in results.names if quantity(name).label == name]
    return metric_table(results, names) if names else ""


def _distances(results: Results, group: str) -> list[str]:
    return [name for name in results.names if name.startswith(f"{group}/") and is_distance(name)]


def _oracle(results: Results, group: str) -> list[str]:
    wanted = [f"{group}/oracle/{attribute}" for attribute in ATTRIBUTES]
    others = [name for name in results.names if name.startswith(f"{group}/oracle/") and name.count("/") == 2]
    return [name for name in dict.fromkeys([*wanted, *others]) if results.columns(name)]
