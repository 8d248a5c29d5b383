"""Dialogues as tensors, with every mask stored and none guessed.

Axes: *B* dialogues, *T* positions, *K* agent's tokens (actions).

**A position is a state and a predictor.** The hidden state at position p has seen the tokens up to p; the action taken
there is the next token, x[p+1]. Q at p is read at vocabulary entry x[p+1], V at p is the value before choosing it. An
utterance of m tokens is m + 1 actions: its tokens and the `eoa` that ends it, and the utterance's reward sits on that
last one. The state after it is the boundary before the agent's next utterance, so what the world says in between is
dynamics. The last state is the last token of the dialogue: `eod` if the world ended it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from ilql.dialogue import Dialogue
from ilql.tokens import Tokenizer

VERSION = 2
"""Raised when the meaning of tokenised data changes; part of every key that depends on it."""


@dataclass(frozen=True)
class TokenSequence:
    """One dialogue as tokens.

    Attributes:
        tokens: Shape (T,), ids.
        action_positions: Shape (K,), increasing positions p whose next token the agent chose.
        state_positions: Shape (K + 1,), the same positions and the final state's.
        rewards: Shape (K,), floats.
        ends: Shape (K,), true on actions that end an utterance: the choice of its `eoa`.
        ended: True if the episode ends after the last action; False if it goes on from the final state unseen.
        number: The sequence's place in the data, by which what was made for it once is found again.
        goes_on: True if it is a window of a dialogue, and the sequence behind it in the data is the next one.
        earlier: What the dialogue returned in the windows before this one, undiscounted.
        later: What it returns in those behind it.
    """

    tokens: npt.NDArray[np.int64]
    action_positions: npt.NDArray[np.int64]
    state_positions: npt.NDArray[np.int64]
    rewards: npt.NDArray[np.float32]
    ends: npt.NDArray[np.bool_]
    ended: bool
    number: int = 0
    goes_on: bool = False
    earlier: float = 0.0
    later: float = 0.0

    def __post_init__(self) -> None:
        actions = len(self.action_positions)
        if len(self.state_positions) != actions + 1 or len(self.rewards) != actions or len(self.ends) != actions:
            raise ValueError(
                f"{actions} actions need {actions + 1} states, {actions} rewards and {actions} marks of an end, "
                f"got {len(self.state_positions)}, {len(self.rewards)} and {len(self.ends)}"
            )


def tokenize(dialogue: Dialogue, tokenizer: Tokenizer, *, max_tokens: int | None = None) -> TokenSequence:
    """A dialogue as tokens, states, actions and rewards.

    Args:
        dialogue: What was said.
        tokenizer: How text becomes ids.
        max_tokens: Keep only the first so many tokens. A dialogue that is cut has not ended: its last kept state has no
            action and serves only to bootstrap, and a reward on a dropped `eoa` is lost. `ilql.windows` loses none.
    """
    whole, _ = lay_out(dialogue, tokenizer)
    if max_tokens is None or len(whole.tokens) <= max_tokens:
        return whole
    states = whole.state_positions[whole.state_positions < max_tokens]
    actions = max(0, len(states) - 1)
    return TokenSequence(
        whole.tokens[:max_tokens],
        whole.action_positions[:actions],
        states if len(states) else np.asarray([max_tokens - 1], dtype=np.int64),
        whole.rewards[:actions],
        whole.ends[:actions],
        ended=False,
    )


def lay_out(dialogue: Dialogue, tokenizer: Tokenizer) -> tuple[TokenSequence, list[range]]:
    """A whole dialogue as tokens, and the positions of each of the world's texts in it, without what stands around."""
    agent_opens = not dialogue.turns or dialogue.turns[0].by_agent
    tokens = tokenizer.before_first(by_agent=agent_opens)
    positions: list[int] = []
    rewards: list[float] = []
    ends: list[bool] = []
    heard: list[range] = []
    for turn, then_agent in zip(dialogue.turns, _speakers_next(dialogue), strict=True):
        text = tokenizer.encode(turn.text)
        if turn.by_agent:
            start = len(tokens) - 1  # the boundary before this turn, from which its first token is chosen
            positions += range(start, start + len(text) + 1)
            rewards += [0.0] * len(text) + [turn.reward]
            ends += [False] * len(text) + [True]
        else:
            heard.append(range(len(tokens), len(tokens) + len(text)))
        tokens += [*text, *tokenizer.behind(by_agent=turn.by_agent, then_agent=then_agent)]
    if dialogue.ended:
        tokens.append(tokenizer.structural("eod"))
    sequence = TokenSequence(
        np.asarray(tokens, dtype=np.int64),
        np.asarray(positions, dtype=np.int64),
        np.asarray([*positions, len(tokens) - 1], dtype=np.int64),
        np.asarray(rewards, dtype=np.float32),
        np.asarray(ends, dtype=np.bool_),
        dialogue.ended,
    )
    return sequence, heard


