"""Metrics of leading ids: which prefixes are measured, and that they are what decoding them alone gives."""

import pytest
import torch
from torch import nn

from tessella.experiments.evaluate_prefixes import PrefixReconstructions, prefix_lengths, short_length, whole_prefixes
from tessella.experiments.phase import Evaluation
from tessella.metrics.reconstruction import psnr
from tessella.tokenizers.base import ImageTokenizer


class Stripes(ImageTokenizer):
    """Id i is the gray of row i; rows whose id is missing are black."""

    image_size, vocab_size, latent_dim = 16, 256, 1

    def __init__(self, step_lengths=(1,) * 16, shortest=1):
        super().__init__()
        self.step_lengths, self.num_latents, self.shortest = step_lengths, sum(step_lengths), shortest
        self.weight = nn.Parameter(torch.ones(1))

    @property
    def min_tokens(self):
        return self.shortest

    def dequantize(self, ids):
        assert ids.shape[1] in whole_prefixes(self)
        return ids[..., None] / 255

    def decode(self, latents):
        rows = torch.cat([latents, torch.zeros(len(latents), 16 - latents.shape[1], 1)], 1)
        return rows[:, None].expand(-1, 3, -1, 16)


@pytest.mark.parametrize(
    ("step_lengths", "shortest", "lengths", "short"),
    [
        ((1,) * 32, 1, [1, 2, 4, 8, 16, 24, 32], 8),
        ((1,) * 32, 3, [4, 8, 16, 24, 32], 8),
        ((1,) * 32, 10, [16, 24, 32], None),
        ((1,) * 32, 32, [], None),
        ((1, 4, 16, 64), 1, [1, 5, 21, 85], 5),
        ((1, 4, 16, 64), 5, [5, 21, 85], 5),
        ((1, 1), 1, [1, 2], 1),
        ((2,) * 20, 2, [2, 4, 8, 16, 30, 32, 40], 8),
    ],
)
def test_whole_steps_are_measured(step_lengths, shortest, lengths, short):
    tokenizer = Stripes(step_lengths, shortest)
    assert prefix_lengths(tokenizer) == lengths
    assert short_length(tokenizer) == short


def test_continuous_latents_have_no_prefixes():
    tokenizer = Stripes()
    tokenizer.vocab_size = None
    assert prefix_lengths(tokenizer) == []
    assert short_length(tokenizer) is None


def test_every_length_is_scored_on_all_images():
    tokenizer = Stripes()
    ids = torch.randint(1, 256, (20, 16), generator=torch.Generator().manual_seed(0))
    images = tokenizer.decode(tokenizer.dequantize(ids))
    prefixes = PrefixReconstructions(tokenizer)
    for part in (slice(0, 6), slice(6, 20)):
        prefixes.update(images[part], ids[part])
    result = Evaluation()
    prefixes.add_to(result, [], None, print)
    assert list(result.metrics) == [f"rec/{name}/k={k}" for k in (1, 2, 4, 8, 12, 16) for name in ("psnr", "ssim")]
    for length in (1, 12):
        row = result.metrics[f"rec/psnr/k={length}"]
        expected = psnr(images, tokenizer.decode(tokenizer.dequantize(ids[:, :length]))).mean()
        assert row["value"] == pytest.approx(float(expected))
        assert row["n"] == 20
        assert row["bits"] == 8 * length
    assert result.metrics["rec/psnr/k=16"]["value"] == 100
    kept = result.tensors["reconstructions/k=4"]
    assert kept.shape == (8, 3, 16, 16)
    assert torch.equal(kept, (tokenizer.decode(tokenizer.dequantize(ids[:8, :4])) * 255).round().to(torch.uint8))
