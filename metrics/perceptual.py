"""LPIPS, only when the weights of its backbone are already on the machine."""

from __future__ import annotations

import warnings
from importlib.util import find_spec

import torch
from torch import Tensor

from .images import check_images
from .precision import full_float32
from .results import Absent, Rows, row
from .weight_files import checkpoint_path, missing_checkpoint

_BACKBONE_FILE = "alexnet-owt-7be5be79.pth"
_SMALLEST = 32  # AlexNet's pooling leaves nothing of smaller images


class LPIPS:
    """Learned perceptual distance (Zhang et al. 2018), version 0.1 with AlexNet: the variant papers evaluate with.

    The linear heads come with the package `lpips`; the AlexNet backbone is torchvision's file in the hub folder.

    Raises:
        ValueError: on construction, with the reason, when `unavailable` gives one.
    """

    protocol = "lpips 0.1, AlexNet, images at their own size"

    def __init__(self, device: torch.device | str = "cpu") -> None:
        reason = self.unavailable()
        if reason is not None:
            raise ValueError(f"lpips: {reason}.")
        import lpips

        # The package would call a downloader; its own random backbone is filled from the file instead, strictly.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the package uses a deprecated argument of torchvision
            network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
        weights = torch.load(checkpoint_path(_BACKBONE_FILE), map_location="cpu", weights_only=True)
        # slice2.3.weight in the package is features.3.weight in torchvision's file.
        backbone = {key: weights["features." + key.split(".", 1)[1]] for key in network.net.state_dict()}
        network.net.load_state_dict(backbone)
        self._network = network.requires_grad_(False).eval().to(device)
        self._device = torch.device(device)
        self._n = 0
        self._total = 0.0

    @classmethod
    def unavailable(cls) -> str | None:
        """Why LPIPS cannot run here, naming file and folder; None when it can."""
        if find_spec("lpips") is None:
            return "the Python package lpips is not installed (pip install lpips)"
        return missing_checkpoint(_BACKBONE_FILE)

    @torch.no_grad()
    def __call__(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        """Distance of each pair, (B,), from (B, 3, H, W) in [0, 1]; reconstructions are clamped to it."""
        for name, batch in (("images", images), ("reconstructions", reconstructions)):
            check_images(batch, name)
        if images.shape != reconstructions.shape or min(images.shape[-2:]) < _SMALLEST:
            raise ValueError(
                f"LPIPS got images {tuple(images.shape)} and reconstructions {tuple(reconstructions.shape)}; "
                f"one shape for both, at least {_SMALLEST}x{_SMALLEST} pixels, is needed (tokenizer.image_size)."
            )
        with full_float32(self._device.type):
            pair = [batch.to(self._device).float().clamp(0, 1) for batch in (images, reconstructions)]
            return self._network(*pair, normalize=True).flatten()

    def update(self, images: Tensor, reconstructions: Tensor) -> None:
        """Adds a batch to the running mean of `rows`."""
        self._total += self(images, reconstructions).sum().item()
        self._n += len(images)

    def rows(self) -> Rows:
        if self._n == 0:
            raise ValueError("no image was scored; LPIPS needs at least one (is the split empty?).")
        return {"rec/lpips": row(self._total / self._n, self._n, protocol=self.protocol)}


def absent_perceptual() -> Absent:
    """`rec/lpips` with its reason when it cannot run here: ask before a run starts."""
    reason = LPIPS.unavailable()
    return {} if reason is None else {"rec/lpips": reason}
