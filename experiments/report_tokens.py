"""What single tokens and codes do: the pixels each token moves, and patches that were given the same code."""

import base64
import io
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from .report_charts import Line, line_chart
from .report_collect import Design, Study
from .report_markup import listing, named, paragraph, tag, text
from .report_pictures import Shown, picture, seed_words, shown

HEAT = ((14, 16, 36), (45, 49, 132), (24, 122, 148), (122, 196, 98), (253, 236, 130))  # none to most


def tokens_section(study: Study) -> str:
    """Empty when no run kept such pictures."""
    return contributions(study) + shared_codes(study)


def token_changes(design: Design) -> list[dict[str, Any]]:
    """Per seed the mean pixel change of each token, as evaluation recorded it."""
    found = []
    for seed in sorted(design.trials):
        for stage in design.trials[seed].measured:
            if "contributions" in stage.pictures:
                found.append({"seed": seed, "means": stage.pictures["contributions"]["means"]})
    return found


def contributions(study: Study) -> str:
    """One map per token and design."""
    groups = _by_stage(shown(study, "contributions"))
    if not groups:
        return ""
    have = [one for group in groups for one in group]
    note = paragraph(
        "One id is replaced by another, drawn at random, and the image decoded again. A map shows where pixels move",
        "for that token, mean over test images;",
        f"all maps of a design share one scale, drawn by its square root; {seed_words(study, have)}.",
        class_="note",
    )
    maps = "".join(_maps(group) for group in groups)
    return tag("h3", text("What changes when a token changes")) + note + _change_chart(groups) + maps


def _change_chart(groups: Sequence[list[Shown]]) -> str:
    """Only of tokens whose order means something: those whose prefixes decode."""
    lines = []
    for group in groups:
        stage = group[0].stage
        if any(name.startswith("reconstructions/k=") for name in stage.tensors):
            label = listing([one.design.title for one in group])
            means = stage.pictures["contributions"]["means"]
            lines.append(Line(label, tuple((i + 1, 100 * mean) for i, mean in enumerate(means)), group[0].index))
    if not lines:
        return ""
    title = "mean pixel change (%) by position of the token"
    legend = tag("p", *(named(line.index, line.label) for line in lines), class_="legend")
    chart = line_chart(lines, name=title, axis="token", is_marked=True)
    return legend + tag("div", tag("figure", tag("figcaption", text(title)), chart), class_="panels")


def _maps(group: list[Shown]) -> str:
    stage = group[0].stage
    facts, maps = stage.pictures["contributions"], stage.tensors["contributions"]
    ends = list(accumulate(facts["step_lengths"]))
    steps = [slice(end - length, end) for end, length in zip(ends, facts["step_lengths"], strict=True)]
    if all(length == 1 for length in facts["step_lengths"]):
        steps = [slice(0, len(maps))]
    drawn = []
    for step in steps:
        figures = [
            tag(
                "figure",
                tag("img", src=heat_uri(maps[i, 0]), alt=f"token {i + 1}", width=maps.shape[3], height=maps.shape[2]),
                tag("figcaption", text(i + 1)),
                title=f"token {i + 1}: pixels change by {100 * facts['means'][i]:.2f} % on average",
            )
            for i in range(step.start, step.stop)
        ]
        drawn.append(tag("div", *figures, class_="maps"))
    small = f"{facts['images']} images; the brightest pixel changes by {100 * facts['scale']:.0f} % of the range"
    title = tag("p", *(named(one.index, one.design.title) for one in group), tag("small", text(small)), class_="legend")
    return title + "".join(drawn)


def heat_uri(values: np.ndarray) -> str:
    """A (h, w) uint8 map as a data URI: a PNG with a palette in which equal steps are equal steps of the root."""
    from PIL import Image

    at = np.sqrt(np.arange(256) / 255) * (len(HEAT) - 1)
    colors = np.stack([np.interp(at, range(len(HEAT)), channel) for channel in zip(*HEAT, strict=True)], axis=1)
    image = Image.fromarray(np.ascontiguousarray(values), mode="L")
    image.putpalette(colors.round().astype(np.uint8).tobytes())
    file = io.BytesIO()
    image.save(file, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def shared_codes(study: Study) -> str:
    """Per design and grid a few codes, each with patches of different test images that were given it."""
    groups = _by_stage(shown(study, "patches/"))
    if not groups:
        return ""
    have = [one for group in groups for one in group]
    note = paragraph(
        "Cells of different test images with the same id, enlarged: first the codes that most images hold, often",
        f"empty ground, then those with the most detail (pixel variance within cells); {seed_words(study, have)}.",
        class_="note",
    )
    return tag("h3", text("Patches that share a code")) + note + "".join(_codes(group) for group in groups)


def _codes(group: list[Shown]) -> str:
    stage = group[0].stage
    found = [row for row in stage.pictures["shared_codes"] if f"patches/{row['grid']}" in stage.tensors]
    used: dict[int, int] = {}
    figures: dict[int, list[str]] = {}
    for row in found:
        grid, count = row["grid"], len(row["patches"])
        first = used.get(grid, 0)
        used[grid] = first + count
        patches = stage.tensors[f"patches/{grid}"][first : first + count]
        images = [picture(patch, f"patch of code {row['code']}") for patch in patches]
        words = f"{'most images' if row['by'] == 'images' else 'most detail'}, in {row['images']} images"
        caption = tag("figcaption", text(f"code {row['code']} "), tag("small", text(words)))
        figures.setdefault(grid, []).append(tag("figure", caption, tag("div", *images)))
    title = tag("p", *(named(one.index, one.design.title) for one in group), class_="legend")
    blocks = []
    for grid, drawn in figures.items():
        size = paragraph(f"{grid}×{grid} cells", class_="note") if len(figures) > 1 else ""
        blocks.append(size + tag("div", *drawn, class_="codes"))
    return title + "".join(blocks)


def _by_stage(have: Sequence[Shown]) -> list[list[Shown]]:
    """Designs that read the very same run stand together."""
    groups: dict[Any, list[Shown]] = {}
    for one in have:
        groups.setdefault(one.stage.folder, []).append(one)
    return list(groups.values())
