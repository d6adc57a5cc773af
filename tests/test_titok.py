"""TiTok and One-D-Piece: what the modules do, beyond the numbers that recorded cases compare."""

from functools import partial

import pytest
import torch

from tessella.tokenizers.base import Encoding
from tessella.tokenizers.cnn_maskgit import MaskGITDecoder, MaskGITEncoder
from tessella.tokenizers.losses import PixelLoss
from tessella.tokenizers.one_d import OneDTokenizer
from tessella.tokenizers.one_d_vae import DiagonalNormal, OneDVAE
from tessella.tokenizers.quantizers.vq import VectorQuantizer
from tessella.tokenizers.tail_drop import TailDrop
from tessella.tokenizers.titok import TiTokDecoder, TiTokEncoder
from tessella.tokenizers.titok_heads import MixtureHead, PixelHead, ProxyHead
from tessella.tokenizers.titok_stages import PixelStage, ProxyStage
from tessella.tokenizers.vit import Attention, Block, patch_grid
from tessella.tokenizers.vq import GridTokenizer

SIZES = {"image_size": 8, "patch_size": 2, "width": 12, "depth": 1, "num_heads": 2, "num_latents": 6}


def randomize(module, std=0.3):
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return module


def encoder(dim=4, **options):
    return randomize(TiTokEncoder(**(SIZES | options), dim=dim))


def decoder(head=PixelHead, dim=4, **options):
    return randomize(TiTokDecoder(**(SIZES | options), dim=dim, head=head))


def mixture(num_codes=10, channels=4):
    renderer = MaskGITDecoder(
        channels=channels, channel_multipliers=(1, 1), num_res_blocks=1, z_channels=3, num_groups=2
    )
    return partial(MixtureHead, num_codes=num_codes, renderer=renderer)


def tokenizer(kind=OneDTokenizer, head=PixelHead, **options):
    quantizer = VectorQuantizer(16, 4, normalize=True)
    torch.nn.init.normal_(quantizer.codebook)
    return kind(encoder(), quantizer, decoder(head), **options)


class Proxy(torch.nn.Module):
    """Codes are the brightness of 2x2 cells in tenths."""

    image_size, vocab_size, num_tokens = 8, 10, 16

    def encode(self, images):
        ids = (torch.nn.functional.avg_pool2d(images.mean(1), 2) * 9.99).long().flatten(1)
        return Encoding(ids[..., None].float(), ids)

    def dequantize(self, ids):
        return ids[..., None].float()

    def decode(self, latents):
        cells = latents[..., 0].unflatten(1, (4, 4)) / 10
        return cells.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, None].expand(-1, 3, -1, -1)


