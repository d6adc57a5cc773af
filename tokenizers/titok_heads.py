"""What TiTok's decoder makes of its grid of patches: pixels, logits of a proxy's codes, or an image through the proxy.

Every head takes (B, width, g, g) and is built from (width, patch_size) by `TiTokDecoder`.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .vit import reset_linear
from .vq import ConvDecoder


class PixelHead(nn.Module):
    """Each cell becomes its patch of pixels, and a 3x3 convolution smooths the seams (single-stage TiTok).

    (B, width, g, g) -> (B, 3, g * patch_size, g * patch_size).
    """

    def __init__(self, width: int, patch_size: int):
        super().__init__()
        self.patch_size = patch_size
        self.to_patches = nn.Conv2d(width, patch_size**2 * 3, 1)  # channels: row in patch, column in patch, color
        self.smooth = nn.Conv2d(3, 3, 3, padding=1)
        self.apply(reset_linear)

    def forward(self, grid: Tensor) -> Tensor:
        patches = self.to_patches(grid).unflatten(1, (self.patch_size, self.patch_size, 3))  # (B, p, p, 3, g, g)
        return self.smooth(patches.permute(0, 3, 4, 1, 5, 2).flatten(4, 5).flatten(2, 3))


class ProxyHead(nn.Module):
    """Logits of the proxy tokenizer's codes: (B, width, g, g) -> (B, num_codes, g, g).

    Args:
        patch_size: pixels along one side of a cell; the proxy has to have cells of the same size.
    """

    def __init__(self, width: int, patch_size: int, *, num_codes: int):
        super().__init__()
        self.patch_size = patch_size
        self.num_codes = num_codes
        self.layers = nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.Tanh(), nn.Conv2d(2 * width, num_codes, 1))
        self.apply(reset_linear)

    def forward(self, grid: Tensor) -> Tensor:
        return self.layers(grid)


class MixtureHead(nn.Module):
    """The proxy's codes, mixed as their logits say, rendered by the proxy's decoder (second stage of TiTok).

    (B, width, g, g) -> (B, 3, H, W). The mixture is soft, a softmax at temperature 1, in training and after it.

    Args:
        num_codes: of the proxy.
        renderer: the proxy's decoder, trained further here.
        pixel_range: what the renderer gives for black and white: MaskGIT-VQGAN's (0, 1), the others' (-1, 1).
    """

    def __init__(
        self,
        width: int,
        patch_size: int,
        *,
        num_codes: int,
        renderer: ConvDecoder,
        pixel_range: Sequence[float] = (0, 1),
    ):
        super().__init__()
        if renderer.stride != patch_size:
            raise ValueError(
                f"the renderer makes {renderer.stride} pixels of a cell along one side and the patches are "
                f"{patch_size} wide; make them equal (decoder.patch_size, decoder.head.renderer)."
            )
        self.logits = ProxyHead(width, patch_size, num_codes=num_codes)
        self.codebook = nn.Parameter(
            torch.empty(num_codes, renderer.in_channels).uniform_(-1 / num_codes, 1 / num_codes)
        )
        self.renderer = renderer
        self.black, self.white = pixel_range

    def forward(self, grid: Tensor) -> Tensor:
        return (self.renderer(self.mix(self.logits(grid))) - self.black) / (self.white - self.black)

    def mix(self, logits: Tensor) -> Tensor:
        """(B, num_codes, g, g) -> (B, C, g, g): the mean code of each cell."""
        shares = logits.softmax(1).movedim(1, -1)  # (B, g, g, K)
        return F.linear(shares, self.codebook.T).movedim(-1, 1)
