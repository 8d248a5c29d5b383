"""Who may work on what, among processes and machines that share nothing but a file system.

A lease on a key is a file, `leases/<key[:2]>/<key>.<term>`, whose maker holds it; its content says who that is. It is
made by a hard link to a file that the maker has (`sweeps/slips.py`), or with `O_EXCL` where there are no links. Who
takes over from one that is gone makes the next term, and the earlier holder, should it come back to life, finds that it
holds nothing any more and stops. What it writes nevertheless readers leave out, since every row says its term
(`sweeps.records`).

A holder is gone if it is known to be dead (a process of this boot of this machine that is no more), or if its file,
which the living touch every few seconds, has not changed for `PATIENCE_SECONDS` by the clock of whoever waits. No two
clocks are compared, and no lock of the file system is relied on. Assumed of it, NFS included: of several that make one
name, one succeeds, and who opens a file sees what was last written to it and when it was touched.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sweeps.journal import process_name, utc
from sweeps.lease_files import holds, no_folder, put, refused, remove
from sweeps.plain_files import read_plain
from sweeps.slips import Slip, Slips, is_slip

HEARTBEAT_SECONDS = 5.0
"""How often a holder touches its files."""
PATIENCE_SECONDS = 60.0
"""Without a touch for so long, a holder that cannot be asked counts as gone."""

_KEY = re.compile(r"[A-Za-z0-9_-]{1,200}")
_TERM = re.compile(r"[1-9][0-9]{0,17}")
_LONGEST = 1 << 16  # bytes of a lease's file; ours have a few hundred

CLEANING = "gc"
"""The key of the lease under which things are removed from a store; drivers wait for it before they begin."""


def is_key(text: str) -> bool:
    """True for what a lease can be on."""
    return _KEY.fullmatch(text) is not None


def driver_key(sweep: str) -> str:
    """The key of the lease of a sweep's one driver."""
    return f"sweep-{hashlib.sha256(sweep.encode()).hexdigest()[:16]}"


class LeaseLostError(RuntimeError):
    """Someone else has taken over; nothing may be written any more under this lease."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lease.

    Attributes:
        name: Host, process and a random number, as journals are named.
        process: Its process id, with the time it began, so that a later process of the same id is known for another.
        machine: This boot of this machine, and the space its process ids are counted in.
        since: UTC.
    """

    name: str
    process: str
    machine: str
    since: str

    @property
    def host(self) -> str:
        """Its machine's name."""
        return self.name.rsplit("-", 2)[0]

    @property
    def number(self) -> str:
        """Its process id."""
        return self.process.partition("@")[0]

    def is_dead(self) -> bool:
        """True if it is known to be no more; False if it lives, or cannot be asked from here."""
        if not self.machine or self.machine != _machine():
            return False
        return self.process != _process(int(self.number))


@dataclass(frozen=True)
class Lease:
    """A lease that is held, until it is released or lost. Whoever is given a copy of it, anywhere, may check.

    Attributes:
        key: Of what.
        term: Its number.
        file: Whose being there says that it is held.
        content: What is in it: who holds it. No two leases have the same.
        what: What it is a lease on, in words, for whoever reads that it was lost.
        replica: Name of the folder it was taken in, where a store has several; `Store.check` asks for it.
    """

    key: str
    term: int
    file: Path
    content: bytes
    what: str = field(default="", compare=False)
    replica: str = field(default="", compare=False)

    def check(self) -> None:
        """Do nothing if it is held still.

        Raises:
            LeaseLostError: It is not; the message says who has it.
        """
        # Who follows makes the next term, removes this one, and begins then. So this file's word is what decides; the
        # next term tells of it a moment before, where that is the next number.
        if not self.is_there() or os.path.lexists(f"{self._beginning}{self.term + 1}"):
            what = self.what or f"the lease on {self.key}"
            theirs = _latest(os.fspath(self.file.parent), self.key)
            who = "meanwhile" if theirs is None else f"since {theirs.since} (process {theirs.number} of {theirs.host})"
            raise LeaseLostError(
                f"{what} was taken over while its holder was not heard of: another process has had it {who}"
            )

    def release(self) -> None:
        """Give it back; again does nothing."""
        slip = _HEART.drop(self)
        if self.is_there():
            remove(os.fspath(self.file))
        _give_back(slip)

    def vouch(self, seconds: float) -> None:
        """Let its holder count as alive for so long, and no longer unless this is said again: it may hang."""
        _HEART.keep(self, seconds)

    def touch(self) -> None:
        """Say that its holder lives."""
        with contextlib.suppress(OSError):  # lost, or the disk is away: whoever writes next finds out
            os.utime(self.file)

    @property
    def _beginning(self) -> str:
        """Of the names of all terms' files."""
        return os.fspath(self.file)[: -len(str(self.term))]

    def is_there(self) -> bool:
        """Whether its file is; another of its name may be."""
        return holds(self.file, self.content)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@dataclass(frozen=True)
