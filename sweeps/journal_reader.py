"""Reads what was appended to the journals of a folder (`sweeps/journal.py`) since it was last looked at."""

from __future__ import annotations

import os
import stat
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeps.journal import LONGEST_LINE, SUFFIX, Appended, Entry, StoreError, decode_line

_CHUNK = 1 << 16  # bytes that are read at once
_LITTLE = 1 << 13  # bytes that are asked for where a line or two are expected
_KEPT = 32  # journals that are kept open: those that grew last
_KEPT_SECONDS = 1.0  # after so long a journal that is kept open is looked for by its name again


@dataclass
class _Place:
    """How far a journal was read, and what was wrong with it.

    Attributes:
        offset: Where its first line begins that was not read.
        lines: Lines read, and those that are missing.
        torn_bytes: How much there was of an unfinished line.
        waited_for: How long the file was when that was more than is read at once: it is looked at again when it has
            grown.
        damaged: How many lines were left out.
        first_damaged: The number of the first of them.
        missing: How many numbers no line has.
        twice: How many lines have a number that an earlier one had.
        cut: Whether it became shorter.
    """

    offset: int = 0
    lines: int = 0
    torn_bytes: int = 0
    waited_for: int = -1
    damaged: int = 0
    first_damaged: int = -1
    missing: int = 0
    twice: int = 0
    cut: bool = False

    def ahead(self) -> _Place:
        """The same, to be moved: it takes this one's place when what was read is in its reader's hands."""
        return _Place(
            self.offset, self.lines, 0, -1, self.damaged, self.first_damaged, self.missing, self.twice, self.cut
        )

    def leave_out(self) -> None:
        """Pass over a line."""
        if self.damaged == 0:
            self.first_damaged = self.lines
        self.damaged += 1
        self.lines += 1


@dataclass
class _Kept:
    """A journal that is kept open.

    Attributes:
        descriptor: Of the file.
        inode: Its number in the folder's listing, where another file that took its name has another.
        until: By our clock, when it is to be looked for by its name: not every file system tells such numbers.
        writer: Whose it is.
    """

    descriptor: int
    inode: int
    until: float
    writer: str


