"""What `COLUMN=LOW..HIGH` on a command line says of a search: where proposals look for good values of a column.

train.learning_rate=1e-5..1e-3  every arm that has the column searches it, beside what its method declares
ilql.train.tau=0.6..0.8         one arm alone does, and in place of what its method declares

The scale is logarithmic where both ends are above 0 and a factor of 10 or more apart, and else linear. An interval is
no part of the design, whose cells leave the column where it was.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

from ilql.hyperparameters import Search, Value, number_type
from ilql.methods import method_named
from sweeps.command_line import Plain, plain_value
from sweeps.overrides import resolved
from sweeps.space import Grid, known_columns, settings

BETWEEN = ".."
"""Stands between the ends."""

LOG_FROM = 10.0
"""From this ratio of the ends on the scale is logarithmic."""


def is_interval(values: Sequence[Plain]) -> bool:
    """True if what is said of a column of training or decoding is meant as an interval: no value has two dots."""
    return any(isinstance(value, str) and BETWEEN in value for value in values)


def is_log(low: float, high: float) -> bool:
    """True if an interval of these ends has a logarithmic scale."""
    return low > 0 and high / low >= LOG_FROM


def interval(name: str, values: Sequence[Plain]) -> Search:
    """The interval that is said of a column.

    Args:
        name: `COLUMN` or `ARM.COLUMN`.
        values: What was said, of which one at least has the two dots.

    Raises:
        ValueError: It does not stand alone, or is no two finite numbers in order.
    """
    text = ",".join(map(str, values))
    if len(values) > 1:
        raise ValueError(f"an interval must stand alone, got {name}={text}; {name}=VALUE,VALUE is a grid")
    low, high = (plain_value(end.strip()) for end in text.split(BETWEEN, 1))
    if not (_is_finite(low) and _is_finite(high)):
        raise ValueError(f"an interval must lie between two finite numbers, as 1e-5..1e-3, got {name}={text}")
    if not float(low) < float(high):
        right = f"; {name}={high}{BETWEEN}{low} does" if float(low) > float(high) else f"; {name}={low} fixes it"
        raise ValueError(f"an interval must go from a lower to a higher end, got {name}={text}{right}")
    return Search(float(low), float(high), log=is_log(float(low), float(high)))


def written(search: Search) -> str:
    """An interval as it is said: a search that is read from it is this one."""
    return BETWEEN.join(f"{int(end)}" if end.is_integer() and abs(end) < 2**53 else repr(end) for end in _ends(search))


def searching(grids: Sequence[Grid], searched: Mapping[str, Search]) -> list[Grid]:
    """The arms with the intervals that were asked for; what names an arm comes after what names all.

    Raises:
        KeyError: No arm that is run has such a column.
        ValueError: It is no column of training, or holds no numbers, or an arm is what it is by its value.
    """
    found = {grid.arm: grid for grid in grids}
    for name, column, arms in resolved(searched, {arm: known_columns([grid.method]) for arm, grid in found.items()}):
        said = f"{name}={written(searched[name])}"
        bag, _, field = column.partition(".")
        if bag != "train":
            raise ValueError(
                f"an interval must be of a train.* column, since proposals vary no other, got {said}; "
                f"{name}=VALUE,VALUE is a grid"
            )
        free = [arm for arm in arms if column not in found[arm].switch]
        if not free:
            raise ValueError(f"{arms[0]} is what it is by its {column}, which cannot vary, got {said}")
        for arm in free:
            kind = number_type(method_named(found[arm].method).train, field)
            if kind is None:
                raise ValueError(
                    f"an interval must be of a column of numbers, got {said}; {name}=VALUE,VALUE is a grid"
                )
            if kind is int and not all(end.is_integer() for end in _ends(searched[name])):
                raise ValueError(f"an interval of whole numbers must have whole ends, got {said}")
            found[arm] = dataclasses.replace(found[arm], search={**found[arm].search, column: searched[name]})
    return list(found.values())


def check_corners(grid: Grid, base: Mapping[str, Value]) -> None:
    """Refuse intervals from which something would be proposed that a training cannot be.

    What settings must keep is that one is above, or below, another or a number: what its corners keep, a box keeps.

    Raises:
        ValueError: There is a corner that is none.
    """
    if not grid.search:
        return
    (start,) = grid.to_refine().trainings(base)
    values = {f"train.{name}": value for name, value in dataclasses.asdict(start.train).items()}
    for corner in itertools.product(*(_ends(search) for search in grid.search.values())):
        ends = {name: value_at(grid.method, name, end) for name, end in zip(grid.search, corner, strict=True)}
        try:
            settings(grid.method, "train", values | ends)
        except ValueError as error:
            said = " ".join(f"{name}={written(search)}" for name, search in grid.search.items())
            raise ValueError(
                f"both ends of an interval must be what {grid.arm} may have, got {said}: {error}"
            ) from None


def value_at(method: str, column: str, number: float) -> float | int:
    """A number of an interval as the column of training has it: a whole one where it has whole ones."""
    kind = number_type(method_named(method).train, column.removeprefix("train."))
    return round(number) if kind is int else number


def searched_notes(refined: Sequence[Grid], searched: Mapping[str, Search], proposals: int) -> list[str]:
    """One line for each interval: where, on which scale and in which arms proposals look.

    Args:
        refined: The arms that proposals vary.
        searched: What was asked for.
        proposals: How many there are for each arm.

    Raises:
        ValueError: There are none, or no arm takes the interval.
    """
    lines = []
    for name, search in searched.items():
        said = f"{name}={written(search)}"
        column = name if name.startswith("train.") else name.partition(".")[2]
        arms = [grid.arm for grid in refined if grid.search.get(column) == search]
        if not proposals:
            raise ValueError(f"an interval must have proposals that search it, got {said} and none; --trials 8 makes 8")
        if not arms:
            raise ValueError(f"an interval must be of a method that is refined, got {said}; --refine names others")
        scale = "logarithmic" if search.log else "linear"
        lines.append(f"{column} is searched from {search.low:g} to {search.high:g}, {scale}, in {', '.join(arms)}")
    return lines


def _ends(search: Search) -> tuple[float, float]:
    return search.low, search.high


def _is_finite(value: Plain) -> bool:
    return not isinstance(value, str | bool) and math.isfinite(value)
