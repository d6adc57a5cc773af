"""Images at their own aspect ratio: sides that divide into cells, and an area between two bounds."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class PixelArea:
    """Sizes for a tokenizer that reads any number of cells (Emu3, arXiv:2409.18869; defaults as published).

    Args:
        min_pixels, max_pixels: bounds of height * width; smaller images are enlarged, larger ones reduced.
        factor: side of a cell in pixels; both sides become multiples of it.
        max_aspect: longer side over shorter side, at most.
    """

    min_pixels: int = 512 * 512
    max_pixels: int = 1024 * 1024
    factor: int = 8
    max_aspect: float = 5.0

    def __post_init__(self) -> None:
        if self.factor < 1 or not 0 < self.min_pixels <= self.max_pixels:
            raise ValueError(
                f"min_pixels={self.min_pixels}, max_pixels={self.max_pixels}, factor={self.factor} describe no size; "
                "use 0 < min_pixels <= max_pixels and factor of at least 1."
            )

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that an image of this height and width is brought to.

        Raises:
            ValueError: a side below one cell, or a longer side more than `max_aspect` times the shorter one.
        """
        if min(height, width) < self.factor:
            raise ValueError(f"an image of {height}x{width} pixels is smaller than a cell; use at least {self.factor}.")
        if max(height, width) > self.max_aspect * min(height, width):
            raise ValueError(
                f"an image of {height}x{width} pixels is more than {self.max_aspect:g} times as long as wide; crop it."
            )
        rows, columns = round(height / self.factor), round(width / self.factor)
        area = rows * columns * self.factor**2
        if area > self.max_pixels:
            shrink = math.sqrt(height * width / self.max_pixels) * self.factor
            rows, columns = math.floor(height / shrink), math.floor(width / shrink)
        elif area < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (height * width)) / self.factor
            rows, columns = math.ceil(height * grow), math.ceil(width * grow)
        return rows * self.factor, columns * self.factor

    def prepared(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 -> (3, h, w) float32 in [0, 1], resized by Pillow's bicubic filter."""
        from PIL import Image

        height, width = self.size(*pixels.shape[:2])
        resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(resized, dtype=np.float32).transpose(2, 0, 1) / 255


def to_pixels(image: np.ndarray) -> np.ndarray:
    """(3, H, W) in [0, 1] -> (H, W, 3) uint8: clipped and truncated, not rounded, as Emu3 published it."""
    return np.clip(image.transpose(1, 2, 0) * 255, 0, 255).astype(np.uint8)
