"""What a command of `sweeps` is, and what commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sweeps.store import Store, store_folder


def _nothing(parser: argparse.ArgumentParser) -> None:
    """Add no option."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command. Heavy libraries are imported when it runs, not when it is read: `sweeps --help` reads all of them.

    Attributes:
        name: As it is typed.
        help: What it does, in a line.
        run: Does it; returns the exit status. Its arguments are what was parsed, and what of the command line is left.
        add: Adds its options to a parser.
        subject: For a command whose further options depend on one word: what the word is, and what it can be. Without
            the word its help is short, and what is left of the command line is for `run` to parse.
    """

    name: str
    help: str
    run: Callable[[argparse.Namespace, Sequence[str]], int]
    add: Callable[[argparse.ArgumentParser], None] = _nothing
    subject: tuple[str, Callable[[], str]] | None = None


def add_store(parser: argparse.ArgumentParser) -> None:
    """Add the option that says which store."""
    parser.add_argument("--store", metavar="DIR", help="default: $SWEEPS_STORE, else ~/.sweeps/store")


def add_sweep(parser: argparse.ArgumentParser) -> None:
    """Add a sweep of a store."""
    add_store(parser)
    parser.add_argument("sweep", help="one of `sweeps list`")


def add_trial(parser: argparse.ArgumentParser) -> None:
    """Add a trial of a store."""
    add_store(parser)
    parser.add_argument("trial", help="a row's trial_id, or its beginning")


def opened(given: argparse.Namespace) -> Store:
    """The store that was asked for."""
    return Store(store_folder(given.store))


def check_sweep(store: Store, name: str) -> None:
    """Do nothing if the store has that sweep.

    Raises:
        ValueError: It has not; the message says which is nearest.
    """
    if store.get("sweep", name) is None:
        from ilql.hyperparameters import unknown  # noqa: PLC0415

        raise ValueError(unknown(name, "sweep of this store", [info.name for info in store.sweeps()]))
