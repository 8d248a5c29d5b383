"""`python -m ilql.tasks.reddit --data FILE` says what comments are in a file and which rewards can be had for them."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ilql.hyperparameters import make
from ilql.tasks.reddit import INPUTS, build
from ilql.tasks.reddit.settings import Settings

WORLD = "world."


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the comments task in a temporary folder and print its notes."""
    parser = argparse.ArgumentParser(prog="python -m ilql.tasks.reddit", description=main.__doc__)
    parser.add_argument("--data", metavar="FILE", help="a table of comments; without it they are generated")
    for name, meaning in INPUTS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, metavar="PATH", help=meaning)
    meanings = "; ".join(f"{item.name}: {item.metadata['meaning']}" for item in dataclasses.fields(Settings))
    parser.add_argument(
        "--set", action="append", default=[], metavar="world.NAME=VALUE", help=meanings.replace("%", "%%")
    )
    chosen = parser.parse_args(arguments)
    sources = {name: value for name in ("data", *INPUTS) if (value := getattr(chosen, name)) is not None}
    with tempfile.TemporaryDirectory() as folder:
        try:
            settings = make(Settings, _read(chosen.set), owner="a comments world", prefix="world")
            notes = build(settings, sources, Path(folder))
        except (KeyError, TypeError, ValueError) as fault:
            sys.stderr.write(f"{fault.args[0]}\n")
            return 2
    sys.stdout.write("".join(f"{note}\n" for note in notes))
    return 0


def _read(given: Sequence[str]) -> dict[str, Any]:
    """Settings by name; what reads as a number or a truth is one, and all else is text.

    Raises:
        ValueError: One is not NAME=VALUE.
    """
    values: dict[str, Any] = {}
    for one in given:
        name, equals, text = one.partition("=")
        if not equals:
            raise ValueError(f"--set must be world.NAME=VALUE, got {one!r}")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        values[name.removeprefix(WORLD)] = value if isinstance(value, bool | int | float) else text
    return values


if __name__ == "__main__":
    raise SystemExit(main())
