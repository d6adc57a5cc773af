"""Pixels of any size to the square a tokenizer reads: resize, crop and flip, as one recorded policy."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from .counter_random import uniforms
from .letterbox import letterbox
from .official_preparation import adm_center_crop, lanczos_center_crop

# Whole preparations of releases, to the pixel: (H, W, 3) uint8, size -> (size, size, 3) uint8
PUBLISHED = {"letterbox": letterbox, "adm": adm_center_crop, "lanczos": lanczos_center_crop}
RESIZES = ("shortest", "squash", "pad", *PUBLISHED)
FILTERS = {"adm": "box to twice the size, then bicubic (Pillow)", "lanczos": "Lanczos (Pillow)"}
CROPS = ("center", "random")


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How images come to one size. Resizing is bicubic with antialiasing, on uint8, unless `resize` says otherwise.

    Args:
        resize: "shortest" brings the shorter side to the size and crops the longer one; "squash" changes the aspect
            ratio; "pad" brings the longer side to the size and centers the image on black; "letterbox" does so on gray,
            as Janus does (letterbox.py). "adm" and "lanczos" are "shortest" with the filters and the rounding of
            LlamaGen's evaluation and of Chameleon, for comparison with their numbers (official_preparation.py).
        crop: where "shortest" cuts: "center", or "random" along the longer side (training only).
        flip: probability of a left-right mirror image (training only). 0 by default, because captions may name sides.
        min_size: pixels; an image with a shorter side below it is not used.
        seed: of random crops and flips.
    """

    resize: Literal["shortest", "squash", "pad", "letterbox", "adm", "lanczos"] = "shortest"
    crop: Literal["center", "random"] = "center"
    flip: float = 0.0
    min_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resize not in RESIZES:
            raise ValueError(f"resize={self.resize!r} is unknown; use one of {', '.join(RESIZES)} (data.resize).")
        if self.crop not in CROPS:
            raise ValueError(f"crop={self.crop!r} is unknown; use one of {', '.join(CROPS)} (data.crop).")
        if self.crop == "random" and self.resize != "shortest":
            raise ValueError(f"crop=random has nothing to cut after resize={self.resize}; use data.resize=shortest.")
        if not 0 <= self.flip <= 1:
            nearest = min(max(self.flip, 0), 1)
            raise ValueError(f"flip={self.flip} is no probability in [0, 1]; the nearest is {nearest} (data.flip).")
        if self.min_size < 1:
            raise ValueError(f"min_size={self.min_size} pixels is too small; use 1 or more (data.min_size).")

    @property
    def is_random(self) -> bool:
        return self.crop == "random" or self.flip > 0

    def plain(self) -> "Preparation":
        """The same policy without chance: what evaluation splits and token caches see."""
        return replace(self, crop="center", flip=0.0)

    def record(self, image_size: int) -> dict[str, Any]:
        """Plain values for run records and fingerprints."""
        return {
            "image_size": image_size,
            "resize": self.resize,
            "filter": FILTERS.get(self.resize, "bicubic, antialiased"),
            "crop": self.crop,
            "flip": self.flip,
            "augmentation_seed": self.seed if self.is_random else None,
            "min_size": self.min_size,
            "transparency": "on white",
            "orientation": "EXIF applied",
        }

    def resized(self, pixels: np.ndarray, size: int) -> np.ndarray:
        """(H, W, 3) uint8 to (h, w, 3) uint8 with h, w >= size; only a random crop leaves more than a square."""
        height, width = pixels.shape[:2]
        if self.resize == "squash":
            return _bicubic(pixels, size, size)
        if self.resize in PUBLISHED:
            return PUBLISHED[self.resize](pixels, size)
        scale = size / (min(height, width) if self.resize == "shortest" else max(height, width))
        scaled = _bicubic(pixels, max(1, round(height * scale)), max(1, round(width * scale)))
        if self.resize == "pad":
            canvas = np.zeros((size, size, 3), dtype=np.uint8)
            _center(canvas, scaled.shape[0], scaled.shape[1])[:] = scaled
            return canvas
        return scaled if self.crop == "random" else _center(scaled, size, size)

    def view(self, resized: np.ndarray, size: int, index: int, step: int | None) -> np.ndarray:
        """The (size, size, 3) square shown at `step`, a pure function of (seed, step, index).

        None asks for the plain view: center crop, no flip.
        """
        if step is None or not self.is_random:
            return _center(resized, size, size)
        shift, mirror = uniforms(f"augmentation/{self.seed}/{step}", np.array([index]), 2)[0]
        if self.crop == "random":
            top, left = (int(shift * (side - size + 1)) for side in resized.shape[:2])
            resized = resized[top : top + size, left : left + size]
        return resized[:, ::-1] if mirror < self.flip else resized


def _center(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def _bicubic(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Within one grey level of Pillow's bicubic at a sixth of its time (256 to 64 pixels, one thread)."""
    if pixels.shape[:2] == (height, width):
        return pixels
    # a copy where needed: decoders may hand over read-only arrays, which torch does not wrap
    planes = torch.from_numpy(np.require(pixels, requirements=["C", "W"])).permute(2, 0, 1)[None]
    scaled = F.interpolate(planes, size=(height, width), mode="bicubic", antialias=True, align_corners=False)
    return scaled[0].permute(1, 2, 0).contiguous().numpy()
