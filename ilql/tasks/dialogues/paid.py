"""Dialogues as they are learnt from: turns with several rewards, the world's runs made one."""

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


@dataclass(frozen=True)
class PaidDialogue:
    """A dialogue with what its turns got under every reward.

    Attributes:
        scene: Its name.
        turns: What was said.
        ended: False if the recording was cut off.
    """

    scene: str
    turns: tuple[PaidTurn, ...]
    ended: bool

    def total(self, reward: int) -> float:
        """Undiscounted return under one reward, by its place."""
        return math.fsum(turn.rewards[reward] for turn in self.turns)

    def under(self, reward: int) -> Dialogue:
        """The dialogue under one reward, by its place."""
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
