"""Optimizers for named parameters, and the learning-rate schedule. Configs: conf/optimizer.

Which parameters are *matrices* is decided by name and shape, once, for both optimizers (`is_matrix`): every parameter
of at least two dimensions whose last name ends in "weight" (linear layers, convolutions, projections of attention),
except those with "embed", "codebook" or "lm_head" in their name. What is left are biases, norms, embeddings, positions,
queries, temperatures and codebooks. Muon orthogonalizes the updates of matrices; both optimizers decay matrices alone.
"""

# pyright: reportPrivateImportUsage=false
# The _foreach_ functions are what torch's own optimizers are made of; torch does not list them as exports.

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw as adamw_step

NOT_MATRICES = ("embed", "codebook", "lm_head")
# Coefficients of the quintic iteration that pushes all singular values towards 1 (Jordan et al. 2024, Muon).
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)

NamedParameters = Iterable[tuple[str, Tensor]]


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Whether a parameter is a weight matrix in the sense of this module."""
    matrix = parameter.ndim >= 2 and name.split(".")[-1].endswith("weight")
    return matrix and not any(part in name for part in NOT_MATRICES)


def adamw(
    named_parameters: NamedParameters, *, lr: float, betas: tuple[float, float] = (0.9, 0.95), weight_decay: float = 0.0
) -> torch.optim.AdamW:
    """torch's AdamW; `weight_decay` applies to matrices alone."""
    matrices, others = split_matrices(named_parameters)
    beta1, beta2 = betas
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, betas=(beta1, beta2), fused=True)


def split_matrices(named_parameters: NamedParameters) -> tuple[list[tuple[str, Tensor]], list[tuple[str, Tensor]]]:
    """(matrices, others), each in the given order, without parameters that do not train."""
    trained = [(name, parameter) for name, parameter in named_parameters if parameter.requires_grad]
    if not trained:
        raise ValueError("no parameter trains: all are frozen, or the module has none.")
    return [pair for pair in trained if is_matrix(*pair)], [pair for pair in trained if not is_matrix(*pair)]


class Muon(torch.optim.Optimizer):
    """Orthogonalized momentum for matrices (Jordan et al. 2024, kellerjordan.github.io/posts/muon), AdamW for the rest.

    Convolutions count as matrices of (out, in * height * width). The update of a matrix is the Nesterov momentum with
    its singular values pushed to about 1 by five Newton-Schulz steps in bfloat16, times sqrt(max(1, rows / columns)).
    Matrices of one shape go through together.

    Args:
        lr, momentum, weight_decay: for matrices.
        adamw_lr, adamw_betas: for all other parameters, which do not decay.
    """

    def __init__(
        self,
        named_parameters: NamedParameters,
        *,
        lr: float = 0.02,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        adamw_lr: float = 3e-3,
        adamw_betas: tuple[float, float] = (0.9, 0.95),
        num_steps: int = 5,
    ):
        matrices, others = split_matrices(named_parameters)
        groups: list[dict[str, Any]] = [
            {"params": matrices, "orthogonal": True, "lr": lr, "momentum": momentum, "weight_decay": weight_decay},
            {"params": others, "orthogonal": False, "lr": adamw_lr, "betas": tuple(adamw_betas), "fused": True},
        ]
        super().__init__([group for group in groups if group["params"]], {"num_steps": num_steps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                (self._step_matrices if group["orthogonal"] else self._step_others)(parameters, group)
        return loss

    def _step_matrices(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        momenta = [self.state[parameter]["momentum"] for parameter in parameters]
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, gradients)
        updates = torch._foreach_add(gradients, momenta, alpha=group["momentum"])  # Nesterov
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for i, parameter in enumerate(parameters):
            by_shape.setdefault((parameter.shape[0], parameter[0].numel()), []).append(i)
        for (rows, columns), members in by_shape.items():
            stack = torch.stack([updates[i].reshape(rows, columns) for i in members])  # (n, rows, columns)
            steps = orthogonalize(stack, group["num_steps"]).to(parameters[members[0]].dtype)
            scale = -group["lr"] * max(1.0, rows / columns) ** 0.5
            chosen = [parameters[i] for i in members]
            torch._foreach_add_(chosen, [s.view(p.shape) for s, p in zip(steps, chosen, strict=True)], alpha=scale)

    def _step_others(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["exp_avg"] = torch.zeros_like(parameter)
                self.state[parameter]["exp_avg_sq"] = torch.zeros_like(parameter)
                self.state[parameter]["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
        states = [self.state[parameter] for parameter in parameters]
        beta1, beta2 = group["betas"]
        adamw_step(
            parameters,
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )


def orthogonalize(matrices: Tensor, num_steps: int = 5) -> Tensor:
    """(n, rows, columns) -> bfloat16 of the same shape with all singular values of each matrix in about [0.7, 1.2]."""
    a, b, c = NEWTON_SCHULZ
    x = matrices.bfloat16()
    wide = x.shape[-2] <= x.shape[-1]
    x = x if wide else x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)  # the iteration converges for singular values of at most 1
    for _ in range(num_steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.mT


def warmup_constant_linear(
    step: int, *, total_steps: int, warmup_steps: int = 0, decay_from: float = 0.5, final: float = 0.05
) -> float:
    """Factor of the learning rate at optimizer step `step` (0 is the first).

    Linear from 1 / (warmup_steps + 1), 1 until `decay_from` of the run, then linear down to `final` at its end.
    """
    start = decay_from * total_steps
    warmup = min(1.0, (step + 1) / (warmup_steps + 1))
    done = min(1.0, max(0.0, (step - start) / max(1.0, total_steps - start)))
    return warmup * (1 - (1 - final) * done)
