"""Pixel fidelity of reconstructions: PSNR and SSIM, per image and averaged over a split."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .images import check_images
from .results import Rows, row

_WINDOW = 11
_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2  # (K1 * data_range)^2 and (K2 * data_range)^2 at data_range 1
_MSE_FLOOR = 1e-10  # 100 dB; one 8-bit step in one value of a 64 px image is 89 dB


def psnr(images: Tensor, reconstructions: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each image, (B,): -10 log10 of its mean squared error, data range 1.

    Reconstructions are clamped to [0, 1] first, as they would be shown. An exact copy counts as 100 dB instead of
    infinity, so that averages stay finite.

    Args:
        images, reconstructions: (B, 3, H, W) in [0, 1].
    """
    _check_pair(images, reconstructions)
    error = (images.float() - reconstructions.float().clamp(0, 1)).square().flatten(1)
    return -10 * error.mean(1, dtype=torch.float64).clamp_min(_MSE_FLOOR).log10()


def ssim(images: Tensor, reconstructions: Tensor) -> Tensor:
    """Structural similarity of each image, (B,) in [-1, 1]: Gaussian 11x11 window, sigma 1.5, data range 1.

    Wang et al. 2004 (equation 13): population moments, averaged over the positions where the window fits and over the
    RGB channels; scikit-image gives the same with `gaussian_weights=True, use_sample_covariance=False`.

    Args:
        images, reconstructions: (B, 3, H, W) in [0, 1], at least 11 x 11 pixels.
    """
    _check_pair(images, reconstructions)
    if min(images.shape[-2:]) < _WINDOW:
        size = tuple(images.shape[-2:])
        raise ValueError(
            f"SSIM needs images of at least {_WINDOW}x{_WINDOW} pixels, got {size} (tokenizer.image_size)."
        )
    # Two steps keep float32 exact on flat areas, where E[xy] - E[x]E[y] would cancel every digit: values are taken
    # around 0.5, and with the moments of the difference d both factors of SSIM become 1 minus something small,
    # since 2ab / (a^2 + b^2) = 1 - (a - b)^2 / (a^2 + b^2).
    x, y = images.float() - 0.5, reconstructions.float().clamp(0, 1) - 0.5
    d = x - y
    mean_x, mean_d, mean_dd, mean_squares = _blur(torch.stack([x, d, d * d, x * x + y * y]))  # (4, B, 3, H-10, W-10)
    mean_y = mean_x - mean_d
    variances = mean_squares - mean_x.square() - mean_y.square()
    luminance = 1 - mean_d.square() / ((mean_x + 0.5).square() + (mean_y + 0.5).square() + _C1)
    structure = 1 - (mean_dd - mean_d.square()) / (variances + _C2)
    return (luminance * structure).mean((1, 2, 3), dtype=torch.float64)


class ReconstructionMetrics:
    """Streams batches of a split into `rec/psnr` and `rec/ssim`, each the mean of the per-image values."""

    def __init__(self) -> None:
        self._n = 0
        self._psnr = 0.0
        self._ssim = 0.0

    def update(self, images: Tensor, reconstructions: Tensor) -> None:
        """Adds a batch of (B, 3, H, W) images and their reconstructions, both in [0, 1]."""
        self._psnr += psnr(images, reconstructions).sum().item()
        self._ssim += ssim(images, reconstructions).sum().item()
        self._n += len(images)

    def rows(self) -> Rows:
        if self._n == 0:
            raise ValueError("no image was scored; PSNR and SSIM need at least one (is the split empty?).")
        return {"rec/psnr": row(self._psnr / self._n, self._n), "rec/ssim": row(self._ssim / self._n, self._n)}


def _blur(x: Tensor) -> Tensor:
    """Gaussian-weighted means over every 11x11 window that fits: (..., H, W) -> (..., H - 10, W - 10).

    Shifted additions along each axis: on a CPU several times faster than a convolution with one channel.
    """
    weights = [math.exp(-((i - _WINDOW // 2) ** 2) / (2 * _SIGMA**2)) for i in range(_WINDOW)]
    weights = [weight / sum(weights) for weight in weights]
    for dim in (-1, -2):
        length = x.shape[dim] - _WINDOW + 1
        blurred = x.narrow(dim, 0, length) * weights[0]
        for shift in range(1, _WINDOW):
            blurred.add_(x.narrow(dim, shift, length), alpha=weights[shift])
        x = blurred
    return x


def _check_pair(images: Tensor, reconstructions: Tensor) -> None:
    check_images(images)
    check_images(reconstructions, "reconstructions")
    if images.shape != reconstructions.shape:
        raise ValueError(
            f"images {tuple(images.shape)} and reconstructions {tuple(reconstructions.shape)} must have the same shape."
        )
