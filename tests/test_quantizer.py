"""Code search and vector quantizer against plain references, and what keeps the codebook alive."""

import copy

import pytest
import torch
import torch.nn.functional as F

from tessella.tokenizers.quantizers import search
from tessella.tokenizers.quantizers.search import nearest, search_table
from tessella.tokenizers.quantizers.vq import VectorQuantizer


def reference_ids(z, codebook, *, normalize):
    """The first of all codes at the least distance, in float64, written as the definition says."""
    z, codebook = z.double(), codebook.double()
    if normalize:
        z, codebook = F.normalize(z, dim=-1), F.normalize(codebook, dim=-1)
    return torch.stack([(codebook - vector).square().sum(-1).argmin() for vector in z])


def quantizer(seed=0, codebook_size=12, dim=4, **options):
    """With codes of about unit scale: default codes are so short that a wrong distance finds the same one."""
    torch.manual_seed(seed)
    module = VectorQuantizer(codebook_size, dim, **({"normalize": True} | options))
    with torch.no_grad():
        module.codebook.normal_()
    return module


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("n", "size", "dim"), [(700, 1000, 5), (1, 1, 3), (33, 130, 8), (5, 512, 16)])
def test_search_finds_the_nearest_code(normalize, n, size, dim, monkeypatch):
    monkeypatch.setattr(search, "CPU_SCORES", 64 * size)  # several chunks, the last one short
    torch.manual_seed(n)
    z, codebook = torch.randn(n, dim), torch.randn(size, dim)
    ids = nearest(z, search_table(codebook, normalize=normalize))
    assert torch.equal(ids, reference_ids(z, codebook, normalize=normalize))


@pytest.mark.parametrize("normalize", [True, False])
def test_equal_codes_tie_to_the_lowest_index(normalize):
    torch.manual_seed(0)
    codebook = torch.randn(40, 6)
    codebook = torch.cat([codebook, codebook, codebook])
    z = torch.randn(200, 6)
    ids = nearest(z, search_table(codebook, normalize=normalize))
    assert ids.max() < 40
    assert torch.equal(ids, reference_ids(z, codebook[:40], normalize=normalize))


@pytest.mark.parametrize("normalize", [True, False])
def test_codes_closer_than_float32_sees_are_still_told_apart(normalize):
    torch.manual_seed(0)
    codebook = torch.randn(50, 8).repeat(4, 1)
    codebook = codebook * (1 + 2e-7 * torch.randn_like(codebook))
    z = torch.randn(300, 8) * 5
    table = search_table(codebook, normalize=normalize)
    assert torch.equal(nearest(z, table), search.nearest_float64(z, table))


def test_autocast_and_reduced_matmul_precision_do_not_change_ids():
    torch.manual_seed(0)
    z, codebook = torch.randn(400, 8), torch.randn(2000, 8)
    table = search_table(codebook, normalize=True)
    plain = nearest(z, table)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(nearest(z, table), plain)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_search_memory_does_not_grow_with_the_vectors():
    codebook = torch.randn(4096, 8)
    table = search_table(codebook, normalize=True)

    def largest_allocation(n):
        z = torch.randn(n, 8)
        with torch.profiler.profile(profile_memory=True) as profile:
            nearest(z, table)
        return max(event.self_cpu_memory_usage for event in profile.key_averages())

    # All scores at once would be n * 4096 * 4 bytes: 134 MB.
    assert largest_allocation(8192) < 32e6


def test_empty_input_has_no_ids():
    assert nearest(torch.empty(0, 4), search_table(torch.randn(7, 4), normalize=True)).shape == (0,)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("update", ["gradient", "ema"])
def test_forward_is_the_definition(normalize, update):
    module = quantizer(normalize=normalize, update=update).eval()
    z = torch.randn(3, 7, 4)
    z_q, ids, losses = module(z)
    expected_ids = reference_ids(z.reshape(-1, 4), module.codebook.detach(), normalize=normalize).view(3, 7)
    codes = module.codebook.detach()[expected_ids]
    unit_z, unit_codes = (F.normalize(z, dim=-1), F.normalize(codes, dim=-1)) if normalize else (z, codes)
    assert torch.equal(ids, expected_ids)
    torch.testing.assert_close(z_q.detach(), unit_codes)
    torch.testing.assert_close(module.lookup(ids).detach(), unit_codes)
    mean_square = (unit_z - unit_codes).square().mean()
    assert set(losses) == ({"commitment", "codebook"} if update == "gradient" else {"commitment"})
    for loss in losses.values():
        torch.testing.assert_close(loss.detach(), mean_square)


