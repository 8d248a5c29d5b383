"""Conversations in slots, as transformers have read them: how they are fed more, left, copied and taken back.

Axes: *S* slots, *D* hidden width.

A CPU reads new tokens row by row (`ilql.rows`), a device all slots at once (`ilql.grid`), as a CPU does of families and
types that cannot be read otherwise. In both what is made of a slot's conversation does not depend on what is in the
slots beside it. Conversations are never encoded twice: only what is new is fed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ilql.forward_pass import Layout, NewTokens, Transformer
from ilql.grid import Grid
from ilql.language_model import context_length, text_config, trunk_of
from ilql.method import Actor
from ilql.slot_cache import columns_for

LANGUAGE_MODEL, READER = slice(0, 1), slice(-1, None)
"""Of an actor's transformers the first speaks; the last reads what a judge judges by. They may be one."""

ROW_FAMILIES = frozenset(
    {"gpt2", "llama", "qwen2", "qwen3", "mistral", "gemma", "gemma3_text", "gpt_neox", "opt", "phi"}
)
"""Families of Transformers that hand a cache's keys and values on to attention as they come; the tests try every one.
Others do not: DiffLlama's would be other numbers, DeepSeek's an error. They are read by the grid."""


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
        trunks = _trunks_of(actor)
        self._layout = _layout(actor, count, self.capacity, device)
        self._transformers = [Transformer.of(trunk, self._layout.cache()) for trunk in trunks]
        embeddings = [trunk.get_input_embeddings().weight for trunk in trunks]  # type: ignore[operator]
        self.last: list[Tensor] = [weight.new_zeros(count, weight.shape[1]) for weight in embeddings]
        self._sum = torch.zeros_like(self.last[-1])

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def block(self) -> int:
        """Of how many slots' last states heads make something at a time; the shape decides last bits."""
        return self._layout.block

    @property
    def one_reads_all(self) -> bool:
        """True if the language model is the only transformer."""
        return len(self._transformers) == 1

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
        states = [transformer.cache.copy(slot, length) for transformer in self._transformers]
        return Reading(self.lengths[slot], states, self._sum[slot].clone())

    def put(self, slot: int, reading: Reading) -> None:
        """Let a conversation go on in this slot, in the place of whatever is there.

        Its last states are not part of it: something new has to be fed before anything is made of it.
        """
        for transformer, states in zip(self._transformers, reading.states, strict=True):
            transformer.cache.put(slot, states)
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

    def feed(self, new: NewTokens, *, spoken: bool, transformers: slice = slice(None)) -> None:
        """Feed new tokens to some slots and some transformers; keep each one's last state.

        Args:
            new: The tokens, one at least of every slot that is named.
            spoken: They were chosen, one of each slot, and not heard.
            transformers: Which of them.
        """
        places = range(len(self._transformers))
        for one in self._layout.passes(new, self.lengths, spoken=spoken):
            for number in places[transformers]:
                # Returns are for the language model's ears.
                hidden = one.run(self._transformers[number], self._condition if number == 0 else None)
                self.last[number] = one.last(hidden, self.last[number])
                if self._keeps_mean and number == places[-1]:
                    self._sum = one.added(self._sum, hidden)
        for slot, tokens in new.items():
            self.lengths[slot] += len(tokens)


def by_rows(actor: Actor, device: torch.device) -> bool:
    """Whether an actor's conversations are read row by row, which all of its transformers have to allow."""
    return all(reads_by_rows(trunk, device) for trunk in _trunks_of(actor))


def reads_by_rows(trunk: nn.Module, device: torch.device) -> bool:
    """Whether a transformer is read so: on a CPU, in float32, and of a family of which it is known to be right."""
    known = text_config(trunk).model_type in ROW_FAMILIES
    return known and device.type == "cpu" and all(p.dtype == torch.float32 for p in trunk.parameters())


def _layout(actor: Actor, count: int, capacity: int, device: torch.device) -> Layout:
    if not by_rows(actor, device):
        return Grid(count, capacity, device)
    from ilql.rows import Rows  # noqa: PLC0415  loads a compiler, which only who speaks on a CPU needs

    return Rows(count, capacity)


def slot_bytes(actor: Actor) -> int:
    """What keys and values of one conversation take, at full length."""
    columns = columns_for(context_length(actor.language_model))
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
