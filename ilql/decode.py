"""Batched, cached, value-guided generation.

Axes: *S* slots, *C* new tokens, *L* cache columns, *V* vocabulary, *D* hidden width.

A speaker has a fixed number of slots, each holding one conversation. Every forward pass has one of two fixed shapes,
(S, C) for hearing and (S, 1) for speaking, and each slot's keys and values stand in its own row from column 0 on, so
what a slot says depends on its own conversation and not on what is in the slots beside it. Slots of different β,
temperature or scene share the passes. Conversations are never encoded twice: between turns only what is new is fed.

At most two transformers run: the language model, and the critic's or the judge's. V is not needed: it shifts the scores
of all tokens alike.

A judge ranks whole utterances: candidates are drawn one after the other in the same slot, each heard to its end and
judged there, and the slot goes back to where it was. A slot whose candidate has ended begins its next one at once: its
passes add up to its own candidates' lengths, and not to the longest of every slot's.

Voices that have heard and said the same share a slot, until one of them chooses another token: it parts from the slot
with a copy of the conversation, and goes on in a slot of its own as if it had been there from the beginning. Betas on
one checkpoint so pay for what is said differently, and no more.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ilql.choose import Knobs, choose, policy_inputs
from ilql.method import Actor, Decoding, Manner
from ilql.networks import context_length, trunk_of
from ilql.slot_cache import SlotCache
from ilql.tokens import Tokenizer

VERSION = 4
"""Raised when the same settings would say something else; part of every evaluation's key."""

CHUNK = 16
"""New tokens per hearing pass."""

BLOCK = 32
"""A speaking pass reads cache columns in blocks of so many, up to the last that it needs. A column that is masked adds
an exact zero, and whole blocks of them leave the order of every sum as it is: no bit moves with the length of other
slots. That holds for one token's attention, and not for a chunk's: beyond 192 columns MKL cuts the sum of several rows
into parts by its length. So a hearing pass reads all columns there are."""

LANGUAGE_MODEL, READER = slice(0, 1), slice(-1, None)
"""Of a speaker's transformers the first speaks; the last reads what a judge judges by. They may be one."""


@dataclass(frozen=True)
class Utterance:
    """What a slot said.

    Attributes:
        text: The words.
        tokens: The ids chosen, with the `eoa` that ended them if there was one.
        finished: True if it ended itself; False if it ran into its limit or the context's end.
        log_ratio: Σ log π(a) − log π_β(a) over its tokens: π the tilted distribution, π_β the untouched language
            model's. Of the best of N draws from π, log N − (N − 1)/N is added, the most its choice can add on average.
    """

    text: str
    tokens: tuple[int, ...]
    finished: bool
    log_ratio: float


@dataclass(frozen=True)
class Voice:
    """How one slot speaks now.

    Attributes:
        slot: Which slot.
        decode: The decoding settings.
        manner: What is added to the language model.
        generator: Draws one uniform number per token if it does not decode greedily. A voice that shares its slot has
            one of its own, too.
    """

    slot: int
    decode: Decoding
    manner: Manner
    generator: np.random.Generator


@dataclass(frozen=True)
class Draft:
    """An utterance that was drawn and not yet said.

    Attributes:
        tokens: The ids chosen, with the `eoa` that ended them if there was one.
        finished: True if it ended itself.
        log_ratio: As an utterance's.
        log_probability: Σ log π_β(a) over its tokens.
        last: The reader's hidden state at its `eoa`, shape (D,).
        mean: The mean of the reader's hidden states of the whole conversation up to there, shape (D,).
    """

    tokens: tuple[int, ...]
    finished: bool
    log_ratio: float
    log_probability: float
    last: Tensor
    mean: Tensor


@dataclass
class _Drawing:
    """A draft in the making: what was chosen so far, whether that is all, and what of it is still to be fed.

    Attributes:
        slot: Where.
        numbers: Whose it is: the numbers of the voices, of which all have chosen the same so far.
        room: How many tokens the context has for it.
        log_ratios: Of every one of these voices, as an utterance's.
        log_probabilities: The same of log π_β.
    """

    slot: int
    numbers: list[int]
    room: int
    whole: bool
    unfed: list[int]
    said: list[int]
    log_ratios: list[float]
    log_probabilities: list[float]

    def drafts(self, *, ended: bool) -> dict[int, Draft]:
        nothing = torch.zeros(0)
        return {
            number: Draft(tuple(self.said), ended, ratio, probability, nothing, nothing)
            for number, ratio, probability in zip(self.numbers, self.log_ratios, self.log_probabilities, strict=True)
        }

    def part(self, places: Sequence[int]) -> _Drawing:
        """The draft of some of its voices, by their places among `numbers`."""
        return dataclasses.replace(
            self,
            numbers=[self.numbers[place] for place in places],
            unfed=[*self.unfed],
            said=[*self.said],
            log_ratios=[self.log_ratios[place] for place in places],
            log_probabilities=[self.log_probabilities[place] for place in places],
        )


