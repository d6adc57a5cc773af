"""What the LightningModules of all phases share: one optimizer, one schedule, weight averaging, logging of losses."""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn


class LitPhase(LightningModule):
    """A trained module with its optimizer, learning-rate schedule and optional EMA of the weights.

    Args:
        trained: the module whose parameters train.
        optimizer: named parameters -> optimizer (a `_partial_` from conf/optimizer).
        schedule: step -> factor of the learning rates.
        ema_decay: decay per step of an average of the weights that replaces them for evaluation; None: no average.
        clip: largest gradient norm.
    """

    def __init__(
        self,
        trained: nn.Module,
        optimizer: Callable[[Any], torch.optim.Optimizer],
        schedule: Callable[[int], float],
        *,
        clip: float,
        ema_decay: float | None = None,
    ) -> None:
        super().__init__()
        self.trained = trained
        self._optimizer, self._schedule = optimizer, schedule
        self.clip, self.ema_decay = clip, ema_decay
        self._average: dict[str, Tensor] | None = None
        self._raw: dict[str, Tensor] | None = None

    def configure_optimizers(self) -> dict[str, Any]:
        parameters = [(name, p) for name, p in self.trained.named_parameters() if p.requires_grad]
        optimizer = self._optimizer(parameters)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer: Any, gradient_clip_val: Any = None, **_: Any) -> None:
        norm = nn.utils.clip_grad_norm_(self.trained.parameters(), self.clip)
        if (self.global_step + 1) % self.log_every == 0:
            self.log("train/grad_norm", norm)

    @property
    def log_every(self) -> int:
        return self.trainer.log_every_n_steps  # type: ignore[attr-defined]

    def log_terms(self, terms: dict[str, Tensor]) -> None:
        if (self.global_step + 1) % self.log_every == 0:
            self.log_dict({f"train/{name}": value.detach().float() for name, value in terms.items()})

    # Weight averaging -------------------------------------------------------------------------------------------------

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.ema_decay is None:
            return
        # Here and not after the batch: a checkpoint of this step must hold its average.
        state = self._averaged()
        if self._average is None:
            self._average = {name: value.clone() for name, value in state.items()}
        average = [self._average[name] for name in state]
        # A young average forgets its random start: the decay grows from 0 to its final value.
        decay = min(self.ema_decay, self.global_step / (self.global_step + 10))
        torch._foreach_lerp_(average, list(state.values()), 1 - decay)  # pyright: ignore

    def _averaged(self) -> dict[str, Tensor]:
        """Weights and moving buffers alike: an averaged encoder must meet the codebook of its time."""
        return {name: value.detach() for name, value in self.trained.state_dict().items() if value.is_floating_point()}

    def on_train_start(self) -> None:
        if self._average is not None:
            self._average = {name: value.to(self.device) for name, value in self._average.items()}

    def use_average(self) -> None:
        """Put the averaged weights in place of the trained ones (validation, and the end of training)."""
        if self._average is not None and self._raw is None:
            self._raw = {name: value.clone() for name, value in self._averaged().items()}
            self._put(self._average)

    def use_raw(self) -> None:
        """Undo `use_average`."""
        if self._raw is not None:
            self._put(self._raw)
            self._raw = None

    @torch.no_grad()
    def _put(self, values: dict[str, Tensor]) -> None:
        for name, own in self._averaged().items():
            own.copy_(values[name])

    def on_validation_start(self) -> None:
        self.use_average()

    def on_validation_end(self) -> None:
        self.use_raw()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self._average is not None:
            checkpoint["average"] = self._average

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._average = checkpoint.get("average")
