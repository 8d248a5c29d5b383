"""`sweeps report SWEEP`: write a sweep's table and figures anew."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sweeps.command import Command, add_sweep, chosen
from sweeps.questions import question_named, question_names

if TYPE_CHECKING:
    from analysis.ablation import Mode


def _add(parser: argparse.ArgumentParser) -> None:
    add_sweep(parser)
    parser.add_argument("--paper", action="store_true", help="count SARSA's cells in ILQL's row, as the paper does")


def _run(given: argparse.Namespace, rest: Sequence[str]) -> int:
    from sweeps.reporting import print_report, write_sweep_report  # noqa: PLC0415

    store, name = chosen(given)
    asked = (store.get("sweep", name) or {}).get("question")
    mode: Mode = "paper" if given.paper else "default"
    if asked in question_names():
        question = question_named(asked)
        report = write_sweep_report(store, name, question.against, sections=question.sections, mode=mode)
    else:
        report = write_sweep_report(store, name, (), mode=mode)
    print_report(*report, lambda line: print(line, flush=True))
    return 0


COMMAND = Command(name="report", help="write a sweep's table and figures anew", run=_run, add=_add)
