"""Faults that any file can have, whatever it should hold: made of the bytes of a sound one."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from faults import Fault, Place

DEEP = "[" * 100_000 + "]" * 100_000
"""Brackets that exhaust the stack of whoever reads them one inside the other."""

DIGITS = "9" * 5000
"""A number that Python refuses to read for its length."""

Read: TypeAlias = Callable[[str], Sequence[str]]
"""Gives the arguments that read the file of a path."""


def path_faults(read: Read, name: str) -> tuple[Fault, ...]:
    """Faults of what a path leads to.

    Args:
        read: See `Read`.
        name: A name as such a file has it.
    """

    def directory(at: Place) -> Sequence[str]:
        (at.folder / name).mkdir()
        return read(str(at.folder / name))

    def broken_link(at: Place) -> Sequence[str]:
        (at.folder / name).symlink_to(at.folder / "gone")
        return read(str(at.folder / name))

    def endless(at: Place) -> Sequence[str]:
        (at.folder / name).symlink_to("/dev/zero")
        return read(str(at.folder / name))

    def pipe(at: Place) -> Sequence[str]:
        os.mkfifo(at.folder / name)
        return read(str(at.folder / name))

    def through_file(at: Place) -> Sequence[str]:
        return read(str(Path(at.write("plain", "text")) / name))

    return (
        Fault("missing file", "a misspelt path", lambda at: read(str(at.folder / name)), (name,)),
        Fault("directory for a file", "the folder was named instead of what is in it", directory, (name,)),
        Fault("broken link", "what it led to was moved", broken_link, (name,)),
        Fault("endless device", "a link to /dev/zero: reading it never ends", endless, (name,)),
        Fault("pipe", "nobody writes into it: reading it waits for ever", pipe, (name,)),
        Fault("path through a file", "a file stands where a folder should", through_file, (name,)),
        Fault(
            "bytes that are no text in the path",
            "another encoding on that disk",
            lambda at: read(str(at.folder / f"\udcff{name}")),
            (f"\\udcff{name}",),
        ),
        Fault("name too long", "a text was given for a path", lambda at: read("x" * 300 + name), (name,)),
    )


def text_faults(read: Read, name: str, sound: bytes) -> tuple[Fault, ...]:
    """Faults of a text's bytes, whatever the text says.

    Args:
        read: See `Read`.
        name: The file's.
        sound: Bytes with nothing wrong.
    """

    def of(content: bytes) -> Callable[[Place], Sequence[str]]:
        return lambda at: read(at.write(name, content))

    return (
        Fault("empty file", "a download that never began", of(b""), (name,)),
        Fault("white space alone", "an editor saved an empty file", of(b"\n  \n\n"), (name,)),
        Fault("UTF-16", "saved as Unicode on Windows", of(sound.decode().encode("utf-16")), (name,)),
        Fault("zero bytes", "the machine died before the disk had it", of(bytes(len(sound))), (name,)),
    )


def packed_faults(read: Read, name: str, sound: bytes) -> tuple[Fault, ...]:
    """Faults of a packed file.

    Args:
        read: See `Read`.
        name: Its name, which ends in `.gz`.
        sound: What should be packed.
    """
    packed = gzip.compress(sound, mtime=0)
    flipped = packed[: len(packed) // 2] + bytes([packed[len(packed) // 2] ^ 0xFF]) + packed[len(packed) // 2 + 1 :]

    def of(content: bytes) -> Callable[[Place], Sequence[str]]:
        return lambda at: read(at.write(name, content))

    return (
        Fault("truncated gzip", "a download that broke off", of(packed[: len(packed) // 2]), (name,)),
        Fault("flipped gzip", "a bit flipped on the way", of(flipped), (name,)),
        Fault("gzip without an end", "its checksum was cut off", of(packed[:-8]), (name,)),
    )
