"""What a single token changes: the pixels that move when one id is replaced by another."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..tokenizers.base import ImageTokenizer
from .phase import Evaluation

MOST_TOKENS = 128  # every token costs as many decodes as there are images
IMAGES = 8
MOST_PIXELS = 64  # side of a map: where a token acts, not how
SEED = 0


def add_contributions(
    result: Evaluation, tokenizer: ImageTokenizer, ids: Tensor, batch_size: int, note: Callable[[str], None]
) -> None:
    """Keep the map of every token, where there are at most `MOST_TOKENS` of them.

    `contributions` (L, 1, h, w) uint8 holds, for token i, how far pixels move when id i alone is replaced by another
    random id: the mean absolute change over images and channels, all maps on one scale. `notes["contributions"]` has
    that scale (what 255 stands for, pixels in [0, 1]) and the mean change of each token.

    Args:
        ids: (B, L) of the first test images; at most `IMAGES` are used.
    """
    size = tokenizer.vocab_size
    if size is None or size < 2 or tokenizer.num_tokens > MOST_TOKENS:
        return
    note(f"replacing each of {tokenizer.num_tokens} tokens")
    maps = contribution_maps(tokenizer, ids[:IMAGES], batch_size)
    scale = float(maps.max())
    shown = (maps / scale if scale > 0 else maps).mul(255).round().to(torch.uint8)
    result.tensors["contributions"] = shown[:, None].cpu().contiguous()
    result.notes["contributions"] = {
        "scale": scale,
        "means": maps.mean((1, 2)).tolist(),
        "images": min(IMAGES, len(ids)),
        "step_lengths": list(tokenizer.step_lengths),
        "seed": SEED,
    }


def contribution_maps(tokenizer: ImageTokenizer, ids: Tensor, batch_size: int) -> Tensor:
    """(B, L) ids -> (L, h, w) mean absolute pixel change, at most `MOST_PIXELS` wide; draws are seeded."""
    assert tokenizer.vocab_size is not None
    count, length = ids.shape
    generator = torch.Generator().manual_seed(SEED)
    shifts = torch.randint(1, tokenizer.vocab_size, (length, count), generator=generator)  # never 0: another id
    others = (ids.T + shifts.to(ids.device)) % tokenizer.vocab_size  # (L, B)
    whole = tokenizer.decode(tokenizer.dequantize(ids)).float()
    side = min(whole.shape[-1], MOST_PIXELS)
    at_once = max(1, batch_size // count)
    maps = []
    for start in range(0, length, at_once):
        tokens = torch.arange(start, min(start + at_once, length), device=ids.device)
        replaced = ids.repeat(len(tokens), 1, 1)  # (T, B, L)
        replaced[torch.arange(len(tokens)), :, tokens] = others[tokens]
        images = tokenizer.decode(tokenizer.dequantize(replaced.flatten(0, 1))).float().unflatten(0, (-1, count))
        change = (images - whole).abs().mean((1, 2))  # (T, H, W)
        maps.append(F.adaptive_avg_pool2d(change, side))
    return torch.cat(maps)
