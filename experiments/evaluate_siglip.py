"""Evaluation of a semantic encoder: does it pick an image's own caption among all captions?"""

from collections.abc import Callable

import torch
from omegaconf import DictConfig

from ..metrics.results import row
from ..tokenizers.siglip_small import SmallSigLIP
from .build import Data
from .evaluate_confusion import caption_confusion
from .phase import Evaluation

CANDIDATES_FROM = 4000  # training images whose captions stand among the candidates


@torch.inference_mode()
def evaluate_siglip(encoder: SmallSigLIP, data: Data, options: DictConfig, note: Callable[[str], None]) -> Evaluation:
    """`sem/retrieval`: share of test images whose own caption scores highest among all distinct captions.

    The candidates are the distinct captions of the test images and of the first training images: retrieval among
    held-out captions alone would hide attributes in which they hardly differ. `notes["confusion"]` says for data with a
    world which colours, shapes, ... the encoder mistakes for which.
    """
    result = Evaluation()
    count = min(int(options.num_images), len(data.test))
    captions, _ = data.test.annotations(range(count))
    seen, _ = data.train.annotations(range(min(len(data.train), CANDIDATES_FROM)))
    assert captions is not None
    assert seen is not None
    candidates = list(dict.fromkeys([*captions, *seen]))
    size = int(options.batch_size)
    device = next(encoder.parameters()).device
    texts = torch.cat([encoder.embed_captions(candidates[i : i + size]) for i in range(0, len(candidates), size)])
    chosen: list[str] = []
    for start in range(0, count, size):
        note(f"scoring captions for test images {start}/{count}")
        images = data.test.batch(range(start, min(start + size, count))).images.to(device)
        best = encoder.score(encoder.embed_images(images), texts).argmax(1)
        chosen += [candidates[i] for i in best.tolist()]
    hits = sum(own == picked for own, picked in zip(captions, chosen, strict=True))
    result.metrics["sem/retrieval"] = row(hits / count, count, candidates=len(candidates), floor=1 / len(candidates))
    confusion = caption_confusion(data.source.world, captions, chosen)
    if confusion:
        result.notes["confusion"] = confusion
    return result
