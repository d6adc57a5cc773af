"""Key names of convolutional tokenizers: what the releases of the VQGAN family have in common."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from .cnn_blocks import AttentionBlock, LevelsDecoder, LevelsEncoder

ENDS = {"conv_in": "stem", "norm_out": "norm", "conv_out": "head"}
IN_ATTENTION = {"norm": "norm", "q": "query", "k": "key", "v": "value", "proj_out": "out"}
IN_RESIDUAL = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2", "nin_shortcut": "shortcut"}
OUTSIDE = {
    "quantize.embedding.weight": "quantizer.codebook",
    "quant_conv": "to_codes",
    "post_quant_conv": "from_codes",
}
OWN = ("quantizer.counts", "quantizer.sums")  # moving averages of the quantizer, which no release stores


@dataclass(frozen=True)
class Names:
    """How one release names one side, encoder or decoder.

    Args:
        levels: of each level, in the order of our `levels` (the decoder's start at the deepest).
        middle: of each block of the middle.
        block: of the residual blocks of a level, before their number.
        resample: of the convolution that changes the resolution.
    """

    levels: Sequence[str]
    middle: Sequence[str]
    block: str
    resample: str


def side_prefixes(side: str, network: LevelsEncoder | LevelsDecoder, names: Names) -> dict[str, str]:
    """Official prefix -> ours for `network`, which both call `side` ("encoder", "decoder")."""
    prefixes = {f"{side}.{theirs}": f"{side}.{ours}" for theirs, ours in ENDS.items()}
    for theirs, (ours, block) in zip(names.middle, network.middle.named_children(), strict=True):
        prefixes |= block_prefixes(f"{side}.{theirs}", f"{side}.middle.{ours}", block)
    for theirs, (ours, level) in zip(names.levels, network.levels.named_children(), strict=True):
        for kind, ours_kind in ((names.block, "blocks"), ("attn", "attention")):
            for number, block in level.get_submodule(ours_kind).named_children():
                prefixes |= block_prefixes(
                    f"{side}.{theirs}.{kind}.{number}", f"{side}.levels.{ours}.{ours_kind}.{number}", block
                )
        prefixes[f"{side}.{theirs}.{names.resample}"] = f"{side}.levels.{ours}.resample.conv"
    return prefixes


def block_prefixes(theirs: str, ours: str, block: nn.Module) -> dict[str, str]:
    inside = IN_ATTENTION if isinstance(block, AttentionBlock) else IN_RESIDUAL
    return {f"{theirs}.{name}": f"{ours}.{our_name}" for name, our_name in inside.items()}
