"""Evaluation of a tokenizer that was converted from published weights: it has no data, loss or optimizer of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from . import build
from .compose import compose_config
from .evaluate_tokenizer import evaluate_tokenizer
from .lit_tokenizer import TokenizerPhase
from .phase import Evaluation, resolve_accelerator


class ImportedPhase(TokenizerPhase):
    """What evaluation needs of a tokenizer phase, and nothing of training."""

    def __init__(self, cfg: DictConfig, folder: Path) -> None:
        self.cfg, self.folder = cfg, folder
        self.device = torch.device(resolve_accelerator(cfg.trainer.accelerator))
        self.tokenizer = instantiate(cfg.tokenizer)
        self.data = build.open_data(cfg, self.tokenizer.image_size)

    def to(self, device: torch.device) -> None:
        self.tokenizer.to(device)

    def evaluate(self, note: Callable[[str], None]) -> Evaluation:
        return evaluate_tokenizer(self.tokenizer, self.data, self.cfg.evaluation, self.folder.parent / "cache", note)


def imported_config(folder: Path, node: dict[str, Any], data: DictConfig | None, phase: str) -> DictConfig:
    """The configuration of an evaluation: on `data`, or on what the folder was measured on last.

    Raises:
        ValueError: no data was named yet, or the folder holds a semantic encoder, which makes no images.
    """
    if phase != "tokenizer":
        raise ValueError(
            f"{folder} holds an imported semantic encoder, with nothing to measure alone; a unified model can read "
            f"with it: tessella train phase=unified tokenizer=trained_pair tokenizer.understanding.folder={folder} ..."
        )
    file = folder / "config.yaml"
    if data is None:
        if not file.is_file():
            raise ValueError(
                f"{folder} holds imported weights and no data; name what to measure on, for example "
                "data=folder data.train=photos, or data=scenes."
            )
        data = OmegaConf.load(file).data
    defaults = compose_config("train")
    return OmegaConf.create({"phase": phase, "tokenizer": node, "data": data, "trainer": defaults.trainer})
