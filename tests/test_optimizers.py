"""Muon, AdamW and the schedule against plain references."""

import copy
from collections import OrderedDict
from itertools import pairwise

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from torch import nn

from tessella.experiments.optimizers import Muon, adamw, is_matrix, orthogonalize, warmup_constant_linear


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(3, 8, 3),
            conv_too=nn.Conv2d(8, 8, 3, bias=False),
            flat=nn.Flatten(),
            wide=nn.Linear(32, 48),
            tall=nn.Linear(48, 32),
            tall_too=nn.Linear(48, 32),
            embed=nn.Embedding(5, 6),
        )
    )


def set_gradients(module, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def reference_orthogonal(matrix, steps=5):
    """Newton-Schulz as published, in float64, one matrix at a time."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.double() / matrix.double().norm()
    transposed = x.shape[0] > x.shape[1]
    x = x.T if transposed else x
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if transposed else x


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (9, 9)])
def test_orthogonalized_matrices_keep_directions_and_lose_lengths(shape):
    torch.manual_seed(0)
    matrices = torch.randn(3, *shape)
    results = orthogonalize(matrices).float()
    for matrix, result in zip(matrices, results, strict=True):
        torch.testing.assert_close(result.double(), reference_orthogonal(matrix), atol=0.03, rtol=0)
        lengths = torch.linalg.svdvals(result)
        assert 0.6 < lengths.min() <= lengths.max() < 1.25


def test_muon_steps_are_the_definition():
    module = network()
    optimizer = Muon(module.named_parameters(), lr=0.1, momentum=0.8, weight_decay=0.5)
    expected = {name: parameter.detach().double().clone() for name, parameter in module.named_parameters()}
    momenta = {name: torch.zeros_like(value) for name, value in expected.items()}
    for step in range(3):
        set_gradients(module, step)
        for name, parameter in module.named_parameters():
            if is_matrix(name, parameter):
                gradient = parameter.grad.double()
                momenta[name] = 0.8 * momenta[name] + gradient
                update = reference_orthogonal((gradient + 0.8 * momenta[name]).flatten(1)).view_as(gradient)
                rows, columns = gradient.flatten(1).shape
                expected[name] *= 1 - 0.1 * 0.5
                expected[name] -= 0.1 * max(1, rows / columns) ** 0.5 * update
        optimizer.step()
    for name, parameter in module.named_parameters():
        if is_matrix(name, parameter):
            torch.testing.assert_close(parameter.double(), expected[name], atol=0.01, rtol=0)


def test_what_is_no_matrix_takes_exactly_adamw_steps():
    module, twin = network(), network()
    muon = Muon(module.named_parameters(), adamw_lr=0.01, adamw_betas=(0.8, 0.9))
    reference = torch.optim.AdamW(twin.parameters(), lr=0.01, betas=(0.8, 0.9), weight_decay=0.0, fused=True)
    for step in range(3):
        set_gradients(module, step)
        set_gradients(twin, step)
        muon.step()
        reference.step()
    others = [name for name, parameter in module.named_parameters() if not is_matrix(name, parameter)]
    assert others == ["conv.bias", "wide.bias", "tall.bias", "tall_too.bias", "embed.weight"]
    for name in others:
        assert torch.equal(module.get_parameter(name), twin.get_parameter(name))


@pytest.mark.parametrize(
    ("name", "shape", "matrix"),
    [
        ("encoder.stem.1.weight", (32, 48, 3, 3), True),
        ("attention.in_proj_weight", (9, 3), True),
        ("norm.weight", (32,), False),
        ("encoder.stem.1.bias", (32,), False),
        ("pool.positions", (64, 96), False),
        ("pool.query", (96,), False),
        ("quantizer.codebook", (512, 16), False),
        ("model.embed_tokens.weight", (512, 128), False),
        ("lm_head.weight", (512, 128), False),
        ("log_scale", (), False),
    ],
)
def test_matrices_are_told_by_name_and_shape(name, shape, matrix):
    assert is_matrix(name, torch.empty(shape)) is matrix


def test_frozen_parameters_and_parameters_without_gradient_stay():
    module = network()
    module.wide.requires_grad_(False)
    before = copy.deepcopy(module.state_dict())
    optimizer = Muon(module.named_parameters())
    set_gradients(module, 0)
    module.tall.weight.grad = None
    module.conv.bias.grad = None
    optimizer.step()
    same = {name for name, value in module.state_dict().items() if torch.equal(value, before[name])}
    assert same == {"wide.weight", "wide.bias", "tall.weight", "conv.bias"}


@pytest.mark.parametrize("build", [lambda named: Muon(named), lambda named: adamw(named, lr=1e-3, weight_decay=0.1)])
def test_a_resumed_optimizer_repeats_the_uninterrupted_one(build):
    whole, half = network(), network()
    first = build(whole.named_parameters())
    second = build(half.named_parameters())
    for step in range(2):
        for module, optimizer in ((whole, first), (half, second)):
            set_gradients(module, step)
            optimizer.step()
    third = build(half.named_parameters())
    third.load_state_dict(copy.deepcopy(second.state_dict()))
    for module, optimizer in ((whole, first), (half, third)):
        set_gradients(module, 9)
        optimizer.step()
    for a, b in zip(whole.parameters(), half.parameters(), strict=True):
        assert torch.equal(a, b)


def test_adamw_decays_matrices_alone():
    module = network()
    optimizer = adamw(module.named_parameters(), lr=0.1, weight_decay=0.5)
    before = copy.deepcopy(module.state_dict())
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in module.named_parameters():
        factor = 0.95 if is_matrix(name, parameter) else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor)


def test_closures_are_evaluated():
    module = nn.Linear(3, 2)
    optimizer = Muon(module.named_parameters())

    def closure():
        optimizer.zero_grad()
        loss = module(torch.ones(1, 3)).square().sum()
        loss.backward()
        return loss.item()

    losses = [optimizer.step(closure) for _ in range(30)]
    assert losses[-1] < losses[0]


def test_without_trainable_parameters_there_is_nothing_to_optimize():
    module = network().requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter trains"):
        Muon(module.named_parameters())


def test_schedule_warms_up_stays_and_falls():
    factors = [
        warmup_constant_linear(s, total_steps=100, warmup_steps=9, decay_from=0.5, final=0.1) for s in range(101)
    ]
    assert factors[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert factors[9:51] == pytest.approx([1.0] * 42)
    assert factors[75] == pytest.approx(0.55)
    assert factors[100] == pytest.approx(0.1)
    assert all(later <= earlier for earlier, later in pairwise(factors[9:]))
    assert warmup_constant_linear(0, total_steps=1) == 1.0


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_configured_optimizers_take_a_step(name):
    with initialize_config_module("tessella.conf", version_base="1.3"):
        cfg = compose(overrides=[f"+optimizer={name}"])
    module = network()
    before = copy.deepcopy(module.state_dict())
    optimizer = instantiate(cfg.optimizer)(module.named_parameters())
    set_gradients(module, 0)
    optimizer.step()
    assert not any(torch.equal(value, before[key]) for key, value in module.state_dict().items())
