"""The tokenizer phase: images in, images out."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from ..data.base import Batch
from ..metrics.reconstruction import psnr
from ..tokenizers.base import ImageTokenizer
from . import build
from .evaluate_tokenizer import evaluate_tokenizer
from .lit_base import LitPhase
from .phase import Evaluation, Phase


class LitTokenizer(LitPhase):
    """Trains a tokenizer under one loss object.

    Args:
        loss: (images, reconstruction, encoding) -> (total, {name: term to log}).
        total_steps: length of the run, which the quantizer's schedule follows.
    """

    def __init__(self, tokenizer: ImageTokenizer, loss: Any, total_steps: int, **optimization: Any) -> None:
        super().__init__(tokenizer, **optimization)
        self.tokenizer, self.loss, self.total_steps = tokenizer, loss, total_steps

    def training_step(self, step_batch: tuple[int, Tensor], batch_idx: int) -> Tensor:
        step, images = step_batch
        self.tokenizer.set_step(step, self.total_steps)
        images = images.contiguous(memory_format=torch.channels_last)
        encoding = self.tokenizer.encode(images)
        total, terms = self.loss(images, self.tokenizer.decode(encoding.latents), encoding)
        self.log_terms({"loss": total, **{f"loss/{name}": value for name, value in terms.items()}})
        return total

    def validation_step(self, images: Tensor, batch_idx: int) -> None:
        encoding = self.tokenizer.encode(images)
        value = psnr(images, self.tokenizer.decode(encoding.latents)).mean()
        self.log("val/rec/psnr", value, batch_size=len(images))
        if encoding.ids is not None and self.tokenizer.vocab_size is not None:
            used = encoding.ids.unique().numel() / self.tokenizer.vocab_size
            self.log("val/codebook/usage", used, batch_size=len(images))


class TokenizerPhase(Phase):
    """Trains and evaluates an image tokenizer."""

    name = "tokenizer"
    monitor = "val/rec/psnr"

    def __init__(self, cfg: DictConfig, folder: Path) -> None:
        super().__init__(cfg, folder)
        tokenizer = build.build_seeded(cfg.tokenizer, cfg.seed, "tokenizer")
        if not isinstance(tokenizer, ImageTokenizer):
            raise ValueError(
                f"phase=tokenizer trains an image tokenizer, but tokenizer builds a {type(tokenizer).__name__}; "
                "choose another tokenizer= or phase=siglip."
            )
        self.tokenizer = tokenizer.to(memory_format=torch.channels_last)
        self.data = build.open_data(cfg, tokenizer.image_size)
        recipe = self.recipe
        self.module = LitTokenizer(
            tokenizer,
            instantiate(recipe.loss),
            int(recipe.steps),
            optimizer=instantiate(recipe.optimizer),
            schedule=partial(instantiate(recipe.schedule), total_steps=int(recipe.steps)),
            clip=float(recipe.clip),
            ema_decay=recipe.ema_decay,
        )

    def load(self, indices: Tensor, step: int) -> Tensor:
        return self.data.train.batch(indices, step).images

    def validation(self) -> list[Tensor]:
        return _images(self.data.val.batch(range(min(128, len(self.data.val)))), 64)

    def evaluate(self, note: Callable[[str], None]) -> Evaluation:
        return evaluate_tokenizer(self.tokenizer, self.data, self.cfg.evaluation, self.folder.parent / "cache", note)

    def finish_training(self) -> None:
        self.module.use_average()
        self.tokenizer.eval().requires_grad_(False)

    def restore(self) -> None:
        build.load_weights(self.tokenizer, self.folder)
        self.tokenizer.eval().requires_grad_(False)

    def save(self) -> str:
        return build.save_weights(self.tokenizer, self.cfg.tokenizer, self.folder)

    def describe(self) -> dict[str, Any]:
        tokenizer = self.tokenizer
        return {
            "parameters": build.count_parameters(dict(tokenizer.named_children())),
            "tokens_per_image": tokenizer.num_tokens,
            "bits_per_image": tokenizer.bits_per_image,
            "codebook_size": tokenizer.vocab_size,
            "inputs": {},
            "llm_init": None,
        }


def _images(batch: Batch, size: int) -> list[Tensor]:
    return list(batch.images.split(size))
