"""Sampling functions against brute force."""

import itertools

import pytest
import torch

from tessella.unified.sampling import Sampling, draw, guide, image_noise, keep_top_k, keep_top_p


def uniform(rows, seed=0):
    return torch.rand(rows, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_guidance_is_a_line_through_both_logits():
    cond, uncond = torch.randn(3, 5), torch.randn(3, 5)
    torch.testing.assert_close(guide(cond, uncond, 1.0), cond)
    torch.testing.assert_close(guide(cond, uncond, 0.0), uncond)
    torch.testing.assert_close(guide(cond, uncond, 4.0), uncond + 4 * (cond - uncond))


def test_top_k_keeps_the_largest():
    torch.manual_seed(0)
    logits = torch.randn(20, 9)
    for k in (1, 3, 9, 50):
        kept = keep_top_k(logits, k)
        for row, result in zip(logits.tolist(), kept.tolist(), strict=True):
            largest = set(sorted(row, reverse=True)[:k])
            assert result == [x if x in largest else float("-inf") for x in row]


def test_top_p_keeps_the_smallest_likely_set():
    torch.manual_seed(0)
    logits = 3 * torch.randn(30, 6)
    for p in (0.1, 0.5, 0.9, 1.0):
        for row, result in zip(logits, keep_top_p(logits, p), strict=True):
            probabilities = row.softmax(-1)
            kept = {i for i in range(6) if result[i] > float("-inf")}
            sets = [set(c) for n in range(1, 7) for c in itertools.combinations(range(6), n)]
            enough = [c for c in sets if probabilities[list(c)].sum() >= p - 1e-6]
            smallest = min(map(len, enough))
            likeliest = max((c for c in enough if len(c) == smallest), key=lambda c: probabilities[list(c)].sum())
            assert kept == likeliest


def test_uniform_logits_give_uniform_ids():
    ids = draw(torch.zeros(40000, 8), Sampling(temperature=1.0), uniform(40000))
    assert (torch.bincount(ids, minlength=8) / 40000 - 1 / 8).abs().max() < 0.01


def test_ids_follow_their_probabilities_at_any_temperature():
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    for temperature in (0.5, 1.0, 3.0):
        ids = draw(logits.expand(40000, 4), Sampling(temperature=temperature), uniform(40000))
        expected = (logits / temperature).softmax(-1)
        assert (torch.bincount(ids, minlength=4) / 40000 - expected).abs().max() < 0.01


def test_filters_and_temperature_zero():
    logits = torch.tensor([[0.0, 3.0, 2.0, -1.0]]).expand(2000, 4)
    noise = uniform(2000)
    assert set(draw(logits, Sampling(temperature=5.0, top_k=2), noise).tolist()) == {1, 2}
    assert set(draw(logits, Sampling(temperature=1.0, top_p=0.5), noise).tolist()) == {1}
    assert set(draw(logits, Sampling(temperature=0.0), None).tolist()) == {1}


def test_the_ends_of_the_draw_give_ids_that_are_possible():
    logits = torch.tensor([float("-inf"), 0.0, float("-inf"), 1.0, float("-inf")])
    ends = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert draw(logits.expand(2, 5), Sampling(temperature=1.0), ends).tolist() == [1, 3]
    assert draw(torch.zeros(2, 16384), Sampling(temperature=1.0), ends).tolist() == [0, 16383]


def test_noise_of_an_image_depends_on_its_seed_alone():
    together, alone = image_noise([3, 5, 3], 7, torch.device("cpu")), image_noise([5], 7, torch.device("cpu"))
    assert together.shape == (3, 7)
    assert torch.equal(together[0], together[2])
    assert not torch.equal(together[0], together[1])
    assert torch.equal(together[1], alone[0])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": -1}, "temperature=-1"),
        ({"guidance": -0.5}, "guidance=-0.5"),
        ({"top_k": 0}, "top_k=0"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"top_p": 1.5}, "top_p=1.5"),
    ],
)
def test_values_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**wrong)
