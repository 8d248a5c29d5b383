"""Files of a store as they may be read: plain ones, of a length that ours have. What is none cannot stop a reader."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def open_plain(path: Path) -> int:
    """A descriptor of a plain file, to read from.

    Nothing is waited for: a pipe that nobody writes into, which opens at once so, is refused, as is a device.

    Raises:
        OSError: It is not there, may not be read, or is no plain file.
        ValueError: No path is so.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no plain file", str(path))
    return descriptor


def read_plain(path: Path, *, longest: int) -> bytes:
    """The bytes of a plain file of at most so many.

    Raises:
        OSError: As `open_plain` does, or it is longer.
        ValueError: No path is so.
    """
    with open(open_plain(path), "rb") as file:
        content = file.read(longest + 1)
    if len(content) > longest:
        raise OSError(errno.EFBIG, f"more than {longest} bytes", str(path))
    return content
