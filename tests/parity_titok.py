"""TiTok (bytedance/1d-tokenizer): the tokenizers in both stages, as one stage and as VAE."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessella.tokenizers import official_one_d_piece, official_titok
from tessella.tokenizers.base import Encoding
from tessella.tokenizers.checkpoints import export_weights
from tessella.tokenizers.losses_1d import ProxyLoss
from tessella.tokenizers.official_titok import from_official_config, layout, loss_terms
from tessella.tokenizers.one_d import OneDTokenizer
from tessella.tokenizers.one_d_vae import OneDVAE
from tessella.tokenizers.tail_drop import TailDrop
from tessella.tokenizers.titok_heads import MixtureHead
from tessella.tokenizers.titok_stages import PixelStage, ProxyStage

from .parity_cases import Case


class Kept(TailDrop):
    """Tail drop that always draws the recorded length."""

    def __init__(self, keep: int):
        super().__init__()
        object.__setattr__(self, "keep", keep)

    def draw(self, batch_size: int, num_tokens: int, *, shortest: int = 1, progress: float = 1.0) -> Tensor:
        return torch.full((batch_size,), self.keep)


def official(latents: Tensor) -> Tensor:
    """(B, N, C) -> (B, C, 1, N)."""
    return latents.transpose(1, 2)[:, :, None]


def ours(latents: Tensor) -> Tensor:
    """(B, C, 1, N) -> (B, N, C)."""
    return latents[:, :, 0].transpose(1, 2)


def build(case: Case) -> OneDTokenizer:
    system = {"titok": official_titok, "one_d_piece": official_one_d_piece}[case.system]
    tokenizer = system.from_official_config(case.config).eval()
    assert isinstance(tokenizer, OneDTokenizer)
    case.import_into(tokenizer, layout(tokenizer))
    return tokenizer


def check_losses(case: Case, encoding: Encoding) -> None:
    weighted = {name: weight * encoding.losses.get(name, 0.0) for name, weight in loss_terms(case.config).items()}
    for name, value in (*weighted.items(), ("quantizer", weighted["commitment"] + weighted["codebook"])):
        if f"{name}_loss" in case.outputs:
            case.close(torch.as_tensor(value), f"{name}_loss")


def check_encoding(case: Case, tokenizer: OneDTokenizer) -> Encoding:
    """Encode the image; every recorded fact about it is compared, each image alone gives the same ids."""
    images = case.inputs["image"]
    encoding = tokenizer.encode(images)
    assert encoding.ids is not None
    if "z" in case.outputs:
        case.close(official(tokenizer.encoder(images)), "z")
    if "z_q" in case.outputs:
        case.close(official(encoding.latents), "z_q")
    case.exact(encoding.ids[:, None], "indices")
    assert torch.equal(torch.cat([tokenizer.encode(image[None]).ids for image in images]), encoding.ids)
    check_losses(case, encoding)
    return encoding


def tokens(case: Case) -> Tensor:
    """The independent ids of a case, (B, N) however they were recorded."""
    return case.inputs["tokens"].flatten(1)


@torch.no_grad()
def check_stage1(case: Case) -> None:
    tokenizer = build(case)
    assert isinstance(tokenizer, ProxyStage)
    encoding = check_encoding(case, tokenizer)
    case.close(tokenizer.logits(encoding.latents), "logits")
    case.close(tokenizer.logits(tokenizer.dequantize(tokens(case))), "logits_from_tokens")


@torch.no_grad()
def check_stage2(case: Case) -> None:
    tokenizer = build(case)
    assert isinstance(tokenizer, PixelStage)
    encoding = check_encoding(case, tokenizer)
    check_mixture(case, tokenizer, encoding.latents)
    check_images(case, tokenizer, encoding.latents)


@torch.no_grad()
def check_mixture(case: Case, tokenizer: PixelStage, latents: Tensor) -> None:
    """What the second stage computes on the way to pixels, where it was recorded."""
    head = tokenizer.decoder.head
    assert isinstance(head, MixtureHead)
    logits = head.logits(tokenizer.decoder.grid(latents))
    for name, value in (("logits", logits), ("soft_code", head.mix(logits))):
        if name in case.outputs:
            case.close(value, name)


@torch.no_grad()
def check_single_stage(case: Case) -> None:
    tokenizer = build(case)
    check_images(case, tokenizer, check_encoding(case, tokenizer).latents)


def check_images(case: Case, tokenizer: OneDTokenizer, latents: Tensor) -> None:
    case.close(tokenizer.decoded(latents), "image")
    assert torch.equal(tokenizer.decode(latents), tokenizer.decoded(latents).clamp(0, 1))
    case.close(tokenizer.decoded(tokenizer.dequantize(tokens(case))), "image_from_tokens")


@torch.no_grad()
def check_vae(case: Case) -> None:
    tokenizer = from_official_config(case.config).eval()
    assert isinstance(tokenizer, OneDVAE)
    case.import_into(tokenizer, layout(tokenizer))
    images = case.inputs["image"]
    case.close(official(tokenizer.encoder(images)), "moments")
    posterior = tokenizer.posterior(images)
    case.close(official(posterior.mean), "mean")
    case.close(official(posterior.logvar), "logvar")
    case.close(official(posterior.std), "std")
    case.close(posterior.kl(), "kl")
    encoding = tokenizer.encode(images)
    assert torch.equal(encoding.latents, posterior.mean)
    case.close(encoding.losses["kl"], "kl_loss")
    sample = posterior.sample(ours(case.inputs["noise"]))
    case.close(official(sample), "sample")
    case.close(tokenizer.decoder(posterior.mean), "image_from_mean")
    case.close(tokenizer.decoder(sample), "image_from_sample")


def check_stage1_train(case: Case) -> None:
    tokenizer = trained(case)
    assert isinstance(tokenizer, ProxyStage)
    encoding = check_encoding(case, tokenizer)
    logits = tokenizer.logits(encoding.latents)
    case.close(logits, "logits")
    total, terms = ProxyLoss(terms=loss_terms(case.config))(logits, case.inputs["proxy_codes"], encoding)
    case.close(terms["proxy"], "reconstruction_loss")
    case.close(total, "total_loss")
    total.backward()
    check_gradients(case, tokenizer)


def check_stage2_train(case: Case) -> None:
    tokenizer = trained(case)
    assert isinstance(tokenizer, PixelStage)
    images = case.inputs["image"]
    encoding = check_encoding(case, tokenizer)
    reconstruction = tokenizer.decode(encoding.latents)
    case.close(reconstruction, "image")
    keep = int(case.inputs.get("keep", torch.tensor(tokenizer.num_latents)))
    check_mixture(case, tokenizer, encoding.latents[:, :keep])
    mse = F.mse_loss(reconstruction, images)
    case.close(mse, "mse")
    mse.backward()
    check_gradients(case, tokenizer)


def trained(case: Case) -> OneDTokenizer:
    """The tokenizer in training mode; with a recorded `keep`, tail drop draws that length."""
    tokenizer = build(case).train()
    if "keep" in case.inputs:
        assert tokenizer.tail_drop is not None
        tokenizer.tail_drop = Kept(int(case.inputs["keep"]))
    return tokenizer


def check_gradients(case: Case, tokenizer: nn.Module) -> None:
    """Compare grad/<official name> of every recorded parameter, and the norm of all gradients together."""
    gradients = {name: parameter.grad for name, parameter in tokenizer.named_parameters()}
    case.close(torch.cat([g.flatten() for g in gradients.values() if g is not None]).norm(), "grad_norm")
    holder = copy.deepcopy(tokenizer)  # gradients take the same way to their official names as weights
    with torch.no_grad():
        for name, parameter in holder.named_parameters():
            gradient = gradients[name]
            parameter.copy_(torch.zeros_like(parameter) if gradient is None else gradient)
    exported = export_weights(holder, layout(holder))
    for name in case.outputs:
        if name.startswith("grad/"):
            case.close(exported[name.removeprefix("grad/")], name)


CHECKS = {
    "titok_stage1": check_stage1,
    "titok_stage2": check_stage2,
    "titok_single_stage_vq": check_single_stage,
    "titok_vae": check_vae,
    "titok_stage1_train": check_stage1_train,
    "titok_stage2_train": check_stage2_train,
}
