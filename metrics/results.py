"""The form every metric reports in, ready for `metrics.json`."""

from __future__ import annotations

import math

Row = dict[str, float | int | str | list[float]]
Rows = dict[str, Row]
Absent = dict[str, str]


def row(value: float, n: int, **extras: float | int | str | list[float] | None) -> Row:
    """One metric: its value, the number of items it was measured on, and what a reader needs beside it.

    Args:
        n: images, answers or ids, whichever the metric counts.
        extras: `interval`, `floor`, `ceiling`, `note`, ...; an extra that is None is left out.

    Raises:
        ValueError: a value that is not finite, which strict JSON cannot hold and no table can compare.
    """
    if not math.isfinite(value):
        raise ValueError(
            f"a metric came out as {value} over n={n}; a finite number is needed (check the model's outputs)."
        )
    return {"value": float(value), "n": int(n)} | {key: extra for key, extra in extras.items() if extra is not None}
