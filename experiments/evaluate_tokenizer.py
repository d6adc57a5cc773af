"""Evaluation of a tokenizer: what comes back of the test images, and how it uses its codes."""

from collections.abc import Callable
from pathlib import Path

import torch
from omegaconf import DictConfig

from ..metrics.codebook import CodebookUsage
from ..metrics.images import to_uint8
from ..metrics.perceptual import LPIPS, absent_perceptual
from ..metrics.reconstruction import ReconstructionMetrics
from ..metrics.semantic import FeatureAgreement
from ..tokenizers.base import ImageTokenizer
from .build import Data
from .distillation import Distillation
from .evaluate_contributions import add_contributions
from .evaluate_distances import add_distances
from .evaluate_oracle import add_oracle
from .evaluate_prefixes import PrefixReconstructions
from .evaluate_shared_codes import SharedCodes
from .phase import Evaluation


@torch.inference_mode()
def evaluate_tokenizer(
    tokenizer: ImageTokenizer,
    data: Data,
    options: DictConfig,
    cache: Path,
    note: Callable[[str], None],
    distillation: Distillation | None = None,
) -> Evaluation:
    """Reconstruction, codebook, oracle and distances on the first `options.num_images` test images, in float32.

    A tokenizer with a teacher is compared with it too.
    """
    result = Evaluation(absent=absent_perceptual())
    count = min(int(options.num_images), len(data.test))
    device = next(tokenizer.parameters()).device
    pixels = ReconstructionMetrics()
    perceptual = None if result.absent else LPIPS(device)
    usage = CodebookUsage(tokenizer.vocab_size, tokenizer.num_tokens) if tokenizer.vocab_size else None
    prefixes = PrefixReconstructions(tokenizer)
    shared = SharedCodes(tokenizer)
    first_ids: torch.Tensor | None = None
    agreement = FeatureAgreement()
    reconstructions, originals, captions = [], [], []
    for start in range(0, count, int(options.batch_size)):
        note(f"reconstructing test images {start}/{count}")
        batch = data.test.batch(range(start, min(start + int(options.batch_size), count)))
        images = batch.images.to(device)
        encoding = tokenizer.encode(images)
        back = tokenizer.decode(encoding.latents).float()
        pixels.update(images, back)
        if perceptual is not None:
            perceptual.update(images, back)
        if usage is not None and encoding.ids is not None:
            usage.update(encoding.ids)
            prefixes.update(images, encoding.ids)
            shared.update(images, encoding.ids)
            first_ids = encoding.ids if first_ids is None else first_ids
        if distillation is not None:
            agreement.update(distillation.decoded(encoding.latents), distillation.targets(images))
        originals.append(to_uint8(images[: max(0, int(options.pictures) - start)]).cpu())
        reconstructions.append(to_uint8(back).cpu())
        captions += batch.captions or []
    back = torch.cat(reconstructions)
    result.metrics |= pixels.rows() | (perceptual.rows() if perceptual is not None else {})
    if usage is not None:
        result.metrics |= usage.rows()
        result.notes["codes_histogram"] = usage.counts.tolist()
    else:
        result.absent["codebook/usage"] = "the tokenizer has continuous latents and no codes"
    if distillation is not None:
        result.metrics |= agreement.rows()
    if captions:
        add_oracle(result, "rec/oracle", back, captions, range(count), data.source, data.test, note)
    if options.distances:
        add_distances(result, "rec", back, data.test, count, cache, note, int(options.batch_size), device)
    else:
        result.absent["rec/kd_efflite0"] = "switched off (evaluation.distances=false)"
    kept = int(options.pictures)
    result.tensors = {"originals": torch.cat(originals).contiguous(), "reconstructions": back[:kept].contiguous()}
    prefixes.add_to(result, captions, data, note)
    shared.add_to(result, data.test)
    if first_ids is not None:
        add_contributions(result, tokenizer, first_ids, int(options.batch_size), note)
    result.notes["captions"] = captions[:kept]
    return result
