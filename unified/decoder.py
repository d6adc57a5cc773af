"""Cached decoding for any transformers causal LM.

Letters: R rows decoded side by side, n new tokens a row, S slots of the cache in use, D width of the LLM.
"""

import torch
from torch import Tensor, nn


class CachedDecoder:
    """An LLM with a key-value cache, fed with embeddings block by block.

    Every `extend` appends n slots to the cache of all rows; rows shorter than the block are padded at its end and say
    so by `valid`. Padding is never attended to and does not count as a position, so a row decodes as it would alone.

    Args:
        llm: a transformers causal LM whose attention is `ATTENTION`.
        rows: R.
        capacity: slots of the cache.

    Raises:
        ValueError: `capacity` is more than the LLM's positions.
    """

    def __init__(self, llm: nn.Module, *, rows: int, capacity: int):
        check_length(llm, capacity)
        self.llm = llm
        self.capacity = capacity
        self.device = next(llm.parameters()).device
        self.valid = torch.zeros(rows, capacity, dtype=torch.bool, device=self.device)
        self.next_position = torch.zeros(rows, dtype=torch.int64, device=self.device)
        self.length = 0  # S
        self._has_padding = False
        self._allocate(rows)

    def _allocate(self, rows: int) -> None:
        from transformers import DynamicCache

        self._cache = DynamicCache()

    def extend(self, embeddings: Tensor, valid: Tensor | None = None) -> Tensor:
        """Append a block of embeddings (R, n, D) and give its hidden states (R, n, D).

        Args:
            valid: (R, n) bool, true in front; None when every token counts.
        """
        count = embeddings.shape[1]
        first, self.length = self.length, self.length + count
        assert self.length <= self.capacity, f"the cache of {self.capacity} slots is full"
        if valid is None:
            self.valid[:, first : self.length] = True
            positions = self.next_position[:, None] + torch.arange(count, device=self.device)
            self.next_position = self.next_position + count
        else:
            self._has_padding = True
            self.valid[:, first : self.length] = valid
            positions = self.next_position[:, None] + (valid.cumsum(1) - 1).clamp_min(0)
            self.next_position = self.next_position + valid.sum(1)
        return self._forward(embeddings, positions, self._mask(first, count))

    def _mask(self, first: int, count: int) -> Tensor | None:
        """What each new token sees, (R or 1, 1, n, S) bool; None when a single token sees all slots."""
        if count == 1:
            return self.valid[:, None, None, : self.length] if self._has_padding else None
        slots = torch.arange(self.length, device=self.device)
        causal = slots <= slots[first:, None]
        return causal & self.valid[:, None, None, : self.length] if self._has_padding else causal[None, None]

    def _forward(self, embeddings: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            mask = self.valid[:, None, None, : self.length]
        output = self.llm.base_model(  # pyright: ignore[reportCallIssue]
            inputs_embeds=embeddings,
            position_ids=positions,
            attention_mask=mask.expand(len(embeddings), -1, -1, -1),
            past_key_values=self._cache,
            use_cache=True,
        )
        return output.last_hidden_state

    def select(self, rows: Tensor) -> None:
        """Keep, drop or repeat rows: row i becomes what row `rows[i]` was."""
        self.valid = self.valid[rows]
        self.next_position = self.next_position[rows]
        self._select_cache(rows)

    def _select_cache(self, rows: Tensor) -> None:
        self._cache.batch_select_indices(rows)


def check_length(llm: nn.Module, length: int) -> None:
    """Raise ValueError when a document is longer than the LLM's positions."""
    longest: int = llm.config.max_position_embeddings  # pyright: ignore
    if length > longest:
        raise ValueError(f"a document of {length} tokens exceeds the LLM's {longest} positions (llm.max_length).")
