"""A command line, word by word: a parser whose complaints are one line, and the types that its words can have."""

from __future__ import annotations

import argparse
import difflib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias, TypeVar

from cluster.redaction import without_secrets
from sweeps.names import one_component

LARGEST_SEED = 2**32 - 1
"""The generators of some libraries take no larger one."""

Plain: TypeAlias = str | int | float | bool
"""What a value on the command line can be."""

Said: TypeAlias = Mapping[str, tuple[Plain, ...]]
"""What a command line says of columns: values by `COLUMN` or `ARM.COLUMN`."""

Read = TypeVar("Read")


class OneLineParser(argparse.ArgumentParser):
    """A parser whose complaints are one line. It takes no option for another because it begins like it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**({"allow_abbrev": False} | options))

    def error(self, message: str) -> NoReturn:
        """Leave with status 2."""
        self.exit(2, printable(without_secrets(f"{self.prog}: {message}; --help lists the options")) + "\n")

    def read(self, kind: Callable[[str], Read], word: str) -> Read:
        """A word of the command line as a value; leaves with one line if it is none."""
        try:
            return kind(word)
        except argparse.ArgumentTypeError as error:
            self.error(str(error))

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """What argparse gives; what is unknown is one line."""
        given, rest = self.parse_known_args(args, namespace)
        if rest:
            self.unrecognised(rest)
        return given

    def unrecognised(self, rest: Sequence[str]) -> NoReturn:
        """Leave with status 2 and the first option that there is not, without the values behind it."""
        name = next((word.partition("=")[0] for word in rest if word.startswith("-")), rest[0])
        known = [option for option in self._option_string_actions if option.startswith("--")]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
        self.error(f"unrecognised: {name}" + "".join(f"; the nearest is {option}" for option in near))


def columns_said(parser: OneLineParser, rest: Sequence[str]) -> dict[str, tuple[Plain, ...]]:
    """What is left of a command line as columns and their values; leaves with one line if it is something else.

    Each is spelt `COLUMN=VALUES`, `--COLUMN=VALUES` or `--COLUMN VALUES`; every column has a dot in its name.
    """
    found: dict[str, tuple[Plain, ...]] = {}
    words = list(rest)
    while words:
        word = words.pop(0)
        name = word.removeprefix("--").partition("=")[0]
        if "." not in name or word.startswith("-") != word.startswith("--"):
            parser.unrecognised([word])
        if word.startswith("--") and "=" not in word:
            word = f"{word}={words.pop(0) if words else ''}"
        column, values = parser.read(variation, word.removeprefix("--"))
        if column in found:
            parser.error(f"a column must be said once, got {column} twice")
        found[column] = values
    return found


def printable(text: str) -> str:
    """The text on one line: what would end it, move a cursor or be no character is written as in Python's strings."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode() for letter in text
    )


def name_list(text: str) -> tuple[str, ...]:
    """The names of a list that is separated by commas."""
    found = tuple(word.strip() for word in text.split(",") if word.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"must be names separated by commas, got {text!r}")
    return found


def assignment(text: str) -> tuple[str, Plain]:
    """COLUMN=VALUE of a `--set`, the value as a number or truth where it reads as one."""
    column, equals, value = text.partition("=")
    if not equals or not column or not (value or column.startswith("world.")):  # a world's setting may be empty text
        raise argparse.ArgumentTypeError(f"must be COLUMN=VALUE, such as train.steps=500, got {text!r}")
    return column.strip(), plain_value(value.strip())


def variation(text: str) -> tuple[str, tuple[Plain, ...]]:
    """COLUMN=VALUES, the values separated by commas, each once."""
    column, equals, values = text.partition("=")
    several = tuple(dict.fromkeys(plain_value(value.strip()) for value in values.split(",") if value.strip()))
    if not equals or not column.strip() or not several:
        raise argparse.ArgumentTypeError(f"must be COLUMN=VALUES, such as world.noise=0,0.5, got {text!r}")
    return column.strip(), several


def plain_value(text: str) -> Plain:
    """What a text is on the command line: a number, true, false, inf, or the text itself."""
    if text in ("inf", "infinity"):
        return float("inf")
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):  # no JSON; an integer of thousands of digits; brackets in thousands
        return text
    return value if isinstance(value, bool | int | float) else text


def share(text: str) -> float:
    """The finite number of at least 0 that a text is."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, got {text!r}")
    return value


class whole_number:  # noqa: N801  reads as a word where options are added
    """An option's type: a whole number from `least` to `most`, which is more than anybody means."""

    def __init__(self, least: int, most: int) -> None:
        self._least, self._most = least, most

    def __call__(self, text: str) -> int:
        """The number that a text is."""
        try:
            value = int(text)
        except ValueError:
            value = self._least - 1
        if not self._least <= value <= self._most:
            limit = f" and at most {self._most:,}" if value > self._most else ""
            raise argparse.ArgumentTypeError(
                f"must be a whole number of at least {self._least}{limit}, got {text[:40]!r}"
            )
        return value


def sweep_name(text: str) -> str:
    """A sweep's name, which also names folders and files."""
    try:
        return one_component("a sweep's name", text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
