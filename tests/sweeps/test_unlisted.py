"""What a sweep took beyond its rows is found from its trials, each training and each play once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analysis.runs import Unlisted
from sweeps.shares import shares
from sweeps.spec import TrialSpec
from sweeps.store import Store
from sweeps.unlisted import unlisted

TUNE, REPORT = {"split": "tune"}, {"split": "report"}
RUNG = 5
"""Steps of the trainings to a rung; whole ones have 20."""


class Sweep:
    """The records of a sweep, made up: every training takes as many seconds as it has steps, every play 1 s."""

    def __init__(self, store: Store, make_trial: Callable[..., TrialSpec]) -> None:
        self.store, self._make = store, make_trial

    def trial(self, gamma: float, split: dict[str, str], steps: int = 20) -> TrialSpec:
        return self._make(train={"gamma": gamma, "steps": steps}, evaluation=split)

    def train(self, spec: TrialSpec) -> None:
        steps = spec.train.steps
        record = {"status": "finished", "steps": steps, "train_seconds": float(steps), "method": spec.method}
        self.store.put("training", spec.weights_id, record)

    def play(self, spec: TrialSpec) -> None:
        self.store.put("evaluation", spec.trial_id, {"status": "finished", "score": 0.0, "evaluate_seconds": 1.0})

    def place(self, gamma: float, origin: str = "design", **more: Any) -> None:
        tune, report = self.trial(gamma, TUNE), self.trial(gamma, REPORT)
        member = {
            "sweep": "s", "origin": origin, "method": "ilql", "cell_id": report.cell_id, "trial_id": report.trial_id,
            "weights_id": report.weights_id, "seed": 0, "columns": report.columns(), "tune_trial_id": tune.trial_id,
            "spec": report.to_json(), **more,
        }  # fmt: skip
        self.store.put("member", f"s/{report.trial_id}", member)

    def finish(self, gamma: float, origin: str = "design") -> None:
        """A cell with its training and both plays; its stage on the tune scenes says what those are."""
        tune, report = self.trial(gamma, TUNE), self.trial(gamma, REPORT)
        self.place(gamma, origin)
        self.train(report)
        self.play(tune)
        self.play(report)
        self.store.build("evaluation", tune.trial_id, lambda folder: None, {"spec": json.loads(tune.to_json())})

    def to_rung(self, gamma: float) -> None:
        short = self.trial(gamma, TUNE, RUNG)
        self.train(short)
        self.play(short)


@pytest.fixture
def sweep(tmp_path: Path, make_trial: Callable[..., TrialSpec]) -> Sweep:
    return Sweep(Store(tmp_path / "store", durable=False), make_trial)


def test_play_on_the_tune_scenes_stands_beside_a_row(sweep: Sweep) -> None:
    sweep.finish(0.9)
    assert sweep.store.runs("s").select("train_seconds", "evaluate_seconds", "tune_seconds").rows() == [
        (20.0, 1.0, 1.0)
    ]
    assert unlisted(sweep.store, "s") == ()


def test_a_behaviour_policy_that_is_no_cell_is_found(sweep: Sweep) -> None:
    sweep.finish(0.9)
    sweep.train(sweep.trial(0.9, REPORT).behaviour)  # 12 steps
    assert unlisted(sweep.store, "s") == (Unlisted("bc", 12.0, 0.0),)


def test_a_rung_is_paid_once(sweep: Sweep) -> None:
    # Both proposals play a second at the rung. The survivor's 20 s have the rung's 5 s in them; the other's 5 s stand
    # in its own row, which was stopped.
    sweep.finish(0.9)
    sweep.to_rung(0.8)
    sweep.finish(0.8, "refinement")
    sweep.to_rung(0.7)
    sweep.place(0.7, "refinement", status="stopped", reason="at the rung", train_seconds=5.0)
    assert unlisted(sweep.store, "s") == (Unlisted("ilql", 0.0, 2.0),)
    table_of = sweep.store.runs("s").sort("train_seconds")
    assert table_of["train_seconds"].to_list() == [5.0, 20.0, 20.0]


def test_a_cell_without_its_row_has_been_trained_and_tuned(sweep: Sweep) -> None:
    sweep.finish(0.9)
    sweep.place(0.8)
    sweep.train(sweep.trial(0.8, REPORT))
    sweep.play(sweep.trial(0.8, TUNE))
    assert unlisted(sweep.store, "s") == (Unlisted("ilql", 20.0, 1.0),)


def test_what_rows_stand_on_is_saved_for_all_but_one(sweep: Sweep) -> None:
    # Three trainings of 20 s on one behaviour policy of 12 s, which each row by itself would have trained, too.
    for gamma in (0.9, 0.8, 0.7):
        sweep.finish(gamma)
    sweep.train(sweep.trial(0.9, REPORT).behaviour)
    store = sweep.store
    assert unlisted(store, "s") == (Unlisted("bc", 12.0, 0.0), Unlisted("ilql", 0.0, 0.0, shared_seconds=24.0))
    finished = {row["trial_id"] for row in store.rows("s")}
    by_hand = shares(store.members("s"), finished, store.all("training"))
    assert by_hand.alone_seconds - by_hand.seconds == 24.0


def test_a_store_that_keeps_no_trials_has_nothing_beyond_its_rows(sweep: Sweep) -> None:
    sweep.finish(0.9)
    (member,) = sweep.store.members("s")
    sweep.store.put("member", f"s/{member['trial_id']}", {name: member[name] for name in member if name != "spec"})
    sweep.train(sweep.trial(0.9, REPORT).behaviour)
    assert unlisted(sweep.store, "s") == ()
