"""What a record of each kind must look like."""

from __future__ import annotations

from typing import Any

import pytest

from sweeps.record_shapes import arm_of, flaw

SOUND: dict[str, dict[str, Any]] = {
    "member": {
        "sweep": "s", "origin": "design", "method": "bc", "cell_id": "c", "trial_id": "t", "weights_id": "w",
        "seed": 0, "columns": {"task": "bandit", "train.tau": 0.5, "mine": [1]}, "tune_trial_id": None,
    },
    "training": {"status": "stopped", "reason": None, "metrics": {"loss": float("nan"), "step": 3}},
    "evaluation": {"status": "finished", "score": float("-inf"), "score_sd": None, "measures": {"a": 1.5, "b": None}},
    "sweep": {},
    "dropped": {"rule": "none", "at": "2026-01-01T00:00:00Z"},
    "another version's": {"status": 3},
}  # fmt: skip


@pytest.mark.parametrize("kind", SOUND)
def test_what_is_sound_has_no_flaw(kind: str) -> None:
    assert flaw(kind, SOUND[kind]) is None
    assert flaw(kind, SOUND[kind] | {"more": [{}]}) is None


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("member", {"columns": None}, "lacks 'columns'"),
        ("member", {"columns": [1]}, "must have an object as 'columns', got list [1]"),
        ("member", {"columns": {"evaluation.episodes": "x"}}, "a whole number as 'evaluation.episodes', got str 'x'"),
        ("member", {"columns": {"score": 1}}, "must not have a column 'score' of its own"),
        ("member", {"columns": {"tune_seconds": 1}}, "must not have a column 'tune_seconds' of its own"),
        ("member", {"seed": True}, "must have a whole number as 'seed', got bool True"),
        ("member", {"seed": 2**63}, "must have a whole number as 'seed', got int 9223372036854775808"),
        ("member", {"spec": "{"}, "must have a trial as 'spec', got str '{'"),
        ("member", {"trial_id": ["t"]}, "must have a text as 'trial_id', got list ['t']"),
        ("training", {"status": "done"}, "must be finished, failed or stopped, got str 'done'"),
        ("training", {"metrics": {"loss": "high"}}, "must have numbers in 'metrics'"),
        ("training", {"train_seconds": "3"}, "must have a number as 'train_seconds', got str '3'"),
        ("evaluation", {"status": None}, "lacks 'status'"),
        ("evaluation", {"status": ["finished"]}, "must have a text as 'status'"),
        ("evaluation", {"score": None}, "is finished, and has no score"),
        ("evaluation", {"measures": {"turns": "\ud83d"}}, "must have numbers in 'measures'"),
        ("sweep", {"created_at": 5}, "must have a text as 'created_at', got int 5"),
        ("dropped", {"rule": 5}, "must have a text as 'rule', got int 5"),
    ],
)
def test_what_a_reader_would_stop_at_is_a_flaw(kind: str, change: dict[str, Any], said: str) -> None:
    found = flaw(kind, SOUND[kind] | change)
    assert found is not None
    assert said in found


@pytest.mark.parametrize(("arm", "known"), [({"arm": "mine"}, "mine"), ({}, "bc"), ({"arm": None}, "bc")])
def test_a_member_that_names_no_arm_is_its_methods(arm: dict[str, Any], known: str) -> None:
    assert arm_of(SOUND["member"] | arm) == known
