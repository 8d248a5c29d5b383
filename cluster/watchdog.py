"""Notice that nothing moves any more, and say what is stuck, instead of waiting for ever."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

_PATIENCE = 10
"""So many checks are left to what was interrupted before it is interrupted again."""


class StuckError(RuntimeError):
    """Nothing was reported for too long; the message says for how long and what holds the resources."""


class Watchdog:
    """Watch a block that should report progress: `with Watchdog(...) as watchdog: ... watchdog.progress()`.

    When nothing was reported for `timeout_seconds`, the main thread is interrupted as by Ctrl-C, so that a blocking
    call returns (Ray Tune's `fit` among them, which then ends its trials in order), and the block ends with
    `StuckError`. It is to be entered in the main thread: Python delivers interrupts to no other.
    """

    def __init__(
        self,
        timeout_seconds: float,
        describe: Callable[[], str],
        *,
        tend: Callable[[], object] = lambda: None,
        hopeless: Callable[[], str | None] = lambda: None,
        hopeless_seconds: float = 30.0,
        check_seconds: float = 5.0,
    ) -> None:
        """Prepare to watch.

        Args:
            timeout_seconds: Longest time between two reports, positive.
            describe: Says what is stuck, called once; `cluster.placement.describe_cluster` in a sweep.
            tend: Called at every check from the watching thread; `cluster.placement.release_orphans` in a sweep.
            hopeless: Asked at every check: why nothing will ever move again, or None.
            hopeless_seconds: When it has given reasons for so long, the block is ended as if the time were up.
            check_seconds: Time between two checks, positive.

        Raises:
            ValueError: A time is not positive.
        """
        if timeout_seconds <= 0 or check_seconds <= 0:
            raise ValueError(
                f"a watchdog's times must be positive, got {timeout_seconds} s and {check_seconds} s between checks"
            )
        self._timeout_seconds = timeout_seconds
        self._check_seconds = min(check_seconds, timeout_seconds)
        self._describe = describe
        self._tend = tend
        self._hopeless, self._hopeless_seconds = hopeless, hopeless_seconds
        self._last = time.monotonic()
        self._ended = threading.Event()
        self._deciding = threading.Lock()
        self._finding: str | None = None
        self._was_ignored = False
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    @property
    def is_stuck(self) -> bool:
        """True once the block is being interrupted because nothing moves."""
        return self._finding is not None

    def progress(self) -> None:
        """Report that something moved. Callable from any thread."""
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("a watchdog must be entered in the main thread, which alone can be interrupted")
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            # What a shell starts in the background ignores interrupts, and would wait for ever.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._was_ignored = True
        self.progress()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._end()
        except KeyboardInterrupt:
            # Either the user's Ctrl-C, or our own interrupt that came too late to end the block.
            self._end()
            if self._finding is None:
                raise
        if self._finding is not None and (error is None or isinstance(error, KeyboardInterrupt)):
            raise StuckError(self._finding) from None

    def _watch(self) -> None:
        since: float | None = None
        while not self._ended.wait(self._check_seconds):
            self._attempt(self._tend)
            why = self._attempt(self._hopeless)
            since = None if why is None else since or time.monotonic()
            if since is not None and time.monotonic() - since >= self._hopeless_seconds:
                with self._deciding:
                    if not self._ended.is_set():
                        self._finding = str(why)
                        break
            last = self._last
            silent_seconds = time.monotonic() - last
            if silent_seconds < self._timeout_seconds:
                continue
            what = self._attempt(self._describe)
            with self._deciding:  # asking takes time, in which it may have moved or ended after all
                if not self._ended.is_set() and self._last == last:
                    self._finding = f"nothing was reported for {silent_seconds:.0f} s: {what}"
                    break
        # Once should do, but a handler may swallow it: Ray Tune leaves one behind that takes the first for itself.
        while self._interrupt():
            self._ended.wait(_PATIENCE * self._check_seconds)

    def _interrupt(self) -> bool:
        """Interrupt the main thread unless the block has ended; tell whether it had not."""
        with self._deciding:
            if self._ended.is_set() or self._finding is None:
                return False
            # A true signal: it also ends a sleep or a read, which Python's own interrupt_main does not.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            return True

    def _end(self) -> None:
        with self._deciding:
            self._ended.set()
        self._thread.join()
        if self._was_ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    @staticmethod
    def _attempt(action: Callable[[], object]) -> object:
        """Run what a cluster in trouble may well refuse; the watching must go on."""
        try:
            return action()
        except Exception as error:  # noqa: BLE001  (whatever it was, it is part of the finding)
            return f"{type(error).__name__}: {error}"
