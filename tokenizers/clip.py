"""CLIP's vision tower (Radford et al. 2021, arXiv:2103.00020) from transformers' checkpoints, to teach or to read with.

`vit_clip.py` holds the same network for weights in the layout of OpenAI and TokenFlow; here the model class is
transformers', so that any CLIP on the hub loads by name.
"""

import torch
from torch import Tensor

from .base import VisionEncoder, check_images
from .pretrained_tower import SHARED_FACTS, load_tower
from .vit import patch_grid
from .vit_clip import MEAN, STD


class CLIP(VisionEncoder):
    """Patch features after the last norm, projected into CLIP's common space: what TokenFlow-B learns from CLIP.

    Raster order, without the class token. Images are clamped and normalized with CLIP's mean and deviation.

    Args:
        activation: "quick_gelu" for OpenAI's weights, "gelu" for most others.
        pretrained: name on the Hugging Face hub or local folder of a CLIP checkpoint; null: random weights. Its sizes
            and activation must be the ones given here.

    Raises:
        ValueError: sizes that do not fit each other or the checkpoint; a checkpoint that cannot be read.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        hidden_size: int,
        num_layers: int,
        num_heads: int,
        mlp_size: int,
        projection_dim: int,
        activation: str = "quick_gelu",
        pretrained: str | None = None,
    ):
        super().__init__()
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        if hidden_size % num_heads:
            raise ValueError(f"hidden_size={hidden_size} must divide by num_heads={num_heads} (tokenizer).")
        config = CLIPVisionConfig(
            image_size=image_size,
            patch_size=patch_size,
            hidden_size=hidden_size,
            num_hidden_layers=num_layers,
            num_attention_heads=num_heads,
            intermediate_size=mlp_size,
            projection_dim=projection_dim,
            hidden_act=activation,
        )
        self.image_size = image_size
        self.feature_dim = projection_dim
        self.num_features = patch_grid(image_size, patch_size) ** 2
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)
        facts = SHARED_FACTS | {"projection_dim": "projection_dim"}
        self.tower: CLIPVisionModelWithProjection = (
            CLIPVisionModelWithProjection(config)
            if pretrained is None
            else load_tower(pretrained, config, CLIPVisionModelWithProjection, kind="CLIP", facts=facts)
        )

    def features(self, images: Tensor) -> Tensor:
        check_images(images, self.image_size)
        pixels = (images.clamp(0, 1) - self.mean) / self.std
        tower = self.tower.vision_model
        patches = tower(pixel_values=pixels).last_hidden_state[:, 1:]  # before the last norm
        return self.tower.visual_projection(tower.post_layernorm(patches))
