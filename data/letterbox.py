"""A whole picture on a gray square: how Janus' processor shows images to its understanding encoder."""

from collections.abc import Sequence

import numpy as np


def letterbox(
    pixels: np.ndarray, size: int, *, min_size: int = 14, background: Sequence[int] = (127, 127, 127)
) -> np.ndarray:
    """(H, W, 3) uint8 to (size, size, 3) uint8: the longer side becomes `size`, the picture lies in the center.

    The shorter side is cut to whole pixels, not rounded, and is `min_size` pixels at least. Pillow's bicubic filter, so
    that pixels are Janus' own (VLMImageProcessor of deepseek-ai/Janus).

    Args:
        background: levels of red, green and blue around the picture; Janus takes int(mean * 255) of its normalization.
    """
    from PIL import Image

    height, width = pixels.shape[:2]
    longest = max(height, width)
    new_height, new_width = (max(int(side / longest * size), min(min_size, size)) for side in (height, width))
    canvas = np.empty((size, size, 3), dtype=np.uint8)
    canvas[:] = np.asarray(background, dtype=np.uint8)
    top, left = (size - new_height) // 2, (size - new_width) // 2
    scaled = Image.fromarray(pixels).resize((new_width, new_height), Image.Resampling.BICUBIC)
    canvas[top : top + new_height, left : left + new_width] = np.asarray(scaled)
    return canvas
