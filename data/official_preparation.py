"""Image preparation exactly as releases do it, with Pillow: for comparing with their numbers.

A faster preparation for everything else is preparation.py, within a grey level of Pillow's bicubic. Pictures here are
(H, W, C) uint8 arrays. Another version of Pillow may differ by one grey level.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image


def adm_center_crop(pixels: np.ndarray, size: int) -> np.ndarray:
    """(H, W, 3) -> (size, size, 3): the center crop of ADM (Dhariwal and Nichol 2021) that LlamaGen evaluates with.

    Sides are halved with a box filter while the shorter one is at least twice `size`, then the shorter one is brought
    to `size` with a bicubic filter.
    """
    from PIL import Image

    image = Image.fromarray(pixels)
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    return center(shorter_side_to(image, size, Image.Resampling.BICUBIC), size)


def lanczos_center_crop(pixels: np.ndarray, size: int) -> np.ndarray:
    """(H, W, 3) -> (size, size, 3): the shorter side to `size` with a Lanczos filter, then the center (Chameleon)."""
    from PIL import Image

    return center(shorter_side_to(Image.fromarray(pixels), size, Image.Resampling.LANCZOS), size)


def on_white(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 4) -> (H, W, 3): blended onto white, truncated to whole grey levels (Chameleon). RGB stays as it is."""
    if pixels.shape[2] == 3:
        return pixels
    colors, alpha = pixels[..., :3], pixels[..., 3:]
    if (alpha == 255).all():
        return np.ascontiguousarray(colors)
    opacity = alpha / 255
    return ((1 - opacity) * 255 + opacity * colors).astype(np.uint8)


def truncated_uint8(planes: np.ndarray) -> np.ndarray:
    """(3, H, W) floats in [-1, 1] -> (H, W, 3), cut off to whole grey levels instead of rounded (Chameleon)."""
    levels = (np.clip(planes, -1, 1) + 1) / 2 * 255
    return levels.astype(np.uint8).transpose(1, 2, 0)


def shorter_side_to(image: Image.Image, size: int, resampling: Image.Resampling) -> Image.Image:
    scale = size / min(image.size)
    return image.resize((round(image.width * scale), round(image.height * scale)), resampling)


def center(image: Image.Image, size: int) -> np.ndarray:
    """The (size, size, 3) center, half a pixel up and left where it has to be."""
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.array(image)[top : top + size, left : left + size]
