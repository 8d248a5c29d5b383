"""All slots in every forward pass, a row each: how a device is kept busy, and how any transformer can be read.

Axes: *S* slots, *C* new tokens, *L* cache columns, *H* heads, *D* hidden width, or that of a head's keys, values.

Every pass has one of two fixed shapes, (S, C) for hearing and (S, 1) for speaking, and each slot's keys and values
stand in its own row from column 0 on, so what is made of a slot's conversation does not depend on what is beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from ilql.forward_pass import Asked, ForwardPass, Masks, NewTokens, Transformer
from ilql.slot_cache import CHUNK, SlotCache, columns_for

BLOCK = 32
"""A speaking pass reads cache columns in blocks of so many, up to the last that it needs. A column that is masked adds
an exact zero, and whole blocks of them leave the order of every sum as it is: no bit moves with the length of other
slots. That holds for one token's attention, and not for a chunk's: beyond 192 columns MKL cuts the sum of several rows
into parts by its length. So a hearing pass reads all columns there are."""


class Grid:
    """Passes over all slots at once.

    Args:
        slots: S.
        capacity: Tokens of a conversation that the context has room for.
        device: Where the networks are.

    Attributes:
        block: As every layout's.
    """

    def __init__(self, slots: int, capacity: int, device: torch.device) -> None:
        self._slots, self._capacity = slots, capacity
        self.block = slots
        self._columns = torch.arange(columns_for(capacity), device=device)

    def cache(self) -> GridCache:
        """An empty cache for one transformer."""
        return GridCache(self._slots, len(self._columns))

    def passes(self, new: NewTokens, lengths: Sequence[int], *, spoken: bool) -> Iterator[GridPass]:
        """The passes that feed these tokens, chunk by chunk."""
        width = 1 if spoken else CHUNK
        for begin in range(0, max(map(len, new.values())), width):
            chunk = {slot: tokens[begin : begin + width] for slot, tokens in new.items() if len(tokens) > begin}
            # Padding stands behind what its slot has heard by now, of which nothing may be written over.
            starts = [length + min(begin, len(new.get(slot, ()))) for slot, length in enumerate(lengths)]
            yield self._pass(chunk, starts, width)

    def _pass(self, new: NewTokens, starts: Sequence[int], width: int) -> GridPass:
        ids = [[0] * width for _ in starts]
        counts = [0] * self._slots
        asked: list[tuple[int, int, float]] = []
        for slot, tokens in new.items():
            counts[slot] = len(tokens)
            for place, token in enumerate(tokens):
                if isinstance(token, Asked):
                    asked.append((slot, place, token.target_return))
                else:
                    ids[slot][place] = token
        device = self._columns.device
        columns = torch.tensor(starts, device=device)[:, None] + self._columns[:width]
        used = len(self._columns)
        if width == 1:
            longest = max(starts[slot] for slot in new) + 1
            used = min(math.ceil(longest / BLOCK) * BLOCK, used)
        age = (columns[..., None] - self._columns[:used])[:, None]
        return GridPass(
            torch.tensor(ids, device=device),
            columns,
            asked,
            positions=columns.clamp(max=self._capacity - 1),
            counts=torch.tensor(counts, device=device),
            age=age,
        )


class GridPass(ForwardPass):
    """Up to C new tokens of every slot.

    Args:
        ids: Token ids, (S, C), padding behind each slot's own.
        columns: Where they go, (S, C).
        asked: Returns among them.
        positions: As `columns`, none of them behind the context.
        counts: How many tokens each slot has, (S,).
        age: By how many tokens each column comes before each token, (S, 1, C, L).
    """

    def __init__(
        self,
        ids: Tensor,
        columns: Tensor,
        asked: Sequence[tuple[int, int, float]],
        *,
        positions: Tensor,
        counts: Tensor,
        age: Tensor,
    ) -> None:
        super().__init__(ids, positions, asked)
        self._columns, self._counts, self._age = columns, counts, age
        self._mask = age >= 0
        self._end = (counts - 1).clamp(min=0)[:, None, None]
        self._fed = (counts > 0)[:, None]

    def ready(self, transformer: Transformer) -> AbstractContextManager[None]:
        """Tell the cache which columns."""
        cache = transformer.cache
        assert isinstance(cache, GridCache)
        cache.positions, cache.used = self._columns, self._age.shape[-1]
        return nullcontext()

    def masks(self, transformer: Transformer) -> Masks:
        """True where a token may be attended to."""
        return transformer.masks(self._mask, lambda window: self._mask & (self._age < window))

    def last(self, hidden: Tensor, before: Tensor) -> Tensor:
        """Of the slots that were fed their last token's."""
        state = hidden.gather(1, self._end.expand(-1, -1, hidden.shape[-1])).squeeze(1)
        return torch.where(self._fed, state, before)

    def added(self, total: Tensor, hidden: Tensor) -> Tensor:
        """Without padding's."""
        real = torch.arange(hidden.shape[1], device=hidden.device) < self._counts[:, None]
        return total + (hidden * real[..., None]).sum(1)


class GridCache(SlotCache):
    """Keys and values of shape (S, H, L, D), with a cursor per slot."""

    def __init__(self, slots: int, columns: int) -> None:
        super().__init__()
        self._shape = (slots, columns)
        self.positions = torch.zeros(slots, 1, dtype=torch.long)
        self.used = columns

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write (S, H, C, D) states at `positions` (S, C); give the first `used` columns."""
        slots, columns = self._shape
        if layer_idx == len(self._keys):
            for states, kept in ((key_states, self._keys), (value_states, self._values)):
                kept.append(states.new_zeros(slots, states.shape[1], columns, states.shape[3]))
        index = self.positions[:, None, :, None]
        self._keys[layer_idx].scatter_(2, index.expand_as(key_states), key_states)
        self._values[layer_idx].scatter_(2, index.expand_as(value_states), value_states)
        return self._keys[layer_idx][:, :, : self.used], self._values[layer_idx][:, :, : self.used]

    def copy(self, slot: int, length: int) -> list[tuple[Tensor, Tensor]]:
        """Shape (H, length, D) each."""
        pairs = zip(self._keys, self._values, strict=True)
        return [(keys[slot, :, :length].clone(), values[slot, :, :length].clone()) for keys, values in pairs]

    def put(self, slot: int, states: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Write them back."""
        for layer, (keys, values) in enumerate(states):
            self._keys[layer][slot, :, : keys.shape[1]] = keys
            self._values[layer][slot, :, : values.shape[1]] = values
