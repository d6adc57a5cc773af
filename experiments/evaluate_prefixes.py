"""What the leading ids of an image are worth: reconstructions and generated images from prefixes of the ids."""

from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from ..metrics.images import to_uint8
from ..metrics.reconstruction import ReconstructionMetrics
from ..tokenizers.base import ImageTokenizer
from .build import Data
from .evaluate_oracle import add_oracle
from .phase import Evaluation

SHORT = 8  # ids: the oracle judges images of the longest prefix of at most so many
MOST_STEPS = 12  # up to here every step counts: the scales of next-scale prediction
PICTURES = 8  # images whose reconstructions are kept at every length


def whole_prefixes(tokenizer: ImageTokenizer) -> list[int]:
    """Numbers of leading ids that decode, in whole steps; [] when only all ids do."""
    if tokenizer.vocab_size is None or tokenizer.min_tokens >= tokenizer.num_tokens:
        return []
    return [length for length in accumulate(tokenizer.step_lengths) if length >= tokenizer.min_tokens]


def prefix_lengths(tokenizer: ImageTokenizer) -> list[int]:
    """The prefixes that are measured: after every scale, or after 1, 2, 4, ..., three quarters and all tokens."""
    steps = len(tokenizer.step_lengths)
    if steps <= MOST_STEPS:
        return whole_prefixes(tokenizer)
    chosen = {2**power for power in range(steps.bit_length())} | {3 * steps // 4, steps}
    ends = list(accumulate(tokenizer.step_lengths))
    return [length for length in whole_prefixes(tokenizer) if ends.index(length) + 1 in chosen]


def short_length(tokenizer: ImageTokenizer) -> int | None:
    """The longest prefix of at most `SHORT` ids that decodes and is not everything."""
    fitting = [length for length in whole_prefixes(tokenizer)[:-1] if length <= SHORT]
    return fitting[-1] if fitting else None


class PrefixReconstructions:
    """Streams the ids of a split into `rec/psnr/k=<ids>` and `rec/ssim/k=<ids>`, each with its size in bits."""

    def __init__(self, tokenizer: ImageTokenizer) -> None:
        self.tokenizer = tokenizer
        self.scores = {length: ReconstructionMetrics() for length in prefix_lengths(tokenizer)}
        self.short = short_length(tokenizer)
        self._short: list[Tensor] = []
        self._kept: dict[int, list[Tensor]] = {length: [] for length in self.scores}
        self._seen = 0

    def update(self, images: Tensor, ids: Tensor) -> None:
        """Images (B, 3, H, W) in [0, 1] and all of their ids (B, L)."""
        for length, score in self.scores.items():
            back = self._decode(ids, length)
            score.update(images, back)
            self._kept[length].append(to_uint8(back[: max(0, PICTURES - self._seen)]).cpu())
            if length == self.short:
                self._short.append(to_uint8(back).cpu())
        if self.short is not None and self.short not in self.scores:
            self._short.append(to_uint8(self._decode(ids, self.short)).cpu())
        self._seen += len(images)

    def _decode(self, ids: Tensor, length: int) -> Tensor:
        return self.tokenizer.decode(self.tokenizer.dequantize(ids[:, :length])).float()

    def add_to(self, result: Evaluation, captions: Sequence[str], data: Data, note: Callable[[str], None]) -> None:
        """Metrics, pictures and, for captioned scenes, the oracle's verdicts on the short prefix."""
        for length, score in self.scores.items():
            bits = length / self.tokenizer.num_tokens * (self.tokenizer.bits_per_image or 0)
            result.metrics |= {f"{name}/k={length}": row | {"bits": bits} for name, row in score.rows().items()}
            result.tensors[f"reconstructions/k={length}"] = torch.cat(self._kept[length]).contiguous()
        if self.short is not None and captions:
            images = torch.cat(self._short)
            add_short_oracle(result, "rec/oracle", self.short, images, captions, range(len(images)), data, note)


def add_short_oracle(
    result: Evaluation,
    prefix: str,
    length: int,
    images: Tensor,
    captions: Sequence[str],
    rows: Sequence[int],
    data: Data,
    note: Callable[[str], None],
) -> None:
    """`<prefix>/<attribute>/k=<length>`: what the oracle says of (n, 3, H, W) uint8 images of `length` ids each."""
    judged = Evaluation()
    add_oracle(judged, prefix, images, captions, rows, data.source, data.test, note)
    attributes = {name: row for name, row in judged.metrics.items() if "/kind/" not in name}
    result.metrics |= {f"{name}/k={length}": row for name, row in attributes.items()}