def test_the_legacy_reshape_mixes_slices_of_all_latents():
    legacy, plain = encoder(legacy_reshape=True), encoder()
    images = torch.rand(2, 3, 8, 8)
    seen = {}
    for name, module in (("legacy", legacy), ("plain", plain)):
        module.out.register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0]}))
        module(images)
    count, width = plain.num_latents, SIZES["width"]
    for token in range(count):
        for channel in range(width):
            flat = channel * count + token
            expected = seen["plain"][:, flat // width, flat % width]
            assert torch.equal(seen["legacy"][:, token, channel], expected)


def test_pixels_of_a_patch_are_ordered_by_row_column_color():
    head = PixelHead(5, 2)
    torch.nn.init.zeros_(head.to_patches.weight)
    head.to_patches.bias.data = torch.arange(12.0)
    torch.nn.init.dirac_(head.smooth.weight)
    images = head(torch.rand(1, 5, 3, 3))
    assert images.shape == (1, 3, 6, 6)
    for row in range(6):
        for column in range(6):
            for color in range(3):
                assert images[0, color, row, column] == (row % 2) * 6 + (column % 2) * 3 + color


def test_a_prefix_per_image_is_decoded_as_if_it_were_alone():
    module = decoder().eval()
    latents = torch.randn(3, 6, 4)
    together = module(latents, torch.tensor([1, 4, 6]))
    for image, kept in zip(range(3), (1, 4, 6), strict=True):
        torch.testing.assert_close(together[image : image + 1], module(latents[image : image + 1, :kept]))


def test_tail_drop_cuts_the_batch_at_one_length_in_training():
    module = tokenizer(tail_drop=TailDrop())
    latents = torch.randn(2, 6, 4)
    full = [module.decoder(latents[:, :k]) for k in range(1, 7)]
    torch.manual_seed(1)
    met = set()
    for _ in range(40):
        images = module.decode(latents)
        met |= {k for k, image in enumerate(full, start=1) if torch.equal(image, images)}
    assert met == set(range(1, 7))


def test_ids_do_not_depend_on_the_batch():
    module = tokenizer().eval()
    images = torch.rand(5, 3, 8, 8)
    together = module.encode(images).ids
    assert torch.equal(together, torch.cat([module.encode(image[None]).ids for image in images]))
    assert torch.equal(together.flip(0), module.encode(images.flip(0)).ids)


def test_stage_two_trains_nothing_before_the_decoder():
    module = tokenizer(PixelStage, mixture()).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    encoding = module.encode(torch.rand(2, 3, 8, 8))
    assert encoding.losses == {}
    assert not encoding.latents.requires_grad
    module.decode(encoding.latents).square().mean().backward()
    trained = {name for name, parameter in module.named_parameters() if parameter.grad is not None}
    assert trained == {name for name, _ in module.decoder.named_parameters(prefix="decoder")}
    assert not any(p.requires_grad for part in (module.encoder, module.quantizer) for p in part.parameters())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_the_mixture_of_sure_logits_is_the_code():
    head = mixture()(5, 2)
    logits = torch.full((1, 10, 2, 2), -1e4)
    logits[:, 7] = 0
    torch.testing.assert_close(head.mix(logits), head.codebook[7].view(1, 3, 1, 1).expand(1, 3, 2, 2))


def test_stage_one_learns_the_codes_of_its_proxy_and_renders_them():
    module = tokenizer(ProxyStage, partial(ProxyHead, num_codes=10), proxy=Proxy(), tail_drop=TailDrop())
    images = torch.rand(2, 3, 8, 8)
    targets = module.targets(images)
    assert targets.shape == (2, 16)
    latents = module.encode(images).latents
    assert module.logits(latents).shape == (2, 10, 4, 4)
    module.eval()
    picked = module.logits(latents).argmax(1)
    torch.testing.assert_close(module.decode(latents)[:, 0, ::2, ::2], picked / 10)
    assert not module.train().proxy.training


def test_stage_one_needs_a_proxy_for_images():
    module = tokenizer(ProxyStage, partial(ProxyHead, num_codes=10)).eval()
    with pytest.raises(ValueError, match=r"give one \(tokenizer.proxy\)"):
        module.decode(torch.rand(1, 6, 4))
    other = Proxy()
    other.image_size = 16
    with pytest.raises(ValueError, match="images of 16 pixels"):
        tokenizer(ProxyStage, proxy=other)
    continuous = Proxy()
    continuous.vocab_size = None
    with pytest.raises(ValueError, match="continuous latents"):
        tokenizer(ProxyStage, proxy=continuous)


def grid_proxy(**options):
    sizes = {"channels": 4, "channel_multipliers": (1, 1), "num_res_blocks": 1, "z_channels": 3, "num_groups": 2}
    proxy = GridTokenizer(
        MaskGITEncoder(**sizes),
        VectorQuantizer(10, 3, normalize=False),
        MaskGITDecoder(**sizes),
        image_size=8,
        from_codes=torch.nn.Conv2d(3, 3, 1),
        **({"pixel_range": (0, 1)} | options),
    )
    return randomize(proxy).eval()


def first_stage(**options):
    return tokenizer(ProxyStage, partial(ProxyHead, num_codes=10), proxy=grid_proxy(**options))


def test_stage_one_trains_everything_but_its_proxy():
    module = first_stage(pixel_range=(-1, 1)).train()
    before = {name: value.clone() for name, value in module.proxy.state_dict().items()}
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], 3e-3)
    loss = PixelLoss(terms={"proxy": 1.0, "codebook": 1.0, "commitment": 0.25}, mse_weight=0.0, l1_weight=0.0)
    images = torch.rand(4, 3, 8, 8)
    entropies = []
    for _ in range(30):
        encoding = module.encode(images)
        total, terms = loss(images, module.decode(encoding.latents), encoding)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        entropies.append(terms["proxy"].item())
    assert entropies[-1] < 0.7 * entropies[0]
    assert all(torch.equal(value, before[name]) for name, value in module.proxy.state_dict().items())
    assert module.decoder.head.layers[2].weight.grad is not None
    assert "proxy" not in module.eval().encode(images).losses


