"""What a user's code pays, checked: numbers from an environment, and from a reward function over a whole dialogue."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ilql.tasks.dialogues.functions import told
from ilql.tasks.dialogues.schema import RECORDED, shorten

Said = tuple[str, str]
"""A role and a text."""


@dataclass(frozen=True)
class RewardFunction:
    """A user's `reward(dialogue, turn)`.

    Attributes:
        function: Gets a list of objects with `role` and `text`, and the place of a turn of the agent in it, from 0.
        low: The least it may give for a turn.
        high: The most.
    """

    function: Callable[..., Any]
    low: float
    high: float

    def pay(self, dialogue: Sequence[Said], turn: int, about: str) -> float:
        """What one turn of the agent gets in a dialogue.

        Raises:
            ValueError: The function raised something, or gave no number in its range; one line with the dialogue's
                name and the turn.
        """
        copy = [{"role": role, "text": text} for role, text in dialogue]  # its own: it may change what it gets
        where = f"the reward function must give a finite number for turn {turn} (from 0) of dialogue {about!r}"
        try:
            value = self.function(copy, turn)
        except (Exception, SystemExit) as error:  # noqa: BLE001  whatever a user's code raises
            raise ValueError(f"{where}, but it {told(error)}") from None
        number = as_number(value)
        if number is None:
            raise ValueError(f"{where}, got {_shown(value)}")
        if not self.low <= number <= self.high:
            raise ValueError(f"{where} in [{self.low:g}, {self.high:g}], got {number:g}; {BOUNDS_ADVICE}")
        return number


BOUNDS_ADVICE = "say what it may be with --set world.lowest_reward and world.highest_reward"


def paid(value: object, bounds: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """What an environment paid for one utterance, under every one of its rewards.

    Args:
        value: A number, which is `recorded`, or numbers by name.
        bounds: The range of a turn's reward, by the name of every reward that the environment must pay.

    Raises:
        ValueError: It is neither; a reward is missing, unknown, no finite number or out of its range.
    """
    given = dict(value) if isinstance(value, Mapping) else {RECORDED: value}
    names = ", ".join(bounds)
    what = "numbers by name" if isinstance(value, Mapping) else "a single number, which is 'recorded'"
    if missing := [name for name in bounds if name not in given]:
        raise ValueError(f"step must pay every reward ({names}), got {what}, without {', '.join(missing)}")
    if strange := [name for name in given if name not in bounds]:
        raise ValueError(f"step must pay the rewards {names}, got {', '.join(map(_shown, strange))} besides")
    numbers = {}
    for name, (low, high) in bounds.items():
        number = as_number(given[name])
        if number is None:
            raise ValueError(f"step must pay finite numbers, got {_shown(given[name])} for {name}")
        if not low <= number <= high:
            raise ValueError(f"step must pay {name} in [{low:g}, {high:g}], got {number:g}; {BOUNDS_ADVICE}")
        numbers[name] = number
    return numbers


def as_number(value: object) -> float | None:
    """A finite number of Python or numpy as a float, or None for anything else; True is no number."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _shown(value: object) -> str:
    """A user's value in one short line."""
    return f"{type(value).__name__} {shorten(' '.join(repr(value).split()))}"
