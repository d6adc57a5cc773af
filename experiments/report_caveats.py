"""What a reader must know before believing a number: what is missing, what was not measured, how to read the rest."""

from typing import Any

from .report_collect import Study
from .report_markup import listing, rows, scroll, tag, text
from .report_tables import Results

GUIDE = {
    "Names are protocols.": """fd_efflite0 and kd_efflite0 are Fréchet and kernel distances in EfficientNet-Lite0
        features. They are not FID or KID: rfid, gfid and kid appear only when the standard Inception weights were
        there. Numbers of unlike protocols never share a column.""",
    "n counts what was measured:": """test images, questions or ids. Fréchet distances are biased at small n and compare
        only at equal n; kernel distances are unbiased.""",
    "Ceiling and floor.": """The oracle's score on reconstructions bounds what a generator over these tokens can reach;
        the floor is what chance or the majority answer reaches. A score means something between the two.""",
    "Intervals are 95 %.": """With two or more seeds: Student's t over trained runs; a share on which all seeds agree
        exactly keeps the interval over test cases. With one seed: over test cases alone, where n is known (Wilson).""",
    "Best and ≈.": """Best needs an interval that overlaps no other design's, and two seeds of every design or more.
        ≈ marks a tie, "same runs" one measurement shown twice. No mark: nothing to decide, or too little to decide
        it.""",
    "Bits per image": """count what the ids could carry, tokens × log2(codebook), not what a coder would need. Losses
        per token do not compare between tokenizers.""",
    "Seconds and images/s": "are wall time on the machine under Configuration; stages may have run side by side.",
    "Pictures": "are the first ones saved, not chosen, and enlarged without smoothing.",
}


def guide_section() -> str:
    """A short guide to names and intervals."""
    items = (tag("li", tag("strong", text(head)), text(" " + " ".join(rest.split()))) for head, rest in GUIDE.items())
    return tag("ul", *items, class_="guide")


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
    head = tag(
        "strong", text("This study is not complete." if study.kind == "study" else "Not everything here has finished.")
    )
    return tag(
        "div", head, text(" Everything below covers what has finished. Missing:"), tag("ul", *items), class_="banner"
    )


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
