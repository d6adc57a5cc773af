"""Weights & Biases logger: curves while training, and at the end every metric, the grids and the code histogram."""

from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import WandbLogger as LightningWandbLogger

from .phase import Evaluation


class WandbLogger(LightningWandbLogger):
    """Writes below the run folder; `mode=offline` needs neither account nor network.

    Args:
        mode: online | offline (upload later with `wandb sync`).
        save_dir: the run folder; its name becomes the name and id of the W&B run, so that a resumed run goes on there.
    """

    def __init__(self, *, project: str, mode: str, save_dir: str) -> None:
        if mode not in ("online", "offline"):
            raise ValueError(f"logger.mode={mode} is unknown; use online or offline.")
        name = Path(save_dir).name
        super().__init__(
            project=project, name=name, id=name, save_dir=save_dir, offline=mode == "offline", resume="allow"
        )

    def log_evaluation(self, result: Evaluation) -> None:
        """Metrics under `test/`, pictures with their prompts, the histogram of codes."""
        import wandb

        values: dict[str, Any] = {f"test/{name}": row["value"] for name, row in result.metrics.items()}
        for name, images in result.tensors.items():
            captions = result.notes.get("prompts", []) if name == "samples" else []
            values[f"pictures/{name}"] = [
                wandb.Image(image.permute(1, 2, 0).numpy(), caption=captions[i] if i < len(captions) else None)
                for i, image in enumerate(images)
            ]
        histogram = result.notes.get("codes_histogram")
        if histogram:
            counts, edges = np.asarray(histogram, dtype=float), np.arange(len(histogram) + 1)
            groups = np.array_split(np.arange(len(counts)), min(len(counts), 512))  # W&B keeps at most 512 bins
            bins = np.array([counts[group].sum() for group in groups])
            starts = np.array([edges[group[0]] for group in groups] + [edges[-1]])
            values["pictures/codes"] = wandb.Histogram(np_histogram=(bins, starts))
        self.experiment.log(values)
        self.experiment.summary.update({name: value for name, value in values.items() if name.startswith("test/")})
        self.experiment.finish()
