"""Outlines of the scene objects, and how much of each pixel they cover."""

from collections.abc import Callable
from math import ceil, cos, pi, sin

import numpy as np
from numpy.typing import NDArray

SUPERSAMPLING = 8  # sample points per pixel and axis

Inside = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.bool_]]


def _star(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Five points; inside = left of the edge that bounds the sector of the point, by symmetry one edge."""
    outer, inner = 1.0, 0.45
    angle = np.abs((np.arctan2(x, -y) + pi / 5) % (2 * pi / 5) - pi / 5)  # 0 along a point, pi / 5 along a notch
    radius = np.hypot(x, y)
    px, py = radius * np.cos(angle), radius * np.sin(angle)
    edge_x, edge_y = inner * cos(pi / 5) - outer, inner * sin(pi / 5)
    return edge_x * py - edge_y * (px - outer) >= 0


def _heart(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(u^2 + v^2 - 1)^3 <= u^2 v^3, scaled and shifted into the unit box."""
    u, v = 1.16 * x, -1.12 * y + 0.12
    return (u**2 + v**2 - 1) ** 3 <= u**2 * v**3


# Coordinates are in units of the object's radius, x to the right and y down; outlines end at -1 and 1 on both axes.
OUTLINES: dict[str, Inside] = {
    "circle": lambda x, y: x**2 + y**2 <= 1,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) <= 0.9,
    "triangle": lambda x, y: (np.abs(x) <= (y + 1) / 1.8) & (y <= 0.8),
    "diamond": lambda x, y: np.abs(x) + np.abs(y) <= 1,
    "cross": lambda x, y: np.minimum(np.abs(x), np.abs(y)) <= 0.35,
    "ring": lambda x, y: np.abs(x**2 + y**2 - 0.65) <= 0.35,
    "star": _star,
    "heart": _heart,
}


def coverage(shape: str, radius: float, half: int, offset: tuple[float, float] = (0.0, 0.0)) -> NDArray[np.float32]:
    """Share of each pixel that a shape covers: (2 half, 2 half) in [0, 1], the centre on the middle pixel corner.

    Args:
        radius: half the width of the shape's box, in pixels.
        half: half the side of the result, in pixels; at least `ceil(radius)` to hold the whole shape.
        offset: (y, x) of the shape's centre from the middle, in pixels.
    """
    side = 2 * half
    samples = (np.arange(side * SUPERSAMPLING) + 0.5) / SUPERSAMPLING - half
    x, y = np.meshgrid((samples - offset[1]) / radius, (samples - offset[0]) / radius)
    box = np.maximum(np.abs(x), np.abs(y)) <= 1
    inside = (OUTLINES[shape](x, y) & box).reshape(side, SUPERSAMPLING, side, SUPERSAMPLING)
    return inside.mean(axis=(1, 3), dtype=np.float32)


def sprites(shapes: tuple[str, ...], radii: tuple[float, ...]) -> NDArray[np.float32]:
    """Coverage of every shape at every radius (pixels): (shapes, radii, S, S), S just holding the largest."""
    half = ceil(max(radii))
    return np.stack([np.stack([coverage(shape, radius, half) for radius in radii]) for shape in shapes])


def stripes(half: int, period: float) -> NDArray[np.float32]:
    """Which part of each pixel row lies in a bright stripe: (2 half,) in [0, 1]; bright and dark are equally wide.

    Args:
        period: height of one bright and one dark stripe together, in pixels; a bright stripe starts at the centre.
    """
    samples = (np.arange(2 * half * SUPERSAMPLING) + 0.5) / SUPERSAMPLING - half
    bright = (samples / period) % 1 < 0.5
    return bright.reshape(2 * half, SUPERSAMPLING).mean(axis=1, dtype=np.float32)
