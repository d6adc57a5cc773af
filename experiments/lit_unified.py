"""The unified phase: the same LLM, reading and writing images through a frozen tokenizer."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from ..data.base import ImageDataset
from ..tokenizers.base import ImageTokenizer
from ..unified.model import UnifiedModel
from ..unified.sequence import PackedBatch
from . import build
from .evaluate_unified import evaluate_unified
from .lit_base import LitPhase
from .phase import Evaluation, Phase
from .runs import write_atomic
from .steps import step_seed
from .token_store import open_tokens
from .trained_unified import UnifiedRun, load_text

TEXTS_FOR_BPE = 20_000  # more captions do not change a small byte-level BPE


class LitUnified(LitPhase):
    """Trains the LLM, the image head and the adapter on packed batches; weights of the two losses by argument."""

    def __init__(self, model: UnifiedModel, *, text_weight: float, image_weight: float, **optimization: Any) -> None:
        super().__init__(model, **optimization)
        self.text_weight, self.image_weight = text_weight, image_weight

    def training_step(self, step_batch: tuple[int, PackedBatch], batch_idx: int) -> Tensor:
        losses = self.trained(step_batch[1])
        total = self.text_weight * losses.text + self.image_weight * losses.image
        self.log_terms({"loss": total, "loss/text": losses.text, "loss/image": losses.image})
        return total

    def validation_step(self, batch: PackedBatch, batch_idx: int) -> None:
        losses = self.trained(batch)
        total = self.text_weight * losses.text + self.image_weight * losses.image
        self.log_dict(
            {"val/loss": total, "val/loss/text": losses.text, "val/loss/image": losses.image},
            batch_size=max(losses.num_text + losses.num_image, 1),
        )


class UnifiedPhase(Phase):
    """Trains and evaluates the unified model around a frozen tokenizer."""

    name = "unified"
    monitor = "val/loss"
    monitor_mode = "min"

    def __init__(self, cfg: DictConfig, folder: Path) -> None:
        super().__init__(cfg, folder)
        tokenizer = build.build_seeded(cfg.tokenizer, cfg.seed, "tokenizer")
        if not isinstance(tokenizer, ImageTokenizer):
            raise ValueError(
                f"phase=unified needs an image tokenizer, but tokenizer builds a {type(tokenizer).__name__}; "
                "give a tokenizer run folder, or Decoupled around it."
            )
        self.tokenizer = tokenizer.eval().requires_grad_(False)
        self.data = build.open_data(cfg, tokenizer.image_size)
        if not all(split.has_captions for split in (self.data.train, self.data.val, self.data.test)):
            raise ValueError(
                f"data: {self.data.train.name} has no captions, which the unified model is trained on; choose a source "
                "with captions or class names (data.captions, class folders)."
            )
        self.mixture = instantiate(self.recipe.mixture, **self._shares())
        llm = self._llm = instantiate(cfg.llm)
        saved = folder / "text.json"
        self.text = (
            load_text(saved)
            if (folder / "run.json").is_file() and saved.is_file()
            else llm.text_tokenizer(_texts(self.data.train))
        )
        self.model = UnifiedModel(
            tokenizer=tokenizer,
            llm=llm,
            text=self.text,
            head=instantiate(cfg.head),
            reader=instantiate(cfg.reader),
            seed=step_seed(cfg.seed, -1, "llm"),
        )
        self._llm_init = self.model.llm_digest()
        recipe = self.recipe
        self.module = LitUnified(
            self.model,
            text_weight=recipe.text_weight,
            image_weight=recipe.image_weight,
            optimizer=instantiate(recipe.optimizer),
            schedule=partial(instantiate(recipe.schedule), total_steps=int(recipe.steps)),
            clip=float(recipe.clip),
            ema_decay=recipe.ema_decay,
        )

    def _shares(self) -> dict[str, float]:
        """Without questions in the data, their share goes to captions: the task that is closest."""
        wanted = self.recipe.mixture
        if self.data.train.has_questions or not wanted.question_answering:
            return {}
        print(f"{self.data.train.name} has no questions: their share of the mixture goes to captions.", file=sys.stderr)
        return {"question_answering": 0.0, "captioning": wanted.captioning + wanted.question_answering}

    def to(self, device: torch.device) -> None:
        super().to(device)
        self.tokenizer.to(device)  # it is no part of the module

    def prepare(self, note: Callable[[str], None]) -> None:
        write_atomic(self.folder / "text.json", self.text.to_json())
        self.tokenizer.to(self.device)
        self._frozen = build.freeze(self.tokenizer)
        cache, node = self.folder.parent / "cache", build.expand_trained(self.cfg.tokenizer)
        parts = ("ids",) if self.model.adapter.reads == "ids" else ("ids", "features")
        self.train_tokens = open_tokens(self.tokenizer, node, self.data.train, cache, parts, note)
        self.val_tokens = open_tokens(self.tokenizer, node, self.data.val, cache, parts, note)

    def load(self, indices: Tensor, step: int) -> PackedBatch:
        return self._pack(self.data.train, self.train_tokens, indices, self.cfg.seed, step)

    def _pack(self, data: ImageDataset, tokens: Any, indices: Tensor, seed: int, step: int) -> PackedBatch:
        captions, questions = data.annotations(indices)
        return self.mixture.pack(
            self.model.layout,
            captions=captions,
            questions=questions,
            ids=tokens.ids(indices),
            features=tokens.ids(indices) if self.model.adapter.reads == "ids" else tokens.features(indices),
            seed=seed,
            step=step,
        )

    def validation(self) -> list[PackedBatch]:
        size = min(int(self.recipe.batch_size), len(self.data.val))
        count = min(len(self.data.val) // size, 4)
        return [
            self._pack(self.data.val, self.val_tokens, torch.arange(i * size, (i + 1) * size), 0, i)
            for i in range(count)
        ]

    def evaluate(self, note: Callable[[str], None]) -> Evaluation:
        return evaluate_unified(
            self.model, self.mixture, self.data, self.cfg.evaluation, self.folder.parent / "cache", note
        )

    def finish_training(self) -> None:
        self._frozen()
        self.module.use_average()
        self.model.eval().requires_grad_(False)

    def restore(self) -> None:
        build.load_weights(UnifiedRun(self.model, self.tokenizer), self.folder)
        self.model.eval().requires_grad_(False)

    def save(self) -> str:
        llm = build.node_of(self._llm.rebuilder(self.model.llm))
        node = {"tokenizer": self.cfg.tokenizer, "llm": llm, "head": self.cfg.head, "reader": self.cfg.reader}
        return build.save_weights(UnifiedRun(self.model, self.tokenizer), node, self.folder)

    def describe(self) -> dict[str, Any]:
        tokenizer = self.tokenizer
        parts = {"llm": self.model.llm, "head": self.model.head, "adapter": self.model.adapter, "tokenizer": tokenizer}
        return {
            "parameters": build.count_parameters(parts),
            "tokens_per_image": tokenizer.num_tokens,
            "bits_per_image": tokenizer.bits_per_image,
            "codebook_size": tokenizer.vocab_size,
            "inputs": build.trained_inputs(self.cfg.tokenizer),
            "llm_init": self._llm_init,
            "task_shares": dict(
                zip(("text_to_image", "captioning", "question_answering"), self.mixture.shares.tolist(), strict=True)
            ),
        }


def _texts(data: ImageDataset) -> list[str]:
    """Captions, questions and answers of the training split, as the text tokenizer learns them."""
    captions, questions = data.annotations(range(min(len(data), TEXTS_FOR_BPE)))
    asked = [text for group in questions for question in group for text in (question.text, question.answer)]
    return [*(captions or []), *asked]
