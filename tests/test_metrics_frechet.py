"""Frechet and kernel distances against scipy's matrix square root, naive loops and torch-fidelity."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from tessella.metrics.frechet import (
    FeatureStatistics,
    frechet_distance,
    kernel_distance,
    kernel_distance_of_subsets,
)


def features(n: int, dim: int, seed: int, scale: float = 1.0, offset: float = 0.0) -> torch.Tensor:
    """Correlated features far from the origin, as pooled activations are."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=torch.Generator().manual_seed(99), dtype=torch.float64) / dim**0.5
    return scale * torch.randn(n, dim, generator=generator, dtype=torch.float64) @ mixing + offset + 3


def statistics(x: torch.Tensor, batch: int = 7) -> FeatureStatistics:
    result = FeatureStatistics(x.shape[1])
    for part in x.split(batch):
        result.update(part)
    return result


def frechet_by_sqrtm(a: torch.Tensor, b: torch.Tensor) -> float:
    x, y = a.numpy(), b.numpy()
    cov_a, cov_b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.real(sqrtm(cov_a @ cov_b))
    return float(np.square(x.mean(0) - y.mean(0)).sum() + np.trace(cov_a + cov_b - 2 * root))


@pytest.mark.parametrize("n", [5, 12, 1024, 1025, 2500])  # rows kept, n = dim, buffer full, flushed once and twice
def test_streamed_moments_match_numpy(n: int) -> None:
    x = features(n, 12, seed=0)
    for batch in (7, n):
        streamed = statistics(x, batch)
        expected = np.cov(x.numpy(), rowvar=False)
        assert streamed.n == n
        np.testing.assert_allclose(streamed.mean, x.numpy().mean(0), rtol=1e-13)
        np.testing.assert_allclose(streamed.covariance, expected, atol=1e-13)
        assert np.array_equal(streamed.covariance, streamed.covariance.T)
        assert streamed.total_variance == pytest.approx(np.trace(expected), rel=1e-12)


def test_wide_and_half_precision_features_have_symmetric_covariances() -> None:
    x = features(600, 530, seed=0).half()
    for half in (x, x.bfloat16()):
        streamed = statistics(half, 64).covariance
        np.testing.assert_allclose(streamed, np.cov(half.double().numpy(), rowvar=False), atol=1e-12)
        assert np.array_equal(streamed, streamed.T)


def test_reading_moments_does_not_disturb_the_stream() -> None:
    x = features(1500, 6, seed=0)
    read, unread = FeatureStatistics(6), FeatureStatistics(6)
    for part in x.split(100):
        read.update(part)
        assert read.n < 2 or read.covariance.shape == (6, 6)
        unread.update(part)
    assert np.array_equal(read.covariance, unread.covariance)


@pytest.mark.parametrize(
    ("n", "m"), [(60, 40), (1500, 2100), (9, 7), (9, 200), (200, 9), (12, 12)]
)  # full rank, flushed, both low rank, one low rank, n = dim (singular)
def test_frechet_distance_matches_sqrtm(n: int, m: int) -> None:
    a, b = features(n, 12, seed=1), features(m, 12, seed=2, scale=1.4, offset=0.2)
    expected = frechet_by_sqrtm(a, b)
    # sqrtm itself loses digits on singular products.
    assert frechet_distance(statistics(a), statistics(b)) == pytest.approx(
        expected, rel=1e-9 if min(n, m) > 12 else 1e-6
    )
    assert frechet_distance(statistics(b), statistics(a)) == pytest.approx(expected, rel=1e-6)


def frechet_by_svd(a: torch.Tensor, b: torch.Tensor) -> float:
    """Accurate for singular covariances: the trace of the root is the nuclear norm of one product of centered rows."""
    x, y = ((z - z.mean(0)).numpy() / (len(z) - 1) ** 0.5 for z in (a, b))
    offset = np.square(a.numpy().mean(0) - b.numpy().mean(0)).sum()
    return float(offset + np.square(x).sum() + np.square(y).sum() - 2 * np.linalg.svd(x @ y.T, compute_uv=False).sum())


@pytest.mark.parametrize(("n", "m"), [(30, 20), (30, 300), (63, 64)])
def test_fewer_images_than_dimensions_is_exact(n: int, m: int) -> None:
    a, b = features(n, 64, seed=1), features(m, 64, seed=2, scale=1.2)
    assert frechet_distance(statistics(a), statistics(b)) == pytest.approx(frechet_by_svd(a, b), rel=1e-8)


def test_features_that_never_vary_are_no_obstacle() -> None:
    a, b = features(200, 12, seed=1), features(300, 12, seed=2, scale=1.4)
    a[:, 3] = 0.25
    b[:, 3] = 0.75
    a[:, 7] = b[:, 7] = 0
    kept = [i for i in range(12) if i not in (3, 7)]
    expected = frechet_by_sqrtm(a[:, kept], b[:, kept]) + 0.25
    assert frechet_distance(statistics(a), statistics(b)) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("n", [8, 100, 1500])
