"""`sweeps rescore SWEEP`: a sweep's table under another reward, from its transcripts."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sweeps.command import Command, add_store, check_sweep, opened
from sweeps.options import OneLineParser, parse
from sweeps.questions import question_named


def _run(given: argparse.Namespace, rest: Sequence[str]) -> int:
    from sweeps.reporting import print_report  # noqa: PLC0415
    from sweeps.rescore import rescore  # noqa: PLC0415

    place = OneLineParser(add_help=False, allow_abbrev=False)
    add_store(place)
    store = opened(place.parse_known_args(rest)[0])
    check_sweep(store, given.sweep)
    question = question_named(str((store.get("sweep", given.sweep) or {})["question"]))
    options = parse(f"sweeps rescore {given.sweep}", "rescore", list(question.presets), rest, question.inputs)
    if options.overrides:
        raise ValueError(f"the cells of a sweep are there already, got {next(iter(options.overrides))}=...")
    say = lambda line: print(line, flush=True)  # noqa: E731
    print_report(rescore(store, given.sweep, question, options, say), (), say)
    return 0


COMMAND = Command(
    name="rescore",
    help="a sweep's table under another reward, from its transcripts",
    run=_run,
    subject=("sweep", lambda: "a sweep of the store"),
)
