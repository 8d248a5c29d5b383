"""Append-only journals of checksummed lines: one file per writer, any number of readers, no locks.

`sweeps/journal_reader.py` reads them.

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

import functools
import os
import re
import secrets
import socket
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ilql.files import sync
from sweeps.exact_json import JSON, Record, dumps, loads

SUFFIX = ".jsonl"
_HEAD, _MIDDLE, _TAIL = b'{"sum":"', b'","record":', b"}\n"
_BODY = len(_HEAD) + 8 + len(_MIDDLE)  # where the record's bytes begin: the sum is 8 hexadecimal digits
_START = re.compile(
    rb'\{"line":(\d{1,19}),"time":(\d{1,19}),"kind":"([^"\\]*)","key":"([^"\\]*)",(?="value":|"removed":true\}\Z)'
)  # of a record, as `encode_line` writes it where nothing in its kind and key needs an escape
_DEEPEST = 100  # brackets in brackets that a record may have: whoever goes through it calls itself as often
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


class Appended(NamedTuple):
    """What was appended, as its reader would read it.

    Attributes:
        name: The journal's.
        begin: Where in it that begins, in bytes.
        end: Where it ends.
        entries: The records, in their order.
    """

    name: str
    begin: int
    end: int
    entries: list[Entry]


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
    return f"{_host()}-{os.getpid()}-{secrets.token_hex(4)}"


@functools.cache
def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "_", socket.gethostname())[:40]


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
    return _line(line, time_ns, kind, key, _rest(text))


def _rest(text: str | None) -> bytes:
    """What follows the key in a record, but for the bracket that ends it."""
    return b'"removed":true' if text is None else f'"value":{text}'.encode()


def _line(line: int, time_ns: int, kind: str, key: str, rest: bytes) -> bytes:
    head = f'{{"line":{line},"time":{time_ns},"kind":{dumps(kind)},"key":{dumps(key)},'
    record = b"%s%s}" % (head.encode(), rest)
    return b"%s%08x%s%s%s" % (_HEAD, zlib.crc32(record), _MIDDLE, record, _TAIL)


def decode_line(line: bytes, writer: str) -> Entry:
    """What `encode_line` was given, from the bytes of a line without its end.

    Raises:
        ValueError: It is not a whole, unchanged line.
    """
    record = line[_BODY:-1]
    if line[:_BODY] != b"%s%08x%s" % (_HEAD, zlib.crc32(record), _MIDDLE) or not line.endswith(b"}"):
        raise ValueError("the line does not agree with its checksum")
    found = _START.match(record)
    if found is not None:
        number, time_ns, kind, key = found.groups()
        stamp = Stamp(int(time_ns), writer, int(number))
        value = None if record.startswith(b'"removed"', found.end()) else record[found.end() :]
        return Entry(stamp, kind.decode(), key.decode(), value)
    try:
        fields = loads(record)
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

    def append(self, kind: str, values: Sequence[tuple[str, JSON]], time_ns: int) -> Appended:
        """Write `(key, value)` pairs, None for a removal, in one go; the i-th gets the time `time_ns + i`.

        Raises:
            TypeError, ValueError: A value is no JSON, or larger than a line may be; nothing was written.
            StoreError: The disk did not take it. Whole lines that it did take may stay; a torn one is cut off.
        """
        texts = [(key, None if value is None else dumps(value)) for key, value in values]
        for key, text in texts:
            if text is not None and len(text) + 6 * len(key) > LONGEST_LINE // 2:  # a key's letter may need six
                raise ValueError(f"a record must be shorter than {LONGEST_LINE // 2} bytes, got {len(text)} in {kind}")
        entries, lines = [], []
        try:
            descriptor = self._open()
            begin = self._bytes
            for number, (key, text) in enumerate(texts):
                stamp, rest = Stamp(time_ns + number, self._name, self._lines + number), _rest(text)
                lines.append(_line(stamp.line, stamp.time_ns, kind, key, rest))
                entries.append(Entry(stamp, kind, key, None if text is None else rest + b"}"))
            self._write(descriptor, b"".join(lines))
        except OSError as fault:
            reason = os.strerror(fault.errno) if fault.errno else str(fault)
            raise StoreError(f"the store {self._folder.parent} could not be written: {reason}") from fault
        return Appended(self._name + SUFFIX, begin, self._bytes, entries)

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


def utc(time_ns: int | None = None) -> str:
    """A time, now by default, as ISO 8601 in UTC with seconds: `2026-11-21T01:36:11Z`."""
    seconds = (time.time_ns() if time_ns is None else time_ns) // 1_000_000_000
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
