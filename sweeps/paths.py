"""Paths that a user names: where a store is, where something is to be written; refused before anything is done."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ilql.files import FILE, FOLDER, NOTHING, kind_of, user_path
from sweeps.store import store_folder


def named_path(what: str, name: str | Path) -> Path:
    """The path that a name means, absolute, `~` read as a shell reads it.

    Args:
        what: What it is the name of, for the error.
        name: As it was given.

    Raises:
        ValueError: It has a zero byte in it, or lies in the home of a user that there is not: a misspelt one must not
            become a folder of that name.
    """
    path = user_path(name)
    if "\0" in str(path):
        raise ValueError(f"{what} must be a path, which has no zero byte, got {str(name)!r}")
    if str(path).startswith("~"):
        raise ValueError(
            f"{what} must lie in the home of a user that there is, got {name}; a folder here that is called so is "
            "given by its whole path"
        )
    return path.absolute()


def store_at(option: str | None) -> Path:
    """Where the store is, as `sweeps.store.store_folder` has it.

    Raises:
        ValueError: What names it is no path; see `named_path`.
    """
    named_path("the store", option or os.environ.get("SWEEPS_STORE") or "~")
    return store_folder(option)


def is_default_store(folder: Path) -> bool:
    """True if a store that is not named lies there."""
    with suppress(ValueError):
        return folder == store_at(None)
    return False


def store_option(folder: Path) -> list[str]:
    """What a command needs to find the store that lies there: nothing for the default one."""
    return [] if is_default_store(folder) else ["--store", str(folder)]


@contextmanager
def output_folder(what: str, name: str | Path) -> Iterator[Path]:
    """The folder that a name means, made unless it is there, and seen to take files.

    Those that were made for it go again if the block raises and has written nothing into them.

    Args:
        what: What it is the name of, for the error.
        name: As it was given.

    Raises:
        ValueError: It is no path, is something else than a folder, or cannot be made or written.
    """
    folder = named_path(what, name)
    made = [each for each in (folder, *folder.parents) if kind_of(each) == NOTHING]
    if (kind := kind_of(folder)) not in (FOLDER, NOTHING):
        raise ValueError(f"{what} must name a folder, got {'the file' if kind == FILE else kind} {name}")
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as fault:
            raise ValueError(
                f"{what} must name a folder that can be made and written, got {name}: {fault.strerror}"
            ) from None
        yield folder
    except BaseException:
        with suppress(OSError):  # from the innermost on, as far as they are empty
            for each in made:
                each.rmdir()
        raise


def new_file(what: str, name: str | Path) -> Path:
    """The path of a file that is not there, in a folder that takes files.

    Args:
        what: What it is the name of, for the error.
        name: As it was given.

    Raises:
        ValueError: It is no path, there is something, or the folder is not there or cannot be written.
    """
    path = named_path(what, name)
    with suppress(FileNotFoundError, NotADirectoryError):
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError as fault:
            raise ValueError(f"{what} must name a file that can be written, got {name}: {fault.strerror}") from None
        raise ValueError(f"{what} must name a new file, got {name}, which is there")
    if kind_of(path.parent) != FOLDER:
        raise ValueError(f"{what} must name a file in a folder that is there, got {name}")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as fault:
        raise ValueError(f"{what} must name a file that can be written, got {name}: {fault.strerror}") from None
    return path
