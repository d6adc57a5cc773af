"""Cross-entropy of a linear classifier that never holds the whole table of logits."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_CHUNK_LOGITS = 1 << 22  # logits held at a time, 16 MB in float32; fewer make adding up the weight's gradient the cost
_WHOLE_LOGITS = 1 << 21  # up to here one table is faster than chunks
_WEIGHT_ROWS = 4096  # rows of the weight's gradient added to at a time, each addition holding two copies of them


class _ChunkedCrossEntropy(torch.autograd.Function):
    """The summed loss, with the gradient formed chunk by chunk in the forward pass, where the logits are at hand."""

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:  # pyright: ignore
        rows = max(_CHUNK_LOGITS // weight.shape[0], 1)
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        cast_weight = weight.to(dtype)
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        d_hidden = torch.empty_like(hidden) if needs_hidden else None
        d_weight = torch.zeros_like(weight) if needs_weight else None
        for first in range(0, len(targets), rows):
            part = slice(first, first + rows)
            x, target = hidden[part].to(dtype), targets[part, None]
            logits = F.linear(x, cast_weight).float()
            logits.sub_(logits.amax(-1, keepdim=True))
            loss -= logits.gather(1, target).sum()
            total = logits.exp_().sum(-1, keepdim=True)
            loss += total.log().sum()
            if not (needs_hidden or needs_weight):
                continue
            logits.div_(total).scatter_add_(1, target, torch.full_like(target, -1, dtype=logits.dtype))
            d_logits = logits.to(dtype)
            del logits
            if d_hidden is not None:
                d_hidden[part] = d_logits @ cast_weight
            if d_weight is not None:
                for rows_of_weight, part_of_logits in zip(
                    d_weight.split(_WEIGHT_ROWS), d_logits.split(_WEIGHT_ROWS, 1), strict=True
                ):
                    rows_of_weight += part_of_logits.t() @ x
            del d_logits  # or the next chunk would be made beside this one
        ctx.save_for_backward(d_hidden, d_weight)
        ctx.spent = False
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if ctx.spent:
            raise RuntimeError("the gradients of this loss were scaled in place by the first backward pass.")
        ctx.spent = True
        parts = (None if part is None else part.mul_(gradient.to(part.dtype)) for part in ctx.saved_tensors)
        return *parts, None, None


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, *, total: int | None = None) -> Tensor:
    """Mean cross-entropy in nats of `softmax(hidden @ weight.T)` at `targets`, a float32 scalar.

    Args:
        hidden: (n, D), supervised positions only.
        weight: (V, D).
        targets: (n,) in [0, V).
        total: divisor of the sum, when the mean runs over more than these n (several micro-batches or processes).
    """
    total = max(len(targets), 1) if total is None else total
    device = hidden.device.type
    if len(targets) * weight.shape[0] <= _WHOLE_LOGITS:
        return F.cross_entropy(F.linear(hidden, weight).float(), targets, reduction="sum") / total
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    with torch.autocast(device, enabled=False):
        return _ChunkedCrossEntropy.apply(hidden, weight, targets, dtype) / total  # pyright: ignore
