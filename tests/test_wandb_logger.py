"""The W&B logger works offline and keeps metrics, pictures and the code histogram."""

import torch

from tessella.experiments.phase import Evaluation


def test_offline_run_holds_metrics_pictures_and_histogram(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    from tessella.experiments.wandb_logger import WandbLogger

    folder = tmp_path / "tokenizer-0123"
    folder.mkdir()
    logger = WandbLogger(project="tessella", mode="offline", save_dir=str(folder))
    logger.log_metrics({"train/loss": 1.0}, step=1)
    logger.log_evaluation(
        Evaluation(
            metrics={"rec/psnr": {"value": 30.0, "n": 2}},
            tensors={"samples": torch.arange(2 * 3 * 64, dtype=torch.uint8).view(2, 3, 8, 8)},
            notes={"prompts": ["a", "b"], "codes_histogram": list(range(1000))},
        )
    )
    pictures = list(folder.rglob("*.png"))
    assert len(pictures) == 2
    binary = next(folder.rglob("*.wandb")).read_bytes()
    assert b"test/rec/psnr" in binary
    assert b"pictures/codes" in binary
