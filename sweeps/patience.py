"""Work that may hang, done without ever waiting for it for good: in a thread that can be left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

PATIENCE_SECONDS = 30.0
"""Work that does not move for longer than this is given up on."""


class Patience:
    """Does one work at a time, and complains of what fails in a row once.

    Args:
        complain: Told in one line why a work was not done.
    """

    def __init__(self, complain: Callable[[str], None]) -> None:
        self._complain = complain
        self._complained = False
        self._lock = threading.Lock()  # one work at a time
        self._halt = threading.Event()  # that of the work that is under way
        self._progress = 0.0

    def supervise(self, work: Callable[[], None], limit_seconds: float) -> bool:
        """Do `work`; False if that failed, did not move for `PATIENCE_SECONDS`, or took longer than the limit.

        What is given up on goes on in its thread until it moves. Until then what comes after it waits in vain: given up
        on too, it is not begun.
        """
        faults: list[str] = []
        halt = threading.Event()
        started = self._progress = time.monotonic()
        worker = threading.Thread(target=self._attempt, args=(work, faults, halt), daemon=True)
        worker.start()
        try:
            while worker.is_alive():
                worker.join(0.5)
                now = time.monotonic()
                if worker.is_alive() and (now - started > limit_seconds or now - self._progress > PATIENCE_SECONDS):
                    halt.set()
                    faults.append(f"it did not take everything within {now - started:.0f} s")
                    break
        except BaseException:  # a signal: what comes next must not wait for this
            halt.set()
            raise
        if faults:
            if not self._complained:
                self._complained = True
                self._complain(faults[0])
            return False
        self._complained = False
        return True

    def moved(self) -> None:
        """To be called by the work after each of its steps: it does not hang.

        Raises:
            TimeoutError: It is to end here.
        """
        self._progress = time.monotonic()
        if self._halt.is_set():
            raise TimeoutError("it was too slow")

    def halt(self) -> None:
        """Let the work that is under way end where it moves next, without a complaint."""
        self._halt.set()

    def _attempt(self, work: Callable[[], None], faults: list[str], halt: threading.Event) -> None:
        while not self._lock.acquire(timeout=1.0):  # an earlier work is at it, or hangs
            if halt.is_set():
                return
        try:
            if halt.is_set():  # given up on while it waited: too late to begin
                return
            self._halt = halt
            work()
        except Exception as fault:  # noqa: BLE001  whatever it raises, whoever asked for it goes on
            if not halt.is_set():  # else it was ended from without, and whoever did that says why
                faults.append((str(fault).strip() or type(fault).__name__).splitlines()[0])
        finally:
            self._lock.release()
