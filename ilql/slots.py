"""Conversations in slots, as transformers have read them: how they are fed more, left, copied and taken back.

Axes: *S* slots, *C* new tokens, *L* cache columns, *D* hidden width.

Every forward pass has one of two fixed shapes, (S, C) for hearing and (S, 1) for speaking, and each slot's keys and
values stand in its own row from column 0 on, so what is made of a slot's conversation does not depend on what is in the
slots beside it. Conversations are never encoded twice: only what is new is fed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ilql.language_model import FULL, SLIDING, context_length, text_config, trunk_of
from ilql.method import Actor
from ilql.slot_cache import SlotCache

CHUNK = 16
"""New tokens per hearing pass."""

BLOCK = 32
"""A speaking pass reads cache columns in blocks of so many, up to the last that it needs. A column that is masked adds
an exact zero, and whole blocks of them leave the order of every sum as it is: no bit moves with the length of other
slots. That holds for one token's attention, and not for a chunk's: beyond 192 columns MKL cuts the sum of several rows
into parts by its length. So a hearing pass reads all columns there are."""

LANGUAGE_MODEL, READER = slice(0, 1), slice(-1, None)
"""Of an actor's transformers the first speaks; the last reads what a judge judges by. They may be one."""


@dataclass(frozen=True)
class Asked:
    """Stands, among the ids a slot hears, for the return it is asked for."""

    target_return: float


@dataclass(frozen=True)
class Reading:
    """A conversation as the transformers have read it, taken out of its slot.

    Attributes:
        length: Its tokens that every transformer has read.
        states: Keys and values of every transformer, layer by layer.
        sum: Of the reader's hidden states, shape (D,).
    """

    length: int
    states: list[list[tuple[Tensor, Tensor]]]
    sum: Tensor


@dataclass(frozen=True)
class Place:
    """Where the conversations of all slots are: lengths, every transformer's last states, sums of the reader's."""

    lengths: list[int]
    last: list[Tensor]
    sum: Tensor


