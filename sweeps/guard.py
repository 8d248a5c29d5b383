"""What becomes of an error at the command line: one line for a user's mistake, and a status that says how it went."""

from __future__ import annotations

import errno
import io
import os
import select
import signal
import sys
from collections.abc import Callable

from cluster.redaction import without_secrets
from ilql.task import TaskFault
from sweeps.command_line import printable
from sweeps.journal import StoreError
from sweeps.leases import LeaseLostError

WRONG_INPUT = 2
STOPPED = 130
"""The exit status after Ctrl-C, as shells have it."""

PIPE_CLOSED = 141
"""The exit status of what wrote to a reader who had gone, as `| head` does, as shells have it."""


def guarded(run: Callable[[], int], *, stopped: str = "stopped") -> int:
    """Run; what the user can mend becomes one line and status 2, whatever else is wrong stays a traceback.

    Args:
        run: Gives the exit status.
        stopped: What is said when it is told to end.
    """
    signal.signal(signal.SIGTERM, interrupt)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may hold bytes that are no text
    try:
        status = run()
        sys.stdout.flush()  # here, and not when Python ends: a reader who has gone is no fault
        return status
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # it ends; one more would only break into that with a traceback
        print(stopped, file=sys.stderr)
        return STOPPED
    except BrokenPipeError as error:
        if not _reader_has_gone():
            print(f"error: {printable(without_secrets(str(error)))}", file=sys.stderr)
            return WRONG_INPUT
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to say goes nowhere
        return PIPE_CLOSED
    except (ValueError, KeyError, TypeError, ConnectionError, StoreError, LeaseLostError, TaskFault) as error:
        if os.environ.get("SWEEPS_TRACEBACK"):
            raise
        message = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        line = without_secrets(message).strip().partition("\n")[0]
        print(f"error: {printable(line) or type(error).__name__}", file=sys.stderr)
        return WRONG_INPUT
    except OSError as error:
        of_disk = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
        if os.environ.get("SWEEPS_TRACEBACK") or not (of_disk or error.filename):
            raise
        rule = "the disk must take what is written" if of_disk else "a path must lead to what is asked of it"
        where = f" ({error.filename})" if error.filename else ""
        print(f"error: {printable(without_secrets(f'{rule}, got {error.strerror}{where}'))}", file=sys.stderr)
        return WRONG_INPUT


def interrupt(number: int, frame: object) -> None:
    """Answer a request to end as Ctrl-C, also where that is ignored, as in the background of a shell."""
    raise KeyboardInterrupt


def _reader_has_gone() -> bool:
    """True if it is our own output that nobody reads, and not a connection that has broken."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in output.poll(0))
