"""What lies where a user's path leads, and JSON out of a user's files: whatever is wrong is one line.

And how what is written gets to the disk.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path

FILE, FOLDER, NOTHING = "a file", "a folder", "nothing"


def user_path(name: str | Path) -> Path:
    """The path that a name means, `~` read as a shell reads it; a user's home that is not known stays as it is."""
    path = Path(name)
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def kind_of(path: Path) -> str:
    """What lies there: `FILE`, `FOLDER`, `NOTHING`, or what must not be read as a file is, since it may have no end.

    A path that the system refuses, such as one of 300 letters or with a NUL in it, leads to nothing.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return NOTHING
    if stat.S_ISREG(mode):
        return FILE
    if stat.S_ISDIR(mode):
        return FOLDER
    return "a pipe" if stat.S_ISFIFO(mode) else "a device or a socket"


def sync(path: Path) -> None:
    """Return when the disk has the bytes of a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class NotJSONError(ValueError):
    """A text is no JSON that can be read.

    Attributes:
        line: The line of the text, from 1, or 0 where it is not known.
    """

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


def parse_json(text: str) -> object:
    """The value of a JSON text.

    Raises:
        NotJSONError: It is none, has a key of an object twice, of which one would be lost, a number of thousands of
            digits, or so many brackets that no reader goes on.
    """
    try:
        return json.loads(text, object_pairs_hook=_each_once)
    except json.JSONDecodeError as fault:
        raise NotJSONError(f"{fault.msg} at column {fault.colno}", fault.lineno) from None
    except RecursionError:
        raise NotJSONError("brackets within brackets, too many to be read") from None
    except ValueError as fault:  # a key twice; an integer that Python refuses for its length
        raise NotJSONError(str(fault).partition(";")[0]) from None


def first_line(error: BaseException) -> str:
    """What an error says, as one line: Transformers writes pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):
        return f"{lines[0]} {lines[1]}"[:300]
    return (lines[0] if lines else type(error).__name__)[:300]


def is_writable(text: str) -> bool:
    """True unless it holds half of a surrogate pair: JSON may write one, and no encoding can hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _each_once(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {json.dumps(twice)} twice in one object")
    return value
