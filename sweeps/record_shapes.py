"""What records of each kind must look like, so that no reader stops at one: what is otherwise counts as damaged.

Only what some reader relies on is asked for. A field that is null is as one that is not there; fields that are not
known here may hold anything, and so may kinds that are not.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

_TEXT, _WHOLE, _NUMBER, _OBJECT, _LIST = (str,), (int,), (int, float), (dict,), (list,)
_LARGEST = 2**63  # no table holds a larger whole number

MEMBER = ("sweep", "origin", "method", "cell_id", "trial_id", "weights_id", "seed", "columns")
"""What a member must have."""

_NEEDED = {"member": MEMBER, "evaluation": ("status",), "training": ("status",), "dropped": ("rule", "at")}

_PROVENANCE = {"status": _TEXT, "reason": _TEXT, "code_digest": _TEXT, "started_at": _TEXT, "finished_at": _TEXT}

_FIELDS: Mapping[str, Mapping[str, tuple[type, ...]]] = {
    "sweep": {"created_at": _TEXT, "task": _TEXT, "question": _TEXT, "command": _TEXT, "methods": _LIST,
              "arms": _LIST, "tune": _OBJECT},
    "member": {"sweep": _TEXT, "origin": _TEXT, "method": _TEXT, "arm": _TEXT, "cell_id": _TEXT, "trial_id": _TEXT,
               "weights_id": _TEXT, "seed": _WHOLE, "columns": _OBJECT, "tune_trial_id": _TEXT, "spec": _TEXT,
               "status": _TEXT, "reason": _TEXT, "finished_at": _TEXT, "train_seconds": _NUMBER},
    "training": _PROVENANCE | {"metrics": _OBJECT, "train_seconds": _NUMBER, "steps": _NUMBER, "micro_batch": _NUMBER,
                               "workers": _NUMBER, "gpus": _NUMBER, "backbone": _TEXT, "method": _TEXT},
    "evaluation": _PROVENANCE | {"score": _NUMBER, "score_sd": _NUMBER, "episodes": _WHOLE, "measures": _OBJECT,
                                 "evaluate_seconds": _NUMBER, "gpus": _NUMBER, "backbone": _TEXT},
    "dropped": {"rule": _TEXT, "at": _TEXT},
    # Of a member, those that a table has whatever else it has.
    "columns of a member": {"task": _TEXT, "data.reward": _TEXT, "evaluation.reward": _TEXT, "evaluation.split": _TEXT,
                "evaluation.episodes": _WHOLE},
}  # fmt: skip

_ELSEWHERE = frozenset(
    (*MEMBER, "arm", "status", "reason", "score", "score_sd", "tune_score", "episodes", "train_seconds",
     "evaluate_seconds", "code_digest", "started_at", "finished_at")
)  # fmt: skip
"""The columns of a table that are not taken from a member's columns."""

_STATUSES = frozenset(("finished", "failed", "stopped"))
_NUMBERS_OF = {"training": "metrics", "evaluation": "measures"}
_NUMBERS = frozenset((int, float, type(None)))
_NAMES: Mapping[tuple[type, ...], str] = {
    _TEXT: "a text", _WHOLE: "a whole number", _NUMBER: "a number", _OBJECT: "an object", _LIST: "a list"
}  # fmt: skip


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