def _speakers_next(dialogue: Dialogue) -> list[bool | None]:
    """For every turn whether the agent's is next; None behind the last.

    Where the recording was cut off behind the world's turn, the agent was about to speak.
    """
    following: list[bool | None] = [turn.by_agent for turn in dialogue.turns[1:]]
    if dialogue.turns:
        following.append(None if dialogue.ended or dialogue.turns[-1].by_agent else True)
    return following


@dataclass(frozen=True)
class TokenBatch:
    """Several dialogues, padded on the right.

    Attributes:
        tokens: Shape (B, T), ids.
        attention_mask: Shape (B, T), true on real tokens.
        action_positions: Shape (B, K); 0 where `action_mask` is false.
        state_positions: Shape (B, K + 1); column k is the state of action k, column k + 1 the state after it.
        actions: Shape (B, K), the chosen ids, tokens[action_positions + 1].
        action_mask: Shape (B, K), true on real actions.
        rewards: Shape (B, K), floats.
        ends: Shape (B, K), true on real actions that end an utterance.
        terminal: Shape (B, K), true if the episode ends after this action.
        numbers: Shape (B,), each sequence's place in the data.
        goes_on: Shape (B,), true on windows of dialogues that go on in another.
        earlier: Shape (B,), what each dialogue returned in the windows before, floats.
        later: Shape (B,), what it returns in those behind, floats.
    """

    tokens: Tensor
    attention_mask: Tensor
    action_positions: Tensor
    state_positions: Tensor
    actions: Tensor
    action_mask: Tensor
    rewards: Tensor
    ends: Tensor
    terminal: Tensor
    numbers: Tensor
    goes_on: Tensor
    earlier: Tensor
    later: Tensor

    @property
    def returns(self) -> Tensor:
        """Shape (B,): the undiscounted return of each dialogue, that of its other windows included."""
        return (self.rewards * self.action_mask).sum(dim=1) + self.earlier + self.later

    def to(self, device: torch.device) -> TokenBatch:
        """The same batch on a device; a GPU is not waited for."""
        pinned = device.type == "cuda"
        return TokenBatch(
            **{
                name: (value.pin_memory() if pinned else value).to(device, non_blocking=True)
                for name, value in vars(self).items()
            }
        )

    def rows(self, rows: slice) -> TokenBatch:
        """Some of the dialogues, still padded as in the whole batch."""
        return TokenBatch(**{name: value[rows] for name, value in vars(self).items()})


def collate(sequences: Sequence[TokenSequence], *, pad: int) -> TokenBatch:
    """Stack sequences; `pad` fills the positions behind each one's end and is never read as anything."""
    rows, longest = len(sequences), max(len(s.tokens) for s in sequences)
    most = max(len(s.action_positions) for s in sequences)
    tokens = np.full((rows, longest), pad, dtype=np.int64)
    attention = np.zeros((rows, longest), dtype=np.bool_)
    positions = np.zeros((rows, most), dtype=np.int64)
    states = np.zeros((rows, most + 1), dtype=np.int64)
    actions = np.zeros((rows, most), dtype=np.int64)
    mask = np.zeros((rows, most), dtype=np.bool_)
    rewards = np.zeros((rows, most), dtype=np.float32)
    ends = np.zeros((rows, most), dtype=np.bool_)
    terminal = np.zeros((rows, most), dtype=np.bool_)
    for row, sequence in enumerate(sequences):
        length, count = len(sequence.tokens), len(sequence.action_positions)
        tokens[row, :length], attention[row, :length] = sequence.tokens, True
        positions[row, :count], states[row, : count + 1] = sequence.action_positions, sequence.state_positions
        actions[row, :count] = sequence.tokens[sequence.action_positions + 1]
        mask[row, :count], rewards[row, :count], ends[row, :count] = True, sequence.rewards, sequence.ends
        if count:
            terminal[row, count - 1] = sequence.ended
    numbers = np.asarray([s.number for s in sequences], dtype=np.int64)
    goes_on = np.asarray([s.goes_on for s in sequences], dtype=np.bool_)
    earlier = np.asarray([s.earlier for s in sequences], dtype=np.float32)
    later = np.asarray([s.later for s in sequences], dtype=np.float32)
    of_actions = (positions, states, actions, mask, rewards, ends, terminal)
    parts = (tokens, attention, *of_actions, numbers, goes_on, earlier, later)
    return TokenBatch(*(torch.from_numpy(part) for part in parts))