class _Seen:
    """What was last seen of a file.

    Attributes:
        stamp: When it was touched, by the file system's clock.
        since: When it was first seen so, by ours.
        touched: Whether it was touched while we looked.
    """

    stamp: int
    since: float
    touched: bool


@dataclass(frozen=True)
class _Made:
    """A lease that is not touched yet, and the slip that its file is, if it is one."""

    lease: Lease
    slip: Slip | None

    def undo(self) -> None:
        """Have it made never."""
        try:
            self.lease.release()
        finally:
            _give_back(self.slip)

    @contextlib.contextmanager
    def undone_by_errors(self) -> Iterator[None]:
        """An error that ends the block takes it back, and is a `StoreError` if it was the file system's."""
        try:
            yield
        except BaseException as fault:
            with contextlib.suppress(OSError):
                self.undo()
            if isinstance(fault, OSError):
                raise refused(os.fspath(self.lease.file.parent), os.fspath(self.lease.file), fault) from fault
            raise

    def kept(self) -> Lease:
        """The lease, which is touched from now on."""
        with self.undone_by_errors():
            _HEART.keep(self.lease, slip=self.slip)
        return self.lease


class Leases:
    """The leases of a store.

    Args:
        folder: Where their files lie; made at the first lease.
        patience: See `PATIENCE_SECONDS`.
    """

    def __init__(self, folder: Path, *, patience: float = PATIENCE_SECONDS) -> None:
        self._folder, self._patience = folder, patience
        self._slips = Slips(folder)
        self._seen: dict[Path, _Seen] = {}

    def take(self, key: str, *, above: Callable[[], int] = int) -> Lease | None:
        """The lease on a key if nobody holds it, or its holder is gone; else None.

        Args:
            key: Letters, digits, '_' and '-'; at most 200 of them.
            above: The new term is higher than what this gives, too, also if it is asked once the lease is held: who
                had the key before us has said by then whatever it said.

        Raises:
            ValueError: The key is none.
            StoreError: The disk did not take it; nothing is held.
        """
        folder = self._place(key)
        # Nearly always nobody has it and nobody was ever followed: then no look at the folder is needed beforehand.
        # Where somebody has a later term, one's first is less, and takes nothing from anybody.
        made = self._make(folder, key, 1, above)
        if made is not None:
            return made.kept()
        terms = _terms(folder, key)
        if terms and not self._is_gone(Path(folder, f"{key}.{terms[-1]}")):
            return None
        made = self._make(folder, key, max([above(), *terms]) + 1, above)
        if made is None:
            return None
        with made.undone_by_errors():
            for earlier in terms:
                with contextlib.suppress(FileNotFoundError, IsADirectoryError, PermissionError):  # a folder is not ours
                    os.unlink(f"{folder}/{key}.{earlier}")
        return made.kept()

    def _make(self, folder: str, key: str, term: int, above: Callable[[], int]) -> _Made | None:
        """Make the file of a term; None, and it is not there, where somebody has this one or a higher one."""
        file, content = f"{folder}/{key}.{term}", _holder()
        try:
            slip = put(self._slips, file, content)
        except FileExistsError:
            return None
        made = _Made(Lease(key, term, Path(file), content), slip)
        with made.undone_by_errors():
            # Somebody who saw other files than we did was faster, or followed us while we slept, and may be gone again.
            if _terms(folder, key)[-1:] == [term] and made.lease.is_there() and above() < term:
                return made
        made.undo()
        return None

    def wait(self, key: str, *, above: Callable[[], int] = int, each: Callable[[], None] = lambda: None) -> Lease:
        """The lease on a key as soon as it can be had.

        Args:
            key: Of what.
            above: See `take`.
            each: Called about once a second while it is waited for.
        """
        while (lease := self.take(key, above=above)) is None:
            each()
            time.sleep(min(1.0, self._patience / 4))
        return lease

    def settle(
        self, key: str, *, above: Callable[[], int] = int, each: Callable[[], None] = lambda: None
    ) -> Lease | None:
        """The lease on a key, or None as soon as its holder is known to live.

        A holder that cannot be asked, as one of a machine that has been switched off, is watched for as long as it
        takes to know: until its file is touched, or has not been for so long that it counts as gone.

        Args:
            key: Of what.
            above: See `take`.
            each: Called about once a second while it is watched.
        """
        while (lease := self.take(key, above=above)) is None:
            folder = self._place(key)
            terms = _terms(folder, key)
            if terms and self._is_heard(Path(folder, f"{key}.{terms[-1]}")):
                return None
            each()
            time.sleep(min(1.0, self._patience / 4))
        return lease

    def holder(self, key: str) -> Holder | None:
        """Who holds a key now, or held it last without giving it back; None if nobody."""
        return _latest(self._place(key), key)

    def all(self) -> Iterator[tuple[str, int, Holder | None]]:
        """Key, term and holder of every lease that was not given back."""
        for file in sorted(self._folder.glob("*/*.*")):
            key, _, term = file.name.rpartition(".")
            if _is_lease(file):
                yield key, int(term), _read(file)

    def strangers(self) -> Iterator[Path]:
        """What lies among the leases and is none."""
        if self._folder.exists() and not self._folder.is_dir():
            yield self._folder
        yield from (path for path in sorted(self._folder.glob("*")) if not (path.is_dir() or is_slip(path)))
        yield from (path for path in sorted(self._folder.glob("*/*")) if not _is_lease(path))

    def _place(self, key: str) -> str:
        """The folder of a key's files."""
        if not is_key(key):
            raise ValueError(f"a lease's key must be 1 to 200 of A-Z, a-z, 0-9, '_' and '-', got {key[:80]!r}")
        return f"{self._folder}/{key[:2]}"

    def _is_gone(self, file: Path) -> bool:
        """True if its holder is dead, or has been silent for too long."""
        holder = _read(file)
        if holder is not None and holder.is_dead():
            return True
        seen = self._look(file)
        return seen is not None and time.monotonic() - seen.since > self._patience

    def _is_heard(self, file: Path) -> bool:
        """True if its holder is known to live: a process of this machine, or one that has touched its file."""
        holder = _read(file)
        if holder is not None and holder.machine == _machine() != "":
            return not holder.is_dead()
        seen = self._look(file)
        return seen is not None and seen.touched

    def _look(self, file: Path) -> _Seen | None:
        """What is known of a file's touches from all looks so far; None if it was given back just now."""
        try:
            # NFS asks the server at an open; a stat alone may be a minute old. A pipe is not waited for.
            opened = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            stamp = os.fstat(opened).st_mtime_ns
        finally:
            os.close(opened)
        before = self._seen.get(file)
        if before is None or before.stamp != stamp:
            self._seen[file] = _Seen(stamp, time.monotonic(), touched=before is not None)
        return self._seen[file]


