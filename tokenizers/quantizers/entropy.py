"""Losses that want every vector sure of its code and all codes in use."""

import torch
from torch import Tensor


def entropy_loss(distances: Tensor, temperature: float) -> Tensor:
    """mean_i H(p_i) - H(mean_i p_i) with p_i = softmax(-distances_i / temperature), in nats.

    Least where each vector has one code and all codes are chosen alike often (Chang et al. 2022, arXiv:2202.04200,
    and Yu et al. 2024, arXiv:2310.05737, eq. 5); with the guard of 1e-5 inside the second logarithm that LlamaGen's
    implementation has. `distances` is (N, K) squared distances, with gradients to whatever they came from.
    """
    logits = -distances.flatten(0, -2) / temperature  # (N, K)
    p = logits.softmax(-1)
    of_each = -(p * logits.log_softmax(-1)).sum(-1).mean()
    mean = p.mean(0)
    return of_each + (mean * torch.log(mean + 1e-5)).sum()
