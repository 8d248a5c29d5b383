"""`sweeps list`: the sweeps of a store."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

from analysis.text import count
from sweeps.command import Command, add_json, add_store, opened, print_json


def _add(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    add_json(parser)


def _run(given: argparse.Namespace, rest: Sequence[str]) -> int:
    store = opened(given)
    infos = store.sweeps()
    if given.json:
        print_json({"store": str(store.folder), "sweeps": [dataclasses.asdict(info) for info in infos]})
        return 0
    print(f"store {store.folder}: {count(len(infos), 'sweep')}")
    for info in infos:
        methods = ", ".join(info.methods)
        print(f"  {info.name}  {info.done} of {count(info.wanted, 'evaluation')}, {info.failed} failed  ({methods})")
    return 0


COMMAND = Command(name="list", help="the sweeps of the store", run=_run, add=_add)
