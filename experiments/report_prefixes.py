"""What fewer tokens are worth: quality against bits, and the same images from more and more of their ids."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .report_charts import Line, line_chart
from .report_collect import Design, Stage
from .report_columns import metric_table
from .report_markup import listing, named, paragraph, rows, scroll, tag, text
from .report_metrics import quantity
from .report_pictures import Shown, picture, picture_psnr, seed_words, shown
from .report_tables import Results

CURVES = ("rec/psnr", "rec/ssim")
MOST_IMAGES = 6


def prefixes_section(results: Results) -> str:
    """Empty when no design has tokens whose prefixes decode."""
    bases = list(dict.fromkeys(name.split("/k=")[0] for name in results.names if "/k=" in name))
    if not bases:
        return ""
    parts = [
        paragraph(
            "Some designs decode an image from its leading tokens alone. A point is a number of tokens, at the bits",
            "they can carry (logarithmic); designs that need all of their tokens have one point.",
        ),
        rate_charts(results),
    ]
    for group in ("rec", "gen"):
        scores = [base for base in bases if base.startswith(f"{group}/") and "/oracle/" not in base]
        judged = [base for base in bases if base.startswith(f"{group}/oracle/")]
        parts += [_table(results, [base]) for base in scores]
        if judged:
            what = "reconstructions" if group == "rec" else "generated images"
            parts += [tag("h3", text(f"Oracle on {what} of few tokens")), _table(results, judged, bounds=True)]
    grids = _kept_grids(results)
    return "".join(parts) + grids


def lengths(results: Results, design: Design) -> list[dict[str, Any]]:
    """`tokens`, `bits` and mean `psnr` and `ssim` over seeds, by measured number of tokens; [] without ids."""
    tokens, bits = (results.get(design.name, f"size/{key}_per_image") for key in ("tokens", "bits"))
    if tokens is None or bits is None:
        return []
    whole = round(tokens.mean)
    kept = sorted(int(name.split("/k=")[1]) for name in results.names if name.startswith(f"{CURVES[0]}/k="))
    found = []
    for count in [*(k for k in kept if k < whole), whole]:
        names = {name: name if count == whole else f"{name}/k={count}" for name in CURVES}
        values = {name: results.get(design.name, own) for name, own in names.items()}
        if values[CURVES[0]] is not None:
            row: dict[str, Any] = {"tokens": count, "bits": bits.mean * count / whole}
            found.append(row | {name.removeprefix("rec/"): v.mean for name, v in values.items() if v is not None})
    return found


def rate_charts(results: Results) -> str:
    """One panel per measure, one line or point per trained tokenizer; designs that share one share it here too."""
    groups: dict[Any, list[int]] = {}
    for index, design in enumerate(results.study.designs):
        whole = results.get(design.name, CURVES[0])
        if whole is not None and lengths(results, design):
            groups.setdefault(whole.stages, []).append(index)
    designs = results.study.designs
    panels, legend = [], []
    for name in CURVES:
        key, lines = name.removeprefix("rec/"), []
        for indices in groups.values():
            label = listing([designs[i].title for i in indices])
            points = tuple((row["bits"], row[key]) for row in lengths(results, designs[indices[0]]) if key in row)
            lines += [Line(label, points, indices[0])] if points else []
        if lines:
            unit = f" ({quantity(name).unit})" if quantity(name).unit else ""
            title = f"{quantity(name).label}{unit} by bits per image"
            chart = line_chart(lines, name=title, axis="bits", is_x_logarithmic=True, is_marked=True)
            panels.append(tag("figure", tag("figcaption", text(title)), chart))
            legend = [named(line.index, line.label) for line in lines]
    return tag("p", *legend, class_="legend") + tag("div", *panels, class_="panels")


def _table(results: Results, bases: Sequence[str], *, bounds: bool = False) -> str:
    names = [name for name in results.names if name.split("/k=")[0] in bases and "/k=" in name]
    order = {base: position for position, base in enumerate(bases)}
    names.sort(key=lambda name: (order[name.split("/k=")[0]], int(name.split("/k=")[1])))
    groups = {name: quantity(name.split("/k=")[0]).label for name in names}
    return metric_table(results, names, groups=groups, bounds=bounds, labels=_tokens, with_absent=False)


def _tokens(name: str) -> str:
    return _count(int(name.split("/k=")[1]))


def _count(tokens: int) -> str:
    return f"{tokens} token{'s'[: tokens != 1]}"


def _kept_grids(results: Results) -> str:
    have = shown(results.study, "reconstructions/k=")
    groups: dict[Any, list[Shown]] = {}
    for one in have:
        groups.setdefault(one.stage.folder, []).append(one)
    if not groups:
        return ""
    note = f"The first saved test images, {seed_words(results.study, have)}, from their first tokens alone. "
    note += "Below each picture its own PSNR in dB."
    head = tag("h3", text("From few tokens to all")) + paragraph(note, class_="note")
    return head + "".join(_kept_grid(group) for group in groups.values())


def _kept_grid(group: list[Shown]) -> str:
    stage = group[0].stage
    kept = sorted((int(name.split("=")[1]), name) for name in stage.tensors if name.startswith("reconstructions/k="))
    title = tag("p", *(named(one.index, one.design.title) for one in group), class_="legend")
    heads = [tag("th", text("Original"), scope="col")]
    heads += [tag("th", text(_count(k)), tag("small", text(_bits(stage, k))), scope="col") for k, _ in kept]
    lines = []
    for i, original in enumerate(stage.tensors["originals"][:MOST_IMAGES]):
        cells = [tag("td", picture(original, "original"))]
        for k, name in kept:
            if i < len(stage.tensors[name]):
                cells.append(_cell(original, stage.tensors[name][i], f"from {_count(k)}"))
        lines.append(cells)
    return title + scroll(tag("table", tag("thead", rows([heads])), tag("tbody", rows(lines)), class_="pictures kept"))


def _cell(original: np.ndarray, image: np.ndarray, alt: str) -> str:
    return tag("td", picture(image, alt), tag("small", text(picture_psnr(original, image))))


def _bits(stage: Stage, kept: int) -> str:
    bits, tokens = stage.run.get("bits_per_image"), stage.run.get("tokens_per_image")
    return f"{bits * kept / tokens:.0f} bits" if bits and tokens else ""
