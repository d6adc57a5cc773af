"""TiTok (bytedance/1d-tokenizer): the quantizer, and the losses and discriminator of both stages."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessella.tokenizers.base import Encoding
from tessella.tokenizers.checkpoints import Layout
from tessella.tokenizers.discriminator_blur import BlurDiscriminator
from tessella.tokenizers.losses_1d import LogitDistance, PixelStageLoss, ProxyLoss
from tessella.tokenizers.official_titok import loss_terms
from tessella.tokenizers.quantizers.clustering import ClusteringQuantizer
from tessella.tokenizers.quantizers.vq import VectorQuantizer

from .parity_cases import Case
from .parity_titok import check_losses


def check_quantizer(case: Case) -> None:
    config = case.config
    quantizer = VectorQuantizer(config["codebook_size"], config["token_size"], normalize=config["use_l2_norm"])
    case.import_into(quantizer, Layout({"embedding.weight": "codebook"}, own=("counts",)))
    shape = case.inputs["z"].shape  # (B, C, H, W), H is 1 in the tokenizers
    z = case.inputs["z"].flatten(2).transpose(1, 2).requires_grad_()

    def mapped(latents: Tensor) -> Tensor:
        return latents.transpose(1, 2).reshape(shape)

    z_q, ids, losses = quantizer(z)
    case.close(mapped(z_q), "z_q")
    case.exact(ids.view(shape[0], *shape[2:]), "indices")
    check_losses(case, Encoding(z_q, ids, losses))
    (probe,) = torch.autograd.grad((mapped(z_q) * case.inputs["probe"]).sum(), z, retain_graph=True)
    case.close(mapped(probe), "grad_z_from_probe")
    total = sum((weight * losses[name] for name, weight in loss_terms(case.config).items()), start=torch.zeros(()))
    by_z, by_codebook = torch.autograd.grad(total, (z, quantizer.codebook))
    case.close(mapped(by_z), "grad_z_from_loss")
    case.close(by_codebook, "grad_codebook_from_loss")
    case.close(quantizer.lookup(case.inputs["tokens"]), "entries")


def check_clustering(case: Case) -> None:
    config = case.config
    quantizer = ClusteringQuantizer(
        config["codebook_size"], config["token_size"], normalize=config["use_l2_norm"], decay=config["decay"]
    )
    case.import_into(quantizer, Layout({"embedding.weight": "codebook", "embed_prob": "usage"}, own=("counts",)))
    for i in range(1, 1 + sum(name.startswith("z") for name in case.inputs)):
        z = case.inputs[f"z{i}"]
        z_q, ids, losses = quantizer(z.flatten(2).transpose(1, 2))
        case.close(z_q.transpose(1, 2).reshape(z.shape), f"z_q_{i}")
        case.exact(ids.view(len(z), *z.shape[2:]), f"indices_{i}")
        case.close(config["commitment_cost"] * losses["commitment"] + losses["codebook"], f"quantizer_loss_{i}")
        case.close(quantizer.usage, f"embed_prob_{i}")
        case.close(quantizer.codebook, f"codebook_{i}")


def check_loss_stage1(case: Case) -> None:
    config = case.config
    logits = case.inputs["logits"].requires_grad_()
    quantizer_loss = case.inputs["quantizer_loss"]
    loss = ProxyLoss(terms={"quantizer": config["quantizer_weight"]})
    encoding = Encoding(torch.empty(0), losses={"quantizer": quantizer_loss})
    total, terms = loss(logits, case.inputs["proxy_codes"].flatten(1), encoding)
    case.close(terms["proxy"], "reconstruction_loss")
    case.close(terms["quantizer"], "quantizer_loss")
    case.close(total, "total_loss")
    total.backward()
    assert logits.grad is not None
    case.close(logits.grad, "grad_logits")


class StandIn(nn.Module):
    """The small network that stands in for ConvNeXt-S in the recorded losses; sizes are those of its weights."""

    def __init__(self, weights: dict[str, Tensor]):
        super().__init__()
        conv, fc = weights["conv.weight"], weights["fc.weight"]
        self.conv = nn.Conv2d(3, conv.shape[0], conv.shape[-1], stride=conv.shape[-1])
        self.pool = nn.AdaptiveAvgPool2d(int((fc.shape[1] // conv.shape[0]) ** 0.5))
        self.fc = nn.Linear(fc.shape[1], fc.shape[0])

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.pool(F.gelu(self.conv(images))).flatten(1))


STAGE2_LOSS = Layout(
    {
        "discriminator.block_in": "discriminator.stem",
        "discriminator.blocks": "discriminator.stages",
        "discriminator.to_logits": "discriminator.head",
        "ema_real_logits_mean": "real_mean",
        "ema_fake_logits_mean": "fake_mean",
        "perceptual_loss.convnext": "perceptual.network",
        "perceptual_loss.imagenet_mean": "perceptual.mean",
        "perceptual_loss.imagenet_std": "perceptual.std",
    }
)


def check_loss_stage2(case: Case) -> None:
    config = case.config["losses"]
    assert config["perceptual_loss"] == "convnext_s", config["perceptual_loss"]
    prefix = "perceptual_loss.convnext."
    network = StandIn({k.removeprefix(prefix): v for k, v in case.weights.items() if k.startswith(prefix)})
    disc = case.config["disc"]
    weight = {"l1": 0.0, "l2": 0.0} | {config["reconstruction_loss"]: config["reconstruction_weight"]}
    loss = PixelStageLoss(
        LogitDistance(network),
        BlurDiscriminator(channels=disc["hidden_channels"], num_stages=disc["num_stages"]),
        terms={"quantizer": config["quantizer_weight"]},
        gan_from=config["discriminator_start"],
        mse_weight=weight["l2"],
        l1_weight=weight["l1"],
        perceptual_weight=config["perceptual_weight"],
        gan_weight=config["discriminator_weight"],
        discriminator_factor=config["discriminator_factor"],
        lecam_weight=config["lecam_regularization_weight"],
    )
    case.import_into(loss, STAGE2_LOSS)
    images, reconstruction = case.inputs["image"], case.inputs["reconstruction"]
    encoding = Encoding(torch.empty(0), losses={"quantizer": case.inputs["quantizer_loss"]})
    case.close(loss.perceptual(images, reconstruction), "perceptual_raw")
    case.close(loss.discriminator(images), "disc_logits_image")

    start = config["discriminator_start"]
    for when, step in (("before", start - 1), ("after", start)):
        x = reconstruction.clone().requires_grad_()
        total, terms = loss.generator(images, x, encoding, step=step)
        total.backward()
        gan = terms.get("gan", torch.zeros(()))
        pixels = terms["l1" if config["reconstruction_loss"] == "l1" else "mse"]
        assert x.grad is not None
        case.close(x.grad, f"gen_grad_reconstruction_{when}")
        case.close(total, f"gen_total_{when}")
        case.close(config["reconstruction_weight"] * pixels, f"gen_reconstruction_loss_{when}")
        case.close(config["perceptual_weight"] * terms["perceptual"], f"gen_perceptual_loss_{when}")
        case.close(config["quantizer_weight"] * terms["quantizer"], f"gen_quantizer_loss_{when}")
        case.close(gan, f"gen_gan_loss_{when}")
        weight = config["discriminator_weight"] * config["discriminator_factor"]
        case.close(weight * gan, f"gen_weighted_gan_loss_{when}")
        assert all(p.grad is None for p in loss.discriminator.parameters()), "the generator's step trains it alone"
    assert loss.discriminate(images, reconstruction, step=start - 1) is None

    for i, fake in enumerate((reconstruction, images.flip(0) * 0.5 + 0.3 * reconstruction), start=1):
        loss.zero_grad()
        result = loss.discriminate(images, fake, step=start)
        assert result is not None
        total, terms = result
        total.backward()
        case.close(total, f"disc_loss_{i}")
        case.close(config["lecam_regularization_weight"] * terms["lecam"], f"disc_lecam_{i}")
        case.close(terms["logits_real"], f"disc_logits_real_{i}")
        case.close(terms["logits_fake"], f"disc_logits_fake_{i}")
        case.close(loss.real_mean, f"ema_real_after_{i}")
        case.close(loss.fake_mean, f"ema_fake_after_{i}")
        if i == 1:
            gradients = {name: p.grad for name, p in loss.discriminator.named_parameters() if p.grad is not None}
            case.close(torch.cat([g.flatten() for g in gradients.values()]).norm(), "disc_grad_norm_1")
            case.close(gradients["stem.0.weight"], "disc_grad_block_in_1")


CHECKS = {
    ("titok", "quantizer_train"): check_quantizer,
    ("titok", "clustering_quantizer_train"): check_clustering,
    ("titok", "loss_stage1"): check_loss_stage1,
    ("titok", "loss_stage2"): check_loss_stage2,
}
