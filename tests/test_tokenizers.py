"""Encoders, decoders, the VQ tokenizer, SigLIP towers, the decoupled pair and the losses."""

import pytest
import torch
import torch.nn.functional as F

from tessella.tokenizers.base import Encoding, ImageTokenizer, VisionEncoder
from tessella.tokenizers.cnn_blocks import AttentionBlock, Downsample
from tessella.tokenizers.cnn_light import LightDecoder, LightEncoder
from tessella.tokenizers.cnn_vqgan import VQGANDecoder, VQGANEncoder
from tessella.tokenizers.decoupled import Decoupled
from tessella.tokenizers.losses import PixelLoss, SigmoidLoss
from tessella.tokenizers.quantizers.vq import VectorQuantizer
from tessella.tokenizers.siglip import SigLIP
from tessella.tokenizers.siglip_small import SmallSigLIP, split_words, word_hashes
from tessella.tokenizers.vq import VQTokenizer

LIGHT = {"patch_size": 2, "widths": (8, 12), "num_blocks": (1, 1)}
VQGAN = {
    "channels": 8,
    "channel_multipliers": (1, 2, 2),
    "num_res_blocks": 1,
    "attention_levels": (2,),
    "z_channels": 6,
    "num_groups": 4,
}
TOWER = {"image_size": 16, "patch_size": 8, "hidden_size": 8, "num_layers": 2, "num_heads": 2, "mlp_size": 12}


