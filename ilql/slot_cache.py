"""Keys and values of conversations that stand at different places, as a transformer writes and reads them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache

CHUNK = 16
"""New tokens of a slot at most in a pass over all slots at once."""

BEHIND = 2 * CHUNK
"""Columns behind the context: an end that a full conversation lacks goes there, and a chunk's padding behind it.
Seventeen would do; devices want lengths that are multiples of 8."""


def columns_for(capacity: int) -> int:
    """Columns of a cache for conversations of so many tokens."""
    return capacity + BEHIND


class SlotCache(Cache):
    """Keys and values of S conversations, slot s holding its own from column 0 on, layer by layer."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    @abstractmethod
    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write a pass's keys and values, (B, H, C, D), D of its own each; give those that its tokens attend to."""

    @abstractmethod
    def copy(self, slot: int, length: int) -> list[tuple[Tensor, Tensor]]:
        """A slot's first `length` columns, layer by layer: keys and values."""

    @abstractmethod
    def put(self, slot: int, states: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Make what `copy` gave a slot's first columns."""

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Not meaningful: every slot has a length of its own, and positions are always given."""
        return 0
