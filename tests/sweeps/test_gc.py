"""Weights are freed under a rule, known to be dropped, and trained again only where something new needs them."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cluster.shapes import Need
from sweeps import cli, gc, leases
from sweeps.doctor import findings
from sweeps.driving import driving
from sweeps.exact_json import Record
from sweeps.gc import Rule, find, free, restore
from sweeps.leases import LeaseLostError, driver_key
from sweeps.plan import Plan, make_plan
from sweeps.policy import load_policy
from sweeps.spec import TrialSpec
from sweeps.store import Store
from sweeps.work import run_job

if TYPE_CHECKING:
    from conftest import Bench, MakeSweep, MakeTrainings, PretendedSweep

EVERYTHING, NOTHING = Rule("sweeps"), Rule("none")


def silently(line: str) -> None:
    pass


def no_numbers(numbers: Mapping[str, float]) -> None:
    pass


@pytest.fixture
def sweep(make_sweep: MakeSweep, make_trainings: MakeTrainings) -> PretendedSweep:
    """A sweep of BC and of ILQL at two τ and two β, done: scores grow with τ, and by nothing else."""
    design = [*make_trainings("bc"), *make_trainings("ilql", {"train.tau": (0.7, 0.9), "decode.beta": (1.0, 4.0)})]
    made = make_sweep(design)
    made.store.put("sweep", "sweep", {"task": "bandit"})
    made.worker().drive(made.schedule())
    return made


def weights(store: Store) -> set[str]:
    """Whose weights are there: method, and τ where there is one."""
    names = {member["weights_id"]: _name(member) for member in store.members()}
    return {names.get(folder.name, folder.name) for folder in store.folder.glob("stages/weights/*/[!.]*")}


def _name(member: Record) -> str:
    tau = member["columns"].get("train.tau")
    return str(member["method"]) if tau is None else f"{member['method']} {tau}"


def plan_of(sweep: PretendedSweep) -> Plan:
    return make_plan(sweep.store, sweep.shared, sweep.design, seeds=1, refinement=None, need=Need())


# What is kept


def test_by_default_everything_stays_that_a_sweep_needs(sweep: PretendedSweep) -> None:
    sweep.store.build("weights", "stray", lambda folder: None, {})
    assert [item.key for item in free(sweep.store, EVERYTHING, silently)] == ["stray"]
    assert weights(sweep.store) == {"bc", "ilql 0.7", "ilql 0.9"}


def test_what_a_removed_sweep_needed_goes(sweep: PretendedSweep) -> None:
    sweep.store.remove_sweep("sweep")
    free(sweep.store, EVERYTHING, silently)
    assert weights(sweep.store) == set()


def test_the_best_cells_of_each_arm_stay_with_what_they_act_with(sweep: PretendedSweep) -> None:
    # Two cells of ILQL, β 1 and 4, share the best training, at τ = .9; BC has one cell, and ILQL acts with it.
    free(sweep.store, Rule("best", 2), silently)
    assert weights(sweep.store) == {"bc", "ilql 0.9"}


def test_what_the_best_act_with_stays_though_it_is_no_cell(
    make_sweep: MakeSweep, make_trainings: MakeTrainings
) -> None:
    sweep = make_sweep(make_trainings("ilql"))
    sweep.store.put("sweep", "sweep", {})
    sweep.worker().drive(sweep.schedule())
    assert free(sweep.store, Rule("best", 1), silently) == []
    assert len(weights(sweep.store)) == 2  # the behaviour policy's, too


def test_more_best_cells_keep_more(sweep: PretendedSweep) -> None:
    free(sweep.store, Rule("best", 3), silently)  # the third one is at τ = .7
    assert weights(sweep.store) == {"bc", "ilql 0.7", "ilql 0.9"}


def test_a_cell_is_as_good_as_the_mean_over_its_seeds(sweep: PretendedSweep) -> None:
    # Seed 1 of τ = .7 is the best of all four, and yet (.72 + 1) / 2 < (.92 + .9) / 2.
    def score(trial: TrialSpec) -> float:
        tau = getattr(trial.train, "tau", 0.0)
        return 1.0 if (trial.seed, tau) == (1, 0.7) else float(tau)

    worker = sweep.worker()
    worker.score = score
    worker.drive(sweep.schedule(seeds=2))
    free(sweep.store, Rule("best", 1), silently)
    assert {name for name in weights(sweep.store) if name.startswith("ilql")} == {"ilql 0.9"}


def test_what_a_row_still_waits_for_is_no_bad_cell(sweep: PretendedSweep) -> None:
    (waiting,) = [m for m in sweep.store.members() if _name(m) == "ilql 0.7" and m["columns"]["decode.beta"] == 4.0]
    sweep.store.remove("evaluation", waiting["trial_id"])
    free(sweep.store, Rule("best", 1), silently)
    assert "ilql 0.7" in weights(sweep.store)


def test_rows_are_as_they_were(sweep: PretendedSweep) -> None:
    before = sweep.store.rows("sweep")
    free(sweep.store, NOTHING, silently)
    assert weights(sweep.store) == set()
    assert sweep.store.rows("sweep") == before


@pytest.mark.parametrize("text", ["best", "best:0", "best:-1", "all", "best:1.5", ""])
def test_a_rule_that_is_none_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="--keep must be sweeps, best:K with K at least 1, or none, got "):
        Rule.parse(text)


# What is told


def test_a_dry_run_says_bytes_and_seconds_and_frees_nothing(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    trial = bench.trial("bc")
    (file,) = (bench.store.stage("weights", trial.weights_id) or Path()).glob("*.safetensors")
    record = bench.store.get("training", trial.weights_id)
    assert record is not None
    before = sorted(bench.store.folder.rglob("*"))
    assert cli.main(["gc", str(bench.store.folder), "--keep", "none", "--dry-run"]) == 0
    assert sorted(bench.store.folder.rglob("*")) == before
    told = capsys.readouterr().out
    (line,) = [line for line in told.splitlines() if trial.weights_id in line]
    size = sum(path.stat().st_size for path in file.parent.iterdir())
    assert line == f"  would free weights {trial.weights_id}: {size / 1000:.1f} kB, {record['train_seconds']:.1f} s"
    assert told.splitlines()[-1].startswith("  would free in all ")


# What follows


def test_a_rerun_has_nothing_to_do_and_the_plan_says_so(sweep: PretendedSweep) -> None:
    free(sweep.store, NOTHING, silently)
    worker = sweep.worker()
    worker.drive(sweep.schedule())
    assert worker.done == []
    plan = plan_of(sweep)
    assert (plan.trainings - plan.trained, plan.dropped) == (0, 3)
    assert "the design costs nothing more" in plan.lines(concurrent=1)
    assert "3 of the trainings had their weights dropped by `sweeps gc`; no row needs them" in plan.lines(concurrent=1)


def test_something_new_trains_again_what_it_needs_and_nothing_else(
    sweep: PretendedSweep, make_trainings: MakeTrainings
) -> None:
    free(sweep.store, NOTHING, silently)
    more = make_trainings("ilql", {"train.tau": (0.9,), "decode.beta": (16.0,)})
    wider = dataclasses.replace(sweep, design=[*sweep.design, *more])
    plan = plan_of(wider)
    assert (plan.trainings - plan.trained, plan.dropped) == (2, 1)  # BC and τ = .9; τ = .7 stays dropped
    worker = wider.worker()
    worker.drive(wider.schedule())
    assert worker.trained == ["bc 12 #0", "ilql 0.90 20 #0"]


def test_a_proposal_trains_again_the_behaviour_policy_that_it_starts_from(
    make_sweep: MakeSweep, make_trainings: MakeTrainings
) -> None:
    from ilql.hyperparameters import Search
    from sweeps.space import Between

    space = [Between("train.tau", Search(0.6, 0.95))]
    sweep = make_sweep([*make_trainings("bc"), *make_trainings("ilql")], ilql=space)
    sweep.store.put("sweep", "sweep", {})
    sweep.worker().drive(sweep.schedule())
    free(sweep.store, NOTHING, silently)
    worker = sweep.worker()
    worker.drive(sweep.schedule(refinement=sweep.proposals(1)))
    assert [name.split()[0] for name in worker.trained] == ["bc", "ilql"]


def test_weights_that_got_lost_are_trained_again_as_ever(sweep: PretendedSweep) -> None:
    for folder in sweep.store.folder.glob("stages/weights/*/*"):
        folder.rename(sweep.store.folder / f"away-{folder.name}")
    worker = sweep.worker()
    worker.drive(sweep.schedule())
    assert len(worker.done) == 3


def test_weights_that_got_lost_after_they_were_made_again_are_not_taken_for_dropped(sweep: PretendedSweep) -> None:
    free(sweep.store, NOTHING, silently)
    (member, *_) = sweep.store.members()
    weights_id = member["weights_id"]
    assert sweep.store.dropped_weights(weights_id) is not None
    sweep.store.build("weights", weights_id, lambda folder: None, {})
    assert sweep.store.dropped_weights(weights_id) is None
    sweep.store.put("training", weights_id, {"status": "finished"})
    sweep.store.drop("weights", weights_id)
    assert sweep.store.dropped_weights(weights_id) is None


@pytest.fixture
def played(bench: Bench) -> tuple[Bench, TrialSpec]:
    """A trained and played ILQL trial that is a sweep's."""
    trial = bench.trial()
    bench.store.put("sweep", "mine", {"task": "bandit"})
    bench.store.put(
        "member",
        f"mine/{trial.trial_id}",
        {
            "sweep": "mine", "trial_id": trial.trial_id, "weights_id": trial.weights_id, "cell_id": trial.cell_id,
            "method": "ilql", "origin": "design", "seed": 0, "columns": trial.columns(), "tune_trial_id": None,
            "spec": trial.to_json(),
        },
    )  # fmt: skip
    assert run_job(bench.job(trial, trial), no_numbers) == "finished"
    return bench, trial