def randomize(module):
    """Random weights of a healthy scale in place of zero starts, which hide mistakes."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return module


def light_tokenizer(**quantizer):
    options = {"normalize": True} | quantizer
    parts = LightEncoder(**LIGHT), VectorQuantizer(20, 4, **options), LightDecoder(in_channels=5, **LIGHT)
    return randomize(VQTokenizer(*parts, image_size=16))


def vqgan_tokenizer():
    parts = VQGANEncoder(**VQGAN), VectorQuantizer(20, 4, normalize=False), VQGANDecoder(**VQGAN)
    return randomize(VQTokenizer(*parts, image_size=16))


def small_siglip(**options):
    defaults = {"image_size": 16, "embedding_dim": 10, "text_dim": 8, "text_layers": 1, "max_words": 6}
    return SmallSigLIP(**(LIGHT | {"num_blocks": (1, 2)} | defaults | options))


@pytest.mark.parametrize("build", [light_tokenizer, vqgan_tokenizer])
def test_ids_decode_to_what_latents_decode_to(build):
    tokenizer = build().eval()
    images = torch.rand(3, 3, 16, 16)
    encoding = tokenizer.encode(images)
    assert torch.equal(tokenizer.dequantize(encoding.ids), encoding.latents)
    assert torch.equal(tokenizer.decode(tokenizer.dequantize(encoding.ids)), tokenizer.decode(encoding.latents))
    assert torch.equal(tokenizer.features(images), encoding.latents)
    assert torch.equal(tokenizer.step_inputs(encoding.ids[:, :3]), encoding.latents[:, :3])
    assert torch.equal(tokenizer.step_inputs(encoding.ids), encoding.latents[:, :-1])


def test_ids_are_in_raster_order():
    class Cells(torch.nn.Module):
        stride, in_channels = 4, 4

        def forward(self, z):
            return F.interpolate(z[:, :3], scale_factor=4.0)

    tokenizer = VQTokenizer(
        LightEncoder(**LIGHT), VectorQuantizer(20, 4, normalize=False), Cells(), image_size=16
    ).eval()
    torch.nn.init.dirac_(tokenizer.from_codes.weight)
    torch.nn.init.zeros_(tokenizer.from_codes.bias)
    latents = torch.full((1, 16, 4), -1.0)
    latents[:, 6] = 1.0  # row 1, column 2
    expected = torch.zeros(1, 3, 16, 16)
    expected[:, :, 4:8, 8:12] = 1.0
    assert torch.equal(tokenizer.decode(latents), expected)

    seen = []
    tokenizer.encoder.register_forward_hook(lambda module, inputs, output: seen.append(output))
    ids = tokenizer.encode(torch.rand(1, 3, 16, 16)).ids
    cells = tokenizer.to_codes(seen[0])[0].permute(1, 2, 0)  # (h, w, C)
    rows = [[int(tokenizer.quantizer(cells[y, x])[1]) for x in range(4)] for y in range(4)]
    assert ids[0].view(4, 4).tolist() == rows


@pytest.mark.parametrize("build", [light_tokenizer, vqgan_tokenizer])
def test_every_weight_of_a_tokenizer_learns(build):
    tokenizer = build().train()
    images = torch.rand(2, 3, 16, 16)
    encoding = tokenizer.encode(images)
    loss = PixelLoss(terms={"commitment": 0.25, "codebook": 1.0})
    loss(images, tokenizer.decode(encoding.latents), encoding)[0].backward()
    idle = [name for name, p in tokenizer.named_parameters() if p.grad is None or not p.grad.any()]
    # Softmax does not see what is added to all keys alike, so the key bias cannot matter.
    assert [name for name in idle if not name.endswith("key.bias")] == []


def test_decoding_is_clamped_in_eval_mode_alone():
    tokenizer = light_tokenizer()
    latents = torch.randn(2, tokenizer.num_latents, 4) * 10
    raw = tokenizer.train().decode(latents)
    assert raw.min() < 0
    assert raw.max() > 1
    assert torch.equal(tokenizer.eval().decode(latents), raw.clamp(0, 1))


def test_light_blocks_start_as_the_identity():
    torch.manual_seed(0)
    encoder = LightEncoder(**LIGHT)
    images = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(encoder(images), encoder.downs[0](encoder.stem(images)))


def test_vqgan_downsampling_pads_bottom_and_right():
    layer = Downsample(2)
    x = torch.randn(1, 2, 6, 6)
    expected = F.conv2d(F.pad(x, (0, 1, 0, 1)), layer.conv.weight, layer.conv.bias, stride=2)
    assert torch.equal(layer(x), expected)
    assert layer(x).shape == (1, 2, 3, 3)


def test_attention_block_is_the_definition():
    block = randomize(AttentionBlock(8, 4))
    x = torch.randn(2, 8, 3, 5)
    h = F.group_norm(x, 4, block.norm.weight, block.norm.bias, eps=1e-6)
    query, key, value = (layer(h).flatten(2) for layer in (block.query, block.key, block.value))  # (B, C, h*w)
    weights = torch.softmax(torch.einsum("bci,bcj->bij", query, key) / 8**0.5, dim=-1)
    mixed = torch.einsum("bij,bcj->bci", weights, value).unflatten(2, (3, 5))
    torch.testing.assert_close(block(x), x + block.out(mixed), atol=1e-5, rtol=1e-5)


def test_attention_levels_choose_where_attention_is():
    encoder = VQGANEncoder(**(VQGAN | {"attention_levels": (0, 2)}))
    kinds = [[isinstance(block, AttentionBlock) for block in level.attention] for level in encoder.levels]
    assert kinds == [[True], [False], [True]]
    decoder = VQGANDecoder(**(VQGAN | {"attention_levels": (2,)}))
    kinds = [[isinstance(block, AttentionBlock) for block in level.attention] for level in decoder.levels]
    assert kinds == [[True, True], [False, False], [False, False]]  # the deepest level comes first


def test_tokenizer_schedule_reaches_the_quantizer():
    tokenizer = Decoupled(small_siglip(), light_tokenizer(unquantized_until=0.5)).train()
    images = torch.rand(2, 3, 16, 16)
    tokenizer.set_step(4, 10)
    assert tokenizer.encode(images).ids is None
    tokenizer.set_step(5, 10)
    assert tokenizer.encode(images).ids is not None


def test_decoupled_reads_with_one_part_and_writes_with_the_other():
    reader, writer = randomize(SigLIP(**TOWER)).eval(), light_tokenizer().eval()
    tokenizer = Decoupled(reader, writer).eval()
    images = torch.rand(2, 3, 16, 16)
    encoding = tokenizer.encode(images)
    assert torch.equal(tokenizer.features(images), reader.features(images))
    assert (tokenizer.num_features, tokenizer.feature_dim) == (4, 8)
    assert torch.equal(encoding.ids, writer.encode(images).ids)
    assert torch.equal(tokenizer.dequantize(encoding.ids), encoding.latents)
    assert torch.equal(tokenizer.decode(encoding.latents), writer.decode(encoding.latents))
    assert torch.equal(tokenizer.step_inputs(encoding.ids), writer.step_inputs(encoding.ids))
    assert tokenizer.min_tokens == tokenizer.num_tokens == writer.num_tokens
    assert tokenizer.bits_per_image == writer.bits_per_image


def test_siglip_features_are_transformers_last_hidden_state():
    from transformers import SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(
        image_size=16, patch_size=8, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
        hidden_act="gelu",
    )  # fmt: skip
    reference = randomize(SiglipVisionModel(config)).eval()
    tower = SigLIP(**TOWER).eval()
    tower.tower.load_state_dict({k: v for k, v in reference.state_dict().items() if not k.startswith("head.")})
    images = torch.rand(2, 3, 16, 16)
    expected = reference(pixel_values=(images - 0.5) / 0.5).last_hidden_state
    torch.testing.assert_close(tower.features(images), expected)


@pytest.fixture
def checkpoint(tmp_path):
    """A whole SigLIP model, text tower included, as the hub has it."""
    from transformers import SiglipConfig, SiglipModel

    vision = {"image_size": 16, "patch_size": 8, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 9}
    model = randomize(SiglipModel(SiglipConfig(vision_config=vision | {"intermediate_size": 12}, text_config=text)))
    model.save_pretrained(tmp_path)
    return tmp_path, model.eval()


def test_pretrained_siglip_has_the_weights_of_the_folder(checkpoint):
    folder, model = checkpoint
    tower = SigLIP(**TOWER, activation="gelu_pytorch_tanh", pretrained=str(folder)).eval()
    images = torch.rand(2, 3, 16, 16)
    expected = model.vision_model(pixel_values=images * 2 - 1).last_hidden_state
    torch.testing.assert_close(tower.features(images), expected)


def test_pretrained_siglip_must_be_what_the_config_says(checkpoint):
    folder, _ = checkpoint
    with pytest.raises(ValueError, match=r"has activation=gelu_pytorch_tanh \(not gelu\)"):
        SigLIP(**TOWER, pretrained=str(folder))
    with pytest.raises(ValueError, match=r"num_layers=2 \(not 3\)"):
        SigLIP(**(TOWER | {"num_layers": 3}), activation="gelu_pytorch_tanh", pretrained=str(folder))


def test_incomplete_siglip_checkpoint_is_an_error(checkpoint):
    from safetensors.torch import load_file, save_file

    folder, _ = checkpoint
    weights = load_file(folder / "model.safetensors")
    gone = next(name for name in weights if name.endswith("layers.1.mlp.fc1.weight") and "vision" in name)
    del weights[gone]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks 1 weights"):
        SigLIP(**TOWER, activation="gelu_pytorch_tanh", pretrained=str(folder))


def test_siglip_without_network_or_folder_is_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="without a network give the folder") as caught:
        SigLIP(**TOWER, pretrained=str(tmp_path / "nothing"))
    assert "\n" not in str(caught.value)


def test_small_siglip_starts_from_a_pixel_encoder():
    encoder, siglip = light_tokenizer().encoder, small_siglip()
    kept = siglip.trunk.levels[1][1].conv1.weight.clone()
    siglip.warm_start_from(encoder)
    for name, weight in encoder.state_dict().items():
        assert torch.equal(siglip.trunk.state_dict()[name], weight)
    assert torch.equal(siglip.trunk.levels[1][1].conv1.weight, kept)
    with pytest.raises(ValueError, match="same patch_size and widths"):
        small_siglip(widths=(8, 16)).warm_start_from(encoder)


def test_small_siglip_scores_are_scaled_cosines():
    siglip = randomize(small_siglip()).eval()
    images, captions = torch.rand(3, 3, 16, 16), ["a red circle", "a blue square", "Nothing, at all!", ""]
    image_embeddings, caption_embeddings = siglip.embed_images(images), siglip.embed_captions(captions)
    torch.testing.assert_close(image_embeddings.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(caption_embeddings.norm(dim=-1), torch.ones(4))
    cosines = image_embeddings @ caption_embeddings.T
    torch.testing.assert_close(siglip(images, captions), siglip.log_scale.exp() * cosines + siglip.bias)


def test_captions_read_alike_in_any_company():
    siglip = randomize(small_siglip()).eval()
    alone = siglip.embed_captions(["a red circle"])
    company = siglip.embed_captions(["a large blue square at the top left", "A  red CIRCLE"])[1:]
    torch.testing.assert_close(alone, company)
    cut = siglip.embed_captions(["one two three four five six seven", "one two three four five six"])  # max_words is 6
    torch.testing.assert_close(cut[0], cut[1])
    turned = siglip.embed_captions(["circle red a"])
    assert (alone - turned).abs().max() > 1e-3


def test_words_hash_alike_in_every_process():
    assert split_words("A small, red circle.") == ["a", "small", ",", "red", "circle", "."]
    assert word_hashes("circle") == (3179490659, 460972416)


def test_features_of_the_small_siglip_carry_no_position():
    siglip = small_siglip().eval()
    features = siglip.features(torch.full((1, 3, 16, 16), 0.3))[0].unflatten(0, (4, 4))
    torch.testing.assert_close(features[1, 1], features[2, 2])


def test_every_weight_of_the_small_siglip_learns():
    siglip = randomize(small_siglip())
    captions = ["a red circle", "a blue square"]
    SigmoidLoss()(siglip(torch.rand(2, 3, 16, 16), captions), captions)[0].backward()
    idle = [name for name, p in siglip.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_pixel_loss_is_the_definition():
    torch.manual_seed(0)
    images, reconstruction = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    encoding = Encoding(torch.zeros(2, 1, 1), losses={"commitment": torch.tensor(0.5), "codebook": torch.tensor(2.0)})
    loss = PixelLoss(terms={"commitment": 0.25, "codebook": 3.0}, mse_weight=2.0, l1_weight=5.0, saturation_weight=4.0)
    total, logged = loss(images, reconstruction, encoding)
    weights = torch.zeros(2, 4, 4)
    for b, y, x in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(4)):
        weights[b, y, x] = 1 + 4 * (images[b, :, y, x].max() - images[b, :, y, x].min())
    weights = weights / weights.mean()
    mse = ((images - reconstruction) ** 2 * weights[:, None]).mean()
    l1 = ((images - reconstruction).abs() * weights[:, None]).mean()
    torch.testing.assert_close(total, 2 * mse + 5 * l1 + 0.25 * 0.5 + 3 * 2.0)
    torch.testing.assert_close(logged["mse"], mse)
    assert set(logged) == {"mse", "l1", "commitment", "codebook"}


def test_plain_pixel_loss_weights_all_pixels_alike():
    images, reconstruction = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    total, _ = PixelLoss(terms={}, l1_weight=0.0)(images, reconstruction, Encoding(torch.zeros(2, 1, 1)))
    torch.testing.assert_close(total, F.mse_loss(reconstruction, images))


def test_a_loss_without_weight_is_an_error():
    encoding = Encoding(torch.zeros(1, 1, 1), losses={"entropy": torch.tensor(1.0)})
    with pytest.raises(ValueError, match="'entropy' without a weight"):
        PixelLoss(terms={"commitment": 1.0})(torch.rand(1, 3, 2, 2), torch.rand(1, 3, 2, 2), encoding)


def test_sigmoid_loss_counts_equal_captions_as_matches():
    torch.manual_seed(0)
    logits, captions = torch.randn(4, 4), ["a", "b", "a", "c"]
    total, logged = SigmoidLoss()(logits, captions)
    expected = 0.0
    for i, mine in enumerate(captions):
        for j, other in enumerate(captions):
            expected -= torch.log(torch.sigmoid(logits[i, j] if mine == other else -logits[i, j])).item() / 4
    assert total.item() == pytest.approx(expected, rel=1e-5)
    hits = [captions[int(row.argmax())] == mine for row, mine in zip(logits, captions, strict=True)]
    assert logged["retrieval"].item() == pytest.approx(sum(hits) / 4)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(2, 3, 8, 8), r"\(2, 3, 8, 8\)"),
        (torch.rand(3, 16, 16), r"\(3, 16, 16\)"),
        (torch.zeros(2, 3, 16, 16, dtype=torch.uint8), "uint8"),
    ],
)
def test_wrong_images_are_named(images, message):
    for encoder in (light_tokenizer(), small_siglip(), SigLIP(**TOWER)):
        with pytest.raises(ValueError, match=message):
            encoder.features(images)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LightEncoder(patch_size=2, widths=(8, 8), num_blocks=(1,)), "one entry per level"),
        (lambda: VQGANEncoder(**(VQGAN | {"num_groups": 3})), "num_groups=3"),
        (lambda: VQGANEncoder(**(VQGAN | {"attention_levels": (3,)})), "3 levels"),
        (
            lambda: VQTokenizer(
                LightEncoder(**LIGHT),
                VectorQuantizer(4, 4, normalize=True),
                LightDecoder(in_channels=4, **LIGHT),
                image_size=18,
            ),
            "use 16 or 20",
        ),
        (
            lambda: VQTokenizer(
                LightEncoder(**LIGHT),
                VectorQuantizer(4, 4, normalize=True),
                LightDecoder(in_channels=4, **(LIGHT | {"patch_size": 4})),
                image_size=16,
            ),
            "divides by 4 and the decoder multiplies by 8",
        ),
        (lambda: SigLIP(**(TOWER | {"image_size": 7})), "image_size=7 must hold patches"),
        (lambda: small_siglip(image_size=18), "image_size=18"),
        (lambda: Decoupled(small_siglip(image_size=32), light_tokenizer()), "32 px images"),
        (lambda: light_tokenizer().decode(torch.zeros(1, 3, 4)), "whole grids"),
        (lambda: light_tokenizer().dequantize(torch.zeros(1, 17, dtype=torch.int64)), "L <= 16"),
    ],
)
def test_parts_that_do_not_fit_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_the_contract_leaves_the_work_to_subclasses():
    tokenizer, encoder = ImageTokenizer(), VisionEncoder()
    image = torch.zeros(1)
    for call in (tokenizer.encode, tokenizer.dequantize, tokenizer.decode, encoder.features):
        with pytest.raises(NotImplementedError):
            call(image)
    tokenizer.set_step(0, 1)
