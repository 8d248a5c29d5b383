"""One forward pass over new tokens of conversations in slots, whatever shape it has.

Axes: *S* slots, *B* × *C* the shape in which a pass lays its tokens, *D* hidden width.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from ilql.language_model import FULL, SLIDING, text_config
from ilql.slot_cache import SlotCache


@dataclass(frozen=True)
class Asked:
    """Stands, among the ids a slot hears, for the return it is asked for."""

    target_return: float


Token: TypeAlias = int | Asked
NewTokens: TypeAlias = Mapping[int, Sequence[Token]]
"""What some slots' conversations go on with, by slot."""

Condition: TypeAlias = Callable[[Tensor], Tensor]
"""What embeds returns, shape (..., D) from (...)."""

Masks: TypeAlias = Tensor | dict[str, Tensor]
"""An attention mask, or one for each kind of layer, as Transformers takes them."""


@dataclass(frozen=True)
class Transformer:
    """One transformer and what it has read.

    Attributes:
        trunk: The network.
        cache: Its keys and values of all slots.
        config: Its configuration; asked for once, since that takes longer than a layer of a small one.
        kinds: The kinds of its layers, as far as they are named.
        window: How many tokens back sliding layers see, the token itself included; None if there are none.
    """

    trunk: nn.Module
    cache: SlotCache
    config: Any
    kinds: frozenset[str]
    window: int | None

    @classmethod
    def of(cls, trunk: nn.Module, cache: SlotCache) -> Transformer:
        """A transformer that has read nothing."""
        config = text_config(trunk)
        kinds = frozenset(getattr(config, "layer_types", None) or ())
        return cls(trunk, cache, config, kinds, None if kinds == {FULL} else getattr(config, "sliding_window", None))

    def masks(self, full: Tensor, near: Callable[[int], Tensor]) -> Masks:
        """Attention masks as its layers take them.

        Transformers narrows a mask of shape (B, T) by itself, and takes one of four axes as it is.

        Args:
            full: The mask of layers that see everything before.
            near: That of layers with a window of so many tokens.
        """
        if self.window is None:
            return full
        narrow = near(self.window)
        # Without kinds, as in Mistral, all layers are alike.
        return {FULL: full, SLIDING: narrow} if self.kinds else narrow


class Layout(Protocol):
    """How new tokens are laid into passes, and keys and values into caches.

    Attributes:
        block: Of how many slots' last states heads are to make something at a time: the shape of a product decides the
            last bits of what comes out.
    """

    block: int

    def cache(self) -> SlotCache:
        """An empty cache for one transformer."""

    def passes(self, new: NewTokens, lengths: Sequence[int], *, spoken: bool) -> Iterator[ForwardPass]:
        """The passes that feed these tokens, one after the other.

        Args:
            new: The tokens.
            lengths: How many every slot's conversation had before.
            spoken: They were chosen, one of each slot at the most, and not heard. The shape of a pass, which decides
                last bits, depends on that and on nothing else.
        """


class ForwardPass(ABC):
    """New tokens of some slots, and where they go.

    Args:
        ids: Token ids, (B, C); anything where a return stands, or nothing.
        positions: Their places in their conversations, as `ids`.
        asked: Returns that stand among them: where in B, where in C, and what.
    """

    def __init__(self, ids: Tensor, positions: Tensor, asked: Sequence[tuple[int, int, float]]) -> None:
        self._ids, self._positions, self._asked = ids, positions, asked

    def run(self, transformer: Transformer, condition: Condition | None) -> Tensor:
        """The hidden states, (B, C, D), keys and values being written into the transformer's cache.

        Args:
            transformer: Who reads.
            condition: What embeds returns, if it hears them.
        """
        trunk = transformer.trunk
        plain = {"input_ids": self._ids}
        tokens = plain if condition is None else {"inputs_embeds": self._embedded(trunk, condition)}
        with self.ready(transformer):
            hidden: Tensor = trunk(
                **tokens,
                attention_mask=self.masks(transformer),
                position_ids=self._positions,
                past_key_values=transformer.cache,
                use_cache=True,
            ).last_hidden_state
        return hidden

    @abstractmethod
    def ready(self, transformer: Transformer) -> AbstractContextManager[None]:
        """Make a transformer ready for this pass, for as long as it lasts."""

    @abstractmethod
    def masks(self, transformer: Transformer) -> Masks:
        """What its layers may attend to."""

    @abstractmethod
    def last(self, hidden: Tensor, before: Tensor) -> Tensor:
        """All slots' last hidden states, (S, D), from the pass's (B, C, D) and those before it, (S, D)."""

    @abstractmethod
    def added(self, total: Tensor, hidden: Tensor) -> Tensor:
        """The sums of all slots' hidden states, (S, D), from those before it and the pass's (B, C, D)."""

    def _embedded(self, trunk: nn.Module, condition: Condition) -> Tensor:
        """The ids as embeddings, (B, C, D), with those of the returns that are asked for."""
        wanted = torch.full(self._ids.shape, math.nan)
        for row, place, target_return in self._asked:
            wanted[row, place] = target_return
        wanted = wanted.to(self._ids.device)
        embeddings: Tensor = trunk.get_input_embeddings()(self._ids)  # type: ignore[operator]
        returns = condition(wanted.nan_to_num()).to(embeddings.dtype)
        return torch.where(wanted.isnan()[..., None], embeddings, returns)