@dataclass(frozen=True)
class Asked:
    """Stands, among the ids a slot hears, for the return it is asked for."""

    target_return: float


@dataclass
class Conversation:
    """A conversation that stands in no slot: what parted from one, and is to go on in another.

    Attributes:
        length: Its tokens that every transformer has read.
        states: Keys and values of every transformer, layer by layer.
        sum: Of the reader's hidden states, shape (D,).
        pending: What it has heard since.
        begun: The utterance it is in the middle of, if it is in one.
    """

    length: int
    states: list[list[tuple[Tensor, Tensor]]]
    sum: Tensor
    pending: list[int | Asked]
    begun: _Drawing | None = None

    def copy(self) -> Conversation:
        """The same, for others who hear something else from here on."""
        return dataclasses.replace(self, pending=[*self.pending])

    def hear(self, ids: Sequence[int]) -> None:
        """Tokens the conversation goes on with."""
        self.pending += ids


@dataclass(frozen=True)
class Spoken:
    """What came of one voice that was to speak.

    Attributes:
        utterance: What it said; None if it is in the middle of it, and has to be let finish it.
        apart: Its conversation from now on if it parted from its slot; the same object for all that parted together.
    """

    utterance: Utterance | None
    apart: Conversation | None = None


@dataclass(frozen=True)
class _Place:
    """Where the conversations of all slots are: lengths, every transformer's last states, sums of the reader's."""

    lengths: list[int]
    last: list[Tensor]
    sum: Tensor


