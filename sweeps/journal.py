"""Append-only journals of checksummed lines: one file per writer, any number of readers, no locks.

A line is a JSON object of its own, `{"sum":"9ae0daaf","record":{...}}`. The sum is the CRC-32 of the record's bytes, so
a line that was cut or changed is known for what it is. A record says its number in the journal, its time, its kind and
key, and its value, or `"removed":true` in place of a value. Readers ignore fields they do not know.

Nobody appends to another's journal and a process begins a new one, so a torn line can only be the last of a journal
whose writer died (or is writing just now); it has no line end, is never taken for a record and never appended to. It
does not matter: nobody was told that what it begins to say was stored.
Assumed of the file system, NFS included: one writer's appends reach the file in order, and a file created with `O_EXCL`
under a random name is ours alone. Another machine may see an append some seconds late, never wrong.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import stat
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ilql.files import sync
from sweeps.exact_json import JSON, Record, dumps, loads

SUFFIX = ".jsonl"
_HEAD, _MIDDLE, _TAIL = b'{"sum":"', b'","record":', b"}\n"
_BODY = len(_HEAD) + 8 + len(_MIDDLE)  # where the record's bytes begin: the sum is 8 hexadecimal digits
_START = re.compile(
    rb'\{"line":(\d{1,19}),"time":(\d{1,19}),"kind":"([^"\\]*)","key":"([^"\\]*)",(?="value":|"removed":true\}\}\n)'
)  # of a record in its line, as `encode_line` writes it where nothing in its kind and key needs an escape
_DEEPEST = 100  # brackets in brackets that a record may have: whoever goes through it calls itself as often
_CHUNK = 1 << 16  # bytes that are read at once
_LATEST = 10**19  # above any line's number, and any time in nanoseconds before the year 2286

LONGEST_LINE = 1 << 24
"""Bytes that a line may have. What goes on without an end for longer is none, and nobody keeps it in memory."""


class StoreError(RuntimeError):
    """The store could not be written or read: a full disk, a missing right, a damaged file. One line says which.

    What was stored before is untouched.
    """


class Stamp(NamedTuple):
    """When and by whom a record was written. Stamps order all records of a store, whoever reads them."""

    time_ns: int
    writer: str
    line: int


class Entry(NamedTuple):
    """One record read from a journal.

    Its value is not decoded before it is asked for: a writer reads what all others append, and asks for little of it.

    Attributes:
        stamp: Its place among all records.
        kind: Its kind.
        key: Its key.
        rest: The record's JSON from `"value":` on; None if it says that the key was removed.
    """

    stamp: Stamp
    kind: str
    key: str
    rest: bytes | None

    @property
    def value(self) -> Record | None:
        """The value, or None where the key was removed.

        Raises:
            ValueError: What stands there is no JSON of ours; it was written so, since it agrees with its checksum.
        """
        if self.rest is None:
            return None
        try:
            value: Record = loads(b"{" + self.rest)["value"]
            if self.rest.count(b"{") + self.rest.count(b"[") > _DEEPEST and _depth(value) > _DEEPEST:
                raise RecursionError
        except RecursionError:
            raise ValueError("brackets within brackets, too many of them") from None
        except TypeError as fault:
            raise ValueError(str(fault)) from None
        return value


def _depth(value: object) -> int:
    """How many lists and objects stand one in the other."""
    depth, inside = 0, [value]
    while inside := [
        part
        for each in inside
        if isinstance(each, dict | list)
        for part in (each.values() if isinstance(each, dict) else each)
    ]:
        depth += 1
    return depth


def process_name() -> str:
    """A name for this process that no other has: host, process id and eight random hexadecimal digits."""
    host = re.sub(r"[^A-Za-z0-9.]+", "_", socket.gethostname())[:40]
    return f"{host}-{os.getpid()}-{secrets.token_hex(4)}"


def is_anothers(name: str) -> bool:
    """True if another process of this host, which lives, has a journal's name; of other hosts nothing is known."""
    named = re.fullmatch(r"(.*)-([0-9]{1,9})-[0-9a-f]{8}", name)
    here = process_name().rsplit("-", 2)[0]
    return named is not None and named[1] == here and int(named[2]) != os.getpid() and lives(int(named[2]))


