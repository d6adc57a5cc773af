"""A SigLIP small enough to train in under a minute on one CPU thread: convolutional trunk, text tower, pooling.

What decides at this size was measured on one-object scenes. Attention pooling with one query does not learn where
things are in that time; a flat projection of all cells beside it does, with positions in front of the attention alone,
so that the features carry none. Shape is learned last. With AdamW the trunk needs the first layers of a trained VQ
encoder (`warm_start_from`) for it; with Muon these layers save a third of the steps.
"""

import hashlib
import math
import re
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .semantic_light import LightVisionEncoder
from .vq import ConvEncoder


class SmallSigLIP(LightVisionEncoder):
    """Features of a convolutional trunk, trained by matching images and captions.

    Args:
        embedding_dim: of the space in which images and captions meet.
        patch_size, widths, num_blocks: of the trunk, a `LightEncoder`.
        text_dim, text_layers, max_words: of the text tower; further words of a caption are not read.
    """

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        widths: Sequence[int],
        num_blocks: Sequence[int],
        embedding_dim: int,
        text_dim: int,
        text_layers: int,
        max_words: int,
    ):
        super().__init__(image_size=image_size, patch_size=patch_size, widths=widths, num_blocks=num_blocks)
        self.pool = MapFlatPool(self.num_features, self.feature_dim, embedding_dim)
        self.text = TextTower(text_dim, text_layers, max_words, embedding_dim)
        # As published: with a bias near 0 all the many wrong pairs pull at once and training gets stuck.
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.bias = nn.Parameter(torch.tensor(-10.0))

    def embed_images(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, embedding_dim) of unit length."""
        return F.normalize(self.pool(self.features(images)).float(), dim=-1)

    def embed_captions(self, captions: Sequence[str]) -> Tensor:
        """B captions -> (B, embedding_dim) of unit length."""
        return F.normalize(self.text(captions).float(), dim=-1)

    def score(self, image_embeddings: Tensor, caption_embeddings: Tensor) -> Tensor:
        """(B, E), (C, E) -> (B, C) logits that image and caption belong together; their sigmoid is the score."""
        return self.log_scale.exp() * image_embeddings @ caption_embeddings.T + self.bias

    def forward(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        """(B, 3, H, W) and C captions -> (B, C) logits."""
        return self.score(self.embed_images(images), self.embed_captions(captions))

    @torch.no_grad()
    def warm_start_from(self, encoder: ConvEncoder) -> None:
        """Copy every weight of a trained pixel encoder into the trunk; later blocks of the trunk keep their start.

        Raises:
            ValueError: a weight has no counterpart of its name and shape in the trunk.
        """
        own = self.trunk.state_dict()
        strangers = [name for name, w in encoder.state_dict().items() if name not in own or own[name].shape != w.shape]
        if strangers:
            raise ValueError(
                f"the trunk cannot start from this encoder: {', '.join(strangers[:3])} fit nowhere; give both the same "
                "patch_size and widths, and the trunk at least as many blocks (tokenizer.widths, tokenizer.num_blocks)."
            )
        for name, weight in encoder.state_dict().items():
            own[name].copy_(weight)


class MapFlatPool(nn.Module):
    """Sum of attention pooling with one learned query and of a flat projection of all cells: (B, M, D) -> (B, E)."""

    def __init__(self, num_features: int, dim: int, embedding_dim: int, *, num_heads: int = 4, flat_dim: int = 8):
        super().__init__()
        self.num_heads = num_heads
        self.positions = nn.Parameter(torch.randn(num_features, dim) * 0.02)
        self.query = nn.Parameter(torch.randn(dim) * 0.02)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, embedding_dim)
        self.squeeze = nn.Linear(dim, flat_dim)
        self.flat = nn.Sequential(
            nn.Linear(num_features * flat_dim, 2 * embedding_dim),
            nn.GELU(),
            nn.Linear(2 * embedding_dim, embedding_dim),
        )

    def forward(self, features: Tensor) -> Tensor:
        batch, dim = len(features), features.shape[-1]
        heads = (self.num_heads, dim // self.num_heads)
        key, value = (
            part.unflatten(-1, heads).transpose(1, 2)  # (B, heads, M, D / heads)
            for part in self.key_value(features + self.positions).chunk(2, dim=-1)
        )
        query = self.query.view(1, heads[0], 1, heads[1]).expand(batch, -1, -1, -1).to(key.dtype)
        mapped = F.scaled_dot_product_attention(query, key, value).reshape(batch, dim)
        return self.out(mapped) + self.flat(self.squeeze(features).flatten(1))


class TextTower(nn.Module):
    """A pre-norm transformer over the words of a caption, mean-pooled: captions -> (B, E).

    Words are looked up by hash in two tables whose rows add up, so there is no vocabulary to train or to store and any
    caption can be read; two words meet in both tables about once in a million pairs.
    """

    def __init__(self, dim: int, num_layers: int, max_words: int, embedding_dim: int, *, table_size: int = 1024):
        super().__init__()
        self.max_words, self.table_size = max_words, table_size
        self.embeddings = nn.ModuleList(
            nn.Embedding(table_size, dim, _weight=torch.randn(table_size, dim) * 0.02) for _ in range(2)
        )
        self.positions = nn.Parameter(torch.randn(max_words, dim) * 0.02)
        self.blocks = nn.ModuleList(TextBlock(dim) for _ in range(num_layers))
        self.norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, embedding_dim)

    def forward(self, captions: Sequence[str]) -> Tensor:
        words = [[word_hashes(word) for word in split_words(caption)[: self.max_words]] for caption in captions]
        length = max(1, *map(len, words), 1)
        device = self.positions.device
        hashes = torch.tensor([row + [(0, 0)] * (length - len(row)) for row in words], device=device)  # (B, T, 2)
        real = torch.tensor([[i < len(row) for i in range(length)] for row in words], device=device)  # (B, T)
        x = (
            sum(table(hashes[..., i] % self.table_size) for i, table in enumerate(self.embeddings))
            + self.positions[:length]
        )
        for block in self.blocks:
            x = block(x, real[:, None, None])
        x = self.norm(x) * real[..., None]
        return self.out(x.sum(1) / real.sum(1, keepdim=True).clamp(min=1))


class TextBlock(nn.Module):
    def __init__(self, dim: int, num_heads: int = 4):
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(dim)
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D), mask (B, 1, 1, T) true where attention may look."""
        query, key, value = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in self.query_key_value(self.norm1(x)).chunk(3, dim=-1)
        )
        h = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + self.out(h.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


def split_words(caption: str) -> list[str]:
    """Lower-case words and punctuation marks."""
    return re.findall(r"\w+|[^\w\s]", caption.lower())


@lru_cache(maxsize=65536)
def word_hashes(word: str) -> tuple[int, int]:
    """Two hashes that are the same in every process (Python's own is not)."""
    digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:], "big")
