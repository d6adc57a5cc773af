"""TokenFlow-B and -XL as published (Qu et al. 2024, arXiv:2412.03069): configuration, teachers and key names.

TokenFlow-L is not published; its semantic encoder, ViTamin, exists in timm alone.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .base import VisionEncoder
from .checkpoints import Conversion, Layout
from .cnn_vqgan import VQGANDecoder, VQGANEncoder
from .official_cnn import Names, side_prefixes
from .official_tokenflow_names import beit_names, tower_names
from .quantizers.dual import DualQuantizer
from .quantizers.multiscale import MultiScaleQuantizer
from .siglip_hidden import SigLIPHidden
from .tokenflow import TokenFlow
from .vit_clip import CLIPVision
from .vit_semantic import ViTSemanticDecoder

SOURCE = (
    "github.com/ByteVisionLab/TokenFlow, hub ByteFlow-AI/TokenFlow (tokenflow_clipb_32k_enhanced.pt, _siglip_32k.pt)"
)
LICENCE = "MIT for the code and the file of TokenFlow-B"

B_SCALES = (1, 2, 4, 6, 8, 10, 12, 14)
XL_SCALES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 17, 22, 27)
PUBLISHED = {  # file -> its configuration, beside which no file has one
    "tokenflow_clipb_32k_enhanced.pt": {"teacher": "clipb_224", "infer_interpolate": True, "enhanced_decoder": True},
    "tokenflow_siglip_32k.pt": {"teacher": "siglip_384"},
}
# What the official class fixes for each teacher.
TEACHERS: dict[str, dict[str, Any]] = {
    "clipb_224": {
        "embed_dim": 768,
        "teacher_dim": 512,
        "sem_enc_layers": 12,
        "sem_enc_heads": 12,
        "grid_native": 14,
        "pixel_stride": 16,  # the patch of CLIP, too
        "image_size": 224,
        "scales": B_SCALES,
    },
    "siglip_384": {
        "embed_dim": 1152,
        "teacher_dim": 1152,
        "sem_enc_layers": 27,
        "sem_enc_heads": 16,
        "sem_enc_mlp": 4304,
        "siglip_patch": 14,
        "grid_native": 27,
        "image_size": 384,
        "scales": XL_SCALES,
    },
}
INTERPOLATED = {"image_size": 256, "scales": (*B_SCALES, 16)}  # `infer_interpolate`: 224 px weights at 256 px
COMMON = {
    "sem_dec_depth": 3,
    "sem_dec_heads": 12,
    "ch": 128,
    "num_res_blocks": 2,
    "encoder_ch_mult": (1, 1, 2, 2, 4),
    "decoder_ch_mult": (1, 1, 2, 2, 4),
    "z_channels": 256,
}
SCALE_DROP = 0.1
ENTROPY_TEMPERATURE = 0.01


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """All fields: those of `config`, else what the official class has for its teacher.

    Raises:
        ValueError: a teacher that is not published.
    """
    given = stated(config)
    teacher = given.get("teacher", "clipb_224")
    if teacher not in TEACHERS:
        raise ValueError(f"teacher={teacher} is no published TokenFlow; known: {', '.join(TEACHERS)}.")
    interpolated = INTERPOLATED if given.get("infer_interpolate") and teacher == "clipb_224" else {}
    return COMMON | TEACHERS[teacher] | interpolated | {"teacher": teacher} | given


def stated(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields with a value. A field of null is as good as absent, except `scales`: no scales are a choice."""
    return {name: value for name, value in config.items() if value is not None or name == "scales"}


def from_official_config(config: Mapping[str, Any]) -> TokenFlow:
    """The tokenizer of TokenFlow's arguments; absent fields are the published ones of the teacher.

    `scales` and the sizes that the official class fixes are fields here, too. `run_image_size` is the size of the
    images where it differs from `image_size`; `scale_drop` is 0.1 there. The weights of the losses are `loss_terms`.
    """
    full = complete(config)
    encoder = semantic_encoder(full)
    # The enhanced decoder of the text-to-image model is twice as wide and as deep.
    factor = 2 if full.get("enhanced_decoder") else 1
    sides = {name: tuple(full[f"{name}_ch_mult"]) for name in ("encoder", "decoder")}
    pixel_encoder = VQGANEncoder(
        channels=full["ch"],
        channel_multipliers=sides["encoder"],
        num_res_blocks=full["num_res_blocks"],
        attention_levels=(len(sides["encoder"]) - 1,),
        z_channels=full["z_channels"],
    )
    pixel_decoder = VQGANDecoder(
        channels=full["ch"] * factor,
        channel_multipliers=sides["decoder"],
        num_res_blocks=full["num_res_blocks"] * factor,
        attention_levels=(len(sides["decoder"]) - 1,),
        z_channels=full["z_channels"],
    )
    semantic_decoder = ViTSemanticDecoder(
        in_dim=full.get("semantic_code_dim", 32),
        width=full["embed_dim"],
        num_layers=full["sem_dec_depth"],
        num_heads=full["sem_dec_heads"],
        feature_dim=full["teacher_dim"],
        native_grid=full["grid_native"],
    )
    return TokenFlow(
        encoder,
        pixel_encoder,
        quantizer(full),
        pixel_decoder,
        semantic_decoder,
        scales=full["scales"],
        scale_drop=full.get("scale_drop", SCALE_DROP if len(full["scales"] or ()) > 1 else 0.0),
    )


