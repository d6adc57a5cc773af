"""What a training phase is: a LightningModule, the batches it trains on, its evaluation, what it saves."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from .build import Data

if TYPE_CHECKING:  # Lightning loads for seconds, and evaluation needs none of it
    from .lit_base import LitPhase


@dataclass
class Evaluation:
    """Metrics, what could not be computed and why, and the pictures of one evaluation."""

    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)  # name -> (n, 3, H, W) uint8
    notes: dict[str, Any] = field(default_factory=dict)  # pictures.json: prompts, verdicts, questions, histogram


class Phase(ABC):
    """One training phase. Built by `train.run` with everything that is known before training."""

    name: str
    module: "LitPhase"
    data: Data
    monitor: str  # logged value that chooses best.ckpt
    monitor_mode: str = "max"

    def __init__(self, cfg: DictConfig, folder: Path) -> None:
        self.cfg, self.folder = cfg, folder
        self.recipe = cfg.recipe[self.name]
        self.device = torch.device(resolve_accelerator(cfg.trainer.accelerator))

    def to(self, device: torch.device) -> None:
        """Move everything that computes outside training steps."""
        self.module.to(device)

    def prepare(self, note: Callable[[str], None]) -> None:  # noqa: B027 (most phases need none)
        """Work before the first step that counts as training time (token caches)."""

    @abstractmethod
    def load(self, indices: Tensor, step: int) -> Any:
        """The training batch of one step."""

    @abstractmethod
    def validation(self) -> list[Any]:
        """Batches for the validation curve; small, fixed."""

    @abstractmethod
    def evaluate(self, note: Callable[[str], None]) -> Evaluation:
        """Measure the trained module on the test split."""

    @abstractmethod
    def save(self) -> str:
        """Write weights and the node that rebuilds them; returns the sha256 of the weights."""

    @abstractmethod
    def restore(self) -> None:
        """Load the weights that `save` wrote, ready for evaluation."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Fields of run.json that only this phase knows: parameters, tokens, bits, digests."""

    def finish_training(self) -> None:
        """Called once after the last step, before evaluation and saving."""
        self.module.eval()


def resolve_precision(precision: str, accelerator: str) -> str:
    """`auto` is bf16 where it is faster: CUDA with bf16, or a CPU with bf16 instructions."""
    if precision != "auto":
        return precision
    if accelerator == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "bf16-mixed" if _cpu_has_bf16() else "32-true"


def _cpu_has_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def resolve_accelerator(accelerator: str) -> str:
    """`auto` is the GPU when there is one.

    Raises:
        ValueError: a GPU is asked for and there is none, or an unknown name.
    """
    if accelerator not in ("auto", "cpu", "gpu"):
        raise ValueError(f"trainer.accelerator={accelerator} is unknown; use auto, cpu or gpu.")
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise ValueError("trainer.accelerator=gpu: torch finds no GPU on this machine; use trainer.accelerator=cpu.")
    return "cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu"
