"""What `COLUMN=VALUES` on a command line says of a question's design: which columns vary, and over what.

train.tau=0.7            one value: fixed, whether the design varies it or not
train.tau=0.5,0.7,0.9    several: every arm that has the column varies it over these
ilql.train.tau=0.8,0.95  the same of one arm alone
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable, Mapping, Sequence

from ilql.hyperparameters import Value, unknown
from sweeps.space import Grid, known_columns


def varied(grids: Sequence[Grid], overrides: Mapping[str, Sequence[Value]]) -> list[Grid]:
    """The arms' grids with the values that were asked for; what names an arm comes after what names all.

    Raises:
        KeyError: No arm that is run has such a column.
        ValueError: An arm is what it is by this column's value.
    """
    found = {grid.arm: grid for grid in grids}
    for name, column, arms in resolved(overrides, {arm: known_columns([grid.method]) for arm, grid in found.items()}):
        # Where every arm that has it is what it is by it, the first of them says so.
        for arm in [arm for arm in arms if column not in found[arm].switch] or arms:
            found[arm] = _over(found[arm], column, overrides[name])
    return list(found.values())


def parted(name: str, arms: Container[str]) -> tuple[str | None, str]:
    """The arm that `ARM.COLUMN` names, None where all are meant, and the column."""
    arm, _, column = name.partition(".")
    return (arm, column) if arm in arms else (None, name)


def resolved(names: Iterable[str], known: Mapping[str, Sequence[str]]) -> list[tuple[str, str, list[str]]]:
    """Each name with its column and the arms that it is said of; what names one arm comes after what names all.

    Args:
        names: `COLUMN`, said of all arms that have it, or `ARM.COLUMN`.
        known: The columns of every arm.

    Raises:
        KeyError: No arm has the column, or the one that is named has not; the message has the nearest first.
    """
    found = []
    for name in sorted(names, key=lambda name: parted(name, known)[0] is not None):
        named, column = parted(name, known)
        arms = [arm for arm in known if column in known[arm] and named in (None, arm)]
        if not arms and named is None:
            raise KeyError(unknown(column, "column of these methods", sorted(set().union(*known.values()))))
        if not arms:
            raise KeyError(unknown(column, f"column of an {named!r} trial", known[str(named)]))
        found.append((name, column, arms))
    return found


def widened(grids: Sequence[Grid], overrides: Mapping[str, Sequence[Value]]) -> list[str]:
    """One line for each column that is varied because another arm's design varies it, where an arm's own does not.

    Args:
        grids: The arms that are run, as the question has them.
        overrides: What was asked for.
    """
    lines = []
    found = varied(grids, overrides)
    for name in overrides:
        own = {grid.arm for grid in grids if len(grid.columns.get(name, ())) > 1}
        told = {grid.arm for grid in grids if f"{grid.arm}.{name}" in overrides}
        also = [grid.arm for grid in found if len(grid.columns.get(name, ())) > 1 and grid.arm not in own | told]
        if own and also:
            lines.append(
                f"{name} varies in {', '.join(also)} too, whose own design does not vary it: "
                f"{also[0]}.{name}=VALUE fixes it there"
            )
    return lines


def _over(grid: Grid, column: str, values: Sequence[Value]) -> Grid:
    if column in grid.switch:
        raise ValueError(f"{grid.arm} is what it is by its {column}, which cannot vary, got {list(values)}")
    return dataclasses.replace(grid, columns={**grid.columns, column: tuple(values)})
