"""Pictures beside each other: originals and reconstructions, prompts and samples, questions and answers.

Every picture is the file's own pixels as PNG inside the page, enlarged by the browser without smoothing. They are the
first ones each run saved, never chosen; the lowest seed that has pictures is shown.
"""

import base64
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..metrics.understanding import normalize_answer
from .report_collect import Design, Stage, Study
from .report_markup import listing, named, paragraph, rows, scroll, tag, text

MOST_SMALL, MOST_LARGE, LARGE = 16, 8, 128  # pictures per design: fewer when they are larger than 128 pixels
PER_ROW = 8


@dataclass(frozen=True)
class Shown:
    """The pictures of one design: the stage they come from and its seed."""

    design: Design
    index: int
    seed: int
    stage: Stage


def png_uri(image: np.ndarray) -> str:
    """A (3, H, W) uint8 picture as a data URI holding a lossless PNG."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(file, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def picture(image: np.ndarray, alt: str) -> str:
    return tag("img", src=png_uri(image), alt=alt, width=image.shape[2], height=image.shape[1])


def shown(study: Study, tensor: str) -> list[Shown]:
    """Per design the lowest seed whose measured stages saved `tensor`, or any tensor whose name goes on from it."""
    found: list[Shown] = []
    for index, design in enumerate(study.designs):
        candidates = (
            Shown(design, index, seed, stage)
            for seed in sorted(design.trials)
            for stage in design.trials[seed].measured
            if any(len(stage.tensors[name]) for name in _names(stage, tensor))
        )
        first = next(candidates, None)
        if first:
            found.append(first)
    return found


def _names(stage: Stage, tensor: str) -> list[str]:
    return [name for name in stage.tensors if name == tensor or (tensor[-1] in "/=" and name.startswith(tensor))]


def without(study: Study, have: Sequence[Shown], what: str) -> str:
    """A sentence naming the designs that have no such pictures yet."""
    names = [design.title for design in study.designs if design.name not in {one.design.name for one in have}]
    return paragraph(f"No {what} yet: {listing(names)}.", class_="note") if names else ""


def reconstruction_grid(study: Study) -> str:
    """Originals above every tokenizer's reconstructions; designs that share a tokenizer share a row."""
    have = shown(study, "reconstructions")
    if not have:
        return ""
    groups: dict[Any, list[Shown]] = {}
    for one in have:
        groups.setdefault(one.stage.folder, []).append(one)
    tables: list[str] = []
    for same in _by_originals(list(groups.values())):
        originals = same[0][0].stage.tensors["originals"]
        count = min(_most(originals), len(originals))
        for start in range(0, count, PER_ROW):
            span = slice(start, min(start + PER_ROW, count))
            lines = [
                [tag("th", text("Original"), scope="row"), *(_cell(image, "original") for image in originals[span])]
            ]
            lines += [_reconstruction_row(group, originals, span) for group in same]
            tables.append(scroll(tag("table", tag("tbody", rows(lines)), class_="pictures")))
    total = len(have[0].stage.tensors["originals"])
    note = f"The first {min(_most(have[0].stage.tensors['originals']), total)} of {total} saved test images, "
    note += f"{seed_words(study, have)}. Below each picture its own PSNR in dB."
    return paragraph(note, class_="note") + "".join(tables) + without(study, have, "reconstructions")


def _by_originals(groups: list[list[Shown]]) -> list[list[list[Shown]]]:
    """Groups that show the very same originals stand in one table."""
    tables: dict[bytes, list[list[Shown]]] = {}
    for group in groups:
        tables.setdefault(group[0].stage.tensors["originals"].tobytes(), []).append(group)
    return list(tables.values())


def _reconstruction_row(group: list[Shown], originals: np.ndarray, span: slice) -> list[str]:
    label = "".join(named(one.index, one.design.title) for one in group)
    note = tag("small", text("same tokenizer")) if len(group) > 1 else ""
    images = group[0].stage.tensors["reconstructions"]
    pairs = zip(originals[span], images[span], strict=False)
    return [
        tag("th", label, note, scope="row"),
        *(_cell(b, f"reconstruction by {group[0].design.title}", picture_psnr(a, b)) for a, b in pairs),
    ]


def picture_psnr(original: np.ndarray, other: np.ndarray) -> str:
    """PSNR in dB of one (3, H, W) uint8 picture as it is printed below it."""
    error = float(np.mean((original.astype(np.float64) - other) ** 2))
    return "exact" if error == 0 else f"{10 * math.log10(255**2 / error):.1f}"


def _cell(image: np.ndarray, alt: str, caption: str = "") -> str:
    return tag("td", picture(image, alt), tag("small", text(caption)) if caption else "")


