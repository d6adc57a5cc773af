"""Confidence intervals: Wilson's for proportions, Student's t for a mean over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a proportion (Wilson 1927, without continuity correction); it stays inside [0, 1].

    Unlike the normal approximation it has a width at 0 and at n successes, where accuracies of small runs often lie.
    """
    _check_confidence(confidence)
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes out of n={n}: 0 <= successes <= n and n >= 1 are needed.")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = successes / n
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # Rounding must not push a bound past the estimate itself at 0 and n successes.
    return max(0.0, min(center - half, p)), min(1.0, max(center + half, p))


def t_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean of independent repetitions (seeds) and its Student's t interval: (mean, low, high).

    At three seeds the half-width is 2.48 sample standard deviations, so honest intervals are wide.
    """
    _check_confidence(confidence)
    n = len(values)
    if n < 2:
        raise ValueError(f"an interval over seeds needs at least 2 values, got {n}; run more seeds (seeds=[0,1,2]).")
    from scipy.special import stdtrit  # scipy.stats would add most of a second for this one quantile

    mean = fmean(values)
    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * stdev(values) / math.sqrt(n)
    return mean, mean - half, mean + half


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence} must lie strictly between 0 and 1, for example 0.95.")
