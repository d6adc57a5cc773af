"""SigLIP's patch features from before its last layers."""

from torch import Tensor, nn

from .siglip import SigLIP


class SigLIPHidden(SigLIP):
    """The features that enter the last layers of SigLIP, without its last norm; those layers are not built.

    TokenFlow's semantic encoder and its teacher at 384 px are all but the last layer of the so400m tower. Images are
    clamped to [0, 1] as there.

    Args:
        num_layers: of the whole tower, as published.
        skipped_layers: of these, the last ones that are left out.
        others: as in `SigLIP`.
    """

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        hidden_size: int,
        num_layers: int,
        num_heads: int,
        mlp_size: int,
        skipped_layers: int = 1,
        activation: str = "gelu_pytorch_tanh",
        pretrained: str | None = None,
    ):
        if not 0 <= skipped_layers <= num_layers:
            raise ValueError(
                f"skipped_layers={skipped_layers} cannot be left out of num_layers={num_layers} (semantic_encoder)."
            )
        super().__init__(
            image_size=image_size,
            patch_size=patch_size,
            hidden_size=hidden_size,
            num_layers=num_layers,
            num_heads=num_heads,
            mlp_size=mlp_size,
            activation=activation,
            pretrained=pretrained,
        )
        self.skipped_layers = skipped_layers
        self.num_layers = num_layers - skipped_layers  # those that run
        self.tower.encoder.layers = self.tower.encoder.layers[: self.num_layers]
        self.tower.config.num_hidden_layers = self.num_layers
        self.tower.add_module("post_layernorm", nn.Identity())

    def normalize(self, images: Tensor) -> Tensor:
        return super().normalize(images.clamp(0, 1))
