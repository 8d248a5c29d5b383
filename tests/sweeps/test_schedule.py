"""What a sweep does next, with a pretended worker: no Ray, no training, only the store."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ilql.hyperparameters import Search
from sweeps import schedule as schedule_module
from sweeps.cells import Shared
from sweeps.job import Job
from sweeps.schedule import TRIES
from sweeps.space import Between
from sweeps.spec import TrialSpec
from sweeps.store import Store

if TYPE_CHECKING:
    from conftest import MakeSweep, MakeTrainings, PretendedSweep, Worker

BETAS = {"decode.beta": (4.0, 8.0)}


@pytest.fixture
def sweep(make_sweep: MakeSweep, make_trainings: MakeTrainings) -> PretendedSweep:
    """BC, SARSA and ILQL at two expectiles, two betas each."""
    design = [
        *make_trainings("sarsa", BETAS),
        *make_trainings("ilql", {"train.tau": (0.7, 0.9), **BETAS}),
        *make_trainings("bc"),
    ]
    return make_sweep(design, ilql=(Between("train.tau", Search(0.5, 0.95)),))


@pytest.fixture
def worker(sweep: PretendedSweep) -> Worker:
    return sweep.worker()


def rows(store: Store, name: str = "sweep") -> dict[str, tuple[str, str | None, float | None]]:
    """Status, reason and score by cell, seed and origin."""
    found = {}
    for row in store.rows(name):
        cell = f"{row['method']} {row.get('train.tau', '')} {row.get('decode.beta', '')} #{row['seed']} {row['origin']}"
        found[cell] = (row["status"], row["reason"], row.get("score"))
    return found


# Order


def test_the_behaviour_policy_comes_first_and_first_seeds_before_replicates(
    sweep: PretendedSweep, worker: Worker
) -> None:
    worker.drive(sweep.schedule(seeds=2))
    assert worker.trained == [
        "bc 12 #0", "sarsa 20 #0", "ilql 0.70 20 #0", "ilql 0.90 20 #0",
        "bc 12 #1", "sarsa 20 #1", "ilql 0.70 20 #1", "ilql 0.90 20 #1",
    ]  # fmt: skip


def test_of_equals_that_comes_first_which_more_of_the_others_start_from(
    make_sweep: MakeSweep, make_trainings: MakeTrainings
) -> None:
    design = [
        *make_trainings("ilql", {"train.tau": (0.6, 0.7, 0.8, 0.9)}),
        *make_trainings("awr", {"train.tau": (0.7,), "train.awr_beta": (1.0,)}),
        *make_trainings("awr", {"train.tau": (0.9,), "train.awr_beta": (1.0, 4.0)}),
    ]
    sweep = make_sweep(design)
    worker = sweep.worker()
    worker.drive(sweep.schedule())
    # Two policies start from the critic at .9, one from that at .7, none from the others, which keep their order.
    assert worker.trained[:5] == ["bc 12 #0", *(f"ilql {tau} 20 #0" for tau in ("0.90", "0.70", "0.60", "0.80"))]
    assert len(worker.trained) == 8  # the behaviour policy, four critics, three policies: no critic was trained twice


def test_with_many_jobs_that_run_each_has_its_turn_to_be_looked_at(
    make_sweep: MakeSweep, make_trainings: MakeTrainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule_module, "LOOKS", 1)
    design = [
        *make_trainings("bc"),
        *make_trainings("ilql", {"train.tau": (0.6, 0.7, 0.8)}),
        *make_trainings("awr", {"train.tau": (0.6,), "train.awr_beta": (1.0, 4.0)}),  # its critic runs first
        *make_trainings("awr", {"train.tau": (0.8,), "train.awr_beta": (1.0,)}),
    ]
    sweep = make_sweep(design)
    schedule, worker = sweep.schedule(), sweep.worker()
    first = schedule.next_job()
    assert first is not None
    worker.work(first[1])
    schedule.job_ended(first[0], None)
    critics = [schedule.next_job() for _ in range(3)]
    assert schedule.next_job() is None  # the policies wait for the critics at .6 and .8
    started = [job for _, job in filter(None, critics)]
    worker.work(next(job for job in started if TrialSpec.from_json(job.training).train.tau == 0.8))
    looks = [schedule.next_job() for _ in range(3)]  # its weights are there, and it has not ended
    assert [_first_of(found[1]) for found in looks if found is not None] == [("awr", 0)]


def test_what_needs_the_behaviour_policy_waits_for_it(sweep: PretendedSweep, worker: Worker) -> None:
    schedule = sweep.schedule(seeds=2)
    first = schedule.next_job()
    second = schedule.next_job()
    assert first is not None
    assert second is not None
    assert [_first_of(job) for _, job in (first, second)] == [("bc", 0), ("bc", 1)]
    assert schedule.next_job() is None
    assert not schedule.is_over
    worker.work(first[1])
    schedule.job_ended(first[0], None)
    third = schedule.next_job()
    assert third is not None
    assert _first_of(third[1]) == ("sarsa", 0)


def _first_of(job: Job) -> tuple[str, int]:
    spec = TrialSpec.from_json(job.training)
    return spec.method, spec.seed


def test_a_behaviour_policy_that_is_no_cell_is_trained_and_has_no_row(
    make_sweep: MakeSweep, make_trainings: MakeTrainings
) -> None:
    sweep = make_sweep(make_trainings("ilql", BETAS))
    worker = sweep.worker()
    worker.drive(sweep.schedule())
    assert worker.trained == ["bc 12 #0", "ilql 0.70 20 #0"]
    assert worker.done[0].evaluations == ()
    assert {row["method"] for row in sweep.store.rows("sweep")} == {"ilql"}


def test_a_job_plays_all_its_betas_on_both_splits(sweep: PretendedSweep, worker: Worker) -> None:
    worker.drive(sweep.schedule())
    played = [TrialSpec.from_json(text) for text in worker.done[1].evaluations]
    assert [(t.evaluation.split, t.decode.beta) for t in played] == [
        ("tune", 4.0), ("tune", 8.0), ("report", 4.0), ("report", 8.0),
    ]  # fmt: skip


def test_rows_are_the_report_scenes_with_the_score_on_the_tune_scenes_beside(
    sweep: PretendedSweep, worker: Worker
) -> None:
    worker.score = lambda trial: 1.0 if trial.evaluation.split == "tune" else 2.0
    worker.drive(sweep.schedule())
    found = sweep.store.rows("sweep")
    assert len(found) == 7  # BC 1, SARSA 2, ILQL 4
    assert {(row["evaluation.split"], row["score"], row["tune_score"]) for row in found} == {("report", 2.0, 1.0)}


def test_the_study_is_told_the_tune_scores_of_the_first_seed(sweep: PretendedSweep, worker: Worker) -> None:
    worker.score = lambda trial: trial.decode.beta if trial.evaluation.split == "tune" and trial.seed == 0 else -9.0
    without_bc = dataclasses.replace(sweep, design=[t for t in sweep.design if t.method != "bc"])
    worker.drive(without_bc.schedule(seeds=2))
    values = [trial.value for trial in sweep.read_study().trials]
    assert values == [8.0, 8.0, 8.0]


# Faults


def test_what_a_failed_behaviour_policy_would_have_carried_fails_with_its_reason(
    sweep: PretendedSweep, worker: Worker
) -> None:
    worker.broken = lambda spec: "the training has diverged" if spec.method == "bc" else None
    schedule = sweep.schedule()
    worker.drive(schedule)
    assert worker.trained == ["bc 12 #0"]
    found = rows(sweep.store)
    assert found.pop("bc   #0 design") == ("failed", "the training has diverged", None)
    assert len(found) == 6
    assert set(found.values()) == {("failed", "its behaviour policy failed: the training has diverged", None)}
    assert schedule.finished_jobs == schedule.wanted_jobs == 4


def test_a_training_that_failed_is_a_row_and_the_rest_goes_on(sweep: PretendedSweep, worker: Worker) -> None:
    worker.broken = lambda spec: "diverged" if getattr(spec.train, "tau", None) == 0.9 else None
    worker.drive(sweep.schedule())
    found = rows(sweep.store)
    assert [cell for cell, row in found.items() if row == ("failed", "diverged", None)] == [
        cell for cell in found if cell.startswith("ilql 0.9")
    ]
    assert sum(row[0] == "finished" for row in found.values()) == 5
    states = [trial.state.name for trial in sweep.read_study().trials]
    assert sorted(states) == ["COMPLETE", "COMPLETE", "COMPLETE", "FAIL"]


def test_what_failed_is_tried_again_by_a_rerun(sweep: PretendedSweep, worker: Worker) -> None:
    worker.broken = lambda spec: "diverged" if spec.method == "bc" else None
    worker.drive(sweep.schedule())
    worker.broken = lambda spec: None
    worker.drive(sweep.schedule())
    assert {row[0] for row in rows(sweep.store).values()} == {"finished"}


def test_every_failure_has_its_time_and_is_told_from_that_of_the_run_before(
    sweep: PretendedSweep, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of the machine, of what it starts from, and at a rung; what a job records of itself has its time anyway.
    times = [f"2026-11-25T{hour:02d}:00:00Z" for hour in (9, 10)]
    seen: list[dict[str, object]] = []
    for at in times:
        monkeypatch.setattr(schedule_module, "utc", lambda at=at: at)
        schedule = sweep.schedule()
        found = schedule.next_job()
        assert found is not None
        schedule.job_ended(found[0], "its process died")
        while schedule.next_job() is not None:
            pytest.fail("nothing can start")
        seen.append({row["trial_id"]: row["finished_at"] for row in sweep.store.rows("sweep")})
    assert [set(each.values()) for each in seen] == [{at} for at in times]
    assert len(seen[0]) > 1


def test_a_proposal_that_fails_at_its_rung_again_has_another_time(sweep: PretendedSweep, worker: Worker) -> None:
    times = iter([f"2026-11-25T{hour:02d}:00:00Z" for hour in range(9, 13)])

    def work(job: Job) -> None:
        spec = TrialSpec.from_json(job.training)
        if spec.train.steps == 10:
            failed = {"status": "failed", "reason": "diverged", "finished_at": next(times)}
            sweep.store.put("training", spec.weights_id, failed)
        else:
            whole(job)

    whole = worker.work
    worker.work = work  # type: ignore[method-assign]
    seen = []
    for _ in range(2):
        worker.drive(sweep.schedule(refinement=sweep.proposals(2, rung=0.5)))
        refined = [row for row in sweep.store.rows("sweep") if row["origin"] == "refinement"]
        assert {(row["status"], row["reason"]) for row in refined} == {("failed", "diverged")}
        seen.append({row["finished_at"][11:13] for row in refined})
    assert seen == [{"09", "10"}, {"11", "12"}]


def test_a_job_whose_machine_failed_is_a_failed_training(sweep: PretendedSweep) -> None:
    schedule = sweep.schedule()
    found = schedule.next_job()
    assert found is not None
    schedule.job_ended(found[0], "its process died 3 times")
    assert rows(sweep.store)["bc   #0 design"] == ("failed", "its process died 3 times", None)


def test_a_machine_that_failed_after_training_is_a_failed_evaluation(sweep: PretendedSweep, worker: Worker) -> None:
    schedule = sweep.schedule()
    found = schedule.next_job()
    assert found is not None
    worker.work(dataclasses.replace(found[1], evaluations=found[1].evaluations[:1]))
    schedule.job_ended(found[0], "its process died 3 times")
    assert rows(sweep.store)["bc   #0 design"] == ("failed", "its process died 3 times", None)
    spec = TrialSpec.from_json(found[1].training)
    training = sweep.store.get("training", spec.weights_id)
    assert training is not None
    assert training["status"] == "finished"


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def test_a_job_that_its_machine_failed_waits_longer_each_time_and_is_begun_before_all_else(
    sweep: PretendedSweep, worker: Worker
) -> None:
    clock = Clock()
    schedule = sweep.schedule(seeds=2, clock=clock)
    found = schedule.next_job()
    replicate = schedule.next_job()
    for wait in (5.0, 20.0, 80.0, 300.0):
        assert found is not None
        assert schedule.job_lost(found[0], "its process died") == wait
        clock.seconds += wait - 0.001
        assert schedule.next_job() is None  # all else waits for it
        assert not schedule.is_over
        clock.seconds += 0.001
        assert schedule.next_job() == found
    assert replicate is not None
    for name, job in (found, replicate):
        worker.work(job)
        schedule.job_ended(name, None)
    worker.drive(schedule)
    assert worker.trained[:3] == ["bc 12 #0", "bc 12 #1", "sarsa 20 #0"]
    assert {status for status, _, _ in rows(sweep.store).values()} == {"finished"}


def test_while_a_job_waits_others_have_its_place(sweep: PretendedSweep, worker: Worker) -> None:
    schedule = sweep.schedule(clock=Clock())
    name, job = schedule.next_job() or pytest.fail("there are jobs")
    worker.work(job)
    schedule.job_ended(name, None)
    sarsa = schedule.next_job() or pytest.fail("there are jobs")
    schedule.job_lost(sarsa[0], "its process died")
    following = schedule.next_job() or pytest.fail("there are others")
    assert following[0].startswith("ilql-")


def test_what_was_lost_too_often_has_failed_and_says_of_what_and_how_often(
    sweep: PretendedSweep, worker: Worker
) -> None:
    clock = Clock()
    schedule = sweep.schedule(clock=clock)
    for number in range(1, TRIES + 1):
        name, _ = schedule.next_job() or pytest.fail("it is begun again")
        wait = schedule.job_lost(name, "machine: OSError: No space left on device")
        assert (wait is None) == (number == TRIES)
        clock.seconds += wait or 0.0
    assert schedule.running_names == []
    worker.drive(schedule)
    found = rows(sweep.store)
    assert found["bc   #0 design"][:2] == ("failed", "machine: OSError: No space left on device; tried 5 times")
    assert {status for status, _, _ in found.values()} == {"failed"}  # nobody can begin without the behaviour policy


def test_no_job_fails_for_the_loss_of_one_node(make_sweep: MakeSweep, make_trainings: MakeTrainings) -> None:
    """Until Ray knows that a node is gone it gives it jobs: five unanswered questions of 10 s, 3 s apart, are 65 s."""
    clock = Clock()
    sweep = make_sweep(make_trainings("bc"))
    schedule, worker = sweep.schedule(seeds=20, clock=clock), sweep.worker()
    known = clock.seconds + 65
    losses = 0
    while not schedule.is_over:
        clock.seconds += 1
        for _ in range(4):  # places of the node, or of what is left
            found = schedule.next_job()
            if found is not None and clock.seconds < known:
                losses += 1
                schedule.job_lost(found[0], "its process died")
            elif found is not None:
                worker.work(found[1])
                schedule.job_ended(found[0], None)
    assert losses >= 2 * 20
    assert {status for status, _, _ in rows(sweep.store).values()} == {"finished"}


def test_of_several_that_one_full_memory_ended_none_has_had_its_try(sweep: PretendedSweep, worker: Worker) -> None:
    schedule = sweep.schedule(seeds=2)
    for _ in range(TRIES + 1):
        lost = [schedule.next_job(), schedule.next_job()]
        assert set(schedule.all_lost("memory").values()) == {0.0}
        assert schedule.running_names == []
    assert [schedule.next_job(), schedule.next_job()] == lost
    assert schedule.next_job() is None  # all else waits for these
    schedule.all_lost("memory")
    worker.drive(schedule)
    assert worker.trained == [
        "bc 12 #0", "bc 12 #1", "sarsa 20 #0", "ilql 0.70 20 #0", "ilql 0.90 20 #0",
        "sarsa 20 #1", "ilql 0.70 20 #1", "ilql 0.90 20 #1",
    ]  # fmt: skip
    assert {status for status, _, _ in rows(sweep.store).values()} == {"finished"}


def test_one_that_fills_the_memory_alone_has_had_its_try(sweep: PretendedSweep) -> None:
    schedule = sweep.schedule()
    name, _ = schedule.next_job() or pytest.fail("there are jobs")
    assert schedule.all_lost("memory") == {name: 5.0}


def test_weights_that_nobody_recorded_are_a_job_still_though_nothing_is_played_with_them(
    make_sweep: MakeSweep, make_trainings: MakeTrainings
) -> None:
    sweep = make_sweep(make_trainings("sarsa"))  # the behaviour policy is no cell
    worker = sweep.worker()
    worker.drive(sweep.schedule())
    behaviour = TrialSpec.from_json(worker.done[0].training)
    assert behaviour.method == "bc"
    sweep.store.remove("training", behaviour.weights_id)  # as if its writer had been killed before that
    again = sweep.worker()
    again.drive(sweep.schedule())
    assert again.trained == ["bc 12 #0"]
    assert (sweep.store.get("training", behaviour.weights_id) or {})["status"] == "finished"


def test_nothing_is_started_on_a_full_disk(sweep: PretendedSweep, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = sweep.schedule()
    assert schedule.next_job() is not None
    monkeypatch.setattr(schedule_module, "LEAST_FREE_BYTES", 2**80)
    assert schedule.next_job() is None
    assert schedule.halted is not None
    assert "MiB free" in schedule.halted
    assert not schedule.is_over


# What is there already


def test_a_rerun_starts_nothing_and_adds_no_record(sweep: PretendedSweep, worker: Worker) -> None:
    worker.drive(sweep.schedule(refinement=sweep.proposals(2, rung=0.5)))
    before, journals = rows(sweep.store), _sizes(sweep.store)
    again = sweep.schedule(refinement=sweep.proposals(2, rung=0.5))
    idle = sweep.worker()
    idle.drive(again)
    assert idle.done == []
    assert again.finished_jobs == 0
    assert again.cached_jobs == again.wanted_jobs == 4 + 2 + 1  # the design, both to the rung, one of them to the end
    assert rows(sweep.store) == before
    assert _sizes(sweep.store) == journals


def test_what_a_job_left_that_was_killed_behind_its_last_record_is_dropped_by_a_rerun(
    sweep: PretendedSweep, worker: Worker
) -> None:
    worker.drive(sweep.schedule())
    left, in_use = (TrialSpec.from_json(job.training).trajectory_id for job in worker.done[1:3])
    for trajectory in (left, in_use):
        (sweep.store.scratch("trajectory", trajectory) / "step-4").mkdir()
        (sweep.store.scratch("group", trajectory) / "weights").mkdir()
    with sweep.store.lease(in_use):  # another driver trains further from there
        sweep.worker().drive(sweep.schedule())
    for kind in ("trajectory", "group"):
        assert not sweep.store.scratch_path(kind, left).exists()
        assert sweep.store.scratch_path(kind, in_use).exists()


def test_at_a_rung_a_group_leaves_its_checkpoints_and_none_of_its_notes(sweep: PretendedSweep, worker: Worker) -> None:
    schedule = sweep.schedule(refinement=sweep.proposals(2, rung=0.5))
    while (found := schedule.next_job()) is not None and not found[1].keep_trajectory:
        worker.work(found[1])
        schedule.job_ended(found[0], None)
    assert found is not None
    worker.work(found[1])  # and its driver is killed behind its last record
    trajectory = TrialSpec.from_json(found[1].training).trajectory_id
    folders = {kind: sweep.store.scratch(kind, trajectory) for kind in ("trajectory", "group")}
    schedule = sweep.schedule(refinement=sweep.proposals(2, rung=0.5))
    assert (again := schedule.next_job()) is not None  # the other one that goes to the rung
    assert again[1].training != found[1].training
    assert {kind: folder.is_dir() for kind, folder in folders.items()} == {"trajectory": True, "group": False}


def _sizes(store: Store) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in (store.folder / "journals").iterdir()}


def test_a_job_with_one_missing_evaluation_is_done_again(sweep: PretendedSweep, worker: Worker) -> None:
    worker.drive(sweep.schedule())
    (trial,) = sweep.shared.trials(sweep.design[-1], 0, sweep.shared.report)
    sweep.store.remove("evaluation", trial.trial_id)
    again = sweep.worker()
    again.drive(sweep.schedule())
    assert again.trained == ["bc 12 #0"]


def test_another_sweep_of_the_same_store_finds_the_results(sweep: PretendedSweep, worker: Worker) -> None:
    worker.drive(sweep.schedule())
    idle = sweep.worker()
    idle.drive(sweep.schedule(name="other"))
    assert idle.done == []
    assert rows(sweep.store, "other") == rows(sweep.store)


def test_more_seeds_later_add_jobs_and_change_no_row(sweep: PretendedSweep, worker: Worker) -> None:
    worker.drive(sweep.schedule())
    before = rows(sweep.store)
    later = sweep.worker()
    later.drive(sweep.schedule(seeds=3))
    assert {name.rpartition("#")[2] for name in later.trained} == {"1", "2"}
    assert len(later.done) == 8
    after = rows(sweep.store)
    assert len(after) == 21
    assert {cell: after[cell] for cell in before} == before


@pytest.mark.parametrize("rung", [1.0, 0.5])
def test_more_proposals_later_add_jobs_and_change_no_row(sweep: PretendedSweep, worker: Worker, rung: float) -> None:
    worker.drive(sweep.schedule(refinement=sweep.proposals(2, rung=rung)))
    before = rows(sweep.store)
    later = sweep.worker()
    later.drive(sweep.schedule(refinement=sweep.proposals(4, rung=rung)))
    assert len(later.done) == (2 if rung == 1.0 else 3)
    after = rows(sweep.store)
    assert len(after) == len(before) + 4
    assert {cell: after[cell] for cell in before} == before


def test_seeds_and_proposals_raised_together_end_as_if_asked_for_at_once(
    sweep: PretendedSweep, worker: Worker, tmp_path: Path
) -> None:
    worker.drive(sweep.schedule(refinement=sweep.proposals(2)))
    worker.drive(sweep.schedule(refinement=sweep.proposals(4), seeds=2))
    fresh = dataclasses.replace(sweep, store=Store(tmp_path / "fresh", durable=False), folder=tmp_path / "studies")
    fresh.worker().drive(fresh.schedule(refinement=fresh.proposals(4), seeds=2))
    assert rows(fresh.store) == rows(sweep.store)


# The refinement


def test_proposals_wait_for_the_design_and_say_where_they_are_from(sweep: PretendedSweep, worker: Worker) -> None:
    worker.drive(sweep.schedule(refinement=sweep.proposals(2)), places=3)
    assert [name.startswith("ilql") for name in worker.trained[4:]] == [True, True]
    assert len(worker.done) == 6
    origins = [row["origin"] for row in sweep.store.rows("sweep")]
    assert (origins.count("design"), origins.count("refinement")) == (7, 4)


def test_proposals_vary_the_space_and_keep_the_rest(sweep: PretendedSweep, worker: Worker) -> None:
    worker.drive(sweep.schedule(refinement=sweep.proposals(2)))
    base, proposed = (TrialSpec.from_json(job.training) for job in (worker.done[2], worker.done[4]))
    assert proposed.train != base.train
    assert dataclasses.replace(proposed.train, tau=base.train.tau) == base.train


def _proposed(worker: Worker) -> set[str]:
    specs = [TrialSpec.from_json(job.training) for job in worker.done]
    return {repr(spec.train.tau) for spec in specs if spec.method == "ilql"} - {"0.7", "0.9"}


@pytest.mark.parametrize("rung", [1.0, 0.5])
def test_proposals_do_not_depend_on_the_order_in_which_jobs_end(
    shared: Shared, tmp_path: Path, sweep: PretendedSweep, rung: float
) -> None:
    found = []
    for number, (places, pick, seeds) in enumerate([(1, 0, 1), (3, -1, 1), (2, -1, 2), (4, 0, 2)]):
        folder = tmp_path / str(number)
        one = dataclasses.replace(sweep, store=Store(folder / "store", durable=False), folder=folder)
        worker = one.worker()
        worker.drive(one.schedule(refinement=one.proposals(6, rung=rung), seeds=seeds), places=places, pick=pick)
        found.append(_proposed(worker))
    assert len(found[0]) == 6
    assert all(each == found[0] for each in found)


def test_replicates_are_done_while_proposals_wait(sweep: PretendedSweep, worker: Worker) -> None:
    schedule = sweep.schedule(refinement=sweep.proposals(2), seeds=2)
    for _ in range(4):
        found = schedule.next_job()
        assert found is not None
        worker.work(found[1])
        if found[0].startswith("ilql"):
            break  # a first seed of the design stays open
        schedule.job_ended(found[0], None)
    names = [schedule.next_job() for _ in range(5)]
    seeds = [TrialSpec.from_json(job.training).seed for _, job in filter(None, names)]
    assert seeds == [0, 1, 1, 1, 1]


# The rung


def test_at_the_rung_the_better_half_goes_on_and_the_rest_are_stopped_rows(
    sweep: PretendedSweep, worker: Worker
) -> None:
    worker.drive(sweep.schedule(refinement=sweep.proposals(4, rung=0.5, round_size=4)))
    specs = [TrialSpec.from_json(job.training) for job in worker.done[4:]]
    assert [spec.train.steps for spec in specs] == [10, 10, 10, 10, 20, 20]
    taus = sorted((spec.train.tau for spec in specs[:4]), reverse=True)
    assert {spec.train.tau for spec in specs[4:]} == set(taus[:2])
    refined = [row for row in sweep.store.rows("sweep") if row["origin"] == "refinement"]
    assert {row["train.tau"] for row in refined if row["status"] == "finished"} == set(taus[:2])
    stopped = [row for row in refined if row["status"] == "stopped"]
    assert len(stopped) == 4  # two trainings, two betas
    assert {row["train.steps"] for row in refined} == {20}
    for place, tau in ((3, taus[2]), (4, taus[3])):
        (reason,) = {row["reason"] for row in stopped if row["train.tau"] == tau}
        # The score at the rung is tau + 10/1000.
        assert reason == f"stopped at step 10: {tau + 0.01:.2f} on the tune scenes, place {place} of 4"
    assert [trial.state.name for trial in sweep.read_study().trials].count("PRUNED") == 2


def test_of_an_odd_round_the_larger_half_goes_on(sweep: PretendedSweep, worker: Worker) -> None:
    worker.drive(sweep.schedule(refinement=sweep.proposals(3, rung=0.5, round_size=3)))
    assert [TrialSpec.from_json(job.training).train.steps for job in worker.done[4:]] == [10, 10, 10, 20, 20]


def test_a_rung_is_played_on_the_tune_scenes_only(sweep: PretendedSweep, worker: Worker) -> None:
    worker.drive(sweep.schedule(refinement=sweep.proposals(2, rung=0.5)))
    splits = [{TrialSpec.from_json(t).evaluation.split for t in job.evaluations} for job in worker.done[4:]]
    assert splits == [{"tune"}, {"tune"}, {"tune", "report"}]


def test_the_checkpoints_at_the_rung_are_kept_for_those_that_go_on(sweep: PretendedSweep, worker: Worker) -> None:
    schedule = sweep.schedule(refinement=sweep.proposals(2, rung=0.5))
    kept: dict[str, Path] = {}
    going_on = ""
    while (found := schedule.next_job()) is not None:
        name, job = found
        going_on = TrialSpec.from_json(job.training).trajectory_id
        if job.keep_trajectory:
            kept[going_on] = sweep.store.scratch("trajectory", going_on)  # as a real training would
        worker.work(job)
        schedule.job_ended(name, None)
    assert len(kept) == 2
    assert {trajectory for trajectory, folder in kept.items() if folder.exists()} == {going_on}


@pytest.mark.parametrize(("broken", "steps"), [(1, [10, 10, 20]), (2, [10, 10])])
def test_proposals_that_fail_at_their_rung_are_failed_rows_and_others_go_on(
    sweep: PretendedSweep, worker: Worker, broken: int, steps: list[int]
) -> None:
    left = iter(range(broken))
    worker.broken = lambda spec: "diverged" if spec.train.steps == 10 and next(left, None) is not None else None
    worker.drive(sweep.schedule(refinement=sweep.proposals(2, rung=0.5)))
    assert [TrialSpec.from_json(job.training).train.steps for job in worker.done[4:]] == steps
    refined = [row for row in sweep.store.rows("sweep") if row["origin"] == "refinement"]
    assert len(refined) == 4  # two trainings, two betas
    assert [(row["status"], row["reason"]) for row in refined].count(("failed", "diverged")) == 2 * broken
    assert [trial.state.name for trial in sweep.read_study().trials].count("FAIL") == broken


def test_all_proposals_of_a_rung_may_come_to_the_end_in_any_order(sweep: PretendedSweep, worker: Worker) -> None:
    worker.drive(sweep.schedule(refinement=sweep.proposals(4, rung=0.5, round_size=2)), places=2, pick=-1)
    specs = [TrialSpec.from_json(job.training) for job in worker.done[4:]]
    assert [spec.train.steps for spec in specs] == [10, 10, 20, 10, 10, 20]


# Counting, and what is refused


def test_jobs_add_up(sweep: PretendedSweep, worker: Worker) -> None:
    schedule = sweep.schedule(refinement=sweep.proposals(2), seeds=2)
    assert schedule.wanted_jobs == (4 + 2) * 2
    worker.drive(schedule, places=2)
    assert schedule.wanted_jobs == schedule.finished_jobs == 12
    assert len(set(worker.trained)) == 12


def test_the_rows_that_belong_to_the_plan_are_named(sweep: PretendedSweep, worker: Worker) -> None:
    schedule = sweep.schedule(refinement=sweep.proposals(2, rung=0.5))
    worker.drive(schedule)
    assert schedule.members == {f"sweep/{row['trial_id']}" for row in sweep.store.rows("sweep")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rung": 0.0}, r"a rung must be a share of the steps in \(0, 1\], got 0"),
        ({"rung": 1.5}, r"a rung must be a share of the steps in \(0, 1\], got 1.5"),
        ({"proposals": -1}, "--trials must be at least 0, got -1"),
        ({"round_size": 0}, "a round must have at least 1 proposal, got 0"),
    ],
)
def test_a_refinement_is_refused_outside_its_ranges(
    sweep: PretendedSweep, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(sweep.proposals(2), **change)


def test_no_seed_is_no_sweep(sweep: PretendedSweep) -> None:
    with pytest.raises(ValueError, match="--seeds must be at least 1, got 0"):
        sweep.schedule(seeds=0)
