"""Emu3's vision tokenizer and image sizes against the official implementation."""

import numpy as np
import torch

from tessella.data.pixel_area import PixelArea, to_pixels
from tessella.tokenizers.official_emu3 import from_official_config, layout

from .parity_cases import Case


@torch.no_grad()
def check_tokenizer(case: Case) -> None:
    images = case.inputs["image"]
    height, width = images.shape[2:]
    stride = 2 ** (len(case.config["ch_mult"]) - 1)
    tokenizer = from_official_config(case.config, image_size=max(height, width) // stride * stride).eval()
    assert case.import_into(tokenizer, layout(tokenizer)) == {}
    z = tokenizer.encoder(images)  # (B, C, h, w), any size
    case.close(z[:, :, None], "pre_quant")  # one frame of codes
    latents, ids, _ = tokenizer.quantizer(z.permute(0, 2, 3, 1))
    case.exact(ids, "codes")
    recorded = tokenizer.quantizer.lookup(case.inputs["codes"])
    case.close(tokenizer.decoder(recorded.permute(0, 3, 1, 2)), "decoded")
    reconstruction = tokenizer.decoder(latents.permute(0, 3, 1, 2))
    case.close(reconstruction, "reconstruction")
    if height != width:
        return
    encoding = tokenizer.encode((images + 1) / 2)
    assert torch.equal(encoding.ids, ids.flatten(1))
    pictures = tokenizer.decode(tokenizer.dequantize(encoding.ids))
    torch.testing.assert_close(pictures, ((reconstruction + 1) / 2).clamp(0, 1), atol=1e-5, rtol=0)


def check_preparation(case: Case) -> None:
    area = PixelArea(
        min_pixels=case.config["min_pixels"],
        max_pixels=case.config["max_pixels"],
        factor=case.config["spatial_factor"],
    )
    for name in [name for name in case.inputs if name.startswith("image")]:
        pixels = case.inputs[name].numpy().astype(np.uint8)
        prepared = torch.from_numpy(area.prepared(pixels)) * 2 - 1
        case.close(prepared[None], name.replace("image", "pixels"))
    (decoded,) = (case.inputs["decoder_output"] + 1) / 2  # as `decode` gives it
    case.exact(torch.from_numpy(to_pixels(decoded.numpy())), "uint8")


CHECKS = {"vision_tokenizer:encode+decode": check_tokenizer, "image_preprocess": check_preparation}