class Slots:
    """S conversations, read by the transformers of one actor.

    Whatever changes them runs under `torch.inference_mode`, as what made the tensors that are written into.

    Args:
        actor: The networks, on their device.
        count: S. Part of what decides an evaluation to the last bit, so a constant.
        device: Where the networks are.
        keep_mean: Keep the mean of the reader's hidden states.

    Attributes:
        capacity: Tokens of a conversation that the context has room for.
        lengths: Tokens read of each conversation. On the host, which asks for them at every pass: a device would have
            to be waited for.
        last: The hidden states of the last tokens, shape (S, D) of each transformer: the language model, then the
            critic's or the judge's.
    """

    def __init__(self, actor: Actor, *, count: int, device: torch.device, keep_mean: bool) -> None:
        self.capacity = context_length(actor.language_model)
        self.lengths = [0] * count
        self._device, self._keeps_mean, self._condition = device, keep_mean, actor.condition
        columns = self.capacity + CHUNK  # room behind the context for the padding of a chunk
        self._columns = torch.arange(columns, device=device)
        trunks = _trunks_of(actor)
        self._trunks: list[tuple[nn.Module, SlotCache]] = [(trunk, SlotCache(count, columns)) for trunk in trunks]
        embeddings = [trunk.get_input_embeddings().weight for trunk in trunks]  # type: ignore[operator]
        self.last: list[Tensor] = [weight.new_zeros(count, weight.shape[1]) for weight in embeddings]
        self._sum = torch.zeros_like(self.last[-1])

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def one_reads_all(self) -> bool:
        """True if the language model is the only transformer."""
        return len(self._trunks) == 1

    def restart(self, slot: int) -> None:
        """Forget the slot's conversation."""
        self.lengths[slot] = 0
        self._sum[slot] = 0

    def fill(self, slot: int) -> None:
        """Let the slot's conversation, which has outgrown the context, count as full."""
        self.lengths[slot] = self.capacity

    def copy(self, slot: int) -> Reading:
        """The slot's conversation as one that can go on in another slot."""
        length = min(self.lengths[slot], self.capacity)
        states = [cache.copy(slot, length) for _, cache in self._trunks]
        return Reading(self.lengths[slot], states, self._sum[slot].clone())

    def put(self, slot: int, reading: Reading) -> None:
        """Let a conversation go on in this slot, in the place of whatever is there.

        Its last states are not part of it: something new has to be fed before anything is made of it.
        """
        for (_, cache), states in zip(self._trunks, reading.states, strict=True):
            cache.put(slot, states)
        self.lengths[slot] = reading.length
        self._sum[slot] = reading.sum

    def place(self) -> Place:
        """Where everybody is, to go back to."""
        return Place([*self.lengths], list(self.last), self._sum.clone())

    def go_back(self, place: Place, slots: Sequence[int]) -> None:
        """Take some slots back to where they were; what stands in the caches behind that is written over."""
        rows = torch.tensor(slots, dtype=torch.long, device=self._device)
        for slot in slots:
            self.lengths[slot] = place.lengths[slot]
        self._sum[rows] = place.sum[rows]
        for now, before in zip(self.last, place.last, strict=True):
            now[rows] = before[rows]

    def reader_states(self, slot: int) -> tuple[Tensor, Tensor]:
        """The reader's hidden state at the slot's last token, and the mean over its conversation, shape (D,) each."""
        mean = self._sum[slot] / torch.tensor(max(1, self.lengths[slot]), device=self._device)
        return self.last[-1][slot].clone(), mean

    def feed(self, new: Mapping[int, Sequence[int | Asked]], *, width: int, transformers: slice = slice(None)) -> None:
        """Feed new tokens, at most `width` each, to some slots and some transformers; keep each one's last state."""
        fed_ids = [[0] * width for _ in self.lengths]
        lengths = [0] * len(self)
        asked: list[tuple[int, int, float]] = []
        for slot, tokens in new.items():
            lengths[slot] = len(tokens)
            for place, token in enumerate(tokens):
                if isinstance(token, Asked):
                    asked.append((slot, place, token.target_return))
                else:
                    fed_ids[slot][place] = token
        ids, counts = torch.tensor(fed_ids, device=self._device), torch.tensor(lengths, device=self._device)
        start = torch.tensor(self.lengths, device=self._device)
        columns = start[:, None] + self._columns[:width]
        used = len(self._columns)
        if width == 1:
            longest = max(self.lengths[slot] for slot in new) + 1
            used = min(math.ceil(longest / BLOCK) * BLOCK, used)
        age = (columns[..., None] - self._columns[:used])[:, None]
        mask = age >= 0
        last = (counts - 1).clamp(min=0)[:, None, None]
        fed = (counts > 0)[:, None]
        places = range(len(self._trunks))
        for number in places[transformers]:
            trunk, cache = self._trunks[number]
            cache.positions, cache.used = columns, used
            # Returns are for the language model's ears.
            by_embedding = number == 0 and self._condition is not None
            hidden = trunk(
                **(self._embedded(trunk, ids, asked) if by_embedding else {"input_ids": ids}),
                attention_mask=layered_mask(trunk, mask, age),
                position_ids=columns.clamp(max=self.capacity - 1),
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
            state = hidden.gather(1, last.expand(-1, -1, hidden.shape[-1])).squeeze(1)
            self.last[number] = torch.where(fed, state, self.last[number])
            if self._keeps_mean and number == places[-1]:
                real = torch.arange(width, device=self._device) < counts[:, None]
                self._sum = self._sum + (hidden * real[..., None]).sum(1)
        for slot, tokens in new.items():
            self.lengths[slot] += len(tokens)

    def _embedded(self, trunk: nn.Module, ids: Tensor, asked: Sequence[tuple[int, int, float]]) -> dict[str, Tensor]:
        """The ids as embeddings, shape (S, C, D), with those of the returns that are asked for: slot, place, return."""
        assert self._condition is not None
        wanted = torch.full(ids.shape, torch.nan)
        for slot, place, target_return in asked:
            wanted[slot, place] = target_return
        wanted = wanted.to(self._device)
        embeddings: Tensor = trunk.get_input_embeddings()(ids)  # type: ignore[operator]
        returns = self._condition(wanted.nan_to_num()).to(embeddings.dtype)
        return {"inputs_embeds": torch.where(wanted.isnan()[..., None], embeddings, returns)}


def slot_bytes(actor: Actor) -> int:
    """What keys and values of one conversation take, at full length."""
    columns = context_length(actor.language_model) + CHUNK
    total = 0
    for trunk in _trunks_of(actor):
        config = text_config(trunk)
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        element = trunk.get_input_embeddings().weight.element_size()  # type: ignore[operator]
        total += 2 * config.num_hidden_layers * heads * width * columns * element
    return total


def _trunks_of(actor: Actor) -> list[nn.Module]:
    """The transformers that run: the language model's, then the critic's or the judge's."""
    readers = [None if part is None else part.trunk for part in (actor.critic, actor.judge)]
    return [trunk_of(actor.language_model), *(reader for reader in readers if reader is not None)]


def layered_mask(trunk: nn.Module, mask: Tensor, age: Tensor) -> Tensor | dict[str, Tensor]:
    """An attention mask as a trunk takes it, some or all of whose layers may look back a limited number of tokens.

    Transformers narrows a mask of shape (B, T) by itself, and takes one of four axes as it is.

    Args:
        trunk: The transformer; its configuration says how far which layers look back.
        mask: True where a token may be attended to, shape (B, 1, T, L).
        age: By how many tokens it came before the one that attends, as `mask`; or what can be broadcast to it.
    """
    config = text_config(trunk)
    kinds = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None)
    if window is None or kinds == {FULL}:
        return mask
    near = mask & (age < window)
    return {FULL: mask, SLIDING: near} if kinds else near  # without kinds, as in Mistral, all layers are alike
