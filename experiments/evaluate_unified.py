"""Evaluation of a unified model: images for held-out captions, answers about held-out images."""

from collections.abc import Callable
from pathlib import Path

import torch
from omegaconf import DictConfig

from ..data.base import ImageDataset, Question
from ..metrics.images import to_uint8
from ..metrics.understanding import MajorityFloor, answer_accuracy, caption_bits_per_byte
from ..unified.generate import answer, caption_nll, write_images
from ..unified.model import UnifiedModel
from ..unified.tasks import TaskMixture
from .build import Data, build_sampling
from .evaluate_distances import add_distances
from .evaluate_oracle import add_oracle
from .evaluate_prefixes import add_short_oracle, short_length
from .phase import Evaluation
from .token_store import cached_precision

FLOOR_QUESTIONS_FROM = 4000  # training images whose answers give the majority floor


@torch.inference_mode()
def evaluate_unified(
    model: UnifiedModel,
    mixture: TaskMixture,
    data: Data,
    options: DictConfig,
    cache: Path,
    note: Callable[[str], None],
) -> Evaluation:
    """Generation from the distinct test captions, and understanding of the first `options.num_images` test images."""
    result = Evaluation()
    writes, captions, answers = (share > 0 for share in mixture.shares)
    if writes:
        _generation(result, model, data, options, cache, note)
    else:
        result.absent["gen/oracle/all"] = "the training mixture writes no images (text_to_image is 0)"
    _understanding(result, model, data, options, note, captions=captions, answers=answers)
    return result


def _generation(
    result: Evaluation, model: UnifiedModel, data: Data, options: DictConfig, cache: Path, note: Callable[[str], None]
) -> None:
    wanted = options.generation
    rows, prompts = _prompts(data.test, int(wanted.num_images), repeat=wanted.temperature > 0)
    seeds = [int(wanted.seed) + i for i in range(len(prompts))]
    size = int(options.batch_size)
    short = short_length(model.tokenizer)
    images, short_images = [], []
    for start in range(0, len(prompts), size):
        note(f"drawing images {start}/{len(prompts)}")
        part = slice(start, start + size)
        ids = write_images(model, prompts[part], seeds=seeds[part], sampling=build_sampling(wanted))
        images.append(to_uint8(model.tokenizer.decode(model.tokenizer.dequantize(ids))).cpu())
        if short is not None:
            short_images.append(to_uint8(model.tokenizer.decode(model.tokenizer.dequantize(ids[:, :short]))).cpu())
    samples = torch.cat(images)
    verdicts = add_oracle(result, "gen/oracle", samples, prompts, rows, data.source, data.test, note)
    if short is not None:
        add_short_oracle(result, "gen/oracle", short, torch.cat(short_images), prompts, rows, data, note)
    if options.distances:
        count = min(int(options.num_images), len(data.test))
        add_distances(result, "gen", samples, data.test, count, cache, note, size, next(model.parameters()).device)
    else:
        result.absent["gen/kd_efflite0"] = "switched off (evaluation.distances=false)"
    sampling = (
        f"guidance {wanted.cfg_scale:g}, temperature {wanted.temperature:g}, top-k {wanted.top_k}, top-p {wanted.top_p}"
    )
    for name, row in result.metrics.items():
        if name.startswith("gen/"):
            row["sampling"] = sampling  # numbers of unlike sampling must not share a column
    kept = int(options.pictures)
    result.tensors["samples"] = samples[:kept].contiguous()
    result.notes |= {"prompts": prompts[:kept], "sample_verdicts": list(verdicts[:kept])}


def _prompts(test: ImageDataset, count: int, *, repeat: bool) -> tuple[list[int], list[str]]:
    """Distinct test captions in order of first use and the examples they come from.

    They are drawn more than once only when sampling can differ.
    """
    captions, _ = test.annotations(range(len(test)))
    assert captions is not None
    first: dict[str, int] = {}
    for row, caption in enumerate(captions):
        first.setdefault(caption, row)
    distinct = list(first)
    prompts = [distinct[i % len(distinct)] for i in range(count)] if repeat else distinct[:count]
    return [first[prompt] for prompt in prompts], prompts


def _understanding(
    result: Evaluation,
    model: UnifiedModel,
    data: Data,
    options: DictConfig,
    note: Callable[[str], None],
    *,
    captions: bool,
    answers: bool,
) -> None:
    count, size, kept = min(int(options.num_images), len(data.test)), int(options.batch_size), int(options.pictures)
    device = next(model.parameters()).device
    asked: list[tuple[int, Question, str]] = []  # image, question, what the model says
    pictures, nats, captioned = [], 0.0, []
    for start in range(0, count, size):
        note(f"asking about test images {start}/{count}")
        batch = data.test.batch(range(start, min(start + size, count)))
        features = cached_precision(model.read(batch.images.to(device)))
        if captions and batch.captions:
            nats += float(caption_nll(model, features, batch.captions).sum())
            captioned += batch.captions
        groups = batch.questions if answers else [()] * len(batch.questions)
        replies = answer(model, features, [[question.text for question in group] for group in groups])
        for i, (group, said) in enumerate(zip(groups, replies, strict=True)):
            asked += [(start + i, question, text) for question, text in zip(group, said, strict=True)]
        pictures.append(to_uint8(batch.images[: max(0, kept - start)]).cpu())
    if captioned:
        result.metrics["und/caption_bits_per_byte"] = caption_bits_per_byte(nats, captioned)
    else:
        result.absent["und/caption_bits_per_byte"] = "the training mixture has no captioning"
    if asked:
        result.metrics |= answer_accuracy(
            [question.kind for _, question, _ in asked],
            [question.answer for _, question, _ in asked],
            [text for _, _, text in asked],
            _floor(data.train),
        )
    else:
        none = f"{data.test.name} has no questions with known answers"
        result.absent["und/accuracy"] = (
            none if answers or not data.test.has_questions else "the training mixture has none"
        )
    result.tensors["questioned"] = torch.cat(pictures).contiguous()
    result.notes["questions"] = [
        {"image": image, "kind": question.kind, "text": question.text, "answer": question.answer, "predicted": text}
        for image, question, text in asked
        if image < kept
    ]


def _floor(train: ImageDataset) -> MajorityFloor:
    _, groups = train.annotations(range(min(len(train), FLOOR_QUESTIONS_FROM)))
    questions = [question for group in groups for question in group]
    return MajorityFloor([question.kind for question in questions], [question.answer for question in questions])
