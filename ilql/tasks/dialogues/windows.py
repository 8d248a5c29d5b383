"""Dialogues as they are learnt from: turns with several rewards, and long ones cut into windows that bootstrap.

A window is cut only before a turn of the world. That turn ends the window and begins the next one: in the first it is
the state from which the learner bootstraps, in the second the context. So every turn of the agent, and its rewards, are
in exactly one window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ilql.dialogue import Dialogue, Turn


@dataclass(frozen=True)
class PaidTurn:
    """A turn with what it got under every reward.

    Attributes:
        text: What was said, in the template where there is one.
        by_agent: True if the agent said it.
        rewards: One number for each of the task's rewards, in their order; zeros on the world's turns.
    """

    text: str
    by_agent: bool
    rewards: tuple[float, ...]

    @property
    def words(self) -> int:
        """Number of words between white space."""
        return len(self.text.split())


@dataclass(frozen=True)
class Window:
    """A dialogue, or one piece of it.

    Attributes:
        scene: The name of the dialogue it is from.
        first: True if it begins where the dialogue does.
        turns: What was said.
        ended: False if it goes on in the next window, or the recording was cut off.
    """

    scene: str
    first: bool
    turns: tuple[PaidTurn, ...]
    ended: bool

    @property
    def words(self) -> int:
        """Number of words of all turns."""
        return sum(turn.words for turn in self.turns)

    def total(self, reward: int) -> float:
        """Undiscounted return under one reward, by its place."""
        return math.fsum(turn.rewards[reward] for turn in self.turns)

    def dialogue(self, reward: int) -> Dialogue:
        """The window under one reward, by its place."""
        turns = tuple(
            Turn(turn.text, by_agent=turn.by_agent, reward=turn.rewards[reward] if turn.by_agent else 0.0)
            for turn in self.turns
        )
        return Dialogue(turns, ended=self.ended)

    @property
    def opening(self) -> str | None:
        """What the world says before the agent's first turn, or None if the agent opens."""
        return None if self.turns[0].by_agent else self.turns[0].text


def join_world(turns: Sequence[PaidTurn]) -> tuple[PaidTurn, ...]:
    """The turns with each run of the world's made one, a line each: an environment's reply is one turn, too."""
    joined: list[PaidTurn] = []
    for turn in turns:
        if joined and not turn.by_agent and not joined[-1].by_agent:
            joined[-1] = PaidTurn(f"{joined[-1].text}\n{turn.text}", False, turn.rewards)
        else:
            joined.append(turn)
    return tuple(joined)


def cut(dialogue: Window, *, window_words: int) -> tuple[Window, ...]:
    """The dialogue in consecutive windows of at most so many words, or itself if it is short enough.

    A piece from one turn of the world to the next is never cut, so a window with a single such piece may be longer.

    Args:
        dialogue: A whole dialogue, the world's runs joined.
        window_words: Largest number of words of a window, the repeated turn included; 0 cuts nothing.
    """
    if not window_words or dialogue.words <= window_words:
        return (dialogue,)
    turns = dialogue.turns
    # A cut stands before a world's turn that answers the agent and is answered: behind the last one nothing is learnt.
    last = max(place for place, turn in enumerate(turns) if turn.by_agent)
    cuts = [place for place in range(1, last) if not turns[place].by_agent]
    ends = [*cuts, len(turns)]
    windows, start = [], 0
    while start < len(turns):
        fitting = [end for end in ends if end > start and _words(turns, start, end) <= window_words]
        end = fitting[-1] if fitting else next(end for end in ends if end > start)
        whole = end == len(turns)
        windows.append(
            Window(
                scene=dialogue.scene,
                first=start == 0,
                turns=turns[start:end] if whole else turns[start : end + 1],
                ended=dialogue.ended and whole,
            )
        )
        start = end
    return tuple(windows)


def _words(turns: Sequence[PaidTurn], start: int, end: int) -> int:
    """The words of a window from `start` that is cut before `end`: that turn is in it, as the state it ends in."""
    return sum(turn.words for turn in turns[start : end + 1])
