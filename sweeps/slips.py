"""Files that a process makes once and gives one name after another: hard links, of which each has one at a time.

A name that is there already is refused by every file system that has links, NFS of all versions included, and what has
a name is whole. To make a file instead, and to remove it, is to have an inode found and freed each time: on a large
ext4 that took twenty times what a name takes (docs/log.md, "Eight writers").
"""

from __future__ import annotations

import contextlib
import os
import re
import weakref
from pathlib import Path

from sweeps.journal import process_name

SWEPT_SECONDS = 3600.0
"""A slip that was written to so long before another is made is removed then. Who has it makes a new one."""

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
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._inode = os.fstat(descriptor).st_ino
        os.close(descriptor)
        self._free, self._process, self._length = free, os.getpid(), 0

    def write(self, content: bytes) -> None:
        """Have it hold these bytes, for whoever opens it from now on. The caller knows that it has no other name.

        Raises:
            OSError: It was removed, or the disk does not take them.
        """
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            written = 0
            while written < len(content):
                written += os.pwrite(descriptor, content[written:], written)
            if len(content) < self._length:
                os.ftruncate(descriptor, len(content))
            self._length = len(content)
        finally:
            os.close(descriptor)

    def name(self, path: str) -> None:
        """Give it a name.

        Raises:
            OSError: The name is there, or has no folder, or there are no links here.
        """
        os.link(self.path, path)

    def give_back(self) -> None:
        """Use it for another name, unless it has one still, or was removed; a fork gives nothing back to its parent."""
        with contextlib.suppress(OSError):
            found = os.stat(self.path)
            if found.st_ino == self._inode and found.st_nlink == 1:
                self._free.append(self)
                return
        self.discard()

    def discard(self) -> None:
        """Remove it, unless it is another process's. A name that it was given stays."""
        if self._process == os.getpid():
            with contextlib.suppress(OSError):
                os.unlink(self.path)


class Slips:
    """The slips of a process in a folder, which are made there as they are needed, and removed when it ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._free: dict[int, list[Slip]] = {}  # by process: a fork has its parent's here, and leaves them alone
        weakref.finalize(self, _remove_free, self._free)

    def take(self, content: bytes) -> Slip:
        """One that holds these bytes and has no name yet.

        Raises:
            OSError: The folder is not there, or the disk does not take it.
        """
        free = self._free.setdefault(os.getpid(), [])
        while True:
            try:
                slip, is_new = free.pop(), False
            except IndexError:
                slip, is_new = self._make(free), True
            try:
                slip.write(content)
            except FileNotFoundError:
                if is_new:
                    raise
                continue  # somebody has removed it
            except BaseException:
                slip.discard()
                raise
            return slip

    def _make(self, free: list[Slip]) -> Slip:
        slip = Slip(f"{self._folder}/.slip-{process_name()}", free)
        made = os.stat(slip.path).st_mtime  # by the clock of the file system, as those of the others
        for path in filter(is_slip, self._folder.glob(".slip-*")):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < made - SWEPT_SECONDS:
                    path.unlink()
        return slip


def _remove_free(free: dict[int, list[Slip]]) -> None:
    """Remove this process's that have no name; the others are removed when they lose it, or when they are old."""
    slips = free.get(os.getpid(), [])
    while slips:
        slips.pop().discard()
