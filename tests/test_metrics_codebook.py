"""Code statistics against numpy histograms."""

import numpy as np
import pytest
import torch

from tessella.metrics.codebook import CodebookUsage


def skewed_ids(n: int, length: int, vocab_size: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(n, length, generator=generator) ** 3 * vocab_size * 0.7).long()


def numpy_entropy(counts: np.ndarray) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum())


def test_streamed_statistics_match_a_numpy_histogram() -> None:
    ids = skewed_ids(100, 16, 64)
    usage = CodebookUsage(64)
    for part in ids.split(33):
        usage.update(part)
    counts = np.bincount(ids.numpy().ravel(), minlength=64)
    rows = usage.rows()
    assert usage.counts.tolist() == counts.tolist()
    assert rows["codebook/usage"]["value"] == (counts > 0).mean()
    assert rows["codebook/dead"]["value"] == (counts == 0).sum()
    assert rows["codebook/entropy_bits"]["value"] == pytest.approx(numpy_entropy(counts))
    assert rows["codebook/perplexity"]["value"] == pytest.approx(2 ** numpy_entropy(counts))
    assert all(r["n"] == 1600 for r in rows.values())


def test_positions_are_counted_apart() -> None:
    ids = skewed_ids(50, 5, 16)
    ids[:, 2] = 7  # a position that never changes
    usage = CodebookUsage(16, num_positions=5)
    for part in ids.split(20):
        usage.update(part)
    for position in range(5):
        counts = np.bincount(ids[:, position].numpy(), minlength=16)
        assert usage.position_counts()[position].tolist() == counts.tolist()
        assert usage.position_entropy_bits()[position].item() == pytest.approx(numpy_entropy(counts))
    assert str(usage.position_entropy_bits()[2].item()) == "0.0"
    pooled = CodebookUsage(16)
    pooled.update(ids)
    assert pooled.rows() == usage.rows()


def test_uniform_codes_reach_every_ceiling_and_one_code_none() -> None:
    uniform, single = CodebookUsage(8), CodebookUsage(8)
    uniform.update(torch.arange(8).repeat(4, 1))
    single.update(torch.full((4, 8), 3))
    rows = uniform.rows()
    assert rows["codebook/usage"]["value"] == rows["codebook/usage"]["ceiling"] == 1
    assert rows["codebook/entropy_bits"]["value"] == pytest.approx(3)
    assert rows["codebook/perplexity"]["value"] == pytest.approx(rows["codebook/perplexity"]["ceiling"])
    rows = single.rows()
    assert rows["codebook/perplexity"]["value"] == 1
    assert rows["codebook/dead"]["value"] == 7


def test_ceiling_counts_too_few_ids() -> None:
    usage = CodebookUsage(1000)
    usage.update(torch.arange(10)[None])
    rows = usage.rows()
    assert rows["codebook/usage"] == {"value": 0.01, "n": 10, "ceiling": 0.01}
    assert rows["codebook/dead"]["floor"] == 990


def test_empty_batches_add_nothing() -> None:
    usage = CodebookUsage(4)
    usage.update(torch.empty(0, 6, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least one image"):
        usage.rows()


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.tensor([[0, 4, 1]]), r"span \[0, 4\]; they must lie in \[0, 3\]"),
        (torch.tensor([[0, -1, 1]]), r"span \[-1, 1\]"),
        (torch.tensor([0, 1, 2]), r"\(B, 3\) is needed"),
        (torch.tensor([[0, 1]]), r"\(B, 3\) is needed"),
    ],
)
def test_wrong_ids_are_named(ids: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CodebookUsage(4, num_positions=3).update(ids)


def test_wrong_use_is_named() -> None:
    with pytest.raises(ValueError, match="vocab_size=0"):
        CodebookUsage(0)
    with pytest.raises(ValueError, match="num_positions=L"):
        CodebookUsage(4).position_entropy_bits()
    with pytest.raises(ValueError, match=r"\(B, L\) is needed"):
        CodebookUsage(4).update(torch.tensor([1]))
