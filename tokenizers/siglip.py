"""SigLIP's vision tower (Zhai et al. 2023, arXiv:2303.15343) as Janus reads it; the model class is transformers'."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .base import VisionEncoder, check_images
from .pretrained_tower import SHARED_FACTS, load_tower


class SigLIP(VisionEncoder):
    """All patch features after the last norm, in raster order; no pooling, no class token.

    Args:
        activation: "gelu" is the exact form that the Janus family uses; checkpoints by the SigLIP authors say
            "gelu_pytorch_tanh".
        pretrained: name on the Hugging Face hub or local folder of a SigLIP checkpoint (whole model or vision tower);
            null: random weights. Its sizes and activation must be the ones given here.
        pixel_mean, pixel_std: of the three colors in [0, 1]; one half, as SigLIP was trained, brings them to [-1, 1].

    Raises:
        ValueError: sizes that do not fit each other or the checkpoint; a checkpoint that cannot be read.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        hidden_size: int,
        num_layers: int,
        num_heads: int,
        mlp_size: int,
        activation: str = "gelu",
        pretrained: str | None = None,
        pixel_mean: Sequence[float] = (0.5, 0.5, 0.5),
        pixel_std: Sequence[float] = (0.5, 0.5, 0.5),
    ):
        super().__init__()
        from transformers import SiglipVisionConfig, SiglipVisionModel

        # What is left beside whole patches at the right and at the bottom is not read: 384 px are 27 patches of 14.
        if not 1 <= patch_size <= image_size or hidden_size % num_heads:
            raise ValueError(
                f"image_size={image_size} must hold patches of patch_size={patch_size} and hidden_size={hidden_size} "
                f"divide by num_heads={num_heads} (tokenizer)."
            )
        config = SiglipVisionConfig(
            image_size=image_size,
            patch_size=patch_size,
            hidden_size=hidden_size,
            num_hidden_layers=num_layers,
            num_attention_heads=num_heads,
            intermediate_size=mlp_size,
            hidden_act=activation,
            vision_use_head=False,
        )
        self.image_size = image_size
        self.feature_dim = hidden_size
        self.num_features = (image_size // patch_size) ** 2
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(name, torch.tensor(tuple(values)).reshape(3, 1, 1), persistent=False)
        self.tower: SiglipVisionModel = (
            SiglipVisionModel(config)
            if pretrained is None
            else load_tower(pretrained, config, SiglipVisionModel, kind="SigLIP", facts=SHARED_FACTS)
        )

    def features(self, images: Tensor) -> Tensor:
        check_images(images, self.image_size)
        return self.tower(pixel_values=self.normalize(images)).last_hidden_state

    def normalize(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> the pixel values that the tower reads."""
        return (images - self.pixel_mean) / self.pixel_std
