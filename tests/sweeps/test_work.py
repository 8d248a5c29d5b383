"""One job, done for real on a small bandit: train, evaluate, record, resume."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from cluster.faults import Fault, Owner
from cluster.group import GroupResult, run_here
from ilql.task import Environment, Reply, TaskFault
from ilql.tasks.bandit import Bandit
from sweeps import advantages, train_weights
from sweeps import job as job_module
from sweeps.curve import Curve
from sweeps.doctor import findings
from sweeps.evaluate_cells import unevaluated
from sweeps.exact_json import Record
from sweeps.job import Job, MachineFault, Resources
from sweeps.provenance import method_digests
from sweeps.slips import is_slip
from sweeps.spec import TrialSpec
from sweeps.stages import load_held_out, load_module
from sweeps.store import Store
from sweeps.train_weights import SECONDS_FILE
from sweeps.work import run_job

if TYPE_CHECKING:
    from conftest import Bench

ROOT = Path(__file__).resolve().parents[2]

KILLED_AT = """
import dataclasses, json, os, signal, sys
from sweeps.job import Job, Resources
from sweeps.work import run_job

values, limits = json.loads(sys.argv[1]), json.loads(sys.argv[2])
job = Job(**values | {"resources": Resources(**values["resources"]), "evaluations": tuple(values["evaluations"])})

def tell(numbers):
    if any(numbers.get(name, 0) >= limit for name, limit in limits.items()):
        os.kill(os.getpid(), signal.SIGKILL)

