"""Stop a sweep where it can go on: the driver is told by a signal, its jobs, on whatever machine, by a file.

The file lies in the store, which all machines of a sweep see; where each has a folder of its own, a flag in the copy
says the same, which is looked for less often. A job looks for the file at most twice a second: while it
trains, after each step, whose checkpoint it then writes, and of several workers after the next; while it plays, draws
or fits, after a round of utterances, a turn, a step. However long these take, whoever still tells how far it is comes
to its end, and is waited for.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Self

from sweeps.journal import StoreError

LOOK_SECONDS = 0.5
FLAG_SECONDS = 5.0
"""How often the flag is looked for."""
PATIENCE_SECONDS = 300.0
"""When no job that was asked to stop has said anything for so long, those that are left are left to themselves: what
they had not checkpointed is done again. A step of several workers, the next one and its checkpoint say nothing between
their ends."""

_TOLD = b"stopping: what trains finishes its step and writes a checkpoint; once more stops at once\n"


class JobStopped(Exception):  # noqa: N818  no error: what was asked for
    """A job was asked to stop, and did, where it can be resumed."""


class Asked:
    """Tells whether a job was asked to stop; cheap enough to be asked at every step.

    Args:
        file: Whose being there says so; None where nobody asks.
        away: Asks whether the flag is there that stands for it, where there is one.
    """

    def __init__(self, file: str | None, away: Callable[[], bool] | None = None) -> None:
        self._file, self._looked, self._found = file, -LOOK_SECONDS, False
        self._away, self._looked_away = away, -FLAG_SECONDS

    def __call__(self) -> bool:
        """True once the file is there."""
        if self._file is not None and not self._found and time.monotonic() - self._looked >= LOOK_SECONDS:
            self._looked, self._found = time.monotonic(), os.path.exists(self._file)
            if not self._found and self._away is not None and self._looked - self._looked_away >= FLAG_SECONDS:
                self._found = self._away()
                self._looked_away = time.monotonic()
        return self._found

    def check(self) -> None:
        """Do nothing unless it was asked for.

        Raises:
            JobStopped: It was.
        """
        if self():
            raise JobStopped("stopped, as it was asked to")


class Signals:
    """Within the block, the first SIGINT or SIGTERM asks all jobs to stop; the second one interrupts, as Ctrl-C does.

    So does silence: `patience` seconds after the first, or after the last word from a job since. To be entered in the
    main thread.

    Args:
        file: By which jobs are told. Its folder exists.
        at_once: Asked at a signal: whether it is none to wait after. A watchdog interrupts by signal, too.
        on_first: Called after the first signal, in a thread of its own: tells those that do not see the file.
        patience: Seconds.

    Attributes:
        received: The first signal, if there was one.
    """

    def __init__(
        self,
        file: Path,
        *,
        at_once: Callable[[], bool] = lambda: False,
        on_first: Callable[[], None] = lambda: None,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self.received: signal.Signals | None = None
        self._file, self._at_once, self._on_first, self._patience = file, at_once, on_first, patience
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}
        self._main = threading.main_thread().ident or 0
        self._heard = 0.0
        self._ended = threading.Event()

    def heard(self) -> None:
        """A job has said something: it has not stopped, and will. Callable from any thread."""
        self._heard = time.monotonic()

    def __enter__(self) -> Self:
        self._file.unlink(missing_ok=True)
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None or self._at_once():
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
        self.heard()
        for target in (self._wait, self._tell_away):
            threading.Thread(target=target, name="stopping", daemon=True).start()
        self._file.touch()
        os.write(2, _TOLD)  # not by print, in the middle of which we may be

    def _wait(self) -> None:
        """Interrupt when nothing was heard for too long."""
        while not self._ended.is_set():
            left = self._heard + self._patience - time.monotonic()
            if left <= 0:
                # By a signal to the main thread, which alone can be interrupted, and out of a call that waits.
                signal.pthread_kill(self._main, signal.SIGTERM)
                return
            self._ended.wait(left)

    def _tell_away(self) -> None:
        with contextlib.suppress(StoreError):  # they go on, and are waited for no longer than others that are silent
            self._on_first()
