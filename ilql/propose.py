"""Draw utterances from a language model in every state of the data, and read them as a judge would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ilql.batch import TokenSequence, collate
from ilql.candidates import Candidates
from ilql.decode import Speaker, Voice
from ilql.language_model import hidden_states, trunk_of
from ilql.method import Actor, Decoding, Manner, Proposals
from ilql.tokens import Tokenizer

VERSION = 2
"""Raised when the same settings would draw other utterances; part of the candidates' key."""

SLOTS = 64
"""Dialogues per forward pass. A constant: the shape of a matrix product can decide its last bit."""


@dataclass(frozen=True)
class _Turn:
    """One of the agent's whole utterances: what is heard before it, and what was said."""

    heard: list[int]
    said: list[int]


def draw_candidates(
    language_model: nn.Module,
    tokenizer: Tokenizer,
    sequences: Sequence[TokenSequence],
    proposals: Proposals,
    *,
    seed: int,
    device: torch.device,
    on_dialogue: Callable[[int], None] | None = None,
) -> Candidates:
    """Utterances from the language model before each whole utterance of the agent's, and the features of both.

    Args:
        language_model: Frozen; it draws at temperature 1, and its hidden states are the features.
        tokenizer: Its tokeniser.
        sequences: The dialogues.
        proposals: How many, and how long.
        seed: Decides the draws; those of a dialogue depend on nothing else but its number.
        device: Where the language model runs.
        on_dialogue: Called with the number of dialogues finished, after every turn of those that are under way.
    """
    speaker = Speaker(Actor(language_model), tokenizer, slots=SLOTS, device=device, keep_mean=True)
    decode, count = Decoding(greedy=False, max_new_tokens=proposals.max_new_tokens), proposals.count
    turns = [_turns(sequence) for sequence in sequences]
    first = np.concatenate([[0], np.cumsum([len(t) for t in turns])]).astype(np.int64)
    width = int(language_model.get_input_embeddings().weight.shape[1])  # type: ignore[operator]
    taken = np.zeros((first[-1], width), dtype=np.float32)
    drawn = np.zeros((first[-1], count, width), dtype=np.float32)
    log_probability = np.zeros((first[-1], count), dtype=np.float32)
    for begin in range(0, len(sequences), SLOTS):
        block = range(begin, min(begin + SLOTS, len(sequences)))
        generators = [np.random.default_rng([seed, number]) for number in block]
        for slot in range(len(block)):
            speaker.restart(slot)
        for turn in range(max((len(turns[number]) for number in block), default=0)):
            active = [(slot, number) for slot, number in enumerate(block) if turn < len(turns[number])]
            for slot, number in active:
                speaker.hear(slot, turns[number][turn].heard)
            voices = [Voice(slot, decode, Manner(), generators[slot]) for slot, _ in active]
            for (slot, number), drafts in zip(active, speaker.propose(voices, count), strict=True):
                speaker.hear(slot, turns[number][turn].said)
                place = first[number] + turn
                drawn[place] = torch.stack([draft.mean for draft in drafts]).float().cpu().numpy()
                log_probability[place] = [draft.log_probability for draft in drafts]
            if on_dialogue is not None:
                on_dialogue(block.start)
        _read_what_was_said(language_model, sequences, block, first, taken, tokenizer, device)
        if on_dialogue is not None:
            on_dialogue(block.stop)
    return Candidates(taken, drawn, log_probability, first)


@torch.inference_mode()
def _read_what_was_said(
    language_model: nn.Module,
    sequences: Sequence[TokenSequence],
    block: range,
    first: np.ndarray,
    taken: np.ndarray,
    tokenizer: Tokenizer,
    device: torch.device,
) -> None:
    """Fill in the features of the recorded utterances of a block of dialogues."""
    batch = collate([sequences[number] for number in block], pad=tokenizer.structural("pad")).to(device)
    states = hidden_states(trunk_of(language_model), batch.tokens).float()
    counts = torch.arange(1, states.shape[1] + 1, device=device)[:, None]
    mean = states.cumsum(dim=1) / counts
    row, end = batch.ends.nonzero(as_tuple=True)
    features = mean[row, batch.action_positions[row, end] + 1].cpu().numpy()
    taken[first[block.start] : first[block.stop]] = features


def _turns(sequence: TokenSequence) -> list[_Turn]:
    """The agent's whole utterances of a dialogue, each with what is heard since the one before."""
    tokens, turns, heard_from = sequence.tokens.tolist(), [], 0
    ends = np.flatnonzero(sequence.ends)
    for first, end in zip([0, *(ends + 1)], ends, strict=False):  # behind the last one no other begins
        boundary, last = int(sequence.action_positions[first]), int(sequence.action_positions[end]) + 1
        turns.append(_Turn(tokens[heard_from : boundary + 1], tokens[boundary + 1 : last + 1]))
        heard_from = last + 1
    return turns
