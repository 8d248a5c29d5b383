"""What a command of `sweeps` is, and what commands share."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from ilql.files import FILE, kind_of, user_path
from sweeps.paths import store_at
from sweeps.store import MARK, Store


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
        words: What that word can be, where that is a list: for completion.
        options: Adds the further options to a parser, as far as they do not depend on the word: for completion.
    """

    name: str
    help: str
    run: Callable[[argparse.Namespace, Sequence[str]], int]
    add: Callable[[argparse.ArgumentParser], None] = _nothing
    subject: tuple[str, Callable[[], str]] | None = None
    words: Callable[[], Sequence[str]] = tuple
    options: Callable[[argparse.ArgumentParser], None] = _nothing


def add_store(parser: argparse.ArgumentParser) -> None:
    """Add the option that says which store."""
    parser.add_argument("--store", metavar="DIR", help="default: $SWEEPS_STORE, else ~/.sweeps/store")


def add_sweep(parser: argparse.ArgumentParser) -> None:
    """Add a sweep of a store; `chosen` reads it."""
    add_store(parser)
    parser.add_argument(
        "sweep",
        nargs="?",
        help="one of `sweeps list`, or the beginning of its name, or a store's folder; may be left out where there is "
        "one sweep",
    )


def add_where(parser: argparse.ArgumentParser) -> None:
    """Add a store's folder that stands by itself; `at` reads it, and the option."""
    parser.add_argument("where", nargs="?", metavar="STORE", help="the store's folder, in place of --store")


def at(given: argparse.Namespace) -> Store:
    """The store that is there, named in either way.

    Raises:
        ValueError: It is not there, or two were named.
    """
    if given.where and given.store:
        raise ValueError(f"one store must be named, got {given.where} and --store {given.store}")
    return existing(given.where or given.store)


def add_trial(parser: argparse.ArgumentParser) -> None:
    """Add a trial of a store."""
    add_store(parser)
    parser.add_argument("trial", help="a row's trial_id, or its beginning")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option that has a program as its reader; `print_json` answers it."""
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def aside(asked: bool) -> AbstractContextManager[object]:
    """A context in which what is printed goes to standard error, if a program has asked for the output."""
    return redirect_stdout(sys.stderr) if asked else nullcontext()


def print_json(value: object, *, indent: int | None = None) -> None:
    """Print a value as JSON that every reader takes, on one line unless indented: what is no finite number is text."""
    print(json.dumps(_finite(value), allow_nan=False, indent=indent))


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value


def opened(given: argparse.Namespace) -> Store:
    """The store that was asked for; the default one is made if it is not there, one that was named is not."""
    if given.store or os.environ.get("SWEEPS_STORE"):
        return existing(given.store)
    return Store(store_at(None))


def existing(named: str | None) -> Store:
    """A store that is there.

    Raises:
        ValueError: It is not: a misspelt folder must not become one.
    """
    folder = store_at(named)
    if not is_store(folder):
        raise ValueError(f"a store's folder must hold a {MARK}, got {folder}, which has none")
    return Store(folder)


def chosen(given: argparse.Namespace) -> tuple[Store, str]:
    """The store and the sweep of it that were asked for.

    Raises:
        ValueError: There is no such sweep, or several where none was named.
    """
    name = given.sweep
    if name is not None and given.store is None and is_store(user_path(name)):
        store, name = existing(name), None
    else:
        store = opened(given)
    if name is None:
        names = [info.name for info in store.sweeps()]
        if len(names) != 1:
            raise ValueError(f"a sweep must be named unless the store has one, {store.folder} has {_few(names)}")
        return store, names[0]
    if store.get("sweep", name) is not None:  # its whole name: the others are not looked through
        return store, name
    begun = [info.name for info in store.sweeps() if info.name.startswith(name)]
    if len(begun) == 1:
        return store, begun[0]
    if len(begun) > 1 and name not in begun:
        raise ValueError(f"a sweep's name must be unique, {name!r} begins {_few(begun)}")
    store.check_sweep(name)
    return store, name


def is_store(folder: Path) -> bool:
    """True if a folder is a store, and not one that could become one."""
    return kind_of(folder / MARK) == FILE


def _few(names: Sequence[str], shown: int = 5) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return (", ".join(names[:shown]) or "none") + more
