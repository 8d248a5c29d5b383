"""JSON that gives back every value it was given: infinities, NaN and the difference between 8 and 8.0 survive."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, TypeAlias

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"
"""What a record may hold. Sequences come back as lists, mappings as dicts."""

Record: TypeAlias = dict[str, Any]
"""A JSON object as it was read back. It is shared with the store that gave it: read it, do not change it."""

_FLOAT = "$float"  # JSON has no inf and no NaN; one of them is written as {"$float": "inf"}


def dumps(value: JSON, *, by_name: bool = False) -> str:
    """One line of ASCII JSON for `value`; `loads` gives it back. NumPy's numbers are taken as Python's.

    Args:
        value: What to write.
        by_name: Fields in the order of their names, else in that of `value`.

    Raises:
        TypeError: Something in it is no JSON value; the message names where.
        ValueError: A key begins with `$`, which marks what plain JSON cannot say.
    """
    encoder = _BY_NAME if by_name else _ENCODER
    with contextlib.suppress(TypeError, ValueError):  # numbers of NumPy's, an infinity: these need another look
        text = encoder.encode(value)
        if _has_plain_keys(value):
            return text
    return encoder.encode(_plain(value, ()))


def dumps_again(record: Record) -> str:
    """As `dumps` by name writes what `loads` gave: it is JSON already, and is looked through for nothing but NaN."""
    try:
        return _BY_NAME.encode(record)
    except ValueError:  # an infinity, or NaN
        return dumps(record, by_name=True)


def loads(text: str | bytes) -> Any:
    """The value that `dumps` was given.

    Raises:
        ValueError: `text` is no JSON of ours.
    """
    return _DECODER.decode(text if isinstance(text, str) else text.decode())


def _has_plain_keys(value: object) -> bool:
    """Whether all keys are texts that mark nothing, of what could be encoded, so does not contain itself."""
    inside = [value]
    for each in inside:  # which grows meanwhile
        if isinstance(each, dict):
            if "$" in "".join(each):  # which takes nothing but texts
                return False
            inside += [part for part in each.values() if type(part) not in _LEAVES]
        elif isinstance(each, list | tuple):
            inside += [part for part in each if type(part) not in _LEAVES]
    return True


def _plain(value: object, where: tuple[str, ...]) -> object:
    kind = type(value)
    if value is None or kind in (str, bool, int) or (kind is float and math.isfinite(value)):  # type: ignore[arg-type]
        return value  # nearly all there is, told without asking what it might be
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"a record's keys must be strings, got {key!r} in {_name(where)}")
            if key.startswith("$"):
                raise ValueError(f"a record's keys must not begin with '$', got {key!r} in {_name(where)}")
        return {key: _plain(item, (*where, key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, (*where, str(i))) for i, item in enumerate(value)]
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        number = float(value)
        return number if math.isfinite(number) else {_FLOAT: repr(number)}
    raise TypeError(f"a record must hold JSON values only, got a {type(value).__name__} in {_name(where)}")


def _name(where: tuple[str, ...]) -> str:
    return repr("/".join(where)) if where else "the record itself"


def _from_object(pairs: dict[str, Any]) -> Any:
    return float(pairs[_FLOAT]) if len(pairs) == 1 and _FLOAT in pairs else pairs


def _refuse_constant(name: str) -> float:
    raise ValueError(f"a bare {name} is no JSON")


_LEAVES = frozenset((str, int, float, bool, type(None)))
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_BY_NAME = json.JSONEncoder(separators=(",", ":"), allow_nan=False, sort_keys=True)
_DECODER = json.JSONDecoder(object_hook=_from_object, parse_constant=_refuse_constant)
