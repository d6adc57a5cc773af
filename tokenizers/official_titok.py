"""TiTok and One-D-Piece in their official layout: configurations, key names, where the weights come from."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from .checkpoints import Conversion, Layout
from .cnn_maskgit import MaskGITDecoder
from .official_maskgit_vqgan import decoder_prefixes
from .one_d import OneDTokenizer
from .one_d_vae import OneDVAE
from .quantizers.clustering import ClusteringQuantizer
from .quantizers.vq import VectorQuantizer
from .tail_drop import TailDrop
from .titok import TiTokDecoder, TiTokEncoder
from .titok_heads import MixtureHead, PixelHead, ProxyHead
from .titok_stages import PixelStage, ProxyStage
from .vit import Blocks

SOURCE = (
    "github.com/bytedance/1d-tokenizer, hub fun-research/TiTok (tokenizer_titok_*.bin) and "
    "yucornetto/tokenizer_titok_*_imagenet"
)
LICENCE = "Apache-2.0"

SIZES = {"small": (512, 8, 8), "base": (768, 12, 12), "large": (1024, 24, 16)}  # width, depth, heads
PROXY_CODES = 1024
PIXEL_DECODER = {"z_channels": 256, "hidden_channels": 128, "channel_mult": (1, 1, 2, 2, 4), "num_res_blocks": 2}

# Bare files on the hub, which have no configuration beside them.
PUBLISHED = {
    f"tokenizer_titok_{name}.bin": {
        "codebook_size": 4096,
        "token_size": 12,
        "use_l2_norm": True,
        "commitment_cost": 0.25,
        "vit_enc_model_size": size,
        "vit_dec_model_size": size,
        "vit_enc_patch_size": 16,
        "vit_dec_patch_size": 16,
        "num_latent_tokens": num_latents,
    }
    for name, size, num_latents in (("s128", "small", 128), ("b64", "base", 64), ("l32", "large", 32))
}

# Names inside a block of the ViT: official -> ours.
BLOCK = {
    "ln_1": "norm1",
    "attn.in_proj_weight": "attention.qkv.weight",
    "attn.in_proj_bias": "attention.qkv.bias",
    "attn.out_proj": "attention.out",
    "ln_2": "norm2",
    "mlp.c_fc": "mlp.0",
    "mlp.c_proj": "mlp.2",
}

TiTok = OneDTokenizer | OneDVAE


def from_official_config(config: Mapping[str, Any]) -> TiTok:
    """Our module for an official configuration: a whole published yaml, its `vq_model` part, or sizes given as numbers.

    A published yaml names its sizes ("vit_enc_model_size": "large"); "encoder": {"width", "layers", "heads"} gives them
    as numbers. Fields that the published files of older models leave out have the official defaults:
    finetune_decoder true, is_legacy true, quantize_mode "vq". One-D-Piece is recognized by strict_length_assertion
    false.

    Raises:
        ValueError: a combination that the official code has no model for.
    """
    c = fields(config)
    is_vae = c["quantize_mode"] == "vae"
    if c["quantize_mode"] not in ("vq", "vae"):
        raise ValueError(f"quantize_mode={c['quantize_mode']!r} is no TiTok; use 'vq' or 'vae'.")
    if (c["finetune_decoder"] and not c["is_legacy"]) or (is_vae and c["is_legacy"]):
        raise ValueError(
            f"finetune_decoder={c['finetune_decoder']}, is_legacy={c['is_legacy']}, quantize_mode="
            f"{c['quantize_mode']!r} is no TiTok: two stages go with is_legacy true and 'vq', one stage with "
            "finetune_decoder and is_legacy false."
        )
    shared = {"image_size": c["image_size"], "num_latents": c["num_latent_tokens"], "mlp_ratio": c["mlp_ratio"]}
    encoder = TiTokEncoder(
        **shared, **sizes(c, "encoder"), dim=c["token_size"] * (2 if is_vae else 1), legacy_reshape=c["is_legacy"]
    )
    if not c["is_legacy"]:
        head = PixelHead
    elif not c["finetune_decoder"]:
        head = partial(ProxyHead, num_codes=c["proxy_codebook_size"])
    else:
        pixels = c["pixel_vqgan"]
        renderer = MaskGITDecoder(
            channels=pixels["hidden_channels"],
            channel_multipliers=tuple(pixels["channel_mult"]),
            num_res_blocks=pixels["num_res_blocks"],
            z_channels=pixels["z_channels"],
            dropout=pixels.get("dropout", 0.0),
            shortcut="output",
        )
        head = partial(MixtureHead, num_codes=c["proxy_codebook_size"], renderer=renderer)
    decoder = TiTokDecoder(**shared, **sizes(c, "decoder"), dim=c["token_size"], head=head)
    if is_vae:
        return OneDVAE(encoder, decoder)
    make_quantizer = ClusteringQuantizer if c["clustering_vq"] else VectorQuantizer
    quantizer = make_quantizer(c["codebook_size"], c["token_size"], normalize=c["use_l2_norm"])
    make = OneDTokenizer if not c["is_legacy"] else PixelStage if c["finetune_decoder"] else ProxyStage
    return make(encoder, quantizer, decoder, tail_drop=None if c["strict_length_assertion"] else TailDrop())


def fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the tokenizer on one level, with the official defaults."""
    model = config.get("model", config)
    crop = config.get("dataset", {}).get("preprocessing", {}).get("crop_size", 256)
    return {
        "image_size": crop,
        "finetune_decoder": True,
        "is_legacy": True,
        "quantize_mode": "vq",
        "clustering_vq": False,
        "strict_length_assertion": True,
        "mlp_ratio": 4.0,
        "proxy_codebook_size": PROXY_CODES,
        "pixel_vqgan": PIXEL_DECODER,
    } | dict(model.get("vq_model", model))


