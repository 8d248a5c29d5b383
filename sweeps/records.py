"""What the journals of a store say about every kind and key, kept up to date in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from sweeps.exact_json import JSON, Record
from sweeps.journal import Entry, JournalReader, JournalWriter, Stamp

_NEVER = Stamp(-1, "", -1)

_Unseen = tuple[int, str, int, bytes | None]
"""A stamp and the rest of an entry, as a plain tuple of plain values: the garbage collector does not walk those."""


@dataclass(slots=True)
class _Versions:
    """The latest of each sort that was written under one key. Independent of the order in which journals are read."""

    finished: tuple[Stamp, Record] | None = None
    other: tuple[Stamp, Record] | None = None
    removed: Stamp = _NEVER

    def add(self, entry: Entry) -> None:
        value = entry.value
        if value is None:
            self.removed = max(self.removed, entry.stamp)
        elif value.get("status") == "finished":
            if self.finished is None or self.finished[0] < entry.stamp:
                self.finished = (entry.stamp, value)
        elif self.other is None or self.other[0] < entry.stamp:
            self.other = (entry.stamp, value)

    @property
    def current(self) -> tuple[Stamp, Record] | None:
        for version in (self.finished, self.other):
            if version is not None and version[0] > self.removed:
                return version
        return None


class Records:
    """Values by kind and key, appended to journals and read back from everybody's.

    Which value counts: one whose `status` is `finished` before any other, then the later one, by the writer's clock,
    then by the writer's name and line. A removal ends everything under its key that is earlier. So all readers agree,
    in whatever order they read, and a late report of failure never replaces a result. A writer's clock never runs
    behind what it has read: what one has seen, one can replace, even if the machines' clocks disagree.

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
        self._views: dict[str, Mapping[str, Record]] = {}

    def put(self, kind: str, values: Mapping[str, Mapping[str, JSON]]) -> None:
        """Append one record per key of `values`, in one write.

        Raises:
            TypeError, ValueError: A value is no JSON object; nothing was written.
            StoreError: The disk did not take them.
        """
        for key, value in values.items():
            if not isinstance(value, Mapping):
                raise TypeError(f"a record must be a mapping, got a {type(value).__name__} under {kind}/{key}")
        self._append(kind, list(values.items()))

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
        unseen = self._unseen.get(kind)
        if not unseen:
            return
        all_versions, current = self._versions.setdefault(kind, {}), self._current.setdefault(kind, {})
        for key in keys:
            entries = unseen.pop(key, None)
            if entries is None:
                continue
            versions = all_versions.setdefault(key, _Versions())
            for time_ns, writer, line, rest in entries:
                versions.add(Entry(Stamp(time_ns, writer, line), kind, key, rest))
            if versions.current is None:
                current.pop(key, None)
            else:
                current[key] = versions.current
            self._views.pop(kind, None)
