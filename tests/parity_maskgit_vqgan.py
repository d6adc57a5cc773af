"""MaskGIT's VQGAN as TiTok uses it (bytedance/1d-tokenizer): encoder with quantizer, codes with decoder."""

import torch

from tessella.tokenizers.official_maskgit_vqgan import from_official_config, layout, loss_terms

from .parity_cases import Case
from .parity_llamagen import DECODING, ENCODING, check_images, maps, part, vectors


@torch.no_grad()
def check_encoder(case: Case) -> None:
    image = case.inputs["image"]
    tokenizer = from_official_config(case.config, image_size=image.shape[2]).eval()
    case.import_into(part(tokenizer, ENCODING), layout(tokenizer))
    h = tokenizer.to_map(image)
    case.close(h, "h")
    z_q, ids, losses = tokenizer.quantizer(vectors(h))
    case.close(maps(z_q), "z_q")
    case.exact(ids.reshape(case.outputs["indices"].shape), "indices")
    loss = torch.stack([weight * losses[name] for name, weight in loss_terms(case.config).items()]).sum()
    case.close(loss.reshape(case.outputs["vq_loss"].shape), "vq_loss")
    distances = tokenizer.quantizer.squared_distances(vectors(h).flatten(1, 2))  # (B, hw, K)
    case.close((-distances).softmax(-1).reshape(case.outputs["soft_code"].shape), "soft_code")
    if image.shape[2] == image.shape[3]:
        check_images(tokenizer, image, ids)


@torch.no_grad()
def check_decoder(case: Case) -> None:
    indices = case.inputs["indices"]
    height, width = case.outputs["z_q"].shape[2:]
    stride = 2 ** (len(case.config["channel_mult"]) - 1)
    tokenizer = from_official_config(case.config, image_size=height * stride).eval()
    case.import_into(part(tokenizer, DECODING), layout(tokenizer))
    latents = tokenizer.quantizer.lookup(indices)
    z_q = maps(latents.unflatten(1, (height, width)))
    case.close(z_q, "z_q")
    case.close(tokenizer.to_pixels(z_q), "image_raw")
    case.close(tokenizer.decode(latents) if height == width else tokenizer.to_pixels(z_q).clamp(0, 1), "image")
    if "latent" in case.inputs:
        case.close(tokenizer.to_pixels(case.inputs["latent"]), "image_from_latent")


CHECKS = {("titok", "maskgit_vqgan_encoder"): check_encoder, ("titok", "maskgit_vqgan_decoder"): check_decoder}
