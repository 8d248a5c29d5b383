"""Dialogues that are longer than is read at once, cut into windows that bootstrap.

A window is a stretch of a dialogue's tokens, and some of the agent's tokens in it are its actions. What stands before
those is context; the state behind the last of them is in it, too, and there it bootstraps: a cut is no end. The next
window acts from that very state on. So every action, and every reward, is in exactly one window.

1. A cut is where the agent is about to speak, if one is in reach, and in the middle of its utterance else: each of its
   tokens is an action of its own.
2. A window has at least a quarter of `max_tokens` before its first action, or all there is, and more if there is room.
   It begins with a turn of the world, as a dialogue does, where that leaves the quarter; else in the middle of a turn.
3. What the world says at once is read from its end, as far as that leaves the quarter for what stands before it.

Axes: *T* tokens, *K* actions.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ilql.batch import TokenSequence, lay_out
from ilql.dialogue import Dialogue
from ilql.tokens import Tokenizer

VERSION = 1
"""Raised when the same dialogue would be cut otherwise; part of the key of tokens that are cut into windows."""


@dataclass(frozen=True)
class Windows:
    """A dialogue as it is read.

    Attributes:
        sequences: Its windows in order; one where the whole of it is read at once.
        tokens: Number of tokens of the whole dialogue.
        left_out: Those of them that are in no window, the world's.
    """

    sequences: tuple[TokenSequence, ...]
    tokens: int
    left_out: int


def cut(dialogue: Dialogue, tokenizer: Tokenizer, *, max_tokens: int) -> Windows:
    """A dialogue in windows of at most so many tokens; one that is no longer is what `tokenize` makes of it.

    Raises:
        ValueError: `max_tokens` is too small for what stands between two actions even where nothing is said.
    """
    whole, heard = lay_out(dialogue, tokenizer)
    tokens = len(whole.tokens)
    if tokens <= max_tokens:
        return Windows((whole,), tokens, 0)
    room = max_tokens - max(1, max_tokens // 4)
    read = _read(whole, heard, room, max_tokens)
    before = np.concatenate([[0], np.cumsum(read)])  # how many are read before each, which is its place among them
    kept = TokenSequence(
        whole.tokens[read],
        before[whole.action_positions],
        before[whole.state_positions],
        whole.rewards,
        whole.ends,
        whole.ended,
    )
    left_out = tokens - len(kept.tokens)
    if len(kept.tokens) <= max_tokens:
        return Windows((kept,), tokens, left_out)
    opens = tokenizer.before_first(by_agent=False)
    starts = before[[words.start for words in heard]]
    windows = [
        _window(kept, first, behind, opens, starts, max_tokens, least=max_tokens - room)
        for first, behind in _actions(kept, room, max_tokens)
    ]
    return Windows(tuple(windows), tokens, left_out)


def _read(whole: TokenSequence, heard: Sequence[range], room: int, max_tokens: int) -> npt.NDArray[np.bool_]:
    """Which tokens are read, shape (T,): all, but for the first words of the world's where states are too far apart."""
    read = np.ones(len(whole.tokens), dtype=np.bool_)
    for before, state in itertools.pairwise([-1, *whole.state_positions.tolist()]):
        too_many = state - before - room
        if too_many <= 0:
            continue
        words = [place for turn in heard if before < turn.start <= state for place in turn]
        if too_many > len(words):
            fixed = state - before - len(words)
            least = next(n for n in itertools.count(max_tokens) if n - max(1, n // 4) >= fixed)
            raise ValueError(f"windows need max_tokens of at least {least}, got {max_tokens}")
        read[words[:too_many]] = False
    return read


def _actions(kept: TokenSequence, room: int, max_tokens: int) -> Iterator[tuple[int, int]]:
    """Of each window its first action, and the one behind its last."""
    states, first, count = kept.state_positions, 0, len(kept.action_positions)
    while first < count:
        reach = max(max_tokens - 1, int(states[first]) + room)
        if first == 0 and states[1] < max_tokens:
            reach = max_tokens - 1  # the first window has all that was said before it
        behind = int(np.searchsorted(states, reach, side="right")) - 1
        said = np.flatnonzero(kept.ends[first:behind])
        if behind < count and len(said):
            behind = first + int(said[-1]) + 1
        yield first, behind
        first = behind


def _window(
    kept: TokenSequence,
    first: int,
    behind: int,
    opens: Sequence[int],
    starts: npt.NDArray[np.int64],
    max_tokens: int,
    *,
    least: int,
) -> TokenSequence:
    """The window of some actions, with as much before them as there is room for.

    Args:
        kept: The dialogue.
        first: Its first action.
        behind: The action behind its last.
        opens: What a dialogue begins with that the world opens.
        starts: Where the world's turns begin.
        max_tokens: Its longest.
        least: Its shortest context.
    """
    now, last = int(kept.state_positions[first]), int(kept.state_positions[behind])
    begin, mark = max(0, last + 1 - max_tokens), list[int]()
    if begin:
        fitting = starts[(starts >= begin + len(opens)) & (starts <= now + 1 + len(opens) - least)]
        if len(fitting):
            begin, mark = int(fitting[0]), [*opens]
    shift, goes_on = len(mark) - begin, behind < len(kept.action_positions)
    return TokenSequence(
        np.concatenate([np.asarray(mark, dtype=np.int64), kept.tokens[begin : last + 1]]),
        kept.action_positions[first:behind] + shift,
        kept.state_positions[first : behind + 1] + shift,
        kept.rewards[first:behind],
        kept.ends[first:behind],
        ended=kept.ended and not goes_on,
        goes_on=goes_on,
        earlier=float(kept.rewards[:first].sum(dtype=np.float64)),
        later=float(kept.rewards[behind:].sum(dtype=np.float64)),
    )
