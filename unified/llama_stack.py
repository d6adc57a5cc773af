"""The layers of a Llama-family model on a packed stream, from the transformers model's own weights.

The same function as the model's forward, with the parts that cost most beside the products written out: the norm and
the rotation have gradients by hand, the three projections of attention are one product, and the last layer's
projections run on the tokens whose hidden states are wanted. A training step of the nano model takes 0.8 of the time.

Letters: T tokens of the stream, D width of the LLM, H heads, E width of a head.
"""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .attention import Packing, attend

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class _Norm(torch.autograd.Function):
    """Root-mean-square norm of (T, D) in float32, given in `dtype` (arXiv 1910.07467)."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:  # pyright: ignore
        x = x.float()
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        unit = x * scale
        ctx.save_for_backward(unit, scale, weight)
        return (unit * weight).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        unit, scale, weight = ctx.saved_tensors
        gradient = gradient.float()
        along = gradient * unit
        d_weight = along.sum(0)
        d_unit = gradient * weight
        mean = along.mv(weight.float()).div_(len(weight)).unsqueeze(1)
        return d_unit.addcmul_(unit, mean, value=-1).mul_(scale), d_weight, None, None


class _Rotation(torch.autograd.Function):
    """Rotary position embedding of heads (T, H, E) whose neighbouring entries form the rotated pairs.

    A product of complex numbers does what takes six passes over real halves; `rotation` is (T, 1, E / 2) complex.
    """

    @staticmethod
    def forward(ctx, heads: Tensor, rotation: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(rotation)
        return _rotate(heads, rotation)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _rotate(gradient, ctx.saved_tensors[0].conj()), None


def _rotate(heads: Tensor, rotation: Tensor) -> Tensor:
    pairs = torch.view_as_complex(heads.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation).flatten(-2).to(heads.dtype)


def run_layers(llm: "PreTrainedModel", stream: Tensor, positions: Tensor, packing: Packing, wanted: Tensor) -> Tensor:
    """The last hidden states (n, D) of some tokens of a packed stream.

    Args:
        llm: a model that `is_llama_like`.
        stream: embeddings (T, D).
        positions: (T,) restarting in every document.
        wanted: (n,) tokens of the stream.
    """
    base: Any = llm.base_model
    config: Any = llm.config
    heads, key_heads = config.num_attention_heads, config.num_key_value_heads
    width: int = base.layers[0].self_attn.head_dim
    device = stream.device
    dtype = stream.dtype
    if torch.is_autocast_enabled(device.type):
        dtype = torch.get_autocast_dtype(device.type)

    rotation = rotations(llm, positions)[:, None]
    order = neighbours(heads, key_heads, width).to(device)

    x = stream
    for i, layer in enumerate(base.layers):
        attention = layer.self_attn
        three = attention.q_proj, attention.k_proj, attention.v_proj
        weight = torch.cat([projection.weight for projection in three]).index_select(0, order)
        bias = None if three[0].bias is None else torch.cat([p.bias for p in three]).index_select(0, order)
        h = _norm(x, layer.input_layernorm.weight, config.rms_norm_eps, dtype)
        projected = F.linear(h, weight, bias).view(len(x), -1, width)
        turned, values = projected.split([heads + key_heads, key_heads], 1)
        queries, keys = _Rotation.apply(turned, rotation).split([heads, key_heads], 1)  # pyright: ignore
        if heads != key_heads:
            keys, values = (part.repeat_interleave(heads // key_heads, 1) for part in (keys, values))
        seen = attend(queries, keys, values, packing, attention.scaling).flatten(1)
        if i + 1 == len(base.layers):
            x, seen = x.index_select(0, wanted), seen.index_select(0, wanted)
        x = x + attention.o_proj(seen)
        x = x + layer.mlp(_norm(x, layer.post_attention_layernorm.weight, config.rms_norm_eps, dtype))
    return _norm(x, base.norm.weight, config.rms_norm_eps, dtype)


def rotations(llm: "PreTrainedModel", positions: Tensor) -> Tensor:
    """What a pair of entries is multiplied by at each of `positions` (...): (..., E / 2) complex."""
    base: Any = llm.base_model
    like = torch.empty(0, dtype=torch.float32, device=positions.device)
    cos, sin = base.rotary_emb(like, positions[None])  # (1, ..., E), two equal halves
    return torch.complex(cos[0], sin[0]).chunk(2, -1)[0]


def neighbours(heads: int, key_heads: int, width: int) -> Tensor:
    """Order of the rows of [queries; keys; values] that puts entries rotated together side by side.

    transformers pairs entry i of a head with i + E / 2. Attention is the same in any order that queries and keys share.
    """
    order = torch.arange((heads + 2 * key_heads) * width).view(-1, width)
    pairs = order[0].view(2, -1).t().flatten()
    return torch.cat([order[: heads + key_heads, pairs], order[heads + key_heads :]]).flatten()


def _norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    return _Norm.apply(x, weight, eps, dtype)  # pyright: ignore[reportReturnType]


def is_llama_like(llm: nn.Module) -> bool:
    """Whether a model's layers are those written out here: Llama or Qwen2 with plain rotary positions."""
    config: Any = llm.config
    base: Any = llm.base_model
    rope = getattr(config, "rope_parameters", None) or {}
    return (
        config.model_type in ("llama", "qwen2")
        and config.hidden_act == "silu"
        and rope.get("rope_type", "default") in ("default", "linear", "llama3")
        and not getattr(config, "use_sliding_window", False)
        and not getattr(config, "attention_dropout", 0.0)
        and not getattr(config, "mlp_bias", False)
        and base.layers[0].self_attn.o_proj.bias is None
    )
