"""What a GGUF file says of its contents, followed to its end before a library reads it.

The package `gguf` takes lengths at their word: of a list that is said to be longer than its file it makes values
without end. So lengths are added up here first. A file is: `GGUF`, a version, the numbers of tensors and of values; the
values, each a name, a kind and what it holds; the tensors, each a name, dimensions, a type and a place; their numbers.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

MAGIC = b"GGUF"
VERSIONS = (2, 3)
"""Those that the package reads."""

MOST_VALUES = 2**22
"""In a file's lists, together. Vocabularies and their merges are a tenth of it; the package makes an array of each."""

MOST_DIMENSIONS = 4

_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value by its kind, of those that are numbers or truths."""

_TEXT, _LIST = 8, 9


def check_gguf(file: Path) -> None:
    """Refuse a file that is no GGUF file, or whose header leads beyond its end.

    What it holds under its names is not looked at, nor is it read.

    Raises:
        ValueError: It is such a file, or cannot be read.
    """
    try:
        with file.open("rb") as opened:
            if not (size := opened.seek(0, 2)):
                raise _NoGGUFError("nothing")
            with mmap.mmap(opened.fileno(), size, access=mmap.ACCESS_READ) as content:
                _Header(content).check()
    except _NoGGUFError as error:
        raise ValueError(f"a model's file must be a whole GGUF file of version 2 or 3, got {file}: {error}") from None
    except OSError as error:
        raise ValueError(f"a GGUF file must be one that can be read, got {file}: {error.strerror or error}") from None


class _NoGGUFError(Exception):
    """What is wrong with it, in a few words."""


class _Header:
    """A place in a file's bytes, which goes on as they are read and never beyond their end."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._at = 0
        self._values = 0

    def check(self) -> None:
        """Go from the file's begin to its tensors' numbers."""
        if self._content[: len(MAGIC)] != MAGIC:
            raise _NoGGUFError("it does not begin as one")
        self._skip(len(MAGIC))
        if (version := self._number("<I")) not in VERSIONS:
            raise _NoGGUFError(f"version {version}")
        tensors, values = self._number("<Q"), self._number("<Q")
        for _ in range(values):  # each takes bytes of the file, however many there are said to be
            self._skip_text()
            self._skip_value(self._number("<I"))
        for _ in range(tensors):
            self._skip_tensor()

    def _skip(self, count: int) -> None:
        if count > len(self._content) - self._at:
            raise _NoGGUFError("what it says leads beyond its end")
        self._at += count

    def _number(self, form: str) -> int:
        at = self._at
        self._skip(struct.calcsize(form))
        (number,) = struct.unpack_from(form, self._content, at)
        return int(number)

    def _skip_text(self) -> None:
        self._skip(self._number("<Q"))

    def _skip_value(self, kind: int) -> None:
        if kind == _TEXT:
            self._skip_text()
        elif kind == _LIST:
            self._skip_list()
        else:
            self._skip(self._bytes(kind))

    def _skip_list(self) -> None:
        kind, length = self._number("<I"), self._number("<Q")
        self._values += length
        if self._values > MOST_VALUES:
            raise _NoGGUFError(f"lists of more than {MOST_VALUES:,} values")
        if kind != _TEXT:
            self._skip(length * self._bytes(kind))
            return
        for _ in range(length):
            self._skip_text()

    def _bytes(self, kind: int) -> int:
        if kind not in _BYTES:
            raise _NoGGUFError(f"a value of kind {kind}")
        return _BYTES[kind]

    def _skip_tensor(self) -> None:
        self._skip_text()
        if (dimensions := self._number("<I")) > MOST_DIMENSIONS:
            raise _NoGGUFError(f"a tensor of {dimensions} dimensions")
        self._skip(8 * dimensions)
        self._skip(4)  # its type
        self._skip(8)  # where its numbers begin
