"""What a training starts from beside its data: the behaviour policy, a critic, utterances drawn before."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cluster.shapes import Need
from ilql import losses
from ilql.candidates import Candidates
from ilql.hyperparameters import Search
from ilql.methods import bc
from sweeps import stages
from sweeps.job import Job
from sweeps.plan import make_plan
from sweeps.schedule import Schedule
from sweeps.space import Between
from sweeps.spec import TrialSpec
from sweeps.work import run_job

if TYPE_CHECKING:
    from conftest import Bench, MakeSweep, MakeTrainings, MakeTrial

BETAS = {"decode.beta": (4.0, 8.0)}
WEIGHTS = {"train.cql_weight": (0.1, 1.0, 10.0)}
TAU = (Between("train.tau", Search(0.5, 0.95)),)

EVERY_ID = {"weights_id", "trajectory_id", "trial_id", "cell_id"}


def changed(before: TrialSpec, after: TrialSpec) -> set[str]:
    return {name for name in EVERY_ID if getattr(before, name) != getattr(after, name)}


def started(schedule: Schedule) -> list[tuple[str, Job]]:
    """Every job that can start now."""
    found = []
    while (job := schedule.next_job()) is not None:
        found.append(job)
    return found


def silently(numbers: object) -> None:
    """Nobody listens."""


# A critic, in the order of jobs


def test_a_critic_that_is_no_cell_is_trained_before_and_has_no_row(
    make_sweep: MakeSweep, make_trainings: MakeTrainings
) -> None:
    sweep = make_sweep(make_trainings("awr", {"train.awr_beta": (4.0, 8.0)}))
    worker = sweep.worker()
    worker.drive(sweep.schedule())
    assert worker.trained == ["bc 12 #0", "ilql 0.70 20 #0", "awr 20 #0", "awr 20 #0"]  # one critic for both strengths
    assert [job.evaluations for job in worker.done[:2]] == [(), ()]
    assert [row["method"] for row in sweep.store.rows("sweep")] == ["awr", "awr"]


def test_a_critic_is_the_cell_of_the_same_settings(make_sweep: MakeSweep, make_trainings: MakeTrainings) -> None:
    design = [*make_trainings("awr"), *make_trainings("ilql", {"train.tau": (0.7, 0.9), **BETAS})]
    sweep = make_sweep(design)
    worker = sweep.worker()
    worker.drive(sweep.schedule())
    assert worker.trained == ["bc 12 #0", "ilql 0.70 20 #0", "ilql 0.90 20 #0", "awr 20 #0"]
    assert {row["status"] for row in sweep.store.rows("sweep")} == {"finished"}


def test_what_learns_from_a_critic_waits_for_it_alone(make_sweep: MakeSweep, make_trainings: MakeTrainings) -> None:
    design = [*make_trainings("ilql", {"train.tau": (0.7, 0.9)}), *make_trainings("awr")]
    sweep = make_sweep(design)
    worker, schedule = sweep.worker(), sweep.schedule()
    ((name, behaviour),) = started(schedule)
    worker.work(behaviour)
    schedule.job_ended(name, None)
    critic, other = started(schedule)
    assert [TrialSpec.from_json(job.training).train.tau for _, job in (critic, other)] == [0.7, 0.9]
    worker.work(critic[1])
    schedule.job_ended(critic[0], None)
    ((awr, _),) = started(schedule)  # while the other expectile is still trained
    assert awr.startswith("awr-")


def test_every_seed_has_a_critic_of_its_own(make_sweep: MakeSweep, make_trainings: MakeTrainings) -> None:
    sweep = make_sweep(make_trainings("awr"))
    worker = sweep.worker()
    worker.drive(sweep.schedule(seeds=2), places=2)
    assert sorted(worker.trained) == ["awr 20 #0", "awr 20 #1", "bc 12 #0", "ilql 0.70 20 #0", "ilql 0.70 20 #1"]


def test_a_critic_that_is_there_is_not_trained_again(make_sweep: MakeSweep, make_trainings: MakeTrainings) -> None:
    sweep = make_sweep(make_trainings("ilql"))
    sweep.worker().drive(sweep.schedule())
    later = dataclasses.replace(sweep, design=make_trainings("awr"))
    worker, schedule = later.worker(), later.schedule(name="later")
    worker.drive(schedule)
    assert worker.trained == ["awr 20 #0"]
    assert schedule.wanted_jobs == 1


@pytest.mark.parametrize("own_cell", [True, False], ids=["a cell", "no cell"])
def test_what_learns_from_a_failed_critic_fails_with_its_reason(
    make_sweep: MakeSweep, make_trainings: MakeTrainings, own_cell: bool
) -> None:
    sweep = make_sweep([*make_trainings("awr"), *(make_trainings("ilql") if own_cell else [])])
    worker = sweep.worker()
    worker.broken = lambda spec: "the training has diverged" if spec.method == "ilql" else None
    worker.drive(sweep.schedule())
    assert worker.trained == ["bc 12 #0", "ilql 0.70 20 #0"]
    reasons = {row["method"]: (row["status"], row["reason"]) for row in sweep.store.rows("sweep")}
    assert reasons.pop("awr") == ("failed", "its critic failed: the training has diverged")
    assert reasons == ({"ilql": ("failed", "the training has diverged")} if own_cell else {})


def test_without_a_behaviour_policy_there_is_no_critic_either(
    make_sweep: MakeSweep, make_trainings: MakeTrainings
) -> None:
    sweep = make_sweep(make_trainings("awr"))
    worker = sweep.worker()
    worker.broken = lambda spec: "diverged" if spec.method == "bc" else None
    worker.drive(sweep.schedule())
    assert worker.trained == ["bc 12 #0"]
    (row,) = sweep.store.rows("sweep")
    assert row["reason"] == "its behaviour policy failed: diverged"


def test_a_behaviour_policy_that_failed_is_not_tried_again_for_every_round(
    make_sweep: MakeSweep, make_trainings: MakeTrainings
) -> None:
    sweep = make_sweep(make_trainings("awr"), awr=TAU)
    worker = sweep.worker()
    worker.broken = lambda spec: "diverged" if spec.method == "bc" else None
    worker.drive(sweep.schedule(refinement=sweep.proposals(4)))
    assert worker.trained == ["bc 12 #0"]
    assert {row["status"] for row in sweep.store.rows("sweep")} == {"failed"}


def test_a_failed_critic_is_tried_again_by_a_rerun(make_sweep: MakeSweep, make_trainings: MakeTrainings) -> None:
    sweep = make_sweep(make_trainings("awr"))
    worker = sweep.worker()
    worker.broken = lambda spec: "diverged" if spec.method == "ilql" else None
    worker.drive(sweep.schedule())
    again = sweep.worker()
    again.drive(sweep.schedule())
    assert again.trained == ["ilql 0.70 20 #0", "awr 20 #0"]
    assert {row["status"] for row in sweep.store.rows("sweep")} == {"finished"}


def test_proposals_bring_their_critics(make_sweep: MakeSweep, make_trainings: MakeTrainings) -> None:
    sweep = make_sweep(make_trainings("awr"), awr=TAU)
    worker = sweep.worker()
    worker.drive(sweep.schedule(refinement=sweep.proposals(2)))
    specs = [TrialSpec.from_json(job.training) for job in worker.done[3:]]
    assert [spec.method for spec in specs] == ["ilql", "ilql", "awr", "awr"]
    assert {spec.train.tau for spec in specs[:2]} == {spec.train.tau for spec in specs[2:]}
    assert {row["method"] for row in sweep.store.rows("sweep")} == {"awr"}


def test_at_the_rung_a_critic_is_as_short_as_its_policy_and_no_checkpoint_is_kept_for_nobody(
    make_sweep: MakeSweep, make_trainings: MakeTrainings
) -> None:
    # A policy learns from the finished critic of its own length: what stands at the rung is no start for the whole.
    sweep = make_sweep(make_trainings("awr"), awr=TAU)
    worker = sweep.worker()
    worker.drive(sweep.schedule(refinement=sweep.proposals(2, rung=0.5)))
    specs = [TrialSpec.from_json(job.training) for job in worker.done[3:]]
    assert [(spec.method, spec.train.steps) for spec in specs] == [
        ("ilql", 10), ("ilql", 10), ("awr", 10), ("awr", 10), ("ilql", 20), ("awr", 20),
    ]  # fmt: skip
    assert [job.keep_trajectory for job in worker.done] == [False] * 9


# Utterances drawn before


def test_one_training_draws_the_candidates_and_the_others_wait(
    make_sweep: MakeSweep, make_trainings: MakeTrainings
) -> None:
    sweep = make_sweep(make_trainings("chai", WEIGHTS))
    worker, schedule = sweep.worker(), sweep.schedule()
    ((behaviour, job),) = started(schedule)
    worker.work(job)
    schedule.job_ended(behaviour, None)
    ((first, job),) = started(schedule)  # of three, one
    worker.work(job)
    schedule.job_ended(first, None)
    assert len(started(schedule)) == 2


def test_those_that_need_other_candidates_do_not_wait(make_sweep: MakeSweep, make_trainings: MakeTrainings) -> None:
    sweep = make_sweep(make_trainings("chai", {"train.proposals": (2, 3)}))
    worker, schedule = sweep.worker(), sweep.schedule()
    ((behaviour, job),) = started(schedule)
    worker.work(job)
    schedule.job_ended(behaviour, None)
    assert len(started(schedule)) == 2


def test_when_drawing_failed_the_next_training_tries_it(make_sweep: MakeSweep, make_trainings: MakeTrainings) -> None:
    sweep = make_sweep(make_trainings("chai", WEIGHTS))
    worker = sweep.worker()
    worker.broken = lambda spec: "no memory" if getattr(spec.train, "cql_weight", None) == 0.1 else None
    worker.drive(sweep.schedule(), places=3)
    statuses = {row["train.cql_weight"]: row["status"] for row in sweep.store.rows("sweep")}
    assert statuses == {0.1: "failed", 1.0: "finished", 10.0: "finished"}


def test_candidates_are_drawn_once_for_three_trainings_and_their_evaluations(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = _count_drawings(monkeypatch)
    for weight in (0.1, 1.0, 10.0):
        trial = bench.trial("chai", train={"cql_weight": weight, "proposals": 2, "proposal_tokens": 4, "steps": 2})
        assert run_job(bench.job(trial, trial), silently) == "finished"
    assert len(drawn) == 1
    assert len(list((bench.store.folder / "stages" / "candidates").glob("*/*/about.json"))) == 1


def test_candidates_are_of_every_dialogue_in_the_data(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = _count_drawings(monkeypatch)
    trial = bench.trial("chai", train={"proposals": 3, "proposal_tokens": 4, "steps": 2})
    run_job(bench.job(trial), silently)
    ((dialogues, candidates),) = drawn
    assert dialogues == 16
    assert candidates.drawn.shape == (16, 3, 16)  # a bandit's dialogue has one utterance; the model is 16 wide


def _count_drawings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, Candidates]]:
    """Of every drawing: how many dialogues it was given, and what came of it."""
    made: list[tuple[int, Candidates]] = []
    draw: Callable[..., Candidates] = stages.draw_candidates

    def counted(model: Any, tokenizer: Any, sequences: list[Any], *rest: Any, **more: Any) -> Candidates:
        made.append((len(sequences), draw(model, tokenizer, sequences, *rest, **more)))
        return made[-1][1]

    monkeypatch.setattr(stages, "draw_candidates", counted)
    return made


# The plan


def test_a_plan_counts_critics_that_are_no_cell(make_sweep: MakeSweep, make_trainings: MakeTrainings) -> None:
    sweep = make_sweep(make_trainings("awr", {"train.awr_beta": (4.0, 8.0)}))
    plan = make_plan(sweep.store, sweep.shared, sweep.design, seeds=1, refinement=None, need=Need())
    # Two policies, their critic, the behaviour policy; two cells on two blocks of scenes.
    assert (plan.trainings, plan.evaluations, plan.cells) == (4, 4, 2)
    # A second seed has two policies and a critic more, and the same behaviour policy.
    assert make_plan(sweep.store, sweep.shared, sweep.design, seeds=2, refinement=None, need=Need()).trainings == 7


def test_a_plan_counts_a_critic_that_is_a_cell_once(make_sweep: MakeSweep, make_trainings: MakeTrainings) -> None:
    design = [*make_trainings("bc"), *make_trainings("ilql", BETAS), *make_trainings("awr")]
    sweep = make_sweep(design)
    assert make_plan(sweep.store, sweep.shared, sweep.design, seeds=1, refinement=None, need=Need()).trainings == 3


def test_a_plan_counts_every_arms_proposals(make_sweep: MakeSweep, make_trainings: MakeTrainings) -> None:
    sweep = make_sweep([*make_trainings("ilql"), *make_trainings("awr")], ilql=TAU, awr=TAU)
    plan = make_plan(sweep.store, sweep.shared, sweep.design, seeds=1, refinement=sweep.proposals(3), need=Need())
    assert plan.proposals == 6


# What the weights depend on


def test_the_critic_is_ilql_under_the_same_key(make_trial: MakeTrial) -> None:
    critic = make_trial("awr", train={"tau": 0.8, "gamma": 0.9}, seed=3).critic
    assert critic is not None
    assert critic.weights_id == make_trial("ilql", train={"tau": 0.8, "gamma": 0.9}, seed=3).weights_id


def test_a_policys_own_settings_leave_the_critic_as_it_is(make_trial: MakeTrial) -> None:
    one, other = make_trial("awr", train={"awr_beta": 4.0}), make_trial("awr", train={"awr_beta": 8.0})
    assert changed(one, other) == EVERY_ID
    assert one.critic is not None
    assert other.critic is not None
    assert one.critic.weights_id == other.critic.weights_id


@pytest.mark.parametrize("change", [{"tau": 0.8}, {"gamma": 0.9}, {"cql_weight": 0.5}, {"start": "pretrained"}])
def test_the_critics_settings_are_part_of_the_policys_key(make_trial: MakeTrial, change: dict[str, Any]) -> None:
    before, after = make_trial("awr"), make_trial("awr", train=change)
    assert changed(before, after) == EVERY_ID
    assert before.critic is not None
    assert after.critic is not None
    assert before.critic.weights_id != after.critic.weights_id


@pytest.mark.parametrize("loss", ["expectile", "td", "conservative"])
def test_a_critics_loss_is_part_of_the_policys_key(
    make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    before = make_trial("awr")
    assert loss not in before.kind.losses  # it is there by the critic alone
    assert changed(before, make_trial("awr")) == set()
    monkeypatch.setitem(losses.VERSIONS, loss, 99)
    assert changed(before, make_trial("awr")) == EVERY_ID


@pytest.mark.parametrize("change", [{"proposals": 3}, {"proposal_tokens": 7}])
def test_what_is_drawn_is_part_of_the_weights_key(make_trial: MakeTrial, change: dict[str, Any]) -> None:
    before, after = make_trial("chai"), make_trial("chai", train=change)
    assert changed(before, after) == EVERY_ID
    assert before.candidates_key != after.candidates_key


@pytest.mark.parametrize("change", [{"cql_weight": 5.0}, {"steps": 21}, {"gamma": 0.5}])
def test_what_is_learnt_from_the_drawn_makes_no_new_drawing(make_trial: MakeTrial, change: dict[str, Any]) -> None:
    assert make_trial("chai").candidates_key == make_trial("chai", train=change).candidates_key


def test_who_draws_is_part_of_the_weights_key(make_trial: MakeTrial) -> None:
    before = make_trial("chai")
    longer = dataclasses.replace(before.backbone.behaviour, steps=13)
    assert isinstance(longer, bc.Train)
    for backbone in ({"behaviour": longer}, {"behaviour_seed": 1}):
        after = make_trial("chai", backbone=backbone)
        assert changed(before, after) == EVERY_ID
        assert before.candidates_key != after.candidates_key


def test_seeds_share_what_was_drawn(make_trial: MakeTrial) -> None:
    assert make_trial("chai", seed=0).candidates_key == make_trial("chai", seed=1).candidates_key


@pytest.mark.parametrize("version", ["ilql.propose.VERSION", "ilql.decode.VERSION"])
def test_how_it_is_drawn_is_part_of_the_weights_key(
    make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    before, other = make_trial("chai"), make_trial("ilql")
    assert changed(before, make_trial("chai")) | changed(other, make_trial("ilql")) == set()
    monkeypatch.setattr(version, 99)
    assert changed(before, make_trial("chai")) == EVERY_ID
    assert "weights_id" not in changed(other, make_trial("ilql"))


def test_a_method_that_needs_nothing_drawn_has_no_key_of_it(make_trial: MakeTrial) -> None:
    assert make_trial("ilql").candidates_key is None
    assert make_trial("ilql").critic is None


def test_what_a_trial_requires_is_in_the_order_it_is_trained(make_trial: MakeTrial) -> None:
    assert [spec.method for spec in make_trial("awr").required] == ["bc", "ilql"]
    assert [spec.method for spec in make_trial("chai").required] == ["bc"]
    assert make_trial("bc").required == ()


def test_a_critic_of_the_training_is_the_one_that_was_trained(bench: Bench) -> None:
    trial = bench.trial("awr")
    assert trial.critic is not None
    assert run_job(bench.job(trial.critic), silently) == "finished"
    assert run_job(bench.job(trial, trial), silently) == "finished"
    weights: Path | None = bench.store.stage("weights", trial.weights_id)
    assert weights is not None
    alone = (weights / "weights.safetensors").stat().st_size
    critic = bench.store.stage("weights", trial.critic.weights_id)
    assert critic is not None
    assert alone < (critic / "weights.safetensors").stat().st_size  # the policy, without the critic beside it
