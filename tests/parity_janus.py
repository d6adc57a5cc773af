"""Janus' image preparation for the understanding encoder."""

import torch

from tessella.data.letterbox import letterbox
from tessella.tokenizers.siglip import SigLIP

from .parity_cases import Case


def check_preparation(case: Case) -> None:
    config = case.config
    background = config.get("background_color") or [int(mean * 255) for mean in config["image_mean"]]
    tower = SigLIP(
        image_size=config["image_size"],
        patch_size=config["image_size"],
        hidden_size=4,
        num_layers=1,
        num_heads=1,
        mlp_size=4,
        pixel_mean=config["image_mean"],
        pixel_std=config["image_std"],
    )
    for name, pixels in case.inputs.items():
        number = name.removeprefix("image_")
        square = letterbox(
            pixels.to(torch.uint8).numpy(),
            config["image_size"],
            min_size=config["min_size"],
            background=background,
        )
        padded = torch.from_numpy(square).permute(2, 0, 1)
        case.exact(padded, f"padded_{number}")
        case.close(tower.normalize(padded * config["rescale_factor"]), f"pixel_values_{number}")


CHECKS = {"image_preprocess": check_preparation}