def sample_cards(study: Study) -> str:
    """One card per prompt: every design's image for it and what the oracle found wrong."""
    have = shown(study, "samples")
    if not have:
        return ""
    prompts = _keyed(have, lambda one: one.stage.pictures.get("prompts", []))
    most = _most(have[0].stage.tensors["samples"])
    cards = []
    for prompt, places in list(prompts.items())[:most]:
        figures = [_sample(one, places.get(one.design.name)) for one in have]
        cards.append(tag("article", tag("h4", text(prompt[0])), tag("div", *figures, class_="row"), class_="card"))
    note = f"The first {min(most, len(prompts))} of {len(prompts)} saved prompts, {seed_words(study, have)}. "
    note += "✓ the oracle finds everything the prompt asks for; ✗ names what is wrong."
    return (
        paragraph(note, class_="note")
        + _card_grid(cards, len(have), 118, 40)
        + without(study, have, "generated images")
    )


def _keyed(have: Sequence[Shown], keys: Callable[[Shown], Sequence[str]]) -> dict[tuple[str, int], dict[str, int]]:
    """(text, how often it came before) -> design name -> position, so that equal prompts meet whatever their order."""
    places: dict[tuple[str, int], dict[str, int]] = {}
    for one in have:
        counts: dict[str, int] = {}
        for position, key in enumerate(keys(one)):
            counts[key] = counts.get(key, 0) + 1
            places.setdefault((key, counts[key] - 1), {})[one.design.name] = position
    return places


def _sample(one: Shown, position: int | None) -> str:
    name = named(one.index, one.design.title)
    images = one.stage.tensors["samples"]
    if position is None or position >= len(images):
        return tag("figure", tag("span", text("no image"), class_="hole"), tag("figcaption", name))
    verdicts = one.stage.pictures.get("sample_verdicts") or []
    verdict = verdicts[position] if position < len(verdicts) else None
    alt = f"image by {one.design.title}"
    return tag("figure", picture(images[position], alt), tag("figcaption", name, _verdict(verdict)))


def _verdict(verdict: dict[str, Any] | None) -> str:
    """An attribute that the caption does not name has no verdict (null) and cannot be wrong."""
    if verdict is None:
        return tag("span", text("not scored"), class_="unscored")
    named = (
        attribute for attribute in verdict if attribute != "all" and "/" not in attribute
    )  # no kind/<caption kind>
    wrong = [attribute for attribute in named if verdict[attribute] is False]
    if not wrong and verdict.get("all") is not False:
        return tag("span", text("✓ right"), class_="right")
    return tag("span", text("✗ " + (", ".join(wrong) or "wrong")), class_="wrong")


def question_cards(study: Study) -> str:
    """One card per image: its questions, the true answer, every design's answer."""
    have = shown(study, "questioned")
    if not have:
        return ""
    cards: dict[bytes, list[tuple[Shown, int]]] = {}
    for one in have:
        for position, image in enumerate(one.stage.tensors["questioned"]):
            cards.setdefault(image.tobytes(), []).append((one, position))
    most = _most(have[0].stage.tensors["questioned"]) // 2
    drawn = [_question_card(owners, have) for owners in list(cards.values())[:most]]
    note = f"The first {min(most, len(cards))} of {len(cards)} saved test images, {seed_words(study, have)}; "
    note += "each question asked alone."
    return paragraph(note, class_="note") + _card_grid(drawn, len(have), 84, 300) + without(study, have, "answers")


def _question_card(owners: list[tuple[Shown, int]], have: list[Shown]) -> str:
    asked: dict[tuple[str, str, str], dict[str, str]] = {}
    for one, position in owners:
        for question in one.stage.pictures.get("questions", []):
            if question["image"] == position:
                key = (question["kind"], question["text"], question["answer"])
                asked.setdefault(key, {})[one.design.name] = question["predicted"]
    head = [tag("th", text("question"), scope="col"), tag("th", text("true"), scope="col")]
    head += [tag("th", named(one.index, one.design.title), scope="col") for one in have]
    lines = [
        [
            tag("td", text(words)),
            tag("td", text(answer)),
            *(_answer(given.get(one.design.name), answer) for one in have),
        ]
        for (_, words, answer), given in asked.items()
    ]
    table = tag("table", tag("thead", rows([head])), tag("tbody", rows(lines)), class_="answers")
    first, position = owners[0]
    return tag(
        "article",
        picture(first.stage.tensors["questioned"][position], "test image"),
        scroll(table),
        class_="card question",
    )


def _answer(given: str | None, answer: str) -> str:
    if given is None:
        return tag("td", text("not asked"), class_="unscored")
    is_right = normalize_answer(given) == normalize_answer(answer)
    return tag(
        "td", text(f"{'✓' if is_right else '✗'} {given or '(nothing)'}"), class_="right" if is_right else "wrong"
    )


def _card_grid(cards: list[str], designs: int, per_design: int, fixed: int) -> str:
    width = min(fixed + per_design * designs, 1080)
    return tag("div", *cards, class_="cards", style=f"--card:{width}px")


def _most(images: np.ndarray) -> int:
    return MOST_SMALL if images.shape[-1] <= LARGE else MOST_LARGE


def seed_words(study: Study, have: Sequence[Shown]) -> str:
    seeds = sorted({one.seed for one in have})
    return f"seed {listing([str(seed) for seed in seeds])}" if study.seeds else ""
