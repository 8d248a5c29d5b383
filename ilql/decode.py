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
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from ilql.choose import Knobs, choose, policy_inputs
from ilql.method import Actor, Decoding, Manner
from ilql.networks import context_length, trunk_of
from ilql.slot_cache import SlotCache
from ilql.tokens import Tokenizer

VERSION = 3
"""Raised when the same settings would say something else; part of every evaluation's key."""

CHUNK = 16
"""New tokens per hearing pass."""

BLOCK = 32
"""Cache columns are read in blocks of so many, up to the last that a pass needs. A column that is masked adds an exact
zero, and whole blocks of them leave the order of every sum as it is: no bit moves with the length of other slots."""

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
        generator: Draws one uniform number per token if it does not decode greedily.
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
    """A draft in the making: what was chosen so far, whether that is all, and what of it is still to be fed."""

    voice: Voice
    limit: int
    whole: bool
    unfed: list[int]
    said: list[int] = field(default_factory=list)
    log_ratio: float = 0.0
    log_probability: float = 0.0

    def draft(self, *, ended: bool) -> Draft:
        nothing = torch.zeros(0)
        return Draft(tuple(self.said), ended, self.log_ratio, self.log_probability, nothing, nothing)


@dataclass(frozen=True)
class _Place:
    """Where the conversations of all slots are: lengths, every transformer's last states, sums of the reader's."""

    lengths: Tensor
    last: list[Tensor]
    sum: Tensor


