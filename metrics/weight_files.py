"""Where weights of foreign networks lie, whether they are there and whether they are whole. Nothing is ever fetched."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch


def checkpoint_path(file_name: str) -> Path:
    """The place of a file in torch's hub folder: `$TORCH_HOME/hub/checkpoints/<file_name>`."""
    return Path(torch.hub.get_dir()) / "checkpoints" / file_name


def missing_checkpoint(file_name: str) -> str | None:
    """Why a hub file cannot be used (absent or damaged), naming file and folder; None when it can."""
    path = checkpoint_path(file_name)
    if not path.is_file():
        return (
            f"weights file {file_name} is not in {path.parent} "
            "(fetch it on a machine with network access, copy it there, or point TORCH_HOME elsewhere)"
        )
    return damage(path)


def damage(path: Path) -> str | None:
    """Why a file is not the one its name promises: torch hub names end in the first 8 hex digits of their SHA-256."""
    promised = path.stem.rsplit("-", 1)[-1]
    digest = file_hash(path)
    if digest.startswith(promised):
        return None
    return (
        f"weights file {path.name} in {path.parent} is damaged: SHA-256 starts {digest[:8]}, its name says {promised}"
    )


def file_hash(path: Path) -> str:
    """SHA-256 of a file as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
