"""What language models answered, written down once: prompts go out in blocks, and replies stay as they come.

A log is one file under `scratch/replies/` of the store, under a key of all that decides what is asked and of whom. It
is appended to, a line for each reply, and outlives the stages made from it: more dialogues, or another reward, ask for
nothing again that was answered. That matters most of an endpoint, whose answers nobody can draw a second time.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ilql.files import sync
from sweeps.exact_json import Record, dumps
from sweeps.journal import StoreError
from sweeps.store import Store

VERSION = 1
"""Raised when the same request would be asked otherwise, its seed included; part of a log's key."""

LOG_FILE = "replies.jsonl"


@dataclass(frozen=True)
class Request:
    """Something that is asked of a model.

    Attributes:
        name: Its name in its log.
        prompt: The text.
        opening: How the reply begins, for a model that goes on with a text as it stands; one that is asked a question
            begins by itself.
    """

    name: str
    prompt: str
    opening: str


@dataclass(frozen=True)
class Reply:
    """What came of it.

    Attributes:
        text: What the model wrote; None if there is nothing.
        problem: Why not: one of few reasons, so that they can be counted.
    """

    text: str | None
    problem: str | None = None

    def __post_init__(self) -> None:
        if (self.text is None) == (self.problem is None):
            raise ValueError(f"a reply must be a text or a problem, got {self.text!r} and {self.problem!r}")


class Writer(Protocol):
    """Who answers."""

    @property
    def record(self) -> Record:
        """What of it, and of how it draws, decides an answer."""

    @property
    def reproducible(self) -> bool:
        """Whether equal blocks of requests get equal replies again."""

    @property
    def together(self) -> int:
        """Requests of a block, at most."""

    def prepare(self) -> None:
        """Make ready, before anything is spent.

        Raises:
            ValueError: It cannot; one line.
        """

    def write(self, requests: Sequence[Request], seed: int) -> Iterator[tuple[str, Reply]]:
        """Names and replies, in any order, as they come; the requests of a block all have the same opening.

        Raises:
            ConnectionError: It cannot go on; what came before has been given.
        """


def key_of(content: Record) -> str:
    """Twenty hexadecimal digits that stand for the content."""
    text = json.dumps(json.loads(dumps(content)), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


class Replies:
    """The replies of one log. Its one writer at a time holds a lease on it.

    Args:
        folder: Where its file lies, or will.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / LOG_FILE
        self._replies = dict(self._read())

    def __contains__(self, name: str) -> bool:
        return name in self._replies

    def __getitem__(self, name: str) -> Reply:
        return self._replies[name]

    def __len__(self) -> int:
        return len(self._replies)

    def add(self, name: str, reply: Reply) -> None:
        """Write down a reply; it is on the disk when this returns.

        Raises:
            StoreError: The disk did not take it.
        """
        line = json.dumps({"name": name, "text": reply.text, "problem": reply.problem}) + "\n"
        try:
            begun = self._file.exists()
            with self._file.open("ab") as end:
                end.write(line.encode())
                end.flush()
                os.fsync(end.fileno())
            if not begun:
                sync(self._file.parent)
        except OSError as fault:
            raise StoreError(f"the file {self._file} could not be written: {fault.strerror}") from fault
        self._replies[name] = reply

    def mend(self) -> None:
        """Cut off the line that a killed writer left unfinished, so that the next one stands by itself."""
        content = self._file.read_bytes() if self._file.exists() else b""
        if content and not content.endswith(b"\n"):
            os.truncate(self._file, content.rfind(b"\n") + 1)

    def _read(self) -> Iterator[tuple[str, Reply]]:
        """The whole lines that are replies; any other is asked for again."""
        content = self._file.read_bytes() if self._file.exists() else b""
        for line in content.split(b"\n")[:-1]:
            try:
                value = json.loads(line)
                yield str(value["name"]), Reply(_text(value["text"]), _text(value["problem"]))
            except (ValueError, RecursionError, LookupError, TypeError):
                continue


def _text(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"a reply must be text, got a {type(value).__name__}")
    return value


def obtain(requests: Sequence[Request], writer: Writer, replies: Replies, seed: int) -> None:
    """Ask for what the log lacks.

    A writer whose replies can be drawn again draws a block whole or not at all, so that the same replies come whenever
    it was stopped; of any other only what is missing is asked.

    Raises:
        ConnectionError: The writer cannot go on; what it had answered is in the log.
    """
    for begin in range(0, len(requests), writer.together):
        block = requests[begin : begin + writer.together]
        missing = [request for request in block if request.name not in replies]
        for name, reply in writer.write(block if writer.reproducible else missing, seed) if missing else ():
            if name not in replies:
                replies.add(name, reply)


def seed_of(seed: int, name: str) -> int:
    """A seed of a request's own, below 2³¹."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:4], "big") >> 1


def log_key(asked: Record, writer: Writer) -> str:
    """The key of the log of what is asked of a writer: all that decides the replies."""
    return key_of({"replies": VERSION, "asked": asked, "writer": writer.record})


@contextmanager
def open_replies(store: Store, key: str) -> Iterator[Replies]:
    """A log, to use and to add to; nobody else does meanwhile.

    Raises:
        ValueError: Another process is at it.
    """
    lease = store.settle_lease(f"replies-{key}")
    if lease is None:
        raise ValueError(f"a model's replies must be asked for by one process at a time, another one is at {key}")
    with lease:
        replies = Replies(store.scratch("replies", key))
        replies.mend()
        yield replies
