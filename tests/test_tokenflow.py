"""The dual and the multi-scale quantizer against plain references, and TokenFlow around them with small parts."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from tessella.tokenizers.base import VisionEncoder
from tessella.tokenizers.cnn_light import LightDecoder, LightEncoder
from tessella.tokenizers.losses import PixelLoss
from tessella.tokenizers.quantizers.dual import DualQuantizer
from tessella.tokenizers.quantizers.multiscale import MultiScaleQuantizer
from tessella.tokenizers.tokenflow import SemanticDecoder, TokenFlow

LIGHT = {"patch_size": 2, "widths": (8, 12), "num_blocks": (1, 1)}  # stride 4
SCALES = (1, 2, 4)


class Patches(VisionEncoder):
    """A semantic encoder: one linear map per 4x4 patch."""

    def __init__(self, image_size=16, feature_dim=10):
        super().__init__()
        self.image_size, self.feature_dim = image_size, feature_dim
        self.num_features = (image_size // 4) ** 2
        self.conv = torch.nn.Conv2d(3, feature_dim, 4, stride=4)

    def features(self, images):
        return self.conv(images).flatten(2).transpose(1, 2)


class Linear(SemanticDecoder):
    def __init__(self, semantic_dim=6, feature_dim=10):
        super().__init__()
        self.feature_dim = feature_dim
        self.linear = torch.nn.Linear(semantic_dim, feature_dim)

    def forward(self, z):
        return self.linear(z)


def dual(codebook_size=20, **options):
    torch.manual_seed(0)
    module = DualQuantizer(codebook_size, 6, 3, **options)
    with torch.no_grad():
        module.codebook.normal_()
    return module


def tokenflow(image_size=16, scales=None, scale_drop=0.0, **quantizer):
    torch.manual_seed(0)
    module = TokenFlow(
        Patches(image_size),
        LightEncoder(**LIGHT),
        dual(**quantizer),
        LightDecoder(in_channels=5, **LIGHT),
        Linear(),
        scales=scales,
        scale_drop=scale_drop,
    )
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


def halves(x):
    return F.normalize(x[..., :6], dim=-1), F.normalize(x[..., 6:], dim=-1)


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_the_shared_index_has_the_least_sum_of_distances(weight):
    quantizer = dual(codebook_size=200, pixel_weight=weight)
    z = torch.randn(3, 50, 9)
    z_q, ids, _ = quantizer(z)
    (z_s, z_p), (e_s, e_p) = halves(z.double()[:, :, None]), halves(quantizer.codebook.double())
    distance = (z_s - e_s).square().sum(-1) + weight * (z_p - e_p).square().sum(-1)
    assert torch.equal(ids, distance.argmin(-1))
    torch.testing.assert_close(z_q, torch.cat([e_s, e_p], -1)[ids].float())
    torch.testing.assert_close(quantizer.squared_distances(quantizer.unit(z)), distance.float())


def test_both_parts_of_first_and_used_codes_have_unit_length():
    quantizer = DualQuantizer(7, 6, 3)
    for part in quantizer.split(quantizer.codebook):
        torch.testing.assert_close(part.norm(dim=-1), torch.ones(7))
    for part in dual().split(dual().lookup(torch.arange(20))):
        torch.testing.assert_close(part.norm(dim=-1), torch.ones(20))


def test_gradients_reach_vectors_through_their_normalization():
    quantizer, z = dual(), torch.randn(5, 9, requires_grad=True)
    upstream = torch.randn(5, 9)
    (quantizer(z)[0] * upstream).sum().backward()
    again = z.detach().requires_grad_()
    (torch.cat(halves(again), -1) * upstream).sum().backward()
    torch.testing.assert_close(z.grad, again.grad)


def test_moving_averages_share_one_count():
    quantizer = dual(update="ema", decay=0.0).train()
    z = torch.randn(400, 9)
    _, ids, _ = quantizer(z)
    unit = torch.cat(halves(z), -1)
    for code in ids.unique():
        torch.testing.assert_close(quantizer.codebook[code], unit[ids == code].mean(0))


def reference_pyramid(z, quantizer, scales):
    """Sum of resized codes and ids of each scale, written as the paper says."""
    side = scales[-1]
    residual = z.transpose(1, 2).unflatten(2, (side, side))
    total, ids = torch.zeros_like(residual), []
    for scale in scales:
        small = F.adaptive_avg_pool2d(residual, scale).flatten(2).transpose(1, 2)
        codes, found, _ = quantizer(small)
        large = F.interpolate(codes.transpose(1, 2).unflatten(2, (scale, scale)), size=side, mode="bicubic")
        total, residual = total + large, residual - large
        ids.append(found)
    return total.flatten(2).transpose(1, 2), ids


def test_each_scale_corrects_what_coarser_ones_left():
    quantizer = MultiScaleQuantizer(dual(), scales=SCALES).eval()
    z = torch.randn(2, 16, 9)
    total, ids, losses = quantizer(z)
    reference, parts = reference_pyramid(z, quantizer.quantizer, SCALES)
    assert torch.equal(ids, torch.cat(parts, 1))
    torch.testing.assert_close(total, reference)
    assert torch.equal(quantizer.lookup(ids), total)
    assert set(losses) == {"commitment", "codebook"}


def test_inputs_of_a_scale_know_the_scales_before_it_alone():
    quantizer = MultiScaleQuantizer(dual(), scales=SCALES).eval()
    ids = torch.randint(20, (2, 21))
    whole = quantizer.step_inputs(ids)
    assert whole.shape == (2, 20, 9)
    assert torch.equal(quantizer.step_inputs(ids[:, :5]), whole)
    assert torch.equal(quantizer.step_inputs(ids[:, :1]), whole[:, :4])
    codes = quantizer.lookup(ids[:, :1])[:, :1]
    torch.testing.assert_close(whole[:, :4], codes.expand(-1, 4, -1))
    refined = quantizer.step_inputs(ids, refined=1)
    torch.testing.assert_close(refined[:, :4], whole[:, :4] + quantizer.quantizer.lookup(ids[:, 1:5]))
    assert torch.equal(refined[:, 4:], whole[:, 4:])
    single = MultiScaleQuantizer(dual(), scales=(2,))
    assert single.step_inputs(ids[:, :4]).shape == (2, 0, 9)
    with pytest.raises(ValueError, match="use 1 to 2"):
        quantizer.step_inputs(ids, refined=3)


@pytest.mark.parametrize("length", [0, 4, 6, 22])
def test_parts_of_a_scale_are_no_prefix(length):
    quantizer = MultiScaleQuantizer(dual(), scales=SCALES)
    with pytest.raises(ValueError, match="whole scales"):
        quantizer.lookup(torch.zeros(1, length, dtype=torch.int64))


def test_a_dropped_scale_leaves_no_ids_and_no_correction():
    quantizer = MultiScaleQuantizer(dual(), scales=SCALES).eval()
    z = torch.randn(2, 16, 9)
    total, ids, _ = quantizer(z, dropped=1)
    reference, parts = reference_pyramid(z, quantizer.quantizer, (1, 4))
    assert torch.equal(ids, torch.cat(parts, 1))
    torch.testing.assert_close(total, reference)


def test_scales_drop_in_training_alone_and_never_the_first():
    quantizer = MultiScaleQuantizer(dual(), scales=SCALES, scale_drop=0.5)
    torch.manual_seed(0)
    z = torch.randn(1, 16, 9)
    lengths = [quantizer.train()(z)[1].shape[1] for _ in range(200)]
    counts = {length: lengths.count(length) for length in set(lengths)}
    assert set(counts) == {21, 17, 5}
    assert 80 <= counts[21] <= 120
    assert {quantizer.eval()(z)[1].shape[1] for _ in range(20)} == {21}


def test_a_codebook_over_scales_is_kept_up_once_per_step():
    options = {"update": "ema", "unquantized_until": 0.5, "revive_until": 0.9, "revive_every": 2, "revive_below": 0.5}
    quantizer = MultiScaleQuantizer(dual(**options), scales=SCALES).train()
    z = torch.randn(8, 16, 9)
    quantizer.set_step(4, 10)
    total, ids, losses = quantizer(z)
    assert ids is None
    assert losses == {}
    assert total.shape == z.shape
    before = quantizer.quantizer.codebook.clone()
    quantizer.set_step(5, 10)
    _, ids, losses = quantizer(z)
    assert ids.shape == (8, 21)
    assert set(losses) == {"commitment"}
    assert not (quantizer.quantizer.codebook == before).all(-1).any(), "every code is filled from the batch"
    counts = 8 * 21 / 20 * 0.99 + torch.bincount(ids.flatten(), minlength=20) * 0.01
    torch.testing.assert_close(quantizer.quantizer.counts, counts)
    quantizer.quantizer.counts[3] = 0
    before = quantizer.quantizer.codebook.clone()
    quantizer.set_step(7, 10)
    quantizer(z)
    moved = (quantizer.quantizer.codebook - before).norm(dim=-1)
    assert moved.argmax() == 3


@pytest.mark.parametrize(("image_size", "scales"), [(16, None), (16, SCALES), (18, (2, 3, 4))])
def test_ids_decode_to_what_latents_decode_to(image_size, scales):
    tokenizer = tokenflow(image_size, scales).eval()
    images = torch.rand(3, 3, image_size, image_size)
    encoding = tokenizer.encode(images)
    assert encoding.ids.shape == (3, tokenizer.num_tokens)
    assert torch.equal(tokenizer.dequantize(encoding.ids), encoding.latents)
    assert torch.equal(tokenizer.features(images), encoding.latents)
    assert tokenizer.decode(encoding.latents).shape == images.shape
    assert tokenizer.semantic_decode(encoding.latents).shape == (3, 16, 10)
    predicted = tokenizer.num_tokens - tokenizer.step_lengths[0]
    assert tokenizer.step_inputs(encoding.ids).shape == (3, predicted, 9)
    given = tokenizer.quantize(tokenizer.semantic_encoder.features(images), images)
    assert torch.equal(given.ids, encoding.ids)
    for length in itertools.accumulate(tokenizer.step_lengths) if scales else ():
        assert tokenizer.decode(tokenizer.dequantize(encoding.ids[:, :length])).shape == images.shape


@pytest.mark.parametrize("scales", [None, SCALES])
def test_an_image_does_not_see_its_batch(scales):
    tokenizer = tokenflow(16, scales, codebook_size=300).eval()
    images = torch.rand(5, 3, 16, 16)
    together = tokenizer.encode(images)
    alone = [tokenizer.encode(image[None]) for image in images]
    assert torch.equal(together.ids, torch.cat([encoding.ids for encoding in alone]))


def test_decoders_read_their_own_part():
    tokenizer = tokenflow().eval()
    latents = torch.randn(1, 16, 9)
    other = torch.cat([torch.randn(1, 16, 6), latents[..., 6:]], -1)
    assert torch.equal(tokenizer.decode(latents), tokenizer.decode(other))
    other = torch.cat([latents[..., :6], torch.randn(1, 16, 3)], -1)
    assert torch.equal(tokenizer.semantic_decode(latents), tokenizer.semantic_decode(other))


@pytest.mark.parametrize("scales", [None, SCALES])
def test_every_weight_learns(scales):
    tokenizer = tokenflow(16, scales).train()
    images = torch.rand(2, 3, 16, 16)
    encoding = tokenizer.encode(images)
    loss = PixelLoss(terms={"commitment": 0.25, "codebook": 1.0})
    total = loss(images, tokenizer.decode(encoding.latents), encoding)[0]
    (total + tokenizer.semantic_decode(encoding.latents).square().mean()).backward()
    assert [name for name, p in tokenizer.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: tokenflow(16, (1, 2, 3)), "must end with 4"),
        (lambda: tokenflow(16, (4, 2, 4)), "no growing sides"),
        (lambda: tokenflow(16, None, 0.1), "needs scales"),
        (lambda: tokenflow(16, (4,), 0.1), "never left out"),
        (lambda: tokenflow(16, SCALES, 1.5), "probability"),
        (lambda: dual(pixel_weight=-1), "pixel_weight=-1"),
        (lambda: DualQuantizer(4, 0, 3), "semantic_dim=0"),
        (lambda: tokenflow().encode(torch.rand(1, 3, 8, 8)), "needs floats"),
        (lambda: tokenflow().decode(torch.rand(1, 9, 9)), "whole grids"),
        (lambda: tokenflow().semantic_decode(torch.rand(1, 9, 9)), "whole grids"),
        (lambda: tokenflow().dequantize(torch.zeros(1, 17, dtype=torch.int64)), "L <= 16"),
    ],
)
def test_wrong_inputs_say_what_is_needed(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
