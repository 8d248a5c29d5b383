"""What the journals of a store say about every kind and key, kept up to date in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from sweeps.exact_json import JSON, Record, dumps, loads
from sweeps.journal import SUFFIX, Entry, JournalWriter, Stamp
from sweeps.journal_reader import JournalReader

_NEVER = Stamp(-1, "", -1)

CLAIM = "lease"
"""The kind of the records that say who took over a lease; their key is the lease's."""

UNDER = "under"
"""The field of a record that says under which lease, and by which term of it, it was written."""

Flaw = Callable[[str, Mapping[str, object]], str | None]
"""What is wrong with a value of a kind, in words that follow its name; None if nothing is."""

_Unseen = tuple[int, str, int, bytes | None]
"""A stamp and the rest of an entry, as a plain tuple of plain values: the garbage collector does not walk those."""


class _Written(NamedTuple):
    """A value that was written under a key, and the lease and term it was written by; 0 without one."""

    term: int
    stamp: Stamp
    value: Record
    lease: str


@dataclass(slots=True)
class _Versions:
    """What was written under one key. Independent of the order in which journals are read.

    Of what was written without a lease, the latest of each sort; of what was written under one, all: few ever write.
    """

    finished: _Written | None = None
    other: _Written | None = None
    leased: tuple[_Written, ...] = ()
    removed: Stamp = _NEVER

    def add(self, stamp: Stamp, value: Record | None) -> None:
        """Take a value into account; None is a removal."""
        if value is None:
            self.removed = max(self.removed, stamp)
            return
        lease, term = value.get(UNDER, ("", 0))
        written = _Written(term, stamp, value, lease)
        if term:
            self.leased = (*self.leased, written)
        elif _is_finished(written):
            self.finished = written if self.finished is None else max(self.finished, written, key=_since)
        else:
            self.other = written if self.other is None else max(self.other, written, key=_since)

    def current(self, claims: Mapping[str, Sequence[tuple[int, Stamp]]]) -> tuple[Stamp, Record] | None:
        """What counts, given who took over which lease when."""
        if not self.leased:
            for version in (self.finished, self.other):
                if version is not None and version.stamp > self.removed:
                    return version.stamp, version.value
            return None
        sound = [
            each
            for each in (self.finished, self.other, *self.leased)
            if each is not None and each.stamp > self.removed and not _is_stale(each, claims.get(each.lease, ()))
        ]
        best = max(sound, key=lambda each: (_is_finished(each), each.stamp), default=None)
        return None if best is None else (best.stamp, best.value)


def _is_finished(written: _Written) -> bool:
    return written.value.get("status") == "finished"


def _since(written: _Written) -> Stamp:
    return written.stamp


def _is_stale(written: _Written, claims: Sequence[tuple[int, Stamp]]) -> bool:
    """True if it was written after somebody else had taken over."""
    return any(written.term < term and written.stamp > since for term, since in claims)


