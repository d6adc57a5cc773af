"""SigLIP's vision tower in the files that hold it: Janus checkpoints (timm's names) and transformers checkpoints."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .checkpoints import Conversion, Layout
from .siglip import SigLIP

SOURCE = "https://github.com/deepseek-ai/Janus and https://huggingface.co/google/siglip-large-patch16-384"
LICENCE = "Apache-2.0 for SigLIP's own weights; DeepSeek Model License for towers inside Janus checkpoints"

# Janus' table of towers (clip_encoder.py, siglip_vit.py). Its entry of 336 px for a 384 px name is as published; every
# configuration gives the image size beside the name.
_LARGE = {"patch_size": 16, "width": 1024, "layers": 24, "heads": 16, "mlp_ratio": 4}
_SO400M = {"patch_size": 14, "width": 1152, "layers": 27, "heads": 16, "mlp_ratio": 3.7362}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "siglip_large_patch16_384": {"image_size": 384, **_LARGE},
    "siglip_large_patch16_256": {"image_size": 256, **_LARGE},
    "siglip_so400m_patch14_384": {"image_size": 336, **_SO400M},
    "siglip_so400m_patch14_224": {"image_size": 224, **_SO400M},
}
# Where checkpoints of whole models keep the tower.
TOWERS = ("vision_model.vision_tower.", "vision_und_enc_model.vision_tower.")


def from_official_config(config: Mapping[str, Any]) -> SigLIP:
    """The tower of a Janus or JanusFlow config.json, of the tower's own arguments, or of a transformers config.json.

    Raises:
        ValueError: an unknown tower, or an option that no published model uses.
    """
    for key in ("vision_config", "vision_und_enc_config"):
        if key in config:
            config = config[key].get("params", config[key])
            break
    if "arch" in config:
        return _from_janus(config, config["arch"])
    if "model_name" in config:
        name = config["model_name"]
        if name not in ARCHITECTURES:
            raise ValueError(f"model_name={name} is no SigLIP tower of Janus; known: {', '.join(ARCHITECTURES)}.")
        return _from_janus(config, ARCHITECTURES[name])
    return _from_transformers(config)


def _from_janus(config: Mapping[str, Any], arch: Mapping[str, Any]) -> SigLIP:
    """Janus' rule for `select_layer` k builds the first min(L, L + k + 1) blocks for k <= 0, min(L, k) above."""
    for key, accepted in (
        ("global_pool", ("map",)),
        ("class_token", (False,)),
        ("ignore_head", (True,)),
        ("select_feature", ("same", "cls_patch")),
    ):
        if config.get(key, accepted[0]) not in accepted:
            raise ValueError(f"{key}={config[key]} gives other than all patch features; needed: {accepted[0]}.")
    depth, select = arch["layers"], config.get("select_layer", -1)
    half = (0.5, 0.5, 0.5)  # of the image processor, where the tower does not normalize itself
    return SigLIP(
        image_size=config.get("image_size") or arch["image_size"],
        patch_size=arch["patch_size"],
        hidden_size=arch["width"],
        num_layers=min(depth, depth + select + 1) if select <= 0 else min(depth, select),
        num_heads=arch["heads"],
        mlp_size=int(arch["width"] * arch["mlp_ratio"]),
        pixel_mean=config.get("pixel_mean") or half,
        pixel_std=config.get("pixel_std") or half,
    )


def _from_transformers(config: Mapping[str, Any]) -> SigLIP:
    """Published files leave out what equals the defaults of `SiglipVisionConfig`."""
    from transformers import SiglipVisionConfig

    if "siglip" not in str(config.get("model_type", "siglip")):
        raise ValueError(f"model_type={config['model_type']} is no SigLIP configuration (siglip_vision_model).")
    full = SiglipVisionConfig.from_dict(dict(config)).to_dict()
    return SigLIP(
        image_size=full["image_size"],
        patch_size=full["patch_size"],
        hidden_size=full["hidden_size"],
        num_layers=full["num_hidden_layers"],
        num_heads=full["num_attention_heads"],
        mlp_size=full["intermediate_size"],
        activation=full["hidden_act"],
    )


def layout(module: SigLIP) -> Layout:
    """The tower alone, as Janus' CLIPVisionTower names it."""
    return _timm(module, "vision_tower.")


def layouts(module: SigLIP) -> dict[str, Layout]:
    """Every layout that published files have, by name; the first is `layout`."""
    return {
        "janus": layout(module),
        "timm": _timm(module, ""),
        "transformers": _transformers("vision_model."),  # of SiglipModel and of version 4
        "transformers-tower": _transformers(""),
    }


def _timm(module: SigLIP, prefix: str) -> Layout:
    """timm's VisionTransformer keeps queries, keys and values in one matrix and pools with layers nobody reads."""
    position = "tower.embeddings.position_embedding.weight"
    prefixes = {
        f"{prefix}patch_embed.proj": "tower.embeddings.patch_embedding",
        f"{prefix}pos_embed": position,
        f"{prefix}norm": "tower.post_layernorm",
    }
    stacked = {}
    for i in range(module.tower.config.num_hidden_layers):
        block, layer = f"{prefix}blocks.{i}", f"tower.encoder.layers.{i}"
        prefixes |= {
            f"{block}.norm1": f"{layer}.layer_norm1",
            f"{block}.norm2": f"{layer}.layer_norm2",
            f"{block}.attn.proj": f"{layer}.self_attn.out_proj",
            f"{block}.mlp": f"{layer}.mlp",
        }
        for kind in ("weight", "bias"):
            stacked[f"{block}.attn.qkv.{kind}"] = tuple(f"{layer}.self_attn.{x}_proj.{kind}" for x in "qkv")
    one_image = Conversion(lambda tensor: tensor[0], lambda tensor: tensor[None])  # timm adds a batch axis
    return Layout(prefixes, (f"{prefix}attn_pool.",), {position: one_image}, stacked)


def _transformers(prefix: str) -> Layout:
    """transformers' names; a file of the whole model has the text tower beside it."""
    unused = (f"{prefix}head.", f"{prefix}embeddings.position_ids", "text_model.", "logit_scale", "logit_bias")
    return Layout({prefix: "tower."}, unused)


def unwrap(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tower out of a Janus or JanusFlow checkpoint, whose other models are not kept; anything else as it is."""
    for prefix in TOWERS:
        whole = prefix.removesuffix("vision_tower.")
        tower = {key.removeprefix(whole): value for key, value in checkpoint.items() if key.startswith(prefix)}
        if tower:
            return tower
    return dict(checkpoint)
