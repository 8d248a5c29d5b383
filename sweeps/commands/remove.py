"""`sweeps remove SWEEP`: forget a sweep; results that others share stay."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from analysis.text import count
from sweeps.command import Command, add_sweep, chosen


def _run(given: argparse.Namespace, rest: Sequence[str]) -> int:
    store, name = chosen(given)
    removed = count(store.remove_sweep(name), "row")
    print(f"removed the sweep {name} with {removed}; their results stay in the store")
    return 0


COMMAND = Command(name="remove", help="forget a sweep; results that others share stay", run=_run, add=add_sweep)
