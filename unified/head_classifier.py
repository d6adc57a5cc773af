"""Image ids with an embedding and a classifier of their own, predicted one after another (Janus, LlamaGen, TiTok)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..tokenizers.base import ImageTokenizer
from .cross_entropy import linear_cross_entropy
from .packed_linear import PackedLinear


class ClassifierHead(nn.Module):
    """Next-token prediction of image ids.

    The input of an id is a learned embedding, plus a two-layer MLP of its frozen code vector, plus a learned vector for
    its place; the logits are linear in the hidden state. With `code_logits` a linear map of the hidden state is also
    compared with the code vectors, so that codes that look alike start with logits that are alike.

    Letters: K codes, L ids of an image, C width of a code vector, D width of the LLM.

    Args:
        tokenizer: read for its number of codes, its code vectors and the order of its ids. Its weights must be final.
        hidden_dim: D.
        code_logits: whether code vectors take part in the logits.

    Raises:
        ValueError: the tokenizer has no ids, or ids that are not predicted one after another, or no single vector
            for each code.
    """

    def __init__(self, *, tokenizer: ImageTokenizer, hidden_dim: int, code_logits: bool = True):
        super().__init__()
        _check(tokenizer)
        assert tokenizer.vocab_size is not None
        self.vocab_size = tokenizer.vocab_size
        self.num_tokens = tokenizer.num_tokens
        codes = code_vectors(tokenizer)
        self.register_buffer("codes", codes)  # (K, C), unit mean square
        self.codes: Tensor
        self.embedding = nn.Embedding(self.vocab_size, hidden_dim)
        self.code_first = nn.Linear(codes.shape[1], hidden_dim)
        self.code_second = nn.Linear(hidden_dim, hidden_dim)
        self.place_embedding = nn.Embedding(self.num_tokens, hidden_dim)
        self.classifier = nn.Linear(hidden_dim, self.vocab_size, bias=False)
        self.code_query = nn.Linear(hidden_dim, codes.shape[1], bias=False) if code_logits else None
        for table in (self.embedding, self.place_embedding, self.classifier):
            nn.init.normal_(table.weight, std=0.02)
        if self.code_query is not None:
            nn.init.normal_(self.code_query.weight, std=0.02)

    def table(self) -> Tensor:
        """What every code looks like to the LLM, place left out: (K, D)."""
        return self.embedding.weight + self.code_second(F.gelu(self.code_first(self.codes)))

    def inputs(self, ids: Tensor) -> Tensor:
        """Teacher forcing: ids (W, L) -> (W, L, D); row i embeds id i and predicts id i + 1."""
        return self._embed(ids.numel())(ids) + self.place_embedding.weight

    def _embed(self, count: int) -> Callable[[Tensor], Tensor]:
        """What ids look like, place left out; the MLP runs over all codes when `count` ids are more than those."""
        if count >= self.vocab_size:
            table = self.table()
            return lambda ids: F.embedding(ids, table)
        return lambda ids: self.embedding(ids) + self.code_second(F.gelu(self.code_first(F.embedding(ids, self.codes))))

    def weight(self) -> Tensor:
        """The classifier (K, D): logits are `hidden @ weight.T`."""
        if self.code_query is None:
            return self.classifier.weight
        return self.classifier.weight + self.codes @ self.code_query.weight

    def loss(self, hidden: Tensor, targets: Tensor, slots: Tensor, *, total: int | None = None) -> Tensor:
        """Mean cross-entropy in nats.

        Args:
            hidden: (n, D) hidden states of the supervised positions.
            targets: (n,) ids.
            slots: (n,) which of the L ids each target is; not needed by this head.
            total: divisor of the sum when it is not n.
        """
        return linear_cross_entropy(hidden, self.weight(), targets, total=total)

    def generate(
        self,
        hidden: Tensor,
        extend: Callable[[Tensor], Tensor],
        choose: Callable[[Tensor], Tensor],
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Write the ids of one image a row, (R, L).

        Args:
            hidden: (R, D) hidden states that predict the first id.
            extend: embeddings (R, 1, D) of the ids just written -> hidden states (R, 1, D) that predict the next.
            choose: logits (R, K) -> ids (R,).
            progress: called after every id with the ids so far and L.
        """
        embed = self._embed(len(hidden) * self.num_tokens)
        classify = PackedLinear(self.weight(), dtype=hidden.dtype, rows=len(hidden))
        ids = []
        for i in range(self.num_tokens):
            if i:
                hidden = extend((embed(ids[-1]) + self.place_embedding.weight[i - 1])[:, None])[:, 0]
            ids.append(choose(classify(hidden)))
            if progress is not None:
                progress(i + 1, self.num_tokens)
        return torch.stack(ids, 1)


def _check(tokenizer: ImageTokenizer) -> None:
    if tokenizer.vocab_size is None:
        raise ValueError(
            f"{type(tokenizer).__name__} has continuous latents and no ids; a classifier cannot write them (head)."
        )
    if any(length != 1 for length in tokenizer.step_lengths):
        lengths = ", ".join(map(str, tokenizer.step_lengths[:6]))
        raise ValueError(
            f"{type(tokenizer).__name__} predicts steps of {lengths}, ... ids; this head predicts one id after another "
            "(step_lengths all 1). Choose a tokenizer with next-token ids, or a head for next-scale prediction (head)."
        )
    if tokenizer.codes_per_position != 1:
        raise ValueError(
            f"{type(tokenizer).__name__} has {tokenizer.codes_per_position} codes per position; this head needs one "
            "(head)."
        )


@torch.no_grad()
def code_vectors(tokenizer: ImageTokenizer) -> Tensor:
    """The vector of every code, (K, C), scaled to unit mean square (that is sqrt(C) for l2-normalized codes).

    Raises:
        ValueError: a code stands for different vectors in different places.
    """
    assert tokenizer.vocab_size is not None
    size, length = tokenizer.vocab_size, tokenizer.num_tokens
    device = next(tokenizer.parameters(), torch.empty(0)).device
    ids = torch.arange(-(-size // length) * length, device=device) % size

    def vectors(shift: int) -> Tensor:
        latents = tokenizer.dequantize(ids.roll(shift).view(-1, length))
        if latents.shape[1] != length:
            raise ValueError(
                f"{type(tokenizer).__name__} makes {latents.shape[1]} latents from {length} ids; this head needs one "
                "latent for each id (head)."
            )
        return latents.flatten(0, 1).roll(-shift, 0)[:size].float()

    codes = vectors(0)
    if codes.device.type == "meta":
        return codes
    if not torch.allclose(codes, vectors(1), atol=1e-5):
        raise ValueError(
            f"the codes of {type(tokenizer).__name__} mean different vectors in different places; this head needs one "
            "vector for each code (head)."
        )
    return codes / codes.square().mean().sqrt().clamp_min(1e-6)
