"""Processes of a Ray that we started which outlive it, found by the logs of its session that they write.

A Ray that is told to end while it starts loses sight of what it has started: agents without a parent stay. Names and
environments they have written over; their logs they keep open, for writing, which nobody else does: who looks at a log
reads it. Looked for in /proc, which only Linux has: elsewhere nothing is found, and nothing is ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

GRACE_SECONDS = 3.0
"""So long may processes of a Ray that has ended take to see that, before they are ended."""

GONE_SECONDS = 10.0
"""So long is waited for the kernel to take away what was ended; longer takes only what hangs in a disk."""

_LOOK_SECONDS = 0.1
_LOGS = (".log", ".out", ".err")


def writers_of(sessions: Sequence[Path]) -> set[int]:
    """Processes of this user that have a log of the sessions open for writing; neither this one nor a fork of it.

    Args:
        sessions: Folders of sessions, without links in their paths.
    """
    if not sessions or not Path("/proc/self/fd").is_dir():
        return set()
    found = {int(entry) for entry in os.listdir("/proc") if entry.isdecimal()}
    return {process for process in found if process != os.getpid() and _is_of(process, sessions)}


def end_writers(
    sessions: Sequence[Path], *, grace_seconds: float = GRACE_SECONDS, gone_seconds: float = GONE_SECONDS
) -> None:
    """End the processes that `writers_of` gives, if they have not ended by themselves after so many seconds.

    Raises:
        KeyboardInterrupt: A signal came meanwhile. They have been ended by then, too, without the rest of the wait.
    """
    try:
        deadline = time.monotonic() + grace_seconds
        while writers_of(sessions) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
    finally:
        deadline = time.monotonic() + gone_seconds
        while left := writers_of(sessions):
            for process in left:
                _end(process, sessions)
            if time.monotonic() > deadline:
                break
            time.sleep(_LOOK_SECONDS)


def _is_of(process: int, sessions: Sequence[Path]) -> bool:
    at, own = Path(f"/proc/{process}"), Path("/proc/self")
    try:
        if at.stat().st_uid != os.geteuid() or (at / "ns/pid").readlink() != (own / "ns/pid").readlink():
            return False  # a container that shares the folder may have given the same number to a process of its own
        if (at / "cmdline").read_bytes() == (own / "cmdline").read_bytes():
            return False  # a fork has all that we have open
        return any(_is_written(at, link.name, sessions) for link in (at / "fd").iterdir())
    except OSError:  # it has ended, or is none of ours
        return False


def _is_written(process: Path, descriptor: str, sessions: Sequence[Path]) -> bool:
    with contextlib.suppress(FileNotFoundError):  # closed while we looked
        file = (process / "fd" / descriptor).readlink()
        if file.suffix in _LOGS and any(file.is_relative_to(session / "logs") for session in sessions):
            about = dict(line.split(":\t") for line in (process / "fdinfo" / descriptor).read_text().splitlines()[:2])
            return int(about["flags"], 8) & os.O_ACCMODE != os.O_RDONLY
    return False


def _end(process: int, sessions: Sequence[Path]) -> None:
    """End a process that is still what it was when it was found: its number may have become another's."""
    with contextlib.suppress(ProcessLookupError):
        held = os.pidfd_open(process)
        try:
            if _is_of(process, sessions):
                signal.pidfd_send_signal(held, signal.SIGKILL)
        finally:
            os.close(held)
