"""What a command line asks of a question: its options, with what they say of columns put where it belongs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ilql.hyperparameters import Search, Value
from sweeps.command_line import Plain, Said
from sweeps.intervals import interval, is_interval
from sweeps.options import Options, parse
from sweeps.overrides import parted
from sweeps.question import Question
from sweeps.space import BAGS, Grid

WORLD = "world."
"""Begins the columns that are settings of the task."""


def options_of(question: Question, program: str, words: Sequence[str]) -> Options:
    """The options of a question's command line; leaves with one line and status 2 if the line is none.

    Args:
        question: What is asked.
        program: What was called.
        words: What was written behind it.

    Raises:
        KeyError: An arm that is named does not exist.
        ValueError: Several values are said of a column that no design can vary, such as one of the world; an interval
            is none, or stands where values must.
    """
    description = f"{question.name} ablation"
    options, said = parse(program, description, list(question.presets), words, question.inputs)
    if options.vary is not None and is_interval(options.vary[1]) and not options.vary[0].startswith(WORLD):
        raise ValueError(
            f"--vary must have values, which whole sweeps are made at, got {options.vary[0]}={options.vary[1][0]}"
        )
    return settled(question.chosen(options), options, said)


def settled(grids: Sequence[Grid], options: Options, said: Said) -> Options:
    """The options with each column among those that are fixed, those of the design, or those that are searched.

    A single value of a column that the arms' designs do not decide goes the first way.

    Args:
        grids: The arms that are run, as the question has them.
        options: They, without a column.
        said: Values by `COLUMN` or `ARM.COLUMN`.

    Raises:
        ValueError: Several values are said of a column that no design can vary, such as one of the world; an interval
            is none.
    """
    arms = {grid.arm for grid in grids}
    columns: dict[str, Value] = {}
    overrides: dict[str, tuple[Plain, ...]] = {}
    searched: dict[str, Search] = {}
    for name, values in said.items():
        named, column = parted(name, arms)
        if is_interval(values) and not column.startswith(WORLD):  # a setting of the world may be a path
            searched[name] = interval(name, values)
        elif named is None and not column.startswith(tuple(f"{bag}." for bag in BAGS)):
            if len(values) > 1:
                raise ValueError(
                    f"a design varies train.* and decode.*, got {name} with {len(values)} values; try --vary"
                )
            columns[name] = values[0]
        elif any("," in str(value) for value in values):  # it was no comma that parts values: that is --set's
            raise ValueError(
                f"--set gives a column one value, got {name}={values[0]}; {name}=VALUE,VALUE without --set varies it"
            )
        elif len(values) > 1 or named is not None or any(column in grid.decided for grid in grids):
            overrides[name] = values
        else:
            columns[name] = values[0]
    return dataclasses.replace(options, columns=columns, overrides=overrides, searched=searched)
