"""Files of a store as they may be read: plain ones, of a length that ours have. What is none cannot stop a reader."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_FIRST = 1 << 14  # bytes that are read at first


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
    descriptor = open_plain(path)
    try:
        content = os.read(descriptor, _FIRST)  # most are shorter, and a file object would cost more than they do
        if len(content) == _FIRST:
            with open(descriptor, "rb", closefd=False) as file:
                content += file.read(longest + 1 - _FIRST if longest >= _FIRST else 0)
    finally:
        os.close(descriptor)
    if len(content) > longest:
        raise OSError(errno.EFBIG, f"more than {longest} bytes", str(path))
    return content
