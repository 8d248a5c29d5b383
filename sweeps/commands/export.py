"""`sweeps export TRIAL FOLDER`: write a trained policy as a Hugging Face folder."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sweeps.command import Command, add_trial, opened
from sweeps.paths import output_folder


def _add(parser: argparse.ArgumentParser) -> None:
    add_trial(parser)
    parser.add_argument("folder", help="new, or empty")
    parser.add_argument("--model", metavar="DIR", help="what it began as; must be named where its vocabulary is cut")


def _run(given: argparse.Namespace, rest: Sequence[str]) -> int:
    from sweeps.policy import export_policy  # noqa: PLC0415

    store = opened(given)
    with output_folder("an export's folder", given.folder) as folder:
        export_policy(given.trial, folder, store, model=given.model)
    print(f"wrote {given.folder}")
    return 0


COMMAND = Command(name="export", help="write a trained policy as a Hugging Face folder", run=_run, add=_add)
