"""Critics of reconstructions and the losses of both sides of the game."""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn


class PatchGAN(nn.Module):
    """Logits of patches: real (high) or reconstructed (low) (Isola et al. 2017, arXiv:1611.07004, section 3.2).

    (B, in_channels, H, W) -> (B, 1, about H / 2^num_layers, about W / 2^num_layers); with 3 layers each logit sees
    70 x 70 pixels. The critic of VQGAN and LlamaGen: BatchNorm inside, weights from a normal of 0.02. Images real and
    reconstructed go through in two calls, each with its own batch statistics.

    Args:
        channels: of the first layer; each next one has twice as many, up to 8 times.
        num_layers: with stride 2.
    """

    def __init__(self, *, channels: int = 64, num_layers: int = 3, in_channels: int = 3):
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers={num_layers} must be at least 1 (discriminator.num_layers).")
        widths = [channels * min(2**i, 8) for i in range(num_layers + 1)]
        layers: list[nn.Module] = [nn.Conv2d(in_channels, channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for i, (low, high) in enumerate(pairwise(widths)):
            stride = 2 if i < num_layers - 1 else 1
            layers.append(nn.Conv2d(low, high, 4, stride=stride, padding=1, bias=False))
            layers += [nn.BatchNorm2d(high), nn.LeakyReLU(0.2)]
        layers.append(nn.Conv2d(widths[-1], 1, 4, padding=1))
        self.layers = nn.Sequential(*layers)
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, 0.0, 0.02)
            elif isinstance(layer, nn.BatchNorm2d):
                nn.init.normal_(layer.weight, 1.0, 0.02)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def hinge_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Half of mean(relu(1 - real)) + mean(relu(1 + fake)): logits beyond 1 on their own side cost nothing."""
    return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2


def logistic_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Half of the cross-entropies of real as real and fake as fake ("vanilla" in VQGAN's code)."""
    return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2


def hinge_generator_loss(fake: Tensor) -> Tensor:
    """-mean(fake)."""
    return -fake.mean()
