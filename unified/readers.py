"""What the LLM sees of an image it reads. Configs: conf/reader.

Letters: R images read, M places of an image, F width of a feature, L ids of an image, D width of the LLM.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..tokenizers.base import ImageTokenizer
from .head_classifier import ClassifierHead


class ImageReader(nn.Module):
    """From what a tokenizer computes of an image to embeddings.

    `reads` names the output of the tokenizer that is read: `features`, or the `ids` that are also written.
    """

    reads: Literal["features", "ids"]

    def forward(self, seen: Tensor) -> Tensor:
        """Features (R, M, F) or ids (R, L) -> (R, M or L, D)."""
        raise NotImplementedError


class FeatureReader(ImageReader):
    """Linear, GELU, Linear (the aligner of Janus, arXiv 2410.13848), plus a learned vector for every place.

    Features are brought to unit mean square first: unit-norm codes of a VQ and layer-normed patches of a SigLIP differ
    several times in scale, and the smaller ones would be learned later for no merit of the other.

    The place table starts at standard deviation 0.2, not the usual 0.02: features of one image may know nothing about
    their place, and with a small table the LLM finds it late.

    Args:
        tokenizer: read for the number and the width of its features.
        head: not needed by this reader.
        hidden_dim: D.
    """

    reads = "features"

    def __init__(self, *, tokenizer: ImageTokenizer, head: nn.Module, hidden_dim: int):
        super().__init__()
        self.first = nn.Linear(tokenizer.feature_dim, hidden_dim)
        self.second = nn.Linear(hidden_dim, hidden_dim)
        self.place_embedding = nn.Embedding(tokenizer.num_features, hidden_dim)
        nn.init.normal_(self.place_embedding.weight, std=0.2)

    def forward(self, seen: Tensor) -> Tensor:
        seen = F.rms_norm(seen, seen.shape[-1:])
        return self.second(F.gelu(self.first(seen))) + self.place_embedding.weight


class IdReader(ImageReader):
    """The ids of an image, embedded as the head embeds what it writes (Chameleon, arXiv 2405.09818; Emu3, 2409.18869).

    No weights of its own: what writing teaches about the codes helps reading them, and the other way round.

    Args:
        tokenizer: its ids are read; it must have some.
        head: embeds them.
        hidden_dim: not needed by this reader.
    """

    reads = "ids"

    def __init__(self, *, tokenizer: ImageTokenizer, head: ClassifierHead, hidden_dim: int):
        super().__init__()
        self._head = (head,)  # a tuple keeps the head's weights from being listed twice

    def forward(self, seen: Tensor) -> Tensor:
        return self._head[0].inputs(seen)


def what_is_read(tokenizer: ImageTokenizer, reader: ImageReader, images: Tensor) -> Tensor:
    """What `reader` takes of images (B, 3, H, W) in [0, 1]: features (B, M, F) or ids (B, L)."""
    with torch.no_grad():
        if reader.reads == "features":
            return tokenizer.features(images)
        ids = tokenizer.encode(images).ids
    assert ids is not None
    return ids