run_job(job, tell)
"""
"""Does a job in a process of its own, which is killed as soon as it tells of a number that reaches its limit."""


def silently(numbers: Mapping[str, float]) -> None:
    """Nobody listens."""


def evaluation_of(store: Store, trial: TrialSpec) -> Record:
    record = store.get("evaluation", trial.trial_id)
    assert record is not None
    return record


def training_of(store: Store, trial: TrialSpec) -> Record:
    record = store.get("training", trial.weights_id)
    assert record is not None
    return record


def episodes(store: Store, trial: TrialSpec) -> pl.DataFrame:
    return store.episodes([trial.trial_id])


def steps_of(curve: Path | None) -> list[int]:
    assert curve is not None
    return [json.loads(line)["step"] for line in curve.read_text(encoding="utf-8").splitlines()]


def do_until_killed(job: Job, **limits: float) -> None:
    values = {**vars(job), "resources": vars(job.resources)}
    done = subprocess.run(
        [sys.executable, "-c", KILLED_AT, json.dumps(values), json.dumps(limits)],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr


# A whole job


def test_a_job_trains_plays_and_records(bench: Bench) -> None:
    trial, tune = bench.trial(), bench.trial(evaluation={"split": "tune"})
    told: list[Mapping[str, float]] = []
    assert run_job(bench.job(trial, tune, trial), told.append) == "finished"

    training = training_of(bench.store, trial)
    assert (training["status"], training["reason"], training["steps"]) == ("finished", None, 20)
    assert (training["method"], training["seed"]) == ("ilql", 0)
    assert training["train_seconds"] > 0
    assert training["sources"] == method_digests("ilql")
    assert {"loss", "td", "expectile", "q_mean", "v_mean"} <= set(training["metrics"])
    assert load_module(bench.store, trial) is not None
    for played in (tune, trial):
        record, table = evaluation_of(bench.store, played), episodes(bench.store, played)
        assert (record["status"], record["reason"], record["episodes"]) == ("finished", None, 8)
        assert table["episode_seed"].to_list() == list(range(8))
        assert record["score"] == table["return"].mean()
        assert set(table["return"].to_list()) <= {0.0, 1.0}
        assert table["turns"].to_list() == [1] * 8
        assert record["evaluate_seconds"] > 0
        assert {"code_digest", "versions", "host", "started_at", "finished_at"} <= set(record)
    assert max(numbers.get("step", 0) for numbers in told) == 20
    assert max(numbers.get("episodes", 0) for numbers in told) == 8


def test_the_benchmark_of_the_grid_has_its_clocks_where_a_job_passes_them(bench: Bench) -> None:
    from benchmarks.grid import clocks

    trial = bench.trial()
    with clocks() as inside:
        assert run_job(bench.job(trial, trial), silently) == "finished"
    assert all(seconds > 0 for seconds in inside.values())
    assert inside["save"] < inside["train"] < training_of(bench.store, trial)["train_seconds"]
    assert inside["play"] < evaluation_of(bench.store, trial)["evaluate_seconds"]


def test_a_transcript_is_what_was_said(bench: Bench) -> None:
    trial = bench.trial()
    run_job(bench.job(trial, trial), silently)
    row = episodes(bench.store, trial).row(0, named=True)
    opening, pull = json.loads(row["transcript"])
    assert opening == {"by_agent": False, "text": "pull"}
    assert pull["by_agent"]
    assert row["return"] == (1.0 if pull["text"] == "b" else 0.0)


def test_token_advantages_are_kept_for_a_few_episodes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advantages, "EPISODES", 4)
    trial = bench.trial()
    run_job(bench.job(trial, trial), silently)
    folder = bench.store.stage("evaluation", trial.trial_id)
    assert folder is not None
    lines = [json.loads(line) for line in (folder / "advantages.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["episode_seed"] for line in lines] == [0, 1, 2, 3]
    assert all(len(line["tokens"]) == len(line["advantages"]) > 0 for line in lines)


def test_a_job_that_is_done_does_nothing(bench: Bench) -> None:
    trial = bench.trial()
    run_job(bench.job(trial, trial), silently)
    before = _files(bench.store)
    told: list[Mapping[str, float]] = []
    assert run_job(bench.job(trial, trial), told.append) == "finished"
    assert told == []
    assert _files(bench.store) == before


def _files(store: Store) -> dict[str, int]:
    """When the store's files were written; that of this process's leases says whose the last was."""
    files = [path for path in store.folder.rglob("*") if path.is_file() and not is_slip(path)]
    return {str(path): path.stat().st_mtime_ns for path in files}


def test_a_finished_job_leaves_no_partial_work_behind(bench: Bench) -> None:
    trial = bench.trial()
    run_job(bench.job(trial, trial), silently)
    assert [path for path in (bench.store.folder / "scratch").rglob("*") if path.is_file()] == []
    assert bench.store.problems() == []


def test_sarsa_finds_the_weights_of_ilql_at_one_half(bench: Bench) -> None:
    run_job(bench.job(bench.trial(train={"tau": 0.5})), silently)
    told: list[Mapping[str, float]] = []
    sarsa = bench.trial("sarsa")
    run_job(bench.job(sarsa, sarsa), told.append)
    assert not any("step" in numbers for numbers in told)
    assert evaluation_of(bench.store, sarsa)["status"] == "finished"


def test_two_names_of_the_same_training_give_the_same_weights(bench: Bench, other_bench: Bench) -> None:
    ilql, sarsa = bench.trial(train={"tau": 0.5}), other_bench.trial("sarsa")
    run_job(bench.job(ilql), silently)
    run_job(other_bench.job(sarsa), silently)
    assert bench.weights(ilql) == other_bench.weights(sarsa)


def test_filtered_cloning_learns_from_the_best_dialogues_alone(bench: Bench) -> None:
    # Half of the recorded pulls are of the good arm: with the best half kept, nothing but that arm is cloned.
    trial = bench.trial("filtered_bc", train={"keep": 0.5, "steps": 40}, decode={"greedy": True})
    run_job(bench.job(trial, trial), silently)
    assert evaluation_of(bench.store, trial)["score"] == 1.0


# An evaluation depends on its key alone


def test_betas_played_together_are_equal_to_each_alone(bench: Bench, other_bench: Bench) -> None:
    betas = [bench.trial(decode={"beta": beta}, evaluation={"episodes": 40}) for beta in (0.0, 2.0, 9.0)]
    run_job(bench.job(betas[0], *betas), silently)
    for trial in reversed(betas):
        run_job(other_bench.job(trial, trial), silently)
    for trial in betas:
        together, alone = episodes(bench.store, trial), episodes(other_bench.store, trial)
        assert together.equals(alone)
        assert evaluation_of(bench.store, trial)["score"] == evaluation_of(other_bench.store, trial)["score"]
    assert not episodes(bench.store, betas[0])["return"].equals(episodes(bench.store, betas[2])["return"])


def test_more_episodes_have_the_earlier_ones_as_their_first(bench: Bench) -> None:
    few, many = bench.trial(evaluation={"episodes": 8}), bench.trial(evaluation={"episodes": 100})
    run_job(bench.job(few, few), silently)
    told: list[Mapping[str, float]] = []
    run_job(bench.job(many, many), told.append)
    assert not any("step" in numbers for numbers in told)
    assert episodes(bench.store, many).drop("trial_id").head(8).equals(episodes(bench.store, few).drop("trial_id"))


# Killed and resumed


@pytest.mark.parametrize("step", [4, 12, 20])  # before the first checkpoint, between two, after the last step
def test_a_training_killed_and_resumed_ends_in_the_same_bits(bench: Bench, other_bench: Bench, step: int) -> None:
    trial = bench.trial(evaluation={"episodes": 40})
    do_until_killed(bench.job(trial, trial), step=step)
    assert bench.store.stage("weights", trial.weights_id) is None
    told: list[Mapping[str, float]] = []
    assert run_job(bench.job(trial, trial), told.append) == "finished"
    assert all(numbers["step"] > step // 5 * 5 for numbers in told if "step" in numbers)

    run_job(other_bench.job(trial, trial), silently)
    assert bench.weights(trial) == other_bench.weights(trial)
    assert episodes(bench.store, trial).equals(episodes(other_bench.store, trial))
    resumed, undisturbed = (evaluation_of(b.store, trial) for b in (bench, other_bench))
    for name in ("score", "score_sd", "episodes", "measures"):
        assert resumed[name] == undisturbed[name]
    metrics, expected = (training_of(b.store, trial)["metrics"] for b in (bench, other_bench))
    assert metrics == expected
    assert "loss" in expected


def test_a_training_that_tells_of_every_step_records_the_same(
    bench: Bench, other_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of 20 steps each fourth is logged and each fifth leaves a checkpoint; with steps that are slow all are told.
    trial = bench.trial()
    run_job(other_bench.job(trial), silently)
    monkeypatch.setattr(train_weights, "HEARTBEAT_SECONDS", 0.0)
    told: list[Mapping[str, float]] = []
    run_job(bench.job(trial), told.append)
    assert [numbers["step"] for numbers in told] == list(range(1, 21))
    assert bench.weights(trial) == other_bench.weights(trial)
    curve, expected = (b.store.curve(trial.weights_id) for b in (bench, other_bench))
    assert curve is not None
    assert expected is not None
    assert curve.read_bytes() == expected.read_bytes()
    assert training_of(bench.store, trial)["metrics"] == training_of(other_bench.store, trial)["metrics"]


def test_a_training_that_failed_says_what_it_logged_last_whatever_it_told_since(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial, notes = bench.trial(), itertools.count(1)

    def note(clock: object, *, now: bool = False) -> None:
        if not now and next(notes) == 10:  # in step 10; logged was step 8
            raise ValueError("it fails")

    monkeypatch.setattr(train_weights, "HEARTBEAT_SECONDS", 0.0)
    monkeypatch.setattr(train_weights._Clock, "note", note)
    assert run_job(bench.job(trial), silently) == "failed"
    metrics = training_of(bench.store, trial)["metrics"]
    assert metrics["step"] == 8
    assert metrics["loss"] > 0


def test_the_curve_grows_while_it_is_made_and_goes_on_after_a_resumption(bench: Bench, other_bench: Bench) -> None:
    trial = bench.trial()
    do_until_killed(bench.job(trial), step=12)
    assert steps_of(bench.store.curve(trial.weights_id)) == [1, 4, 8, 12]
    run_job(bench.job(trial), silently)
    run_job(other_bench.job(trial), silently)
    curve, undisturbed = bench.store.curve(trial.weights_id), other_bench.store.curve(trial.weights_id)
    assert steps_of(curve) == [1, 4, 8, 12, 16, 20]
    assert curve is not None
    assert undisturbed is not None
    assert curve.read_text() == undisturbed.read_text()


def test_a_curve_has_the_loss_on_held_out_dialogues_and_no_weight_depends_on_it(
    bench: Bench, other_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = bench.trial()
    run_job(bench.job(trial), silently)
    path = bench.store.curve(trial.weights_id)
    assert path is not None
    points = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [point["step"] for point in points if "held_out_loss" in point] == [1, 4, 8, 12, 16, 20]
    assert training_of(bench.store, trial)["metrics"]["held_out_loss"] == points[-1]["held_out_loss"] > 0
    assert points[-1]["held_out_loss"] < points[0]["held_out_loss"]  # of the bandit's dialogues all are alike
    monkeypatch.setattr(train_weights, "HELD_OUT", 0)
    run_job(other_bench.job(trial), silently)
    assert bench.weights(trial) == other_bench.weights(trial)
    assert "held_out_loss" not in training_of(other_bench.store, trial)["metrics"]


@pytest.mark.parametrize(
    ("last", "log_every", "steps"),
    [
        (20, 4, [1, 4, 8, 12, 16, 20]),  # it is logged fewer than ten times
        (1000, 10, [1, *range(100, 1001, 100)]),
        (105, 10, [1, *range(10, 101, 10), 105]),
        (1, 10, [1]),
    ],
)
def test_the_held_out_loss_is_asked_for_about_ten_times(last: int, log_every: int, steps: list[int]) -> None:
    logged = [step for step in range(1, last + 1) if step in (1, last) or step % log_every == 0]
    assert [step for step in logged if train_weights.is_held_out_due(step, last, log_every)] == steps


def test_what_is_held_out_is_what_a_method_would_keep(bench: Bench) -> None:
    whole = load_held_out(bench.store, bench.trial("bc"), 64)
    best = load_held_out(bench.store, bench.trial("filtered_bc", train={"keep": 0.25}), 64)
    assert len(whole) > 4
    assert len(best) == len(whole) // 4
    assert all(sequence.rewards.sum() == 1 for sequence in best)  # the arm that pays
    assert len(load_held_out(bench.store, bench.trial("bc"), 3)) == 3
    assert load_held_out(bench.store, bench.trial("chai"), 64) == []  # nothing is drawn for them


def test_a_point_is_appended_to_its_curve_and_leaves_the_rest_alone(tmp_path: Path) -> None:
    files = kept, live = tmp_path / "kept.jsonl", tmp_path / "live.jsonl"
    curve = Curve(kept, live=live)
    curve.add(1, {"loss": 3.0})
    for file in files:
        file.write_text("what is there\n")
    curve.add(2, {"loss": 0.5})
    for file in files:
        assert file.read_text() == 'what is there\n{"step": 2, "loss": 0.5}\n'


def test_a_resumed_curve_keeps_the_whole_lines_of_the_steps_before_it(tmp_path: Path) -> None:
    kept, live = tmp_path / "kept.jsonl", tmp_path / "live.jsonl"
    before = '{"step": 1, "loss": 3.0}\n{"step": 4, "loss": 2.5}\n'
    for file in (kept, live):
        file.write_text(before + '{"step": 8, "loss": 2.0}\n{"step": 12, "lo')  # killed in writing it
    curve = Curve(kept, live=live)
    curve.add(8, {"loss": 1.0})
    curve.add(12, {"loss": 0.5})
    whole = before + '{"step": 8, "loss": 1.0}\n{"step": 12, "loss": 0.5}\n'
    assert (kept.read_text(), live.read_text()) == (whole, whole)


def test_a_curve_that_two_attempts_wrote_at_once_is_resumed_in_the_order_of_its_steps(tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    kept.write_text("".join(f'{{"step": {step}, "loss": 1.0}}\n' for step in (1, 8, 4, 12, 8)))
    curve = Curve(kept, live=tmp_path / "live.jsonl")
    curve.add(12, {"loss": 0.5})
    assert steps_of(kept) == [1, 4, 8, 12]


def test_a_curve_whose_folder_was_dropped_is_written_whole_again(tmp_path: Path) -> None:
    kept = tmp_path / "trajectory" / "curve.jsonl"
    curve = Curve(kept, live=tmp_path / "live.jsonl")
    curve.add(1, {"loss": 3.0})
    shutil.rmtree(kept.parent)
    kept.parent.mkdir()  # somebody else begins there
    curve.add(4, {"loss": 2.5})
    assert steps_of(kept) == [1, 4]


def test_an_evaluation_killed_half_way_is_played_again_and_nothing_is_trained(bench: Bench, other_bench: Bench) -> None:
    tune = bench.trial(evaluation={"split": "tune", "episodes": 100})
    report = bench.trial(evaluation={"episodes": 200})
    do_until_killed(bench.job(tune, tune, report), episodes=110)
    assert unevaluated(bench.store, [tune, report]) == [report]
    told: list[Mapping[str, float]] = []
    run_job(bench.job(tune, tune, report), told.append)
    assert not any("step" in numbers for numbers in told)
    run_job(other_bench.job(tune, tune, report), silently)
    assert episodes(bench.store, report).equals(episodes(other_bench.store, report))


def test_a_training_continued_from_its_rung_is_equal_to_an_undisturbed_one(bench: Bench, other_bench: Bench) -> None:
    rung, whole = bench.trial(train={"steps": 9}), bench.trial(train={"steps": 20})
    run_job(bench.job(rung, keep_trajectory=True), silently)
    assert bench.store.scratch("trajectory", rung.trajectory_id).joinpath("checkpoints").is_dir()
    told: list[Mapping[str, float]] = []
    run_job(bench.job(whole), told.append)
    assert min(numbers["step"] for numbers in told) > 9
    run_job(other_bench.job(whole), silently)
    assert bench.weights(whole) == other_bench.weights(whole)
    assert bench.weights(whole) != bench.weights(rung)
    assert steps_of(bench.store.curve(whole.weights_id))[:3] == [1, 4, 8]


def test_a_rung_whose_checkpoints_are_lost_is_trained_from_the_start(bench: Bench, other_bench: Bench) -> None:
    rung, whole = bench.trial(train={"steps": 9}), bench.trial(train={"steps": 20})
    run_job(bench.job(rung, keep_trajectory=True), silently)
    shutil.rmtree(bench.store.scratch("trajectory", rung.trajectory_id))
    run_job(bench.job(whole), silently)
    run_job(other_bench.job(whole), silently)
    assert bench.weights(whole) == other_bench.weights(whole)


def test_a_longer_trainings_checkpoints_are_no_start_for_a_shorter_one(bench: Bench, other_bench: Bench) -> None:
    long, short = bench.trial(train={"steps": 20}), bench.trial(train={"steps": 7})
    run_job(bench.job(long, keep_trajectory=True), silently)
    run_job(bench.job(short), silently)
    run_job(other_bench.job(short), silently)
    assert bench.weights(short) == other_bench.weights(short)


# Faults


def test_a_training_that_diverges_is_a_failed_record_with_its_reason(bench: Bench) -> None:
    trial = bench.trial(train={"learning_rate": 1e30})
    assert run_job(bench.job(trial, trial), silently) == "failed"
    record = training_of(bench.store, trial)
    assert record["status"] == "failed"
    assert "the training has diverged" in record["reason"]
    assert "\n" not in record["reason"]
    assert bench.store.stage("weights", trial.weights_id) is None
    assert bench.store.get("evaluation", trial.trial_id) is None


def test_a_training_that_diverges_in_its_last_step_leaves_no_weights(bench: Bench) -> None:
    # The loss of a step is taken before its update: what the last update spoilt shows in the weights alone.
    trial = bench.trial(train={"learning_rate": 3e38, "steps": 1})
    assert run_job(bench.job(trial, trial), silently) == "failed"
    assert "diverged" in training_of(bench.store, trial)["reason"]


def test_a_world_that_fails_is_a_failed_evaluation_and_never_a_score(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune, report = bench.trial(evaluation={"split": "tune"}), bench.trial()
    _break_the_world(monkeypatch, TaskFault("the server http://x does not answer\nfor many reasons"))
    assert run_job(bench.job(tune, tune, report), silently) == "finished"
    for trial in (tune, report):
        record = evaluation_of(bench.store, trial)
        assert (record["status"], record["reason"]) == ("failed", "TaskFault: the server http://x does not answer")
        assert "score" not in record
        assert bench.store.stage("evaluation", trial.trial_id) is None
    monkeypatch.undo()
    run_job(bench.job(tune, tune, report), silently)
    assert evaluation_of(bench.store, report)["status"] == "finished"


@pytest.mark.parametrize("fault", [RuntimeError(""), ValueError("no such reply"), KeyError("standard")])
def test_whatever_a_world_raises_is_a_reason_of_one_line(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    trial = bench.trial()
    _break_the_world(monkeypatch, fault)
    run_job(bench.job(trial, trial), silently)
    record = evaluation_of(bench.store, trial)
    assert record["status"] == "failed"
    assert record["reason"].startswith(f"{type(fault).__name__}: ")
    assert "\n" not in record["reason"]


def test_what_a_training_took_is_summed_over_its_attempts(bench: Bench) -> None:
    trial = bench.trial()
    short = dataclasses.replace(trial, train=dataclasses.replace(trial.train, steps=5))
    assert short.trajectory_id == trial.trajectory_id
    run_job(bench.job(short, keep_trajectory=True), silently)
    file = bench.store.scratch("trajectory", trial.trajectory_id) / SECONDS_FILE
    took = training_of(bench.store, short)["train_seconds"]
    assert float(file.read_text()) == took
    file.write_text("1000.0")  # as if it had taken as long
    run_job(bench.job(trial), silently)
    assert 1000 < training_of(bench.store, trial)["train_seconds"] < 1000 + 60


def test_what_a_training_took_is_noted_though_its_folder_was_dropped_meanwhile(tmp_path: Path) -> None:
    file = tmp_path / "trajectory" / SECONDS_FILE
    clock = train_weights._Clock(file, before=1000.0, writes=True)
    clock.note(now=True)
    shutil.rmtree(file.parent)  # by another sweep, which shares it
    clock.note(now=True)
    assert float(file.read_text()) == clock.seconds > 1000


def test_a_machine_that_is_lost_under_an_evaluation_elsewhere_is_no_row(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = bench.trial()
    run_job(bench.job(trial), silently)
    lost = Fault("machine", "NodeDiedError", "the node is gone")
    monkeypatch.setattr(job_module, "call", lambda *_, **__: lost)
    job = dataclasses.replace(bench.job(trial, trial), resources=Resources(gpus_per_worker=1.0))
    with pytest.raises(MachineFault, match="the node is gone"):
        run_job(job, silently)
    assert bench.store.get("evaluation", trial.trial_id) is None
    broken = Fault("program", "ValueError", "no such reply")
    monkeypatch.setattr(job_module, "call", lambda *_, **__: broken)
    assert run_job(job, silently) == "finished"
    assert evaluation_of(bench.store, trial)["reason"] == "ValueError: no such reply"


def test_a_job_of_a_group_does_nothing_heavy_where_it_waits(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its trial has reserved nothing there: candidates are drawn, and episodes played, where a worker has a place."""
    parts: list[str] = []

    def somewhere(part: Any, item: object, tell: Any, *, gpus: float, at: Any) -> None:
        assert gpus == 0.0
        at("there")
        parts.append(part.__name__)
        part(item, tell)

    def group(loop: Any, config: object, *, workers: int, on_report: Any, at: Any, **_: object) -> GroupResult:
        parts.append(f"{workers} workers")
        at(["there", "elsewhere"])
        return run_here(loop, config, on_report=on_report)

    monkeypatch.setattr(job_module, "call", somewhere)
    monkeypatch.setattr(train_weights, "run_group", group)
    trial = bench.trial("chai", train={"proposals": 2, "proposal_tokens": 4, "polyak": 0.1}, decode={"candidates": 2})
    told, placed = list[Mapping[str, float]](), list[Sequence[str]]()
    job = dataclasses.replace(bench.job(trial, trial), resources=Resources(workers=2))
    assert run_job(job, told.append, placed.append) == "finished"
    assert placed == [["there"], ["there", "elsewhere"], ["there"]]
    assert parts == ["draw", "2 workers", "evaluate_cells"]
    assert max(numbers.get("dialogues_drawn", 0) for numbers in told) == 16
    assert training_of(bench.store, trial)["workers"] == 1  # as many as there were: the group above is pretended


