"""The semantic phase: an encoder that matches images with their captions (SigLIP)."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from ..tokenizers.siglip_small import SmallSigLIP
from ..tokenizers.vq import VQTokenizer
from . import build
from .evaluate_siglip import evaluate_siglip
from .lit_base import LitPhase
from .phase import Evaluation, Phase


class LitSiglip(LitPhase):
    """Trains images and captions towards each other with the sigmoid loss."""

    def __init__(self, encoder: SmallSigLIP, loss: Any, **optimization: Any) -> None:
        super().__init__(encoder, **optimization)
        self.encoder, self.loss = encoder, loss

    def training_step(self, step_batch: tuple[int, tuple[Tensor, list[str]]], batch_idx: int) -> Tensor:
        images, captions = step_batch[1]
        images = images.contiguous(memory_format=torch.channels_last)
        total, terms = self.loss(self.encoder(images, captions), captions)
        self.log_terms({"loss": total, **{f"loss/{name}": value for name, value in terms.items()}})
        return total

    def validation_step(self, batch: tuple[Tensor, list[str]], batch_idx: int) -> None:
        images, captions = batch
        total, terms = self.loss(self.encoder(images, captions), captions)
        self.log_dict({"val/loss": total, "val/retrieval": terms["retrieval"]}, batch_size=len(images))


class SiglipPhase(Phase):
    """Trains and evaluates a small SigLIP; with `warm_start` its trunk starts from a trained tokenizer's encoder."""

    name = "siglip"
    monitor = "val/retrieval"

    def __init__(self, cfg: DictConfig, folder: Path) -> None:
        super().__init__(cfg, folder)
        encoder = build.build_seeded(cfg.tokenizer, cfg.seed, "siglip")
        if not isinstance(encoder, SmallSigLIP):
            raise ValueError(
                f"phase=siglip trains a SmallSigLIP, but tokenizer builds a {type(encoder).__name__}; "
                "use tokenizer=nano/siglip."
            )
        self.encoder = encoder.to(memory_format=torch.channels_last)
        self.data = build.open_data(cfg, encoder.image_size)
        if not all(split.has_captions for split in (self.data.train, self.data.val, self.data.test)):
            raise ValueError(f"data: {self.data.train.name} has no captions, which phase=siglip is trained on.")
        recipe = self.recipe
        self.module = LitSiglip(
            encoder,
            instantiate(recipe.loss),
            optimizer=instantiate(recipe.optimizer),
            schedule=partial(instantiate(recipe.schedule), total_steps=int(recipe.steps)),
            clip=float(recipe.clip),
            ema_decay=recipe.ema_decay,
        )

    def prepare(self, note: Callable[[str], None]) -> None:
        self._warm_start()

    def _warm_start(self) -> None:
        if self.cfg.warm_start is None:
            return
        source = build.trained(self.cfg.warm_start)
        if not isinstance(source, VQTokenizer):
            raise ValueError(
                f"warm_start={self.cfg.warm_start} holds a {type(source).__name__}; give the run folder of a "
                "convolutional VQ tokenizer, whose encoder the trunk starts from."
            )
        self.encoder.warm_start_from(source.encoder)

    def load(self, indices: Tensor, step: int) -> tuple[Tensor, list[str]]:
        batch = self.data.train.batch(indices, step)
        assert batch.captions is not None
        return batch.images, batch.captions

    def validation(self) -> list[tuple[Tensor, list[str]]]:
        batch = self.data.val.batch(range(min(128, len(self.data.val))))
        assert batch.captions is not None
        size = int(self.recipe.batch_size)
        return [(batch.images[i : i + size], batch.captions[i : i + size]) for i in range(0, len(batch.images), size)]

    def evaluate(self, note: Callable[[str], None]) -> Evaluation:
        return evaluate_siglip(self.encoder, self.data, self.cfg.evaluation, note)

    def finish_training(self) -> None:
        self.module.use_average()
        self.encoder.eval().requires_grad_(False)

    def restore(self) -> None:
        build.load_weights(self.encoder, self.folder)
        self.encoder.eval().requires_grad_(False)

    def save(self) -> str:
        return build.save_weights(self.encoder, self.cfg.tokenizer, self.folder)

    def describe(self) -> dict[str, Any]:
        warm = self.cfg.warm_start
        return {
            "parameters": build.count_parameters(dict(self.encoder.named_children())),
            "tokens_per_image": None,
            "bits_per_image": None,
            "codebook_size": None,
            "inputs": build.trained_inputs({"warm_start": {"_target_": build.TRAINED, "folder": warm}}) if warm else {},
            "llm_init": None,
        }
