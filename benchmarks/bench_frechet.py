"""Frechet distance: from features, from statistics, and accumulation in batches of 50."""

import sys
from collections.abc import Mapping

import torch
from compare import Benchmark, Row
from torch import Tensor, nn

from tessella.metrics.frechet import FeatureStatistics, frechet_distance

OURS, FIDELITY, TORCHMETRICS = "tessella", "torch-fidelity", "torchmetrics"
SMALL_BATCH = 50  # what most FID scripts use


def main() -> int:
    bench = Benchmark(
        "frechet", "Frechet distance", ("tessella", "torch", "numpy", "scipy", "torch-fidelity", "torchmetrics")
    )
    fidelity = bench.peer("torch_fidelity.metric_fid", "torch-fidelity")
    torchmetrics = bench.peer("torchmetrics.image.fid", "torchmetrics")
    dim, many, few = (64, 300, 40) if bench.quick else (2048, 5000, 1000)
    for count, rounds, least in ((many, 2, 3), (few, 3, 10)):
        real, fake = features(count, dim, seed=0), features(count, dim, seed=1)
        contenders = {}
        if fidelity is not None:
            contenders[FIDELITY] = lambda real=real, fake=fake: with_fidelity(fidelity, real, fake)
        if torchmetrics is not None:
            contenders[TORCHMETRICS] = lambda real=real, fake=fake: with_torchmetrics(torchmetrics, real, fake)
        contenders[OURS] = lambda real=real, fake=fake: frechet_distance(gathered(real, 1000), gathered(fake, 1000))
        title = f"from features to the distance, {count} images a side, {dim} dimensions"
        rows = bench.race(title, contenders, work=1, unit="distances", rounds=rounds)
        bench.goal(f"{OURS} over {FIDELITY}", bench.ratio(rows, OURS, FIDELITY), at_least=least)
        check(bench, rows, None if count > dim else singular_values(real, fake))
    if fidelity is not None:
        solve(bench, fidelity, features(many, dim, seed=0), features(many, dim, seed=1))
    if torchmetrics is not None:
        accumulate(bench, torchmetrics, features(4 * SMALL_BATCH if bench.quick else 4000, dim, seed=2))
    return bench.finish()


def features(count: int, dim: int, seed: int) -> Tensor:
    """(count, dim) float32: correlated and never negative, as after the last ReLU and pooling of a network."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=torch.Generator().manual_seed(99)) / dim**0.5
    spectrum = (torch.arange(1, dim + 1) / dim).pow(-0.5)
    return (torch.randn(count, dim, generator=generator) * spectrum @ mixing + 0.1 * seed).relu()


def gathered(rows: Tensor, batch: int) -> FeatureStatistics:
    statistics = FeatureStatistics(rows.shape[1])
    for part in rows.split(batch):
        statistics.update(part)
    return statistics


def check(bench: Benchmark, rows: Mapping[str, Row], exact: float | None) -> None:
    """Peers take roots of eigenvalues that are zero but for rounding when there are fewer images than dimensions, so
    there they are off by about 1e-6 and the exact value comes from singular values."""
    ours = rows[OURS].result
    expected = {name: (row.result, 1e-6 if exact is None else 1e-5) for name, row in rows.items() if name != OURS}
    if exact is not None:
        expected["singular values"] = (exact, 1e-7)
    for name, (value, tolerance) in expected.items():
        error = abs(ours - value) / abs(value)
        bench.check(f"{OURS} and {name}", error < tolerance, f"{ours:.6f}, relative difference {error:.1e}")


def singular_values(real: Tensor, fake: Tensor) -> float:
    """The distance from centered rows X and Y: the trace of the root of X^T X Y^T Y is the nuclear norm of X Y^T."""
    a, b = real.double(), fake.double()
    x, y = ((rows - rows.mean(0)) / (len(rows) - 1) ** 0.5 for rows in (a, b))
    root = torch.linalg.svdvals(x @ y.T).sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + x.square().sum() + y.square().sum() - 2 * root)


def with_fidelity(fidelity, real: Tensor, fake: Tensor) -> float:
    statistics = (fidelity.fid_features_to_statistics(rows.double()) for rows in (real, fake))
    return fidelity.fid_statistics_to_metric(*statistics, False)[fidelity.KEY_METRIC_FID]


def solve(bench: Benchmark, fidelity, real: Tensor, fake: Tensor) -> None:
    """The distance alone, from statistics that are there."""
    theirs = [fidelity.fid_features_to_statistics(rows.double()) for rows in (real, fake)]
    ours = [gathered(rows, 1000) for rows in (real, fake)]
    contenders = {
        FIDELITY: lambda: fidelity.fid_statistics_to_metric(*theirs, False)[fidelity.KEY_METRIC_FID],
        OURS: lambda: frechet_distance(*ours),
    }
    title = f"from statistics to the distance, {len(real)} images a side, {real.shape[1]} dimensions"
    rows = bench.race(title, contenders, work=1, unit="distances", rounds=3)
    bench.goal(f"{OURS} over {FIDELITY}", bench.ratio(rows, OURS, FIDELITY), at_least=3)
    check(bench, rows, None)


class Identity(nn.Module):
    """The feature extractor of images that are features already; torchmetrics takes any module."""

    def __init__(self, dim: int):
        super().__init__()
        self.num_features = dim

    def forward(self, images: Tensor) -> Tensor:
        return images


def with_torchmetrics(torchmetrics, real: Tensor, fake: Tensor) -> float:
    metric = torchmetrics.FrechetInceptionDistance(feature=Identity(real.shape[1]))
    for part in real.double().split(1000):
        metric.update(part, real=True)
    for part in fake.double().split(1000):
        metric.update(part, real=False)
    return float(metric.compute())


def accumulate(bench: Benchmark, torchmetrics, rows: Tensor) -> None:
    """From features in small batches to their covariance."""

    def peer() -> Tensor:
        metric = torchmetrics.FrechetInceptionDistance(feature=Identity(rows.shape[1]))
        for part in rows.split(SMALL_BATCH):
            metric.update(part, real=True)
        mean = metric.real_features_sum / len(rows)
        return (metric.real_features_cov_sum - len(rows) * mean[:, None] * mean) / (len(rows) - 1)

    contenders = {TORCHMETRICS: peer, OURS: lambda: torch.from_numpy(gathered(rows, SMALL_BATCH).covariance)}
    title = f"accumulation to the covariance, {len(rows)} images in batches of {SMALL_BATCH}"
    table = bench.race(title, contenders, work=len(rows), unit="images", rounds=3)
    bench.goal(f"{OURS} over {TORCHMETRICS}", bench.ratio(table, OURS, TORCHMETRICS), at_least=5)
    covariance, expected = table[OURS].result, table[TORCHMETRICS].result
    error = float((covariance - expected).norm() / expected.norm())
    bench.check(f"covariances of {OURS} and {TORCHMETRICS}", error < 1e-9, f"relative difference {error:.1e}")


if __name__ == "__main__":
    sys.exit(main())