def test_a_set_is_at_distance_zero_from_itself(n: int) -> None:
    a = statistics(features(n, 12, seed=0))
    assert 0 <= frechet_distance(a, a) < 1e-6


def test_shifted_set_is_at_the_squared_length_of_the_shift() -> None:
    x = features(100, 12, seed=0)
    assert frechet_distance(statistics(x), statistics(x + 0.5)) == pytest.approx(12 * 0.25, rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(300, 400), (20, 30)])
def test_frechet_distance_matches_torch_fidelity(n: int, m: int) -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    a, b = features(n, 32, seed=1), features(m, 32, seed=2, scale=1.3)
    expected = fid_statistics_to_metric(fid_features_to_statistics(a), fid_features_to_statistics(b), verbose=False)
    ours = frechet_distance(statistics(a), statistics(b))
    assert ours == pytest.approx(expected["frechet_inception_distance"], rel=1e-6)


def kernel_distance_by_loops(a: torch.Tensor, b: torch.Tensor) -> float:
    def kernel(x: torch.Tensor, y: torch.Tensor) -> float:
        return (float(x @ y) / len(x) + 1) ** 3

    n, m = len(a), len(b)
    within_a = sum(kernel(a[i], a[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_b = sum(kernel(b[i], b[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    across = sum(kernel(x, y) for x in a for y in b) / (n * m)
    return within_a + within_b - 2 * across


@pytest.mark.parametrize("block", [4, 5, 1024])
def test_kernel_distance_matches_loops(block: int) -> None:
    a, b = features(14, 6, seed=1), features(9, 6, seed=2, scale=1.3)
    expected = kernel_distance_by_loops(a, b)
    assert kernel_distance(a, b, block=block) == pytest.approx(expected, rel=1e-10)
    assert kernel_distance(b, a, block=block) == pytest.approx(expected, rel=1e-10)


def test_kernel_distance_has_no_bias_where_the_frechet_distance_has() -> None:
    halves = [(features(50, 16, seed=2 * i), features(50, 16, seed=2 * i + 1)) for i in range(40)]
    values = np.array([kernel_distance(a, b) for a, b in halves])
    assert abs(values.mean()) < 3 * values.std() / len(values) ** 0.5
    assert (values < 0).any()
    assert min(frechet_distance(statistics(a), statistics(b)) for a, b in halves) > 0.5


def test_kernel_distance_matches_torch_fidelity() -> None:
    from torch_fidelity.metric_kid import kid_features_to_metric

    a, b = features(60, 16, seed=1).float(), features(60, 16, seed=2, scale=1.2).float()
    protocol = {"kid_subset_size": 60, "kid_subsets": 3, "verbose": False}  # whole sets: no choice of subsets is left
    expected = kid_features_to_metric(a, b, **protocol)["kernel_inception_distance_mean"]
    assert kernel_distance(a, b) == pytest.approx(expected, rel=1e-3)  # torch-fidelity works in float32
    assert kernel_distance_of_subsets(a, b, num_subsets=3, subset_size=60)[0] == pytest.approx(kernel_distance(a, b))


def test_subsets_are_seeded_and_centered_on_the_whole() -> None:
    a, b = features(200, 8, seed=1), features(250, 8, seed=2, scale=1.3)
    mean, std = kernel_distance_of_subsets(a, b, num_subsets=50, subset_size=100)
    assert (mean, std) == kernel_distance_of_subsets(a, b, num_subsets=50, subset_size=100)
    assert mean != kernel_distance_of_subsets(a, b, num_subsets=50, subset_size=100, seed=1)[0]
    assert abs(mean - kernel_distance(a, b)) < std


def test_too_few_images_or_unlike_features_are_named() -> None:
    one, two = features(1, 4, seed=0), features(2, 4, seed=0)
    with pytest.raises(ValueError, match="statistics of 1 images: at least 2"):
        frechet_distance(statistics(one), statistics(two))
    with pytest.raises(ValueError, match="at least 2"):
        frechet_distance(statistics(two), statistics(one))
    with pytest.raises(ValueError, match="statistics of 0 images"):
        _ = FeatureStatistics(4).mean
    with pytest.raises(ValueError, match="widths 4 and 5"):
        frechet_distance(statistics(two), statistics(features(2, 5, seed=0)))
    with pytest.raises(ValueError, match=r"\(B, 4\) is needed"):
        FeatureStatistics(4).update(features(2, 5, seed=0))
    with pytest.raises(ValueError, match="NaN"):
        FeatureStatistics(4).update(two * float("nan"))
    with pytest.raises(ValueError, match="dim=0"):
        FeatureStatistics(0)
    with pytest.raises(ValueError, match="got 1 and 2"):
        kernel_distance(one, two)
    with pytest.raises(ValueError, match=r"\(n, D\) and \(m, D\)"):
        kernel_distance(two, features(2, 5, seed=0))
    with pytest.raises(ValueError, match="subset_size=1000 exceeds the 2 images"):
        kernel_distance_of_subsets(two, two)