def test_candidates_that_cannot_be_drawn_are_a_failed_training(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = bench.trial("chai", train={"proposals": 2, "proposal_tokens": 4}, decode={"candidates": 2})
    fault = Fault("program", "ValueError", "no end")
    monkeypatch.setattr(job_module, "call", lambda *_, **__: fault)
    job = dataclasses.replace(bench.job(trial, trial), resources=Resources(workers=2))
    assert run_job(job, silently) == "failed"
    assert training_of(bench.store, trial)["reason"] == "ValueError: no end"


def test_weights_that_are_seen_late_are_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS, where the folder in which a worker elsewhere has put them may be a minute old here."""
    trial, has, looks = bench.trial(), Store.has, list[str]()

    def late(store: Store, kind: str, key: str) -> bool:
        looks.append(kind)
        return (kind != "weights" or key != trial.weights_id or len(looks) >= 60) and has(store, kind, key)

    monkeypatch.setattr(Store, "has", late)
    monkeypatch.setattr(train_weights, "SEEN_SECONDS", 60.0)
    monkeypatch.setattr(train_weights, "LOOK_SECONDS", 0.001)
    assert run_job(bench.job(trial), silently) == "finished"
    assert training_of(bench.store, trial)["status"] == "finished"


def test_weights_that_never_come_are_the_machines_fault(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    trial, has = bench.trial(), Store.has
    monkeypatch.setattr(Store, "has", lambda store, kind, key: key != trial.weights_id and has(store, kind, key))
    monkeypatch.setattr(train_weights, "SEEN_SECONDS", 0.2)
    with pytest.raises(MachineFault, match="are not seen here after 0 s"):
        run_job(bench.job(trial), silently)
    assert bench.store.get("training", trial.weights_id) is None


class Killed(BaseException):
    """Stands for signal 9: nothing of ours catches it."""


@pytest.mark.parametrize("before", [None, "stopped", "failed"])
def test_a_training_whose_writer_was_killed_before_its_record_is_recorded_by_the_next(
    bench: Bench, other_bench: Bench, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    trial = bench.trial()
    if before is not None:
        bench.store.put("training", trial.weights_id, {"status": before, "reason": "of an earlier attempt"})
    put = Store.put

    def killed(store: Store, kind: str, *values: Any) -> None:
        if kind == "training":
            raise Killed
        put(store, kind, *values)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "put", killed)
        with pytest.raises(Killed):
            run_job(bench.job(trial, trial), silently)
    assert bench.store.stage("weights", trial.weights_id) is not None
    assert run_job(bench.job(trial, trial), silently) == "finished"
    run_job(other_bench.job(trial, trial), silently)
    ours, theirs = (training_of(each.store, trial) for each in (bench, other_bench))
    assert ours.keys() == theirs.keys()
    differing = {name for name in ours if ours[name] != theirs[name]}
    assert differing <= {"train_seconds", "started_at", "finished_at"}
    assert 0 < ours["train_seconds"] < 600
    assert findings(bench.store) == []


def test_what_ray_train_noted_of_a_training_whose_writer_was_killed_behind_its_weights_goes_with_the_next_job(
    bench: Bench,
) -> None:
    trial = bench.trial()
    run_job(bench.job(trial), silently)
    notes = bench.store.scratch("group", trial.trajectory_id)
    (notes / trial.weights_id).mkdir()
    assert run_job(bench.job(trial, trial), silently) == "finished"
    assert not notes.exists()


@pytest.mark.parametrize("fault", [None, Killed()])
def test_a_worker_group_finds_no_notes_of_an_earlier_one_and_leaves_none(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fault: BaseException | None
) -> None:
    found: list[str] = []

    def group(loop: Any, config: object, *, storage: Path, on_report: Any, **_: object) -> GroupResult:
        found.extend(path.name for path in storage.iterdir())
        (storage / "notes").mkdir()
        if fault is not None:
            raise fault
        return run_here(loop, config, on_report=on_report)

    monkeypatch.setattr(train_weights, "run_group", group)
    trial = bench.trial()
    (bench.store.scratch("group", trial.trajectory_id) / "earlier").mkdir()
    job = dataclasses.replace(bench.job(trial), resources=Resources(ray_train=True))
    if fault is None:
        assert run_job(job, silently) == "finished"
    else:
        with pytest.raises(Killed):
            run_job(job, silently)
    assert found == []
    assert list(bench.store.folder.glob("scratch/group/*/*")) == []


@pytest.mark.parametrize("owner", ["machine", "program"])
def test_no_worker_group_tries_again_by_itself_what_failed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, owner: Owner
) -> None:
    """Its own fault becomes a row at once; a machine's is for the schedule, which waits before it tries again."""
    tries: list[int] = []

    def group_that_fails(*_: object, **__: object) -> GroupResult:
        tries.append(1)
        return GroupResult({}, Fault(owner, "SomeError", "of no use", ("there",)))

    monkeypatch.setattr(train_weights, "run_group", group_that_fails)
    trial = bench.trial()
    job = dataclasses.replace(bench.job(trial), resources=Resources(ray_train=True))
    if owner == "machine":
        with pytest.raises(MachineFault, match="machine: SomeError: of no use") as raised:
            run_job(job, silently)
        assert raised.value.nodes == ("there",)
        assert bench.store.get("training", trial.weights_id) is None
    else:
        assert run_job(job, silently) == "failed"
        assert training_of(bench.store, trial)["reason"] == "SomeError: of no use"
    assert tries == [1]


def test_a_machine_without_memory_is_no_row(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = bench.trial()
    _break_the_world(monkeypatch, MemoryError())
    with pytest.raises(MemoryError):
        run_job(bench.job(trial, trial), silently)
    assert bench.store.get("evaluation", trial.trial_id) is None


def _break_the_world(monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    def step(self: Bandit, environments: Sequence[Environment], utterances: Sequence[str]) -> list[Reply]:
        raise fault

    monkeypatch.setattr(Bandit, "step", step)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"gpus_per_worker": -1.0}, "gpus_per_worker must be at least 0, got -1"),
        ({"gpus_per_worker": float("nan")}, "gpus_per_worker must be at least 0, got nan"),
        ({"micro_batch": -1}, "micro_batch must be at least 0, got -1"),
        ({"checkpoint_every": 0}, "checkpoint_every must be at least 1, got 0"),
        ({"log_every": 0}, "log_every must be at least 1, got 0"),
        ({"shard": True}, "sharding needs at least 2 workers, got 1"),
        ({"shard": True, "workers": 4, "least_workers": 1}, "sharding needs at least 2 workers, got 1"),
        ({"workers": 2, "least_workers": 3}, "between 1 and the number of workers, 2, got 3"),
        ({"workers": 2, "least_workers": 0}, "between 1 and the number of workers, 2, got 0"),
        ({"shard": True, "workers": 2, "gpus_per_worker": 0.5}, "sharding needs a whole GPU for each worker, got 0.5"),
    ],
)
def test_resources_are_refused_outside_their_ranges(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Resources(**change)


def test_a_job_of_fewer_workers_is_a_group_as_before() -> None:
    all_of_them = Resources(workers=2, least_workers=1, micro_batch=4)
    assert all_of_them.with_workers(2) is all_of_them
    alone = all_of_them.with_workers(1)
    assert (alone.workers, alone.micro_batch, alone.in_group) == (1, 4, True)
    assert str(alone.need) == "1 worker with 1 CPU each"
    assert str(Resources(workers=4, least_workers=2).with_workers(3).need) == "3 workers with 1 CPU each"
    assert Resources().with_workers(1) == Resources()


@pytest.mark.parametrize(
    ("resources", "in_group"),
    [({}, False), ({"ray_train": True}, True), ({"workers": 2}, True), ({"gpus_per_worker": 0.5}, True)],
)
def test_a_worker_group_is_used_on_request_and_wherever_it_is_needed(resources: dict[str, Any], in_group: bool) -> None:
    assert Resources(**resources).in_group is in_group
