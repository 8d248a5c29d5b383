"""`sweeps doctor [STORE]`: what is wrong with a store."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from analysis.text import count
from sweeps.command import Command, add_json, add_store, add_where, at, print_json


def _add(parser: argparse.ArgumentParser) -> None:
    add_store(parser)
    add_where(parser)
    parser.add_argument("--quick", action="store_true", help="compare files' sizes only, not their digests")
    add_json(parser)


def _run(given: argparse.Namespace, rest: Sequence[str]) -> int:
    from sweeps.doctor import findings, notes  # noqa: PLC0415

    store = at(given)
    problems, harmless = findings(store, deep=not given.quick), notes(store)
    if given.json:
        print_json({"store": str(store.folder), "problems": problems, "notes": harmless})
        return 1 if problems else 0
    print(f"store {store.folder}: {count(len(problems), 'problem')}")
    for problem in problems:
        print(f"  {problem}")
    for note in harmless:
        print(f"  no problem: {note}")
    return 1 if problems else 0


COMMAND = Command(name="doctor", help="what is wrong with the store", run=_run, add=_add)