@pytest.mark.parametrize("normalize", [True, False])
def test_gradients_are_those_of_the_definition(normalize):
    module = quantizer(normalize=normalize)
    z = torch.randn(2, 5, 4, requires_grad=True)
    pull = torch.randn(2, 5, 4)
    z_q, ids, losses = module(z)
    ((z_q * pull).sum() + 3 * losses["commitment"] + 7 * losses["codebook"]).backward()

    same = z.detach().clone().requires_grad_()
    codebook = module.codebook.detach().clone().requires_grad_()
    unit_z = F.normalize(same, dim=-1) if normalize else same
    codes = F.normalize(codebook[ids], dim=-1) if normalize else codebook[ids]
    straight = (unit_z * pull).sum()  # the choice passes gradients on as if it had not happened
    commitment = (unit_z - codes.detach()).square().mean()
    pulled_codes = (codes - unit_z.detach()).square().mean()
    (straight + 3 * commitment + 7 * pulled_codes).backward()
    torch.testing.assert_close(z.grad, same.grad)
    torch.testing.assert_close(module.codebook.grad, codebook.grad)


@pytest.mark.parametrize("normalize", [True, False])
def test_entropy_loss_is_the_definition(normalize):
    module = quantizer(normalize=normalize, entropy_temperature=0.3)
    z = torch.randn(2, 5, 4, requires_grad=True)
    loss = module(z)[2]["entropy"]
    loss.backward()
    assert z.grad is not None
    assert module.codebook.grad is not None
    assert z.grad.abs().sum() > 0
    assert module.codebook.grad.abs().sum() > 0

    codes, vectors = module.codebook.detach().double(), z.detach().double().view(10, 4)
    if normalize:
        codes, vectors = F.normalize(codes, dim=-1), F.normalize(vectors, dim=-1)
    p = torch.stack([(-(codes - vector).square().sum(-1) / 0.3).softmax(0) for vector in vectors])
    mean = p.mean(0)
    expected = -(p * p.log()).sum(1).mean() + (mean * mean.log()).sum()
    torch.testing.assert_close(loss.detach().double(), expected, atol=3e-4, rtol=0)  # 1e-5 guards the logarithm


@pytest.mark.parametrize("normalize", [True, False])
def test_moving_averages_follow_the_definition(normalize):
    module = quantizer(normalize=normalize, update="ema", decay=0.8).train()
    counts, sums = module.counts.clone(), module.sums.clone()
    for _ in range(3):
        z = torch.randn(20, 4)
        unit = F.normalize(z, dim=-1) if normalize else z
        ids = reference_ids(z, module.codebook, normalize=normalize)
        for code in range(12):
            mine = unit[ids == code]
            counts[code] = 0.8 * counts[code] + 0.2 * len(mine)
            sums[code] = 0.8 * sums[code] + 0.2 * mine.sum(0)
        module(z)
        torch.testing.assert_close(module.counts, counts)
        torch.testing.assert_close(module.codebook, sums / counts[:, None])


def test_codes_without_vectors_stay_where_they_are():
    module = quantizer(update="ema", decay=0.5).train()
    with torch.no_grad():
        module.codebook[1:] = -module.codebook[0]
        module.sums.copy_(module.codebook)
    before = module.codebook[1:].clone()
    for _ in range(200):  # long enough for counts to underflow
        module(module.codebook[:1].clone())
    torch.testing.assert_close(module.codebook[1:], before)
    assert module.codebook.isfinite().all()


def test_eval_mode_changes_nothing():
    module = quantizer(update="ema", unquantized_until=0.5, revive_until=0.6).eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    _, ids, _ = module(torch.randn(30, 4))
    assert ids is not None
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("update", ["gradient", "ema"])
def test_unquantized_start_ends_with_a_codebook_of_distinct_vectors(update):
    module = quantizer(update=update, unquantized_until=0.2).train()
    distinct = F.normalize(torch.randn(12, 4), dim=-1)
    z = distinct.repeat(5, 1)  # 60 vectors, 12 of them different
    for step in (0, 19):
        module.set_step(step, 100)
        z_q, ids, losses = module(z)
        assert ids is None
        assert losses == {}
        torch.testing.assert_close(z_q, z)
    module.set_step(20, 100)
    z_q, ids, _ = module(z)
    assert len(ids.unique()) == 12
    torch.testing.assert_close(z_q.detach(), z)


@pytest.mark.parametrize("update", ["gradient", "ema"])
def test_codes_in_little_use_are_revived_until_their_time_is_over(update):
    module = quantizer(update=update, revive_until=0.5, revive_every=3).train()
    far = torch.tensor([0.0, 0.0, 0.0, -1.0])

    def bury():
        with torch.no_grad():
            module.codebook[4:] = far
            module.counts[4:] = 0

    z = F.normalize(torch.randn(40, 4).abs(), dim=-1)
    bury()
    module.set_step(2, 100)
    module(z)
    assert torch.equal(module.codebook[4:].detach(), far.expand(8, 4))  # not a step of revival
    with torch.no_grad():
        kept = module.codebook[:4].clone()
    module.set_step(3, 100)
    module.decay = 1.0  # hold the averages still, to look at the revived codes alone
    module(z)
    revived = module.codebook[4:].detach()
    assert (revived[:, None] - z).abs().amax(-1).amin(1).max() < 1e-6
    assert len(revived.unique(dim=0)) == 8
    torch.testing.assert_close(module.codebook[:4].detach(), kept)
    bury()
    module.set_step(51, 100)
    module(z)
    assert torch.equal(module.codebook[4:].detach(), far.expand(8, 4))