def sizes(c: Mapping[str, Any], part: str) -> dict[str, int]:
    """Arguments of "encoder" or "decoder": width, depth, heads and patch size, which may be given by name."""
    short = f"vit_{part[:3]}"
    numbers = c.get(part)
    named = (
        SIZES[c[f"{short}_model_size"]] if numbers is None else tuple(numbers[k] for k in ("width", "layers", "heads"))
    )
    patch_size = c.get(f"{short}_patch_size", c.get("patch_size"))
    return dict(zip(("width", "depth", "num_heads", "patch_size"), (*named, patch_size), strict=True))


def layout(module: TiTok) -> Layout:
    """Official key names of what `from_official_config` builds, also with a proxy of its own."""
    prefixes = {
        "latent_tokens": "encoder.latent_tokens",
        "encoder.patch_embed": "encoder.patches",
        "encoder.conv_out": "encoder.out",
        "decoder.decoder_embed": "decoder.embed",
        "decoder.mask_token": "decoder.mask_token",
    }
    for part in ("encoder", "decoder"):
        prefixes |= {
            f"{part}.class_embedding": f"{part}.class_token",
            f"{part}.positional_embedding": f"{part}.positions",
            f"{part}.latent_token_positional_embedding": f"{part}.latent_positions",
            f"{part}.ln_pre": f"{part}.norm_in",
            f"{part}.ln_post": f"{part}.norm_out",
        }
        blocks = module.get_submodule(f"{part}.blocks")
        assert isinstance(blocks, Blocks)
        for i in range(len(blocks)):
            prefixes |= {
                f"{part}.transformer.{i}.{official}": f"{part}.blocks.{i}.{ours}" for official, ours in BLOCK.items()
            }
    head = module.get_submodule("decoder.head")
    conversions = {"encoder.out.weight": Conversion(lambda w: w[:, :, 0, 0], lambda w: w[:, :, None, None])}
    if isinstance(head, PixelHead):
        prefixes |= {"decoder.ffn.0": "decoder.head.to_patches", "decoder.conv_out": "decoder.head.smooth"}
    elif isinstance(head, MixtureHead):
        prefixes |= {
            "decoder.ffn": "decoder.head.logits.layers",
            "pixel_quantize.embedding.weight": "decoder.head.codebook",
        }
        assert isinstance(head.renderer, MaskGITDecoder)
        for official, ours in decoder_prefixes(head.renderer).items():
            prefixes[f"pixel_{official}"] = ours.replace("decoder", "decoder.head.renderer", 1)
    else:
        prefixes["decoder.ffn"] = "decoder.head.layers"
    own = [key for key in module.state_dict() if key.startswith("proxy.")]  # official stage 1 keeps it in another file
    if isinstance(module, OneDTokenizer):
        prefixes["quantize.embedding.weight"] = "quantizer.codebook"
        own += ["quantizer.counts", "quantizer.sums"]
        if isinstance(module.quantizer, ClusteringQuantizer):
            prefixes["quantize.embed_prob"] = "quantizer.usage"
    return Layout(prefixes, conversions=conversions, own=tuple(own))


def loss_terms(config: Mapping[str, Any]) -> dict[str, float]:
    """Weights of the tokenizer's own losses; `commitment_cost` is a field, the divergence has the official default."""
    c = fields(config)
    return {"kl": 1e-6} if c["quantize_mode"] == "vae" else {"commitment": c["commitment_cost"], "codebook": 1.0}


def unwrap(checkpoint: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """The state dict of an official file: the averaged weights if there are any, or the file itself."""
    for key in ("ema", "model", "state_dict"):
        if isinstance(checkpoint.get(key), Mapping):
            return checkpoint[key]
    return checkpoint
