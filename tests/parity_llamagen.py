"""LlamaGen (FoundationVision/LlamaGen): tokenizer, quantizer in training, critic, center crop."""

import numpy as np
import torch
from torch import Tensor, nn

from tessella.data.official_preparation import adm_center_crop
from tessella.tokenizers.checkpoints import Layout
from tessella.tokenizers.discriminators import (
    PatchGAN,
    hinge_discriminator_loss,
    hinge_generator_loss,
    logistic_discriminator_loss,
)
from tessella.tokenizers.official_llamagen import from_official_config, layout, loss_terms, quantizer, recent_codes
from tessella.tokenizers.vq import GridTokenizer

from .parity_cases import Case

ENCODING = ("encoder", "to_codes", "quantizer")
DECODING = ("quantizer", "from_codes", "decoder")


def part(tokenizer: GridTokenizer, names: tuple[str, ...]) -> nn.ModuleDict:
    """Some parts under the tokenizer's own names: a file may hold the weights of one half alone."""
    return nn.ModuleDict({name: tokenizer.get_submodule(name) for name in names})


def vectors(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h, w, C)."""
    return maps.permute(0, 2, 3, 1)


def maps(vectors: Tensor) -> Tensor:
    """(B, h, w, C) -> (B, C, h, w)."""
    return vectors.permute(0, 3, 1, 2)


def check_images(tokenizer: GridTokenizer, pixels: Tensor, ids: Tensor) -> None:
    """(B, 3, H, W) as the encoder sees them: images in [0, 1] give the ids (B, h, w) of every single one of them."""
    images = (pixels - tokenizer.black) / (tokenizer.white - tokenizer.black)
    for image, expected in zip(images, ids, strict=True):
        assert torch.equal(tokenizer.encode(image[None]).ids, expected.flatten()[None])


@torch.no_grad()
def check_encoder(case: Case, tokenizer: GridTokenizer, *, ids: str = "indices") -> Tensor:
    """Compares what is known of the way in; returns the quantized map (B, C, h, w)."""
    pixels = case.inputs["image"]
    z = tokenizer.to_map(pixels)
    case.close(z, "pre_quant")
    z_q, indices, _ = tokenizer.quantizer(vectors(z))
    case.exact(indices.reshape(case.outputs[ids].shape), ids)
    case.close(maps(z_q), "z_q")
    if pixels.shape[2] == pixels.shape[3] == tokenizer.image_size:
        check_images(tokenizer, pixels, indices)
    return maps(z_q)


@torch.no_grad()
def check_decoder(case: Case, tokenizer: GridTokenizer) -> None:
    indices = case.inputs["decode_indices"]
    height, width = (side // tokenizer.encoder.stride for side in case.outputs["decoded"].shape[2:])
    entry = maps(tokenizer.quantizer.lookup(indices.reshape(-1, height, width)))
    if "codebook_entry" in case.outputs:
        case.close(entry, "codebook_entry")
    decoded = tokenizer.to_pixels(entry)
    case.close(decoded, "decoded")
    if height == width == tokenizer.grid_size:
        pictures = tokenizer.decode(tokenizer.dequantize(indices.reshape(-1, height * width)))
        unit = (decoded - tokenizer.black) / (tokenizer.white - tokenizer.black)
        torch.testing.assert_close(pictures, unit.clamp(0, 1), atol=1e-5, rtol=0)


def build(case: Case) -> GridTokenizer:
    """For square images of the recorded height."""
    pixels = case.inputs.get("image", case.outputs.get("decoded"))
    assert pixels is not None
    return from_official_config(case.config, image_size=pixels.shape[2]).eval()


def check_tokenizer(case: Case) -> None:
    tokenizer = build(case)
    case.import_into(tokenizer, layout(tokenizer))
    z_q = check_encoder(case, tokenizer)
    with torch.no_grad():
        case.close(tokenizer.to_pixels(z_q), "reconstruction")
    check_decoder(case, tokenizer)


def check_encode(case: Case) -> None:
    tokenizer = build(case)
    case.import_into(part(tokenizer, ENCODING), layout(tokenizer))
    check_encoder(case, tokenizer)


def check_decode(case: Case) -> None:
    tokenizer = build(case)
    case.import_into(part(tokenizer, DECODING), layout(tokenizer))
    check_decoder(case, tokenizer)


def check_quantizer(case: Case) -> None:
    config = case.config
    module = quantizer(config).train()
    unused = case.import_into(
        module, Layout({"embedding.weight": "codebook"}, unused=("codebook_used",), own=("counts",))
    )
    z = case.inputs["z"].requires_grad_()
    z_q, ids, losses = module(vectors(z))
    case.exact(ids.reshape(case.outputs["indices"].shape), "indices")
    case.close(maps(z_q), "z_q")
    terms = loss_terms(config)
    weighted = {name: weight * losses[name] for name, weight in terms.items()}
    weighted.setdefault("entropy", torch.zeros(()))
    for name, ours in (("vq_loss", "codebook"), ("commit_loss", "commitment"), ("entropy_loss", "entropy")):
        if name in case.outputs:
            case.close(weighted[ours].reshape(case.outputs[name].shape), name)
    upstream = (maps(z_q) * case.inputs["upstream"]).sum() / z_q.numel()
    (sum(weighted.values()) + upstream).backward()
    assert z.grad is not None
    assert module.codebook.grad is not None
    case.close(z.grad, "grad_z")
    case.close(module.codebook.grad, "grad_embedding")
    usage = torch.zeros(())
    if config.get("show_usage") and "codebook_used" in unused:
        used = recent_codes(unused["codebook_used"], ids)
        usage = torch.tensor(len(used.unique()) / module.codebook_size)
        case.exact(used, "codebook_used_after")
    if "codebook_usage" in case.outputs:
        case.close(usage.reshape(case.outputs["codebook_usage"].shape), "codebook_usage")


@torch.no_grad()
def check_critic(case: Case) -> None:
    config = case.config
    critic = PatchGAN(channels=config["ndf"], num_layers=config["n_layers"], in_channels=config["input_nc"])
    case.import_into(critic, Layout({"main": "layers"}))
    real, fake = case.inputs["real"], case.inputs["fake"]
    critic.eval()
    case.close(critic(real), "logits_real_eval")
    case.close(critic(fake), "logits_fake_eval")
    critic.train()
    logits_real, logits_fake = critic(real), critic(fake)
    case.close(logits_real, "logits_real_train")
    case.close(logits_fake, "logits_fake_train")
    for name, value in (
        ("hinge_d", hinge_discriminator_loss(logits_real, logits_fake)),
        ("vanilla_d", logistic_discriminator_loss(logits_real, logits_fake)),
        ("hinge_g", hinge_generator_loss(logits_fake)),
    ):
        case.close(value.reshape(case.outputs[name].shape), name)
    after = {f"after/main.{key.removeprefix('layers.')}": value for key, value in critic.state_dict().items()}
    for name in [name for name in case.outputs if name.startswith("after/")]:
        case.close(after[name], name)


def check_crop(case: Case) -> None:
    for name, image in case.inputs.items():
        crop = adm_center_crop(image.numpy().astype(np.uint8), case.config["image_size"])
        case.exact(torch.from_numpy(crop), name.replace("image", "crop"))


CHECKS = {
    "vq_tokenizer:encode+decode+forward": check_tokenizer,
    "vq_tokenizer:encode": check_encode,
    "vq_tokenizer:decode": check_decode,
    "vector_quantizer:train_losses": check_quantizer,
    "discriminator:patchgan": check_critic,
    "image_preprocess:center_crop": check_crop,
}
