"""One-dimensional tokenizers: prefixes decode, tail drop, latents that read cells by attention."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from tessella.tokenizers.base import Encoding
from tessella.tokenizers.cnn_light import LightDecoder, LightEncoder
from tessella.tokenizers.latent_attention import (
    CrossAttention,
    LatentAttentionDecoder,
    LatentAttentionEncoder,
    position_features,
    region_centers,
)
from tessella.tokenizers.losses import BALANCE_FLOOR, PixelLoss
from tessella.tokenizers.one_d import OneDTokenizer
from tessella.tokenizers.quantizers.vq import VectorQuantizer
from tessella.tokenizers.tail_drop import TailDrop

LIGHT = {"patch_size": 2, "widths": (8, 12), "num_blocks": (1, 1)}
ATTENTION = {"image_size": 16, "num_latents": 6, "dim": 4, "num_heads": 3, "mlp_dim": 20}
PER_SAMPLE = TailDrop(per_sample=True)


def parts():
    encoder = LatentAttentionEncoder(LightEncoder(**LIGHT), **ATTENTION)
    decoder = LatentAttentionDecoder(LightDecoder(in_channels=12, **LIGHT), **ATTENTION)
    return encoder, VectorQuantizer(20, 4, normalize=True), decoder


def tokenizer(tail_drop=PER_SAMPLE, **options):
    torch.manual_seed(0)
    module = OneDTokenizer(*parts(), tail_drop=tail_drop, **options)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module.eval()


@pytest.fixture
def images():
    return torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("length", range(1, 7))
def test_any_prefix_of_the_ids_decodes(images, length):
    module = tokenizer()
    encoding = module.encode(images)
    prefix = module.dequantize(encoding.ids[:, :length])
    assert torch.equal(prefix, encoding.latents[:, :length])
    back = module.decode(prefix)
    assert back.shape == images.shape
    assert 0 <= back.min() <= back.max() <= 1


def test_a_prefix_decodes_as_if_the_tail_were_masked(images):
    module = tokenizer()
    latents = module.encode(images).latents.double()
    module.double()
    kept = torch.tensor([1, 6, 3, 2, 6])
    masked = module.decoder(latents, kept)
    alone = torch.cat([module.decoder(latents[b : b + 1, :k]) for b, k in enumerate(kept)])
    torch.testing.assert_close(masked, alone, atol=1e-10, rtol=0)
    garbage = torch.where(torch.arange(6)[:, None] < kept[:, None, None], latents, 100.0)
    assert torch.equal(module.decoder(garbage, kept), masked)


def test_more_tokens_change_the_picture(images):
    module = tokenizer()
    latents = module.encode(images).latents
    pictures = [module.decode(latents[:, :k]) for k in (1, 3, 6)]
    assert all((a - b).abs().max() > 1e-3 for a, b in pairwise(pictures))


def test_tail_drop_keeps_uniform_lengths():
    torch.manual_seed(0)
    kept = TailDrop(per_sample=True).draw(20_000, 8, shortest=3)
    counts = torch.bincount(kept, minlength=9)
    assert counts[:3].sum() == 0
    assert (counts[3:] - 20_000 / 6).abs().max() < 250


def test_tail_drop_keeps_everything_else():
    torch.manual_seed(0)
    kept = TailDrop(probability=0.5, per_sample=True).draw(20_000, 1000)
    assert (kept == 1000).float().mean() == pytest.approx(0.5, abs=0.02)
    assert (TailDrop(probability=0.0).draw(5, 8) == 8).all()
    assert (TailDrop(begins=0.2).draw(5, 8, progress=0.19) == 8).all()


def test_published_tail_drop_draws_once_for_the_batch():
    torch.manual_seed(0)
    draws = [TailDrop().draw(7, 50) for _ in range(20)]
    assert all((kept == kept[0]).all() for kept in draws)
    assert len({int(kept[0]) for kept in draws}) > 10


def test_tail_drop_is_for_training_alone_and_follows_the_seed(images):
    module = tokenizer()
    latents = module.encode(images).latents
    assert torch.equal(module.decode(latents), module.decode(latents))
    module.train()
    torch.manual_seed(3)
    kept = PER_SAMPLE.draw(5, 6)
    torch.manual_seed(3)
    drawn = module.decode(latents)
    torch.testing.assert_close(drawn, module.decoder(latents[:, : int(kept.max())], kept))
    assert not torch.equal(drawn, module.decode(latents))


def test_published_tail_drop_shortens_what_the_decoder_sees(images):
    module = tokenizer(tail_drop=TailDrop()).train()
    latents = module.encode(images).latents
    seen = []
    module.decoder.register_forward_hook(lambda _, inputs, __: seen.append([len(inputs), inputs[0].shape[1]]))
    for _ in range(30):
        module.decode(latents)
    assert {length for _, length in seen} == set(range(1, 7))
    assert {count for count, _ in seen} == {1}  # no mask
    seen.clear()
    for _ in range(30):
        module.decode(latents[:, :2])
    assert {length for _, length in seen} == {1, 2}


def test_tail_drop_begins_when_the_run_is_far_enough(images):
    module = tokenizer(tail_drop=TailDrop(begins=0.5)).train()
    latents = module.encode(images).latents
    seen = []
    module.decoder.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    for step in range(100):
        module.set_step(step, 100)
        module.decode(latents)
    assert set(seen[:50]) == {6}
    assert len(set(seen[50:])) == 6


def test_without_tail_drop_all_tokens_are_needed_unless_told_otherwise(images):
    module = tokenizer(tail_drop=None)
    assert module.min_tokens == 6
    latents = module.encode(images).latents
    with pytest.raises(ValueError, match="k = 6"):
        module.decode(latents[:, :5])
    assert tokenizer(tail_drop=None, shortest=2).min_tokens == 2
    assert tokenizer().min_tokens == 1
    torch.testing.assert_close(module.train().decode(latents), module.decoder(latents))


def test_wrong_shapes_and_options_are_named(images):
    module = tokenizer(shortest=2)
    latents = module.encode(images).latents
    for wrong in (latents[:, :1], latents[:, :, :3], latents[0], torch.cat([latents, latents], 1)):
        with pytest.raises(ValueError, match="k = 2 to 6"):
            module.decode(wrong)
    with pytest.raises(ValueError, match="k <= 6"):
        module.dequantize(torch.zeros(1, 7, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"tokenizer\.shortest"):
        tokenizer(shortest=7)
    with pytest.raises(ValueError, match="make them equal"):
        OneDTokenizer(parts()[0], VectorQuantizer(20, 5, normalize=True), parts()[2])
    with pytest.raises(ValueError, match="probability"):
        TailDrop(probability=1.5)
    with pytest.raises(ValueError, match="begins"):
        TailDrop(begins=1.0)
    with pytest.raises(ValueError, match="use 16 or 20"):
        LatentAttentionEncoder(LightEncoder(**LIGHT), **ATTENTION | {"image_size": 18})
    with pytest.raises(ValueError, match="num_heads"):
        LatentAttentionEncoder(LightEncoder(**LIGHT), **ATTENTION | {"num_heads": 5})
    with pytest.raises(ValueError, match="multiple of 4"):
        position_features(region_centers(4), 10)


def test_every_weight_of_the_tokenizer_learns(images):
    module = tokenizer().train()
    torch.manual_seed(0)
    encoding = module.encode(images)
    loss = PixelLoss(terms={"commitment": 0.25, "codebook": 1.0})
    loss(images, module.decode(encoding.latents), encoding)[0].backward()
    assert [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_attention_equals_its_definition():
    torch.manual_seed(0)
    block = CrossAttention(12, num_heads=3, mlp_dim=8, temperature=5.0)
    torch.nn.init.normal_(block.key.bias)
    queries, keys, values = torch.randn(4, 12), torch.randn(2, 7, 12), torch.randn(2, 7, 12)
    visible = torch.rand(2, 7) > 0.4
    heads = []
    for h in range(3):
        rows = slice(4 * h, 4 * h + 4)
        q = F.normalize(block.query(queries)[:, rows], dim=-1)
        k = F.normalize(block.key(keys)[..., rows], dim=-1)
        scores = 5.0 * torch.einsum("qe,bme->bqm", q, k)
        weights = scores.exp() * visible[:, None]
        heads.append(weights / weights.sum(-1, keepdim=True) @ block.value(values)[..., rows])
    x = block.out(torch.cat(heads, -1))
    expected = x + block.mlp(x / (x.square().mean(-1, keepdim=True) + torch.finfo(torch.float32).eps).sqrt())
    torch.testing.assert_close(block(queries, keys, values, visible), expected, atol=1e-5, rtol=1e-4)


def test_latents_begin_by_looking_at_their_region():
    torch.manual_seed(0)
    encoder = LatentAttentionEncoder(
        LightEncoder(**LIGHT | {"widths": (8, 96)}), **ATTENTION | {"image_size": 32, "num_latents": 16, "num_heads": 4}
    )
    block = encoder.attention
    q, k = block.query(encoder.queries), block.key(encoder.positions)
    nearest = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).T).argmax(-1)  # of 8 x 8 cells
    cells = torch.stack([nearest // 8, nearest % 8], -1).add(0.5) / 8
    assert (cells - region_centers(16)).abs().max() <= 0.1


def test_regions_cover_the_image_in_a_fixed_order():
    centers = region_centers(32)
    assert len(centers.unique(dim=0)) == 32
    assert len(centers[:, 0].unique()) == 4
    assert torch.equal(centers, region_centers(32))
    assert not torch.equal(centers, centers.sort(dim=0).values)


def test_balanced_errors_have_the_gradient_of_the_mean_psnr():
    torch.manual_seed(0)
    images = torch.rand(4, 3, 8, 8)
    back = (
        images + torch.randn_like(images) * torch.tensor([0.01, 0.1, 0.3, 1.0])[:, None, None, None]
    ).requires_grad_()
    loss = PixelLoss(terms={}, l1_weight=0.0, error_balance=1.0)
    (given,) = torch.autograd.grad(loss(images, back, Encoding(back))[0], back)
    error = (back - images).square().mean((1, 2, 3))
    (wanted,) = torch.autograd.grad((error + BALANCE_FLOOR).log().sum(), back)
    torch.testing.assert_close(given / given.norm(), wanted / wanted.norm())
    torch.testing.assert_close(
        PixelLoss(terms={}, l1_weight=0.0)(images, back, Encoding(back))[0], F.mse_loss(back, images)
    )
