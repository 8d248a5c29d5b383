"""SIGINT and SIGTERM: the step is finished, its checkpoint written, rows say so, and nothing of ours stays behind."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pytest
from services import users_of

from ilql.checkpoint import check_checkpoint
from sweeps.stopping import Asked, JobStopped, Signals
from sweeps.store import Store
from sweeps.work import run_job

if TYPE_CHECKING:
    from conftest import Bench, Commands

pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "sweeps" / "bandit_ablation.py"
STEPS = 3000
"""Enough that a signal comes in between."""
ONE_TRAINING = (
    "--preset", "smoke", "--methods", "bc", "--trials", "0", "--episodes", "64",
    "--set", f"behaviour.steps={STEPS}", "--concurrent", "1",
)  # fmt: skip


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Where a program's Ray keeps its files: by them its processes are known, whatever name and parent they have."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # short: unix sockets lie in it
    yield folder
    for process in users_of(folder):
        os.kill(process, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str], *, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "".join(process.communicate())
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def left_over(folder: Path, *, seconds: float = 30) -> set[int]:
    """Processes of a Ray that are there after some time."""
    deadline = time.monotonic() + seconds
    while (left := users_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def checkpoints(store: Path) -> list[Path]:
    return sorted(store.glob("scratch/trajectory/*/*/checkpoints/step-*"))


def tell(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Ctrl-C reaches all processes of the terminal's group; whoever ends a job tells its first process."""
    if number is signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_a_signal_while_it_trains_loses_no_step_and_a_rerun_goes_on(
    commands: Commands, tmp_path: Path, ray_folder: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "store"
    tracking = f"sqlite:///{tmp_path / 'mlflow.db'}"
    options = (SCRIPT, *ONE_TRAINING, "--store", str(folder), "--tracking-uri", tracking)
    process = commands.start(*options, RAY_TMPDIR=str(ray_folder))
    wait_until(lambda: checkpoints(folder), process)
    time.sleep(1.0)  # somewhere behind it
    tell(process, number)
    out, err = process.communicate(timeout=120)

    assert process.returncode == 130, out + err
    assert "Traceback" not in out + err
    (line,) = [line for line in out.splitlines() if line.startswith("stopped")]
    said, _, command = line.partition("the same command goes on from here: ")
    assert said.startswith("stopped; ")
    assert f"{SCRIPT} {' '.join(ONE_TRAINING)} --store {folder}" in command
    assert [line.partition(":")[0] for line in err.splitlines()] == ["stopping"]
    assert left_over(ray_folder) == set()
    store = Store(folder)
    assert (list(store.leases()), list((folder / "tune").iterdir()), store.problems()) == ([], [], [])
    step = max(check_checkpoint(path) for path in checkpoints(folder))
    (row,) = store.rows()
    assert (row["status"], row["reason"]) == (
        "stopped", f"stopped by a signal at step {step}; a rerun goes on from there",
    )  # fmt: skip
    client = mlflow.MlflowClient(tracking)
    (experiment,) = [each for each in client.search_experiments() if each.name != "Default"]
    statuses = {run.info.status for run in client.search_runs([experiment.experiment_id])}
    assert statuses == {"KILLED"}

    done = commands.run(*options)
    assert done.status == 0, done.out + done.err
    (row,) = store.rows()
    assert row["status"] == "finished"
    curve = store.curve(row["weights_id"])
    assert curve is not None
    assert step < STEPS  # else nothing was left to go on with
    assert f'{{"step": {STEPS},' in curve.read_text(encoding="utf-8")


def test_a_second_signal_ends_it_at_once_without_a_traceback(
    commands: Commands, tmp_path: Path, ray_folder: Path
) -> None:
    folder = tmp_path / "store"
    process = commands.start(
        SCRIPT, *ONE_TRAINING, "--store", str(folder), "--no-mlflow", RAY_TMPDIR=str(ray_folder)
    )  # fmt: skip
    wait_until(lambda: checkpoints(folder), process)
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    assert "Traceback" not in out + err
    assert left_over(ray_folder) == set()
    assert [check_checkpoint(path) for path in checkpoints(folder)] != []  # none is half written


# Without a cluster


def test_a_training_that_was_stopped_has_its_checkpoint_and_ends_in_the_same_bits(
    bench: Bench, other_bench: Bench, tmp_path: Path
) -> None:
    trial = bench.trial("ilql")
    job = dataclasses.replace(bench.job(trial, trial), stop=str(tmp_path / "stop"))
    (tmp_path / "stop").touch()
    with pytest.raises(JobStopped, match="stopped by a signal at step 1;"):
        run_job(job, lambda numbers: None)
    (checkpoint,) = checkpoints(bench.store.folder)  # one is due every fifth step only
    assert check_checkpoint(checkpoint) == 1
    assert (status(bench, "training", trial.weights_id), bench.store.stage("weights", trial.weights_id)) == (
        "stopped", None,
    )  # fmt: skip
    (tmp_path / "stop").unlink()
    assert run_job(job, lambda numbers: None) == "finished"
    assert run_job(other_bench.job(trial, trial), lambda numbers: None) == "finished"
    assert bench.weights(trial) == other_bench.weights(trial)
    assert status(bench, "training", trial.weights_id) == "finished"


def status(bench: Bench, kind: str, key: str) -> object:
    record = bench.store.get(kind, key)
    return None if record is None else record["status"]


def test_an_evaluation_that_is_stopped_records_nothing(bench: Bench, tmp_path: Path) -> None:
    trial = bench.trial("bc", evaluation={"episodes": 8})  # the template has its weights
    job = dataclasses.replace(bench.job(trial, trial), stop=str(tmp_path / "stop"))
    (tmp_path / "stop").touch()
    with pytest.raises(JobStopped):
        run_job(job, lambda numbers: None)
    assert bench.store.get("evaluation", trial.trial_id) is None
    (tmp_path / "stop").unlink()
    assert run_job(job, lambda numbers: None) == "finished"
    assert status(bench, "evaluation", trial.trial_id) == "finished"


def test_nobody_who_was_not_asked_stops(tmp_path: Path) -> None:
    assert not Asked(None)()
    asked = Asked(str(tmp_path / "stop"))
    assert not asked()
    (tmp_path / "stop").touch()
    assert not asked()  # it looks at most twice a second
    time.sleep(0.6)
    assert asked()


def test_the_first_signal_asks_and_the_second_interrupts(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with Signals(tmp_path / "stop") as signals:
        assert not (tmp_path / "stop").exists()
        signal.raise_signal(signal.SIGTERM)
        assert (tmp_path / "stop").exists()
        assert signals.received is signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_jobs_that_do_not_stop_and_say_nothing_are_not_waited_for(tmp_path: Path) -> None:
    with Signals(tmp_path / "stop", patience=0.1):
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            time.sleep(20)


def test_telling_those_that_are_away_keeps_nobody_waiting(tmp_path: Path) -> None:
    telling = threading.Event()

    def tell() -> None:
        telling.set()
        time.sleep(3.0)  # an object store that does not answer

    began = time.monotonic()
    with Signals(tmp_path / "stop", on_first=tell, patience=0.2):
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            time.sleep(20)
    assert telling.is_set()
    assert time.monotonic() - began < 2.5


def test_a_block_that_has_ended_is_not_interrupted_by_who_still_tells(tmp_path: Path) -> None:
    interrupted: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: interrupted.append(number))
    try:
        with Signals(tmp_path / "stop", on_first=lambda: time.sleep(0.6), patience=0.3):
            signal.raise_signal(signal.SIGTERM)
        time.sleep(1.0)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert interrupted == []


def test_jobs_that_say_how_far_they_are_are_waited_for(tmp_path: Path) -> None:
    with Signals(tmp_path / "stop", patience=2.0) as signals:
        signal.raise_signal(signal.SIGINT)
        for _ in range(40):  # four seconds
            time.sleep(0.1)
            signals.heard()
    time.sleep(2.5)  # and nobody interrupts what comes after