def test_a_random_codebook_comes_alive():
    module = VectorQuantizer(64, 4, normalize=True, update="ema", unquantized_until=0.1, revive_until=0.8).train()
    generator = torch.Generator().manual_seed(0)
    for step in range(100):
        module.set_step(step, 100)
        module(torch.randn(256, 4, generator=generator) * torch.tensor([1.0, 0.2, 0.2, 0.2]))
    _, ids, _ = module.eval()(torch.randn(2000, 4, generator=generator) * torch.tensor([1.0, 0.2, 0.2, 0.2]))
    assert len(ids.unique()) >= 0.95 * 64


@pytest.mark.parametrize("update", ["gradient", "ema"])
def test_a_resumed_run_repeats_the_uninterrupted_one(update):
    options = {"update": update, "unquantized_until": 0.2, "revive_until": 0.9, "revive_every": 2}
    data = torch.randn(20, 30, 4, generator=torch.Generator().manual_seed(1))

    def run(module, steps):
        for step in steps:
            module.set_step(step, 20)
            module(data[step])
        return module

    whole = run(quantizer(**options).train(), range(20))
    half = run(quantizer(**options).train(), range(11))
    torch.rand(5)  # the global generator has moved on
    other = quantizer(seed=5, **options).train()
    other.load_state_dict(copy.deepcopy(half.state_dict()))
    run(other, range(11, 20))
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), other.state_dict().values(), strict=True))


def test_another_seed_revives_other_vectors():
    z = torch.randn(200, 4)
    books = []
    for seed in (0, 1, 0):
        module = quantizer(unquantized_until=0.5, seed=0)
        module.seed = seed
        module.train().set_step(5, 10)
        module(z)
        books.append(module.codebook.detach().clone())
    assert torch.equal(books[0], books[2])
    assert not torch.equal(books[0], books[1])


def test_fewer_vectors_than_codes_fill_the_codebook():
    module = quantizer(unquantized_until=0.5).train()
    module.set_step(5, 10)
    z = F.normalize(torch.randn(5, 4), dim=-1)
    z_q, _, _ = module(z)
    torch.testing.assert_close(z_q.detach(), z)


def test_prepared_codebook_follows_every_change():
    module = quantizer().eval()
    z = torch.randn(50, 4)

    def ids():
        return module(z)[1]

    for change in (
        lambda: module.codebook.data.normal_(),  # no version counter sees this one
        lambda: module.load_state_dict({name: torch.randn_like(t) for name, t in module.state_dict().items()}),
        lambda: torch.nn.init.uniform_(module.codebook),
    ):
        ids()
        change()
        assert torch.equal(ids(), reference_ids(z, module.codebook.detach(), normalize=True))
    assert module._table is not None
    table = module._table
    ids()
    assert module._table is table


def test_half_precision_vectors_are_compared_in_float32():
    module = quantizer(codebook_size=300).eval()
    z = torch.randn(100, 4).bfloat16()
    z_q, ids, _ = module(z)
    assert z_q.dtype == torch.float32
    assert torch.equal(ids, reference_ids(z.float(), module.codebook.detach(), normalize=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"update": "emma"}, "'gradient' or 'ema'"),
        ({"unquantized_until": 1.0}, "unquantized_until=1.0"),
        ({"revive_until": -0.1}, "revive_until=-0.1"),
        ({"codebook_size": 0}, "codebook_size=0"),
        ({"decay": 1.0}, "decay=1.0"),
        ({"entropy_temperature": 0.0}, "entropy_temperature=0.0"),
    ],
)
def test_impossible_values_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        VectorQuantizer(**({"codebook_size": 4, "dim": 2, "normalize": True} | options))


def test_a_schedule_needs_the_step():
    with pytest.raises(ValueError, match="set_step"):
        quantizer(revive_until=0.5).train()(torch.randn(4, 4))


@pytest.mark.parametrize("update", ["gradient", "ema"])
@pytest.mark.parametrize("normalize", [True, False])
def test_the_entropy_loss_has_gradients_with_every_way_to_learn(update, normalize):
    torch.manual_seed(0)
    quantizer = VectorQuantizer(8, 4, normalize=normalize, update=update, entropy_temperature=0.1)
    z = torch.randn(2, 5, 4, requires_grad=True)
    quantizer(z)[2]["entropy"].backward()
    assert z.grad.abs().sum() > 0
