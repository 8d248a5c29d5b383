"""What was said, by whom, for what reward."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    """One utterance.

    Attributes:
        text: What was said. Empty text is allowed for the agent, which may say nothing.
        by_agent: True if the policy that is trained or evaluated said it, False if the world did.
        reward: What the agent got for it; a finite float, 0 on the world's turns.

    Raises:
        ValueError: The reward is not finite, or a world's turn carries one.
    """

    text: str
    by_agent: bool
    reward: float = 0.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.reward):
            raise ValueError(f"a turn's reward must be finite, got {self.reward}")
        if self.reward != 0.0 and not self.by_agent:
            raise ValueError(f"only the agent's turns carry rewards, got {self.reward} on the world's {self.text!r}")


@dataclass(frozen=True)
class Dialogue:
    """A whole recorded conversation.

    Attributes:
        turns: The utterances in order.
        ended: True if the world ended it, False if the recording was cut off. The value after the last action is 0 in
            the first case and bootstrapped from the final state in the second.
    """

    turns: tuple[Turn, ...]
    ended: bool

    @property
    def total_reward(self) -> float:
        """Undiscounted sum of the rewards of all turns."""
        return math.fsum(turn.reward for turn in self.turns)
