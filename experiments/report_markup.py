"""Markup that is well-formed by construction: escaped elements and text, and the pieces every section shares.

Children are markup (from `tag`) or come from `text`; void elements close themselves: the page is valid XML too.
"""

import html
import re
from collections.abc import Iterable

PALETTE_SIZE = 10
VOID = frozenset({"img", "meta", "br", "hr", "col"})
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")


def text(value: object) -> str:
    """Escaped text; characters that XML cannot hold become the replacement character."""
    return html.escape(_CONTROL.sub("\ufffd", str(value)), quote=True)


def tag(name: str, /, *children: str, **attributes: object) -> str:
    """One element. A trailing underscore is dropped (`class_`), others become dashes; None drops the attribute."""
    parts = [name]
    for key, value in attributes.items():
        if value is not None:
            parts.append(f'{key.rstrip("_").replace("_", "-")}="{text(value)}"')
    if name in VOID:
        return f"<{' '.join(parts)} />"
    return f"<{' '.join(parts)}>{''.join(children)}</{name}>"


def color(index: int) -> str:
    """The design's color, as a value that follows light and dark."""
    return f"var(--d{index % PALETTE_SIZE})"


def swatch(index: int) -> str:
    return tag("i", class_="swatch", style=f"background:{color(index)}")


def named(index: int, title: str) -> str:
    """A design's name behind its color; a long name wraps beside the swatch, not below it."""
    return tag("span", swatch(index), tag("span", text(title)), class_="name")


def section(anchor: str, title: str, *children: str) -> str:
    return tag("section", tag("h2", text(title)), *children, id=anchor)


def paragraph(*sentences: str, class_: str | None = None) -> str:
    """A paragraph of plain sentences (escaped here)."""
    return tag("p", text(" ".join(sentences)), class_=class_)


def scroll(*children: str) -> str:
    """A wide thing that scrolls on its own, so that the page never does."""
    return tag("div", *children, class_="scroll")


def details(summary: str, *children: str, is_open: bool = False) -> str:
    return tag("details", tag("summary", summary), *children, open="open" if is_open else None)


def rows(cells: Iterable[Iterable[str]]) -> str:
    return "".join(tag("tr", *row) for row in cells)


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A definition list; values are markup."""
    return tag("dl", *(tag("div", tag("dt", text(name)), tag("dd", value)) for name, value in pairs), class_="facts")


def listing(names: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *head, last = names
    return f"{', '.join(head)} and {last}" if head else last