@dataclass(frozen=True)
class Asked:
    """Stands, among the ids a slot hears, for the return it is asked for."""

    target_return: float


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
        self._lengths = torch.zeros(slots, dtype=torch.long, device=device)
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
        self._sum[slot] = 0

    def ask(self, slot: int, target_return: float) -> None:
        """Ask the slot for a return, at this place of its conversation."""
        assert self._condition is not None, "only a policy that was trained with returns can be asked for one"
        self._pending[slot].append(Asked(target_return))

    def hear(self, slot: int, ids: Sequence[int]) -> None:
        """Tokens the slot's conversation goes on with, before it speaks next."""
        self._pending[slot] += ids

    @torch.inference_mode()
    def speak(self, voices: Sequence[Voice]) -> list[Utterance]:
        """One utterance from each of the given slots, each of which must have heard something new.

        All of them rank candidates, or none does.
        """
        room = self._hear_pending(voices)
        if self._judge is None:
            drawn = self._draw(voices, room, [v.manner.beta for v in voices], [1] * len(voices))
            drafts = [drawn[v.slot][0] for v in voices]
            for v, draft in zip(voices, drafts, strict=True):
                # The last token is not fed yet: it goes with the world's answer, in one pass.
                self._pending[v.slot] = [*draft.tokens[-1:], *self._missing_end(draft.tokens)]
        else:
            drafts = self._draw_best(voices, room)
            for v, draft in zip(voices, drafts, strict=True):
                self._pending[v.slot] = [*draft.tokens, *self._missing_end(draft.tokens)]
        return [Utterance(self._tokenizer.decode(d.tokens), d.tokens, d.finished, d.log_ratio) for d in drafts]

    @torch.inference_mode()
    def propose(self, voices: Sequence[Voice], count: int) -> list[list[Draft]]:
        """So many utterances of the language model from each of the given slots, none of them said.

        The slots stay where they are: they can speak, hear what somebody else says, or propose again.
        """
        return self._propose(voices, self._hear_pending(voices), [count] * len(voices))

    def _propose(self, voices: Sequence[Voice], room: Mapping[int, int], counts: Sequence[int]) -> list[list[Draft]]:
        """So many proposals of each slot, each heard to its end by its reader, and every slot back where it was."""
        home, reads_itself = self._place(), len(self._trunks) == 1
        drafts = self._draw(
            voices, room, [0.0] * len(voices), counts, transformers=LANGUAGE_MODEL, to_the_end=reads_itself
        )
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
        mean = self._sum[slot] / self._lengths[slot].clamp(min=1)
        return dataclasses.replace(draft, last=self._last[-1][slot].clone(), mean=mean)

    def _place(self) -> _Place:
        return _Place(self._lengths.clone(), list(self._last), self._sum.clone())

    def _go_back(self, place: _Place, slots: Sequence[int]) -> None:
        """Take some slots back to where they were; what stands in the caches behind that is written over."""
        rows = torch.tensor(slots, dtype=torch.long, device=self._device)
        self._lengths[rows] = place.lengths[rows]
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
    ) -> dict[int, list[Draft]]:
        """So many drafts of each slot, drawn one after the other from where it is; no slot waits for another's.

        A slot is left behind its last draft, whose last token is not fed. With `to_the_end` every draft is fed whole,
        its end with it where it has none, and what the last transformer makes of it is kept.
        """
        knobs, home = _knobs(voices, betas, self._slots, self._device), self._place()
        wanted = {v.slot: count for v, count in zip(voices, counts, strict=True)}
        drafts: dict[int, list[Draft]] = {v.slot: [] for v in voices}

        def begin(voice: Voice) -> _Drawing:
            limit = min(voice.decode.max_new_tokens, room[voice.slot])
            rest = self._missing_end(()) if to_the_end and limit == 0 else []
            return _Drawing(voice, limit, whole=limit == 0, unfed=rest)

        drawing = {v.slot: begin(v) for v in voices if wanted[v.slot]}
        while drawing:
            self._choose_for([d for d in drawing.values() if not d.whole], knobs, to_the_end=to_the_end)
            feeding = {slot: [d.unfed.pop(0)] for slot, d in drawing.items() if d.unfed}
            if feeding:
                self._forward(feeding, width=1, transformers=transformers)
            again = []
            for slot, d in [*drawing.items()]:
                if d.whole and not d.unfed:
                    draft = d.draft(ended=not self._missing_end(d.said))
                    drafts[slot].append(self._with_states(draft, slot) if to_the_end else draft)
                    del drawing[slot]
                    if len(drafts[slot]) < wanted[slot]:
                        again.append(d.voice)
            if again:
                self._go_back(home, [v.slot for v in again])
                drawing |= {v.slot: begin(v) for v in again}
        return drafts

    def _choose_for(self, drawing: Sequence[_Drawing], knobs: Knobs, *, to_the_end: bool) -> None:
        """One token more for each of these drafts."""
        if not drawing:
            return
        uniform = torch.zeros(self._slots, dtype=torch.float64)
        for d in drawing:
            if not d.voice.decode.greedy:
                uniform[d.voice.slot] = d.voice.generator.random()
        tokens, log_ratio, log_base = self._choose(knobs, uniform.to(self._device))
        chosen, ratio, base = tokens.tolist(), log_ratio.tolist(), log_base.tolist()
        for d in drawing:
            token = chosen[d.voice.slot]
            d.said.append(token)
            d.log_ratio += ratio[d.voice.slot]
            d.log_probability += base[d.voice.slot]
            missing = self._missing_end(d.said)
            d.whole = not missing or len(d.said) == d.limit
            if not d.whole:
                d.unfed = [token]
            elif to_the_end:
                d.unfed = [token, *missing]

    def _hear_pending(self, voices: Sequence[Voice]) -> dict[int, int]:
        """Feed what the speaking slots have heard; returns how many tokens each may still say.

        A conversation that outgrows the context is heard no further and has nothing left to say.
        """
        lengths = self._lengths.tolist()
        for v in voices:
            if lengths[v.slot] + len(self._pending[v.slot]) > self._capacity:
                self._pending[v.slot] = []
                lengths[v.slot] = self._capacity
        while waiting := {v.slot: self._pending[v.slot][:CHUNK] for v in voices if self._pending[v.slot]}:
            self._forward(waiting, width=CHUNK)
            for slot, tokens in waiting.items():
                del self._pending[slot][:CHUNK]
                lengths[slot] += len(tokens)
        for v in voices:
            self._lengths[v.slot] = lengths[v.slot]
        # The last token said is never fed alone, so a full context may still be left by one.
        return {v.slot: max(0, self._capacity - lengths[v.slot] - 1) for v in voices}

    def _forward(
        self, new: Mapping[int, Sequence[int | Asked]], *, width: int, transformers: slice = slice(None)
    ) -> None:
        """Feed up to `width` new tokens to some slots, and to some of the transformers; keep each one's last state."""
        ids = torch.zeros(self._slots, width, dtype=torch.long)
        counts = torch.zeros(self._slots, dtype=torch.long)
        asked = torch.full((self._slots, width), torch.nan)
        for slot, tokens in new.items():
            ids[slot, : len(tokens)] = torch.tensor([0 if isinstance(token, Asked) else token for token in tokens])
            counts[slot] = len(tokens)
            for place, token in enumerate(tokens):
                if isinstance(token, Asked):
                    asked[slot, place] = token.target_return
        ids, counts = ids.to(self._device), counts.to(self._device)
        start = self._lengths.clamp(max=self._capacity)
        columns = start[:, None] + self._columns[:width]
        longest = int(start[list(new)].max()) + width
        used = min(-(-longest // BLOCK) * BLOCK, len(self._columns))
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
        self._lengths += counts

    def _embedded(self, trunk: nn.Module, ids: Tensor, asked: Tensor) -> dict[str, Tensor]:
        """The ids as embeddings, shape (S, C, D), with those of the returns that are asked for, where one is."""
        assert self._condition is not None
        asked = asked.to(self._device)
        embeddings: Tensor = trunk.get_input_embeddings()(ids)  # type: ignore[operator]
        returns = self._condition(asked.nan_to_num()).to(embeddings.dtype)
        return {"inputs_embeds": torch.where(asked.isnan()[..., None], embeddings, returns)}

    def _choose(self, knobs: Knobs, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        head = self._language_model.get_output_embeddings()  # type: ignore[operator]
        read = None if self._critic is None else self._last[1]
        logits, q = policy_inputs(head, self._critic, self._last[0], read, relative=self._relative)
        return choose(logits, q, self._writable, knobs, uniform)


def _best_of(n: int) -> float:
    """The largest expected log-ratio of the best of n draws to one of them."""
    return math.log(n) - (n - 1) / n


def _knobs(voices: Sequence[Voice], betas: Sequence[float], slots: int, device: torch.device) -> Knobs:
    """Settings of the speaking slots as tensors; the others' entries are harmless."""
    beta, temperature, top_p = [0.0] * slots, [1.0] * slots, [1.0] * slots
    top_k, greedy, after = [0] * slots, [True] * slots, [False] * slots
    for v, tilt in zip(voices, betas, strict=True):
        beta[v.slot], temperature[v.slot], top_p[v.slot] = tilt, v.decode.temperature, v.decode.top_p
        top_k[v.slot], greedy[v.slot] = v.decode.top_k, v.decode.greedy
        after[v.slot] = v.manner.filter_after
        if math.isnan(tilt) or tilt < 0:
            raise ValueError(f"beta must be at least 0, got {tilt}")
    return Knobs(
        torch.tensor(beta, device=device),
        torch.tensor(temperature, device=device),
        torch.tensor(top_k, device=device),
        torch.tensor(top_p, device=device),
        torch.tensor(greedy, device=device),
        torch.tensor(after, device=device) if any(after) else None,
    )