def test_the_doctor_does_not_miss_what_was_dropped(played: tuple[Bench, TrialSpec]) -> None:
    bench, _ = played
    assert free(bench.store, NOTHING, silently) != []
    assert findings(Store(bench.store.folder)) == []


def test_the_loss_curve_stays_for_the_mirror(played: tuple[Bench, TrialSpec]) -> None:
    bench, trial = played
    curve = bench.store.curve(trial.weights_id)
    assert curve is not None
    before = curve.read_bytes()
    free(bench.store, NOTHING, silently)
    after = bench.store.curve(trial.weights_id)
    assert after is not None
    assert after.read_bytes() == before
    assert json.loads(before.splitlines()[-1])["step"] == trial.train.steps


def test_who_asks_for_dropped_weights_is_told_when_and_what_makes_them_again(
    played: tuple[Bench, TrialSpec], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bench, trial = played
    episodes = bench.store.episodes([trial.trial_id])
    reply, before = load_policy(trial.trial_id, bench.store).reply([("", False)]), bench.weights(trial)
    folder = str(bench.store.folder)
    assert cli.main(["gc", folder, "--keep", "none"]) == 0
    for command in (
        ["reply", trial.trial_id, "hello"],
        ["advantages", trial.trial_id],
        ["export", trial.trial_id, str(tmp_path / "out")],
        ["play", "bandit", "--trial", trial.trial_id],
    ):
        capsys.readouterr()
        assert cli.main([*command, "--store", folder]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: the trial {trial.trial_id} must have its weights, they were dropped at 2")
        assert line.endswith(f"by --keep none; made again by: sweeps gc --restore {trial.trial_id} --store {folder}")
    assert cli.main(["gc", "--restore", trial.trial_id, "--store", folder]) == 0
    assert "trained 2 again" in capsys.readouterr().out  # the behaviour policy, too
    assert bench.weights(trial) == before
    assert load_policy(trial.trial_id, bench.store).reply([("", False)]) == reply
    assert bench.store.episodes([trial.trial_id]).equals(episodes)
    assert restore(bench.store, trial, silently) == 0


# Who is at it


def test_a_store_that_is_driven_is_left_alone(sweep: PretendedSweep) -> None:
    with (
        driving(sweep.store, "another", silently),
        pytest.raises(ValueError, match=f"a store must be at rest .* process {os.getpid()} of .* works on it"),
    ):
        free(Store(sweep.store.folder), NOTHING, silently)
    assert weights(sweep.store) == {"bc", "ilql 0.7", "ilql 0.9"}


def test_a_store_in_which_a_job_runs_is_left_alone(played: tuple[Bench, TrialSpec]) -> None:
    bench, trial = played
    with bench.store.lease(trial.trajectory_id), pytest.raises(ValueError, match="a store must be at rest"):
        free(Store(bench.store.folder), NOTHING, silently)
    assert bench.store.stage("weights", trial.weights_id) is not None


def test_a_job_that_begins_while_it_is_cleaned_keeps_its_weights(
    played: tuple[Bench, TrialSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, trial = played
    begun = []
    looked = gc.find

    def find_then_begin(store: Store, rule: Rule, ours: Container[str]) -> list[gc.Item]:
        items = looked(store, rule, ours)
        begun.append(Store(store.folder).try_lease(trial.trajectory_id))
        return items

    monkeypatch.setattr(gc, "find", find_then_begin)
    said: list[str] = []
    free(bench.store, NOTHING, said.append)
    assert said == [f"weights {trial.weights_id}: is in use, and stays"]
    assert bench.store.stage("weights", trial.weights_id) is not None
    begun[0].release()


def test_a_driver_waits_for_who_cleans(sweep: PretendedSweep, monkeypatch: pytest.MonkeyPatch) -> None:
    cleaning, said = sweep.store.lease("gc"), list[str]()

    def say(line: str) -> None:
        said.append(line)
        cleaning.release()

    driving(Store(sweep.store.folder), "sweep", say).release()
    assert said == ["waiting for `sweeps gc`, which is at this store"]


@pytest.mark.parametrize("freed", [0, 2])
def test_who_was_followed_while_it_slept_drops_nothing_more(
    sweep: PretendedSweep, monkeypatch: pytest.MonkeyPatch, freed: int
) -> None:
    # As one that was suspended for longer than anybody waits, while a driver began.
    there = sorted(sweep.store.stages())
    looked = gc.find

    def follow() -> None:
        ours = next(beat.lease for beat in leases._HEART._beats.values() if beat.lease.key == leases.CLEANING)
        leases._HEART.drop(ours)
        with monkeypatch.context() as patch:
            patch.setattr(leases.Holder, "is_dead", lambda self: True)
            driving(Store(sweep.store.folder), "another", silently).release()

    def find_and_sleep(store: Store, rule: Rule, ours: Container[str]) -> Iterator[gc.Item]:
        for number, item in enumerate(looked(store, rule, ours)):
            if number == freed:
                follow()
            yield item

    monkeypatch.setattr(gc, "find", find_and_sleep)
    said = (
        f"the cleaning of this store was taken over .*: another process has had it .*; {freed} folders had been freed"
    )
    with pytest.raises(LeaseLostError, match=said):
        free(sweep.store, NOTHING, silently)
    assert len(there) - len(list(sweep.store.stages())) == freed


def test_a_dead_driver_is_no_hindrance(sweep: PretendedSweep) -> None:
    _die_with_a_lease(sweep.store, driver_key("sweep"))
    free(sweep.store, NOTHING, silently)
    assert weights(sweep.store) == set()
    assert list(sweep.store.leases()) == []


def _die_with_a_lease(store: Store, key: str) -> None:
    code = f"""
import os
from pathlib import Path
from sweeps.store import Store
assert Store(Path({str(store.folder)!r})).try_lease({key!r})
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, env=os.environ).returncode == 9


@pytest.mark.parametrize("survived", [0, 1, 2])
def test_killed_between_any_two_of_its_steps_it_goes_on(
    sweep: PretendedSweep, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    """Of record, rename and removal so many are done before the end; the first leaves the weights where they are."""

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        target, name = [(Store, "put"), (Path, "rename"), (gc.shutil, "rmtree")][survived]
        if survived == 2:
            target = sys.modules["sweeps.artefacts"].shutil
        patch.setattr(target, name, killed)
        with pytest.raises(KeyboardInterrupt):
            free(sweep.store, NOTHING, silently)
    assert len(weights(sweep.store)) == (2 if survived == 2 else 3)
    worker = sweep.worker()
    worker.drive(sweep.schedule())
    assert worker.done == []  # nothing is missing that is not known to be dropped
    free(sweep.store, NOTHING, silently)
    assert list(sweep.store.folder.glob("stages/weights/*/*")) == []


# Checkpoints, and what was left behind


def test_checkpoints_stay_while_a_row_waits_for_them(played: tuple[Bench, TrialSpec]) -> None:
    bench, trial = played
    folder = bench.store.scratch("trajectory", trial.trajectory_id)
    (folder / "seconds.txt").write_text("7.5")
    (item,) = [item for item in find(bench.store, EVERYTHING) if item.kind == "checkpoints"]
    assert (item.key, item.seconds, item.size_bytes) == (trial.trajectory_id, 7.5, 3)  # all is played
    bench.store.remove("evaluation", trial.trial_id)
    assert [item for item in find(bench.store, EVERYTHING) if item.kind == "checkpoints"] == []
    assert [item.key for item in find(bench.store, NOTHING) if item.kind == "checkpoints"] == [trial.trajectory_id]


def test_checkpoints_at_a_rung_stay_until_its_round_is_decided(played: tuple[Bench, TrialSpec]) -> None:
    bench, _ = played
    rung = bench.trial(train={"tau": 0.8, "steps": 5})  # its weights are there, and its trajectory is no row's
    run_job(bench.job(rung, keep_trajectory=True), no_numbers)
    assert bench.store.scratch_path("trajectory", rung.trajectory_id).is_dir()
    assert [item for item in find(bench.store, EVERYTHING) if item.kind == "checkpoints"] == []


def test_what_a_rung_stands_on_stays_however_often_it_is_cleaned(played: tuple[Bench, TrialSpec]) -> None:
    bench, _ = played
    rung = bench.trial(train={"tau": 0.8, "steps": 5})
    run_job(bench.job(rung, keep_trajectory=True), no_numbers)
    for _ in range(2):
        free(bench.store, EVERYTHING, silently)
        assert bench.store.scratch_path("trajectory", rung.trajectory_id).is_dir()
        assert bench.store.stage("weights", rung.weights_id) is not None
    bench.store.remove_sweep("mine")  # nobody will decide its round
    free(bench.store, EVERYTHING, silently)
    assert not bench.store.scratch_path("trajectory", rung.trajectory_id).exists()
    assert bench.store.stage("weights", rung.weights_id) is None


def test_damaged_and_half_removed_folders_go(sweep: PretendedSweep) -> None:
    stage = next(sweep.store.folder.glob("stages/weights/*/*"))
    for mark in (".damaged", ".dropped"):
        (stage.parent / f"{mark}@{stage.name}@host-1-abc").mkdir()
    mine = stage.parent / f".building@{stage.name}@host-1-abc"  # of another machine: may be at it
    mine.mkdir()
    assert sorted(item.kind for item in free(sweep.store, EVERYTHING, silently)) == ["leftover", "leftover"]
    assert mine.is_dir()
    assert [path.name for path in stage.parent.glob(".d*")] == []


def test_what_a_killed_writer_of_a_table_left_goes_after_an_hour(sweep: PretendedSweep) -> None:
    table = sweep.store.compact()
    old, young = table.with_name(".runs.parquet.00000000"), table.with_name(".runs.parquet.11111111")
    mark = sweep.store.folder / ".store.json.00000000"
    for path in (old, young, mark):
        path.write_text("half")
    for path in (old, mark):
        os.utime(path, (time.time() - 7200,) * 2)
    assert [item.size_bytes for item in find(sweep.store, EVERYTHING)] == [4, 4]
    free(sweep.store, EVERYTHING, silently)
    assert (table.exists(), old.exists(), young.exists(), mark.exists()) == (True, False, True, False)


def test_what_killed_processes_left_goes_and_what_is_none_of_ours_stays(sweep: PretendedSweep) -> None:
    store = sweep.store
    group, tune, asked = store.scratch("group", "left"), store.folder / "tune" / "sweep", store.folder / "nodes" / "01"
    mine = [store.folder / "mine", store.folder / "scratch" / "mine"]
    for folder in (tune, asked, *mine):
        folder.mkdir(parents=True)
    os.utime(asked, (time.time() - 7200,) * 2)
    with store.lease("left"), store.lease(driver_key("sweep")):
        assert [item.folder for item in find(store, EVERYTHING)] == [asked]
    _die_with_a_lease(store, driver_key("sweep"))  # which whoever cleans takes over meanwhile
    assert {item.folder for item in free(store, EVERYTHING, silently)} == {group, tune, asked}
    assert [path.exists() for path in (group, tune, asked, *mine)] == [False, False, False, True, True]


def test_what_is_odd_in_a_store_stops_no_cleaning(sweep: PretendedSweep) -> None:
    stages = sorted(sweep.store.folder.glob("stages/weights/*/*"))
    (stages[0] / "about.json").unlink()
    os.mkfifo(stages[0] / "about.json")
    (stages[1].parent / "my notes").mkdir()
    (sweep.store.folder / "stages" / "tokens").write_text("a file")
    trajectory = sweep.store.scratch("trajectory", "abc")
    os.mkfifo(trajectory / "seconds.txt")
    (trajectory.parent / "my notes").mkdir()
    gone = {item.key for item in free(sweep.store, NOTHING, silently)}
    assert gone == {"abc", *(stage.name for stage in stages[1:])}
    assert (trajectory.parent / "my notes").is_dir()
