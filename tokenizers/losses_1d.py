"""The losses of the two stages of TiTok and One-D-Piece; weights live here, as in losses.py."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Encoding


class ProxyLoss(nn.Module):
    """Stage 1: cross-entropy of the proxy's codes, averaged over cells, plus the tokenizer's own terms.

    Args:
        terms: weight of each loss in `Encoding.losses`, by name. Published: codebook 1, commitment 0.25.
    """

    def __init__(self, *, terms: Mapping[str, float]):
        super().__init__()
        self.terms = dict(terms)

    def forward(self, logits: Tensor, targets: Tensor, encoding: Encoding) -> tuple[Tensor, dict[str, Tensor]]:
        """(B, K, g, g) and ids (B, g * g) in raster order -> (total, terms by name, without their weights)."""
        entropy = proxy_entropy(logits, targets)
        return entropy + weighted(encoding, self.terms), {"proxy": entropy, **encoding.losses}


class LogitDistance(nn.Module):
    """Mean squared difference of a classifier's logits for two images.

    TiTok: ConvNeXt-Small of torchvision with its 1000 ImageNet logits. Both images are brought to 224 x 224 (bilinear,
    antialiased) and to ImageNet's mean and deviation.

    Args:
        network: (B, 3, 224, 224) -> (B, classes); it is frozen and stays in eval mode.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network.requires_grad_(False)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        self.train()

    def train(self, mode: bool = True) -> "LogitDistance":
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, images: Tensor, reconstruction: Tensor) -> Tensor:
        """(B, 3, H, W) around [0, 1] twice -> scalar."""
        return F.mse_loss(self.logits(reconstruction), self.logits(images))

    def logits(self, images: Tensor) -> Tensor:
        images = F.interpolate(images.float(), (224, 224), mode="bilinear", align_corners=False, antialias=True)
        return self.network((images - self.mean) / self.std)


class PixelStageLoss(nn.Module):
    """Stage 2: pixels, a perceptual distance, and a discriminator that joins the run later.

    Two steps per batch, each with its own optimizer: `generator` for the tokenizer, then `discriminate` for the
    discriminator on the same reconstruction. Before step `gan_from` the discriminator neither acts nor learns.

    LeCam regularization (Tseng et al. 2021, arXiv:2104.03310) holds the mean logits of real images near the moving
    average of those of fakes, and the other way round; it compares with the averages of the steps before.

    Args:
        perceptual: (images, reconstruction) -> scalar, such as `LogitDistance`.
        terms: weight of each loss in `Encoding.losses`, by name; stage 2 has none, a single stage has.
        gan_from: optimizer step at which the discriminator joins.
        discriminator_factor: of the hinge loss, on both sides.
        lecam_decay: of the moving averages, per step.
    """

    real_mean: Tensor
    fake_mean: Tensor

    def __init__(
        self,
        perceptual: nn.Module,
        discriminator: nn.Module,
        *,
        terms: Mapping[str, float],
        gan_from: int,
        mse_weight: float = 1.0,
        l1_weight: float = 0.0,
        perceptual_weight: float = 0.1,
        gan_weight: float = 0.01,
        discriminator_factor: float = 1.0,
        lecam_weight: float = 0.001,
        lecam_decay: float = 0.999,
    ):
        super().__init__()
        self.perceptual = perceptual
        self.discriminator = discriminator
        self.terms = dict(terms)
        self.gan_from = gan_from
        self.mse_weight = mse_weight
        self.l1_weight = l1_weight
        self.perceptual_weight = perceptual_weight
        self.gan_weight = gan_weight
        self.discriminator_factor = discriminator_factor
        self.lecam_weight = lecam_weight
        self.lecam_decay = lecam_decay
        self.register_buffer("real_mean", torch.zeros(1))
        self.register_buffer("fake_mean", torch.zeros(1))

    def generator(
        self, images: Tensor, reconstruction: Tensor, encoding: Encoding, *, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(B, 3, H, W) around [0, 1] twice -> (total, terms by name, without their weights)."""
        reconstruction = reconstruction.float()
        logged = {"perceptual": self.perceptual(images, reconstruction)}
        total = self.perceptual_weight * logged["perceptual"]
        if self.mse_weight:
            logged["mse"] = F.mse_loss(reconstruction, images)
            total = total + self.mse_weight * logged["mse"]
        if self.l1_weight:
            logged["l1"] = F.l1_loss(reconstruction, images)
            total = total + self.l1_weight * logged["l1"]
        if step >= self.gan_from:
            with frozen(self.discriminator):
                logged["gan"] = -self.discriminator(reconstruction).mean()
            total = total + self.gan_weight * self.discriminator_factor * logged["gan"]
        return total + weighted(encoding, self.terms), logged | encoding.losses

    def discriminate(
        self, images: Tensor, reconstruction: Tensor, *, step: int
    ) -> tuple[Tensor, dict[str, Tensor]] | None:
        """The discriminator's loss and its parts; None before it joins. Moves the averages of LeCam.

        (B, 3, H, W) around [0, 1] twice; no gradient reaches the reconstruction.
        """
        if step < self.gan_from:
            return None
        real = self.discriminator(images)
        fake = self.discriminator(reconstruction.detach().float())
        hinge = 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
        real_mean, fake_mean = real.mean(), fake.mean()
        lecam = (F.relu(real_mean - self.fake_mean) ** 2 + F.relu(self.real_mean - fake_mean) ** 2).squeeze()
        with torch.no_grad():
            self.real_mean = self.real_mean.lerp(real_mean, 1 - self.lecam_decay)
            self.fake_mean = self.fake_mean.lerp(fake_mean, 1 - self.lecam_decay)
        total = self.discriminator_factor * hinge + self.lecam_weight * lecam
        return total, {"hinge": hinge, "lecam": lecam, "logits_real": real_mean, "logits_fake": fake_mean}


def proxy_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Logits (B, K, g, g) and ids (B, g * g) in raster order -> mean cross-entropy of a cell, in nats."""
    return F.cross_entropy(logits.float().flatten(2), targets)


def weighted(encoding: Encoding, terms: Mapping[str, float]) -> Tensor | float:
    """The sum of an encoding's losses under their weights.

    Raises:
        ValueError: a loss without a weight.
    """
    unknown = encoding.losses.keys() - terms.keys()
    if unknown:
        raise ValueError(
            f"the tokenizer gives a loss {min(unknown)!r} without a weight; add it to loss.terms, which has "
            f"{', '.join(terms) or 'nothing'}."
        )
    return sum((terms[name] * value for name, value in encoding.losses.items()), start=0.0)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """What is computed inside sends no gradients to the parameters of `module`."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
