"""What a tokenizer learns from a frozen teacher: the meaning of every cell (TokenFlow)."""

import math

import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from ..tokenizers.base import ImageTokenizer, VisionEncoder
from ..tokenizers.tokenflow import TokenFlow, semantic_loss
from .build import freeze


class Distillation:
    """Compares what a tokenizer decodes from its semantic codes with the features of a teacher, cell by cell.

    No module on purpose: the teacher belongs neither to the tokenizer's weights nor to the checkpoints of its training.
    Where the teacher reads images of another size they are resized (bicubic, antialiased); where it has another
    grid of features, these are averaged over the area of each cell of the tokenizer.

    Args:
        teacher: any vision encoder with a square grid of features; it is frozen here.

    Raises:
        ValueError: features of another width than the tokenizer's semantic decoder gives, or no square grid.
    """

    def __init__(self, teacher: VisionEncoder, tokenizer: TokenFlow) -> None:
        decoded = tokenizer.semantic_decoder.feature_dim
        if teacher.feature_dim != decoded:
            raise ValueError(
                f"the teacher's features have width {teacher.feature_dim} and the tokenizer decodes {decoded}; set "
                f"tokenizer.semantic_decoder.feature_dim={teacher.feature_dim}."
            )
        if math.isqrt(teacher.num_features) ** 2 != teacher.num_features:
            raise ValueError(
                f"teacher: {type(teacher).__name__} gives {teacher.num_features} features per image; needed is one "
                "for each cell of a square grid."
            )
        self.teacher, self.tokenizer = teacher, tokenizer
        self.check_frozen = freeze(teacher)

    def to(self, device: torch.device) -> None:
        self.teacher.to(device)

    @torch.no_grad()
    def targets(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, N, feature_dim), the teacher's features at the cells of the tokenizer."""
        teacher, side = self.teacher, self.tokenizer.grid_size
        if images.shape[-1] != teacher.image_size:
            size = (teacher.image_size, teacher.image_size)
            images = F.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)
        features = teacher.features(images)
        given = math.isqrt(teacher.num_features)
        if given != side:
            grid = features.transpose(1, 2).unflatten(2, (given, given))
            features = F.adaptive_avg_pool2d(grid, side).flatten(2).transpose(1, 2)
        return features.float()

    def decoded(self, latents: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, feature_dim), what is compared with `targets`."""
        return self.tokenizer.semantic_decode(latents).float()

    def loss(self, images: Tensor, latents: Tensor) -> Tensor:
        """Mean over images and cells of 1 - cosine between `decoded` and `targets`."""
        return semantic_loss(self.decoded(latents), self.targets(images))


def check_teacher(cfg: DictConfig, tokenizer: ImageTokenizer) -> None:
    """A tokenizer with semantic codes needs a teacher, and no other can use one.

    Raises:
        ValueError: one without the other.
    """
    given, kind = bool(cfg.get("teacher")), type(tokenizer).__name__
    if isinstance(tokenizer, TokenFlow) and not given:
        raise ValueError(
            f"{kind} learns the features of a frozen teacher; give teacher=<run folder of a semantic encoder>, or one "
            "by name, such as tokenizer@teacher=siglip."
        )
    if given and not isinstance(tokenizer, TokenFlow):
        raise ValueError(f"teacher: {kind} has no semantic decoder that could learn from one; leave teacher out.")


def build_distillation(cfg: DictConfig, tokenizer: ImageTokenizer) -> Distillation | None:
    """The configured teacher beside `tokenizer`; None for a tokenizer without semantic codes.

    Raises:
        ValueError: a teacher that is no vision encoder, does not fit, or is a run that cannot be read.
    """
    if not isinstance(tokenizer, TokenFlow):
        return None
    teacher = instantiate(cfg.teacher)
    if not isinstance(teacher, VisionEncoder):
        raise ValueError(
            f"teacher is a {type(teacher).__name__}; needed is a vision encoder, such as a run of phase=siglip."
        )
    return Distillation(teacher, tokenizer)
