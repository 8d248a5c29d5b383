"""Others are played once for a sweep, and again where they play otherwise."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from ilql.tasks import task_named
from ilql.tasks.bandit import Bandit
from sweeps.references import references_of

if TYPE_CHECKING:
    from conftest import Bench


def test_others_that_a_store_has_not_seen_yet_are_played_beside_its_rows(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = bench.trial()
    bench.store.put("member", trial.trial_id, bench.member(trial))
    assert references_of(bench.store, "s") == {}
    monkeypatch.setattr(Bandit, "references", lambda task, split, reward, seeds: {"optimal": [1.0] * len(seeds)})
    assert references_of(bench.store, "s") == {}  # as it was played
    second = dataclasses.replace(task_named("bandit"), references=2)
    monkeypatch.setattr("sweeps.references.task_named", lambda name: {"bandit": second}[name])
    assert references_of(bench.store, "s") == {"optimal": [1.0] * 8}
