"""Batched, cached, value-guided generation.

Axes: *S* slots, *V* vocabulary.

A speaker has a fixed number of slots, each holding one conversation (`ilql.slots`): what a slot says depends on its own
conversation and not on what is in the slots beside it. Slots of different β, temperature or scene share the passes.

At most two transformers run: the language model, and the critic's or the judge's. V is not needed: it shifts the scores
of all tokens alike.

A judge ranks whole utterances (`ilql.ranking`): candidates are drawn one after the other in the same slot, each heard
to its end and judged there, and the slot goes back to where it was. A slot whose candidate has ended begins its next
one at once: its passes add up to its own candidates' lengths, and not to the longest of every slot's.

Voices that have heard and said the same share a slot, until one of them chooses another token (`ilql.drafts`): it parts
from the slot with a copy of the conversation, and goes on in a slot of its own as if it had been there from the
beginning. Betas on one checkpoint so pay for what is said differently, and no more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ilql.choose import Knobs, choose, policy_inputs
from ilql.drafts import Choice, Draft, Drawing, missing_end
from ilql.forward_pass import Asked, NewTokens, Token
from ilql.method import Actor, Decoding, Manner
from ilql.ranking import favourites, most_gained
from ilql.slots import LANGUAGE_MODEL, READER, Reading, Slots
from ilql.tokens import Tokenizer

VERSION = 6
"""Raised when the same settings would say something else; part of every evaluation's key."""


