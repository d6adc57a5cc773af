"""LlamaGen, Chameleon and MaskGIT's VQGAN in their official layout: configurations, key names, what a file may hold."""

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate

from tessella.tokenizers import official_chameleon, official_llamagen, official_maskgit_vqgan
from tessella.tokenizers.checkpoints import export_weights, import_weights

LLAMAGEN = {
    "ch": 8,
    "norm_num_groups": 4,
    "num_res_blocks": 1,
    "encoder_ch_mult": [1, 2],
    "decoder_ch_mult": [2, 1],
    "z_channels": 6,
    "codebook_size": 20,
    "codebook_embed_dim": 4,
}
NETWORK = {
    "double_z": False,
    "z_channels": 6,
    "resolution": 16,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 8,
    "ch_mult": [1, 2],
    "num_res_blocks": 1,
    "attn_resolutions": [8],
    "dropout": 0.0,
}
CHAMELEON = {"embed_dim": 5, "n_embed": 20, "norm_num_groups": 4, "ddconfig": NETWORK}
MASKGIT = {"codebook_size": 20, "z_channels": 6, "hidden_channels": 32, "channel_mult": [1, 2], "num_res_blocks": 1}
SYSTEMS = [
    (official_llamagen, LLAMAGEN, "quantize.codebook_used"),
    (official_chameleon, CHAMELEON, "loss.discriminator.main.0.weight"),
    (official_maskgit_vqgan, MASKGIT, None),
]

PUBLISHED = [
    ("vq16", official_llamagen, {}),
    ("vq16", official_llamagen, official_llamagen.PUBLISHED["vq_ds16_t2i.pt"]),
    ("vq8", official_llamagen, official_llamagen.PUBLISHED["vq_ds8_c2i.pt"]),
    ("maskgit_vqgan", official_maskgit_vqgan, {}),
    (
        "chameleon",
        official_chameleon,
        {
            "params": {
                "embed_dim": 256,
                "n_embed": 8192,
                "ddconfig": {
                    "z_channels": 256,
                    "resolution": 512,
                    "ch": 128,
                    "ch_mult": [1, 1, 2, 2, 4],
                    "num_res_blocks": 2,
                    "attn_resolutions": [],
                },
            }
        },
    ),
]

# Keys of published files, with shapes.
KEYS = {
    "vq16": {
        "encoder.conv_blocks.4.attn.1.proj_out.weight": (512, 512, 1, 1),
        "encoder.conv_blocks.2.res.0.nin_shortcut.weight": (256, 128, 1, 1),
        "encoder.conv_blocks.3.downsample.conv.bias": (256,),
        "encoder.mid.1.k.bias": (512,),
        "decoder.conv_blocks.0.res.2.conv2.weight": (512, 512, 3, 3),
        "decoder.conv_blocks.0.attn.2.q.weight": (512, 512, 1, 1),
        "decoder.conv_blocks.3.upsample.conv.weight": (128, 128, 3, 3),
        "quantize.embedding.weight": (16384, 8),
        "quant_conv.weight": (8, 256, 1, 1),
    },
    "chameleon": {
        "encoder.down.4.block.0.nin_shortcut.weight": (512, 256, 1, 1),
        "encoder.mid.attn_1.q.weight": (512, 512, 1, 1),
        "decoder.up.4.block.2.conv1.weight": (512, 512, 3, 3),
        "decoder.up.3.block.0.nin_shortcut.weight": (256, 512, 1, 1),
        "decoder.up.1.upsample.conv.weight": (128, 128, 3, 3),
        "decoder.norm_out.weight": (128,),
        "post_quant_conv.weight": (256, 256, 1, 1),
    },
    "maskgit_vqgan": {
        "encoder.conv_in.weight": (128, 3, 3, 3),
        "encoder.down.2.block.0.nin_shortcut.weight": (256, 256, 1, 1),
        "encoder.conv_out.weight": (256, 512, 1, 1),
        "decoder.up.3.block.0.nin_shortcut.weight": (256, 256, 1, 1),
        "decoder.up.1.upsample_conv.weight": (128, 128, 3, 3),
        "decoder.mid.1.conv2.weight": (512, 512, 3, 3),
        "quantize.embedding.weight": (1024, 256),
    },
}


def tiny(module, config, image_size=16):
    torch.manual_seed(0)
    tokenizer = module.from_official_config(config, image_size=image_size).eval()
    with torch.no_grad():
        for parameter in tokenizer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        tokenizer.quantizer.codebook.normal_()
    return tokenizer


