"""A light semantic encoder and decoder, in size and shape those of the small SigLIP and its pixel towers."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .base import VisionEncoder, check_images
from .cnn_light import LightEncoder, level
from .tokenflow import SemanticDecoder


class LightVisionEncoder(VisionEncoder):
    """One layer-normed feature per cell from a convolutional trunk, in raster order.

    Args:
        patch_size, widths, num_blocks: of the trunk, a `LightEncoder`.
    """

    def __init__(self, *, image_size: int, patch_size: int, widths: Sequence[int], num_blocks: Sequence[int]):
        super().__init__()
        self.trunk = LightEncoder(patch_size=patch_size, widths=widths, num_blocks=num_blocks)
        if image_size % self.trunk.stride:
            raise ValueError(
                f"image_size={image_size} does not divide into {self.trunk.stride}x{self.trunk.stride} cells "
                "(tokenizer.image_size)."
            )
        self.image_size = image_size
        self.feature_dim = self.trunk.out_channels
        self.num_features = (image_size // self.trunk.stride) ** 2
        self.norm = nn.LayerNorm(self.feature_dim)

    def features(self, images: Tensor) -> Tensor:
        check_images(images, self.image_size)
        return self.norm(self.trunk(images * 2 - 1).flatten(2).transpose(1, 2))

    @torch.no_grad()
    def start_from(self, encoder: "LightVisionEncoder") -> None:
        """Copy trunk and norm of a trained encoder of the same sizes, so that the features are equal.

        Raises:
            ValueError: a weight of one has no counterpart of its name and shape in the other.
        """
        own, given = self._weights(), encoder._weights()
        strangers = [name for name in own.keys() | given.keys() if not _alike(own.get(name), given.get(name))]
        if strangers:
            raise ValueError(
                f"the semantic encoder cannot start from this one: {', '.join(sorted(strangers)[:3])} differ; "
                "give both the same patch_size, widths and num_blocks (tokenizer.semantic_encoder)."
            )
        for name, weight in given.items():
            own[name].copy_(weight)

    def _weights(self) -> dict[str, Tensor]:
        return {name: w for name, w in self.state_dict().items() if name.startswith(("trunk.", "norm."))}


def _alike(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and one.shape == other.shape


class LightSemanticDecoder(SemanticDecoder):
    """Semantic codes (B, N, in_dim) -> (B, N, feature_dim): 1x1, residual blocks over the grid, 1x1.

    The blocks see neighboring codes, as the published decoder, a transformer, sees all of them.

    Args:
        feature_dim: width of the teacher's features.
        width, num_blocks: of the residual blocks; 0 blocks decode every code by itself.
    """

    def __init__(self, *, in_dim: int, feature_dim: int, width: int, num_blocks: int):
        super().__init__()
        self.feature_dim = feature_dim
        self.first = nn.Conv2d(in_dim, width, 1)
        self.blocks = level(width, num_blocks)
        self.act = nn.SiLU()
        self.last = nn.Conv2d(width, feature_dim, 1)

    def forward(self, codes: Tensor) -> Tensor:
        side = math.isqrt(codes.shape[1])
        x = codes.transpose(1, 2).unflatten(2, (side, side))  # (B, in_dim, h, w)
        x = self.last(self.act(self.blocks(self.first(x))))
        return x.flatten(2).transpose(1, 2)
