"""One encoder to read images and another tokenizer to write them (Janus, Wu et al. 2024, arXiv:2410.13848)."""

from torch import Tensor

from .base import Encoding, ImageTokenizer, VisionEncoder


class Decoupled(ImageTokenizer):
    """`features` come from `understanding`; everything else is `generation`. Both see the same images."""

    def __init__(self, understanding: VisionEncoder, generation: ImageTokenizer):
        super().__init__()
        if understanding.image_size != generation.image_size:
            raise ValueError(
                f"the understanding encoder reads {understanding.image_size} px images and the generation tokenizer "
                f"{generation.image_size} px; make their image_size equal (tokenizer.understanding, .generation)."
            )
        self.understanding = understanding
        self.generation = generation
        self.image_size = generation.image_size
        self.vocab_size = generation.vocab_size
        self.latent_dim = generation.latent_dim
        self.num_latents = generation.num_latents
        self.step_lengths = generation.step_lengths
        self.codes_per_position = generation.codes_per_position

    @property
    def min_tokens(self) -> int:
        return self.generation.min_tokens

    @property
    def feature_dim(self) -> int:
        return self.understanding.feature_dim

    @property
    def num_features(self) -> int:
        return self.understanding.num_features

    def encode(self, images: Tensor) -> Encoding:
        return self.generation.encode(images)

    def dequantize(self, ids: Tensor) -> Tensor:
        return self.generation.dequantize(ids)

    def decode(self, latents: Tensor) -> Tensor:
        return self.generation.decode(latents)

    def features(self, images: Tensor) -> Tensor:
        return self.understanding.features(images)

    def step_inputs(self, ids: Tensor) -> Tensor:
        return self.generation.step_inputs(ids)

    def set_step(self, step: int, total_steps: int) -> None:
        self.generation.set_step(step, total_steps)
