"""Named, annotated rows of the Frechet and kernel distance of two feature sets."""

from __future__ import annotations

from torch import Tensor

from .extractors import FeatureExtractor, Purpose, extractor_classes
from .frechet import FeatureStatistics, frechet_distance, kernel_distance, kernel_distance_of_subsets
from .results import Absent, Rows, row

_ENOUGH_IMAGES = 2000  # below it the bias of the Frechet distance is of the size of the differences between designs
_KID_SUBSET = 1000


def feature_distances(
    extractor: FeatureExtractor, purpose: Purpose, reference: Tensor, features: Tensor
) -> tuple[Rows, Absent]:
    """Both distances of scored images from real ones: (rows, reasons for what is absent).

    EfficientNet-Lite0 gives `<purpose>/fd_efflite0` and `<purpose>/kd_efflite0` (kernel distance of the whole sets);
    FID's Inception gives `rec/rfid` or `gen/gfid`, and `<purpose>/kid` by its published protocol of 100 subsets of
    1000. Each row holds n (scored images), n_reference, the protocol and the hash of the weights.

    Args:
        reference: (m, D) features of the real images, the same for every design.
        features: (n, D) features of reconstructions or generated images.

    Raises:
        ValueError: fewer than 2 images on a side, or features of another width.
    """
    frechet_name, kernel_name = extractor.distance_names(purpose)
    n, m = len(features), len(reference)
    extras = {"n_reference": m, "protocol": extractor.protocol, "weights": extractor.weights_hash[:12]}
    statistics = [FeatureStatistics(extractor.feature_dim) for _ in range(2)]
    for side, rows in zip(statistics, (reference, features), strict=True):
        side.update(rows)
    bias = (
        f"n={min(n, m)} < {_ENOUGH_IMAGES}: the Frechet distance is biased upward at this size and comparable only at "
        f"equal n; prefer {kernel_name.split('/')[-1]}"
    )
    distance = frechet_distance(*statistics)
    metrics: Rows = {frechet_name: row(distance, n, note=bias if min(n, m) < _ENOUGH_IMAGES else None, **extras)}
    absent: Absent = {}
    if not kernel_name.endswith("/kid"):
        note = "unbiased over whole sets: around 0 for equal distributions, where it may be slightly negative"
        metrics[kernel_name] = row(kernel_distance(reference, features), n, note=note, **extras)
    elif min(n, m) < _KID_SUBSET:
        absent[kernel_name] = f"KID averages subsets of {_KID_SUBSET} images; only {min(n, m)} were scored"
    else:
        value, std = kernel_distance_of_subsets(reference, features, subset_size=_KID_SUBSET)
        metrics[kernel_name] = row(value, n, std=std, note="mean and std of 100 subsets of 1000", **extras)
    return metrics, absent


def absent_distances(purpose: Purpose) -> Absent:
    """Names and reasons of the distances whose extractor cannot run here: ask before a run starts."""
    absent: Absent = {}
    for extractor in extractor_classes():
        reason = extractor.unavailable()
        if reason is not None:
            absent |= dict.fromkeys(extractor.distance_names(purpose), reason)
    return absent
