"""Images written, questions answered and captions scored by a unified model.

Letters: B images, L ids of an image, M features of an image, F their width.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .decoder import CachedDecoder
from .decoder_llama import make_decoder
from .model import UnifiedModel
from .sampling import Sampling, draw, guide, image_noise
from .sequence import Text, pack

Progress = Callable[[int, int], None]  # ids written so far for each image, ids in all


@torch.no_grad()
def write_images(
    model: UnifiedModel,
    captions: Sequence[str | None],
    *,
    seeds: Sequence[int],
    sampling: Sampling,
    dtype: torch.dtype | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """The ids (B, L) of one image for each caption; an image depends on its caption and seed, not on its batch.

    With guidance the conditional rows [0:B] and the unconditional rows [B:2B] run as one batch.

    Args:
        captions: None is an image without a caption.
        seeds: one for each image; not used at temperature 0.
        dtype: type of the LLM's products; None is that of its weights.
        progress: called after every step.

    Raises:
        ValueError: not one seed for each caption.
    """
    if len(seeds) != len(captions):
        raise ValueError(f"{len(captions)} captions came with {len(seeds)} seeds; give one for each.")
    count = len(captions)
    guided = sampling.guidance != 1
    prompts = [_ids(model.layout.image_prompt(caption)) for caption in captions]
    if guided:
        prompts += [_ids(model.layout.image_prompt(None))] * count
    length = model.head.num_tokens
    decoder = make_decoder(model.llm, rows=len(prompts), capacity=max(map(len, prompts)) + length - 1, dtype=dtype)
    hidden = _read(model, decoder, prompts)
    noise = iter(image_noise(seeds, length, hidden.device).unbind(1)) if sampling.temperature > 0 else None

    def choose(logits: Tensor) -> Tensor:
        logits = logits.float()
        if guided:
            logits = guide(logits[:count], logits[count:], sampling.guidance)
        ids = draw(logits, sampling, None if noise is None else next(noise))
        return ids.repeat(2) if guided else ids

    return model.head.generate(hidden, decoder.extend, choose, progress)[:count]


@torch.no_grad()
def answer(
    model: UnifiedModel,
    features: Tensor,
    questions: Sequence[Sequence[str]],
    *,
    max_tokens: int = 16,
    rows: int = 256,
    dtype: torch.dtype | None = None,
) -> list[list[str]]:
    """Answers to the questions of each image, greedy, every question asked alone.

    The image is read once for all of its questions.

    Args:
        features: (B, M, F), or ids where the model reads ids: `model.read(images)`.
        questions: B lists of any length.
        max_tokens: an answer without an end is cut here.
        rows: questions decoded side by side, which bounds the memory.

    Raises:
        ValueError: not one list of questions for each image, or an empty question.
    """
    if len(questions) != len(features):
        raise ValueError(f"{len(features)} images came with {len(questions)} lists of questions; give one for each.")
    answers: list[list[str]] = []
    first = 0
    while first < len(questions):
        last = first + 1
        while last < len(questions) and sum(map(len, questions[first : last + 1])) <= rows:
            last += 1
        answers += _answer(model, features[first:last], questions[first:last], max_tokens, dtype)
        first = last
    return answers


def _answer(
    model: UnifiedModel,
    features: Tensor,
    questions: Sequence[Sequence[str]],
    max_tokens: int,
    dtype: torch.dtype | None,
) -> list[list[str]]:
    asked = [_ids(model.layout.question(text)) for texts in questions for text in texts]
    if not asked:
        return [[] for _ in questions]
    if not all(map(len, asked)):
        raise ValueError("a question is empty; ask something.")
    begin, _, end = model.layout.read_prompt(0)
    assert isinstance(begin, Text), begin
    assert isinstance(end, Text), end
    device = features.device
    image = model.adapter(features)
    before, after = (
        model.embed_text(torch.from_numpy(part.ids).to(device)).expand(len(features), -1, -1) for part in (begin, end)
    )
    prefix = torch.cat([before, image, after], 1)
    capacity = prefix.shape[1] + max(map(len, asked)) + max_tokens - 1
    decoder = make_decoder(model.llm, rows=len(features), capacity=capacity, dtype=dtype)
    decoder.extend(prefix)
    sizes = torch.tensor([len(texts) for texts in questions], device=device)
    decoder.select(torch.arange(len(features), device=device).repeat_interleave(sizes))
    hidden = _read(model, decoder, asked)

    weight = model.text_weight.to(hidden.dtype)
    eos = model.vocabulary.eos
    written = torch.full((len(asked), max_tokens), eos, device=device)
    done = torch.zeros(len(asked), dtype=torch.bool, device=device)
    for step in range(max_tokens):
        ids = F.linear(hidden, weight)[:, : model.vocabulary.text_size].argmax(-1)
        written[:, step] = ids.masked_fill(done, eos)
        done |= ids == eos
        if step + 1 == max_tokens or bool(done.all()):
            break
        hidden = decoder.extend(model.embed_text(ids)[:, None])[:, 0]
    rows = written.tolist()
    texts = iter(model.vocabulary.text.decode(row[: row.index(eos)] if eos in row else row) for row in rows)
    return [[next(texts) for _ in texts_of_image] for texts_of_image in questions]


@torch.no_grad()
def caption_nll(model: UnifiedModel, features: Tensor, captions: Sequence[str], *, images: int = 64) -> Tensor:
    """Negative log-likelihood in nats of each caption and its end, given the image: (B,).

    Divided by ln 2 and the bytes of the caption in UTF-8 it is bits per byte, which compares text vocabularies.

    Args:
        features: (B, M, F), or ids where the model reads ids: `model.read(images)`.
        images: captions scored side by side, which bounds the memory.
    """
    if len(captions) != len(features):
        raise ValueError(f"{len(features)} images came with {len(captions)} captions; give one for each.")
    totals = []
    for first in range(0, len(captions), images):
        part = captions[first : first + images]
        documents = [model.layout.captioning(caption, i) for i, caption in enumerate(part)]
        batch = pack(documents, features=features[first : first + images])
        batch = batch.to(features.device)
        logits = F.linear(model.hidden(batch, batch.text_at), model.text_weight).float()
        nats = F.cross_entropy(logits, batch.text_targets, reduction="none")
        lengths = torch.tensor([len(_ids(document[3:])) for document in documents], device=nats.device)
        owner = torch.arange(len(part), device=nats.device).repeat_interleave(lengths)
        totals.append(nats.new_zeros(len(part)).index_add_(0, owner, nats))
    return torch.cat(totals)


def _ids(segments: Sequence[object]) -> np.ndarray:
    parts = [segment.ids for segment in segments if isinstance(segment, Text)]
    return np.concatenate(parts)


def _read(model: UnifiedModel, decoder: CachedDecoder, texts: Sequence[np.ndarray]) -> Tensor:
    """Feed one text to each row; the hidden state after its last token, (R, D)."""
    lengths = torch.tensor([len(ids) for ids in texts])
    padded = torch.full((len(texts), int(lengths.max())), model.vocabulary.pad)
    valid = torch.arange(padded.shape[1]) < lengths[:, None]
    padded[valid] = torch.from_numpy(np.concatenate(texts))
    every = bool(valid.all())
    device = decoder.device
    hidden = decoder.extend(model.embed_text(padded.to(device)), None if every else valid.to(device))
    return hidden[torch.arange(len(texts), device=device), lengths.to(device) - 1]
