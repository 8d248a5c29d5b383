"""Every method there is, from its training to what it says, on the smallest world and without a cluster."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from ilql.methods import known_methods
from sweeps.cells import Shared
from sweeps.exact_json import Record
from sweeps.job import Resources
from sweeps.policy import load_policy
from sweeps.schedule import Schedule
from sweeps.space import PlannedTraining
from sweeps.spec import Evaluation, TrialSpec
from sweeps.study import Study
from sweeps.work import run_job

if TYPE_CHECKING:
    from conftest import Bench, CopyBench, MakeTrainings

METHODS = sorted(known_methods())
SMALL: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "chai": {"train.proposals": (2,), "train.proposal_tokens": (4,), "decode.candidates": (2,)},
    "utterance_ilql": {"decode.candidates": (2,)},
    "decision_transformer": {"decode.target_return": (1.0,)},
    "filtered_bc": {"train.keep": (0.75,)},  # half of the dialogues are alike: their order would decide nothing
}
"""What keeps a method small, or fits it to the bandit."""


@dataclass(frozen=True)
class Done:
    """A sweep of one cell of every method, at its end."""

    bench: Bench
    shared: Shared
    design: Mapping[str, PlannedTraining]

    def on_both(self, method: str, *, seed: int = 0) -> tuple[TrialSpec, TrialSpec]:
        """The method's cell on the tune and on the report scenes."""
        (tune,), (report,) = self.shared.on_both(self.design[method], seed)
        return tune, report

    def trial(self, method: str, *, seed: int = 0) -> TrialSpec:
        """The method's cell."""
        return self.on_both(method, seed=seed)[1]


@pytest.fixture(scope="module")
def done(copy_bench: CopyBench, make_trainings: MakeTrainings) -> Done:
    """A sweep of one cell of every method, its jobs done one after the other in this process."""
    bench = copy_bench()
    any_trial = bench.trial()
    judged: dict[str, Any] = {"world": bench.world, "reward": "standard", "episodes": 8}
    shared = Shared(
        data=any_trial.data,
        backbone=any_trial.backbone,
        tune=Evaluation(**judged, split="tune"),
        report=Evaluation(**judged, split="report"),
    )
    design = {method: make_trainings(method, SMALL.get(method))[0] for method in METHODS}
    study = Study(bench.store.folder / "optuna" / "all.log", name="all", seed=0, space={})
    resources = Resources(checkpoint_every=5, log_every=4)
    schedule = Schedule(
        bench.store, "all", shared, list(design.values()), refinement=None, seeds=1, study=study, resources=resources
    )
    while (found := schedule.next_job()) is not None:
        name, job = found
        run_job(job, silently)
        schedule.job_ended(name, None)
    assert schedule.is_over
    return Done(bench, shared, design)


def silently(numbers: Mapping[str, float]) -> None:
    """Nobody listens."""


def train_alone(bench: Bench, *trials: TrialSpec) -> None:
    """Do a job on the trials, after those that it requires."""
    for required in trials[0].required:
        assert run_job(bench.job(required), silently) == "finished"
    assert run_job(bench.job(trials[0], *trials), silently) == "finished"


def result_of(bench: Bench, trial: TrialSpec) -> Record:
    """What was measured, without what it cost."""
    record = bench.store.get("evaluation", trial.trial_id)
    assert record is not None
    return {name: record[name] for name in ("status", "reason", "score", "score_sd", "episodes", "measures")}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_ends_in_a_finished_row(done: Done, method: str) -> None:
    (row,) = [row for row in done.bench.store.rows("all") if row["method"] == method]
    assert (row["arm"], row["status"], row["reason"], row["episodes"]) == (method, "finished", None, 8)
    assert 0.0 <= row["score"] <= 1.0
    assert 0.0 <= row["tune_score"] <= 1.0
    training = done.bench.store.get("training", row["weights_id"])
    assert training is not None
    assert math.isfinite(training["metrics"]["loss"])


@pytest.mark.parametrize("method", METHODS)
def test_every_method_speaks_and_says_the_same_again(done: Done, method: str) -> None:
    said = []
    for _ in range(2):
        policy = load_policy(done.trial(method).trial_id, done.bench.store)
        assert policy.spec == done.trial(method)
        said.append([policy.reply([("pull", False)], seed=seed) for seed in range(4)])
    assert said[0] == said[1]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_ends_in_the_same_bits_in_another_store(done: Done, bench: Bench, method: str) -> None:
    tune, report = done.on_both(method)
    train_alone(bench, report, tune)  # by itself, and its two evaluations the other way round
    assert bench.weights(report) == done.bench.weights(report)
    for trial in (report, tune):
        assert result_of(bench, trial) == result_of(done.bench, trial)
        episodes, before = (b.store.episodes([trial.trial_id]) for b in (bench, done.bench))
        assert episodes.equals(before)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_ends_in_other_bits_with_another_seed(done: Done, bench: Bench, method: str) -> None:
    one, other = done.trial(method), done.trial(method, seed=1)
    train_alone(bench, other)
    assert bench.weights(other) != done.bench.weights(one)
    assert other.cell_id == one.cell_id


class Stopped(BaseException):
    """As from Ctrl-C."""


@pytest.mark.parametrize("method", [method for method in METHODS if method != "bc"])  # whose weights every bench has
def test_every_method_stopped_and_resumed_ends_in_the_same_bits(done: Done, bench: Bench, method: str) -> None:
    trial = done.trial(method)
    for required in trial.required:
        run_job(bench.job(required), silently)

    def stop(numbers: Mapping[str, float]) -> None:
        if numbers.get("step", 0) >= 8:
            raise Stopped

    with pytest.raises(Stopped):
        run_job(bench.job(trial), stop)
    told: list[Mapping[str, float]] = []
    assert run_job(bench.job(trial), told.append) == "finished"
    assert min(numbers["step"] for numbers in told) > 5  # from the checkpoint at the fifth step
    assert bench.weights(trial) == done.bench.weights(trial)


def test_nothing_is_left_over(done: Done) -> None:
    assert done.bench.store.problems() == []
    assert [path for path in (done.bench.store.folder / "scratch").rglob("*") if path.is_file()] == []


def test_what_methods_share_is_made_once(done: Done) -> None:
    trained = {path.parent.name for path in (done.bench.store.folder / "stages" / "weights").glob("*/*/about.json")}
    # AWR's critic is ILQL's cell; the behaviour policy is BC's.
    assert trained == {done.trial(method).weights_id for method in METHODS}
    assert len(trained) == len(METHODS)