def dialogue_numbers(sequences: Sequence[TokenSequence]) -> npt.NDArray[np.int64]:
    """Which dialogue each sequence is, or is a window of, counted from 0, shape (N,).

    Args:
        sequences: The data in its order: a dialogue's windows one behind the other.
    """
    begins = [number == 0 or not sequences[number - 1].goes_on for number in range(len(sequences))]
    return np.cumsum(begins, dtype=np.int64) - 1


def last_actions(mask: Tensor) -> Tensor:
    """Shape (B, K): true on the last real action of every row, from a mask whose real actions stand first."""
    return mask & ~functional.pad(mask[:, 1:], (0, 1))


def dialogue_weights(mask: Tensor) -> Tensor:
    """Shape (B, K): 1 / (number of the row's true entries) on those, so that a mean weighs every dialogue alike."""
    counts = mask.sum(dim=1, keepdim=True).clamp(min=1)
    return mask / counts


def batch_order(size: int, *, batch_size: int, seed: int, start: int = 0) -> Iterator[npt.NDArray[np.int64]]:
    """Row indices of batch `start`, `start + 1`, ... without end: epochs of seeded permutations, cut into batches.

    The batch of a step depends on the seed and the step alone, so a resumed training sees what an undisturbed one
    would. A data set smaller than a batch gives batches of its size.

    Raises:
        ValueError: There is nothing to draw from.
    """
    if size == 0:
        raise ValueError("training needs at least one dialogue, got none")
    per_epoch = max(1, size // batch_size)
    step = start
    while True:
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng([seed, epoch]).permutation(size)
        while place < per_epoch:
            yield order[place * batch_size : (place + 1) * batch_size]
            place, step = place + 1, step + 1


def save_sequences(sequences: Sequence[TokenSequence], file: Path) -> None:
    """Write sequences to an `.npz` file as flat arrays."""

    def flat(parts: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.int32]:
        return np.concatenate([*parts, np.zeros(0, dtype=np.int64)]).astype(np.int32)

    np.savez(
        file,
        tokens=flat([s.tokens for s in sequences]),
        token_counts=np.asarray([len(s.tokens) for s in sequences], dtype=np.int64),
        action_positions=flat([s.action_positions for s in sequences]),
        action_counts=np.asarray([len(s.action_positions) for s in sequences], dtype=np.int64),
        last_states=np.asarray([s.state_positions[-1] for s in sequences], dtype=np.int64),
        rewards=np.concatenate([*(s.rewards for s in sequences), np.zeros(0, dtype=np.float32)]),
        ends=np.concatenate([*(s.ends for s in sequences), np.zeros(0, dtype=np.bool_)]),
        ended=np.asarray([s.ended for s in sequences], dtype=np.bool_),
        goes_on=np.asarray([s.goes_on for s in sequences], dtype=np.bool_),
        earlier=np.asarray([s.earlier for s in sequences], dtype=np.float64),
        later=np.asarray([s.later for s in sequences], dtype=np.float64),
    )


def load_sequences(file: Path) -> list[TokenSequence]:
    """Read what `save_sequences` wrote."""
    with np.load(file, allow_pickle=False) as data:
        # Cut after every sequence, the last one too, and drop the nothing behind it: so no sequences are none again.
        tokens = np.split(data["tokens"].astype(np.int64), np.cumsum(data["token_counts"]))[:-1]
        cuts = np.cumsum(data["action_counts"])
        positions = np.split(data["action_positions"].astype(np.int64), cuts)[:-1]
        rewards, ends = np.split(data["rewards"], cuts)[:-1], np.split(data["ends"], cuts)[:-1]
        last, ended = data["last_states"], data["ended"]
        none = np.zeros(len(ended))  # files from before there were windows
        goes_on, earlier, later = (data.get(name, none) for name in ("goes_on", "earlier", "later"))
    parts = zip(tokens, positions, last, rewards, ends, ended, goes_on, earlier, later, strict=True)
    return [
        TokenSequence(t, p, np.append(p, s), r, u, bool(e), number, bool(g), float(before), float(after))
        for number, (t, p, s, r, u, e, g, before, after) in enumerate(parts)
    ]
