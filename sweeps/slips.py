"""Files that a process makes once and gives one name after another: hard links, of which each name has one at a time.

A name that is there already is refused by every file system that has links, NFS of all versions included, and what has
a name is whole. To make a file instead, and to remove it, is to have an inode found and freed each time: on a large
ext4 that took thirty times what a name takes (docs/log.md, "Eight writers").
"""

from __future__ import annotations

import contextlib
import os
import re
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

from sweeps.journal import process_name

SWEPT_SECONDS = 3600.0
"""A slip that was not written to for so long is removed by whoever makes another. Who has it makes a new one."""

_NAME = re.compile(r"\.slip-.+-[0-9]+-[0-9a-f]{8}")


def is_slip(path: Path) -> bool:
    """True for the name that a slip has of its own."""
    return _NAME.fullmatch(path.name) is not None


class Slip:
    """A file of this process, and the name it was given, if any.

    Attributes:
        path: Its own name.
    """

    def __init__(self, path: str, free: list[Slip]) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._free, self._process, self._length = free, os.getpid(), 0

    def write(self, content: bytes) -> None:
        """Have it hold these bytes. It has no other name meanwhile.

        Raises:
            OSError: The disk does not take them.
        """
        written = 0
        while written < len(content):
            written += os.pwrite(self._descriptor, content[written:], written)
        if len(content) < self._length:
            os.ftruncate(self._descriptor, len(content))
        self._length = len(content)

    def name(self, path: str) -> None:
        """Give it a name.

        Raises:
            OSError: The name is there, or has no folder, or there are no links here.
        """
        os.link(self.path, path)

    def is_named(self) -> bool:
        """Whether it has the name still that it was given."""
        return os.fstat(self._descriptor).st_nlink == 2

    def give_back(self) -> None:
        """The name is gone, by whoever's doing. If it is not, or this is another process's, it is used no more."""
        if self._descriptor < 0 or self._process != os.getpid():
            return
        if os.fstat(self._descriptor).st_nlink == 1:
            self._free.append(self)
        else:
            self.discard()

    def discard(self) -> None:
        """Use it no more. A name that it was given stays."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        os.close(descriptor)
        if self._process == os.getpid():
            with contextlib.suppress(OSError):
                os.unlink(self.path)


class Slips:
    """The slips of a process in a folder, which are made there as they are needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._free: list[Slip] = []
        self._made: list[Slip] = []
        self._process = os.getpid()
        weakref.finalize(self, _discard_all, self._made)

    def take(self, content: bytes) -> Slip:
        """One that holds these bytes and has no name yet.

        Raises:
            OSError: The folder is not there, or the disk does not take it.
        """
        if self._process != os.getpid():  # a fork: these are its parent's
            _discard_all(self._made)
            self._free.clear()
            self._process = os.getpid()
        try:
            slip = self._free.pop()
        except IndexError:
            slip = self._make()
        try:
            slip.write(content)
        except OSError:
            slip.discard()
            raise
        return slip

    def all(self) -> Iterator[Path]:
        """Those in the folder, whosever they are."""
        yield from sorted(path for path in self._folder.glob(".slip-*") if is_slip(path))

    def _make(self) -> Slip:
        for path in self.all():
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > SWEPT_SECONDS:
                    path.unlink()
        slip = Slip(f"{self._folder}/.slip-{process_name()}", self._free)
        self._made.append(slip)
        return slip


def _discard_all(slips: list[Slip]) -> None:
    while slips:
        slips.pop().discard()