@dataclass
class _Beat:
    """A lease that this process touches.

    Attributes:
        lease: It.
        until: Until when, by our clock.
        slip: Its file, to be used again; None where it was made with `O_EXCL`, or in another process.
    """

    lease: Lease
    until: float
    slip: Slip | None = None


class _Heart:
    """One thread that touches all leases this process holds."""

    def __init__(self) -> None:
        self._beats: dict[bytes, _Beat] = {}  # by what is in their files: no two have the same
        self._lock = threading.Lock()
        self._process: int | None = None

    def keep(self, lease: Lease, seconds: float = math.inf, *, slip: Slip | None = None) -> None:
        until = time.monotonic() + seconds
        with self._lock:
            if self._process != os.getpid():  # the first lease, or a fork, which has no threads and no leases
                self._beats = {}
                threading.Thread(target=self._beat, name="leases", daemon=True).start()
                self._process = os.getpid()  # last: who could not begin a thread tries again
            beat = self._beats.get(lease.content)
            if beat is None:
                self._beats[lease.content] = _Beat(lease, until, slip)
            else:
                beat.until = until

    def drop(self, lease: Lease) -> Slip | None:
        with self._lock:
            beat = self._beats.pop(lease.content, None)
        return None if beat is None else beat.slip

    def _beat(self) -> None:
        while True:
            time.sleep(HEARTBEAT_SECONDS)
            with self._lock:
                held = [beat.lease for beat in self._beats.values() if time.monotonic() <= beat.until]
            for lease in held:
                lease.touch()