@pytest.mark.parametrize(("name", "module", "config"), PUBLISHED)
def test_official_configuration_builds_what_our_yaml_builds(name, module, config):
    with initialize_config_module("tessella.conf", version_base="1.3"), torch.device("meta"):
        ours = instantiate(compose(overrides=[f"+tokenizer={name}"]).tokenizer)
        theirs = module.from_official_config(config)
    shapes = {key: tensor.shape for key, tensor in ours.state_dict().items()}
    assert shapes == {key: tensor.shape for key, tensor in theirs.state_dict().items()}
    assert str(ours) == str(theirs)
    assert (ours.image_size, ours.black, ours.white) == (theirs.image_size, theirs.black, theirs.white)
    official = export_weights(theirs, module.layout(theirs))
    for key, shape in KEYS.get(name, {}).items():
        assert official[key].shape == shape, key


@pytest.mark.parametrize(("module", "config", "unused"), SYSTEMS)
def test_a_file_comes_back_bit_for_bit(module, config, unused):
    source, target = tiny(module, config), module.from_official_config(config, image_size=16).eval()
    layout = module.layout(source)
    extra = {unused: torch.arange(6.0)} if unused else {}
    official = export_weights(source, layout, extra)
    assert not [key for key in official if "quantizer" in key or "stem" in key]
    left = import_weights(target, module.unwrap(official), layout)
    assert left.keys() == extra.keys()
    again = export_weights(target, layout, left)
    assert again.keys() == official.keys()
    assert all(torch.equal(again[key], tensor) for key, tensor in official.items())
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(target.encode(images).latents, source.encode(images).latents)


@pytest.mark.parametrize(("module", "config", "unused"), SYSTEMS)
def test_ids_of_an_image_do_not_depend_on_its_company(module, config, unused):
    tokenizer = tiny(module, config)
    images = torch.rand(5, 3, 16, 16)
    together = tokenizer.encode(images)
    assert torch.equal(tokenizer.encode(images).latents, together.latents)  # nor on chance
    for image, ids in zip(images, together.ids, strict=True):
        assert torch.equal(tokenizer.encode(image[None]).ids[0], ids)
    assert len(together.ids.unique()) > 5


def test_files_of_training_are_opened():
    weights, averaged = {"encoder.conv_in.weight": torch.zeros(1)}, {"encoder.conv_in.weight": torch.ones(1)}
    assert official_llamagen.unwrap({"model": weights, "optimizer": {}, "steps": 3}) is weights
    assert official_llamagen.unwrap({"model": weights, "ema": averaged}) is averaged
    assert official_llamagen.unwrap(weights) is weights
    assert official_chameleon.unwrap({"state_dict": weights, "epoch": 3}) is weights
    assert official_chameleon.unwrap(weights) is weights


def test_attention_follows_the_nominal_resolution():
    # 22 halves to 11, 5; the decoder counts 5, 10, 20: official networks differ there as well.
    network = NETWORK | {"resolution": 22, "ch_mult": [1, 1, 2], "attn_resolutions": [11, 20]}
    tokenizer = official_chameleon.from_official_config(CHAMELEON | {"ddconfig": network}, image_size=16)

    def attended(side):
        return [bool(list(level.attention.parameters())) for level in side.levels]

    assert attended(tokenizer.encoder) == [False, True, False]
    assert attended(tokenizer.decoder) == [False, False, True]  # deepest level first


def test_published_weights_of_the_losses():
    assert official_llamagen.loss_terms({}) == {"codebook": 1.0, "commitment": 0.25}
    assert official_llamagen.loss_terms({"entropy_loss_ratio": 0.1})["entropy"] == 0.1
    assert official_llamagen.quantizer({}).entropy_temperature is None
    assert official_llamagen.quantizer({"entropy_loss_ratio": 0.1}).entropy_temperature == 0.01
    assert official_chameleon.LOSS_TERMS == {"codebook": 0.25, "commitment": 1.0}
    assert official_maskgit_vqgan.loss_terms({}) == {"codebook": 0.25, "commitment": 1.0}


def test_usage_statistic_keeps_the_latest_ids():
    used = official_llamagen.recent_codes(torch.zeros(6), torch.tensor([[5, 4], [3, 2]]))
    assert used.tolist() == [0, 0, 5, 4, 3, 2]
    assert official_llamagen.recent_codes(used, torch.tensor([9, 8, 7])).tolist() == [4, 3, 2, 9, 8, 7]


@pytest.mark.parametrize(
    ("module", "config", "message"),
    [
        (official_chameleon, CHAMELEON | {"ddconfig": NETWORK | {"double_z": True}}, "double_z=True"),
        (official_chameleon, CHAMELEON | {"ddconfig": NETWORK | {"in_channels": 1}}, "in_channels=1"),
        (official_chameleon, {"n_embed": 20}, "lacks embed_dim, ddconfig"),
        (official_maskgit_vqgan, MASKGIT | {"num_resolutions": 3}, "num_resolutions=3"),
        (official_maskgit_vqgan, MASKGIT | {"num_channels": 1}, "num_channels=1"),
    ],
)
def test_what_no_release_has_is_refused(module, config, message):
    with pytest.raises(ValueError, match=message):
        module.from_official_config(config)
