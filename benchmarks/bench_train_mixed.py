"""A training step, forward and backward, on documents of mixed lengths: packed against padded; and the loss's memory.

Real tokens are counted: padding is work, and no token. "One vocabulary" is the same computation on both sides, so the
losses must agree. "Image head" is what tessella trains: images through an embedding and a classifier of their own.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from compare import Benchmark
from torch import Tensor, nn
from untrained import transformers_llama, unified

from tessella.unified.cross_entropy import linear_cross_entropy
from tessella.unified.sequence import Document, PackedBatch, Text, WriteImage, pack

PADDED = "transformers, padded, bf16 autocast"
PACKED = "tessella, packed, one vocabulary, bf16 autocast"
WITH_IMAGES = "tessella, packed, image head, bf16 autocast"


def main() -> int:
    bench = Benchmark("train_mixed", "Training step on mixed lengths", ("tessella", "torch", "transformers"))
    layers, dim, vocab, image_length = (2, 64, 600, 16) if bench.quick else (6, 256, 16384, 256)
    few, many = (4, 8) if bench.quick else (16, 32)
    generator = np.random.default_rng(0)

    def texts(count: int, least: int, most: int) -> list[int]:
        return generator.integers(least, most, count, endpoint=True).tolist()

    mixed = [(n, image_length if i % 2 else 0) for i, n in enumerate(texts(few, 16, 64))]
    text_to_image = [(n, image_length // 4) for n in texts(many, 16, 64)]
    for title, lengths, least in (
        ("half text, half text and image", mixed, 1.8),
        ("text and image", text_to_image, 1.4),
    ):
        race(bench, title, lengths, layers=layers, dim=dim, vocab=vocab, goal=least)
    loss_memory(bench, positions=256 if bench.quick else 4096, dim=64 if bench.quick else 512, vocab=vocab)
    return bench.finish()


def race(
    bench: Benchmark, title: str, lengths: Sequence[tuple[int, int]], *, layers: int, dim: int, vocab: int, goal: float
) -> None:
    """`lengths` are text tokens and image tokens of each document; every token but the first is predicted."""
    model = unified(
        layers=layers,
        dim=dim,
        heads=dim // 64,
        ffn_dim=dim * 11 // 4,
        text_vocab=vocab,
        codes=vocab,
        image_length=max(image for _, image in lengths),
    )
    peer = transformers_llama(model)
    generator = torch.Generator().manual_seed(0)
    plain = [torch.randint(vocab, (text + image,), generator=generator) for text, image in lengths]
    one_vocabulary = pack([[Text(ids.numpy(), loss=True)] for ids in plain])
    with_images = image_documents(plain, lengths)
    ids, labels, mask = padded(plain)

    def step(module: nn.Module, loss: Callable[[], Tensor], autocast: bool) -> float:
        module.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            value = loss()
        value.backward()
        return value.item()

    def theirs() -> Tensor:
        return peer(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss

    def ours(batch: PackedBatch) -> Tensor:
        losses = model(batch)
        return (losses.text * losses.num_text + losses.image * losses.num_image) / (losses.num_text + losses.num_image)

    contenders = {
        PADDED: lambda: step(peer, theirs, True),
        PACKED: lambda: step(model, lambda: ours(one_vocabulary), True),
        WITH_IMAGES: lambda: step(model, lambda: ours(with_images), True),
    }
    tokens = sum(map(len, plain))
    share = tokens / ids.numel()
    title = f"{title}: {len(plain)} documents, {tokens} tokens, {share:.0%} of the padded batch; {layers} x {dim}"
    rows = bench.race(title, contenders, work=tokens, unit="tokens", rounds=3)
    for name in (PACKED, WITH_IMAGES):
        bench.goal(
            f"{name.removesuffix(', bf16 autocast')} over padded", bench.ratio(rows, name, PADDED), at_least=goal
        )
    in_bf16 = abs(rows[PACKED].result - rows[PADDED].result) / rows[PADDED].result
    bench.check("losses in bf16", in_bf16 < 2e-3, f"relative difference {in_bf16:.1e}")
    exact, expected = step(model, lambda: ours(one_vocabulary), False), step(peer, theirs, False)
    difference = abs(exact - expected) / expected
    bench.check("losses in float32", difference < 1e-5, f"{exact:.6f}, relative difference {difference:.1e}")
    pairs = zip(model.llm.parameters(), peer.parameters(), strict=True)
    worst = max(float((a.grad - b.grad).norm() / b.grad.norm()) for a, b in pairs)
    bench.check("gradients in float32", worst < 1e-4, f"largest relative difference of a weight's {worst:.1e}")


def image_documents(plain: Sequence[Tensor], lengths: Sequence[tuple[int, int]]) -> PackedBatch:
    """The same documents with their last tokens as ids of an image."""
    documents: list[Document] = []
    images = []
    for ids, (text, image) in zip(plain, lengths, strict=True):
        words = Text(ids[:text].numpy(), loss=True)
        documents.append([words, WriteImage(len(images))] if image else [words])
        if image:
            images.append(ids[text:])
    return pack(documents, ids=torch.stack(images))


def padded(plain: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, labels and mask (documents, longest), padded at the end."""
    pad = partial(nn.utils.rnn.pad_sequence, batch_first=True)
    return pad(plain), pad(plain, padding_value=-100), pad([torch.ones_like(ids) for ids in plain])


def loss_memory(bench: Benchmark, positions: int, dim: int, vocab: int) -> None:
    """Classifier and cross-entropy alone, forward and backward, hidden states in bfloat16."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(positions, dim, generator=generator).bfloat16().requires_grad_()
    weight = (torch.randn(vocab, dim, generator=generator) * dim**-0.5).bfloat16().requires_grad_()
    targets = torch.randint(vocab, (positions,), generator=generator)

    def step(loss: Callable[[], Tensor]) -> float:
        hidden.grad = weight.grad = None
        value = loss()
        value.backward()
        return value.item()

    contenders = {
        "whole table of logits": lambda: step(lambda: F.cross_entropy(F.linear(hidden, weight).float(), targets)),
        "tessella": lambda: step(lambda: linear_cross_entropy(hidden, weight, targets)),
    }
    title = f"classifier and cross-entropy, {positions} positions, {dim} to {vocab}, bf16"
    rows = bench.race(title, contenders, work=positions, unit="tokens", rounds=3, memory_rounds=3)
    whole, ours = (row.peak_extra_bytes for row in rows.values())
    assert whole is not None
    assert ours is not None
    bench.goal("peak memory of tessella over the whole table's", ours / max(whole, 1), at_most=1 / 8)
    expected = rows["whole table of logits"].result
    difference = abs(rows["tessella"].result - expected) / expected
    bench.check("losses", difference < 1e-3, f"relative difference {difference:.1e}")


if __name__ == "__main__":
    sys.exit(main())
