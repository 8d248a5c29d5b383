"""`sweeps plan QUESTION`: what answering it would cost."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sweeps.command import Command
from sweeps.commands.run import add_options, choices, run_named
from sweeps.questions import question_names


def _run(given: argparse.Namespace, rest: Sequence[str]) -> int:
    return run_named("plan", given.question, [*rest, "--plan"])


COMMAND = Command(
    name="plan",
    help="print what it would cost",
    run=_run,
    subject=("question", choices),
    words=question_names,
    options=add_options,
)
