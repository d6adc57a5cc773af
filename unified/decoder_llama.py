"""Cached decoding for the Llama family from the weights of the transformers model, a few operations a layer.

Letters: R rows, n new tokens a row, S slots in use, H heads, E width of a head, D width of the LLM.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .decoder import CachedDecoder
from .llama_stack import is_llama_like, neighbours, rotations
from .packed_linear import PackedLinear

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class _Layer:
    """One layer's weights: products that share an input are one, norms are multiplied in."""

    query_key_value: PackedLinear
    out: PackedLinear
    gate_up: PackedLinear
    down: PackedLinear


class LlamaDecoder(CachedDecoder):
    """`CachedDecoder` for Llama and Qwen2: fused copies of the weights, and a cache allocated once.

    The copies are made here, so a decoder must not outlive a training step. Keys and values stay in float32 on CPU,
    where attention of a single query in bfloat16 is several times slower.

    Args:
        dtype: type of the weights in products; None keeps the model's.
    """

    def __init__(self, llm: "PreTrainedModel", *, rows: int, capacity: int, dtype: torch.dtype | None = None):
        config: Any = llm.config
        base: Any = llm.base_model
        self.heads: int = config.num_attention_heads
        self.key_heads: int = config.num_key_value_heads
        self.width: int = base.layers[0].self_attn.head_dim
        self.dtype = llm.dtype if dtype is None else dtype
        self.cache_dtype = torch.float32 if llm.device.type == "cpu" else self.dtype
        order = neighbours(self.heads, self.key_heads, self.width).to(llm.device)
        self.layers = [self._fuse(layer, order, rows) for layer in base.layers]
        self.final_norm: Tensor = base.norm.weight.detach().float()
        self.eps = self.final_norm.new_tensor(config.rms_norm_eps)
        self.rotations = rotations(llm, torch.arange(capacity, device=llm.device))  # (capacity, E / 2)
        super().__init__(llm, rows=rows, capacity=capacity)

    def _fuse(self, layer: Any, order: Tensor, rows: int) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp

        def fused(*linears: nn.Linear, norm: Tensor | None = None) -> Tensor:
            weight = torch.cat([linear.weight.detach().float() for linear in linears])
            return weight if norm is None else weight * norm.detach().float()

        def packed(weight: Tensor, bias: Tensor | None = None) -> PackedLinear:
            return PackedLinear(weight, bias, dtype=self.dtype, rows=rows)

        three = attention.q_proj, attention.k_proj, attention.v_proj
        bias = None
        if three[0].bias is not None:
            bias = torch.cat([linear.bias.detach() for linear in three])[order]
        return _Layer(
            query_key_value=packed(fused(*three, norm=layer.input_layernorm.weight)[order], bias),
            out=packed(fused(attention.o_proj)),
            gate_up=packed(fused(mlp.gate_proj, mlp.up_proj, norm=layer.post_attention_layernorm.weight)),
            down=packed(fused(mlp.down_proj)),
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
        x = embeddings.reshape(rows * count, dim).to(torch.float32, copy=True)
        rotation = self.rotations[positions].unsqueeze(2)  # (R, n, 1, E / 2)
        if mask is not None:  # the fused kernel would make this of a bool mask in every layer
            mask = torch.zeros_like(mask, dtype=self.cache_dtype).masked_fill_(~mask, float("-inf"))
        new = slice(self.length - count, self.length)
        for layer, cache in zip(self.layers, self._kv, strict=True):
            projected = layer.query_key_value(self._unit(x)).float().view(rows, count, -1, self.width)
            turned = projected[:, :, : -self.key_heads].unflatten(-1, (-1, 2))
            torch.view_as_complex(turned).mul_(rotation)  # in place: queries and keys of `projected`
            kept = projected[:, :, self.heads :].unflatten(2, (2, -1))  # (R, n, keys or values, heads of keys, E)
            cache[:, :, :, new] = kept.permute(2, 0, 3, 1, 4)
            queries = projected[:, :, : self.heads].transpose(1, 2).to(self.cache_dtype)
            seen = self._attend(queries, cache[0, :, :, : self.length], cache[1, :, :, : self.length], mask)
            x += layer.out(seen.transpose(1, 2).reshape(rows * count, -1))
            gate, up = layer.gate_up(self._unit(x)).chunk(2, -1)
            x += layer.down(F.silu(gate).mul_(up))
        return (self._unit(x) * self.final_norm).to(self.dtype).view(rows, count, dim)

    def _unit(self, x: Tensor) -> Tensor:
        """The root-mean-square norm without its weight."""
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return x * torch.addcmul(self.eps, length, length, value=1 / x.shape[-1]).rsqrt_()

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


def make_decoder(
    llm: "PreTrainedModel", *, rows: int, capacity: int, dtype: torch.dtype | None = None
) -> CachedDecoder:
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
