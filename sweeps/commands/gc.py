"""`sweeps gc [STORE]`: free what can be made again; rows, episodes and transcripts stay."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sweeps.command import Command, add_store, add_where, at


def _add(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    add_where(parser)
    add = parser.add_argument
    add(
        "--keep",
        default="sweeps",
        metavar="RULE",
        help="what stays: `sweeps`, what any sweep of the store needs (the default); `best:K`, the weights of each "
        "sweep's K best cells of every arm, by their score on the tune scenes; `none`",
    )
    add("--dry-run", action="store_true", help="say what would be freed, and free nothing")
    add("--restore", metavar="TRIAL", help="train again what was dropped of a row's weights")


def _run(given: argparse.Namespace, rest: Sequence[str]) -> int:
    from sweeps import gc  # noqa: PLC0415
    from sweeps.policy import wanted_trial  # noqa: PLC0415

    store = at(given)
    say = lambda line: print(line, flush=True)  # noqa: E731
    print(f"store {store.folder}")
    if given.restore is not None:
        trained = gc.restore(store, wanted_trial(given.restore, store), say)
        print(f"trained {trained} again" if trained else "its weights are there")
        return 0
    rule = gc.Rule.parse(given.keep)
    if given.dry_run:
        for line in gc.lines(gc.find(store, rule), each=True):
            print(f"  would free {line}")
        return 0
    for line in gc.lines(gc.free(store, rule, say)):
        print(f"  freed {line}")
    return 0


COMMAND = Command(
    name="gc", help="free what can be made again; rows, episodes and transcripts stay", run=_run, add=_add
)
