"""Chameleon's image tokenizer as published (arXiv:2405.09818), a VQGAN: configuration and key names.

Any VQGAN of taming-transformers whose quantizer is the plain one has the same.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .checkpoints import Layout
from .cnn_vqgan import VQGANDecoder, VQGANEncoder
from .official_cnn import OUTSIDE, OWN, Names, side_prefixes
from .quantizers.vq import VectorQuantizer
from .vq import VQTokenizer

SOURCE = "github.com/facebookresearch/chameleon, hub facebook/chameleon-7b (tokenizer/vqgan.ckpt, by request)"
LICENCE = "Chameleon Research License (weights, noncommercial); code of taming-transformers: MIT"

# The original VQGAN puts its beta on the codebook's term, not on the commitment as the paper does.
LOSS_TERMS = {"commitment": 1.0, "codebook": 0.25}


def from_official_config(config: Mapping[str, Any], *, image_size: int | None = None) -> VQTokenizer:
    """The tokenizer of a `VQModel` configuration: embed_dim, n_embed and a ddconfig.

    Attention is in the levels whose nominal resolution (ddconfig.resolution, halved per level) attn_resolutions lists,
    whatever size the images have. `norm_num_groups` (32) is no field of the official class.

    Args:
        image_size: pixels; None takes ddconfig.resolution.

    Raises:
        ValueError: a field is missing, or describes what the published tokenizer is not.
    """
    config = config.get("model", config)  # vqgan.yaml
    config = config.get("params", config)
    missing = [name for name in ("embed_dim", "n_embed", "ddconfig") if name not in config]
    if missing:
        raise ValueError(f"the configuration of a VQModel lacks {', '.join(missing)}.")
    network = config["ddconfig"]
    for name, value in {"double_z": False, "in_channels": 3, "out_ch": 3}.items():
        if network.get(name, value) != value:
            raise ValueError(f"ddconfig.{name}={network[name]} is not what Chameleon has; it must be {value}.")
    multipliers = tuple(network["ch_mult"])
    last = len(multipliers) - 1
    resolution = network["resolution"]
    attended = set(network["attn_resolutions"])
    sizes = {
        "channels": network["ch"],
        "channel_multipliers": multipliers,
        "num_res_blocks": network["num_res_blocks"],
        "z_channels": network["z_channels"],
        "num_groups": config.get("norm_num_groups", 32),
        "dropout": network.get("dropout", 0.0),
    }
    # Where the resolution does not halve evenly the decoder counts up from the rounded lowest one.
    down = [i for i in range(last + 1) if resolution // 2**i in attended]
    up = [i for i in range(last + 1) if resolution // 2**last * 2 ** (last - i) in attended]
    return VQTokenizer(
        VQGANEncoder(**sizes, attention_levels=down),
        VectorQuantizer(config["n_embed"], config["embed_dim"], normalize=False),
        VQGANDecoder(**sizes, attention_levels=up),
        image_size=resolution if image_size is None else image_size,
    )


def layout(module: VQTokenizer) -> Layout:
    """The table for a tokenizer of `from_official_config`. What training added (perceptual net, critic) is unused."""
    assert isinstance(module.encoder, VQGANEncoder)
    assert isinstance(module.decoder, VQGANDecoder)
    count = len(module.encoder.levels)
    middle = ("mid.block_1", "mid.attn_1", "mid.block_2")
    down = Names([f"down.{i}" for i in range(count)], middle, "block", "downsample.conv")
    up = Names([f"up.{i}" for i in reversed(range(count))], middle, "block", "upsample.conv")
    prefixes = OUTSIDE | side_prefixes("encoder", module.encoder, down) | side_prefixes("decoder", module.decoder, up)
    return Layout(prefixes, unused=("loss.",), own=OWN)


def unwrap(checkpoint: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """The state dict of a Lightning file, or the state dict itself."""
    state = checkpoint.get("state_dict")
    return state if isinstance(state, Mapping) else checkpoint