class Speaker:
    """Conversations in slots, spoken by one actor.

    Args:
        actor: The networks.
        tokenizer: Theirs.
        slots: S. Part of what decides an evaluation to the last bit, so a constant.
        device: Where the networks are.
        keep_mean: Keep the mean of the reader's hidden states for drafts also where no judge asks for it.
    """

    def __init__(
        self, actor: Actor, tokenizer: Tokenizer, *, slots: int, device: torch.device, keep_mean: bool = False
    ) -> None:
        self._language_model = actor.language_model.to(device).eval()
        self._critic, self._judge, self._condition = actor.critic, actor.judge, actor.condition
        self._relative = actor.relative
        for part in (actor.critic, actor.judge):
            if isinstance(part, nn.Module):
                part.to(device).eval()
        self._tokenizer = tokenizer
        self._slots, self._device = slots, device
        self._capacity = context_length(self._language_model)
        columns = self._capacity + CHUNK  # room behind the context for the padding of a chunk
        readers = [None if part is None else part.trunk for part in (self._critic, self._judge)]
        self._trunks: list[tuple[nn.Module, SlotCache]] = [
            (trunk, SlotCache(slots, columns))
            for trunk in [trunk_of(self._language_model), *(reader for reader in readers if reader is not None)]
        ]
        self._columns = torch.arange(columns, device=device)
        # On the host, which asks for them at every pass: a device would have to be waited for.
        self._lengths = [0] * slots
        self._begun: dict[int, _Drawing] = {}
        self._pending: list[list[int | Asked]] = [[] for _ in range(slots)]
        embeddings = [trunk.get_input_embeddings().weight for trunk, _ in self._trunks]  # type: ignore[operator]
        self._last: list[Tensor] = [weight.new_zeros(slots, weight.shape[1]) for weight in embeddings]
        self._keeps_mean = keep_mean or self._judge is not None
        self._sum = torch.zeros_like(self._last[-1])
        self._writable = torch.from_numpy(tokenizer.writable()).to(device)

    @torch.inference_mode()  # as whatever made the tensors it writes into
    def restart(self, slot: int) -> None:
        """Forget the slot's conversation."""
        self._lengths[slot] = 0
        self._pending[slot] = []
        self._begun.pop(slot, None)
        self._sum[slot] = 0

    @torch.inference_mode()
    def copy(self, slot: int) -> Conversation:
        """The slot's conversation as one that can go on in another slot."""
        assert slot not in self._begun, "a voice finishes its utterance before anything else is done with it"
        return self._copied(slot, [*self._pending[slot]])

    def _copied(self, slot: int, pending: list[int | Asked], begun: _Drawing | None = None) -> Conversation:
        length = min(self._lengths[slot], self._capacity)
        states = [cache.copy(slot, length) for _, cache in self._trunks]
        return Conversation(self._lengths[slot], states, self._sum[slot].clone(), pending, begun)

    @torch.inference_mode()
    def put(self, slot: int, conversation: Conversation) -> None:
        """Let a conversation that stands in no slot go on in this one, in the place of whatever is there."""
        for (_, cache), states in zip(self._trunks, conversation.states, strict=True):
            cache.put(slot, states)
        self._lengths[slot] = conversation.length
        self._sum[slot] = conversation.sum
        self._pending[slot] = [*conversation.pending]
        self._begun.pop(slot, None)
        if conversation.begun is not None:
            self._begun[slot] = conversation.begun

    def ask(self, slot: int, target_return: float) -> None:
        """Ask the slot for a return, at this place of its conversation."""
        assert self._condition is not None, "only a policy that was trained with returns can be asked for one"
        self._pending[slot].append(Asked(target_return))

    def hear(self, slot: int, ids: Sequence[int]) -> None:
        """Tokens the slot's conversation goes on with, before it speaks next."""
        self._pending[slot] += ids

    def speak(self, voices: Sequence[Voice]) -> list[Utterance]:
        """One utterance from each of the given slots, each of which must have heard something new.

        All of them rank candidates, or none does. No two share a slot.
        """
        utterances = [spoken.utterance for spoken in self.speak_together(voices)]
        assert all(utterance is not None for utterance in utterances), "voices that part are for `speak_together`"
        return [utterance for utterance in utterances if utterance is not None]

    @torch.inference_mode()
    def speak_together(self, voices: Sequence[Voice], *, impatience: int = 0) -> list[Spoken]:
        """As `speak`, where voices that have heard and said the same may share a slot.

        What each says is, bit by bit, what it would have said in a slot of its own. The voices of a slot whose
        utterance was begun finish it; they must stand in the order they had when they parted.

        Args:
            voices: Who speaks. Those that rank candidates have slots of their own.
            impatience: Return as soon as no more slots than these are in the middle of an utterance; never of those
                that rank candidates.
        """
        room = self._hear_pending(voices)
        if self._judge is not None:
            drafts = self._draw_best(voices, room)
            for v, draft in zip(voices, drafts, strict=True):
                self._pending[v.slot] = [*draft.tokens, *self._missing_end(draft.tokens)]
            return [Spoken(self._utterance(draft)) for draft in drafts]
        betas, once = [v.manner.beta for v in voices], [1] * len(voices)
        drawn, apart = self._draw(voices, room, betas, once, impatience=impatience)
        for number, (v, own) in enumerate(zip(voices, drawn, strict=True)):
            if own and number not in apart:
                # The last token is not fed yet: it goes with the world's answer, in one pass.
                self._pending[v.slot] = self._unfed_end(own[0].tokens)
        return [Spoken(self._utterance(own[0]) if own else None, apart.get(number)) for number, own in enumerate(drawn)]

    def _utterance(self, draft: Draft) -> Utterance:
        return Utterance(self._tokenizer.decode(draft.tokens), draft.tokens, draft.finished, draft.log_ratio)

    def _unfed_end(self, tokens: Sequence[int]) -> list[int | Asked]:
        return [*tokens[-1:], *self._missing_end(tokens)]

    @torch.inference_mode()
    def propose(self, voices: Sequence[Voice], count: int) -> list[list[Draft]]:
        """So many utterances of the language model from each of the given slots, none of them said.

        The slots stay where they are: they can speak, hear what somebody else says, or propose again.
        """
        return self._propose(voices, self._hear_pending(voices), [count] * len(voices))

    def _propose(self, voices: Sequence[Voice], room: Mapping[int, int], counts: Sequence[int]) -> list[list[Draft]]:
        """So many proposals of each slot, each heard to its end by its reader, and every slot back where it was."""
        home, reads_itself = self._place(), len(self._trunks) == 1
        drawn, _ = self._draw(
            voices, room, [0.0] * len(voices), counts, transformers=LANGUAGE_MODEL, to_the_end=reads_itself
        )
        drafts = {v.slot: own for v, own in zip(voices, drawn, strict=True)}
        self._go_back(home, [v.slot for v in voices])
        if not reads_itself:
            for number in range(max(counts)):
                self._read({slot: proposed[number] for slot, proposed in drafts.items() if number < len(proposed)})
                for slot, proposed in drafts.items():
                    proposed[number : number + 1] = [self._with_states(d, slot) for d in proposed[number : number + 1]]
                self._go_back(home, list(drafts))
        return [drafts[v.slot] for v in voices]

    def _read(self, drafts: Mapping[int, Draft]) -> None:
        """Let the reader hear some slots' drafts to their ends."""
        rest = {slot: [*draft.tokens, *self._missing_end(draft.tokens)] for slot, draft in drafts.items()}
        while waiting := {slot: tokens[:CHUNK] for slot, tokens in rest.items() if tokens}:
            self._forward(waiting, width=CHUNK, transformers=READER)
            rest = {slot: tokens[CHUNK:] for slot, tokens in rest.items()}

    def _with_states(self, draft: Draft, slot: int) -> Draft:
        """The draft with what its reader, who has just heard it in this slot, makes of it."""
        mean = self._sum[slot] / torch.tensor(max(1, self._lengths[slot]), device=self._device)
        return dataclasses.replace(draft, last=self._last[-1][slot].clone(), mean=mean)

    def _place(self) -> _Place:
        return _Place([*self._lengths], list(self._last), self._sum.clone())

    def _go_back(self, place: _Place, slots: Sequence[int]) -> None:
        """Take some slots back to where they were; what stands in the caches behind that is written over."""
        rows = torch.tensor(slots, dtype=torch.long, device=self._device)
        for slot in slots:
            self._lengths[slot] = place.lengths[slot]
        self._sum[rows] = place.sum[rows]
        for now, before in zip(self._last, place.last, strict=True):
            now[rows] = before[rows]

    def _draw_best(self, voices: Sequence[Voice], room: Mapping[int, int]) -> list[Draft]:
        """Of each slot's proposals the one the judge likes best, the first of several."""
        assert self._judge is not None
        best: dict[int, tuple[float, Draft]] = {}
        proposed = self._propose(voices, room, [v.manner.candidates for v in voices])
        for number in range(max(v.manner.candidates for v in voices)):
            drafts = {v.slot: own[number] for v, own in zip(voices, proposed, strict=True) if number < len(own)}
            # Every slot's row, since the shape of a matrix product can move a bit.
            filling = next(iter(drafts.values()))
            rows = [drafts.get(slot, filling) for slot in range(self._slots)]
            last, mean = (torch.stack(states) for states in zip(*((d.last, d.mean) for d in rows), strict=True))
            judged = self._judge.score(last, mean).tolist()
            for v in voices:
                if v.slot not in drafts:
                    continue
                draft = drafts[v.slot]
                score = judged[v.slot] + v.manner.log_prob_weight * draft.log_probability
                if v.slot not in best or score > best[v.slot][0]:
                    n = 1 if v.decode.greedy else v.manner.candidates  # greedy ones are all the same
                    best[v.slot] = score, dataclasses.replace(draft, log_ratio=_best_of(n) + draft.log_ratio)
        return [best[v.slot][1] for v in voices]

    def _missing_end(self, tokens: Sequence[int]) -> list[int]:
        end = self._tokenizer.structural("eoa")
        return [] if [*tokens[-1:]] == [end] else [end]

    def _draw(
        self,
        voices: Sequence[Voice],
        room: Mapping[int, int],
        betas: Sequence[float],
        counts: Sequence[int],
        *,
        transformers: slice = slice(None),
        to_the_end: bool = False,
        impatience: int = 0,
    ) -> tuple[list[list[Draft]], dict[int, Conversation]]:
        """So many drafts of each voice, drawn one after the other from where its slot is; none waits for another's.

        A slot is left behind its last draft, whose last token is not fed. With `to_the_end` every draft is fed whole,
        its end with it where it has none, and what the last transformer makes of it is kept. Voices that share a slot
        draw one draft each, and not to the end.

        Returns:
            The drafts, in the voices' order; none of a voice that is in the middle of it. And
            the conversations of those that parted, by the voice's number.
        """
        knobs, home = _knobs(voices, betas, self._device), self._place()
        sharing: dict[int, list[int]] = {}
        for number, v in enumerate(voices):
            sharing.setdefault(v.slot, []).append(number)
        assert len(sharing) == len(voices) or (max(counts) == 1 and not to_the_end)
        drafts: list[list[Draft]] = [[] for _ in voices]
        apart: dict[int, Conversation] = {}

        def begin(slot: int) -> _Drawing:
            numbers, zeros = sharing[slot], [0.0] * len(sharing[slot])
            if (begun := self._begun.pop(slot, None)) is not None:
                assert len(begun.numbers) == len(numbers)
                return dataclasses.replace(begun, slot=slot, numbers=[*numbers])
            whole = room[slot] == 0
            rest = self._missing_end(()) if to_the_end and whole else []
            return _Drawing(slot, [*numbers], room[slot], whole, rest, [], [*zeros], [*zeros])

        drawing = {slot: begin(slot) for slot, numbers in sharing.items() if counts[numbers[0]]}
        while drawing and (len(drawing) > impatience or not any(drafts)):
            choosing = [d for d in drawing.values() if not d.whole and not d.unfed]
            staying, parting = self._choose_for(choosing, voices, knobs, to_the_end=to_the_end)
            drawing |= {d.slot: d for d in staying}
            for d in parting:
                # What is in the slot now is what all of its voices have said; the next pass writes only behind that.
                pending, begun = (self._unfed_end(d.said), None) if d.whole else ([], d)
                apart |= dict.fromkeys(d.numbers, self._copied(d.slot, pending, begun))
                for number, draft in d.drafts(ended=not self._missing_end(d.said)).items() if d.whole else ():
                    drafts[number].append(draft)
            feeding = {slot: [d.unfed.pop(0)] for slot, d in drawing.items() if d.unfed}
            if feeding:
                self._forward(feeding, width=1, transformers=transformers)
            again = []
            for slot, d in [*drawing.items()]:
                if d.whole and not d.unfed:
                    for number, draft in d.drafts(ended=not self._missing_end(d.said)).items():
                        drafts[number].append(self._with_states(draft, slot) if to_the_end else draft)
                    del drawing[slot]
                    first = d.numbers[0]
                    if len(drafts[first]) < counts[first]:
                        again.append(slot)
            if again:
                self._go_back(home, again)
                drawing |= {slot: begin(slot) for slot in again}
        self._begun |= drawing
        return drafts, apart

    def _choose_for(
        self, drawing: Sequence[_Drawing], voices: Sequence[Voice], knobs: Knobs, *, to_the_end: bool
    ) -> tuple[list[_Drawing], list[_Drawing]]:
        """One token more for each of these drafts: what goes on in the slots, and what parts from them."""
        if not drawing:
            return [], []
        numbers = [number for d in drawing for number in d.numbers]
        chosen = iter(self._choose(voices, numbers, knobs))
        staying, parting = [], []
        for d in drawing:
            ways: dict[tuple[int, bool], list[int]] = {}
            for place, number in enumerate(d.numbers):
                token, ratio, base = next(chosen)
                d.log_ratios[place] += ratio
                d.log_probabilities[place] += base
                at_limit = len(d.said) + 1 == min(voices[number].decode.max_new_tokens, d.room)
                ways.setdefault((token, at_limit or not self._missing_end((token,))), []).append(place)
            parts = [d.part(places) for places in ways.values()] if len(ways) > 1 else [d]
            for part, (token, whole) in zip(parts, ways, strict=True):
                part.said.append(token)
                part.whole = whole
                if not whole:
                    part.unfed = [token]
                elif to_the_end:
                    part.unfed = [token, *self._missing_end(part.said)]
            stays = max(parts, key=lambda part: len(part.numbers))
            staying.append(stays)
            parting += [part for part in parts if part is not stays]
        return staying, parting

    def _hear_pending(self, voices: Sequence[Voice]) -> dict[int, int]:
        """Feed what the speaking slots have heard; returns how many tokens each may still say.

        A conversation that outgrows the context is heard no further and has nothing left to say.
        """
        for v in voices:
            if self._lengths[v.slot] + len(self._pending[v.slot]) > self._capacity:
                self._pending[v.slot] = []
                self._lengths[v.slot] = self._capacity
        while waiting := {v.slot: self._pending[v.slot][:CHUNK] for v in voices if self._pending[v.slot]}:
            self._forward(waiting, width=CHUNK)
            for slot in waiting:
                del self._pending[slot][:CHUNK]
        # The last token said is never fed alone, so a full context may still be left by one.
        return {v.slot: max(0, self._capacity - self._lengths[v.slot] - 1) for v in voices}

    def _forward(
        self, new: Mapping[int, Sequence[int | Asked]], *, width: int, transformers: slice = slice(None)
    ) -> None:
        """Feed up to `width` new tokens to some slots, and to some of the transformers; keep each one's last state."""
        fed_ids = [[0] * width for _ in range(self._slots)]
        lengths = [0] * self._slots
        asked: list[tuple[int, int, float]] = []
        for slot, tokens in new.items():
            lengths[slot] = len(tokens)
            for place, token in enumerate(tokens):
                if isinstance(token, Asked):
                    asked.append((slot, place, token.target_return))
                else:
                    fed_ids[slot][place] = token
        ids, counts = torch.tensor(fed_ids, device=self._device), torch.tensor(lengths, device=self._device)
        start = torch.tensor(self._lengths, device=self._device)
        columns = start[:, None] + self._columns[:width]
        used = len(self._columns)
        if width == 1:
            longest = max(self._lengths[slot] for slot in new) + 1
            used = min(-(-longest // BLOCK) * BLOCK, used)
        mask = (self._columns[:used] <= columns[..., None])[:, None]
        last = (counts - 1).clamp(min=0)[:, None, None]
        fed = (counts > 0)[:, None]
        places = range(len(self._trunks))
        for number in places[transformers]:
            trunk, cache = self._trunks[number]
            cache.positions, cache.used = columns, used
            hidden = trunk(
                **({"input_ids": ids} if number or self._condition is None else self._embedded(trunk, ids, asked)),
                attention_mask=mask,
                position_ids=columns.clamp(max=self._capacity - 1),
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
            state = hidden.gather(1, last.expand(-1, -1, hidden.shape[-1])).squeeze(1)
            self._last[number] = torch.where(fed, state, self._last[number])
            if self._keeps_mean and number == places[-1]:
                real = torch.arange(width, device=self._device) < counts[:, None]
                self._sum = self._sum + (hidden * real[..., None]).sum(1)
        for slot, tokens in new.items():
            self._lengths[slot] += len(tokens)

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

    def _choose(self, voices: Sequence[Voice], numbers: Sequence[int], knobs: Knobs) -> list[tuple[int, float, float]]:
        """For each of some voices a token, its log π − log π_β and its log π_β."""
        head = self._language_model.get_output_embeddings()  # type: ignore[operator]
        read = None if self._critic is None else self._last[1]
        logits, q = policy_inputs(head, self._critic, self._last[0], read, relative=self._relative)
        # Whole blocks of rows: a kernel may treat the end of a tensor otherwise than its middle.
        rows = [*numbers, *[numbers[0]] * (-len(numbers) % self._slots)]
        slots = torch.tensor([voices[number].slot for number in rows], device=self._device)
        drawn = [0.0 if voices[number].decode.greedy else voices[number].generator.random() for number in numbers]
        uniform = torch.tensor(drawn + [0.0] * (len(rows) - len(drawn)), dtype=torch.float64, device=self._device)
        tokens, log_ratio, log_base = choose(
            logits[slots],
            None if q is None else q[slots],
            self._writable,
            knobs.at(torch.tensor(rows, device=self._device)),
            uniform,
        )
        # One tensor, so that a device is waited for once; a double holds any id and any float.
        chosen = torch.stack([tokens.double(), log_ratio.double(), log_base.double()])[:, : len(numbers)].tolist()
        return [(int(token), ratio, base) for token, ratio, base in zip(*chosen, strict=True)]


def _best_of(n: int) -> float:
    """The largest expected log-ratio of the best of n draws to one of them."""
    return math.log(n) - (n - 1) / n


def _knobs(voices: Sequence[Voice], betas: Sequence[float], device: torch.device) -> Knobs:
    """Settings of the voices as tensors."""
    for beta in betas:
        if math.isnan(beta) or beta < 0:
            raise ValueError(f"beta must be at least 0, got {beta}")
    decodes = [v.decode for v in voices]
    after = [v.manner.filter_after for v in voices]
    return Knobs(
        torch.tensor(betas, dtype=torch.float32, device=device),
        torch.tensor([d.temperature for d in decodes], dtype=torch.float32, device=device),
        torch.tensor([d.top_k for d in decodes], device=device),
        torch.tensor([d.top_p for d in decodes], dtype=torch.float32, device=device),
        torch.tensor([d.greedy for d in decodes], device=device),
        torch.tensor(after, device=device) if any(after) else None,
        filters=any(d.top_k > 0 or d.top_p < 1 for d in decodes),
        draws=not all(d.greedy for d in decodes),
    )
