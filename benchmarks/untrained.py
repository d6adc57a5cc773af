"""Models of any size with random weights: speed does not depend on what they have learned."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessella.tokenizers.base import ImageTokenizer
from tessella.unified.head_classifier import ClassifierHead
from tessella.unified.llm import SmallLlama
from tessella.unified.model import UnifiedModel
from tessella.unified.text import ROLES, TextTokenizer


class Codes(ImageTokenizer):
    """An image tokenizer that is nothing but a codebook; the LLM never runs more of it."""

    def __init__(self, vocab_size: int, num_tokens: int, latent_dim: int = 8):
        super().__init__()
        self.image_size, self.vocab_size, self.latent_dim = 256, vocab_size, latent_dim
        self.step_lengths, self.num_latents = (1,) * num_tokens, num_tokens
        self.codebook = nn.Parameter(torch.randn(vocab_size, latent_dim, generator=torch.Generator().manual_seed(0)))

    def dequantize(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.codebook)


def words(vocab_size: int) -> TextTokenizer:
    """A text tokenizer of the words w6, w7, ..., one token each; the special tokens come first."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    special = {role: f"<{role}>" for role in ROLES}
    names = [*special.values(), *(f"w{i}" for i in range(len(special), vocab_size))]
    backend = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    return TextTokenizer(backend, special)


def unified(
    *, layers: int, dim: int, heads: int, ffn_dim: int, text_vocab: int, codes: int, image_length: int
) -> UnifiedModel:
    llm = SmallLlama(
        hidden_dim=dim,
        num_layers=layers,
        num_heads=heads,
        ffn_dim=ffn_dim,
        max_length=1024,
        text_vocab_size=text_vocab,
    )
    tokenizer, head = Codes(codes, image_length), partial(ClassifierHead)
    return UnifiedModel(tokenizer=tokenizer, llm=llm, text=words(text_vocab), head=head, seed=0)


def transformers_llama(model: UnifiedModel):
    """The weights of a unified model's LLM in transformers' own model, with transformers' own attention."""
    from transformers import LlamaForCausalLM

    config = type(model.llm.config).from_dict(model.llm.config.to_dict())
    config._attn_implementation = "sdpa"
    llama = LlamaForCausalLM(config)
    llama.load_state_dict(model.llm.state_dict())
    return llama
