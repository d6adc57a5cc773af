"""What every image metric asks of its input, and the 8-bit pictures that feature networks see."""

from __future__ import annotations

import torch
from torch import Tensor


def check_images(images: Tensor, name: str = "images") -> None:
    """Accepts finite float RGB (B, 3, H, W) and raises ValueError on anything else."""
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(
            f"{name} are {images.dtype} of shape {tuple(images.shape)}; float (B, 3, H, W) in [0, 1] is needed: "
            "divide uint8 pixels by 255 first."
        )
    if not torch.isfinite(images).all():
        raise ValueError(f"{name} hold NaN or infinity; finite values in [0, 1] are needed (the decoder diverged?).")


def to_uint8(images: Tensor) -> Tensor:
    """(..., 3, H, W) float in [0, 1] -> uint8, rounded to nearest: what a saved picture would hold.

    Values outside [0, 1] are clamped, as a viewer would show them.
    """
    return images.float().clamp(0, 1).mul(255).round().to(torch.uint8)
