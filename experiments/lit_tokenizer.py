"""The tokenizer phase: images in, images out."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn

from ..data.base import Batch
from ..metrics.reconstruction import psnr
from ..tokenizers.base import ImageTokenizer
from ..tokenizers.semantic_light import LightVisionEncoder
from ..tokenizers.titok_stages import PixelStage, ProxyStage
from . import build
from .distillation import Distillation, build_distillation, check_teacher
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
        self.distillation: Distillation | None = None  # set when training begins

    def on_fit_start(self) -> None:
        if self.distillation is not None:
            self.distillation.to(self.device)

    def training_step(self, step_batch: tuple[int, Tensor], batch_idx: int) -> Tensor:
        step, images = step_batch
        self.tokenizer.set_step(step, self.total_steps)
        images = images.contiguous(memory_format=torch.channels_last)
        encoding = self.tokenizer.encode(images)
        if self.distillation is not None:
            semantic = self.distillation.loss(images, encoding.latents)
            encoding = replace(encoding, losses={**encoding.losses, "semantic": semantic})
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
        if self.distillation is not None:
            cosine = 1 - self.distillation.loss(images, encoding.latents)
            self.log("val/sem/cosine", cosine, batch_size=len(images))


class TokenizerPhase(Phase):
    """Trains and evaluates an image tokenizer.

    A `TokenFlow` learns the features of a frozen teacher besides; with `warm_start` its semantic encoder starts from a
    trained one. So does the second stage of a 1D tokenizer, from a run of the first.
    """

    name = "tokenizer"
    module: LitTokenizer
    monitor = "val/rec/psnr"

    def __init__(self, cfg: DictConfig, folder: Path) -> None:
        super().__init__(cfg, folder)
        tokenizer = build.build_seeded(cfg.tokenizer, cfg.seed, "tokenizer")
        if not isinstance(tokenizer, ImageTokenizer):
            raise ValueError(
                f"phase=tokenizer trains an image tokenizer, but tokenizer builds a {type(tokenizer).__name__}; "
                "choose another tokenizer= or phase=siglip."
            )
        check_teacher(cfg, tokenizer)
        # Weights of 2-D convolutions alone: Module.to() refuses modules that have 3-D ones too.
        self.tokenizer = nn.utils.convert_conv2d_weight_memory_format(tokenizer, torch.channels_last)
        self.data = build.open_data(cfg, tokenizer.image_size)
        recipe = self.recipe
        self.frozen = _parts(tokenizer, recipe.get("frozen", ()))
        self.check_frozen: list[Callable[[], None]] = []
        self.module = LitTokenizer(
            tokenizer,
            instantiate(recipe.loss),
            int(recipe.steps),
            optimizer=instantiate(recipe.optimizer),
            schedule=partial(instantiate(recipe.schedule), total_steps=int(recipe.steps)),
            clip=float(recipe.clip),
            ema_decay=recipe.ema_decay,
        )

    def prepare(self, note: Callable[[str], None]) -> None:
        if self.cfg.warm_start is not None:
            self._warm_start()
        self.check_frozen = [build.freeze(part) for part in self.frozen]
        self.module.distillation = build_distillation(self.cfg, self.tokenizer)

    def _warm_start(self) -> None:
        source = build.trained(self.cfg.warm_start)
        if isinstance(self.tokenizer, PixelStage) and isinstance(source, ProxyStage):
            self.tokenizer.start_from(source)
            return
        encoder = getattr(self.tokenizer, "semantic_encoder", None)
        if not isinstance(source, LightVisionEncoder) or not isinstance(encoder, LightVisionEncoder):
            raise ValueError(
                f"warm_start={self.cfg.warm_start} holds a {type(source).__name__}, from which "
                f"{type(self.tokenizer).__name__} cannot start; with phase=tokenizer a small semantic encoder starts "
                "from a run of phase=siglip, and the second stage of a 1D tokenizer from a run of the first."
            )
        encoder.start_from(source)

    def load(self, indices: Tensor, step: int) -> Tensor:
        return self.data.train.batch(indices, step).images

    def validation(self) -> list[Tensor]:
        return _images(self.data.val.batch(range(min(128, len(self.data.val)))), 64)

    def evaluate(self, note: Callable[[str], None]) -> Evaluation:
        missing: dict[str, str] = {}
        if self.module.distillation is None:  # a run that is only measured, perhaps without the folders it came from
            try:
                self.module.distillation = build_distillation(self.cfg, self.tokenizer)
            except (ValueError, InstantiationException) as error:
                missing["sem/cosine"] = f"the teacher cannot be loaded: {error.__cause__ or error}"
        if self.module.distillation is not None:
            self.module.distillation.to(self.device)
        cache = self.folder.parent / "cache"
        result = evaluate_tokenizer(
            self.tokenizer, self.data, self.cfg.evaluation, cache, note, self.module.distillation
        )
        result.absent |= missing
        return result

    def finish_training(self) -> None:
        for check in self.check_frozen:
            check()
        if self.module.distillation is not None:
            self.module.distillation.check_frozen()
        self.module.use_average()
        self.tokenizer.eval().requires_grad_(False)

    def restore(self) -> None:
        build.load_weights(self.tokenizer, self.folder)
        self.tokenizer.eval().requires_grad_(False)

    def save(self) -> str:
        return build.save_weights(self.tokenizer, self.cfg.tokenizer, self.folder)

    def describe(self) -> dict[str, Any]:
        tokenizer = self.tokenizer
        inputs = build.trained_inputs(self.cfg.tokenizer) | build.trained_inputs(self.cfg.get("teacher"), "teacher")
        if self.cfg.warm_start is not None:
            inputs |= build.trained_inputs({"_target_": build.TRAINED, "folder": self.cfg.warm_start}, "warm_start")
        return {
            "parameters": build.count_parameters(dict(tokenizer.named_children())),
            "tokens_per_image": tokenizer.num_tokens,
            "bits_per_image": tokenizer.bits_per_image,
            "codebook_size": tokenizer.vocab_size,
            "inputs": inputs,
            "llm_init": None,
        }


def _parts(tokenizer: ImageTokenizer, names: Sequence[str]) -> list[nn.Module]:
    parts = dict(tokenizer.named_children())
    for name in names:
        if name not in parts:
            kind = type(tokenizer).__name__
            raise ValueError(f"recipe.tokenizer.frozen names {name!r}; the parts of {kind} are {', '.join(parts)}.")
    return [parts[name] for name in names]


def _images(batch: Batch, size: int) -> list[Tensor]:
    return list(batch.images.split(size))
