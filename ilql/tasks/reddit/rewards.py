"""What a comment earns, by name. A reward is a function of the comment (and of its parent, if it likes).

- `toxicity`: 0, -5 or -10 as the probability of a toxicity classifier passes two thresholds.
- `toxicity_noised`: the same, as published (Snell et al. 2022): in place of -5 either 0 or -10, a coin for
  each text.
- `upvotes_real`: 10 for a recorded comment that was voted up, else 0. Nobody has voted on what an agent writes, so at
  play, as in the paper, it is judged by `upvotes_model`; so is a recorded comment without votes.
- `upvotes_model`: 10 where a model of the votes gives a probability of at least 1/2, else 0.
- `regex`: a setting's value where its pattern matches, else 0.
- `callable`: what a function of the user's says.

A classifier trained here pays the recorded comments that it learnt from by folds that had not seen them (`OutOfFold`),
so that it is as good a judge of them as of what an agent writes.

They differ from the released code in that nothing is asked of a remote service, the model of the votes never sees the
test split (there it was trained on it), and every coin follows from the text and the seed.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ilql.task import TaskFault
from ilql.tasks.reddit.judges import Judge, text_name
from ilql.tasks.reddit.texts import uniform

NAMES = ("toxicity", "toxicity_noised", "upvotes_real", "upvotes_model", "regex", "callable")
"""All there are; the first that a task offers is its default."""

MIDDLE, WORST = -5.0, -10.0
VOTED_UP = 10.0


class Reward(Protocol):
    """A reward of the comments task.

    Attributes:
        name: One of `NAMES`.
        low: The least a comment can earn, which is what an empty one earns.
        high: The most.
        levels: The values it takes, where these are few: what label noise draws from.
    """

    @property
    def name(self) -> str:
        """See above."""
        ...

    @property
    def low(self) -> float:
        """See above."""
        ...

    @property
    def high(self) -> float:
        """See above."""
        ...

    @property
    def levels(self) -> tuple[float, ...]:
        """See above."""
        ...

    def score(self, texts: Sequence[str], parents: Sequence[str | None]) -> list[float]:
        """What each text earns as an answer to its parent, in [low, high]; equal texts earn the same.

        Raises:
            TaskFault: It could not be said.
        """
        ...


@dataclass(frozen=True)
class Toxicity:
    """Minus five for each threshold that the probability of being toxic reaches.

    Attributes:
        judge: Gives the probability.
        doubtful: The lower threshold.
        toxic: The higher one.
    """

    judge: Judge
    doubtful: float
    toxic: float
    name: str = "toxicity"
    low: float = WORST
    high: float = 0.0
    levels: tuple[float, ...] = (0.0, MIDDLE, WORST)

    def score(self, texts: Sequence[str], parents: Sequence[str | None]) -> list[float]:
        """See `Reward`."""
        del parents
        return [
            WORST if probability >= self.toxic else MIDDLE if probability >= self.doubtful else 0.0
            for probability in self.judge.probabilities(texts)
        ]


@dataclass(frozen=True)
class NoisedToxicity:
    """`toxicity` whose middle value is thrown to either end, heads or tails by text and seed."""

    clean: Toxicity
    seed: int
    name: str = "toxicity_noised"
    low: float = WORST
    high: float = 0.0
    levels: tuple[float, ...] = (0.0, WORST)

    def score(self, texts: Sequence[str], parents: Sequence[str | None]) -> list[float]:
        """See `Reward`."""
        return [
            (0.0 if uniform(self.seed, "coin", text) < 0.5 else WORST) if value == MIDDLE else value
            for text, value in zip(texts, self.clean.score(texts, parents), strict=True)
        ]


@dataclass(frozen=True)
class ModelledVotes:
    """Ten where a model of the votes finds it as likely as not that a comment is voted up.

    `upvotes_real` is this at play, too: only recorded comments have votes, and those are the task's to know.
    """

    judge: Judge
    name: str
    low: float = 0.0
    high: float = VOTED_UP
    levels: tuple[float, ...] = (0.0, VOTED_UP)

    def score(self, texts: Sequence[str], parents: Sequence[str | None]) -> list[float]:
        """See `Reward`."""
        del parents
        return [VOTED_UP if probability >= 0.5 else 0.0 for probability in self.judge.probabilities(texts)]


@dataclass(frozen=True)
class Matching:
    """A fixed value where a pattern is found in the comment, else 0."""

    pattern: re.Pattern[str]
    value: float
    name: str = "regex"

    @property
    def low(self) -> float:
        """The value or 0, whichever is less."""
        return min(0.0, self.value)

    @property
    def high(self) -> float:
        """The value or 0, whichever is more."""
        return max(0.0, self.value)

    @property
    def levels(self) -> tuple[float, ...]:
        """Both."""
        return (0.0, self.value)

    def score(self, texts: Sequence[str], parents: Sequence[str | None]) -> list[float]:
        """See `Reward`."""
        del parents
        return [self.value if self.pattern.search(text) else 0.0 for text in texts]


class Called:
    """What a function of the user's says about each text; it is asked once about each.

    Attributes:
        low: The least it may say.
        high: The most.
    """

    name = "callable"
    levels: tuple[float, ...] = ()

    def __init__(self, function: str, *, low: float, high: float) -> None:
        self.low, self.high = low, high
        self._where = function
        self._function: Callable[[list[str]], object] | None = None
        self._known: dict[bytes, float] = {}

    def score(self, texts: Sequence[str], parents: Sequence[str | None]) -> list[float]:
        """See `Reward`.

        Raises:
            TaskFault: There is no such function, it raised, or did not give a finite float in range for each text.
        """
        del parents
        names = [text_name(text) for text in texts]
        new = {name: text for name, text in zip(names, texts, strict=True) if name not in self._known}
        if new:
            self._known.update(zip(new, self._call(list(new.values())), strict=True))
        return [self._known[name] for name in names]

    def _call(self, texts: list[str]) -> list[float]:
        if self._function is None:
            self._function = find_function(self._where)
        try:
            said = self._function(texts)
            values = [float(value) for value in said]  # type: ignore[attr-defined]
        except Exception as error:  # whatever a stranger's function raises is the world's fault
            reason = " ".join(str(error).split())
            raise TaskFault(f"the callable {self._where} raised {type(error).__name__}: {reason}") from error
        if len(values) != len(texts):
            raise TaskFault(
                f"the callable {self._where} must give one float for each text, got {len(values)} for {len(texts)}"
            )
        for text, value in zip(texts, values, strict=True):
            if not math.isfinite(value) or not self.low <= value <= self.high:
                raise TaskFault(
                    f"the callable {self._where} must give finite floats in [{self.low:g}, {self.high:g}] "
                    f"(callable_low, callable_high), got {value} for {text[:40]!r}"
                )
        return values


def find_function(where: str) -> Callable[[list[str]], object]:
    """The function that `module:function` means.

    Raises:
        TaskFault: There is none.
    """
    module, _, name = where.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:  # importing runs a stranger's code
        reason = " ".join(str(error).split())
        raise TaskFault(
            f"callable must be module:function that Python can import here, got {where}: {reason}"
        ) from error
    if not callable(function):
        raise TaskFault(f"callable must be module:function, got {where}, which is a {type(function).__name__}")
    found: Callable[[list[str]], object] = function
    return found


def noised(reward: Reward, texts: Sequence[str], values: Sequence[float], *, noise: float, seed: int) -> list[float]:
    """Values of which a share `noise` is replaced by a level drawn uniformly, which may be the same one.

    Text and seed decide, so equal texts are noised alike. A reward without levels is left alone.
    """
    if not noise or not reward.levels:
        return list(values)
    return [
        reward.levels[int(uniform(seed, "noise level", text) * len(reward.levels))]
        if uniform(seed, "noise", text) < noise
        else value
        for text, value in zip(texts, values, strict=True)
    ]
