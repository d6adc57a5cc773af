"""Chameleon (facebookresearch/chameleon): image tokenizer and image preparation."""

import numpy as np
import torch

from tessella.data.official_preparation import lanczos_center_crop, on_white, truncated_uint8
from tessella.tokenizers.official_chameleon import LOSS_TERMS, from_official_config, layout
from tessella.tokenizers.vq import GridTokenizer

from .parity_cases import Case
from .parity_llamagen import check_decoder, check_encoder, vectors


def build(case: Case) -> GridTokenizer:
    """For square images of the recorded height; the resolution in the configuration says where attention is."""
    pixels = case.inputs.get("image", case.outputs.get("decoded"))
    assert pixels is not None
    return from_official_config(case.config, image_size=pixels.shape[2]).eval()


@torch.no_grad()
def check_tokenizer(case: Case) -> None:
    tokenizer = build(case)
    case.import_into(tokenizer, layout(tokenizer))
    z_q = check_encoder(case, tokenizer)
    case.close(tokenizer.to_pixels(z_q), "reconstruction")
    losses = tokenizer.quantizer(vectors(tokenizer.to_map(case.inputs["image"])))[2]
    loss = torch.stack([weight * losses[name] for name, weight in LOSS_TERMS.items()]).sum()
    case.close(loss.reshape(case.outputs["loss"].shape), "loss")
    check_decoder(case, tokenizer)


def check_preparation(case: Case) -> None:
    for name in [name for name in case.inputs if name.startswith("image")]:
        whitened = on_white(case.inputs[name].numpy().astype(np.uint8))
        case.exact(torch.from_numpy(whitened), name.replace("image", "whitened"))
        crop = lanczos_center_crop(whitened, case.config["target_image_size"])
        pixels = torch.from_numpy(crop).permute(2, 0, 1)[None] / 255 * 2 - 1  # what the encoder sees
        case.close(pixels, name.replace("image", "pixels"))
    if "decoder_output" in case.inputs:
        case.exact(torch.from_numpy(truncated_uint8(case.inputs["decoder_output"].numpy())), "uint8")


CHECKS = {
    "vq_tokenizer:encode+decode+forward": check_tokenizer,
    "image_preprocess": check_preparation,
}
