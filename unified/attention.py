"""Attention inside each document of a packed stream, without a mask over pairs of tokens.

An unmodified transformers model reaches it through the attention interface: `register` puts `packed_attention` there by
name, and the `Packing` travels as an extra keyword of the model's forward. Documents of like length form one batch,
padded at the end, where a causal mask already hides the padding from every real token. On CPU short documents go
through plain matrix products, which train faster than the fused kernel up to some 400 tokens.

Letters: T tokens of the stream, H heads, G documents of a group, P its padded length, E width of a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

ATTENTION = "tessella_packed"
_FUSED_FROM = 400  # on CPU, padded length from which the fused kernel trains faster than plain products
_LEAST_FILL = 0.8  # a document joins a group while it fills at least this much of the padded length


@dataclass(frozen=True)
class Group:
    """Documents that are attended to together."""

    count: int  # G
    length: int  # P
    rows: Tensor  # (G * P,) tokens of the stream; padding points at token 0
    padding: Tensor  # which of the G * P are padding


class Packing:
    """Where documents of given lengths lie in a stream, and in which groups their attention is computed."""

    def __init__(self, lengths: Sequence[int]):
        self.lengths = tuple(lengths)
        self._by_heads: dict[int, tuple[list[tuple[Group, Tensor, Tensor]], Tensor]] = {}
        length = torch.tensor(self.lengths)
        start = length.cumsum(0) - length
        order = torch.argsort(length, descending=True, stable=True)
        self.groups: list[Group] = []
        self.inverse = torch.empty(int(length.sum()), dtype=torch.int64)  # (T,) into the groups' rows, concatenated
        first = offset = 0
        for last in range(1, len(order) + 1):
            longest = self.lengths[int(order[first])]
            if last < len(order) and self.lengths[int(order[last])] >= _LEAST_FILL * longest:
                continue
            members = order[first:last]
            place = torch.arange(longest)
            real = place < length[members, None]  # (G, P)
            rows = torch.where(real, start[members, None] + place, 0).flatten()
            real = real.flatten()
            self.groups.append(Group(len(members), longest, rows, (~real).nonzero().flatten()))
            self.inverse[rows[real]] = offset + real.nonzero().flatten()
            first, offset = last, offset + len(rows)

    def to(self, device: torch.device | str) -> "Packing":
        """The same packing with its indices on a device."""
        moved = object.__new__(Packing)
        moved.lengths, moved._by_heads = self.lengths, {}
        moved.inverse = self.inverse.to(device)
        moved.groups = [Group(g.count, g.length, g.rows.to(device), g.padding.to(device)) for g in self.groups]
        return moved

    def by_heads(self, heads: int) -> tuple[list[tuple[Group, Tensor, Tensor]], Tensor]:
        """The indices of `groups` and `inverse` when a stream (T, H, E) is read as T * H rows of one head.

        Groups get rows and padding in the order (G, H, P), ready for batched products.
        """
        if heads not in self._by_heads:
            head = torch.arange(heads, device=self.inverse.device)
            groups, places, offset = [], [], 0
            for group in self.groups:
                rows = (group.rows.view(group.count, 1, group.length) * heads + head[:, None]).flatten()
                place = (
                    torch.arange(len(rows), device=rows.device).view(group.count, heads, group.length).transpose(1, 2)
                )
                places.append(offset + place.reshape(-1, heads))  # (G * P, H)
                groups.append((group, rows, places[-1][group.padding].flatten() - offset))
                offset += len(rows)
            self._by_heads[heads] = groups, torch.cat(places)[self.inverse].flatten()
        return self._by_heads[heads]


class _PlainAttention(torch.autograd.Function):
    """Causal softmax attention by batched products, forward and backward written out to save the copies.

    (T, H, E) three times -> (T, H, E). Products run in the type of `query`, the softmax in float32.
    """

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor, packing: Packing, scale: float) -> Tensor:  # pyright: ignore
        heads, width = query.shape[1:]
        groups, inverse = packing.by_heads(heads)
        saved, outputs = [], []
        for group, rows, _ in groups:
            shape = (group.count * heads, group.length, width)
            q, k, v = (x.view(-1, width).index_select(0, rows).view(shape) for x in (query, key, value))
            hidden = torch.full((group.length, group.length), float("-inf"), dtype=q.dtype, device=q.device).triu_(1)
            scores = torch.baddbmm(hidden, q, k.transpose(1, 2), alpha=scale)
            weights = torch.softmax(scores, -1, dtype=torch.float32).to(q.dtype)
            outputs.append(torch.bmm(weights, v).view(-1, width))
            saved += [q, k, v, weights]
        ctx.save_for_backward(*saved)
        ctx.packing, ctx.scale = packing, scale
        return torch.cat(outputs).index_select(0, inverse).view(query.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        heads, width = gradient.shape[1:]
        groups, inverse = ctx.packing.by_heads(heads)
        gradient = gradient.contiguous().view(-1, width)
        d_queries, d_keys, d_values = [], [], []
        for i, (_, rows, padding) in enumerate(groups):
            q, k, v, weights = ctx.saved_tensors[4 * i : 4 * i + 4]
            d_output = gradient.index_select(0, rows)
            d_output = d_output.index_fill_(0, padding, 0).view(q.shape)  # padding's outputs were dropped
            d_values.append(torch.bmm(weights.transpose(1, 2), d_output).view(-1, width))
            d_weights = torch.bmm(d_output, v.transpose(1, 2))
            d_scores = torch.ops.aten._softmax_backward_data(d_weights, weights, -1, weights.dtype).mul_(ctx.scale)
            d_queries.append(torch.bmm(d_scores, k).view(-1, width))
            d_keys.append(torch.bmm(d_scores.transpose(1, 2), q).view(-1, width))
        parts = (torch.cat(part).index_select(0, inverse) for part in (d_queries, d_keys, d_values))
        return *(part.view(-1, heads, width) for part in parts), None, None


def _fused_attention(query: Tensor, key: Tensor, value: Tensor, packing: Packing, scale: float) -> Tensor:
    """The same through the fused kernel, one call a group; (T, H, E) three times -> (T, H, E)."""
    outputs = []
    for group in packing.groups:
        shape = (group.count, group.length, *query.shape[1:])
        q, k, v = (x.index_select(0, group.rows).view(shape).transpose(1, 2) for x in (query, key, value))
        output = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
        outputs.append(output.transpose(1, 2).reshape(-1, *query.shape[1:]))
    return torch.cat(outputs).index_select(0, packing.inverse)


def attend(query: Tensor, key: Tensor, value: Tensor, packing: Packing, scale: float) -> Tensor:
    """Causal attention inside each document: (T, H, E) three times -> (T, H, E)."""
    device = query.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else query.dtype
    q, k, v = (x.to(dtype).contiguous() for x in (query, key, value))
    if device == "cpu" and packing.groups[0].length < _FUSED_FROM:
        return _PlainAttention.apply(q, k, v, packing, scale)  # pyright: ignore[reportReturnType]
    return _fused_attention(q, k, v, packing, scale)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packing: Packing | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """The attention function of a transformers layer: (B, H, T, E) each -> (B, T, H, E).

    With `packing`, B is 1 and every document attends to itself alone. Without it, `attention_mask` (B, 1, T, S) says
    what is seen, for cached decoding; one of the two must be there, because a model that drops the keyword would let
    documents see each other.
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if softcap is not None or dropout:
        raise ValueError(
            "attention with soft-capped scores or dropout is not supported; choose another LLM (llm.name)."
        )
    longest = key.shape[2] if packing is None else packing.groups[0].length
    if sliding_window is not None and longest > sliding_window:
        raise ValueError(
            f"a document of {longest} tokens is longer than the LLM's sliding window of {sliding_window}; choose "
            "another LLM (llm.name)."
        )
    if query.shape[1] != key.shape[1]:  # grouped queries
        repeats = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    if packing is not None:
        output = attend(query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1), packing, scale)
        return output.unsqueeze(0), None
    if attention_mask is None:
        raise ValueError(
            f"{type(module).__name__} got neither a packing nor a mask; its model cannot be used (llm.name)."
        )
    key, value = key.to(query.dtype), value.to(query.dtype)
    output = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, scale=scale)
    return output.transpose(1, 2), None


def register() -> None:
    """Make `ATTENTION` known to transformers; masks are never built for it, and a 4-D mask passes as it is."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, packed_attention)
