"""The words that can be drawn: from a file of the user's, or the five-letter words of the `wonderwords` package."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ilql.files import FILE, FOLDER, NOTHING, kind_of

FEWEST = 2
MOST = 16_384
"""Words are numbered by 16-bit integers, and the table of all colours takes the square of their number in bytes."""

_WORD = re.compile(r"[A-Za-z]{5}")


def words_of(sources: Mapping[str, str]) -> tuple[tuple[str, ...], list[str]]:
    """The words that the sources name under `words`, else the embedded ones, in alphabetical order; and notes on them.

    Raises:
        ValueError: The file cannot be read or is no list of words.
    """
    if "words" in sources:
        return read_words(Path(sources["words"]))
    words = default_words()
    return words, [f"{len(words)} words, those of five letters in the package wonderwords; --words names others"]


def default_words() -> tuple[str, ...]:
    """The nouns, verbs and adjectives of five letters in `wonderwords` (MIT), without those it holds profane."""
    # Only building needs the package: a world's folder holds its words.
    from wonderwords import RandomWord, filter_profanity  # type: ignore[import-untyped]  # noqa: PLC0415

    return tuple(sorted(set(filter_profanity(RandomWord(enhanced_prefixes=False).filter(regex="[a-z]{5}")))))


def read_words(path: Path) -> tuple[tuple[str, ...], list[str]]:
    """The different words of a file with one word a line, in alphabetical order; and notes on what was passed over.

    Blank lines do not count, nor does white space around a word; capitals are read as small letters.

    Raises:
        ValueError: The file cannot be read, a line is no word of five letters a-z, or there are too few or too many.
    """
    found: dict[str, int] = {}
    duplicates = capitals = 0
    for number, line in enumerate(read_text(path, "words").split("\n"), start=1):
        word = line.strip()
        if not word:
            continue
        if not _WORD.fullmatch(word):
            raise ValueError(
                f"words must have five letters a-z, one word a line, got {word!r} in line {number} of {path}"
            )
        capitals += not word.islower()
        duplicates += word.lower() in found
        found.setdefault(word.lower(), number)
    if not FEWEST <= len(found) <= MOST:
        raise ValueError(f"words must be {FEWEST} to {MOST:,} different ones, got {len(found):,} in {path}")
    notes = [f"{len(found)} words of {path.name}"]
    if duplicates:
        notes.append(f"{duplicates} lines of {path.name} skipped: their words stood there before")
    if capitals:
        notes.append(f"{capitals} words of {path.name} had capitals, which were read as small letters")
    return tuple(sorted(found)), notes


def read_text(path: Path, what: str) -> str:
    """The text of a file of the user's, with or without a byte order mark.

    Args:
        path: The file.
        what: The input's name, for the message.

    Raises:
        ValueError: There is no such file, it cannot be read, or it is not UTF-8.
    """
    kind = kind_of(path)
    if kind == NOTHING:
        raise ValueError(f"{what} must be a file, got {path}, which does not exist")
    if kind != FILE:
        raise ValueError(f"{what} must be a file, got {'the directory' if kind == FOLDER else kind + ','} {path}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{what} must be UTF-8 text, got {path} with byte {error.start} that is not") from None
    except OSError as error:
        raise ValueError(f"{what} must be a file that can be read, got {path}: {error.strerror}") from None
