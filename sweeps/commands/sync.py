"""`sweeps sync [STORE]`: a store and its copy in an object store get from each other what they lack."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from analysis.text import count
from sweeps.command import Command, add_store, add_where, at
from sweeps.paths import store_at
from sweeps.store import Store, joined


def _add(parser: argparse.ArgumentParser) -> None:
    add_where(parser)
    add_store(parser)
    parser.add_argument(
        "--remote",
        metavar="URL",
        help="where the copy is, s3://bucket/prefix, for a new folder or a store that has none yet",
    )


def _run(given: argparse.Namespace, rest: Sequence[str]) -> int:
    store = at(given) if given.remote is None else _joined(given)
    if store.replica is None:
        raise ValueError(f"a store that is synchronised must have a copy, {store.folder} has none; --remote names one")
    sent = store.send_all()
    store.sync()
    got = store.fetch_all("evaluation", [key for key, value in store.all("evaluation").items() if _is_finished(value)])
    print(
        f"store {store.folder} and its copy at {store.replica.url}: {count(sent, 'stage')} sent, "
        f"{count(got, 'evaluation')} got; weights are got when they are needed"
    )
    return 0


def _joined(given: argparse.Namespace) -> Store:
    if given.where and given.store:
        raise ValueError(f"one store must be named, got {given.where} and --store {given.store}")
    return joined(store_at(given.where or given.store), given.remote, first=True)


def _is_finished(value: object) -> bool:
    return isinstance(value, dict) and value.get("status") == "finished"


COMMAND = Command(name="sync", help="send to and get from a store's copy in an object store", run=_run, add=_add)
