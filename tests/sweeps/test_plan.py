"""The plan: cells wanted minus cells done, and what the rest will cost."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cluster.shapes import Need
from sweeps.cells import Shared
from sweeps.plan import Plan, make_plan
from sweeps.planning import QuestionPlan, SweepPlan
from sweeps.provenance import method_digests
from sweeps.refinement import Refinement
from sweeps.space import PlannedTraining
from sweeps.spec import TrialSpec
from sweeps.store import Store

if TYPE_CHECKING:
    from conftest import MakeTrainings

BETAS = {"decode.beta": (4.0, 8.0)}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", durable=False)


@pytest.fixture
def design(make_trainings: MakeTrainings) -> list[PlannedTraining]:
    """BC, SARSA and ILQL at two expectiles, two betas each: 1 + 2 + 4 cells, 4 trainings."""
    return [
        *make_trainings("bc"),
        *make_trainings("sarsa", BETAS),
        *make_trainings("ilql", {"train.tau": (0.7, 0.9), **BETAS}),
    ]


def train(store: Store, trial: TrialSpec, *, seconds: float = 2.0, workers: int = 1, gpus: float = 0.0) -> None:
    store.build("weights", trial.weights_id, lambda folder: None, {})
    record: dict[str, Any] = {"status": "finished", "steps": trial.train.steps, "train_seconds": seconds}
    record |= {"workers": workers, "gpus": gpus}
    store.put("training", trial.weights_id, record | {"backbone": trial.backbone_key})


def play(store: Store, trial: TrialSpec, *, status: str = "finished", seconds: float = 4.0, gpus: float = 0.0) -> None:
    record: dict[str, Any] = {
        "status": status,
        "score": 0.0,
        "episodes": trial.evaluation.episodes,
        "evaluate_seconds": seconds,
        "workers": 1,
        "gpus": gpus,
    }
    store.put("evaluation", trial.trial_id, record | {"backbone": trial.backbone_key})


def test_an_empty_store_has_everything_to_be_done(store: Store, shared: Shared, design: list[PlannedTraining]) -> None:
    plan = make_plan(store, shared, design, seeds=1, refinement=None, need=Need())
    # The behaviour policy is the BC cell: no fifth training. Every cell is played on the tune and the report scenes.
    assert plan == Plan(
        trainings=4, trained=0, dropped=0, evaluations=14, evaluated=0, cells=7, proposals=0, seconds=None
    )  # fmt: skip


def test_seeds_multiply_trainings_and_evaluations_and_not_cells(
    store: Store, shared: Shared, design: list[PlannedTraining]
) -> None:
    plan = make_plan(store, shared, design, seeds=3, refinement=None, need=Need())
    assert (plan.trainings, plan.evaluations, plan.cells) == (12, 42, 7)


def test_a_behaviour_policy_that_is_no_cell_is_a_training(
    store: Store, shared: Shared, make_trainings: MakeTrainings
) -> None:
    plan = make_plan(store, shared, make_trainings("ilql", BETAS), seeds=2, refinement=None, need=Need())
    assert (plan.trainings, plan.evaluations, plan.cells) == (3, 8, 2)


def test_sarsa_and_ilql_at_one_half_are_one_training(
    store: Store, shared: Shared, make_trainings: MakeTrainings
) -> None:
    both = [*make_trainings("sarsa", BETAS), *make_trainings("ilql", {"train.tau": (0.5,), **BETAS})]
    assert (
        make_plan(store, shared, both, seeds=1, refinement=None, need=Need()).trainings == 2
    )  # and the behaviour policy


def test_what_is_in_the_store_is_not_to_be_done(store: Store, shared: Shared, design: list[PlannedTraining]) -> None:
    (tune,), (report,) = shared.on_both(design[0], 0)
    train(store, tune)
    play(store, tune)
    play(store, report, status="failed")  # is tried again
    plan = make_plan(store, shared, design, seeds=1, refinement=None, need=Need())
    assert (plan.trained, plan.evaluated) == (1, 1)
    assert "1 and 1 are in the store, 3 and 13 are to be done" in plan.lines(concurrent=1)[0]


def test_what_had_failed_and_is_tried_again_is_said_with_its_reasons(
    store: Store, shared: Shared, design: list[PlannedTraining]
) -> None:
    cloned, *learnt = (shared.trials(training, 0, shared.report) for training in design)
    train(store, cloned[0])
    for number, trials in enumerate(learnt[:2]):  # its cells have no records of their own
        store.put("training", trials[0].weights_id, {"status": "failed", "reason": f"diverged at step {number}\nso"})
    store.put("evaluation", cloned[0].trial_id, {"status": "failed", "reason": "diverged at step 1"})
    store.put("training", learnt[2][0].weights_id, {"status": "stopped", "reason": "by a signal"})
    plan = make_plan(store, shared, design, seeds=1, refinement=None, need=Need())
    assert plan.failed == {"diverged at step 1": 2, "diverged at step 0": 1}
    assert plan.lines(concurrent=1)[1] == (
        "3 of these had failed and are tried again: diverged at step 1 (2 times); diverged at step 0"
    )


def test_of_many_reasons_the_most_frequent_are_named(
    store: Store, shared: Shared, design: list[PlannedTraining]
) -> None:
    plan = make_plan(store, shared, design, seeds=1, refinement=None, need=Need())
    assert not any("had failed" in line for line in plan.lines(concurrent=1))
    many = dataclasses.replace(plan, failed={"a": 4, "b": 3, "c": 2, "d": 1, "e": 1})
    assert many.lines(concurrent=1)[1] == (
        "11 of these had failed and are tried again: a (4 times); b (3 times); c (2 times); and 2 other reasons"
    )


def test_the_estimate_is_by_the_step_and_by_the_episode(
    store: Store, shared: Shared, design: list[PlannedTraining]
) -> None:
    (tune,) = shared.trials(design[0], 0, shared.tune)
    train(store, tune, seconds=6.0)  # 12 steps: half a second each
    play(store, tune, seconds=16.0)  # 8 episodes: two seconds each
    plan = make_plan(store, shared, design, seeds=1, refinement=None, need=Need())
    # Left are three value trainings of 20 steps and 13 evaluations of 8 episodes.
    assert plan.seconds == pytest.approx(3 * 20 * 0.5 + 13 * 8 * 2.0)
    assert plan.lines(concurrent=2)[-1] == "the design takes about 2.0 minutes with 2 at a time"  # 238 s / 2 = 119 s


def test_without_anything_comparable_there_is_no_estimate(
    store: Store, shared: Shared, design: list[PlannedTraining]
) -> None:
    (tune,) = shared.trials(design[0], 0, shared.tune)
    train(store, tune)
    plan = make_plan(store, shared, design, seeds=1, refinement=None, need=Need())
    assert plan.seconds is None
    assert plan.lines(concurrent=1)[-1].startswith("no estimate: of this very model")


def test_what_another_model_cost_is_no_estimate(store: Store, shared: Shared, design: list[PlannedTraining]) -> None:
    other = dataclasses.replace(shared, backbone=dataclasses.replace(shared.backbone, seed=1))
    (tune,) = other.trials(design[0], 0, other.tune)
    train(store, tune)
    play(store, tune)
    assert make_plan(store, other, design, seeds=1, refinement=None, need=Need()).seconds is not None
    assert make_plan(store, shared, design, seeds=1, refinement=None, need=Need()).seconds is None


def test_what_a_cpu_took_is_no_estimate_for_a_gpu(store: Store, shared: Shared, design: list[PlannedTraining]) -> None:
    tune, other = (shared.trials(design[0], seed, shared.tune)[0] for seed in (0, 1))
    train(store, tune, seconds=600.0)
    play(store, tune, seconds=800.0)
    gpu = Need(gpus=1.0)
    assert make_plan(store, shared, design, seeds=1, refinement=None, need=gpu).seconds is None
    train(store, other, seconds=1.2, gpus=1.0)  # 12 steps: a tenth of a second each
    play(store, other, seconds=1.6, gpus=1.0)  # 8 episodes: two tenths each
    plan = make_plan(store, shared, design, seeds=1, refinement=None, need=gpu)
    assert plan.seconds == pytest.approx(3 * 20 * 0.1 + 13 * 8 * 0.2)


def test_workers_share_a_training_and_not_an_evaluation(
    store: Store, shared: Shared, design: list[PlannedTraining]
) -> None:
    (tune,) = shared.trials(design[0], 0, shared.tune)
    train(store, tune, seconds=6.0, workers=2)  # 12 steps: half a second of two CPUs each
    play(store, tune, seconds=16.0)
    plan = make_plan(store, shared, design, seeds=1, refinement=None, need=Need(workers=4))
    assert plan.seconds == pytest.approx(3 * 20 * 0.25 + 13 * 8 * 2.0)


def test_a_plan_that_is_done_costs_nothing(store: Store, shared: Shared, make_trainings: MakeTrainings) -> None:
    design = make_trainings("bc")
    for trials in shared.on_both(design[0], 0):
        for trial in trials:
            train(store, trial)
            play(store, trial)
    plan = make_plan(store, shared, design, seeds=1, refinement=None, need=Need())
    assert plan.seconds == 0
    assert plan.lines(concurrent=1)[-1] == "the design costs nothing more"


def test_proposals_are_announced(store: Store, shared: Shared, design: list[PlannedTraining]) -> None:
    refinement = Refinement(bases=(design[-1],), proposals=5)
    plan = make_plan(store, shared, design, seeds=1, refinement=refinement, need=Need())
    assert plan.proposals == 5
    assert "then 5 proposals, each a training and what it starts from" in plan.lines(concurrent=1)


OWN = "ilql/methods/ilql.py"


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ({OWN: "0123456789ab"}, True),
        ({OWN: method_digests("ilql")[OWN]}, False),
        ({"ilql/methods/gone.py": "0123456789ab"}, False),
        (None, False),  # of a training that was recorded before there were digests
    ],
)
def test_trainings_by_another_text_of_their_method_are_said(
    store: Store, shared: Shared, design: list[PlannedTraining], sources: dict[str, str] | None, said: bool
) -> None:
    for planned in design:
        trial = shared.on_both(planned, 0)[0][0]
        train(store, trial)
        record = dict(store.get("training", trial.weights_id) or {})
        store.put("training", trial.weights_id, record if sources is None else record | {"sources": sources})
    lines = make_plan(store, shared, design, seeds=1, refinement=None, need=Need()).lines(concurrent=1)
    # SARSA's weights are ILQL's at one half, so three of the four are made by ILQL's file, and BC's by none of these.
    expected = (
        f"ilql: 3 stored trainings were made by another text of {OWN} with the same version 2; "
        "raise it if they would learn otherwise"
    )
    assert [line for line in lines if "another text" in line] == ([expected] if said else [])


def test_a_training_that_is_made_anew_is_by_the_text_of_now(
    store: Store, shared: Shared, design: list[PlannedTraining]
) -> None:
    trial = shared.on_both(design[-1], 0)[0][0]
    store.put("training", trial.weights_id, {"status": "failed", "reason": "it fell", "sources": {OWN: "0" * 12}})
    assert make_plan(store, shared, design, seeds=1, refinement=None, need=Need()).other_text == ()


def test_planning_writes_nothing(store: Store, shared: Shared, design: list[PlannedTraining]) -> None:
    before = sorted(store.folder.rglob("*"))
    make_plan(store, shared, design, seeds=2, refinement=None, need=Need())
    assert sorted(store.folder.rglob("*")) == before


def test_a_questions_plan_says_the_same_in_words_and_to_programs() -> None:
    work = Plan(trainings=5, trained=1, dropped=0, evaluations=22, evaluated=4, cells=11, proposals=2, seconds=120.0,
                other_text=("b line",))  # fmt: skip
    sweep = SweepPlan(sweep="s", asked=0.5, seeds=3, concurrent=2, work=work, forecast=None, power=("a line",))
    plan = QuestionPlan(store="/store", preset="smoke", notes=("a note",), cluster=None, sweeps=(sweep,))
    assert plan.lines() == [
        "sweep s",
        "11 cells need 5 trainings and 22 evaluations; 1 and 4 are in the store, 4 and 18 are to be done",
        "b line",
        "then 2 proposals, each a training and what it starts from",
        "the design takes about 1.0 minutes with 2 at a time",
        "a line",
    ]
    assert plan.document() == {
        "store": "/store", "preset": "smoke", "notes": ["a note"],
        "sweeps": [
            {"sweep": "s", "for": 0.5, "seeds": 3, "concurrent": 2, "trainings": 5, "trained": 1, "dropped": 0,
             "evaluations": 22, "evaluated": 4, "cells": 11, "proposals": 2, "seconds": 120.0, "failed": {},
             "other_text": ["b line"], "power": ["a line"]},
        ],
    }  # fmt: skip