class Records:
    """Values by kind and key, appended to journals and read back from everybody's.

    Which value counts: one whose `status` is `finished` before any other, then the later one, by the writer's clock,
    then by the writer's name and line. A removal ends everything under its key that is earlier. So all readers agree,
    in whatever order they read, and a late report of failure never replaces a result. A writer's clock never runs
    behind what it has read: what one has seen, one can replace, even if the machines' clocks disagree.

    What is written under a lease says its term. Who takes a lease over claims it here; what holders of lower terms
    write after that never counts.

    A record that is whole and is none of ours is left out, as if it had never been written, and said by `problems`: one
    that is no object, or has a flaw.

    May be used by several threads.

    Args:
        folder: Where the journals lie.
        durable: True if a put returns only when the disk has it.
        flaw: See `Flaw`. What has one is not written either.
    """

    def __init__(self, folder: Path, *, durable: bool, flaw: Flaw = lambda kind, value: None) -> None:
        self._reader = JournalReader(folder)
        self._writer = JournalWriter(folder, durable=durable)
        self._lock = threading.RLock()
        self._flaw = flaw
        self._damaged: dict[Stamp, tuple[str, str, str]] = {}  # kind, key, what is wrong
        self._latest_ns = 0
        self._unseen: dict[str, dict[str, tuple[_Unseen, ...]]] = {}  # read, and not asked for yet
        self._versions: dict[str, dict[str, _Versions]] = {}
        self._current: dict[str, dict[str, tuple[Stamp, Record]]] = {}
        self._claims: dict[str, tuple[tuple[int, Stamp], ...]] = {}
        self._under: dict[str, set[tuple[str, str]]] = {}  # the kinds and keys that were written under a lease
        self._views: dict[str, Mapping[str, Record]] = {}

    def put(self, kind: str, values: Mapping[str, Mapping[str, JSON]], lease: tuple[str, int] | None = None) -> None:
        """Append one record per key of `values`, in one write.

        Args:
            kind: Their kind.
            values: By key.
            lease: The key and the term of the lease they are written under.

        Raises:
            TypeError, ValueError: A value is no JSON object, or has a flaw; nothing was written.
            StoreError: The disk did not take them.
        """
        for key, value in values.items():
            if not isinstance(value, Mapping):
                raise TypeError(f"a record must be a mapping, got a {type(value).__name__} under {kind}/{key}")
            # NumPy's numbers are none of Python's: what has a flaw is looked at as it will be read.
            if self._flaw(kind, value) is not None and (found := self._flaw(kind, loads(dumps(value)))) is not None:
                raise ValueError(f"the {kind} {key} {found}")
        under: Mapping[str, JSON] = {} if lease is None else {UNDER: list(lease)}
        self._append(kind, [(key, {**value, **under}) for key, value in values.items()])

    def claim(self, lease: str, term: int) -> None:
        """Append that a lease was taken over by this term."""
        self.term(lease)  # what is seen now was written before
        self._append(CLAIM, [(f"{lease}.{term}", {"lease": lease, "term": term})])

    def term(self, lease: str) -> int:
        """The highest term that has claimed a lease; 0 if none has."""
        with self._lock:
            self._refresh()
            self._see_claims()
            return max((term for term, _ in self._claims.get(lease, ())), default=0)

    def remove(self, kind: str, keys: Iterable[str]) -> None:
        """Append that the keys are no more; what is put later counts again."""
        self._append(kind, [(key, None) for key in keys])

    def get(self, kind: str, key: str) -> Record | None:
        """The value that counts, or None."""
        with self._lock:
            self._refresh()
            self._see(kind, [key])
            found = self._current.get(kind, {}).get(key)
            return None if found is None else found[1]

    def some(self, kind: str, keys: Iterable[str], *, look: bool = True) -> dict[str, Record]:
        """The values that count of those of the keys that have one; without a look, by what was read or written."""
        asked = list(keys)
        with self._lock:
            if look:
                self._refresh()
            self._see(kind, asked)
            current = self._current.get(kind, {})
            return {key: current[key][1] for key in asked if key in current}

    def all(self, kind: str) -> Mapping[str, Record]:
        """Every key's value that counts: a snapshot that later changes leave alone."""
        with self._lock:
            self._refresh()
            self._see(kind, list(self._unseen.get(kind, {})))
            if kind not in self._views:
                current = self._current.get(kind, {})
                self._views[kind] = MappingProxyType({key: value for key, (_, value) in current.items()})
            return self._views[kind]

    def time_ns(self, kind: str, key: str) -> int | None:
        """When the value that counts was put, in nanoseconds since 1970, or None."""
        with self._lock:
            self._refresh()
            self._see(kind, [key])
            found = self._current.get(kind, {}).get(key)
            return None if found is None else found[0].time_ns

    @property
    def journal(self) -> Path | None:
        """The journal that this process writes, None before its first record."""
        return self._writer.path

    def close(self) -> None:
        """Give our journal's file back; a later put begins another journal."""
        with self._lock:
            self._writer.close()

    def problems(self) -> list[str]:
        """What is wrong with the journals, one line for each fault; empty if all is well."""
        with self._lock:
            self._refresh()
            return [*self._reader.problems(), *self._left_out(replaced=False)]

    def notes(self) -> list[str]:
        """What was found in the journals that is harmless, one line each."""
        with self._lock:
            self._refresh()
            return [*self._reader.notes(), *self._left_out(replaced=True)]

    def _left_out(self, *, replaced: bool) -> Iterator[str]:
        """The records that are none of ours: those in whose place a later one stands, or those in whose none does."""
        self._see_claims()
        for kind, unseen in self._unseen.items():
            self._see(kind, list(unseen))
        for stamp, (kind, key, line) in sorted(self._damaged.items()):
            found = self._current.get(kind, {}).get(key)
            if (found is not None and found[0] > stamp) == replaced:
                yield f"{line}; a later one stands in its place" if replaced else line

    def _append(self, kind: str, values: list[tuple[str, JSON]]) -> None:
        if values:
            with self._lock:
                appended = self._writer.append(kind, values, max(time.time_ns(), self._latest_ns + 1))
                self._latest_ns = appended.entries[-1].stamp.time_ns
                if self._reader.knows(appended):
                    self._take(appended.entries)

    def _refresh(self) -> None:
        for entries in self._reader.read():
            self._take(entries)

    def _take(self, entries: Iterable[Entry]) -> None:
        for stamp, kind, key, rest in entries:
            self._latest_ns = max(self._latest_ns, stamp.time_ns)
            unseen = self._unseen.setdefault(kind, {})
            unseen[key] = (*unseen.get(key, ()), (*stamp, rest))

    def _see(self, kind: str, keys: Iterable[str]) -> None:
        """Take what was read under these keys into account."""
        self._see_claims()
        unseen = self._unseen.get(kind)
        if not unseen:
            return
        all_versions = self._versions.setdefault(kind, {})
        for key in keys:
            entries = unseen.pop(key, None)
            if entries is None:
                continue
            versions = all_versions.setdefault(key, _Versions())
            for time_ns, writer, line, rest in entries:
                entry = Entry(Stamp(time_ns, writer, line), kind, key, rest)
                try:
                    versions.add(entry.stamp, self._value(entry))
                except ValueError as fault:
                    self._leave_out(entry, fault)
            for each in versions.leased:
                self._under.setdefault(each.lease, set()).add((kind, key))
            self._decide(kind, key)

    def _see_claims(self) -> None:
        """Take the claims that were read into account: what they make stale counts no more."""
        for key, entries in (self._unseen.pop(CLAIM, None) or {}).items():
            for time_ns, writer, line, rest in entries:
                entry = Entry(Stamp(time_ns, writer, line), CLAIM, key, rest)
                try:
                    claim = _claim(self._value(entry))
                except ValueError as fault:
                    self._leave_out(entry, fault)
                    continue
                if claim is None:
                    continue
                lease, term = claim
                self._claims[lease] = (*self._claims.get(lease, ()), (term, entry.stamp))
                for kind, written in self._under.get(lease, ()):
                    self._decide(kind, written)

    def _value(self, entry: Entry) -> Record | None:
        """An entry's value, or None for a removal.

        Raises:
            ValueError: It is none of ours; what is wrong, in words that follow its name.
        """
        if entry.rest is None:
            return None
        try:
            value = entry.value
        except ValueError as fault:
            raise ValueError(f"is no JSON of ours ({str(fault)[:60]})") from None
        if not isinstance(value, dict):
            raise ValueError(f"must be an object, got {value!r:.40}")
        under = value.get(UNDER)
        if UNDER in value and not (isinstance(under, list) and len(under) == 2 and _is_held(*under)):
            raise ValueError(f"must have a lease and its term as {UNDER!r}, got {under!r:.40}")
        if (found := self._flaw(entry.kind, value)) is not None:
            raise ValueError(found)
        return value

    def _leave_out(self, entry: Entry, fault: ValueError) -> None:
        where = f"line {entry.stamp.line + 1} of {entry.stamp.writer}{SUFFIX}"
        line = f"record {entry.kind} {entry.key} {fault}; left out ({where})"
        self._damaged[entry.stamp] = (entry.kind, entry.key, ascii(line)[1:-1].replace("\\'", "'"))

    def _decide(self, kind: str, key: str) -> None:
        """Which of the versions under a key counts."""
        current = self._current.setdefault(kind, {})
        found = self._versions[kind][key].current(self._claims)
        if found is None:
            current.pop(key, None)
        else:
            current[key] = found
        self._views.pop(kind, None)


def _claim(value: Record | None) -> tuple[str, int] | None:
    """The lease and the term of a claim; None where it was removed.

    Raises:
        ValueError: It is none.
    """
    if value is None:
        return None
    lease, term = value.get("lease"), value.get("term")
    if not _is_held(lease, term):
        raise ValueError(f"must have a lease and its term, got {lease!r:.40} and {term!r:.40}")
    assert isinstance(lease, str)
    assert isinstance(term, int)
    return lease, term


def _is_held(lease: object, term: object) -> bool:
    """True if the two say whose a record is."""
    return isinstance(lease, str) and type(term) is int and term >= 1
