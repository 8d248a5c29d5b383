"""`sweeps mirror [SWEEP]`: bring MLflow up to date from the store alone."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from analysis.text import count
from ilql.files import user_path
from sweeps.command import Command, add_store, existing, is_store


def _add(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    parser.add_argument("where", nargs="?", metavar="SWEEP", help="one sweep, or a store's folder; else all")
    parser.add_argument("--tracking-uri", metavar="URI", help="MLflow's (default: as for a sweep's own mirror)")


def _run(given: argparse.Namespace, rest: Sequence[str]) -> int:
    from sweeps.mirror import remirror  # noqa: PLC0415

    named = given.store is None and given.where is not None and is_store(user_path(given.where))
    store = existing(given.where if named else given.store)
    asked = None if named or given.where is None else [given.where]
    if asked is not None:
        store.check_sweep(asked[0])
    behind = remirror(store, given.tracking_uri, asked)
    done = len(asked or store.sweeps()) - len(behind)
    print(f"store {store.folder}: MLflow has {count(done, 'sweep')} whole")
    for name in behind:
        print(f"  {name} could not be sent; the same command tries again")
    return 1 if behind else 0


COMMAND = Command(name="mirror", help="bring MLflow up to date from the store alone", run=_run, add=_add)
