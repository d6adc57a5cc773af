"""LlamaGen's VQ-8 and VQ-16 as published (Sun et al. 2024, arXiv:2406.06525): configuration and key names.

Janus and Janus-Pro write images with VQ-16.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .checkpoints import Layout
from .cnn_vqgan import VQGANDecoder, VQGANEncoder
from .official_cnn import OUTSIDE, OWN, Names, side_prefixes
from .quantizers.vq import VectorQuantizer
from .vq import VQTokenizer

SOURCE = "github.com/FoundationVision/LlamaGen, hub FoundationVision/LlamaGen and peizesun/llamagen_t2i (vq_ds*.pt)"
LICENCE = "MIT"

PUBLISHED = {  # file -> its configuration, beside which no file has one
    "vq_ds16_c2i.pt": {"encoder_ch_mult": (1, 1, 2, 2, 4), "decoder_ch_mult": (1, 1, 2, 2, 4)},
    "vq_ds16_t2i.pt": {"encoder_ch_mult": (1, 1, 2, 2, 4), "decoder_ch_mult": (1, 1, 2, 2, 4)},
    "vq_ds8_c2i.pt": {"encoder_ch_mult": (1, 2, 2, 4), "decoder_ch_mult": (1, 2, 2, 4)},
}

ENTROPY_TEMPERATURE = 0.01


def from_official_config(config: Mapping[str, Any], *, image_size: int = 256) -> VQTokenizer:
    """The tokenizer of LlamaGen's `ModelArgs`; fields that are absent have its defaults, which are VQ-16.

    `ch`, `num_res_blocks` and `norm_num_groups` are no fields of the official class, which fixes them at 128, 2 and 32.
    The weights of the losses (`commit_loss_beta`, `entropy_loss_ratio`) are `loss_terms`.
    """
    encoder_multipliers = tuple(config.get("encoder_ch_mult", (1, 1, 2, 2, 4)))
    decoder_multipliers = tuple(config.get("decoder_ch_mult", (1, 1, 2, 2, 4)))
    sizes = {
        "channels": config.get("ch", 128),
        "num_res_blocks": config.get("num_res_blocks", 2),
        "z_channels": config.get("z_channels", 256),
        "num_groups": config.get("norm_num_groups", 32),
        "dropout": config.get("dropout_p", 0.0),
    }
    encoder = VQGANEncoder(
        **sizes, channel_multipliers=encoder_multipliers, attention_levels=(len(encoder_multipliers) - 1,)
    )
    decoder = VQGANDecoder(
        **sizes, channel_multipliers=decoder_multipliers, attention_levels=(len(decoder_multipliers) - 1,)
    )
    return VQTokenizer(encoder, quantizer(config), decoder, image_size=image_size)


def quantizer(config: Mapping[str, Any]) -> VectorQuantizer:
    """The quantizer of `ModelArgs`, or of the official quantizer's own fields (n_e, e_dim, l2_norm)."""
    ratio = config.get("entropy_loss_ratio", 0.0)
    return VectorQuantizer(
        config.get("n_e", config.get("codebook_size", 16384)),
        config.get("e_dim", config.get("codebook_embed_dim", 8)),
        normalize=config.get("l2_norm", config.get("codebook_l2_norm", True)),
        entropy_temperature=ENTROPY_TEMPERATURE if ratio else None,
    )


def loss_terms(config: Mapping[str, Any]) -> dict[str, float]:
    """Weights of the quantizer's losses, as `PixelLoss.terms` takes them."""
    terms = {"codebook": 1.0, "commitment": config.get("commit_loss_beta", config.get("beta", 0.25))}
    ratio = config.get("entropy_loss_ratio", 0.0)
    return terms | {"entropy": ratio} if ratio else terms


def layout(module: VQTokenizer) -> Layout:
    """The table for a tokenizer of `from_official_config`. The usage statistic in training files has no use here."""
    assert isinstance(module.encoder, VQGANEncoder)
    assert isinstance(module.decoder, VQGANDecoder)
    prefixes = dict(OUTSIDE)
    for side, network, resample in (
        ("encoder", module.encoder, "downsample.conv"),
        ("decoder", module.decoder, "upsample.conv"),
    ):
        levels = [f"conv_blocks.{i}" for i in range(len(network.levels))]
        prefixes |= side_prefixes(side, network, Names(levels, ("mid.0", "mid.1", "mid.2"), "res", resample))
    return Layout(prefixes, unused=("quantize.codebook_used",), own=OWN)


def recent_codes(codebook_used: Tensor, ids: Tensor) -> Tensor:
    """The official usage statistic after a training step: the last 65536 ids, oldest first.

    Its distinct values over the codebook size are the usage LlamaGen reports while training. A fresh statistic is all
    zeros, so code 0 counts as used until it has gone around.
    """
    return torch.cat([codebook_used, ids.flatten().to(codebook_used.dtype)])[-len(codebook_used) :]


def unwrap(checkpoint: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """The averaged weights of a training file where it has them, else its weights."""
    for key in ("ema", "model", "state_dict"):
        if isinstance(checkpoint.get(key), Mapping):
            return checkpoint[key]
    return checkpoint
