"""The published image tokenizers that transformers has, with the weights of ours, so that results can be compared."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tessella.tokenizers.checkpoints import export_weights


@dataclass(frozen=True)
class Peer:
    """One tokenizer of transformers. Images are (B, 3, H, W) in [-1, 1].

    Args:
        read: module, images -> ids (B, L), or features (B, M, D) where it has no ids.
        write: module, ids (B, L) -> images; None where transformers has no decoder.
    """

    name: str
    module: nn.Module
    read: Callable[[Any, Tensor], Tensor]
    write: Callable[[Any, Tensor], Tensor] | None


def janus(tokenizer, config: Mapping[str, Any]) -> Peer:
    """LlamaGen's VQ. This class does not normalize what it compares with the codes, which are of unit length here."""
    from transformers import JanusVQVAE, JanusVQVAEConfig

    encoder = config["encoder"]
    module = JanusVQVAE(
        JanusVQVAEConfig(
            **vqgan_sizes(config),
            embed_dim=tokenizer.latent_dim,
            num_patches=tokenizer.grid_size,
        )
    ).eval()
    deepest = len(encoder["channel_multipliers"]) - 1
    official = {
        "decoder.up." + renumbered(key, deepest) if key.startswith("decoder.up.") else key: tensor
        for key, tensor in vqgan_weights(tokenizer).items()
    }
    module.load_state_dict(official)
    return Peer(
        "transformers JanusVQVAE",
        module,
        lambda module, images: module.encode(images).image_tokens.view(len(images), -1),
        lambda module, ids: module.decode(ids),
    )


def renumbered(key: str, deepest: int) -> str:
    """decoder.up.<level>.<rest> -> <level>.<rest>: this class counts from the deepest level, VQGAN from the first."""
    level, rest = key.removeprefix("decoder.up.").split(".", 1)
    return f"{deepest - int(level)}.{rest}"


def chameleon(tokenizer, config: Mapping[str, Any]) -> Peer:
    from transformers import ChameleonVQVAE, ChameleonVQVAEConfig

    module = ChameleonVQVAE(
        ChameleonVQVAEConfig(
            **vqgan_sizes(config), embed_dim=tokenizer.latent_dim, resolution=tokenizer.image_size, attn_resolutions=[]
        )
    ).eval()
    weights = vqgan_weights(tokenizer)
    module.load_state_dict({key: tensor for key, tensor in weights.items() if not key.startswith("decoder.")})
    return Peer(
        "transformers ChameleonVQVAE",
        module,
        lambda module, images: module.encode(images).image_tokens.view(len(images), -1),
        None,
    )


def vqgan_sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    encoder = config["encoder"]
    return {
        "base_channels": encoder["channels"],
        "channel_multiplier": list(encoder["channel_multipliers"]),
        "num_res_blocks": encoder["num_res_blocks"],
        "latent_channels": encoder["z_channels"],
        "num_embeddings": config["quantizer"]["codebook_size"],
    }


def vqgan_weights(tokenizer) -> dict[str, Tensor]:
    from tessella.tokenizers.official_chameleon import layout

    return export_weights(tokenizer, layout(tokenizer))


def emu3(tokenizer, config: Mapping[str, Any]) -> Peer:
    from transformers import Emu3VQVAE, Emu3VQVAEConfig

    from tessella.tokenizers.official_emu3 import layout

    encoder = config["encoder"]
    side = tokenizer.grid_size
    module = Emu3VQVAE(
        Emu3VQVAEConfig(
            codebook_size=tokenizer.vocab_size,
            base_channels=encoder["channels"],
            channel_multiplier=list(encoder["channel_multipliers"]),
            num_res_blocks=encoder["num_res_blocks"],
            attn_resolutions=list(encoder["attention_levels"]),
            hidden_size=encoder["channels"] * encoder["channel_multipliers"][-1],
        )
    ).eval()
    official = export_weights(tokenizer, layout(tokenizer))
    module.load_state_dict(dict(emu3_weight(key, tensor) for key, tensor in official.items()))

    def read(module: nn.Module, images: Tensor) -> Tensor:
        sizes = torch.tensor([images.shape[2:]] * len(images))
        return torch.stack(module.encode(images, image_sizes=sizes).image_tokens).flatten(1)  # pyright: ignore

    return Peer(
        "transformers Emu3VQVAE", module, read, lambda module, ids: module.decode(ids.view(len(ids), side, side))
    )


def emu3_weight(key: str, tensor: Tensor) -> tuple[str, Tensor]:
    """Name and shape in transformers, where attention is made of linear layers and its norm stands beside it."""
    for ours, theirs in ((".down.", ".down_block.down."), (".up.", ".up_block.up."), (".mid.", ".middle_block.")):
        key = key.replace(ours, theirs)
    parts = key.split(".")
    for place, part in enumerate(parts):
        if part in ("q", "k", "v", "proj_out"):
            parts[place] = "out_proj" if part == "proj_out" else f"{part}_proj"
            tensor = tensor[:, :, 0, 0] if tensor.ndim == 4 else tensor
        elif part == "norm" and parts[place - 1] == "attn_1":
            parts[place - 1 : place + 1] = ["attn_norm"]
        elif part == "norm" and place > 1 and parts[place - 2] == "attn":
            parts[place - 2 : place + 1] = ["attn_norms", parts[place - 1]]
    return ".".join(parts), tensor


def siglip(tokenizer, config: Mapping[str, Any]) -> Peer:
    """The class that ours holds."""
    return Peer(
        "transformers SiglipVisionModel",
        tokenizer.tower,
        lambda module, images: module(pixel_values=images).last_hidden_state,
        None,
    )


# Name of a published configuration -> its peer. The others have no implementation on PyPI.
PEERS: dict[str, Callable[[Any, Mapping[str, Any]], Peer]] = {
    "vq8": janus,
    "vq16": janus,
    "chameleon": chameleon,
    "emu3": emu3,
    "siglip": siglip,
}
