"""`sweeps validate FILE`: what is wrong with a file of dialogues, and what is in it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sweeps.command import Command
from sweeps.options import assignment


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="dialogues, one JSON object a line: docs/your_dialogues.md")
    parser.add_argument("--set", metavar="world.FIELD=VALUE", action="append", default=[], type=assignment)


def _run(given: argparse.Namespace, rest: Sequence[str]) -> int:
    from ilql.hyperparameters import make  # noqa: PLC0415
    from ilql.tasks.dialogues import Settings, validate  # noqa: PLC0415
    from ilql.tasks.dialogues.validate import refusal, report  # noqa: PLC0415

    fields = {column.removeprefix("world."): value for column, value in given.set}
    settings = make(Settings, fields, owner="a dialogues world", prefix="world")
    problems, summary = validate(given.file, settings)
    print(report(problems, summary))
    if (why := refusal(given.file, problems, summary, settings)) is not None:
        raise ValueError(why)
    return 0


COMMAND = Command(name="validate", help="what is wrong with a file of dialogues, and what is in it", run=_run, add=_add)
