"""`sweeps rows SWEEP -o DIR`: a sweep's rows and episodes for other programs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from sweeps.command import Command, add_sweep, chosen
from sweeps.paths import output_folder


def _add(parser: argparse.ArgumentParser) -> None:
    add_sweep(parser)
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", required=True, help="where to")
    parser.add_argument("--deepcave", action="store_true", help="also a run for each arm that DeepCAVE opens")


def _run(given: argparse.Namespace, rest: Sequence[str]) -> int:
    from sweeps.rows import write_rows  # noqa: PLC0415

    store, name = chosen(given)
    with output_folder("-o", given.out) as folder:
        paths = write_rows(store, name, folder, deepcave=given.deepcave)
    for path in paths:
        print(f"wrote {path}")
    return 0


COMMAND = Command(name="rows", help="write a sweep's rows and episodes for other programs", run=_run, add=_add)
