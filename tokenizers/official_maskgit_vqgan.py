"""MaskGIT's VQGAN (Chang et al. 2022, arXiv:2202.04200) as TiTok publishes it in PyTorch: configuration, key names."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .checkpoints import Layout
from .cnn_maskgit import MaskGITDecoder, MaskGITEncoder
from .official_cnn import OUTSIDE, OWN, Names, side_prefixes
from .quantizers.vq import VectorQuantizer
from .vq import GridTokenizer

SOURCE = "github.com/bytedance/1d-tokenizer, hub fun-research/TiTok (maskgit-vqgan-imagenet-f16-256.bin)"
LICENCE = "Apache-2.0"

PUBLISHED = {"maskgit-vqgan-imagenet-f16-256.bin": {"channel_mult": (1, 1, 2, 2, 4)}}  # beside it lies no configuration


def from_official_config(config: Mapping[str, Any], *, image_size: int | None = None) -> GridTokenizer:
    """The tokenizer of the official fields; those that are absent are as published (16 px cells, 1024 codes).

    Args:
        image_size: pixels; None takes `resolution`, which is 256 as published.

    Raises:
        ValueError: a field describes what the published tokenizer is not.
    """
    multipliers = tuple(config.get("channel_mult", (1, 1, 2, 2, 4)))
    for name, value in {"num_channels": 3, "num_resolutions": len(multipliers)}.items():
        if config.get(name, value) != value:
            raise ValueError(f"{name}={config[name]} is not what MaskGIT's VQGAN has here; it must be {value}.")
    dim = config.get("z_channels", 256)
    sizes = {
        "channels": config.get("hidden_channels", 128),
        "channel_multipliers": multipliers,
        "num_res_blocks": config.get("num_res_blocks", 2),
        "z_channels": dim,
        "dropout": config.get("dropout", 0.0),
        "shortcut": "output",
    }
    return GridTokenizer(
        MaskGITEncoder(**sizes),
        VectorQuantizer(config.get("codebook_size", 1024), dim, normalize=False),
        MaskGITDecoder(**sizes),
        image_size=config.get("resolution", 256) if image_size is None else image_size,
        pixel_range=(0, 1),
    )


def loss_terms(config: Mapping[str, Any]) -> dict[str, float]:
    """Weights of the quantizer's losses: the "commitment cost" of the release is on the codebook's term."""
    return {"commitment": 1.0, "codebook": config.get("commitment_cost", 0.25)}


def layout(module: GridTokenizer) -> Layout:
    """The table for a tokenizer of `from_official_config`."""
    assert isinstance(module.encoder, MaskGITEncoder)
    assert isinstance(module.decoder, MaskGITDecoder)
    down = Names([f"down.{i}" for i in range(len(module.encoder.levels))], middle(module.encoder), "block", "")
    prefixes = OUTSIDE | side_prefixes("encoder", module.encoder, down) | decoder_prefixes(module.decoder)
    return Layout(prefixes, own=OWN)


def decoder_prefixes(decoder: MaskGITDecoder) -> dict[str, str]:
    """Official prefix -> ours of the decoder alone, which both call "decoder"."""
    levels = [f"up.{i}" for i in reversed(range(len(decoder.levels)))]
    return side_prefixes("decoder", decoder, Names(levels, middle(decoder), "block", "upsample_conv"))


def middle(side: MaskGITEncoder | MaskGITDecoder) -> list[str]:
    return [f"mid.{i}" for i in range(len(side.middle))]


def unwrap(checkpoint: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """The state dict itself: that is what the release holds."""
    return checkpoint
