"""The Inception network of FID, only when its weights file is already on the machine."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from .extractors import FeatureExtractor, Purpose
from .weight_files import checkpoint_path, missing_checkpoint

_WEIGHTS_FILE = "weights-inception-2015-12-05-6726825d.pth"


class InceptionFID(FeatureExtractor):
    """The 2048 pool3 features of the TensorFlow Inception of 2015-12-05, as torch-fidelity ports it.

    Its distances are the ones called rFID, gFID and KID; they need the very resize and weights of that port.
    """

    name = "inception"
    feature_dim = 2048
    protocol = "FID Inception (torch-fidelity port) pool3 features; 8-bit pixels, TensorFlow 1 bilinear to 299 px"

    @classmethod
    def unavailable(cls) -> str | None:
        if find_spec("torch_fidelity") is None:
            return "the Python package torch_fidelity is not installed (pip install torch-fidelity)"
        return missing_checkpoint(_WEIGHTS_FILE)

    @staticmethod
    def distance_names(purpose: Purpose) -> tuple[str, str]:
        return {"rec": ("rec/rfid", "rec/kid"), "gen": ("gen/gfid", "gen/kid")}[purpose]

    @classmethod
    def _weights_path(cls) -> Path:
        return checkpoint_path(_WEIGHTS_FILE)

    def _build(self, weights: Path) -> nn.Module:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(weights))
        fold_batch_norms(network)
        return _Pool3(network)


def fold_batch_norms(network: nn.Module) -> None:
    """Folds each `bn` into the `conv` beside it, in place; the network must be in eval mode."""
    for module in network.modules():
        conv, norm = getattr(module, "conv", None), getattr(module, "bn", None)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(conv, norm)
            module.bn = nn.Identity()


class _Pool3(nn.Module):
    """Unwraps the one feature the network was asked for."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(pixels)[0]
