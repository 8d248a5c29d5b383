"""`sweeps remove SWEEP`: forget a sweep; results that others share stay."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from analysis.text import count
from sweeps.command import Command, add_store, opened


def _add(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("sweep", help="one of `sweeps list`, by its name: none is removed unnamed")


def _run(given: argparse.Namespace, rest: Sequence[str]) -> int:
    store = opened(given)
    store.check_sweep(given.sweep)
    removed = count(store.remove_sweep(given.sweep), "row")
    print(f"removed the sweep {given.sweep} with {removed}; their results stay in the store")
    return 0


COMMAND = Command(name="remove", help="forget a sweep; results that others share stay", run=_run, add=_add)
