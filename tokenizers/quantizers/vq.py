"""Vector quantization with a codebook learned by gradient or as moving averages, and what keeps it from collapsing."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .entropy import entropy_loss
from .search import SearchTable, full_precision, nearest, search_table


class VectorQuantizer(nn.Module):
    """Nearest code of each vector (van den Oord et al. 2017, arXiv:1711.00937).

    With `normalize` vectors and codes are compared on the unit sphere (Yu et al. 2022, arXiv:2110.04627); codes are
    stored as learned and normalized at each use. `update="gradient"` learns the codebook by its loss term,
    `update="ema"` as moving averages of the vectors assigned to each code (appendix A.1 of the first paper).

    Two measures against collapse, both in training mode alone and both scheduled by `set_step`:
    until `unquantized_until` of the run vectors pass unquantized (ids are None), then the codebook is set to distinct
    vectors of one batch; until `revive_until` of the run, every `revive_every` steps, codes in little use are set to
    vectors of the batch. The random choices are a function of (seed, step), so a resumed run repeats them.

    Args:
        decay: of the moving averages, per step; usage is averaged with `update="gradient"` too, to see unused codes.
        unquantized_until, revive_until: fractions of the run in [0, 1); 0 turns the measure off.
        revive_below: a code is in little use below this fraction of the mean use.
        entropy_temperature: gives the loss "entropy" (entropy.py) at this temperature of squared distances, which costs
            memory for K numbers per vector. LlamaGen's implementation has 0.01; published models train without (None).
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(
        self,
        codebook_size: int,
        dim: int,
        *,
        normalize: bool,
        update: Literal["gradient", "ema"] = "gradient",
        decay: float = 0.99,
        unquantized_until: float = 0.0,
        revive_until: float = 0.0,
        revive_every: int = 10,
        revive_below: float = 0.03,
        entropy_temperature: float | None = None,
        seed: int = 0,
    ):
        super().__init__()
        if update not in ("gradient", "ema"):
            raise ValueError(
                f"update={update!r} is no way to learn a codebook; use 'gradient' or 'ema' (quantizer.update)."
            )
        for name, fraction in (("unquantized_until", unquantized_until), ("revive_until", revive_until)):
            if not 0 <= fraction < 1:
                raise ValueError(
                    f"{name}={fraction} is no fraction of the run; use 0 <= {name} < 1 (quantizer.{name})."
                )
        if codebook_size < 1 or dim < 1 or revive_every < 1 or not 0 <= decay < 1:
            raise ValueError(
                f"codebook_size={codebook_size}, dim={dim}, revive_every={revive_every} must be at least 1 and "
                f"decay={decay} in [0, 1) (quantizer)."
            )
        if entropy_temperature is not None and not entropy_temperature > 0:
            raise ValueError(
                f"entropy_temperature={entropy_temperature} must be above 0, such as 0.01; null goes without this loss "
                "(quantizer.entropy_temperature)."
            )
        self.codebook_size = codebook_size
        self.dim = dim
        self.normalize = normalize
        self.update = update
        self.decay = decay
        self.unquantized_until = unquantized_until
        self.revive_until = revive_until
        self.revive_every = revive_every
        self.revive_below = revive_below
        self.entropy_temperature = entropy_temperature
        self.seed = seed
        codebook = torch.empty(codebook_size, dim).uniform_(-1 / codebook_size, 1 / codebook_size)
        codebook = self.unit(codebook)
        self.register_buffer("counts", torch.ones(codebook_size))  # moving average of vectors per code and step
        if update == "ema":
            self.register_buffer("codebook", codebook)
            self.register_buffer("sums", codebook.clone())  # moving average of the sum of a code's vectors per step
        else:
            self.codebook = nn.Parameter(codebook)
        self._progress: tuple[int, int] | None = None  # (step, total_steps)
        self._table: SearchTable | None = None

    def set_step(self, step: int, total_steps: int) -> None:
        """Say which optimizer step comes next; needed before each training step if anything is scheduled."""
        self._progress = (step, total_steps)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """(..., C) -> (z_q (..., C), ids (...) int64, losses). Gradients pass straight through the choice.

        `losses`: "commitment" pulls vectors to codes; "codebook" pulls codes to vectors (absent with EMA). Both are
        means over all elements, without weights: the original VQGAN's weighting (1 and 0.25) and the paper's (0.25 and
        1) are a matter of the loss object. "entropy" is there if asked for. While vectors pass unquantized, ids are
        None and there are no losses.
        """
        z = self.unit(z.float())  # half-precision distances tie between neighboring codes
        vectors = z.detach().reshape(-1, self.dim)  # (N, C)
        if self.training:
            if self.is_unquantized():
                return z, None, {}
            if self.maintenance():
                self.maintain(vectors)
        z_q, ids, losses = self.quantize(z)
        if self.training:
            self.average(vectors, ids.reshape(-1))
        return z_q, ids, losses

    def unit(self, vectors: Tensor) -> Tensor:
        """(..., C) -> (..., C): vectors or codes as they are compared, of unit length if normalized."""
        return F.normalize(vectors, dim=-1) if self.normalize else vectors

    def quantize(self, z: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """`forward` for vectors that `unit` has been applied to; the codebook stays as it is."""
        ids = self.nearest_ids(z.detach().reshape(-1, self.dim)).view(z.shape[:-1])
        z_q = self.lookup(ids)
        losses = {"commitment": F.mse_loss(z, z_q.detach())}
        if self.update == "gradient":
            losses["codebook"] = F.mse_loss(z_q, z.detach())
        if self.entropy_temperature is not None:
            losses["entropy"] = entropy_loss(self.squared_distances(z), self.entropy_temperature)
        return z_q.detach() + (z - z.detach()), ids, losses  # adds exactly 0: the values are `lookup(ids)` to the bit

    def lookup(self, ids: Tensor) -> Tensor:
        """Ids (...) -> codes (..., C), of unit length if normalized."""
        return self.unit(F.embedding(ids, self.codebook).float())

    def squared_distances(self, z: Tensor) -> Tensor:
        """(..., C) vectors that `unit` has been applied to -> (..., K) distances to all codes, with gradients to both.

        For losses and soft assignments; the nearest code is `nearest_ids`, which needs no memory for all of them.
        """
        # Moving averages change the codebook before the backward pass, which needs it as it was here.
        codebook = self.codebook.clone() if self.update == "ema" else self.codebook
        with full_precision(z.device.type):
            z, codes = z.float(), self.unit(codebook.float())
            return z.square().sum(-1, keepdim=True) + codes.square().sum(-1) - 2 * z @ codes.T

    def nearest_ids(self, vectors: Tensor) -> Tensor:
        """(N, C) -> (N,) ids of the nearest codes. The prepared codebook is kept while it stays the same."""
        codebook = self.codebook.detach()
        if codebook.is_meta or self._table is None or not self._table.fits(codebook):
            self._table = search_table(codebook, normalize=self.normalize)
        return nearest(vectors, self._table)

    def _scheduled_step(self) -> tuple[int, int] | None:
        if self._progress is None and max(self.unquantized_until, self.revive_until) > 0:
            raise ValueError(
                "this quantizer has a schedule (unquantized_until, revive_until) and trains without knowing its step; "
                "call set_step(step, total_steps) before each training step."
            )
        return self._progress

    def is_unquantized(self) -> bool:
        """Whether vectors still pass as they are at this training step."""
        progress = self._scheduled_step()
        return progress is not None and progress[0] < int(self.unquantized_until * progress[1])

    def maintenance(self) -> Literal["fill", "revive"] | None:
        """What `maintain` does at this training step: fill the codebook as the unquantized start ends, revive codes."""
        if self._progress is None:
            return None
        step, total_steps = self._progress
        first = int(self.unquantized_until * total_steps)
        if step <= first:
            return "fill" if step == first and self.unquantized_until > 0 else None
        is_time = step < self.revive_until * total_steps and (step - first) % self.revive_every == 0
        return "revive" if is_time else None

    @torch.no_grad()
    def maintain(self, vectors: Tensor) -> None:
        """Set all codes, or those in little use, to vectors of the batch (N, C)."""
        if self.maintenance() == "fill":
            distinct = vectors.unique(dim=0)
            self._set_codes(torch.ones_like(self.counts, dtype=torch.bool), distinct, len(vectors) / self.codebook_size)
        else:
            mean = self.counts.mean()
            self._set_codes(self.counts < self.revive_below * mean, vectors, mean)

    def _set_codes(self, chosen: Tensor, vectors: Tensor, count: Tensor | float) -> None:
        """Set the chosen codes (K,) bool to random vectors, each drawn once while they last."""
        step = self._progress[0] if self._progress else 0
        # The generator keeps 32 bits of a seed, so both numbers have to be in the low ones.
        generator = torch.Generator().manual_seed((self.seed * 0x9E3779B1 + step) % 2**32)
        draws = -(-self.codebook_size // len(vectors))
        order = torch.cat([torch.randperm(len(vectors), generator=generator) for _ in range(draws)])
        codes = vectors[order[: self.codebook_size].to(vectors.device)]
        self.codebook.copy_(torch.where(chosen[:, None], codes, self.codebook))
        self.counts.copy_(torch.where(chosen, torch.as_tensor(count, device=chosen.device), self.counts))
        if self.update == "ema":
            self.sums.copy_(torch.where(chosen[:, None], codes * count, self.sums))

    @torch.no_grad()
    def average(self, vectors: Tensor, ids: Tensor) -> None:
        """One step of the moving averages from vectors (N, C) and their ids (N,); with EMA the codebook follows."""
        batch_counts = torch.zeros_like(self.counts).index_add_(0, ids, torch.ones_like(vectors[:, 0]))
        self.counts.lerp_(batch_counts, 1 - self.decay)
        if self.update == "ema":
            self.sums.lerp_(torch.zeros_like(self.sums).index_add_(0, ids, vectors), 1 - self.decay)
            # A code without vectors keeps its place: sum and count fade alike, and the quotient only until underflow.
            seen = self.counts[:, None] > 1e-8
            self.codebook.copy_(torch.where(seen, self.sums / self.counts[:, None].clamp(min=1e-8), self.codebook))
