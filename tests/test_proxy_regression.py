"""The two training stages of small 1D tokenizers: code vectors of a proxy, then pixels."""

import pytest
import torch
import torch.nn.functional as F

from tessella.tokenizers.cnn_light import LightDecoder, LightEncoder
from tessella.tokenizers.latent_attention import LatentAttentionEncoder
from tessella.tokenizers.losses import PixelLoss
from tessella.tokenizers.proxy_regression import CodeHead, CodePixelStage, CodeStage, LatentCodeDecoder
from tessella.tokenizers.quantizers.vq import VectorQuantizer
from tessella.tokenizers.tail_drop import TailDrop
from tessella.tokenizers.vq import VQTokenizer

LIGHT = {"patch_size": 2, "widths": (8, 12), "num_blocks": (1, 1)}
ATTENTION = {"image_size": 16, "num_latents": 6, "dim": 4, "num_heads": 3, "mlp_dim": 20}


def vq(**options):
    quantizer = VectorQuantizer(20, 5, normalize=True, update="ema", **options)
    return VQTokenizer(LightEncoder(**LIGHT), quantizer, LightDecoder(in_channels=12, **LIGHT), image_size=16)


def first_stage(tail_drop=None):
    torch.manual_seed(0)
    stage = CodeStage(
        LatentAttentionEncoder(LightEncoder(**LIGHT), **ATTENTION),
        VectorQuantizer(30, 4, normalize=True, update="ema"),
        LatentCodeDecoder(CodeHead(in_channels=12, stride=4, dim=5, num_blocks=1), **ATTENTION),
        proxy=vq(),
        tail_drop=tail_drop,
    )
    for parameter in stage.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return stage


@pytest.fixture
def images():
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_the_first_stage_is_compared_with_the_codes_of_its_proxy(images):
    stage = first_stage().train()
    encoding = stage.encode(images)
    proxy = stage.proxy
    codes = proxy.dequantize(proxy.encode(images).ids).transpose(1, 2).unflatten(2, (4, 4))
    given = stage.decoder(encoding.latents)
    torch.testing.assert_close(given.square().sum(1), torch.ones(3, 4, 4))
    torch.testing.assert_close(encoding.losses["proxy"], F.mse_loss(given, codes))
    assert "proxy" not in stage.eval().encode(images).losses


def test_the_first_stage_shows_what_its_proxy_makes_of_the_codes(images):
    stage = first_stage(TailDrop()).eval()
    latents = stage.encode(images).latents
    for length in (1, 6):
        codes = stage.decoder(latents[:, :length])
        shown = stage.proxy.decode(codes.flatten(2).transpose(1, 2))
        assert torch.equal(stage.decode(latents[:, :length]), shown)


def test_the_first_stage_trains_everything_but_its_proxy(images):
    stage = first_stage(TailDrop(per_sample=True)).train()
    before = {name: tensor.clone() for name, tensor in stage.proxy.state_dict().items()}
    encoding = stage.encode(images)
    loss = PixelLoss(terms={"commitment": 0.25, "proxy": 16.0}, mse_weight=0.0, l1_weight=0.0)
    total, terms = loss(images, stage.decode(encoding.latents), encoding)
    total.backward()
    torch.testing.assert_close(total, 16 * terms["proxy"] + 0.25 * terms["commitment"])
    trained = {name for name, p in stage.named_parameters() if p.grad is not None and p.grad.any()}
    assert trained == {name for name, _ in stage.named_parameters() if not name.startswith("proxy.")}
    assert all(torch.equal(tensor, before[name]) for name, tensor in stage.proxy.state_dict().items())


def test_the_second_stage_starts_where_the_first_ended(images):
    first = first_stage(TailDrop()).eval().requires_grad_(False)
    latents = first.encode(images).latents
    shown = first.decode(latents[:, :4])
    second = CodePixelStage(first)
    assert second.training
    second.eval()
    torch.testing.assert_close(second.encode(images).latents, latents)
    torch.testing.assert_close(second.decode(latents[:, :4]), shown, atol=1e-4, rtol=0)
    assert second.tail_drop == first.tail_drop


def test_the_second_stage_trains_both_decoders_and_keeps_the_codes(images):
    second = CodePixelStage(first_stage().eval().requires_grad_(False)).train()
    kept = {name: tensor.clone() for name, tensor in second.state_dict().items() if "quantizer" in name}
    encoding = second.encode(images)
    assert encoding.losses == {}
    loss = PixelLoss(terms={})
    loss(images, second.decode(encoding.latents), encoding)[0].backward()
    trained = {name.split(".")[0] for name, p in second.named_parameters() if p.grad is not None}
    assert trained == {"decoder", "from_codes", "pixels"}
    idle = [name for name, p in second.named_parameters() if p.grad is not None and not p.grad.any()]
    assert idle == []
    assert all(torch.equal(second.state_dict()[name], tensor) for name, tensor in kept.items())
    raw = second.decode(encoding.latents * 50)
    assert torch.equal(second.eval().decode(encoding.latents * 50), raw.clamp(0, 1))


def test_a_proxy_without_normalized_codes_is_refused():
    proxy = vq()
    proxy.quantizer = VectorQuantizer(20, 5, normalize=False)
    parts = first_stage()
    with pytest.raises(ValueError, match="normalize=true"):
        CodeStage(parts.encoder, parts.quantizer, parts.decoder, proxy=proxy)


def test_the_second_stage_takes_its_first_one_once():
    with pytest.raises(ValueError, match=r"tokenizer\.first"):
        CodePixelStage(first_stage()).start_from(first_stage())
