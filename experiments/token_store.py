"""What a frozen tokenizer computes for the LLM, once per data set, on disk beside the runs that use it."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data.base import ImageDataset
from ..data.cache import TokenCache
from ..tokenizers.base import ImageTokenizer
from .runs import code_digest, digest

BATCH = 64


def weights_hash(module: nn.Module) -> str:
    """sha256 over names, shapes and values of a module's weights and buffers."""
    sha = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        value = tensor.detach().cpu().contiguous()
        sha.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        sha.update(value.flatten().view(torch.uint8).numpy())
    return sha.hexdigest()


@torch.inference_mode()
def encode_batches(
    tokenizer: ImageTokenizer, data: ImageDataset, parts: tuple[str, ...], note: Callable[[str], None]
) -> Iterator[dict[str, Tensor]]:
    """ids and features of every image in order, in float32 (bf16 would move ids across cell borders)."""
    device = next(tokenizer.parameters()).device
    for start in range(0, len(data), BATCH):
        if start % (BATCH * 20) == 0:
            note(f"encoding images {start}/{len(data)} for the LLM")
        images = data.batch(range(start, min(start + BATCH, len(data)))).images.to(device)
        batch: dict[str, Tensor] = {}
        if "ids" in parts:
            ids = tokenizer.encode(images).ids
            assert ids is not None, "a tokenizer with a codebook gives ids in eval mode"
            batch["ids"] = ids.cpu()
        if "features" in parts:
            batch["features"] = tokenizer.features(images).float().cpu()
        yield batch


def open_tokens(
    tokenizer: ImageTokenizer,
    node: Any,
    data: ImageDataset,
    folder: Path,
    parts: tuple[str, ...],
    note: Callable[[str], None],
) -> TokenCache:
    """The cached ids and features of a data set, computed when they are not there yet.

    The folder's name is the key (weights, configuration and code of the tokenizer, image preparation, data), so another
    tokenizer or another preparation never meets this cache; the key is checked again inside.

    Args:
        node: the configuration that builds the tokenizer, without paths: equal weights may compute unlike features.
    """
    key: dict[str, Any] = {
        "weights": weights_hash(tokenizer),
        "tokenizer": type(tokenizer).__qualname__,
        "code": code_digest(("tokenizers/**/*.py", "data/*.py", "experiments/token_store.py")),
        "node": digest(node),
        "data": data.fingerprint,
        "preparation": repr(sorted(data.preparation.items())),
    }
    name = hashlib.sha256(repr([sorted(key.items()), parts]).encode()).hexdigest()[:16]
    place = folder / f"tokens-{name}"
    shapes: dict[str, tuple[tuple[int, ...], str]] = {}
    if "ids" in parts:
        assert tokenizer.vocab_size is not None
        shapes["ids"] = ((tokenizer.num_tokens,), "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32")
    if "features" in parts:
        shapes["features"] = ((tokenizer.num_features, tokenizer.feature_dim), "float16")
    return TokenCache.open_or_build(place, key, shapes, len(data), lambda: encode_batches(tokenizer, data, parts, note))


def cached_precision(seen: Tensor) -> Tensor:
    """What the LLM reads as training saw it: features went through a float16 cache, ids are exact."""
    return seen.half().float() if seen.is_floating_point() else seen
