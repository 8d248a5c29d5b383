"""Keys and values of conversations that stand at different places, each in a row of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache


class SlotCache(Cache):
    """Keys and values of S conversations, row s holding its own from column 0 on, with a cursor per slot."""

    def __init__(self, slots: int, columns: int) -> None:
        super().__init__(layers=[])
        self._shape = (slots, columns)
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self.positions = torch.zeros(slots, 1, dtype=torch.long)
        self.used = columns

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write (S, H, C, D) states at `positions` (S, C); give the first `used` columns. Values may have another D."""
        slots, columns = self._shape
        if layer_idx == len(self._keys):
            for states, kept in ((key_states, self._keys), (value_states, self._values)):
                kept.append(states.new_zeros(slots, states.shape[1], columns, states.shape[3]))
        index = self.positions[:, None, :, None]
        self._keys[layer_idx].scatter_(2, index.expand_as(key_states), key_states)
        self._values[layer_idx].scatter_(2, index.expand_as(value_states), value_states)
        return self._keys[layer_idx][:, :, : self.used], self._values[layer_idx][:, :, : self.used]

    def copy(self, slot: int, length: int) -> list[tuple[Tensor, Tensor]]:
        """A slot's first `length` columns, layer by layer: keys and values, shape (H, length, D / H) each."""
        pairs = zip(self._keys, self._values, strict=True)
        return [(keys[slot, :, :length].clone(), values[slot, :, :length].clone()) for keys, values in pairs]

    def put(self, slot: int, states: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Make what `copy` gave a slot's first columns."""
        for layer, (keys, values) in enumerate(states):
            self._keys[layer][slot, :, : keys.shape[1]] = keys
            self._values[layer][slot, :, : values.shape[1]] = values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Not meaningful: every slot has a length of its own, and positions are always given."""
        return 0
