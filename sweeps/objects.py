"""An object store, or a folder used as one: whole objects by name, put, got, listed and removed.

The only file of this package that knows pyarrow's file systems. S3 and what speaks its language, Google's and Azure's
stores, HDFS and plain folders are opened by their address; who may do so is for the environment to say (`AWS_PROFILE`,
`AWS_ACCESS_KEY_ID`, a machine's role), never for the address, which is written down and shown.
"""

from __future__ import annotations

import contextlib
import errno
import io
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow import fs

from cluster.redaction import without_secrets
from sweeps.journal import StoreError
from sweeps.replica import ADDRESS

Answer = TypeVar("Answer")

_CHUNK = 1 << 22  # bytes that are held in memory while something is copied
_PASSING = (
    "NETWORK_CONNECTION",
    "SLOW_DOWN",
    "THROTTLING",
    "SERVICE_UNAVAILABLE",
    "INTERNAL_FAILURE",
    "TIMEOUT",
    "Timeout",
)
"""How what may pass is called by those that answer so, or not at all."""

_OURS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_WHOLE_AT_ONCE = ("s3", "gcs", "abfs")
"""File systems where an object is there when its writer closes it, and not before."""


WAITS = (1.0, 5.0, 20.0)
"""Seconds before what may pass is tried again, beside the tries of a store's own client."""


class Objects:
    """The objects under an address. Whatever asks it raises `StoreError` where it does not answer.

    Args:
        url: The address: `s3://bucket/prefix`, `s3://bucket/prefix?endpoint_override=...&scheme=http`, `gs://...`,
            `file:///folder`. No secrets are in it (`sweeps.replica.check_address`).
        waits: Seconds before each further try of what may pass.

    Attributes:
        url: The address.
        waits: As given; may be set anew.

    Raises:
        ValueError: It is no such address.
        StoreError: It does not answer.
    """

    def __init__(self, url: str, *, waits: Sequence[float] = WAITS) -> None:
        self.url = url
        self.waits = waits
        opened = self._asked("be found", lambda: _opened(url))  # S3 is asked where a bucket lies
        if opened is None:
            raise ValueError(f"{ADDRESS}, got {without_secrets(url)}: there is no such place")
        self._files, root = opened
        self._root = root.rstrip("/")
        self._is_whole_at_once = self._files.type_name in _WHOLE_AT_ONCE

    def names(self, under: str) -> dict[str, int]:
        """The names of the objects in a folder and below it, relative to the root, with their sizes in bytes."""
        place = f"{self._root}/{under}"
        selector = fs.FileSelector(place, allow_not_found=True, recursive=True)
        found = self._asked("list", lambda: self._files.get_file_info(selector))
        files = (each for each in found or () if each.type == fs.FileType.File)
        named = {each.path.removeprefix(f"{self._root}/"): each.size for each in files}
        return {name: size for name, size in named.items() if not PurePosixPath(name).name.startswith(".")}

    def size(self, name: str) -> int | None:
        """The bytes of an object, None if there is none."""
        found = self._asked("look for", lambda: self._files.get_file_info(self._place(name)))
        return found.size if found is not None and found.type == fs.FileType.File else None

    def read(self, name: str, begin: int = 0, *, waits: Sequence[float] | None = None) -> bytes | None:
        """An object's content from a byte on, None if there is none; `waits` in place of those it has."""

        def content() -> bytes:
            with self._files.open_input_file(self._place(name)) as file:
                file.seek(begin)
                return bytes(file.read())

        return self._asked("read", content, waits)

    def get(self, name: str, file: Path) -> bool:
        """Copy an object to a new file; False, and no file, if there is none."""
        with file.open("xb") as target:

            def copied() -> bool:
                target.seek(0)
                target.truncate()
                with self._files.open_input_stream(self._place(name)) as stream:
                    while chunk := stream.read(_CHUNK):
                        target.write(chunk)
                return True

            found = self._asked("read", copied) is not None
        if not found:
            file.unlink()
        return found

    def put(self, name: str, content: bytes | Path) -> None:
        """Make an object of bytes, or of a file's, in the place of what has its name: whole, or not at all.

        A file whose sending is broken off may take with it what had its name before.
        """
        place = self._place(name)
        folder, _, last = place.rpartition("/")
        part = place if self._is_whole_at_once else f"{folder}/.{last}.{secrets.token_hex(4)}"
        before = None if isinstance(content, bytes) else self.size(name)
        with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as source:

            def written() -> bool:
                source.seek(0)
                if not self._is_whole_at_once:
                    self._files.create_dir(folder, recursive=True)
                try:
                    with self._files.open_output_stream(part) as stream:
                        while chunk := source.read(-1 if isinstance(content, bytes) else _CHUNK):
                            stream.write(chunk)
                except BaseException:
                    # A stream that is left so is closed, and what it had is an object: of bytes, which go at once, all
                    # or nothing, of a file perhaps a part.
                    with contextlib.suppress(pa.ArrowException, OSError):
                        if part != place or (
                            not isinstance(content, bytes) and self._files.get_file_info(place).size != before
                        ):
                            self._files.delete_file(part)
                    raise
                if part != place:
                    self._files.move(part, place)
                return True

            if self._asked("write", written) is None:
                raise StoreError(f"the object store {self.url} could not write: it has no such place")

    def remove(self, name: str) -> None:
        """Remove an object; that there is none is no fault."""
        self._asked("remove", lambda: self._files.delete_file(self._place(name)))

    def _place(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _asked(self, what: str, ask: Callable[[], Answer], waits: Sequence[float] | None = None) -> Answer | None:
        """What is answered, None where there is no such object; asked again while what goes wrong may pass.

        Raises:
            StoreError: It did not.
        """
        for wait in (*(self.waits if waits is None else waits), None):
            try:
                return ask()
            except FileNotFoundError:
                return None
            except OSError as fault:  # which Arrow's own are, but for those of what was asked wrongly
                if fault.errno in _OURS and what == "read":
                    raise  # the disk that it is copied to
                if wait is None or not any(word in str(fault) for word in _PASSING):
                    raise StoreError(f"the object store {self.url} could not {what}: {_cause(fault)}") from fault
                time.sleep(wait)
        raise AssertionError("the last try returns or raises")


def _opened(url: str) -> tuple[Any, str]:
    """The file system of an address, and the place in it."""
    try:
        files, root = fs.FileSystem.from_uri(url)
    except (pa.ArrowException, ValueError, TypeError) as fault:
        raise ValueError(f"{ADDRESS}, got {without_secrets(url)}: {_cause(fault)}") from None
    return files, root


def _cause(fault: Exception) -> str:
    return without_secrets(str(fault).splitlines()[0] if str(fault) else type(fault).__name__)[:300]