def test_stage_two_starts_where_stage_one_and_its_proxy_end():
    stage1, stage2 = first_stage().eval(), tokenizer(PixelStage, mixture()).eval()
    stage2.start_from(stage1)
    images = torch.rand(2, 3, 8, 8)
    latents = stage1.encode(images).latents
    assert torch.equal(stage2.encode(images).latents, latents)
    shares = stage1.logits(latents).softmax(1)
    codes = torch.einsum("bkhw,kc->bchw", shares, stage1.proxy.quantizer.codebook)
    torch.testing.assert_close(stage2.decoded(latents), stage1.proxy.to_pixels(codes), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("stage1", "head", "message"),
    [
        (first_stage, PixelHead, "a PixelHead cannot go on"),
        (
            partial(first_stage, pixel_range=(-1, 1)),
            mixture(),
            r"make them equal \(tokenizer.decoder.head.pixel_range\)",
        ),
        (first_stage, mixture(11), "11 codes and the proxy 10"),
        (first_stage, mixture(channels=6), "not built like stage 1"),
    ],
)
def test_stage_two_refuses_another_stage_one(stage1, head, message):
    with pytest.raises(ValueError, match=message):
        tokenizer(PixelStage, head).start_from(stage1())


def test_continuous_latents_are_sampled_in_training_alone():
    module = OneDVAE(encoder(dim=8), decoder())
    images = torch.rand(2, 3, 8, 8)
    posterior = module.posterior(images)
    module.eval()
    assert torch.equal(module.encode(images).latents, posterior.mean)
    assert module.decode(posterior.mean).amax() <= 1
    module.train()
    torch.manual_seed(3)
    sampled = module.encode(images).latents
    torch.manual_seed(3)
    assert torch.equal(sampled, posterior.sample(torch.randn_like(posterior.mean)))
    assert module.vocab_size is None
    with pytest.raises(ValueError, match=r"needed is \(B, 6, 4\)"):
        module.decode(posterior.mean[:, :3])
    with pytest.raises(ValueError, match=r"use encoder.dim=8"):
        OneDVAE(encoder(dim=4), decoder())


def test_the_divergence_is_that_of_torch():
    posterior = DiagonalNormal.of_moments(torch.randn(2, 3, 10) * 40)
    assert posterior.logvar.amin() >= -30
    assert posterior.logvar.amax() <= 20
    posterior = DiagonalNormal.of_moments(torch.randn(2, 3, 10))
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(posterior.mean, posterior.std), normal(0.0, 1.0)).sum(-1)
    torch.testing.assert_close(posterior.kl(), expected)


def test_attention_without_key_bias_is_one_whose_key_bias_is_zero():
    with_bias, without = randomize(Attention(8, 2)), randomize(Attention(8, 2, key_bias=False))
    with_bias.qkv.weight.data = without.qkv.weight.data
    with_bias.out.load_state_dict(without.out.state_dict())
    with_bias.qkv.bias.data = torch.cat([without.query_bias, torch.zeros(8), without.value_bias])
    x = torch.randn(2, 5, 8)
    torch.testing.assert_close(with_bias(x), without(x))


def test_a_block_is_that_of_torch():
    block = randomize(Block(8, 2, eps=1e-5))
    layer = torch.nn.TransformerEncoderLayer(8, 2, 32, 0.0, torch.nn.functional.gelu, batch_first=True, norm_first=True)
    layer.self_attn.in_proj_weight.data, layer.self_attn.in_proj_bias.data = (
        block.attention.qkv.weight,
        block.attention.qkv.bias,
    )
    pairs = (
        (layer.self_attn.out_proj, block.attention.out),
        (layer.linear1, block.mlp[0]),
        (layer.linear2, block.mlp[2]),
    )
    for theirs, ours in (*pairs, (layer.norm1, block.norm1), (layer.norm2, block.norm2)):
        theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 5, 8)
    torch.testing.assert_close(block(x), layer(x))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Attention(8, 3), "use 2 heads"),
        (lambda: patch_grid(10, 4), "use 8 or 12"),
        (lambda: encoder(num_latents=0), "use at least 1"),
        (lambda: decoder(mixture(), patch_size=4), "2 pixels of a cell along one side and the patches are 4 wide"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
