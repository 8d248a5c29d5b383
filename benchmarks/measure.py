"""How a benchmark measures: two sides that really run, in turn, in one process, and what came of them.

A speed is only ever stated as the ratio of two sides measured in one run: these machines are shared, and what slows one
side slows the other. Each round runs both, the first of them in turn; a line reports medians and the spread of the
rounds' own ratios.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

JSON = str | int | float | bool | None | Sequence["JSON"] | Mapping[str, "JSON"]


@dataclass(frozen=True)
class Line:
    """One row of the table.

    Attributes:
        name: What is measured.
        unit: Of the numbers, `tokens/s`.
        ours: What our side measured, round by round.
        other: The same of the other side, in the same rounds.
        other_is: Who the other side is, and how it does it.
        goal: What the ratio is to reach: at least this where `at_least`, at most this where not.
        at_least: Whether `ratio` says how many times better ours is, and more is better; else it is ours by the other,
            and less is better.
        more_is_better: Whether more of the unit is better; decides which way an `at_least` ratio is taken.
        note: What a reader must know beside the numbers: the floor and how near it is, what was not met and why.
        details: Whatever else was measured, kept in the JSON.

    Raises:
        ValueError: The sides were not measured in the same rounds, or not at all.
    """

    name: str
    unit: str
    ours: tuple[float, ...]
    other: tuple[float, ...]
    other_is: str
    goal: float
    at_least: bool = True
    more_is_better: bool = True
    note: str = ""
    details: Mapping[str, JSON] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.ours or len(self.ours) != len(self.other):
            raise ValueError(f"sides must be measured in the same rounds, got {len(self.ours)} and {len(self.other)}")

    @property
    def ratios(self) -> tuple[float, ...]:
        """The ratio of every round."""
        flip = self.at_least and not self.more_is_better
        return tuple(other / ours if flip else ours / other for ours, other in zip(self.ours, self.other, strict=True))

    @property
    def ratio(self) -> float:
        """The median ratio."""
        return statistics.median(self.ratios)

    @property
    def met(self) -> bool:
        """Whether the goal is reached."""
        return self.ratio >= self.goal if self.at_least else self.ratio <= self.goal


@dataclass(frozen=True)
class Benchmark:
    """A file of `benchmarks` presents itself by one such value named `BENCHMARK`.

    Attributes:
        name: Its name on the command line, and of its file of results.
        question: What it asks, in a line.
        run: Measures it. Takes whether to run at the smallest size that shows that it runs; such numbers mean nothing.
        long: Whether it takes too long for `make bench`, and belongs to `make bench-long`.
    """

    name: str
    question: str
    run: Callable[[bool], list[Line]]
    long: bool = False


def alternately(
    ours: Callable[[], float], other: Callable[[], float], *, rounds: int, warm_up: bool = True
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Run both sides in turn, the first to go alternating, and return what each said, round by round.

    Args:
        ours: One measurement of our side; returns its number.
        other: One of the other side.
        rounds: How often.
        warm_up: Whether each side runs once before, uncounted.
    """
    if warm_up:
        ours()
        other()
    first: list[float] = []
    second: list[float] = []
    for turn in range(rounds):
        for side, kept in ((ours, first), (other, second))[:: 1 if turn % 2 == 0 else -1]:
            kept.append(side())
    return tuple(first), tuple(second)


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def per_second(count: float, work: Callable[[], object]) -> Callable[[], float]:
    """A side that does some work on `count` things and says how many a second."""
    return lambda: count / seconds(work)
