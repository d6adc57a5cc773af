"""Cached decoding for the Llama family from the weights of the transformers model, a few operations a layer.

Letters: R rows, n new tokens a row, S slots in use, H heads, E width of a head, D width of the LLM.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .decoder import CachedDecoder
from .llama_stack import is_llama_like


@dataclass(frozen=True)
class _Layer:
    """One layer's weights, inputs of products fused; matrices are (in, out)."""

    attention_norm: Tensor
    query_key_value: Tensor
    query_key_value_bias: Tensor | None
    out: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor


class LlamaDecoder(CachedDecoder):
    """`CachedDecoder` for Llama and Qwen2: fused copies of the weights, and a cache allocated once.

    The copies are made here, so a decoder must not outlive a training step. Keys and values stay in float32 on CPU,
    where attention of a single query in bfloat16 is several times slower.

    Args:
        dtype: type of the weights in products; None keeps the model's.
    """

    def __init__(self, llm: nn.Module, *, rows: int, capacity: int, dtype: torch.dtype | None = None):
        config, base = llm.config, llm.base_model
        self.heads: int = config.num_attention_heads  # pyright: ignore
        self.key_heads: int = config.num_key_value_heads  # pyright: ignore
        self.dtype = next(llm.parameters()).dtype if dtype is None else dtype
        self.layers = [self._fuse(layer) for layer in base.layers]  # pyright: ignore
        self.final_norm: Tensor = base.norm.weight.detach().float()  # pyright: ignore
        self.eps: float = config.rms_norm_eps  # pyright: ignore
        self.width = self.layers[0].out.shape[0] // self.heads
        device = self.final_norm.device
        self.cache_dtype = torch.float32 if device.type == "cpu" else self.dtype
        everywhere = torch.arange(capacity, device=device)[None]
        cos, sin = base.rotary_emb(self.final_norm, everywhere)  # pyright: ignore  (1, capacity, E)
        self.cos, self.sin = cos[0], sin[0]
        super().__init__(llm, rows=rows, capacity=capacity)

    def _fuse(self, layer: nn.Module) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp

        def fused(*linears: nn.Linear) -> Tensor:
            return torch.cat([linear.weight.detach() for linear in linears]).to(self.dtype).t().contiguous()

        three = attention.q_proj, attention.k_proj, attention.v_proj  # pyright: ignore
        bias = None
        if three[0].bias is not None:  # pyright: ignore
            bias = torch.cat([linear.bias.detach() for linear in three]).to(self.dtype)  # pyright: ignore
        return _Layer(
            attention_norm=layer.input_layernorm.weight.detach().float(),  # pyright: ignore
            query_key_value=fused(*three),  # pyright: ignore
            query_key_value_bias=bias,
            out=fused(attention.o_proj),  # pyright: ignore
            mlp_norm=layer.post_attention_layernorm.weight.detach().float(),  # pyright: ignore
            gate_up=fused(mlp.gate_proj, mlp.up_proj),  # pyright: ignore
            down=fused(mlp.down_proj),  # pyright: ignore
        )

    def _allocate(self, rows: int) -> None:
        shape = (len(self.layers), 2, rows, self.key_heads, self.capacity, self.width)
        self._kv = torch.zeros(shape, dtype=self.cache_dtype, device=self.device)

    def _select_cache(self, rows: Tensor) -> None:
        kept = self._kv
        self._allocate(len(rows))
        self._kv[..., : self.length, :] = kept[..., : self.length, :].index_select(2, rows)

    def _forward(self, embeddings: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        rows, count, dim = embeddings.shape
        x = embeddings.reshape(rows * count, dim).float()
        cos, sin = self.cos[positions].unsqueeze(1), self.sin[positions].unsqueeze(1)  # (R, 1, n, E)
        for layer, cache in zip(self.layers, self._kv, strict=True):
            h = self._norm(x, layer.attention_norm)
            qkv = h @ layer.query_key_value
            if layer.query_key_value_bias is not None:
                qkv = qkv + layer.query_key_value_bias
            qkv = qkv.to(self.cache_dtype).view(rows, count, -1, self.width).transpose(1, 2)
            turned = qkv[:, : -self.key_heads]
            half = self.width // 2
            turned = turned * cos + torch.cat([-turned[..., half:], turned[..., :half]], -1) * sin
            cache[0, :, :, self.length - count : self.length] = turned[:, self.heads :]
            cache[1, :, :, self.length - count : self.length] = qkv[:, -self.key_heads :]
            keys, values = cache[0, :, :, : self.length], cache[1, :, :, : self.length]
            seen = self._attend(turned[:, : self.heads], keys, values, mask)
            x = x + seen.transpose(1, 2).reshape(rows * count, -1).to(self.dtype) @ layer.out
            gate, up = (self._norm(x, layer.mlp_norm) @ layer.gate_up).chunk(2, -1)
            x = x + (F.silu(gate) * up) @ layer.down
        return (self._norm(x, self.final_norm)).view(rows, count, dim)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self.eps).to(self.dtype)

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """(R, H, n, E) -> (R, H, n, E)."""
        groups = self.heads // self.key_heads
        if groups == 1:
            return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        if queries.shape[2] == 1:  # the heads that share keys are queries of one head
            shared = queries.reshape(len(queries), self.key_heads, groups, self.width)
            return F.scaled_dot_product_attention(shared, keys, values, attn_mask=mask).view(queries.shape)
        keys, values = keys.repeat_interleave(groups, 1), values.repeat_interleave(groups, 1)
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)


def make_decoder(llm: nn.Module, *, rows: int, capacity: int, dtype: torch.dtype | None = None) -> CachedDecoder:
    """The fastest decoder there is for a model.

    Raises:
        ValueError: `dtype` is given for a model that only the generic decoder can run.
    """
    if is_llama_like(llm):
        return LlamaDecoder(llm, rows=rows, capacity=capacity, dtype=dtype)
    if dtype is not None and dtype != next(llm.parameters()).dtype:
        raise ValueError(
            f"{type(llm).__name__} decodes in the type of its weights; convert the model to {dtype} instead."
        )
    return CachedDecoder(llm, rows=rows, capacity=capacity)
