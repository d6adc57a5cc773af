"""Feature extractors: the spaces in which Frechet and kernel distances are taken.

An extractor says before any work whether it can run (`unavailable`), and every number made with it carries its name,
its protocol and the hash of its weights. A Frechet distance is called FID only when the extractor is FID's own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from .images import check_images, to_uint8
from .precision import full_float32
from .weight_files import file_hash

Purpose = Literal["rec", "gen"]  # reconstructions of the split, or images generated for its captions

_CPU_CHUNK = 4  # images per pass: their activations stay near the caches; larger passes were slower


class FeatureExtractor(ABC):
    """Images to feature vectors, always in float32.

    Args of every extractor: `device`, where the network runs.

    Raises:
        ValueError: on construction, with the reason, when `unavailable` gives one.
    """

    name: str
    feature_dim: int
    protocol: str  # how pixels become features, in words
    weights_hash: str  # SHA-256 of the weights file

    def __init__(self, device: torch.device | str = "cpu") -> None:
        reason = self.unavailable()
        if reason is not None:
            raise ValueError(f"{self.name} features: {reason}.")
        self.device = torch.device(device)
        weights = self._weights_path()
        self.weights_hash = file_hash(weights)
        # Building a network draws initial weights: the caller's random stream must not notice.
        with torch.random.fork_rng(devices=[]):
            network = self._build(weights)
        network.requires_grad_(False).eval().to(self.device)
        self._network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    @classmethod
    @abstractmethod
    def unavailable(cls) -> str | None:
        """Why this extractor cannot run here, naming file and folder; None when it can."""

    @staticmethod
    @abstractmethod
    def distance_names(purpose: Purpose) -> tuple[str, str]:
        """Metric names of the Frechet and the kernel distance in this space."""

    @classmethod
    @abstractmethod
    def _weights_path(cls) -> Path: ...

    @abstractmethod
    def _build(self, weights: Path) -> nn.Module:
        """The network from 8-bit pixels (B, 3, H, W) uint8 to (B, feature_dim)."""

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float in [0, 1] -> (B, feature_dim) float32 on the extractor's device.

        Pixels are rounded to 8 bits first: a picture scores the same before and after it is saved.
        """
        check_images(images)
        pixels = to_uint8(images).to(self.device)
        chunk = _CPU_CHUNK if self.device.type == "cpu" else len(pixels)
        with full_float32(self.device.type):
            return torch.cat([self._network(part) for part in pixels.split(max(1, chunk))])

    def features_of(self, batches: Iterable[Tensor]) -> Tensor:
        """Features of a whole split given as batches of images: (n, feature_dim) float32 on the CPU."""
        features = [self(images).cpu() for images in batches]
        return torch.cat(features) if features else torch.empty(0, self.feature_dim)


def extractor_classes() -> tuple[type[FeatureExtractor], ...]:
    """Every extractor, available or not."""
    from .efficientnet import EfficientNetLite0
    from .inception import InceptionFID

    return EfficientNetLite0, InceptionFID
