"""What the journals of a store say about every kind and key, kept up to date in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from sweeps.exact_json import JSON, Record
from sweeps.journal import Entry, JournalReader, JournalWriter, Stamp, StoreError

_NEVER = Stamp(-1, "", -1)

CLAIM = "lease"
"""The kind of the records that say who took over a lease; their key is the lease's."""

UNDER = "under"
"""The field of a record that says under which lease, and by which term of it, it was written."""

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

    def add(self, entry: Entry) -> None:
        value = entry.value
        if value is None:
            self.removed = max(self.removed, entry.stamp)
            return
        if not isinstance(value, dict):
            raise StoreError(f"a record must be an object, got {entry.kind} {entry.key}, which is none: {value!r:.60}")
        lease, term = value.get(UNDER, ("", 0))
        written = _Written(term, entry.stamp, value, lease)
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

    May be used by several threads.

    Args:
        folder: Where the journals lie.
        durable: True if a put returns only when the disk has it.
    """

    def __init__(self, folder: Path, *, durable: bool) -> None:
        self._reader = JournalReader(folder)
        self._writer = JournalWriter(folder, durable=durable)
        self._lock = threading.RLock()
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
            TypeError, ValueError: A value is no JSON object; nothing was written.
            StoreError: The disk did not take them.
        """
        for key, value in values.items():
            if not isinstance(value, Mapping):
                raise TypeError(f"a record must be a mapping, got a {type(value).__name__} under {kind}/{key}")
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

    def some(self, kind: str, keys: Iterable[str]) -> dict[str, Record]:
        """The values that count of those of the keys that have one."""
        asked = list(keys)
        with self._lock:
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

    def problems(self) -> list[str]:
        """What is wrong with the journals, one line for each fault; empty if all is well."""
        with self._lock:
            self._refresh()
            return self._reader.problems()

    def _append(self, kind: str, values: list[tuple[str, JSON]]) -> None:
        if values:
            with self._lock:
                self._latest_ns = self._writer.append(kind, values, max(time.time_ns(), self._latest_ns + 1))

    def _refresh(self) -> None:
        for entry in self._reader.read():
            self._latest_ns = max(self._latest_ns, entry.stamp.time_ns)
            unseen = self._unseen.setdefault(entry.kind, {})
            unseen[entry.key] = (*unseen.get(entry.key, ()), (*entry.stamp, entry.rest))

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
                versions.add(Entry(Stamp(time_ns, writer, line), kind, key, rest))
            for each in versions.leased:
                self._under.setdefault(each.lease, set()).add((kind, key))
            self._decide(kind, key)

    def _see_claims(self) -> None:
        """Take the claims that were read into account: what they make stale counts no more."""
        for entries in (self._unseen.pop(CLAIM, None) or {}).values():
            for time_ns, writer, line, rest in entries:
                stamp = Stamp(time_ns, writer, line)
                value = Entry(stamp, CLAIM, "", rest).value
                if value is None:
                    continue
                lease = value["lease"]
                self._claims[lease] = (*self._claims.get(lease, ()), (value["term"], stamp))
                for kind, key in self._under.get(lease, ()):
                    self._decide(kind, key)

    def _decide(self, kind: str, key: str) -> None:
        """Which of the versions under a key counts."""
        current = self._current.setdefault(kind, {})
        found = self._versions[kind][key].current(self._claims)
        if found is None:
            current.pop(key, None)
        else:
            current[key] = found
        self._views.pop(kind, None)