class JournalReader:
    """Reads what was appended to the journals of `folder` since it last looked. Changes nothing on disk.

    Who looks before each cell reads a line or two of each that writes just now. So the journals that grow are kept
    open, and asked for what is behind their last line at every look; all others are asked how long they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places: dict[str, _Place] = {}
        self._kept: dict[str, _Kept] = {}  # that which grew last comes last
        self._strange: set[str] = set()
        weakref.finalize(self, _close_all, self._kept)

    def read(self) -> Iterator[list[Entry]]:
        """The new whole records, some at once, of each journal that grew.

        What its reader was interrupted in is given again by the next call.

        Raises:
            StoreError: A journal cannot be read.
        """
        for name, inode in self._moved().items():
            held = self._kept.get(name)
            try:
                if held is not None:
                    try:
                        yield from self._more(name, held)
                        continue
                    except OSError:  # by its name it may be there still
                        self._give_back(name)
                yield from self._open(name, inode)
            except OSError as fault:
                raise StoreError(f"the journal {self._folder / name} could not be read: {fault.strerror}") from fault

    def knows(self, appended: Appended) -> bool:
        """Whether what was appended follows what was read last, and so need not be read; it counts as read then.

        It does not where an append failed before, and whole lines of it may be there, which are to be read.
        """
        place = self._places.setdefault(appended.name, _Place())
        if place.offset != appended.begin:
            return False
        place.offset, place.lines = appended.end, place.lines + len(appended.entries)
        return True

    def problems(self) -> list[str]:
        """What was found wrong so far, one line for each fault of each journal; empty if all is well."""
        found = []
        for name in self._kept:
            place = self._places[name]
            place.cut = place.cut or self._is_shorter(name, place)
        for name, place in sorted(self._places.items()):
            if place.damaged:
                first = place.first_damaged + 1
                found.append(f"journal {name}: {place.damaged} damaged lines left out, first line {first}")
            if place.missing:
                found.append(f"journal {name}: {place.missing} lines are missing")
            if place.cut:
                found.append(f"journal {name}: became shorter or was deleted after it was read")
            if place.torn_bytes > LONGEST_LINE:
                found.append(
                    f"journal {name}: ends in {place.torn_bytes} bytes without a line end, more than a line of ours "
                    "has, left out; cut them off"
                )
        strangers = dict.fromkeys(sorted(self._strange), "is no plain file")
        try:
            names = sorted(os.listdir(self._folder))
        except OSError:
            names = []
        strangers |= {name: "is no journal" for name in names if not name.endswith(SUFFIX) and name[0] != "."}
        return found + [f"journals/{name}: {what}, and is not read; remove it" for name, what in strangers.items()]

    def notes(self) -> list[str]:
        """What was found that is harmless, one line each."""
        found = []
        for name, place in sorted(self._places.items()):
            if place.twice:
                found.append(f"journal {name}: {place.twice} lines stand there twice, and count once")
            if 0 < place.torn_bytes <= LONGEST_LINE:
                found.append(
                    f"journal {name}: ends in {place.torn_bytes} bytes of an unfinished line, left out "
                    "(its writer was killed in it, or is writing now; it told nobody that they were stored)"
                )
        return found

    def _moved(self) -> dict[str, int]:
        """The journals that grew, or may have, with their numbers in the folder's listing."""
        places, kept, now = self._places, self._kept, time.monotonic()
        listed: set[str] = set()
        moved: dict[str, int] = {}
        self._strange.clear()
        try:
            with os.scandir(self._folder) as found:
                for file in found:
                    name = file.name
                    if not name.endswith(SUFFIX):
                        continue
                    held = kept.get(name)
                    if held is not None and held.inode == file.inode() and now < held.until:
                        listed.add(name)
                        moved[name] = held.inode
                        continue
                    size = _size(file)
                    if size is None:
                        self._strange.add(name)
                        continue
                    listed.add(name)
                    place = places.get(name)
                    if place is None:
                        places[name] = place = _Place()
                    if size == place.offset:  # of a thousand, most are as they were
                        continue
                    place.cut = place.cut or size < place.offset
                    self._give_back(name)
                    if size > place.offset and size != place.waited_for:
                        moved[name] = file.inode()
        except FileNotFoundError:
            pass
        except OSError as fault:
            raise StoreError(f"the journals in {self._folder} could not be read: {fault.strerror}") from fault
        for name in places.keys() - listed:
            places[name].cut = True
            self._give_back(name)
        return moved

    def _more(self, name: str, held: _Kept) -> Iterator[list[Entry]]:
        """What is new in a journal that is kept open."""
        data = os.pread(held.descriptor, _LITTLE, self._places[name].offset)
        if len(data) < _LITTLE and data.endswith(b"\n"):  # nearly always, where anything is new
            ahead = self._places[name].ahead()
            yield _entries(held.writer, ahead, data.split(b"\n")[:-1])
            self._places[name] = ahead
        elif data:
            yield from self._new(name, held.descriptor)
            if self._places[name].waited_for >= 0:
                self._give_back(name)

    def _open(self, name: str, inode: int) -> Iterator[list[Entry]]:
        """What is new in a journal that grew; it is kept open if it had been read before."""
        descriptor = os.open(f"{self._folder}/{name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        keep = False
        try:
            grows = self._places[name].offset > 0
            yield from self._new(name, descriptor)
            keep = grows and self._places[name].waited_for < 0
        finally:
            if not keep:
                os.close(descriptor)
        if keep:
            until = time.monotonic() + _KEPT_SECONDS
            self._kept[name] = _Kept(descriptor, inode, until, name.removesuffix(SUFFIX))
            if len(self._kept) > _KEPT:
                self._give_back(next(iter(self._kept)))

    def _new(self, name: str, descriptor: int) -> Iterator[list[Entry]]:
        """What is new in a journal."""
        writer = name.removesuffix(SUFFIX)
        self._places[name] = self._places[name].ahead()
        for lines in _lines(descriptor, self._places[name].offset):
            ahead = self._places[name].ahead()
            yield _entries(writer, ahead, lines)
            self._places[name] = ahead

    def _is_shorter(self, name: str, place: _Place) -> bool:
        try:
            return os.stat(f"{self._folder}/{name}").st_size < place.offset
        except OSError:
            return True

    def _give_back(self, name: str) -> None:
        """Keep a journal open no more."""
        held = self._kept.pop(name, None)
        if held is not None:
            os.close(held.descriptor)


def _entries(writer: str, place: _Place, lines: Sequence[bytes | int]) -> list[Entry]:
    """The records of lines as `_lines` gives them; the place is moved behind them, with a note of what is none."""
    entries = []
    for line in lines:
        if isinstance(line, int):
            if line < 0:
                place.torn_bytes = -line
                if place.torn_bytes > _CHUNK:
                    place.waited_for = place.offset + place.torn_bytes
                break
            place.offset += line + 1
            place.leave_out()
            continue
        place.offset += len(line) + 1
        try:
            entry = decode_line(line, writer)
        except ValueError:
            place.leave_out()
            continue
        number = entry.stamp.line
        if number != place.lines:
            place.missing += max(0, number - place.lines)
            place.twice += number < place.lines
        place.lines = max(place.lines, number + 1)
        entries.append(entry)
    return entries


def _close_all(kept: dict[str, _Kept]) -> None:
    while kept:
        os.close(kept.popitem()[1].descriptor)


def _size(file: os.DirEntry[str]) -> int | None:
    """A plain file's, in bytes; None for what is none, as a link that leads nowhere."""
    try:
        seen = file.stat()
    except FileNotFoundError:
        return None
    return seen.st_size if stat.S_ISREG(seen.st_mode) else None


def _lines(descriptor: int, offset: int) -> Iterator[list[bytes | int]]:
    """The lines of a file from an offset on, as they are read, without their ends.

    In place of a line that is too long stands its length, of which nothing is kept; in place of the last, if it has no
    end, its length with a minus.
    """
    begun: list[bytes] = []  # what was read of the line that goes on
    length, taken = 0, _CHUNK
    while taken == _CHUNK:
        data = os.pread(descriptor, _CHUNK, offset)
        taken = len(data)
        offset += taken
        first, *others = data.split(b"\n")
        begun.append(first)
        length += len(first)
        if length > LONGEST_LINE:
            begun = []
        if others:
            *whole, rest = others
            yield [b"".join(begun) if length <= LONGEST_LINE else length, *whole]
            begun, length = [rest], len(rest)
    if length:
        yield [-length]