_HEART = _Heart()


def _terms(folder: str, key: str) -> list[int]:
    """The terms of a key's files, increasing.

    Raises:
        StoreError: A file lies where leases should.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except NotADirectoryError as fault:
        raise no_folder(folder, fault) from fault
    prefix = f"{key}."
    return sorted(
        int(name[len(prefix) :]) for name in names if name.startswith(prefix) and _TERM.fullmatch(name[len(prefix) :])
    )


def _latest(folder: str, key: str) -> Holder | None:
    """The holder of the highest term of a key that says who that is."""
    for term in reversed(_terms(folder, key)):
        if (found := _read(Path(folder, f"{key}.{term}"))) is not None:
            return found
    return None


def _is_lease(file: Path) -> bool:
    """True if a file has the name of a lease, and lies where one is looked for."""
    key, _, term = file.name.rpartition(".")
    return is_key(key) and _TERM.fullmatch(term) is not None and file.parent.name == key[:2]


def _give_back(slip: Slip | None) -> None:
    if slip is not None:
        slip.give_back()


def _holder() -> bytes:
    """Us, as a file's content: no two are the same, as each has a name with a random number in it."""
    us = {"name": process_name(), "process": _this_process(), "machine": _machine(), "since": utc()}
    return json.dumps(us).encode()


def _read(file: Path) -> Holder | None:
    """Who a file says holds it; None if it is gone, its writer was killed in it, or it is none of ours."""
    try:
        holder = Holder(**json.loads(read_plain(file, longest=_LONGEST)))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    ours = all(isinstance(value, str) for value in vars(holder).values()) and holder.number.isdecimal()
    return holder if ours else None


@functools.cache
def _machine() -> str:
    """This boot of this machine and our space of process ids; empty where they cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _process(number: int) -> str | None:
    """A process that lives: its id and the time it began, in clock ticks of the machine; None if there is none."""
    try:
        stat = Path(f"/proc/{number}/stat").read_bytes()
    except OSError:
        return None
    state, *fields = stat.rpartition(b")")[2].split()  # the name before it may hold anything
    return None if state in (b"Z", b"X") else f"{number}@{fields[18].decode()}"


@functools.cache
def _this_process() -> str:
    """This one, as `_process` names it; empty where that cannot be told."""
    return _process(os.getpid()) or ""


os.register_at_fork(after_in_child=_this_process.cache_clear)
