"""Batched, cached, value-guided generation.

Axes: *S* slots, *C* new tokens, *L* cache columns, *V* vocabulary, *D* hidden width.

A speaker has a fixed number of slots, each holding one conversation. Every forward pass has one of two fixed shapes,
(S, C) for hearing and (S, 1) for speaking, and each slot's keys and values stand in its own row from column 0 on, so
what a slot says depends on its own conversation and not on what is in the slots beside it. Slots of different β,
temperature or scene share the passes. Conversations are never encoded twice: between turns only what is new is fed.

At most two transformers run: the language model, and the critic where there is a tilt. V is not needed: it shifts all
tokens' scores alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from ilql.method import Actor, Decoding
from ilql.networks import QNetwork, context_length, trunk_of
from ilql.tokens import Tokenizer

VERSION = 1
"""Raised when the same settings would say something else; part of every evaluation's key."""

CHUNK = 16
"""New tokens per hearing pass."""


class SlotCache(Cache):
    """Keys and values of S conversations, row s holding its own from column 0 on, with a cursor per slot."""

    def __init__(self, slots: int, columns: int) -> None:
        super().__init__(layers=[])
        self._shape = (slots, columns)
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self.positions = torch.zeros(slots, 1, dtype=torch.long)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write (S, H, C, D) states at `positions` (S, C); give all columns."""
        slots, columns = self._shape
        if layer_idx == len(self._keys):
            shape = (slots, key_states.shape[1], columns, key_states.shape[3])
            self._keys.append(key_states.new_zeros(shape))
            self._values.append(value_states.new_zeros(shape))
        index = self.positions[:, None, :, None].expand_as(key_states)
        self._keys[layer_idx].scatter_(2, index, key_states)
        self._values[layer_idx].scatter_(2, index, value_states)
        return self._keys[layer_idx], self._values[layer_idx]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Not meaningful: every slot has a length of its own, and positions are always given."""
        return 0


@dataclass(frozen=True)
class Utterance:
    """What a slot said.

    Attributes:
        text: The words.
        tokens: The ids chosen, with the `eoa` that ended them if there was one.
        finished: True if it ended itself; False if it ran into its limit or the context's end.
        log_ratio: Σ log π(a) − log π_β(a) over its tokens: π the tilted distribution, π_β the untouched language
            model's.
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
        beta: The tilt, in [0, ∞].
        generator: Draws one uniform number per token if it does not decode greedily.
    """

    slot: int
    decode: Decoding
    beta: float
    generator: np.random.Generator