def lives(process: int) -> bool:
    """True if there is a process of this id on this machine."""
    try:
        os.kill(process, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's, but alive
    return True


def encode_line(line: int, time_ns: int, kind: str, key: str, text: str | None) -> bytes:
    """The bytes of one line, its end included; `text` is the value's JSON, or None for a removal."""
    rest = '"removed":true' if text is None else f'"value":{text}'
    head = f'{{"line":{line},"time":{time_ns},"kind":{dumps(kind)},"key":{dumps(key)},'
    record = (head + rest + "}").encode()
    return b"%s%08x%s%s%s" % (_HEAD, zlib.crc32(record), _MIDDLE, record, _TAIL)


def decode_line(line: bytes, writer: str) -> Entry:
    """What `encode_line` was given.

    Raises:
        ValueError: It is not a whole, unchanged line.
    """
    head = b"%s%08x%s" % (_HEAD, zlib.crc32(memoryview(line)[_BODY : -len(_TAIL)]), _MIDDLE)
    if not (line.startswith(head) and line.endswith(_TAIL)):
        raise ValueError("the line does not agree with its checksum")
    found = _START.match(line, _BODY)
    if found is not None:
        number, time_ns, kind, key = found.groups()
        rest = None if line.startswith(b'"removed"', found.end()) else line[found.end() : -len(_TAIL)]
        return Entry(Stamp(int(time_ns), writer, int(number)), kind.decode(), key.decode(), rest)
    try:
        fields = loads(line[_BODY : -len(_TAIL)])
        rest = None if fields.get("removed") else f'"value":{dumps(fields["value"])}}}'.encode()
        entry = Entry(Stamp(fields["time"], writer, fields["line"]), fields["kind"], fields["key"], rest)
    except KeyError as missing:
        raise ValueError(f"the record lacks {missing}") from None
    except (AttributeError, TypeError, RecursionError):
        raise ValueError("the record is no object of ours") from None
    numbers = (entry.stamp.time_ns, entry.stamp.line)
    if not all(type(number) is int and 0 <= number < _LATEST for number in numbers):
        raise ValueError(f"a record's time and line must be whole numbers from 0 on, got {numbers!r:.60}")
    if not (isinstance(entry.kind, str) and isinstance(entry.key, str)):
        raise ValueError(f"a record's kind and key must be texts, got {entry.kind!r:.30} and {entry.key!r:.30}")
    return entry


class JournalWriter:
    """Appends to a journal of its own in `folder`, which it begins at the first append.

    Args:
        folder: Where the journals lie; created if need be.
        durable: True if an append returns only when the disk has it (fsync).
    """

    def __init__(self, folder: Path, *, durable: bool) -> None:
        self._folder = folder
        self._durable = durable
        self._descriptor: int | None = None
        self._process = os.getpid()
        self._name = ""
        self._bytes = 0
        self._lines = 0

    def append(self, kind: str, values: Sequence[tuple[str, JSON]], time_ns: int) -> int:
        """Write `(key, value)` pairs, None for a removal, in one go; the i-th gets the time `time_ns + i`.

        Returns:
            The time of the last.

        Raises:
            TypeError, ValueError: A value is no JSON, or larger than a line may be; nothing was written.
            StoreError: The disk did not take it. Whole lines that it did take may stay; a torn one is cut off.
        """
        texts = [(key, None if value is None else dumps(value)) for key, value in values]
        for key, text in texts:
            if text is not None and len(text) + 6 * len(key) > LONGEST_LINE // 2:  # a key's letter may need six
                raise ValueError(f"a record must be shorter than {LONGEST_LINE // 2} bytes, got {len(text)} in {kind}")
        try:
            descriptor = self._open()
            lines = [encode_line(self._lines + i, time_ns + i, kind, key, text) for i, (key, text) in enumerate(texts)]
            self._write(descriptor, b"".join(lines))
        except OSError as fault:
            reason = os.strerror(fault.errno) if fault.errno else str(fault)
            raise StoreError(f"the store {self._folder.parent} could not be written: {reason}") from fault
        return time_ns + len(texts) - 1

    @property
    def path(self) -> Path | None:
        """Of the journal that this process appends to; None while there is none."""
        if self._descriptor is None or self._process != os.getpid():
            return None
        return self._folder / (self._name + SUFFIX)

    def close(self) -> None:
        """Give the file back; a later append begins a new journal."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _open(self) -> int:
        if self._process != os.getpid():  # a fork: the parent goes on writing to its own
            self.close()
            self._process = os.getpid()
        if self._descriptor is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._name = process_name()
            path = self._folder / (self._name + SUFFIX)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            self._bytes = self._lines = 0
            if self._durable:
                sync(self._folder)
        return self._descriptor

    def _write(self, descriptor: int, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        except OSError:
            self._keep_whole_lines(descriptor, data)
            raise
        self._bytes += len(data)
        self._lines += data.count(b"\n")
        if self._durable:
            try:
                os.fsync(descriptor)
            except OSError:
                self.close()  # after a failed fsync the next one may succeed without having written: trust it no more
                raise

    def _keep_whole_lines(self, descriptor: int, data: bytes) -> None:
        # A reader may have taken the whole lines already, so only what is torn may go.
        try:
            whole = data.rfind(b"\n", 0, os.fstat(descriptor).st_size - self._bytes) + 1
            os.ftruncate(descriptor, self._bytes + whole)
        except OSError:
            self.close()  # the torn line stays the last of an abandoned journal
            return
        self._bytes += whole
        self._lines += data.count(b"\n", 0, whole)


@dataclass
class _Place:
    """How far a journal was read, and what was wrong with it.

    Attributes:
        offset: Where its first line begins that was not read.
        lines: Lines read, and those that are missing.
        torn_bytes: How much there was of an unfinished line.
        waited_for: How long the file was when that was more than is read at once: it is looked at again when it has
            grown.
        damaged: The numbers of lines that were left out.
        missing: How many numbers no line has.
        twice: How many lines have a number that an earlier one had.
        cut: Whether it became shorter.
    """

    offset: int = 0
    lines: int = 0
    torn_bytes: int = 0
    waited_for: int = -1
    damaged: list[int] = field(default_factory=list)
    missing: int = 0
    twice: int = 0
    cut: bool = False


class JournalReader:
    """Reads what was appended to the journals of `folder` since it last looked. Changes nothing on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places: dict[str, _Place] = {}
        self._strange: set[str] = set()

    def read(self) -> Iterator[Entry]:
        """The new whole records, journal by journal. Looks once at each journal, opens those that grew.

        Raises:
            StoreError: A journal cannot be read.
        """
        sizes = self._sizes()
        places = self._places
        # Of a thousand, most are as they were.
        moved = [name for name, size in sizes.items() if name not in places or size != places[name].offset]
        for name in sorted(moved):
            place = places.setdefault(name, _Place())
            place.cut = place.cut or sizes[name] < place.offset
            if sizes[name] > place.offset and sizes[name] != place.waited_for:
                yield from self._read_one(name, place)
        for name in places.keys() - sizes.keys():
            places[name].cut = True

    def problems(self) -> list[str]:
        """What was found wrong so far, one line for each fault of each journal; empty if all is well."""
        found = []
        for name, place in sorted(self._places.items()):
            if place.damaged:
                found.append(
                    f"journal {name}: {len(place.damaged)} damaged lines left out, first line {place.damaged[0] + 1}"
                )
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

    def _sizes(self) -> dict[str, int]:
        """The journals' sizes in bytes, by name."""
        sizes: dict[str, int] = {}
        self._strange.clear()
        try:
            with os.scandir(self._folder) as found:
                for file in found:
                    if not file.name.endswith(SUFFIX):
                        continue
                    try:
                        seen = file.stat()
                    except FileNotFoundError:  # a link that leads nowhere
                        self._strange.add(file.name)
                        continue
                    if stat.S_ISREG(seen.st_mode):
                        sizes[file.name] = seen.st_size
                    else:
                        self._strange.add(file.name)
        except FileNotFoundError:
            return {}
        except OSError as fault:
            raise StoreError(f"the journals in {self._folder} could not be read: {fault.strerror}") from fault
        return sizes

    def _read_one(self, name: str, place: _Place) -> Iterator[Entry]:
        writer = name.removesuffix(SUFFIX)
        place.torn_bytes, place.waited_for = 0, -1
        try:
            for line in _lines(f"{self._folder}/{name}", place.offset):
                if isinstance(line, int):  # of so many bytes, which are not kept
                    if line < 0:
                        place.torn_bytes, place.waited_for = -line, place.offset - line
                        return
                    place.offset += line
                    place.lines += 1
                    place.damaged.append(place.lines - 1)
                    continue
                if not line.endswith(b"\n"):
                    place.torn_bytes = len(line)
                    if len(line) > _CHUNK:
                        place.waited_for = place.offset + len(line)
                    return
                place.offset += len(line)
                place.lines += 1
                try:
                    entry = decode_line(line, writer)
                except ValueError:
                    place.damaged.append(place.lines - 1)
                    continue
                if entry.stamp.line != place.lines - 1:
                    place.missing += max(0, entry.stamp.line - (place.lines - 1))
                    place.twice += entry.stamp.line < place.lines - 1
                place.lines = max(place.lines - 1, entry.stamp.line + 1)
                yield entry
        except OSError as fault:
            raise StoreError(f"the journal {self._folder / name} could not be read: {fault.strerror}") from fault


def _lines(path: str, offset: int) -> Iterator[bytes | int]:
    """The lines of a file from an offset on, their ends included; in place of one that is too long its length.

    Of the last, which has no end, the length is negative.

    A writer that looks before each cell reads a line or two of each of the others: a file object of Python's would cost
    more than they do.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        begun: list[bytes] = []  # what was read of the line that goes on
        length, taken = 0, _CHUNK  # how much that was, of which nothing is kept if it is too long
        while taken == _CHUNK:
            data = os.pread(descriptor, _CHUNK, offset)
            taken = len(data)
            offset += taken
            first, *others = data.split(b"\n")
            begun.append(first)
            length += len(first)
            if length > LONGEST_LINE:
                begun = []
            if not others:
                continue
            yield b"".join(begun) + b"\n" if begun else length + 1
            *whole, rest = others
            for line in whole:
                yield line + b"\n"
            begun, length = [rest], len(rest)
        if length:
            yield b"".join(begun) if begun else -length
    finally:
        os.close(descriptor)


def utc(time_ns: int | None = None) -> str:
    """A time, now by default, as ISO 8601 in UTC with seconds: `2026-11-21T01:36:11Z`."""
    seconds = (time.time_ns() if time_ns is None else time_ns) // 1_000_000_000
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
