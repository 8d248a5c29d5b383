"""Names that become a folder's or a file's, whoever gave them: a command line, a data file, another's store."""

from __future__ import annotations

from pathlib import Path

LONGEST_BYTES = 160
"""Longest name: file systems take 255 bytes, of which endings and the names of several sweeps together need some."""


def one_component(what: str, name: str) -> str:
    """The name, if it is that of one file or folder, and leads nowhere else.

    Args:
        what: What it is the name of, for the error.
        name: As it was given.

    Raises:
        ValueError: It is empty, too long, begins with '.' or holds a separator of paths or a control character.
    """
    if (
        not name
        or name.startswith(".")
        or any(letter in "/\\" or not letter.isprintable() for letter in name)
        or len(name.encode("utf-8", "surrogatepass")) > LONGEST_BYTES
    ):
        shown = name if len(name) <= 80 else f"{name[:77]}..."
        raise ValueError(
            f"{what} must name one file: printable, without / or \\, not beginning with '.', at most {LONGEST_BYTES} "
            f"bytes, got {shown!r}"
        )
    return name


def report_folder(store: Path, name: str) -> Path:
    """Where the report of a sweep lies, or of several under one name.

    Raises:
        ValueError: The name is no folder's, as that of a store somebody made by hand may be.
    """
    return store / "reports" / one_component("a sweep's name", name)


def stands_for_all(path: Path) -> bool:
    """True if a file of a report is to be shown elsewhere: its page holds every interactive figure once."""
    return path.parent.name != "figures" or path.suffix == ".svg"