def semantic_encoder(full: Mapping[str, Any]) -> VisionEncoder:
    return siglip(full) if full["teacher"] == "siglip_384" else clip(full, normalize_images=False)


def teacher_from_official_config(config: Mapping[str, Any]) -> VisionEncoder:
    """The frozen encoder whose features the semantic decoder learns; unlike TokenFlow-B's own it sees what CLIP saw."""
    full = complete(config)
    if full["teacher"] == "siglip_384":
        return siglip(full)
    return clip(full, normalize_images=True, projection_dim=full["teacher_dim"])


def siglip(full: Mapping[str, Any]) -> SigLIPHidden:
    return SigLIPHidden(
        image_size=full.get("run_image_size") or full["image_size"],
        patch_size=full["siglip_patch"],
        hidden_size=full["embed_dim"],
        num_layers=full["sem_enc_layers"],
        num_heads=full["sem_enc_heads"],
        mlp_size=full["sem_enc_mlp"],
    )


def clip(full: Mapping[str, Any], *, normalize_images: bool, projection_dim: int | None = None) -> CLIPVision:
    return CLIPVision(
        image_size=full.get("run_image_size") or full["image_size"],
        patch_size=full["pixel_stride"],
        width=full["embed_dim"],
        num_layers=full["sem_enc_layers"],
        num_heads=full["sem_enc_heads"],
        native_size=full["grid_native"] * full["pixel_stride"],
        projection_dim=projection_dim,
        normalize_images=normalize_images,
    )


def quantizer(config: Mapping[str, Any]) -> DualQuantizer:
    """The two codebooks of the official arguments.

    Raises:
        ValueError: `l2_norm` false, with which the official class does not run.
    """
    config = stated(config)
    if not config.get("l2_norm", config.get("codebook_l2_norm", True)):
        raise ValueError("l2_norm=false is no TokenFlow: its codes are compared at unit length; set l2_norm=true.")
    temperature = config.get("entropy_temperature", ENTROPY_TEMPERATURE)
    return DualQuantizer(
        config.get("codebook_size", 32768),
        config.get("semantic_code_dim", 32),
        config.get("codebook_embed_dim", 8),
        pixel_weight=config.get("distance_weight_pixel", 1.0),
        entropy_temperature=temperature if config.get("entropy_loss_ratio") else None,
    )


def loss_terms(config: Mapping[str, Any]) -> dict[str, float]:
    """Weights of the quantizer's losses, as `PixelLoss.terms` takes them."""
    terms = {"codebook": 1.0, "commitment": config.get("commit_loss_beta", 0.25)}
    ratio = config.get("entropy_loss_ratio")
    return terms | {"entropy": ratio} if ratio else terms


def layout(module: TokenFlow) -> Layout:
    """The table for a tokenizer of `from_official_config`.

    Constants of the scaling layer, the usage statistic and SigLIP's layers behind the features have no use here.
    """
    encoder, decoder, semantic = module.pixel_encoder, module.pixel_decoder, module.semantic_decoder
    assert isinstance(encoder, VQGANEncoder)
    assert isinstance(decoder, VQGANDecoder)
    assert isinstance(semantic, ViTSemanticDecoder)
    prefixes = {
        "encode_task_layer": "to_semantic",
        "decode_task_layer": "semantic_decoder.to_features",
        "quant_conv": "to_pixel",
        "post_quant_conv": "from_pixel",
    }
    for side, network in (("encoder", encoder), ("decoder", decoder)):
        levels = [f"conv_blocks.{i}" for i in range(len(network.levels))]
        names = Names(
            levels, ("mid.0", "mid.1", "mid.2"), "res", "downsample.conv" if network is encoder else "upsample.conv"
        )
        prefixes |= {key: f"pixel_{ours}" for key, ours in side_prefixes(side, network, names).items()}
    prefixes |= beit_names(len(semantic.blocks), "decoder_vqkd.", "semantic_decoder.")
    tower, unused = tower_names(module.semantic_encoder, "encoder_vqkd.", "semantic_encoder.")
    books = quantizer_layout(module.quantizer, "quantize.", "quantizer.")
    one_row = Conversion(lambda tensor: tensor[0], lambda tensor: tensor[None])
    class_row = Conversion(lambda tensor: tensor[0, 0], lambda tensor: tensor[None, None])
    return Layout(
        prefixes | tower,
        unused=(*unused, "scaling_layer.", *books.unused),
        conversions={"semantic_decoder.class_token": class_row, "semantic_decoder.positions": one_row},
        columns=books.columns,
        own=books.own,
    )


def quantizer_layout(module: nn.Module, prefix: str = "", ours: str = "") -> Layout:
    """The table for the codebooks alone, over one or several scales; ours is the prefix of `module` in a tokenizer."""
    if isinstance(module, MultiScaleQuantizer):
        module, ours = module.quantizer, f"{ours}quantizer."
    assert isinstance(module, DualQuantizer)
    codebook = f"{ours}codebook"
    return Layout(
        {},
        unused=(f"{prefix}codebook_used",),
        columns={
            f"{prefix}embedding_vqkd.weight": (codebook, 0, module.semantic_dim),
            f"{prefix}embedding_vqgan.weight": (codebook, module.semantic_dim, module.dim),
        },
        own=(f"{ours}counts", f"{ours}sums"),
    )


def unwrap(checkpoint: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """The averaged weights of a training file where it has them, else its weights."""
    for key in ("ema", "model", "state_dict"):
        if isinstance(checkpoint.get(key), Mapping):
            return checkpoint[key]
    return checkpoint
