"""The whole machine on the world whose answers are known: from the command line through Ray to the table."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sweeps.policy import load_policy
from sweeps.spec import TrialSpec
from sweeps.store import Store

if TYPE_CHECKING:
    from conftest import BanditSweep, Commands

pytestmark = pytest.mark.timeout(1200)

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "sweeps" / "bandit_ablation.py"
RESULTS = ("trial_id", "weights_id", "origin", "method", "seed", "status", "reason", "score", "score_sd", "tune_score")
QUICK = ("--methods", "sarsa", "--trials", "0", "--episodes", "64", "--no-mlflow")
"""Options of a sweep that is over in seconds: the behaviour policy and one value training."""


def results(store: Store, sweep: str) -> dict[str, dict[str, Any]]:
    """What must not depend on how often a sweep was interrupted, by trial."""
    return {row["trial_id"]: {name: row.get(name) for name in RESULTS} for row in store.rows(sweep)}


def table_of(out: str) -> str:
    """The ablation table of a run's output, and all comparisons behind it."""
    start, end = out.index("Ablation on bandit"), out.index("report  ")
    return out[start:end]


def probability(rows: list[dict[str, Any]]) -> tuple[float, float]:
    """The one row's P(good arm), and its standard error."""
    (row,) = rows
    return row["score"], math.sqrt(row["score"] * (1 - row["score"]) / row["episodes"])


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str], *, seconds: float = 400) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "".join(process.communicate())
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def belonging_to(mark: str) -> set[int]:
    """Processes that carry the mark in their environment, children of the marked one included."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"SWEEPS_TEST_MARK={mark}\0".encode() in (folder / "environ").read_bytes():
                found.add(int(folder.name))
        except OSError:
            continue
    return found


def wait_until_gone(mark: str, *, seconds: float = 240) -> set[int]:
    """Processes of the mark that are still there after some time; they are ended, so that no test leaves any."""
    deadline = time.monotonic() + seconds
    while (left := belonging_to(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    for process in left:
        os.kill(process, signal.SIGKILL)
    return left


# The numbers


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
def test_sarsa_takes_the_good_arm_as_often_as_arithmetic_says(bandit_sweep: BanditSweep, beta: float) -> None:
    rows = bandit_sweep.store.rows(bandit_sweep.name)
    score, error = probability([row for row in rows if row["method"] == "sarsa" and row["decode.beta"] == beta])
    assert abs(score - 1 / (1 + math.exp(-beta))) < 3 * error


@pytest.mark.parametrize("tau", [0.7, 0.9])
def test_ilql_takes_the_good_arm_as_often_whatever_its_expectile(bandit_sweep: BanditSweep, tau: float) -> None:
    # V cancels in the softmax: only Q of the two arms, 1 and 0, counts.
    rows = [row for row in bandit_sweep.store.rows(bandit_sweep.name) if row.get("train.tau") == tau]
    score, error = probability([row for row in rows if row["method"] == "ilql" and row["decode.beta"] == 2.0])
    assert abs(score - 1 / (1 + math.exp(-2))) < 3 * error


def test_filtered_cloning_takes_the_good_arm_only_and_cloning_half_the_time(bandit_sweep: BanditSweep) -> None:
    rows = [row for row in bandit_sweep.store.rows(bandit_sweep.name) if row["status"] == "finished"]
    scores = {row["method"]: row["score"] for row in rows}
    assert scores["filtered_bc"] > 0.99
    assert scores["bc"] == pytest.approx(0.5, abs=3 * math.sqrt(0.25 / 1000))


def test_every_cell_has_its_row(bandit_sweep: BanditSweep) -> None:
    rows = bandit_sweep.store.rows(bandit_sweep.name)
    design = [row for row in rows if row["origin"] == "design"]
    assert len(design) == 11  # BC 1, %BC 1, SARSA 3, ILQL 6
    assert {(row["status"], row["episodes"], row["seed"]) for row in design} == {("finished", 1000, 0)}
    refined = [row["status"] for row in rows if row["origin"] == "refinement"]
    assert sorted(refined) == ["finished"] * 3 + ["stopped"] * 3  # of two proposals, one goes on past its rung
    assert all(row["tune_score"] is not None for row in rows if row["status"] == "finished")


def test_the_run_prints_its_store_its_plan_its_progress_and_its_table(bandit_sweep: BanditSweep) -> None:
    lines = bandit_sweep.out.splitlines()
    assert lines[0] == f"store {bandit_sweep.store.folder}"
    assert "11 cells need 5 trainings and 22 evaluations; 0 and 0 are in the store" in bandit_sweep.out
    assert any(line.startswith("[") and "jobs" in line for line in lines)
    for title in ("| ILQL", "| SARSA", "| %BC", "| BC"):
        assert any(line.startswith(title) for line in lines)
    assert "optuna-dashboard " in bandit_sweep.out
    assert "mlflow server " in bandit_sweep.out


def test_the_files_it_names_are_there(bandit_sweep: BanditSweep) -> None:
    folder = bandit_sweep.store.folder / "reports" / bandit_sweep.name
    for name in ("report.html", "table.md", "table.tex", "table.csv", "table.json"):
        assert (folder / name).stat().st_size > 0
        assert str(folder / name) in bandit_sweep.out
    assert (bandit_sweep.store.folder / "optuna" / f"{bandit_sweep.name}.log").is_file()
    assert (bandit_sweep.store.folder / "mlflow.db").is_file()


def test_the_store_is_sound_and_keeps_no_partial_work(bandit_sweep: BanditSweep) -> None:
    assert bandit_sweep.store.problems() == []
    scratch = bandit_sweep.store.folder / "scratch"
    assert [path for path in scratch.rglob("*") if path.is_file()] == []


def test_curves_are_kept_with_the_weights(bandit_sweep: BanditSweep) -> None:
    keys = {row["weights_id"] for row in bandit_sweep.store.rows(bandit_sweep.name) if row["status"] == "finished"}
    for key in keys:
        curve = bandit_sweep.store.curve(key)
        assert curve is not None
        assert len(curve.read_text().splitlines()) >= 5


# Once more


def test_a_rerun_finds_everything_and_prints_the_same_table(commands: Commands, bandit_sweep: BanditSweep) -> None:
    before = results(bandit_sweep.store, bandit_sweep.name)
    stages = _stages(bandit_sweep.store)
    created = {info.name: info.created_at for info in bandit_sweep.store.sweeps()}
    done = commands.bandit(bandit_sweep.store.folder)
    assert done.status == 0, done.err
    assert "5 and 22 are in the store, 0 and 0 are to be done" in done.out
    assert "the design costs nothing more" in done.out
    assert table_of(done.out) == table_of(bandit_sweep.out)
    assert results(bandit_sweep.store, bandit_sweep.name) == before
    assert _stages(bandit_sweep.store) == stages
    assert {info.name: info.created_at for info in bandit_sweep.store.sweeps()} == created


@pytest.mark.long
def test_a_rerun_plays_again_what_lost_its_episodes_and_prints_the_same_table(
    commands: Commands, bandit_sweep: BanditSweep, tmp_path: Path
) -> None:
    folder = tmp_path / "store"
    shutil.copytree(bandit_sweep.store.folder, folder, ignore=shutil.ignore_patterns("mlflow*"))
    first, second = sorted(folder.glob("stages/evaluation/*/*"))[:2]
    (first / "episodes.parquet").write_bytes(b"cut")
    shutil.rmtree(second)
    done = commands.bandit(folder, "--no-mlflow")
    assert done.status == 0, done.err
    assert f"2 evaluations lost the episodes or part of them, {first.name} the first: played again" in done.out
    assert "5 and 20 are in the store, 0 and 2 are to be done" in done.out
    assert table_of(done.out) == table_of(bandit_sweep.out)
    assert results(Store(folder), bandit_sweep.name) == results(bandit_sweep.store, bandit_sweep.name)


def _stages(store: Store) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in (store.folder / "stages").glob("*/*/*/about.json")}


@pytest.mark.long
def test_more_seeds_later_train_replicates_only(commands: Commands, bandit_sweep: BanditSweep, tmp_path: Path) -> None:
    shutil.copytree(bandit_sweep.store.folder, tmp_path / "store")
    store = Store(tmp_path / "store")
    trained = {path.parent.name for path in (store.folder / "stages" / "weights").glob("*/*/about.json")}
    done = commands.bandit(
        store.folder, "--name", "replicates", "--methods", "sarsa", "--trials", "0", "--seeds", "2", "--no-mlflow"
    )
    assert done.status == 0, done.err
    # Three trainings are wanted, the behaviour policy's among them; two are those of the earlier sweep.
    assert "3 cells need 3 trainings and 12 evaluations; 2 and 6 are in the store, 1 and 6 are to be done" in done.out
    after = {path.parent.name for path in (store.folder / "stages" / "weights").glob("*/*/about.json")}
    rows = store.rows("replicates")
    assert after - trained == {row["weights_id"] for row in rows if row["seed"] == 1}
    assert {(row["seed"], row["decode.beta"]) for row in rows} == {(s, b) for s in (0, 1) for b in (0.0, 1.0, 2.0)}
    first = {row["trial_id"]: row["score"] for row in rows if row["seed"] == 0}
    earlier = {row["trial_id"]: row.get("score") for row in bandit_sweep.store.rows(bandit_sweep.name)}
    assert first == {trial: earlier[trial] for trial in first}


# Interrupted


# What a driver's death leaves to the same command CI sees in `tests/crash`.
@pytest.mark.long
@pytest.mark.parametrize(
    ("options", "rows"), [(("--methods", "sarsa", "--trials", "0"), 3), ((), 17)], ids=["a part of it", "all of it"]
)
def test_killed_and_run_again_it_ends_with_the_rows_of_an_undisturbed_run(
    commands: Commands, bandit_sweep: BanditSweep, tmp_path: Path, options: tuple[str, ...], rows: int
) -> None:
    folder = tmp_path / "store"
    mark = f"{os.getpid()}-killed"
    process = commands.start(
        SCRIPT, "--preset", "smoke", "--store", str(folder), "--no-mlflow", *options, SWEEPS_TEST_MARK=mark
    )  # fmt: skip
    try:
        # In the middle: the behaviour policy is there, and a value training has written its first checkpoint.
        wait_until(
            lambda: (
                any(folder.glob("stages/weights/*/*/about.json"))
                and any(folder.glob("scratch/trajectory/*/*/checkpoints/step-*"))
            ),
            process,
        )
    finally:
        process.kill()
        process.communicate()
        wait_until_gone(mark, seconds=5)  # agents of Ray may outlive a driver that had no time for a word to them
    (name,) = [info.name for info in Store(folder).sweeps()]
    assert len(results(Store(folder), name)) < rows

    done = commands.bandit(folder, "--no-mlflow", *options)
    assert done.status == 0, done.err
    again, undisturbed = Store(folder), results(bandit_sweep.store, bandit_sweep.name)
    found = results(again, name)
    assert found == {trial: undisturbed[trial] for trial in found}
    assert len(found) == rows
    for row in found.values():
        if row["status"] == "finished":
            assert weights_of(again, row["weights_id"]) == weights_of(bandit_sweep.store, row["weights_id"])


def weights_of(store: Store, weights_id: str) -> bytes:
    folder = store.stage("weights", weights_id)
    assert folder is not None
    return (folder / "weights.safetensors").read_bytes()


# What it is for


def test_a_finished_policy_replies(bandit_sweep: BanditSweep) -> None:
    rows = bandit_sweep.store.rows(bandit_sweep.name)
    clone = next(row for row in rows if row["method"] == "filtered_bc")
    policy = load_policy(clone["trial_id"][:8], bandit_sweep.store)
    assert policy.spec.method == "filtered_bc"
    assert [policy.reply([("pull", False)], seed=seed) for seed in range(5)] == ["b"] * 5


def test_a_sampling_policy_replies_by_its_seed(bandit_sweep: BanditSweep) -> None:
    rows = bandit_sweep.store.rows(bandit_sweep.name)
    tilted = next(row for row in rows if row["method"] == "sarsa" and row["decode.beta"] == 1.0)
    policy = load_policy(tilted["trial_id"], bandit_sweep.store)
    said = [policy.reply([("pull", False)], seed=seed) for seed in range(40)]
    assert set(said) == {"a", "b"}
    assert said == [policy.reply([("pull", False)], seed=seed) for seed in range(40)]


def test_a_policy_that_is_none_or_several_is_refused(bandit_sweep: BanditSweep) -> None:
    with pytest.raises(ValueError, match="'zzzz' is no trial of the store"):
        load_policy("zzzz", bandit_sweep.store)
    with pytest.raises(ValueError, match=r"a trial's id must be unique, '' begins 17 of them"):
        load_policy("", bandit_sweep.store)


def test_a_policy_that_was_stopped_cannot_speak(bandit_sweep: BanditSweep) -> None:
    stopped = next(row for row in bandit_sweep.store.rows(bandit_sweep.name) if row["status"] == "stopped")
    with pytest.raises(ValueError, match="must have been trained, its weights"):
        load_policy(stopped["trial_id"], bandit_sweep.store)


def test_a_members_spec_is_the_trial_it_names(bandit_sweep: BanditSweep) -> None:
    for member in bandit_sweep.store.members(bandit_sweep.name):
        spec = TrialSpec.from_json(member["spec"])
        assert (spec.trial_id, spec.weights_id, spec.cell_id) == (
            member["trial_id"], member["weights_id"], member["cell_id"],
        )  # fmt: skip
        assert spec.columns() == member["columns"]


@pytest.mark.parametrize(
    "workers", [pytest.param(1, marks=pytest.mark.long), 2], ids=["a group of one", "a group of two"]
)
def test_a_ray_train_group_learns_what_one_actor_does(
    commands: Commands, bandit_sweep: BanditSweep, tmp_path: Path, workers: int
) -> None:
    done = commands.bandit(
        tmp_path / "store", "--methods", "bc", "--trials", "0", "--episodes", "64", "--no-mlflow",
        "--ray-train", "--workers", str(workers),
    )  # fmt: skip
    assert done.status == 0, done.out + done.err
    assert "| BC " in done.out
    (alone,) = (row["weights_id"] for row in bandit_sweep.store.rows() if row["method"] == "bc")
    curves = []
    for store in (bandit_sweep.store, Store(tmp_path / "store")):
        path = store.curve(alone)  # the same key: how many train together decides no number
        assert path is not None
        curves.append([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()])
    assert [point["step"] for point in curves[0]] == [point["step"] for point in curves[1]]
    for one, other in zip(*curves, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], abs=1e-5)


@pytest.mark.long
def test_a_sweep_in_which_nothing_finished_is_no_success(commands: Commands, tmp_path: Path) -> None:
    done = commands.bandit(tmp_path / "store", *QUICK, "--set", "behaviour.learning_rate=1e30")
    assert done.status == 1
    assert "nothing has finished" in done.out
    assert "its behaviour policy failed" in Store(tmp_path / "store").rows()[0]["reason"]
