"""Feature distances of an evaluation, with the real images' features computed once per data set."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ..data.base import ImageDataset
from ..metrics.extractors import FeatureExtractor, extractor_classes
from ..metrics.feature_distance import absent_distances, feature_distances
from .phase import Evaluation
from .runs import write_atomic


def add_distances(
    result: Evaluation,
    purpose: Literal["rec", "gen"],
    images: Tensor,
    reference: ImageDataset,
    count: int,
    cache: Path,
    note: Callable[[str], None],
    batch_size: int,
    device: torch.device,
) -> None:
    """Add the distances of `images` from the first `count` real images in every feature space at hand.

    Args:
        images: (n, 3, H, W) uint8.
        reference: the split that holds the real images.
        cache: folder for the features of the real images, shared by all runs on this data.
    """
    result.absent |= absent_distances(purpose)
    for extractor_class in extractor_classes():
        if extractor_class.unavailable() is not None:
            continue
        extractor = extractor_class(device)
        note(f"{extractor.name} features of {count} real images")
        real = _reference_features(extractor, reference, count, cache, batch_size)
        note(f"{extractor.name} features of {len(images)} {'reconstructions' if purpose == 'rec' else 'samples'}")
        features = extractor.features_of(part.float() / 255 for part in images.split(batch_size))
        metrics, absent = feature_distances(extractor, purpose, real, features)
        result.metrics |= metrics
        result.absent |= absent


def _reference_features(
    extractor: FeatureExtractor, data: ImageDataset, count: int, cache: Path, batch_size: int
) -> Tensor:
    key = [extractor.name, extractor.protocol, extractor.weights_hash, data.fingerprint, count]
    file = cache / f"features-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.safetensors"
    if file.is_file():
        return load_file(file)["features"]
    starts = range(0, count, batch_size)
    features = extractor.features_of(data.batch(range(s, min(s + batch_size, count))).images for s in starts)
    write_atomic(file, save({"features": features}))
    return features
