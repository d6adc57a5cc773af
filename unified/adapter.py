"""From the features of an image to what the LLM reads."""

import torch.nn.functional as F
from torch import Tensor, nn


class FeatureAdapter(nn.Module):
    """Linear, GELU, Linear (the aligner of Janus, arXiv 2410.13848), plus a learned vector for every place.

    Features are brought to unit mean square first: unit-norm codes of a VQ and layer-normed patches of a SigLIP differ
    several times in scale, and the smaller ones would be learned later for no merit of the other.

    The place table starts at standard deviation 0.2, not the usual 0.02: features of one image may know nothing about
    their place, and with a small table the LLM finds it late.

    Args:
        feature_dim: width of the features.
        num_features: features per image, M.
        hidden_dim: width of the LLM.
    """

    def __init__(self, *, feature_dim: int, num_features: int, hidden_dim: int):
        super().__init__()
        self.first = nn.Linear(feature_dim, hidden_dim)
        self.second = nn.Linear(hidden_dim, hidden_dim)
        self.place_embedding = nn.Embedding(num_features, hidden_dim)
        nn.init.normal_(self.place_embedding.weight, std=0.2)

    def forward(self, features: Tensor) -> Tensor:
        """(R, M, F) -> (R, M, D)."""
        features = F.rms_norm(features, features.shape[-1:])
        return self.second(F.gelu(self.first(features))) + self.place_embedding.weight
