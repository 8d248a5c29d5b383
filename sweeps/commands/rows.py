"""`sweeps rows SWEEP -o DIR`: a sweep's rows and episodes for other programs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from sweeps.command import Command, add_sweep, chosen


def _add(parser: argparse.ArgumentParser) -> None:
    add_sweep(parser)
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", required=True, help="where to")
    parser.add_argument("--deepcave", action="store_true", help="also a run for each arm that DeepCAVE opens")


def _run(given: argparse.Namespace, rest: Sequence[str]) -> int:
    from sweeps.rows import write_rows  # noqa: PLC0415

    store, name = chosen(given)
    if given.out.exists() and not given.out.is_dir():
        raise ValueError(f"-o must name a folder, got the file {given.out}")
    for path in write_rows(store, name, given.out, deepcave=given.deepcave):
        print(f"wrote {path}")
    return 0


COMMAND = Command(name="rows", help="write a sweep's rows and episodes for other programs", run=_run, add=_add)
