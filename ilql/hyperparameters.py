"""Hyperparameters as fields of frozen dataclasses: each with its range, its meaning and one check when it is made.

A method has two such dataclasses. What stands in `Train` shapes the weights; what stands in `Decode` only shapes the
acting with weights that are there. Nothing stands in both.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

Value = bool | int | float | str | None
"""What a hyperparameter can be: it survives JSON."""


LARGEST_INTEGER = 10**18
"""No setting is so large: what reads it counts in 64 bits."""


@dataclass(frozen=True)
class Range:
    """The numbers a field may hold: an interval, or a list of words.

    Attributes:
        low: Lower end.
        high: Upper end.
        open_low: True if `low` itself is excluded.
        open_high: True if `high` itself is excluded.
        choices: The words allowed, for a field of text.
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    choices: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The range in words, as it follows 'must be'."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.high == math.inf:
            return f"{'above' if self.open_low else 'at least'} {_plain(self.low)}"
        left, right = "(" if self.open_low else "[", ")" if self.open_high else "]"
        return f"in {left}{_plain(self.low)}, {_plain(self.high)}{right}"

    def holds(self, value: float | str) -> bool:
        """True if the value is inside."""
        if isinstance(value, str):
            return value in self.choices
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below


@dataclass(frozen=True)
class Search:
    """Where a search looks for good values of a field: from `low` to `high`, on a logarithmic scale if `log`."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"a search must go from a low to a higher end, got {self.low} and {self.high}")


def hyper(default: Value, allowed: Range | None = None, *, meaning: str, search: Search | None = None) -> Any:
    """A dataclass field with a default, a range, a sentence saying what it is, and where a search looks, if it does."""
    return field(default=default, metadata={"range": allowed, "meaning": meaning, "search": search})


POSITIVE = Range(0.0, open_low=True, open_high=True)
NOT_NEGATIVE = Range(0.0, open_high=True)
NOT_NEGATIVE_OR_INFINITE = Range(0.0)
AT_LEAST_ONE = Range(1.0)
SHARE = Range(0.0, 1.0, open_low=True)
UNIT = Range(0.0, 1.0)


def check(settings: object) -> None:
    """Every field of a dataclass instance has its annotated type and lies in its range; call it in `__post_init__`.

    An int is taken for a float and stored as one, so that `8` and `8.0` are the same setting.

    Raises:
        TypeError: A field has another type.
        ValueError: A field is out of range, not a number, or infinite where its range does not hold infinity.
    """
    kind: Any = type(settings)
    kinds_of = _kinds(kind)
    for item in dataclasses.fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, item.name)
        kinds = kinds_of[item.name]
        if isinstance(value, int) and abs(value) >= LARGEST_INTEGER:
            raise ValueError(f"{item.name} must be a number of at most 18 digits, got one of {len(str(abs(value)))}")
        if isinstance(value, int) and not isinstance(value, bool) and float in kinds and int not in kinds:
            value = float(value)
            object.__setattr__(settings, item.name, value)
        if dataclasses.is_dataclass(value):
            continue
        if not _is_of(value, kinds):
            wanted = " or ".join("nothing" if k is types.NoneType else k.__name__ for k in kinds)
            raise TypeError(f"{item.name} must be {wanted}, got {value!r}")
        allowed: Range | None = item.metadata.get("range")
        if isinstance(value, float) and not math.isfinite(value) and not (allowed is not None and allowed.holds(value)):
            raise ValueError(f"{item.name} must be a finite number, got {value}")
        if allowed is not None and value is not None and not allowed.holds(value):
            raise ValueError(f"{item.name} must be {allowed}, got {value}")


def values_of(settings: object) -> dict[str, Any]:
    """The fields of a dataclass instance by name, those that are dataclasses themselves as such values, too.

    As `dataclasses.asdict`, which copies each number and takes six times as long: keys are made of these.
    """
    kind: Any = type(settings)
    values = ((name, getattr(settings, name)) for name in _names(kind))
    return {name: values_of(value) if dataclasses.is_dataclass(value) else value for name, value in values}


@functools.cache
def _names(settings: type) -> tuple[str, ...]:
    return tuple(item.name for item in dataclasses.fields(settings))


@functools.cache  # settings are made by the thousand, and reading their annotations takes longer than all else
def _kinds(settings: type) -> Mapping[str, tuple[type, ...]]:
    """The types that each field may have."""
    return {name: typing.get_args(hint) or (hint,) for name, hint in typing.get_type_hints(settings).items()}


def number_type(settings: type, name: str) -> type[int] | type[float] | None:
    """The type of number that a field of a settings dataclass holds; None if it holds no numbers."""
    kinds = _kinds(settings)[name]
    return float if float in kinds else int if int in kinds else None


Settings = TypeVar("Settings")


def make(kind: type[Settings], values: Mapping[str, Any], *, owner: str, prefix: str) -> Settings:
    """An instance of a settings dataclass from named values; a name it does not have dies here.

    Args:
        kind: The dataclass.
        values: Field values by name, without prefix.
        owner: Whose settings these are, for the message: `an 'ilql' trial`.
        prefix: The bag, for the message: `train`.

    Raises:
        KeyError: A name is no field; the message lists those that are, the nearest first.
        TypeError: A value has the wrong type.
        ValueError: A value is out of range.
    """
    known = [item.name for item in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise KeyError(unknown(f"{prefix}.{name}", f"column of {owner}", [f"{prefix}.{k}" for k in known]))
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{prefix}.{error}") from None


def unknown(name: str, what: str, known: Iterable[str]) -> str:
    """One line about a name that does not exist: what it is not, and what there is, the nearest spelling first."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    ordered = near + [other for other in names if other not in near]
    return f"{name!r} is no {what}; known: {', '.join(ordered) or 'none'}"


def _is_of(value: object, kinds: Iterable[Any]) -> bool:
    for kind in kinds:
        if kind in (bool, types.NoneType):
            if isinstance(value, kind):
                return True
        elif isinstance(value, kind) and not isinstance(value, bool):
            return True
    return False


def _plain(number: float) -> str:
    return f"{number:g}"
