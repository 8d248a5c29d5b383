"""New tokens one below the other in every forward pass, whosever they are: how a CPU reads conversations.

Axes: *R* rows, *S* slots, *L* cache columns, *H* heads, *D* hidden width, or that of a head's keys or values.

A pass has one of two fixed numbers of rows, one for what is heard and one for what is spoken. A row is one token, and
attends to the keys and values of its own conversation, so what is made of it does not depend on what is in the other
rows. Slots that hear little and slots that hear much fill the same passes, and little of those is padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from ilql.forward_pass import Asked, ForwardPass, Masks, NewTokens, Token, Transformer
from ilql.row_attention import attend, write
from ilql.slot_cache import SlotCache, columns_for

MOST = 128
"""Rows of a pass at most: as many multiply as fast as any, and fewer are left over than of a larger pass. However many
slots there are beyond that, the shape of a pass, which decides last bits, is the same."""
LEAST = 16
"""Rows of a pass at least: what MKL makes of a row in a product of two depends on which of them it is."""

IMPLEMENTATION = "ilql_rows"
"""The name of `attend_by_rows` among Transformers' ways to attend."""


class Rows:
    """Passes over single tokens.

    Args:
        slots: S.
        capacity: Tokens of a conversation that the context has room for.

    Attributes:
        block: As every layout's.
    """

    def __init__(self, slots: int, capacity: int) -> None:
        self._slots, self._capacity = slots, capacity
        self.block, self._heard = (min(MOST, max(LEAST, rows)) for rows in (slots, 2 * slots))

    def cache(self) -> RowCache:
        """An empty cache for one transformer."""
        return RowCache(self._slots, columns_for(self._capacity))

    def passes(self, new: NewTokens, lengths: Sequence[int], *, spoken: bool) -> Iterator[RowPass]:
        """The passes that feed these tokens, as many in each as it has rows."""
        rows = self.block if spoken else self._heard
        fed = [(slot, lengths[slot] + place, token) for slot, own in new.items() for place, token in enumerate(own)]
        for begin in range(0, len(fed), rows):
            yield self._pass(fed[begin : begin + rows], rows)

    def _pass(self, fed: Sequence[tuple[int, int, Token]], rows: int) -> RowPass:
        # A kernel asks nobody whether it writes behind a cache.
        assert max(column for _, column, _ in fed) < columns_for(self._capacity)
        asked = [(row, 0, token.target_return) for row, (_, _, token) in enumerate(fed) if isinstance(token, Asked)]
        # Padding is a conversation of its own, behind all others, that never gets beyond its first token.
        padded = [*fed, *[(self._slots, 0, 0)] * (rows - len(fed))]
        places = [(slot, column, 0 if isinstance(token, Asked) else token) for slot, column, token in padded]
        slots, columns, ids = torch.tensor(places).T
        ends = {slot: row for row, (slot, _, _) in enumerate(fed)}
        positions = columns.clamp(max=self._capacity - 1)
        return RowPass(ids, slots, columns, asked, positions=positions, fed=len(fed), ends=ends)


class RowPass(ForwardPass):
    """R new tokens, those of one conversation in their order.

    Args:
        ids: Token ids, (R,).
        slots: Whose they are, (R,); S is padding.
        columns: Where they go, (R,).
        asked: Returns among them.
        positions: As `columns`, none of them behind the context.
        fed: How many are no padding; those stand before all padding.
        ends: The row of the last token of every slot that is fed.
    """

    def __init__(
        self,
        ids: Tensor,
        slots: Tensor,
        columns: Tensor,
        asked: Sequence[tuple[int, int, float]],
        *,
        positions: Tensor,
        fed: int,
        ends: dict[int, int],
    ) -> None:
        super().__init__(ids[:, None], positions[:, None], asked)
        self._slots, self._columns, self._fed = slots, columns, fed
        self._fed_slots, self._ends = torch.tensor([*ends]), torch.tensor([*ends.values()])
        self._spans = self._spans_from(torch.zeros_like(columns))

    @contextmanager
    def ready(self, transformer: Transformer) -> Iterator[None]:
        """Tell the cache which places, and let the transformer attend row by row."""
        cache, config = transformer.cache, transformer.config
        assert isinstance(cache, RowCache)
        cache.slots, cache.columns = self._slots, self._columns
        before = config._attn_implementation
        config._attn_implementation = IMPLEMENTATION
        try:
            yield
        finally:
            config._attn_implementation = before

    def masks(self, transformer: Transformer) -> Masks:
        """No masks, but the columns that every row attends to, as `attend` takes them, in the shape of a mask."""
        return transformer.masks(
            self._spans, lambda window: self._spans_from((self._columns + 1 - window).clamp(min=0))
        )

    def last(self, hidden: Tensor, before: Tensor) -> Tensor:
        """Of the slots that were fed their last token's."""
        return before.index_copy(0, self._fed_slots, hidden[self._ends, 0])

    def added(self, total: Tensor, hidden: Tensor) -> Tensor:
        """Without padding's, token by token."""
        return total.index_add(0, self._slots[: self._fed], hidden[: self._fed, 0])

    def _spans_from(self, first: Tensor) -> Tensor:
        return torch.stack([self._slots, first, self._columns + 1], dim=1)[:, None, None]


class RowCache(SlotCache):
    """Keys and values of shape (S + 1, L, H, D), the last slot being that of padding."""

    def __init__(self, slots: int, columns: int) -> None:
        super().__init__()
        self._shape = (slots + 1, columns)
        self.slots = self.columns = torch.zeros(0, dtype=torch.long)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write (R, H, 1, D) states at `slots` and `columns`, (R,) each; give the whole cache."""
        if layer_idx == len(self._keys):
            for states, kept in ((key_states, self._keys), (value_states, self._values)):
                kept.append(states.new_zeros(*self._shape, states.shape[1], states.shape[3]))
        keys, values = self._keys[layer_idx], self._values[layer_idx]
        write(keys, values, key_states[:, :, 0], value_states[:, :, 0], self.slots, self.columns)
        return keys, values

    def copy(self, slot: int, length: int) -> list[tuple[Tensor, Tensor]]:
        """Shape (length, H, D) each."""
        pairs = zip(self._keys, self._values, strict=True)
        return [(keys[slot, :length].clone(), values[slot, :length].clone()) for keys, values in pairs]

    def put(self, slot: int, states: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Write them back."""
        for layer, (keys, values) in enumerate(states):
            self._keys[layer][slot, : len(keys)] = keys
            self._values[layer][slot, : len(values)] = values


def attend_by_rows(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """`attend`, as Transformers calls it: query (R, H, 1, D), a row cache's keys and values, and spans (R, 1, 1, 3)."""
    assert others.get("softcap") is None
    assert others.get("position_bias") is None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    result = attend(query[:, :, 0], key, value, attention_mask[:, 0, 0], scale=scale)
    return result[:, None], None


AttentionInterface.register(IMPLEMENTATION, attend_by_rows)
