"""How the file of a lease is made, which only one can do, and how it is asked and removed."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from sweeps.journal import StoreError
from sweeps.slips import Slip, Slips

_NO_LINKS = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK)
"""What file systems say that have no hard links, or not there, or no more of them."""


def put(slips: Slips, file: str, content: bytes) -> Slip | None:
    """Have a file that only one can make, with this content: a slip, or where there are no links one of its own.

    Raises:
        FileExistsError: It is there.
        StoreError: The disk did not take it; it is not there.
    """
    folder = os.path.dirname(file)
    slip = _slip(slips, folder, file, content)
    try:
        if _name(slip, folder, file, content):
            return slip
    except FileExistsError:
        slip.give_back()
        raise
    except OSError as fault:
        slip.give_back()
        raise refused(folder, file, fault) from fault
    slip.give_back()
    _create(folder, file, content)
    return None


def holds(file: str | Path, content: bytes) -> bool:
    """Whether a file is there, and holds this. No two leases have the same."""
    try:
        opened = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.read(opened, len(content) + 1) == content
        finally:
            os.close(opened)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, BlockingIOError):  # another thing has its name
        return False


def remove(file: str) -> None:
    """Remove a file; nothing, if it is not there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(file)


def refused(folder: str, file: str, fault: OSError) -> StoreError:
    """What the disk said of a lease's file."""
    if isinstance(fault, NotADirectoryError):
        return no_folder(folder, fault)
    return StoreError(f"the lease {file} could not be written: {fault.strerror}")


def no_folder(folder: str, fault: OSError) -> StoreError:
    """What is said where leases cannot lie."""
    return StoreError(f"leases must lie in a folder, {folder} cannot be one: {fault.strerror}")


def _slip(slips: Slips, folder: str, file: str, content: bytes) -> Slip:
    """A file with this content that has no name as a lease yet.

    Raises:
        StoreError: The disk did not take it.
    """
    try:
        try:
            return slips.take(content)
        except FileNotFoundError:
            _make_folder(folder)
            return slips.take(content)
    except OSError as fault:
        raise refused(folder, file, fault) from fault


def _name(slip: Slip, folder: str, file: str, content: bytes) -> bool:
    """Give a slip a lease's name; False where there are no links.

    Raises:
        FileExistsError: The name is there.
        OSError: The disk did not take it.
    """
    for is_first in (True, False):
        try:
            slip.name(file)
        except OSError as fault:
            if holds(file, content):  # done, and the answer was lost on its way: NFS asks again, and is refused
                return True
            if isinstance(fault, FileNotFoundError):  # the folder, or else the slip
                if is_first:
                    _make_folder(folder)
            elif fault.errno in _NO_LINKS:
                return False
            else:
                raise
        else:
            return True
    return False


def _create(folder: str, file: str, content: bytes) -> None:
    """Make a file, and write into it.

    Raises:
        FileExistsError: It is there.
        StoreError: The disk did not take it; it is not there.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        try:
            descriptor = os.open(file, flags, 0o644)
        except FileNotFoundError:
            _make_folder(folder)
            descriptor = os.open(file, flags, 0o644)
    except FileExistsError:
        raise
    except OSError as fault:
        raise refused(folder, file, fault) from fault
    try:
        _write(descriptor, content)
    except OSError as fault:
        remove(file)  # without a word in it, it would be waited for
        raise refused(folder, file, fault) from fault
    finally:
        os.close(descriptor)


def _make_folder(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as fault:
        raise no_folder(folder, fault) from fault


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
