"""TokenFlow's published sizes and names, its towers, and what its files may hold besides."""

import pytest
import torch
import torch.nn.functional as F
from transformers import SiglipVisionConfig, SiglipVisionModel

from tessella.tokenizers import official_tokenflow as official
from tessella.tokenizers.checkpoints import export_weights, import_weights, official_names
from tessella.tokenizers.official_tokenflow_names import clip_names, teacher_layout, tower_names
from tessella.tokenizers.siglip_hidden import SigLIPHidden
from tessella.tokenizers.vit_clip import CLIPVision, resize_positions
from tessella.tokenizers.vit_semantic import ViTSemanticDecoder

TINY = {
    "embed_dim": 24,
    "teacher_dim": 20,
    "sem_dec_heads": 4,
    "sem_dec_depth": 2,
    "sem_enc_layers": 2,
    "sem_enc_heads": 3,
    "ch": 32,
    "num_res_blocks": 1,
    "encoder_ch_mult": (1, 1),
    "decoder_ch_mult": (1, 2),
    "z_channels": 8,
    "codebook_size": 30,
    "codebook_embed_dim": 3,
    "semantic_code_dim": 6,
    "pixel_stride": 2,
    "grid_native": 4,
    "image_size": 8,
    "scales": (1, 2, 4),
}
SIGLIP = {"teacher": "siglip_384", "siglip_patch": 6, "image_size": 26, "sem_enc_mlp": 40}
CLIP = {"image_size": 12, "patch_size": 4, "width": 24, "num_layers": 2, "num_heads": 3}


def numel(module):
    return sum(parameter.numel() for parameter in module.parameters())