@dataclass(frozen=True)
class Utterance:
    """What a slot said.

    Attributes:
        text: The words.
        tokens: The ids chosen, with the `eoa` that ended them if there was one.
        finished: True if it ended itself; False if it ran into its limit or the context's end.
        log_ratio: Σ log π(a) − log π_β(a) over its tokens: π what they were drawn from, tilted, or certainty where the
            slot is greedy; π_β the untouched language model's. Of the best of N draws from π, log N − (N − 1)/N is
            added, the most its choice can add on average.
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


@dataclass
class Conversation:
    """A conversation that stands in no slot: what parted from one, and is to go on in another.

    Attributes:
        reading: What the transformers have read of it.
        pending: What it has heard since.
        begun: The utterance it is in the middle of, if it is in one.
    """

    reading: Reading
    pending: list[Token]
    begun: Drawing | None = None

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
        for part in (actor.language_model, actor.critic, actor.judge):
            if isinstance(part, nn.Module):
                part.to(device).eval()
        self._actor, self._tokenizer, self._device = actor, tokenizer, device
        self._slots = Slots(actor, count=slots, device=device, keep_mean=keep_mean or actor.judge is not None)
        self._pending: list[list[Token]] = [[] for _ in range(slots)]
        self._begun: dict[int, Drawing] = {}
        self._writable = torch.from_numpy(tokenizer.writable()).to(device)
        self._end = tokenizer.end

    # Conversations

    @torch.inference_mode()
    def restart(self, slot: int) -> None:
        """Forget the slot's conversation."""
        self._slots.restart(slot)
        self._pending[slot] = []
        self._begun.pop(slot, None)

    @torch.inference_mode()
    def copy(self, slot: int) -> Conversation:
        """The slot's conversation as one that can go on in another slot."""
        assert slot not in self._begun, "a voice finishes its utterance before anything else is done with it"
        return Conversation(self._slots.copy(slot), [*self._pending[slot]])

    @torch.inference_mode()
    def put(self, slot: int, conversation: Conversation) -> None:
        """Let a conversation that stands in no slot go on in this one, in the place of whatever is there."""
        self._slots.put(slot, conversation.reading)
        self._pending[slot] = [*conversation.pending]
        self._begun.pop(slot, None)
        if conversation.begun is not None:
            self._begun[slot] = conversation.begun

    def ask(self, slot: int, target_return: float) -> None:
        """Ask the slot for a return, at this place of its conversation."""
        assert self._actor.condition is not None, "only a policy that was trained with returns can be asked for one"
        self._pending[slot].append(Asked(target_return))

    def hear(self, slot: int, ids: Sequence[int]) -> None:
        """Tokens the slot's conversation goes on with, before it speaks next."""
        self._pending[slot] += ids

    # Utterances

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
        if self._actor.judge is not None:
            drafts = self._draw_best(voices, room)
            for v, draft in zip(voices, drafts, strict=True):
                self._pending[v.slot] = [*self._ended(draft.tokens)]
            return [Spoken(self._utterance(draft)) for draft in drafts]
        drawn, apart = self._draw(voices, room, [1] * len(voices), impatience=impatience)
        for number, (v, own) in enumerate(zip(voices, drawn, strict=True)):
            if own and number not in apart:
                self._pending[v.slot] = self._unfed_end(own[0].tokens)
        return [Spoken(self._utterance(own[0]) if own else None, apart.get(number)) for number, own in enumerate(drawn)]

    @torch.inference_mode()
    def propose(self, voices: Sequence[Voice], count: int) -> list[list[Draft]]:
        """So many utterances of the language model from each of the given slots, none of them said.

        The slots stay where they are: they can speak, hear what somebody else says, or propose again.
        """
        return self._propose(voices, self._hear_pending(voices), [count] * len(voices))

    def _utterance(self, draft: Draft) -> Utterance:
        return Utterance(self._tokenizer.decode(draft.tokens), draft.tokens, draft.finished, draft.log_ratio)

    def _ended(self, tokens: Sequence[int]) -> list[int]:
        """An utterance as it is heard: with an end, whether it came to one or not."""
        return [*tokens, *missing_end(tokens, self._end)]

    def _unfed_end(self, tokens: Sequence[int]) -> list[Token]:
        """What drawing an utterance has not fed: its last token, which goes with the world's answer, in one pass."""
        return [*tokens[-1:], *missing_end(tokens, self._end)]

    # Drawing

    def _draw_best(self, voices: Sequence[Voice], room: Mapping[int, int]) -> list[Draft]:
        """Of each slot's proposals the one the judge likes best."""
        assert self._actor.judge is not None
        proposed = self._propose(voices, room, [v.manner.candidates for v in voices])
        best = favourites(
            self._actor.judge,
            {v.slot: own for v, own in zip(voices, proposed, strict=True)},
            log_prob_weights={v.slot: v.manner.log_prob_weight for v in voices},
            slots=len(self._slots),
        )
        drafts = []
        for v in voices:
            different = 1 if v.decode.greedy else v.manner.candidates  # greedy ones are all the same
            log_ratio = most_gained(different) + best[v.slot].log_ratio
            drafts.append(dataclasses.replace(best[v.slot], log_ratio=log_ratio))
        return drafts

    def _propose(self, voices: Sequence[Voice], room: Mapping[int, int], counts: Sequence[int]) -> list[list[Draft]]:
        """So many proposals of each slot, each heard to its end by its reader, and every slot back where it was."""
        untilted = [dataclasses.replace(v, manner=dataclasses.replace(v.manner, beta=0.0)) for v in voices]
        slots, home, reads_itself = [v.slot for v in voices], self._slots.place(), self._slots.one_reads_all
        proposed, _ = self._draw(untilted, room, counts, transformers=LANGUAGE_MODEL, fed_whole=reads_itself)
        self._slots.go_back(home, slots)
        if reads_itself:
            return proposed
        for number in range(max(counts)):
            drafts = {slot: own for slot, own in zip(slots, proposed, strict=True) if number < len(own)}
            self._read({slot: own[number] for slot, own in drafts.items()})
            for slot, own in drafts.items():
                own[number] = self._with_states(own[number], slot)
            self._slots.go_back(home, slots)
        return proposed

    def _read(self, drafts: Mapping[int, Draft]) -> None:
        """Let the reader hear some slots' drafts to their ends."""
        self._forward({slot: self._ended(draft.tokens) for slot, draft in drafts.items()}, transformers=READER)

    def _with_states(self, draft: Draft, slot: int) -> Draft:
        """The draft with what its reader, who has just heard it in this slot, makes of it."""
        last, mean = self._slots.reader_states(slot)
        return dataclasses.replace(draft, last=last, mean=mean)

    def _draw(
        self,
        voices: Sequence[Voice],
        room: Mapping[int, int],
        counts: Sequence[int],
        *,
        transformers: slice = slice(None),
        fed_whole: bool = False,
        impatience: int = 0,
    ) -> tuple[list[list[Draft]], dict[int, Conversation]]:
        """So many drafts of each voice, drawn one after the other from where its slot is; none waits for another's.

        A slot is left behind its last draft, whose last token is not fed. With `fed_whole` every draft is fed to its
        end, one being added where it has none, and what the last transformer makes of it is kept. Voices that share a
        slot draw one draft each, and none that is fed whole.

        Returns:
            The drafts, in the voices' order; none of a voice that is in the middle of it. And the conversations of
            those that parted, by the voice's number.
        """
        knobs = Knobs.of([v.decode for v in voices], [v.manner for v in voices], self._device)
        home = self._slots.place()
        sharing: dict[int, list[int]] = {}
        for number, v in enumerate(voices):
            sharing.setdefault(v.slot, []).append(number)
        assert len(sharing) == len(voices) or (max(counts) == 1 and not fed_whole)
        drafts: list[list[Draft]] = [[] for _ in voices]
        apart: dict[int, Conversation] = {}

        def begin(slot: int) -> Drawing:
            begun = self._begun.pop(slot, None)
            if begun is None:
                return Drawing.begin(slot, sharing[slot], room[slot], end=self._end, fed_whole=fed_whole)
            assert len(begun.numbers) == len(sharing[slot])
            return dataclasses.replace(begun, slot=slot, numbers=[*sharing[slot]])

        drawing = {slot: begin(slot) for slot, numbers in sharing.items() if counts[numbers[0]]}
        while drawing and (len(drawing) > impatience or not any(drafts)):
            for d in self._choose_next(drawing, voices, knobs):
                apart |= dict.fromkeys(d.numbers, self._parted(d))
                if d.whole:
                    for number, draft in d.drafts().items():
                        drafts[number].append(draft)
            if feeding := {slot: [d.unfed.pop(0)] for slot, d in drawing.items() if d.unfed}:
                self._forward(feeding, spoken=True, transformers=transformers)
            done = [d for d in drawing.values() if d.done]
            for d in done:
                del drawing[d.slot]
                for number, draft in d.drafts().items():
                    drafts[number].append(self._with_states(draft, d.slot) if fed_whole else draft)
            again = [d.slot for d in done if len(drafts[d.numbers[0]]) < counts[d.numbers[0]]]
            if again:
                self._slots.go_back(home, again)
                drawing |= {slot: begin(slot) for slot in again}
        self._begun |= drawing
        return drafts, apart

    def _parted(self, drawing: Drawing) -> Conversation:
        """The conversation of voices that have just chosen another token than the others of their slot.

        What is in the slot now is what all of its voices have said; the next pass writes only behind that.
        """
        reading = self._slots.copy(drawing.slot)
        if drawing.whole:
            return Conversation(reading, self._unfed_end(drawing.said))
        return Conversation(reading, [], drawing)

    def _choose_next(self, drawing: dict[int, Drawing], voices: Sequence[Voice], knobs: Knobs) -> list[Drawing]:
        """Let all voices that are to choose now choose a token; what goes on in a slot takes its place in `drawing`.

        Returns:
            What parts from the slots.
        """
        choosing = [d for d in drawing.values() if d.chooses]
        if not choosing:
            return []
        numbers = [number for d in choosing for number in d.numbers]
        chosen = dict(zip(numbers, self._choose(voices, numbers, knobs), strict=True))
        parting = []
        for d in choosing:
            limits = [voices[number].decode.max_new_tokens for number in d.numbers]
            drawing[d.slot], *others = d.go_on([chosen[number] for number in d.numbers], limits)
            parting += others
        return parting

    # The networks

    def _hear_pending(self, voices: Sequence[Voice]) -> dict[int, int]:
        """Feed what the speaking slots have heard; returns how many tokens each may still say.

        A conversation that outgrows the context is heard no further and has nothing left to say.
        """
        slots = self._slots
        for v in voices:
            if slots.lengths[v.slot] + len(self._pending[v.slot]) > slots.capacity:
                self._pending[v.slot] = []
                slots.fill(v.slot)
        if heard := {v.slot: self._pending[v.slot] for v in voices if self._pending[v.slot]}:
            self._forward(heard)
            for slot in heard:
                self._pending[slot] = []
        # The last token said is never fed alone, so a full context may still be left by one.
        return {v.slot: max(0, slots.capacity - slots.lengths[v.slot] - 1) for v in voices}

    def _forward(self, new: NewTokens, *, spoken: bool = False, transformers: slice = slice(None)) -> None:
        """Every forward pass there is goes through here."""
        self._slots.feed(new, spoken=spoken, transformers=transformers)

    def _choose(self, voices: Sequence[Voice], numbers: Sequence[int], knobs: Knobs) -> list[Choice]:
        """A token for each of some voices."""
        logits, q, row_of = self._scores({voices[number].slot for number in numbers})
        # Whole blocks of rows: a kernel may treat the end of a tensor otherwise than its middle.
        rows = [*numbers, *[numbers[0]] * (-len(numbers) % self._slots.block)]
        slots = torch.tensor([row_of[voices[number].slot] for number in rows], device=self._device)
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
        return [Choice(int(token), ratio, base) for token, ratio, base in zip(*chosen, strict=True)]

    def _scores(self, slots: Set[int]) -> tuple[Tensor, Tensor | None, dict[int, int]]:
        """Logits and Q of every token where some slots are, shape (N, V) each, and each slot's row there."""
        actor, block = self._actor, self._slots.block
        row_of = {slot: row for row, slot in enumerate(sorted(slots))}
        rows = torch.tensor([*row_of, *[min(slots)] * (-len(slots) % block)], device=self._device)
        states = [torch.split(last[rows], block) for last in self._slots.last]
        head = actor.language_model.get_output_embeddings()  # type: ignore[operator]
        read = states[0] if actor.critic is None else states[1]
        parts = [
            policy_inputs(head, actor.critic, own, others, relative=actor.relative)
            for own, others in zip(states[0], read, strict=True)
        ]
        logits = torch.cat([part for part, _ in parts])
        q = [part for _, part in parts if part is not None]
        return logits, torch.cat(q) if q else None, row_of
