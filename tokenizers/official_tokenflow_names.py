"""Key names of the vision towers that TokenFlow starts from and learns from: CLIP in OpenAI's files, SigLIP, BEiT."""

from .base import VisionEncoder
from .checkpoints import Layout
from .siglip_hidden import SigLIPHidden
from .vit_clip import CLIPVision


def teacher_layout(module: VisionEncoder) -> Layout:
    """The table for a teacher: CLIP as OpenAI's files name it, SigLIP as transformers does; text towers have no use."""
    prefix = "visual." if isinstance(module, CLIPVision) else ""
    prefixes, unused = tower_names(module, prefix, "")
    text = ("transformer.", "token_embedding.", "ln_final.", "positional_embedding", "text_projection", "text_model.")
    constants = ("logit_scale", "logit_bias", "input_resolution", "context_length", "vocab_size")
    return Layout(prefixes, unused=(*unused, *text, *constants))


def tower_names(module: VisionEncoder, theirs: str, ours: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Official prefix -> ours, and unused names, for a tower whose keys start with `theirs` there and `ours` here."""
    if isinstance(module, SigLIPHidden):
        theirs = f"{theirs}vision_model."
        skipped = range(module.num_layers, module.num_layers + module.skipped_layers)
        names = [f"encoder.layers.{i}." for i in skipped] + ["post_layernorm.", "head.", "embeddings.position_ids"]
        return {theirs: f"{ours}tower."}, tuple(f"{theirs}{name}" for name in names)
    if isinstance(module, CLIPVision):
        return clip_names(len(module.blocks), theirs, ours), ()
    raise ValueError(f"{type(module).__name__} is no tower of a published TokenFlow; needed: CLIPVision, SigLIPHidden.")


def clip_names(depth: int, theirs: str, ours: str) -> dict[str, str]:
    """Of CLIP's vision tower in OpenAI's files, which TokenFlow keeps."""
    outside = {
        "conv1": "patches",
        "class_embedding": "class_token",
        "positional_embedding": "positions",
        "ln_pre": "norm_before",
        "ln_post": "norm_after",
        "proj": "projection",
    }
    block = {
        "ln_1": "norm1",
        "attn.in_proj_weight": "attention.qkv.weight",
        "attn.in_proj_bias": "attention.qkv.bias",
        "attn.out_proj": "attention.out",
        "ln_2": "norm2",
        "mlp.c_fc": "mlp.0",
        "mlp.c_proj": "mlp.2",
    }
    names = outside | of_blocks(depth, block, "transformer.resblocks")
    return {theirs + key: ours + value for key, value in names.items()}


def beit_names(depth: int, theirs: str, ours: str) -> dict[str, str]:
    """Of the semantic decoder, named as BEiT's transformer."""
    outside = {"patch_embed.proj": "embed", "cls_token": "class_token", "pos_embed": "positions", "fc_norm": "norm"}
    block = {
        "norm1": "norm1",
        "attn.qkv": "attention.qkv",
        "attn.q_bias": "attention.query_bias",
        "attn.v_bias": "attention.value_bias",
        "attn.proj": "attention.out",
        "norm2": "norm2",
        "mlp.fc1": "mlp.0",
        "mlp.fc2": "mlp.2",
    }
    names = outside | of_blocks(depth, block, "blocks")
    return {theirs + key: ours + value for key, value in names.items()}


def of_blocks(depth: int, block: dict[str, str], theirs: str) -> dict[str, str]:
    return {f"{theirs}.{i}.{key}": f"blocks.{i}.{value}" for i in range(depth) for key, value in block.items()}
