"""`sweeps advantages TRIAL`: recorded dialogues as a trial's values see them, token by token."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ilql.task import SPLITS
from sweeps.command import Command, add_trial, opened
from sweeps.command_line import whole_number


def _add(parser: argparse.ArgumentParser) -> None:
    add_trial(parser)
    parser.add_argument("--split", default="report", choices=SPLITS, help="which dialogues (default: report)")
    parser.add_argument("--dialogues", type=whole_number(1, 10**6), default=200, help="how many (default: %(default)s)")


def _run(given: argparse.Namespace, rest: Sequence[str]) -> int:
    from sweeps.advantages import show_advantages  # noqa: PLC0415
    from sweeps.policy import find_trial  # noqa: PLC0415

    store = opened(given)
    print(show_advantages(store, find_trial(given.trial, store), split=given.split, dialogues=given.dialogues))
    return 0


COMMAND = Command(
    name="advantages",
    help="recorded dialogues as a trial's values see them, token by token",
    run=_run,
    add=_add,
)
