"""SigLIP from every kind of published configuration and file."""

import pytest
import torch

from tessella.tokenizers import official_siglip
from tessella.tokenizers.checkpoints import export_weights, import_weights
from tessella.tokenizers.siglip import SigLIP

ARCH = {"image_size": 16, "patch_size": 4, "width": 32, "layers": 3, "heads": 4, "mlp_ratio": 3.7362}
TRANSFORMERS = {
    "image_size": 16,
    "patch_size": 4,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}


def tower(**config) -> SigLIP:
    torch.manual_seed(0)
    module = official_siglip.from_official_config({"arch": ARCH, **config}).eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


@pytest.mark.parametrize("name", official_siglip.layouts(tower()))
def test_every_layout_gives_back_what_it_took(name):
    source = tower()
    layout = official_siglip.layouts(source)[name]
    official = export_weights(source, layout)
    target = official_siglip.from_official_config({"arch": ARCH}).eval()
    import_weights(target, official, layout)
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(target.features(images), source.features(images))


def test_transformers_own_files_are_read():
    """The layers that pool are in the file and not in our module; both names of the tower fit."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    theirs = SiglipVisionModel(SiglipVisionConfig(**TRANSFORMERS)).eval()
    state = theirs.state_dict()
    ours = official_siglip.from_official_config({"model_type": "siglip_vision_model", **TRANSFORMERS}).eval()
    unused = import_weights(ours, state, official_siglip.layouts(ours)["transformers-tower"])
    assert all(key.startswith("head.") for key in unused)
    images = torch.rand(2, 3, 16, 16)
    wanted = theirs(pixel_values=images * 2 - 1).last_hidden_state
    torch.testing.assert_close(ours.features(images), wanted, atol=1e-6, rtol=1e-5)
    whole = {f"vision_model.{key}": value for key, value in state.items()} | {"logit_scale": torch.ones(1)}
    assert "logit_scale" in import_weights(ours, whole, official_siglip.layouts(ours)["transformers"])


@pytest.mark.parametrize("part", ["vision_model", "vision_und_enc_model"])
def test_the_tower_is_taken_out_of_a_whole_model(part):
    module = tower()
    alone = export_weights(module, official_siglip.layout(module))
    whole = {f"{part}.{key}": value for key, value in alone.items()} | {"language_model.lm_head.weight": torch.ones(1)}
    assert official_siglip.unwrap(whole).keys() == alone.keys()
    assert official_siglip.unwrap(alone).keys() == alone.keys()


@pytest.mark.parametrize(("select", "depth"), [(-1, 3), (-2, 2), (0, 3), (2, 2), (5, 3)])
def test_select_layer_counts_blocks_as_janus_does(select, depth):
    assert tower(select_layer=select).tower.config.num_hidden_layers == depth


def test_published_configurations_build_the_published_sizes():
    with torch.device("meta"):
        params = {"image_size": 384, "model_name": "siglip_large_patch16_384", "select_layer": -1}
        janus = official_siglip.from_official_config({"vision_config": {"cls": "CLIPVisionTower", "params": params}})
        assert (janus.num_features, janus.feature_dim) == (576, 1024)
        pooling = 12_596_224  # latent, queries, keys, values, projection, norm and mlp of width 1024
        assert sum(p.numel() for p in janus.parameters()) == pytest.approx(316.3e6 - pooling, abs=5e4)
        base = official_siglip.from_official_config({"model_type": "siglip", "vision_config": {"image_size": 256}})
        assert (base.num_features, base.feature_dim) == (256, 768)
        assert base.tower.config.hidden_act == "gelu_pytorch_tanh"


def test_pixels_are_normalized_by_what_the_configuration_says():
    mean, std = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
    module = tower(pixel_mean=mean, pixel_std=std)
    images = torch.rand(1, 3, 16, 16)
    wanted = (images - torch.tensor(mean).reshape(3, 1, 1)) / torch.tensor(std).reshape(3, 1, 1)
    assert torch.equal(module.normalize(images), wanted)
    assert torch.equal(tower().normalize(images), images * 2 - 1)
    assert not [key for key in module.state_dict() if "pixel" in key]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"arch": ARCH, "ignore_head": False}, "ignore_head=False"),
        ({"arch": ARCH, "select_feature": "patch"}, "select_feature=patch"),
        ({"model_name": "sam_b_downsample"}, "sam_b_downsample is no SigLIP tower"),
        ({"model_type": "llama"}, "model_type=llama is no SigLIP"),
    ],
)
def test_other_configurations_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        official_siglip.from_official_config(config)
