"""What records of each kind and their table look like, so that no reader stops at one: what is otherwise is damaged.

Only what some reader relies on is asked for. A field that is null is as one that is not there; fields that are not
known here may hold anything, and so may kinds that are not.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

Sort = tuple[type, ...]
"""What a field or a column may hold."""

TEXT: Sort = (str,)
WHOLE: Sort = (int,)
NUMBER: Sort = (int, float)
_OBJECT, _LIST = (dict,), (list,)
_LARGEST = 2**63  # no table holds a larger whole number

IDENTITY = ("sweep", "origin", "method", "cell_id", "trial_id", "weights_id", "seed")
"""What a member must have, beside its columns."""

_BLOCK: Mapping[str, Sort] = {
    "task": TEXT, "data.reward": TEXT, "evaluation.reward": TEXT, "evaluation.split": TEXT,
    "evaluation.episodes": WHOLE,
}  # fmt: skip
"""The columns of a table that are taken from a member's columns."""

COLUMNS: Mapping[str, Sort] = {
    "sweep": TEXT, "origin": TEXT, "arm": TEXT, "method": TEXT, "cell_id": TEXT, "trial_id": TEXT, "weights_id": TEXT,
    "seed": WHOLE, "status": TEXT, "reason": TEXT, **_BLOCK, "score": NUMBER, "score_sd": NUMBER, "tune_score": NUMBER,
    "episodes": WHOLE, "train_seconds": NUMBER, "evaluate_seconds": NUMBER, "tune_seconds": NUMBER,
    "code_digest": TEXT, "started_at": TEXT, "finished_at": TEXT,
}  # fmt: skip
"""The columns that a table of rows has whatever else it has, in their order."""

_ELSEWHERE = COLUMNS.keys() - _BLOCK.keys()

_NEEDED = {
    "member": (*IDENTITY, "columns"), "evaluation": ("status",), "training": ("status",), "dropped": ("rule", "at")
}  # fmt: skip

_PROVENANCE = {"status": TEXT, "reason": TEXT, "code_digest": TEXT, "started_at": TEXT, "finished_at": TEXT}

_FIELDS: Mapping[str, Mapping[str, Sort]] = {
    "sweep": {"created_at": TEXT, "task": TEXT, "question": TEXT, "command": TEXT, "methods": _LIST,
              "arms": _LIST, "tune": _OBJECT},
    "member": {"sweep": TEXT, "origin": TEXT, "method": TEXT, "arm": TEXT, "cell_id": TEXT, "trial_id": TEXT,
               "weights_id": TEXT, "seed": WHOLE, "columns": _OBJECT, "tune_trial_id": TEXT, "spec": TEXT,
               "status": TEXT, "reason": TEXT, "finished_at": TEXT, "train_seconds": NUMBER},
    "training": _PROVENANCE | {"metrics": _OBJECT, "train_seconds": NUMBER, "steps": NUMBER, "micro_batch": NUMBER,
                               "workers": NUMBER, "gpus": NUMBER, "backbone": TEXT, "method": TEXT,
                               "sources": _OBJECT},
    "evaluation": _PROVENANCE | {"score": NUMBER, "score_sd": NUMBER, "episodes": WHOLE, "measures": _OBJECT,
                                 "evaluate_seconds": NUMBER, "gpus": NUMBER, "backbone": TEXT},
    "dropped": {"rule": TEXT, "at": TEXT},
    "columns of a member": _BLOCK,
}  # fmt: skip

_STATUSES = frozenset(("finished", "failed", "stopped"))
_NUMBERS_OF = {"training": "metrics", "evaluation": "measures"}
_NUMBERS = frozenset((int, float, type(None)))
_NAMES: Mapping[Sort, str] = {
    TEXT: "a text", WHOLE: "a whole number", NUMBER: "a number", _OBJECT: "an object", _LIST: "a list"
}  # fmt: skip


def arm_of(member: Mapping[str, Any]) -> str:
    """The row of a sweep's table that a member belongs to; its method's, where it names no arm."""
    return str(member.get("arm") or member["method"])


def flaw(kind: str, value: Mapping[str, Any]) -> str | None:
    """What is wrong with a record's value, in words that follow its name; None if nothing is."""
    if kind not in _FIELDS:
        return None
    odd = _odd(kind, value)
    if odd is not None:
        return odd
    further = _FURTHER.get(kind)
    return None if further is None else further(kind, value)


def _odd(kind: str, value: Mapping[str, Any]) -> str | None:
    """What is wrong with the fields by themselves. Every record that is read comes by here: most cost one look-up."""
    name, whole = _compared(kind, tuple(map(type, map(value.get, _FIELDS[kind]))))
    if name is None:
        name = next((each for each in whole if not -_LARGEST <= value[each] < _LARGEST), None)
    if name is None:
        return None
    if value.get(name) is None:
        return f"lacks {name!r}"
    return f"must have {_NAMES[_FIELDS[kind][name]]} as {name!r}, got {_short(value[name])}"


@functools.lru_cache(maxsize=4096)
def _compared(kind: str, sorts: tuple[type, ...]) -> tuple[str | None, tuple[str, ...]]:
    """Of a kind's fields, whose values are of these types, one that may not be, if there is one; the whole numbers."""
    found = dict(zip(_FIELDS[kind], sorts, strict=True))
    for name, sort in found.items():
        if sort not in _FIELDS[kind][name] and (sort is not type(None) or name in _NEEDED.get(kind, ())):
            return name, ()
    return None, tuple(name for name, sort in found.items() if sort is int)


def _result(kind: str, value: Mapping[str, Any]) -> str | None:
    """Of a training or an evaluation."""
    if value["status"] not in _STATUSES:
        return f"must be finished, failed or stopped, got {_short(value['status'])}"
    name = _NUMBERS_OF[kind]
    if not _NUMBERS.issuperset(map(type, (value.get(name) or {}).values())):
        return f"must have numbers in {name!r}, got {_short(value[name])}"
    if kind == "evaluation" and value["status"] == "finished" and value.get("score") is None:
        return "is finished, and has no score"
    return None


def _place(kind: str, value: Mapping[str, Any]) -> str | None:
    """Of a member."""
    columns = value["columns"]
    if not _ELSEWHERE.isdisjoint(columns):
        return f"must not have a column {min(_ELSEWHERE & columns.keys())!r} of its own"
    spec = value.get("spec")
    if spec is not None and not (spec[:1] == "{" and spec[-1:] == "}"):
        return f"must have a trial as 'spec', got {_short(spec)}"
    return _odd("columns of a member", columns)


_FURTHER: Mapping[str, Callable[[str, Mapping[str, Any]], str | None]] = {
    "training": _result,
    "evaluation": _result,
    "member": _place,
}


def _short(held: object) -> str:
    return f"{type(held).__name__} {held!a}"[:60]