class Speaker:
    """Conversations in slots, spoken by one actor.

    Args:
        actor: The networks.
        tokenizer: Theirs.
        slots: S. Part of what decides an evaluation to the last bit, so a constant.
        device: Where the networks are.
    """

    def __init__(self, actor: Actor, tokenizer: Tokenizer, *, slots: int, device: torch.device) -> None:
        self._language_model = actor.language_model.to(device).eval()
        self._critic = None if actor.critic is None else actor.critic.to(device).eval()
        if self._critic is not None and not isinstance(self._critic, QNetwork):
            raise TypeError(f"a critic must be a QNetwork, got {type(self._critic).__name__}")
        self._tokenizer = tokenizer
        self._slots, self._device = slots, device
        self._capacity = context_length(self._language_model)
        columns = self._capacity + CHUNK  # room behind the context for the padding of a chunk
        self._trunks: list[tuple[nn.Module, SlotCache]] = [
            (trunk, SlotCache(slots, columns))
            for trunk in [trunk_of(self._language_model)] + ([] if self._critic is None else [self._critic.trunk])
        ]
        self._columns = torch.arange(columns, device=device)
        self._lengths = torch.zeros(slots, dtype=torch.long, device=device)
        self._pending: list[list[int]] = [[] for _ in range(slots)]
        self._last: list[Tensor] = []
        self._writable = torch.from_numpy(tokenizer.writable()).to(device)

    def restart(self, slot: int) -> None:
        """Forget the slot's conversation."""
        self._lengths[slot] = 0
        self._pending[slot] = []

    def hear(self, slot: int, ids: Sequence[int]) -> None:
        """Tokens the slot's conversation goes on with, before it speaks next."""
        self._pending[slot] += ids

    @torch.inference_mode()
    def speak(self, voices: Sequence[Voice]) -> list[Utterance]:
        """One utterance from each of the given slots, each of which must have heard something new."""
        room = self._hear_pending(voices)
        knobs = _knobs(voices, self._slots, self._device)
        limits = {v.slot: min(v.decode.max_new_tokens, room[v.slot]) for v in voices}
        end = self._tokenizer.structural("eoa")
        said: dict[int, list[int]] = {v.slot: [] for v in voices}
        ratios = dict.fromkeys(said, 0.0)
        speaking = [v for v in voices if limits[v.slot] > 0]
        while speaking:
            uniform = torch.zeros(self._slots, dtype=torch.float64)
            for v in speaking:
                if not v.decode.greedy:
                    uniform[v.slot] = v.generator.random()
            tokens, log_ratio = self._choose(knobs, uniform.to(self._device))
            chosen, ratio = tokens.tolist(), log_ratio.tolist()
            going = []
            for v in speaking:
                said[v.slot].append(chosen[v.slot])
                ratios[v.slot] += ratio[v.slot]
                if chosen[v.slot] == end:
                    self._pending[v.slot] = [end]  # fed with the world's answer, in one pass
                elif len(said[v.slot]) < limits[v.slot]:
                    going.append(v)
                else:
                    self._pending[v.slot] = [chosen[v.slot], end]
            speaking = going
            if speaking:
                self._forward({v.slot: [chosen[v.slot]] for v in speaking}, width=1)
        return [
            Utterance(self._tokenizer.decode(ids), tuple(ids), ids[-1:] == [end], ratios[slot])
            for slot, ids in said.items()
        ]

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

    def _forward(self, new: Mapping[int, list[int]], *, width: int) -> None:
        """Feed up to `width` new tokens to some slots; keep the hidden state of each one's last."""
        ids = torch.zeros(self._slots, width, dtype=torch.long)
        counts = torch.zeros(self._slots, dtype=torch.long)
        for slot, tokens in new.items():
            ids[slot, : len(tokens)] = torch.tensor(tokens)
            counts[slot] = len(tokens)
        ids, counts = ids.to(self._device), counts.to(self._device)
        start = self._lengths.clamp(max=self._capacity)
        columns = start[:, None] + self._columns[:width]
        mask = (self._columns <= columns[..., None])[:, None]
        last = (counts - 1).clamp(min=0)[:, None, None]
        states = []
        for trunk, cache in self._trunks:
            cache.positions = columns
            hidden = trunk(
                input_ids=ids,
                attention_mask=mask,
                position_ids=columns.clamp(max=self._capacity - 1),
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
            states.append(hidden.gather(1, last.expand(-1, -1, hidden.shape[-1])).squeeze(1))
        fed = (counts > 0)[:, None]
        old = self._last or states
        self._last = [torch.where(fed, state, before) for state, before in zip(states, old, strict=True)]
        self._lengths += counts

    def _choose(self, knobs: Knobs, uniform: Tensor) -> tuple[Tensor, Tensor]:
        logits = self._language_model.get_output_embeddings()(self._last[0]).float()  # type: ignore[operator]
        q = None if self._critic is None else self._critic.minimum(self._last[1]).float()  # type: ignore[operator]
        return choose(logits, q, self._writable, knobs, uniform)


@dataclass(frozen=True)
class Knobs:
    """Decoding settings as tensors, one entry per slot, shape (S,) each."""

    beta: Tensor
    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    greedy: Tensor


def choose(logits: Tensor, q: Tensor | None, writable: Tensor, knobs: Knobs, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """The next token of every slot, and its log π − log π_β.

    π(v) ∝ exp(ℓ(v) + β Q(v)), where ℓ are the language model's log-probabilities after temperature, top-k and top-p.
    With β = ∞ the language model is left out: the token with the highest Q, and log π = 0. Only writable tokens are
    chosen, and π_β is the language model among those.

    Args:
        logits: The language model's, shape (S, V).
        q: The critic's Q, shape (S, V), or None for no tilt.
        writable: Shape (V,), true for tokens a policy may choose.
        knobs: Settings per slot.
        uniform: Shape (S,), float64 in [0, 1): the draw of slots that sample, by inverting the distribution function.

    Returns:
        Tokens, shape (S,), and log-ratios, shape (S,).
    """
    base = torch.where(writable, logits, -torch.inf).log_softmax(dim=-1)
    score = filtered(base / knobs.temperature[:, None], top_k=knobs.top_k, top_p=knobs.top_p)
    without_model = torch.isinf(knobs.beta)
    if q is not None:
        finite = torch.where(without_model, torch.zeros_like(knobs.beta), knobs.beta)
        score = torch.where(without_model[:, None], q, score + finite[:, None] * q)
        score = torch.where(writable, score, -torch.inf)
    log_policy = score.log_softmax(dim=-1)
    greedy = score.argmax(dim=-1)
    cumulative = log_policy.double().exp().cumsum(dim=-1)
    drawn = (cumulative <= (uniform * cumulative[:, -1])[:, None]).sum(dim=-1).clamp(max=score.shape[-1] - 1)
    tokens = torch.where(knobs.greedy | without_model, greedy, drawn)
    picked = tokens[:, None]
    log_pi = torch.where(without_model, 0.0, log_policy.gather(1, picked).squeeze(1))
    return tokens, log_pi - base.gather(1, picked).squeeze(1)


def filtered(logits: Tensor, *, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Logits with all but the top k, and all but the smallest set of probability above p, at −∞; per row, shape (S, V).

    The token that crosses p is kept. k = 0 and p = 1 keep everything. Equal logits are ranked by id.
    """
    order = logits.argsort(dim=-1, descending=True, stable=True)
    ranked = logits.gather(1, order)
    probability = ranked.softmax(dim=-1)
    before = probability.cumsum(dim=-1) - probability
    rank = torch.arange(logits.shape[-1], device=logits.device)
    outside_k = (top_k[:, None] > 0) & (rank >= top_k[:, None])
    outside_p = (top_p[:, None] < 1) & (before > top_p[:, None])
    ranked = ranked.masked_fill(outside_k | outside_p, -torch.inf)
    return torch.empty_like(logits).scatter_(1, order, ranked)


def _knobs(voices: Sequence[Voice], slots: int, device: torch.device) -> Knobs:
    """Settings of the speaking slots as tensors; the others' entries are harmless."""
    beta, temperature, top_p = [0.0] * slots, [1.0] * slots, [1.0] * slots
    top_k, greedy = [0] * slots, [True] * slots
    for v in voices:
        beta[v.slot], temperature[v.slot], top_p[v.slot] = v.beta, v.decode.temperature, v.decode.top_p
        top_k[v.slot], greedy[v.slot] = v.decode.top_k, v.decode.greedy
        if math.isnan(v.beta) or v.beta < 0:
            raise ValueError(f"beta must be at least 0, got {v.beta}")
    return Knobs(
        torch.tensor(beta, device=device),
        torch.tensor(temperature, device=device),
        torch.tensor(top_k, device=device),
        torch.tensor(top_p, device=device),
        torch.tensor(greedy, device=device),
    )
