"""`sweeps completion SHELL`: what a shell needs to complete our commands and options."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sweeps.command import Command

SHELLS = ("bash", "zsh", "fish", "tcsh")


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS)


def _run(given: argparse.Namespace, rest: Sequence[str]) -> int:
    import shtab  # noqa: PLC0415

    from sweeps.cli import make_parser  # noqa: PLC0415

    print(shtab.complete(make_parser(complete=True)[0], given.shell))
    return 0


COMMAND = Command(
    name="completion",
    help='what a shell completes our commands with: eval "$(sweeps completion bash)"',
    run=_run,
    add=_add,
)
