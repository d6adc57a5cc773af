"""What a semantic encoder takes for what, as small tables whose cells are shaded by their share of the row."""

from typing import Any

from .report_collect import Design, Study
from .report_markup import named, paragraph, rows, scroll, tag, text


def confusion_section(study: Study) -> str:
    """One table per attribute and encoder; designs that read the very same runs share theirs. Empty without any."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index, design in enumerate(study.designs):
        if confusion(design):
            groups.setdefault(tuple(stage.folder for stage in _stages(design)), []).append(index)
    if not groups:
        return ""
    note = paragraph(
        "Each test image chooses the caption that scores highest: down what the image shows, across what that caption",
        "says. Counts over test images and seeds; shading is the share of the row.",
        class_="note",
    )
    parts = [tag("h3", text("What semantic encoders take for what")), note]
    for indices in groups.values():
        parts.append(tag("p", *(named(i, study.designs[i].title) for i in indices), class_="legend"))
        tables = [_table(name, found) for name, found in confusion(study.designs[indices[0]]).items()]
        parts.append(tag("div", *tables, class_="matrices"))
    return "".join(parts)


def confusion(design: Design) -> dict[str, dict[str, Any]]:
    """Attribute -> `names` and `counts[true][chosen]`, summed over the design's trained encoders."""
    found: dict[str, dict[str, Any]] = {}
    for stage in _stages(design):
        for attribute, matrix in stage.pictures["confusion"].items():
            whole = found.setdefault(
                attribute, {"names": matrix["names"], "counts": [[0] * len(row) for row in matrix["counts"]]}
            )
            for total, row in zip(whole["counts"], matrix["counts"], strict=True):
                total[:] = [a + b for a, b in zip(total, row, strict=True)]
    return found


def _stages(design: Design) -> list[Any]:
    stages = [stage for trial in design.trials.values() for stage in trial.measured if "confusion" in stage.pictures]
    return list({stage.folder: stage for stage in stages}.values())


def _table(attribute: str, matrix: dict[str, Any]) -> str:
    names, counts = matrix["names"], matrix["counts"]
    total, right = sum(map(sum, counts)), sum(row[i] for i, row in enumerate(counts))
    heads = [tag("th"), *(tag("th", tag("span", text(name)), scope="col") for name in names)]
    lines = []
    for i, (name, row) in enumerate(zip(names, counts, strict=True)):
        cells = [tag("th", text(name), scope="row")]
        for j, count in enumerate(row):
            style = f"--share:{100 * count / sum(row):.0f}%" if count else None
            title = f"{name} taken for {names[j]}: {count}" if i != j else f"{name} right: {count}"
            cells.append(tag("td", text(count or "·"), style=style, title=title, class_="hit" if i == j else "miss"))
        lines.append(cells)
    caption = tag("figcaption", text(f"{attribute} "), tag("small", text(f"{right} of {total} right")))
    table = tag("table", tag("thead", rows([heads])), tag("tbody", rows(lines)), class_="matrix")
    return tag("figure", caption, scroll(table))