def randomize(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module.eval()


@pytest.mark.parametrize(
    ("file", "tensors", "parameters"),
    [("tokenflow_clipb_32k_enhanced.pt", 649, 376_569_643), ("tokenflow_siglip_32k.pt", 848, 554_009_963)],
)
def test_published_files_hold_what_is_built_and_what_nothing_reads(file, tensors, parameters):
    with torch.device("meta"):
        tokenizer = official.from_official_config(official.PUBLISHED[file])
        unread_tensors, unread = 1, 0  # the usage statistic
        if isinstance(tokenizer.semantic_encoder, SigLIPHidden):
            config = SiglipVisionConfig(
                **(tokenizer.semantic_encoder.tower.config.to_dict() | {"num_hidden_layers": 27})
            )
            config.vision_use_head = True
            whole = SiglipVisionModel(config)
            unread = numel(whole) - numel(tokenizer.semantic_encoder)
            unread_tensors += (
                len(whole.state_dict()) - len(tokenizer.semantic_encoder.state_dict()) + 2
            )  # scaling layer
    assert numel(tokenizer) + unread == parameters
    assert len(official_names(tokenizer, official.layout(tokenizer))) + unread_tensors == tensors


@pytest.mark.parametrize("teacher", [{}, SIGLIP])
def test_weights_come_back_with_everything_that_nothing_reads(teacher):
    tokenizer = randomize(official.from_official_config(TINY | teacher))
    layout = official.layout(tokenizer)
    besides = {"quantize.codebook_used": torch.zeros(7)}
    if teacher:
        tower = "encoder_vqkd.vision_model"
        besides |= {f"{tower}.{name}": torch.randn(3) for name in ("post_layernorm.bias", "head.probe")}
        besides |= {f"{tower}.encoder.layers.1.mlp.fc1.bias": torch.randn(3), "scaling_layer.shift": torch.randn(3)}
    published = export_weights(tokenizer, layout, besides)
    again = official.from_official_config(TINY | teacher)
    assert import_weights(again, published, layout).keys() == besides.keys()
    exported = export_weights(again, layout, besides)
    assert exported.keys() == published.keys()
    assert all(torch.equal(exported[key], published[key]) for key in published)
    with pytest.raises(ValueError, match=r"unexpected: encoder_vqkd\.extra"):
        import_weights(again, published | {"encoder_vqkd.extra": torch.zeros(1)}, layout)


def test_absent_fields_are_those_of_the_teacher():
    assert official.complete({})["scales"] == official.B_SCALES
    assert official.complete({"infer_interpolate": True})["image_size"] == 256
    assert official.complete({"teacher": "siglip_384", "infer_interpolate": True})["scales"] == official.XL_SCALES
    assert official.complete({"teacher": "siglip_384"})["embed_dim"] == 1152
    assert official.from_official_config(TINY).quantizer.scale_drop == 0.1
    enhanced = official.from_official_config(TINY | {"enhanced_decoder": True})
    assert enhanced.pixel_decoder.stem.out_channels == 2 * 2 * 32
    assert len(enhanced.pixel_decoder.levels[0].blocks) == 3


@pytest.mark.parametrize(
    ("config", "message"),
    [({"teacher": "vitamin_xlarge_256"}, "clipb_224, siglip_384"), ({"codebook_l2_norm": False}, "l2_norm=true")],
)
def test_what_is_not_published_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        official.from_official_config(TINY | config)


def test_weights_of_the_losses_are_the_official_arguments():
    assert official.loss_terms({}) == {"codebook": 1.0, "commitment": 0.25}
    terms = official.loss_terms({"commit_loss_beta": 0.5, "entropy_loss_ratio": 0.1})
    assert terms == {"codebook": 1.0, "commitment": 0.5, "entropy": 0.1}
    assert official.quantizer({"codebook_size": 4, "entropy_loss_ratio": 0.1}).entropy_temperature == 0.01


def test_averaged_weights_come_first():
    ema, model = {"a": torch.zeros(1)}, {"a": torch.ones(1)}
    assert official.unwrap({"ema": ema, "model": model, "steps": 3}) is ema
    assert official.unwrap({"model": model, "steps": 3}) is model
    assert official.unwrap({"state_dict": model}) is model
    assert official.unwrap(model) is model


def test_clip_without_normalization_reads_images_around_zero():
    ours = randomize(CLIPVision(**CLIP, normalize_images=False))
    normalized = randomize(CLIPVision(**CLIP))
    images = torch.rand(1, 3, 12, 12)
    pixels = (images * 2 - 1) * normalized.std + normalized.mean
    inside = pixels.clamp(0, 1)
    same = (inside - normalized.mean) / normalized.std
    torch.testing.assert_close(normalized.features(inside), ours.features((same + 1) / 2))


def test_positions_are_sampled_by_the_published_factor():
    table = torch.randn(17, 5)
    assert resize_positions(table, 4) is table
    larger = resize_positions(table, 5)
    assert larger.shape == (26, 5)
    assert torch.equal(larger[0], table[0])
    at = (torch.arange(5) + 0.5) / 5.1 * 2 - 1  # in halves of the old grid; the plain ratio of sizes would be / 5
    points = torch.stack(torch.meshgrid(at, at, indexing="xy"), dim=-1)[None]
    old = table[1:].T.view(1, 5, 4, 4)
    new = F.grid_sample(old, points, mode="bicubic", padding_mode="border", align_corners=False)
    torch.testing.assert_close(larger[1:], new[0].flatten(1).T)


def test_siglip_stops_before_its_last_layers():
    sizes = {"image_size": 20, "patch_size": 6, "hidden_size": 24, "num_layers": 3, "num_heads": 4, "mlp_size": 40}
    whole = randomize(SigLIPHidden(**sizes, skipped_layers=0))
    for skipped in (1, 3):
        part = SigLIPHidden(**sizes, skipped_layers=skipped).eval()
        part.load_state_dict({key: value for key, value in whole.state_dict().items() if key in part.state_dict()})
        images = torch.rand(2, 3, 20, 20) * 3 - 1
        result = whole.tower(pixel_values=images.clamp(0, 1) * 2 - 1, output_hidden_states=True)
        torch.testing.assert_close(part.features(images), result.hidden_states[3 - skipped])
        assert part.features(images).shape == (2, 9, 24)
    with pytest.raises(ValueError, match="skipped_layers=4"):
        SigLIPHidden(**sizes, skipped_layers=4)


def test_semantic_decoder_reads_grids_of_other_sizes():
    decoder = randomize(
        ViTSemanticDecoder(in_dim=6, width=24, num_layers=1, num_heads=3, feature_dim=20, native_grid=4)
    )
    assert decoder(torch.randn(2, 16, 6)).shape == (2, 16, 20)
    assert decoder(torch.randn(2, 25, 6)).shape == (2, 25, 20)
    names = {name for name, _ in decoder.named_parameters() if "attention" in name and "bias" in name}
    assert {name.split("attention.")[1] for name in names} == {"query_bias", "value_bias", "out.bias"}


def test_text_towers_of_teachers_are_left_aside():
    teacher = randomize(official.teacher_from_official_config(TINY))
    layout = teacher_layout(teacher)
    text = {
        "transformer.resblocks.0.ln_1.weight": torch.ones(2),
        "logit_scale": torch.ones(()),
        "ln_final.bias": torch.ones(2),
    }
    weights = export_weights(teacher, layout, text)
    assert "visual.proj" in weights
    assert import_weights(teacher, weights, layout).keys() == text.keys()
    assert teacher.features(torch.rand(1, 3, 8, 8)).shape == (1, 16, 20)
    with pytest.raises(ValueError, match="no tower of a published TokenFlow"):
        tower_names(ViTSemanticDecoder, "", "")
    assert (
        clip_names(1, "visual.", "")["visual.transformer.resblocks.0.attn.in_proj_bias"]
        == "blocks.0.attention.qkv.bias"
    )
