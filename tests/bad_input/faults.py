"""A malformed input as a value, how it is given to the program, and what must come of it.

Every fault is given to the command a user would type, in this process; `test_bad_input.py` gives a handful to a process
of its own as well. What must come of it:

- the exit status is 2, and there is no traceback;
- one line on stderr, ours: it ends with the only line feed there is. A library's warning on stderr would be a second
  line, and fails the test; none is silenced for it;
- the line holds the words of `says`: the file, the line of it, the option, the nearest right name;
- every file of the store holds the bytes that it held before, and none was added. Folders without files do not count.
  A world that must be built to know its rewards' names would stay: the sound store has the one that is asked about.

One command's output is itself about what is wrong: `doctor` says it on stdout, and ends with status 1, or with 0 where
it is no fault.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from sweeps import cli

WRONG = 2
FOUND = 1
"""What `doctor` ends with where it has found something."""


@dataclass(frozen=True)
class Place:
    """Where a fault is made.

    Attributes:
        folder: New and empty, for the input.
        store: A store with a finished sweep; faults of the store are made in a copy of it.
    """

    folder: Path
    store: Path

    def write(self, name: str, content: bytes | str) -> str:
        """A file of the input, in UTF-8 if it is text; returns its path."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)


Make: TypeAlias = Callable[[Place], Sequence[str]]
"""Makes the input and gives the arguments of `sweeps` that read it."""


@dataclass(frozen=True)
class Fault:
    """A malformed input.

    Attributes:
        name: The class of fault, which no other of its reader has.
        why: How it comes to be in the world.
        make: See `Make`.
        says: Words that the line must hold.
        status: What the command ends with.
    """

    name: str
    why: str
    make: Make
    says: tuple[str, ...]
    status: int = WRONG


@dataclass(frozen=True)
class Reader:
    """What reads a kind of input, and what is wrong with the inputs it is given.

    Attributes:
        name: What it reads, in words.
        faults: All of them.
        sound: Makes an input with nothing wrong, from which the faulty ones differ in one thing each.
        spoils_store: Whether the faults are made in the store itself, so that each needs a copy.
    """

    name: str
    faults: tuple[Fault, ...]
    sound: Make
    spoils_store: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a command said and ended with."""

    status: int
    out: str
    err: str


def run(arguments: Sequence[str]) -> Outcome:
    """The `sweeps` command with these arguments, with nobody at the keyboard; whatever it raises is raised."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    out, err = io.StringIO(), io.StringIO()
    typed, sys.stdin = sys.stdin, io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = cli.main(list(arguments))
            except SystemExit as left:  # argparse leaves so
                status = int(str(left.code))
    finally:
        sys.stdin = typed
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return Outcome(status, out.getvalue(), err.getvalue())


def tree(folder: Path) -> dict[str, str]:
    """The digest of every file under a folder, where links lead to, and what is neither, by its path."""
    return dict(_entries(folder))


def _entries(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            yield name, f"-> {path.readlink()}"
        elif path.is_file():
            yield name, hashlib.sha256(path.read_bytes()).hexdigest()
        elif not path.is_dir():
            yield name, "special"


def check(fault: Fault, outcome: Outcome) -> None:
    """Assert what must come of a fault, but for the store."""
    said = outcome.err if fault.status == WRONG else outcome.out
    assert outcome.status == fault.status, f"status {outcome.status}: {outcome.out}{outcome.err}"
    assert "Traceback" not in outcome.out + outcome.err, outcome.err
    if fault.status != WRONG:
        assert outcome.err == ""
    else:
        assert_one_line(outcome.err)
    for word in fault.says:
        assert word in said, f"{word!r} is not in: {said}"


def assert_one_line(err: str) -> None:
    """Assert that exactly one line was said, and that it is ours."""
    assert err.endswith("\n"), err
    assert len(err.splitlines()) == 1, err
    assert err.startswith(("error: ", "sweeps")), err
    assert err.removeprefix("error: ").strip(), err
