"""Where a picture differs from its background: the blobs that may be objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LOWEST_CONTRAST = 0.18  # distance from the background (RGB in [0, 1]) below which nothing is seen
EDGE_LEVEL = 0.4  # share of the highest contrast nearby at which blobs end: two neighbours blurred into one come apart
NEARBY = 7  # pixels, side of the window of "nearby"
FLAT = 0.3  # distance within which at least half of the pixels lie from the background; else there is none
REACH = 5  # pixels, side of the window within which a blob's blurred rim belongs to it


@dataclass(frozen=True, eq=False)
class Blobs:
    """What differs from the background in B pictures of side S; n blobs in all."""

    difference: Tensor  # (B, 3, S, S) picture minus its background
    background: Tensor  # (B, 3)
    owner: Tensor  # (B, S, S) int64: 1 + the blob a pixel belongs to, 0 for none
    image: Tensor  # (n,) int64: the picture a blob is in
    area: Tensor  # (n,) int64: pixels, without the rim
    box: Tensor  # (n, 4) int64: top, bottom, left, right; bottom and right are one past the last pixel


def find_blobs(images: Tensor, smallest: float) -> Blobs:
    """Connected regions of at least `smallest` pixels that stand out from the flat background.

    The background is the median of the border. Contrast is the distance to it after a 3 x 3 binomial blur, which keeps
    pixel noise from being seen as dots. A picture without a flat background, such as noise, has no blobs.

    Args:
        images: (B, 3, S, S) in [0, 1].
    """
    from scipy import ndimage

    border = torch.cat([images[:, :, 0], images[:, :, -1], images[:, :, :, 0], images[:, :, :, -1]], dim=-1)
    background = border.median(dim=-1).values  # (B, 3)
    difference = images - background[:, :, None, None]
    contrast = _binomial_blur(difference).norm(dim=1)  # (B, S, S)
    highest = F.max_pool2d(contrast[:, None], NEARBY, stride=1, padding=NEARBY // 2)[:, 0]
    seen = (contrast > LOWEST_CONTRAST) & (contrast > EDGE_LEVEL * highest)
    seen &= difference.norm(dim=1).flatten(1).median(dim=1).values[:, None, None] < FLAT
    touching = np.zeros((3, 3, 3))
    touching[1] = 1  # the eight neighbours within a picture, none in the next picture
    labels = np.empty(seen.shape, dtype=np.int32)
    found = int(ndimage.label(seen.numpy(), structure=touching, output=labels))  # pyright: ignore[reportArgumentType]
    areas = np.bincount(labels.ravel(), minlength=found + 1)
    areas[0] = 0
    kept = np.flatnonzero(areas >= smallest)
    renumbered = np.zeros(found + 1, dtype=np.int64)
    renumbered[kept] = np.arange(1, len(kept) + 1)
    labels = renumbered[labels]
    places = [[at.start, at.stop] for place in ndimage.find_objects(labels) for at in place]
    places = torch.tensor(places, dtype=torch.int64).reshape(len(kept), 3, 2)
    owner = torch.from_numpy(labels)
    rim = F.max_pool2d(owner[:, None].float(), REACH, stride=1, padding=REACH // 2)[:, 0].long()
    return Blobs(
        difference=difference,
        background=background,
        owner=torch.where(owner > 0, owner, rim),
        image=places[:, 0, 0],
        area=torch.from_numpy(areas[kept]),
        box=places[:, 1:].flatten(1),
    )


def cut_windows(blobs: Blobs, centers: Tensor, half: int) -> Tensor:
    """What is around each blob's centre and belongs to it alone, zero elsewhere: (n, 3, 2 half, 2 half).

    Args:
        centers: (n, 2) pixel corners (y, x) in the middle of the windows.
    """
    margin, side = (half,) * 4, 2 * half
    y, x = centers.unbind(1)
    colors = F.pad(blobs.difference, margin).unfold(2, side, 1).unfold(3, side, 1)[blobs.image, :, y, x]
    owners = F.pad(blobs.owner, margin).unfold(1, side, 1).unfold(2, side, 1)[blobs.image, y, x]
    own = owners == torch.arange(1, len(centers) + 1)[:, None, None]
    return colors * own[:, None]


def _binomial_blur(images: Tensor) -> Tensor:
    """(1, 2, 1) / 4 along both axes, edges repeated."""
    x = F.pad(images, (1, 1, 1, 1), mode="replicate")
    x = (x[:, :, :-2] + 2 * x[:, :, 1:-1] + x[:, :, 2:]) / 4
    return (x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]) / 4
