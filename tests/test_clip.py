"""CLIP from transformers' checkpoints, against our own network for the official layout."""

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, SiglipVisionConfig, SiglipVisionModel

from tessella.tokenizers.clip import CLIP
from tessella.tokenizers.siglip_hidden import SigLIPHidden
from tessella.tokenizers.vit_clip import CLIPVision

SIZES = {"image_size": 12, "patch_size": 4, "hidden_size": 24, "num_layers": 2, "num_heads": 3}
SIZES |= {"mlp_size": 96, "projection_dim": 10}


@pytest.fixture
def checkpoint(tmp_path):
    """A folder with a tower of random weights of a healthy scale."""
    torch.manual_seed(0)
    model = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            image_size=12,
            patch_size=4,
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=96,
            projection_dim=10,
        )
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(tmp_path)
    return tmp_path, model


def official_weights(model):
    """The weights of transformers' tower under the names of `CLIPVision`."""
    state = {key.removeprefix("vision_model."): value for key, value in model.state_dict().items()}
    weights = {
        "class_token": state["embeddings.class_embedding"],
        "positions": state["embeddings.position_embedding.weight"],
        "patches.weight": state["embeddings.patch_embedding.weight"],
        "projection": state["visual_projection.weight"].T,
    }
    pairs = {"norm1": "layer_norm1", "norm2": "layer_norm2", "attention.out": "self_attn.out_proj"}
    pairs |= {"mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2"}
    for kind in ("weight", "bias"):
        weights |= {f"norm_{at}.{kind}": state[f"{name}.{kind}"] for at, name in NORMS.items()}
        for i in range(2):
            layer = f"encoder.layers.{i}"
            weights |= {f"blocks.{i}.{ours}.{kind}": state[f"{layer}.{name}.{kind}"] for ours, name in pairs.items()}
            parts = [state[f"{layer}.self_attn.{name}_proj.{kind}"] for name in "qkv"]
            weights[f"blocks.{i}.attention.qkv.{kind}"] = torch.cat(parts)
    return weights


NORMS = {"before": "pre_layrnorm", "after": "post_layernorm"}


def test_both_networks_are_the_same(checkpoint):
    folder, model = checkpoint
    theirs = CLIP(**SIZES, pretrained=str(folder)).eval()
    ours = CLIPVision(image_size=12, patch_size=4, width=24, num_layers=2, num_heads=3, projection_dim=10).eval()
    ours.load_state_dict(official_weights(model))
    images = torch.rand(2, 3, 12, 12) * 2 - 0.5  # clamped by both
    features = theirs.features(images)
    assert features.shape == (2, theirs.num_features, theirs.feature_dim) == (2, 9, 10)
    torch.testing.assert_close(ours.features(images), features, atol=1e-5, rtol=1e-5)
    # As CLIP is published: the class token of the same features is its embedding of the image.
    pixels = (images.clamp(0, 1) - theirs.mean) / theirs.std
    hidden = model.eval()(pixel_values=pixels, output_hidden_states=True).hidden_states[-1]
    pooled = model.visual_projection(model.vision_model.post_layernorm(hidden))
    torch.testing.assert_close(pooled[:, 0], model(pixel_values=pixels).image_embeds, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pooled[:, 1:], features, atol=1e-5, rtol=1e-5)


def test_checkpoint_must_be_what_the_config_says(checkpoint, tmp_path):
    with pytest.raises(ValueError, match=r"activation=quick_gelu \(not gelu\)"):
        CLIP(**SIZES, activation="gelu", pretrained=str(checkpoint[0]))
    with pytest.raises(ValueError, match=r"projection_dim=10 \(not 8\)"):
        CLIP(**(SIZES | {"projection_dim": 8}), pretrained=str(checkpoint[0]))
    with pytest.raises(ValueError, match="no folder of a CLIP checkpoint"):
        CLIP(**SIZES, pretrained=str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="num_heads=5"):
        CLIP(**(SIZES | {"num_heads": 5}))
    with pytest.raises(ValueError, match="image_size=13"):
        CLIP(**(SIZES | {"image_size": 13}))


def test_siglip_before_its_last_layer_reads_whole_checkpoints(tmp_path):
    sizes = {"image_size": 14, "patch_size": 4, "hidden_size": 24, "num_layers": 2, "num_heads": 3, "mlp_size": 40}
    config = SiglipVisionConfig(
        image_size=14,
        patch_size=4,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        hidden_act="gelu_pytorch_tanh",
    )
    model = SiglipVisionModel(config).eval()
    model.save_pretrained(tmp_path)
    part = SigLIPHidden(**sizes, pretrained=str(tmp_path)).eval()
    images = torch.rand(1, 3, 14, 14)
    hidden = model(pixel_values=images * 2 - 1, output_hidden_states=True).hidden_states
    torch.testing.assert_close(part.features(images), hidden[-2])
