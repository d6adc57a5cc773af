"""Chunked cross-entropy against the plain one."""

import pytest
import torch
import torch.nn.functional as F

from tessella.unified import cross_entropy
from tessella.unified.cross_entropy import linear_cross_entropy


@pytest.fixture
def problem():
    torch.manual_seed(0)
    hidden = torch.randn(37, 12, requires_grad=True)
    weight = torch.randn(50, 12, requires_grad=True)
    return hidden, weight, torch.randint(0, 50, (37,))


@pytest.fixture
def chunks_of_five(monkeypatch):
    monkeypatch.setattr(cross_entropy, "_WHOLE_LOGITS", 0)
    monkeypatch.setattr(cross_entropy, "_CHUNK_LOGITS", 250)


@pytest.mark.parametrize("total", [None, 100])
def test_loss_and_gradients_equal_the_plain_form(problem, chunks_of_five, total):
    hidden, weight, targets = problem
    expected = F.cross_entropy(hidden @ weight.t(), targets, reduction="sum") / (total or 37)
    actual = linear_cross_entropy(hidden, weight, targets, total=total)
    torch.testing.assert_close(actual, expected)
    wanted = torch.autograd.grad(3 * expected, (hidden, weight))
    torch.testing.assert_close(torch.autograd.grad(3 * actual, (hidden, weight)), wanted, atol=1e-6, rtol=1e-5)


def test_small_tables_take_the_plain_form(problem):
    hidden, weight, targets = problem
    torch.testing.assert_close(
        linear_cross_entropy(hidden, weight, targets), F.cross_entropy(hidden @ weight.t(), targets)
    )


def test_only_wanted_gradients_are_formed(problem, chunks_of_five):
    hidden, weight, targets = problem
    linear_cross_entropy(hidden.detach(), weight, targets).backward()
    assert weight.grad is not None
    with torch.no_grad():
        assert linear_cross_entropy(hidden, weight, targets) > 0
    linear_cross_entropy(hidden, weight.detach(), targets).backward()
    assert hidden.grad is not None


def test_a_second_backward_pass_is_refused(problem, chunks_of_five):
    loss = linear_cross_entropy(*problem)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="first backward"):
        loss.backward()


def test_autocast_changes_products_but_keeps_the_loss_in_float32(problem, chunks_of_five):
    hidden, weight, targets = problem
    expected = F.cross_entropy(hidden @ weight.t(), targets)
    with torch.autocast("cpu", torch.bfloat16):
        actual = linear_cross_entropy(hidden, weight, targets)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, expected, atol=0.02, rtol=0.01)
    actual.backward()
    assert hidden.grad.dtype == weight.grad.dtype == torch.float32


def test_memory_is_at_most_an_eighth_of_the_plain_form():
    hidden, weight = torch.zeros(2048, 64, requires_grad=True), torch.zeros(16384, 64, requires_grad=True)
    targets = torch.arange(2048)

    def peak(loss):
        with torch.profiler.profile(profile_memory=True) as profile:
            loss().backward()
        level = highest = 0
        for event in profile.profiler.kineto_results.events():
            if event.name() == "[memory]":
                level += event.nbytes()
                highest = max(highest, level)
        hidden.grad = weight.grad = None
        return highest

    plain = peak(lambda: F.cross_entropy(F.linear(hidden, weight), targets))
    assert peak(lambda: linear_cross_entropy(hidden, weight, targets)) <= plain / 8
