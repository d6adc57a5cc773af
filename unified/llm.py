"""The language model: a small Llama built from sizes, or a pretrained model by name, each with its text tokenizer."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from .text import TextTokenizer, from_transformers, train_bpe

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class SmallLlama:
    """A Llama (arXiv 2302.13971) that starts from scratch, with a byte-level BPE of the training texts.

    Args:
        ffn_dim: inner width of the gated MLP.
        max_length: longest document in tokens.
        text_vocab_size: largest size of the BPE.
        init_std: standard deviation of all weights; those that write into the residual stream are divided by
            sqrt(2 * num_layers), as in GPT-2.
    """

    hidden_dim: int
    num_layers: int
    num_heads: int
    ffn_dim: int
    max_length: int
    text_vocab_size: int
    init_std: float = 0.02

    def text_tokenizer(self, texts: Iterable[str]) -> TextTokenizer:
        """A BPE trained on the captions, questions and answers of the training split."""
        return train_bpe(texts, self.text_vocab_size)

    def rebuilder(self, llm: "PreTrainedModel") -> "SmallLlama":
        """What builds a model that the weights of `llm` fit: this."""
        return self

    def build(self, vocab_size: int):
        """A `LlamaForCausalLM` with weights drawn from torch's current random state.

        Raises:
            ValueError: the heads do not divide the width into even parts.
        """
        from transformers import LlamaConfig, LlamaForCausalLM

        if self.hidden_dim % (2 * self.num_heads):
            nearest = max(round(self.hidden_dim / (2 * self.num_heads)), 1) * 2 * self.num_heads
            raise ValueError(
                f"hidden_dim={self.hidden_dim} does not divide into {self.num_heads} heads of even width; "
                f"use {nearest} (llm.hidden_dim)."
            )
        config = LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=self.hidden_dim,
            intermediate_size=self.ffn_dim,
            num_hidden_layers=self.num_layers,
            num_attention_heads=self.num_heads,
            num_key_value_heads=self.num_heads,
            max_position_embeddings=self.max_length,
            initializer_range=self.init_std,
            rms_norm_eps=1e-6,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=None,
        )
        llm = LlamaForCausalLM(config)
        with torch.no_grad():
            for layer in llm.model.layers:
                for weight in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):  # pyright: ignore
                    weight.mul_(1 / math.sqrt(2 * self.num_layers))  # pyright: ignore
        return llm


@dataclass(frozen=True, kw_only=True)
class PretrainedLLM:
    """Any transformers causal LM with its own tokenizer.

    Args:
        name: hub name, or a local folder that holds config.json, the weights and tokenizer.json.
    """

    name: str

    def text_tokenizer(self, texts: Iterable[str]) -> TextTokenizer:
        """The model's own tokenizer; `texts` are not needed."""
        return from_transformers(self.name)

    def rebuilder(self, llm: "PreTrainedModel") -> "ConfiguredLLM":
        """What builds a model that the weights of `llm` fit, without fetching anything."""
        return ConfiguredLLM(config=llm.config.to_json_string())

    def build(self, vocab_size: int):
        """The model in float32, its embeddings extended when the vocabulary has grown by special tokens.

        Raises:
            ValueError: the weights cannot be loaded.
        """
        from transformers import AutoModelForCausalLM

        try:
            llm = AutoModelForCausalLM.from_pretrained(self.name, dtype=torch.float32)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"the LLM {self.name!r} cannot be loaded ({reason}); without the network give a local folder that "
                "holds config.json and model.safetensors (llm.name), or use llm=nano."
            ) from error
        embedding = llm.get_input_embeddings()
        assert isinstance(embedding, nn.Embedding)
        if vocab_size > embedding.num_embeddings:
            llm.resize_token_embeddings(vocab_size)
        return llm


@dataclass(frozen=True, kw_only=True)
class ConfiguredLLM:
    """A causal LM of a recorded configuration: the frame for weights that a run folder holds.

    Args:
        config: text of transformers' config.json.
    """

    config: str

    def rebuilder(self, llm: "PreTrainedModel") -> "ConfiguredLLM":
        return self

    def build(self, vocab_size: int):
        """The model in float32 with random weights; its vocabulary is that of the configuration."""
        from transformers import AutoConfig, AutoModelForCausalLM

        config = AutoConfig.for_model(**json.loads(self.config))
        assert config.vocab_size >= vocab_size, f"{config.vocab_size} embeddings for {vocab_size} tokens"
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
