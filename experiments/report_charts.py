"""Small charts as hand-written SVG: curves, dots with intervals, code frequencies.

Drawn in a 360-unit-wide frame that the page scales; colors come from the page's style, so charts follow light and dark.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .report_markup import color, tag, text

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 360, 46, 10, 8, 24


@dataclass(frozen=True)
class Line:
    """One curve; `index` is the design whose color it takes."""

    label: str
    points: tuple[tuple[float, float], ...]
    index: int
    is_dashed: bool = False


@dataclass(frozen=True)
class Dot:
    """One row of a dot chart: the mean, its interval, single seeds, and what bounds it."""

    label: str
    index: int
    mean: float
    printed: str
    low: float | None = None
    high: float | None = None
    seeds: tuple[float, ...] = ()
    floor: float | None = None
    ceiling: float | None = None


def line_chart(
    lines: Sequence[Line],
    *,
    height: int = 190,
    name: str = "",
    axis: str = "step",
    is_x_logarithmic: bool = False,
    is_marked: bool = False,
) -> str:
    """Curves over `axis`; the value axis is logarithmic when positive values span more than a factor of 30.

    Lines of one point are dots; `is_marked` draws a dot at every point of the others too.
    """
    points = [point for line in lines for point in line.points]
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    if is_x_logarithmic:  # room for the dots at both ends
        x_low, x_high = x_low / 1.2, x_high * 1.2
    values = [y for _, y in points]
    is_log = min(values) > 0 and max(values) / min(values) > 30
    x_ticks = round_log_ticks(x_low, x_high) if is_x_logarithmic else ticks(x_low, x_high, 4)
    y_ticks = log_ticks(min(values), max(values)) if is_log else ticks(min(values), max(values), 4)
    low, high = min(values[0], *values, *y_ticks[:1]), max(*values, *y_ticks[-1:])

    def x_at(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * _share(x, x_low, x_high, is_x_logarithmic)

    def y_at(y: float) -> float:
        share = _share(y, low, high, is_log)
        return height - BOTTOM - (height - BOTTOM - TOP) * share

    parts = [_gridline(y_at(y), _short(y)) for y in y_ticks if low <= y <= high]
    parts += [_x_label(x_at(x), height, _short(x)) for x in x_ticks if x_low <= x <= x_high]
    parts.append(tag("text", text(axis), x=LEFT - 12, y=height - 8, class_="axis", text_anchor="end"))
    for line in lines:
        path = "M" + "L".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in line.points)
        dashes = "5 3" if line.is_dashed else None
        title = tag("title", text(f"{line.label}: last {line.points[-1][1]:.4g}"))
        style = f"color:{color(line.index)}"
        if len(line.points) > 1:
            parts.append(tag("path", title, d=path, class_="line", stroke_dasharray=dashes, style=style))
        for x, y in line.points if is_marked or len(line.points) == 1 else ():
            words = tag("title", text(f"{line.label}: {y:.4g} at {x:.4g}")) if is_marked else title
            radius = 4 if is_marked and len(line.points) == 1 else 2.5
            parts.append(
                tag("circle", words, cx=f"{x_at(x):.1f}", cy=f"{y_at(y):.1f}", r=radius, class_="point", style=style)
            )
    return _svg(height, parts, f"{name}{', logarithmic' if is_log else ''}")


def is_logarithmic(lines: Sequence[Line]) -> bool:
    values = [y for line in lines for _, y in line.points]
    return min(values) > 0 and max(values) / min(values) > 30


def dot_chart(dots: Sequence[Dot], *, name: str = "") -> str:
    """Shares between 0 and 1: a dot and interval per design, single seeds faint, ceiling and floor as ticks."""
    row, label_width, value_width = 22, 124, 44
    height = TOP + row * len(dots) + BOTTOM - 4
    left, right = label_width, WIDTH - value_width

    def x_at(x: float) -> float:
        return left + (right - left) * min(max(x, 0.0), 1.0)

    parts: list[str] = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(
            tag("line", x1=f"{x_at(tick):.1f}", x2=f"{x_at(tick):.1f}", y1=TOP, y2=height - BOTTOM + 4, class_="grid")
        )
        if tick in (0.0, 0.5, 1.0):
            parts.append(_x_label(x_at(tick), height, _short(tick)))
    for position, dot in enumerate(dots):
        y = TOP + row * (position + 0.5)
        parts.append(
            tag(
                "text",
                text(_clip(dot.label)),
                tag("title", text(dot.label)),
                x=label_width - 10,
                y=y + 4,
                class_="label",
            )
        )
        parts.append(tag("text", text(dot.printed), x=WIDTH, y=y + 4, class_="value"))
        for bound, class_ in ((dot.floor, "floor"), (dot.ceiling, "ceiling")):
            if bound is not None:
                mark = f"{x_at(bound):.1f}"
                title = tag("title", text(f"{class_} {bound:.3f}"))
                parts.append(tag("line", title, x1=mark, x2=mark, y1=y - 7, y2=y + 7, class_=class_))
        style = f"color:{color(dot.index)}"
        if dot.low is not None and dot.high is not None:
            parts.append(
                tag(
                    "line",
                    x1=f"{x_at(dot.low):.1f}",
                    x2=f"{x_at(dot.high):.1f}",
                    y1=y,
                    y2=y,
                    class_="interval",
                    style=style,
                )
            )
        parts += [tag("circle", cx=f"{x_at(v):.1f}", cy=y, r=2, class_="seed", style=style) for v in dot.seeds]
        parts.append(tag("circle", cx=f"{x_at(dot.mean):.1f}", cy=y, r=4, class_="point", style=style))
    return _svg(height, parts, name)


def frequency_chart(counts: Sequence[int], index: int, *, height: int = 150) -> str:
    """Code frequencies, most used first, relative to uniform use, on a logarithmic axis."""
    total, size = sum(counts), len(counts)
    ordered = sorted(counts, reverse=True)
    relative = [count * size / total for count in ordered] if total else [0.0] * size
    positive = [value for value in relative if value > 0] or [1.0]
    low, high = (
        min(0.1, 10 ** math.floor(math.log10(min(positive)))),
        max(10.0, 10 ** math.ceil(math.log10(max(positive)))),
    )
    low = max(low, 1e-3)

    def y_at(value: float) -> float:
        return height - BOTTOM - (height - BOTTOM - TOP) * _share(max(value, low), low, high, True)

    def x_at(rank: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * rank / size

    parts = [_gridline(y_at(value), _times(value)) for value in log_ticks(low, high)]
    stride = max(1, size // 256)
    corners = [f"{x_at(0):.1f},{height - BOTTOM}"]
    for start in range(0, size, stride):
        mean = math.fsum(relative[start : start + stride]) / len(relative[start : start + stride])
        level = y_at(mean) if mean > 0 else height - BOTTOM
        corners += [f"{x_at(start):.1f},{level:.1f}", f"{x_at(min(start + stride, size)):.1f},{level:.1f}"]
    corners.append(f"{x_at(size):.1f},{height - BOTTOM}")
    parts.append(tag("polygon", points=" ".join(corners), class_="area", style=f"color:{color(index)}"))
    parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=f"{y_at(1):.1f}", y2=f"{y_at(1):.1f}", class_="uniform"))
    parts += [_x_label(x_at(tick), height, _short(tick)) for tick in ticks(0, size, 4) if tick <= size]
    return _svg(height, parts, "code frequencies relative to uniform use")


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers that span [low, high]; the first and last may lie just outside."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    magnitude = 10 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten inside or just around [low, high], thinned to at most six."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    stride = max(1, math.ceil((last - first) / 5))
    return [10.0**power for power in range(first, last + 1, stride)]


def round_log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times every power of ten inside [low, high] (both positive)."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10.0**power for power in powers for m in (1, 2, 5) if low <= m * 10.0**power <= high]


def _share(value: float, low: float, high: float, is_log: bool) -> float:
    if not high > low:
        return 0.5
    if is_log:
        return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
    return (value - low) / (high - low)


def _svg(height: float, parts: list[str], name: str) -> str:
    return tag("svg", *parts, viewBox=f"0 0 {WIDTH} {height:g}", role="img", aria_label=name)


def _gridline(y: float, label: str) -> str:
    line = tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="grid")
    return line + tag("text", text(label), x=LEFT - 6, y=f"{y + 3.5:.1f}", class_="axis", text_anchor="end")


def _x_label(x: float, height: float, label: str) -> str:
    anchor = "end" if x > WIDTH - 24 else "middle"
    return tag("text", text(label), x=f"{x:.1f}", y=height - 8, class_="axis", text_anchor=anchor)


def _short(value: float) -> str:
    if abs(value) >= 1e5 or 0 < abs(value) < 1e-3:
        mantissa, _, power = f"{value:.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(power)}"
    return f"{value:,.{4 if abs(value) < 1000 else 6}g}".replace(",", "\u202f").replace("-", "\u2212")


def _times(value: float) -> str:
    return f"{_short(value)}×"


def _clip(label: str, width: int = 18) -> str:
    return label if len(label) <= width else label[: width - 1].rstrip() + "…"
