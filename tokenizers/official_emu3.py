"""Emu3's vision tokenizer as published: its configuration and its key names."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .checkpoints import Layout
from .emu3 import Emu3Decoder, Emu3Encoder
from .quantizers.vq import VectorQuantizer
from .vq import GridTokenizer

SOURCE = "BAAI/Emu3-VisionTokenizer (code: github.com/baaivision/Emu3)"
LICENCE = "Apache-2.0"

# Names inside the blocks: ours -> official.
INSIDE = {
    "query": "q",
    "key": "k",
    "value": "v",
    "out": "proj_out",
    "shortcut": "nin_shortcut",
    "group_norm": "norm_layer",
    "scale": "conv_y",
    "shift": "conv_b",
}
ENDS = {"stem": "conv_in", "norm": "norm_out", "head": "conv_out"}
MIDDLE = ("block_1", "attn_1", "block_2")
LEVEL = {"encoder": "down", "decoder": "up"}
KINDS = {"blocks": "block", "attention": "attn"}
DECODER_LEVELS = "decoder.frame.levels."


def from_official_config(config: Mapping[str, Any], *, image_size: int = 512) -> GridTokenizer:
    """The tokenizer of a published config.json, for square images of `image_size`, which that file does not fix.

    `norm_num_groups` (32 where absent) is no field of the published file. `dropout` has no part in what is published:
    its weights come from training without.

    Raises:
        ValueError: a field is missing, or describes what no release has.
    """
    needed = ("ch", "ch_mult", "num_res_blocks", "attn_resolutions", "z_channels", "embed_dim", "codebook_size")
    missing = [name for name in (*needed, "temporal_downsample_factor") if name not in config]
    if missing:
        raise ValueError(f"the configuration of Emu3's vision tokenizer lacks {', '.join(missing)}.")
    fixed = {"double_z": False, "in_channels": 3, "out_channels": 3, "embed_dim": config["z_channels"]}
    for name, value in fixed.items():
        if config.get(name, value) != value:
            raise ValueError(f"{name}={config[name]} is not what Emu3's vision tokenizer has; it must be {value}.")
    sizes = {
        "channels": config["ch"],
        "channel_multipliers": tuple(config["ch_mult"]),
        "num_res_blocks": config["num_res_blocks"],
        "attention_levels": tuple(config["attn_resolutions"]),  # indices of levels, for all their name
        "z_channels": config["z_channels"],
        "num_frames": config["temporal_downsample_factor"],
        "num_groups": config.get("norm_num_groups", 32),
    }
    quantizer = VectorQuantizer(config["codebook_size"], config["embed_dim"], normalize=False)
    return GridTokenizer(Emu3Encoder(**sizes), quantizer, Emu3Decoder(**sizes), image_size=image_size)


def layout(module: nn.Module) -> Layout:
    """The table for a tokenizer of `from_official_config`.

    Raises:
        ValueError: another tokenizer.
    """
    if not isinstance(getattr(module, "encoder", None), Emu3Encoder):
        raise ValueError(f"a {type(module).__name__} without an Emu3 encoder has no layout of Emu3.")
    prefixes = {"quantize.embedding.weight": "quantizer.codebook"}
    num_levels = len({name.split(".")[3] for name, _ in module.named_modules() if name.startswith(DECODER_LEVELS)})
    for name, part in module.named_modules():
        if not isinstance(part, VectorQuantizer) and next(part.parameters(recurse=False), None) is not None:
            prefixes[official_name(name, num_levels)] = name
    return Layout(prefixes, own=("quantizer.counts", "quantizer.sums"))


def official_name(name: str, num_levels: int) -> str:
    """Of a layer: encoder.frame.levels.0.blocks.1.conv1 -> encoder.down.0.block.1.conv1, and so on."""
    side, group, *path = name.split(".")
    if group in ("to_codes", "from_codes"):
        return {"to_codes": "quant_conv.conv", "from_codes": "post_quant_conv.conv"}[group]
    if group == "time_blocks":
        return ".".join((side, "time_res_stack", *path))
    if group in ("time_halves", "time_doubles"):
        return f"{side}.time_conv.{path[0]}.conv.conv"
    place, *path = path
    if place in ENDS:
        start = [ENDS[place]]
    elif place == "middle":
        index, *path = path
        start = ["mid", MIDDLE[int(index)]]
    else:
        index, kind, *path = path
        number = (
            int(index) if side == "encoder" else num_levels - 1 - int(index)
        )  # our decoder runs deepest level first
        start = [LEVEL[side], str(number), KINDS.get(kind, LEVEL[side] + "sample")]
    return ".".join((side, *start, *(INSIDE.get(part, part) for part in path)))


def unwrap(checkpoint: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """The state dict itself: that is what the release holds."""
    return checkpoint
