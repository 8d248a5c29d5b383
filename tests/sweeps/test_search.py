"""Tune as the schedule's servant: what it is given to do, and that a sweep in which nothing moves comes to an end."""

from __future__ import annotations

import dataclasses
import errno
import functools
import io
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from ray.exceptions import OutOfMemoryError

from cluster.watchdog import StuckError
from sweeps import schedule, search
from sweeps.experiment import driving
from sweeps.job import Job, MachineFault, Resources
from sweeps.leases import LeaseLostError
from sweeps.progress import Progress
from sweeps.stopping import Signals
from sweeps.store import MARK, Store

if TYPE_CHECKING:
    from conftest import Commands, Follow, MakeSweep, MakeTrainings, MakeTrial, PretendedSweep, Worker

ROOT = Path(__file__).resolve().parents[2]
STUCK = 2.0
PATIENCE = 20.0
"""Seconds after which a pretended Tune gives up: a watchdog that works is long done by then."""


class PretendedTuner:
    """Stands for Tune's Tuner with two places: asks for a job all the time while one is free, as Tune does."""

    act: Callable[[PretendedTuner], None]

    def __init__(self, trainable: object, *, tune_config: Any, run_config: Any) -> None:
        self.algorithm, self.concurrent = tune_config.search_alg, tune_config.max_concurrent_trials
        (self.listener,) = run_config.callbacks
        self.folder = run_config.storage_path

    def fit(self) -> None:
        """Do whatever the test wants to see."""
        type(self).act(self)

    def ask(self, *, seconds: float) -> None:
        """Ask again and again for a job while there is none."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            assert self.algorithm.suggest("free place") is None
            time.sleep(0.01)

    def tell(self, name: str, **numbers: float) -> None:
        """A running job tells something; Tune adds where its process is."""
        told = {**numbers, "pid": 4711, "hostname": "a-machine"}
        self.listener.on_trial_result(1, [], SimpleNamespace(config={"name": name}), told)


@pytest.fixture
def sweep(make_sweep: MakeSweep, make_trainings: MakeTrainings, monkeypatch: pytest.MonkeyPatch) -> PretendedSweep:
    """The behaviour policy, and SARSA that waits for it; Tune is pretended."""
    for name in ("TUNE_DISABLE_SIGINT_HANDLER", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "RAY_AIR_NEW_OUTPUT",
                 "TUNE_PRINT_ALL_TRIAL_ERRORS", "TUNE_MAX_PENDING_TRIALS_PG"):  # fmt: skip
        monkeypatch.setenv(name, os.environ.get(name, "1"))
    monkeypatch.setattr(search, "STUCK_SECONDS", STUCK)
    monkeypatch.setattr(search, "describe_cluster", lambda: "1 of 2 CPU free")
    monkeypatch.setattr(search, "release_orphans", lambda: None)
    monkeypatch.setattr(search.tune, "Tuner", PretendedTuner)
    return make_sweep(make_trainings("sarsa"))


class Watched:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.changes = self.ticks = self.stopping = 0

    def told(self, name: str, numbers: Mapping[str, float], where: str | None) -> None:
        self.said.append(f"{name.partition('-')[0]} {dict(numbers)}")

    def changed(self) -> None:
        self.changes += 1

    def lost(self, name: str, why: str, wait: float | None) -> None:
        self.said.append(f"{name.partition('-')[0]}: {why}, {wait}")

    def tick(self, *, stopping: bool) -> None:
        self.ticks += 1
        self.stopping += stopping

    def running(self) -> str:
        return "running: whatever"


class Room:
    """So many places, and what became of the jobs that had them."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.ends: list[tuple[str, list[str]]] = []

    def __call__(self) -> int:
        return self.places

    def lost(self, nodes: Sequence[str]) -> None:
        self.ends.append(("lost", list(nodes)))

    def done(self, nodes: Sequence[str]) -> None:
        self.ends.append(("done", list(nodes)))


def run(sweep: PretendedSweep, folder: Path, room: Room | None = None) -> tuple[list[str], int]:
    """Run it; what its jobs told, and how often a job was said to have started or ended."""
    watched = Watched()
    search.run_schedule(
        sweep.schedule(), places=room or Room(2), resources=Resources(), folder=folder, watcher=watched
    )  # fmt: skip
    return watched.said, watched.changes


def stuck_in(sweep: PretendedSweep, folder: Path, **resources: Any) -> str:
    """What a sweep in which nothing moves says in the end, with the progress that is really printed."""
    schedule = sweep.schedule()
    progress = Progress(sweep.store, "sweep", schedule, io.StringIO())
    with pytest.raises(StuckError) as stuck:
        search.run_schedule(schedule, places=Room(2), resources=Resources(**resources), folder=folder, watcher=progress)
    return str(stuck.value)


def test_a_job_that_hangs_while_a_place_is_free_ends_the_sweep_and_is_named(
    sweep: PretendedSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []

    def hang(tuner: PretendedTuner) -> None:
        names.append(tuner.algorithm.suggest("trial 0")["name"])
        tuner.tell(names[0], step=3)
        tuner.ask(seconds=PATIENCE)  # a question is no sign of life

    monkeypatch.setattr(PretendedTuner, "act", hang, raising=False)
    start = time.monotonic()
    said = stuck_in(sweep, tmp_path / "tune")
    assert time.monotonic() - start < PATIENCE
    method, weights, seed = names[0].split("-")
    assert method == "bc"
    assert re.sub(r"\d+ s", "N s", said) == (
        f"nothing was reported for N s: running: bc at step 3 (weights {weights}, seed {seed}, silent for N s, "
        "process 4711 of a-machine); 1 of 2 CPU free"
    )


def test_of_a_worker_group_it_is_not_said_that_it_is_where_it_is_waited_for(
    sweep: PretendedSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(tuner: PretendedTuner) -> None:
        tuner.tell(tuner.algorithm.suggest("trial 0")["name"], step=3)
        tuner.ask(seconds=PATIENCE)

    monkeypatch.setattr(PretendedTuner, "act", hang, raising=False)
    said = stuck_in(sweep, tmp_path / "tune", workers=2)
    assert "running: bc at step 3 (weights " in said
    assert "a-machine" not in said


def test_a_cluster_that_does_not_answer_takes_no_job_out_of_what_is_said(
    sweep: PretendedSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent() -> str:
        raise ConnectionError("its head is away")

    def hang(tuner: PretendedTuner) -> None:
        assert tuner.algorithm.suggest("trial 0") is not None
        tuner.ask(seconds=PATIENCE)

    monkeypatch.setattr(search, "describe_cluster", silent)
    monkeypatch.setattr(PretendedTuner, "act", hang, raising=False)
    said = stuck_in(sweep, tmp_path / "tune")
    assert "running: bc (weights " in said
    assert said.endswith("; the cluster does not say what holds it (ConnectionError: its head is away)")


def test_whoever_watches_is_told_that_time_passes_though_no_job_says_a_word(
    sweep: PretendedSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched()

    def work(tuner: PretendedTuner) -> None:
        assert tuner.algorithm.suggest("trial 0") is not None
        until = time.monotonic() + PATIENCE
        while not watched.ticks and time.monotonic() < until:
            time.sleep(0.01)

    monkeypatch.setattr(search, "CHECK_SECONDS", 0.05)
    monkeypatch.setattr(PretendedTuner, "act", work, raising=False)
    search.run_schedule(
        sweep.schedule(), places=Room(2), resources=Resources(), folder=tmp_path / "tune", watcher=watched
    )
    assert watched.ticks > 0
    assert watched.said == []


def test_a_job_that_tells_how_far_it_is_keeps_the_sweep_alive(
    sweep: PretendedSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def go_on(tuner: PretendedTuner) -> None:
        name = tuner.algorithm.suggest("trial 0")["name"]
        for step in range(8):  # twice the time after which silence would be an end
            tuner.ask(seconds=STUCK / 4)
            tuner.tell(name, step=step, loss=0.5, time_total_s=9.0)

    monkeypatch.setattr(PretendedTuner, "act", go_on, raising=False)
    told, _ = run(sweep, tmp_path / "tune")
    assert told == [f"bc {{'step': {step}, 'loss': 0.5}}" for step in range(8)]


def test_where_memory_is_full_what_ran_is_begun_again_with_half_as_many_at_a_time(
    sweep: PretendedSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[int, list[str]]] = []
    released: list[int] = []
    monkeypatch.setattr(search, "release_all", lambda: released.append(1))
    monkeypatch.setattr(schedule, "back_off_seconds", lambda losses: 0.0)

    def run_out(tuner: PretendedTuner) -> None:
        job = tuner.algorithm.suggest(f"trial {len(begun)}")
        begun.append((tuner.algorithm._concurrent(), [job["name"].partition("-")[0]]))
        if len(begun) < 3:
            raise RuntimeError("Caught unexpected exception") from OutOfMemoryError("2 workers were killed")
        raise RuntimeError("something else")

    monkeypatch.setattr(PretendedTuner, "act", run_out, raising=False)
    with pytest.raises(RuntimeError, match="something else"):
        run(sweep, tmp_path / "tune")
    assert begun == [(2, ["bc"]), (1, ["bc"]), (1, ["bc"])]
    assert len(released) == 2


def test_of_reports_within_a_second_only_those_of_something_new_are_passed_on(
    monkeypatch: pytest.MonkeyPatch, make_trial: MakeTrial, tmp_path: Path
) -> None:
    def work(job: Job, tell: Callable[[Mapping[str, float]], None], placed: object) -> str:
        for numbers in ({"step": 1.0}, {"step": 2.0}, {"episodes": 4.0}, {"estimating": 1.0}, {"episodes": 5.0}):
            tell(numbers)
        return "finished"

    told: list[Mapping[str, Any]] = []
    monkeypatch.setattr(search, "run_job", work)
    monkeypatch.setattr(search, "this_node", lambda: "here")
    monkeypatch.setattr(search.tune, "report", told.append)
    Store(tmp_path / "store")
    search._trial(trial_config(make_trial, tmp_path / "store", mark_of(tmp_path / "store")))
    at, *numbers, end = told
    assert numbers == [{"step": 1.0}, {"episodes": 4.0}, {"estimating": 1.0}, {"episodes": 5.0}]
    assert (at, end) == ({"nodes": ["here"]}, {"status": "finished", "nodes": ["here"]})


def trial_config(make_trial: MakeTrial, folder: Path, mark: str) -> dict[str, str]:
    """What Tune hands a worker."""
    job = Job(store=str(folder), training=make_trial().to_json(), evaluations=(), resources=Resources())
    return {"name": "bc", "job": json.dumps(dataclasses.asdict(job)), "mark": mark}


def mark_of(folder: Path) -> str:
    """What is in a store's mark."""
    return (folder / "store.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("there", [False, True])
def test_a_worker_that_has_no_store_or_another_at_that_path_writes_nothing_and_is_a_machines_fault(
    monkeypatch: pytest.MonkeyPatch, make_trial: MakeTrial, tmp_path: Path, there: bool
) -> None:
    monkeypatch.setattr(search, "AWAY_SECONDS", 0.0)
    monkeypatch.setattr(search, "run_job", lambda *_: pytest.fail("it was run"))
    monkeypatch.setattr(search.tune, "report", lambda told: None)
    folder = tmp_path / "store"
    if there:
        Store(folder)
    with pytest.raises(MachineFault, match="the store must be a folder that all machines share, "):
        search._trial(trial_config(make_trial, folder, '{"format": 1, "made_at": "another day"}'))
    assert folder.exists() == there


def test_more_jobs_run_as_soon_as_the_cluster_has_grown(
    make_sweep: MakeSweep, make_trainings: MakeTrainings, sweep: PretendedSweep, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    room = Room(1)

    def grow(tuner: PretendedTuner) -> None:
        assert tuner.algorithm.suggest("trial 0") is not None
        assert tuner.algorithm.suggest("trial 1") is None
        room.places = 2
        assert tuner.algorithm.suggest("trial 1") is not None
        assert tuner.algorithm.suggest("trial 2") is None

    monkeypatch.setattr(PretendedTuner, "act", grow, raising=False)
    three = make_sweep([*make_trainings("bc"), *make_trainings("filtered_bc", {"train.keep": (0.3, 0.6)})])
    search.run_schedule(
        three.schedule(), places=room, resources=Resources(), folder=tmp_path / "tune", watcher=Watched()
    )  # fmt: skip


def test_a_job_that_starts_or_ends_keeps_the_sweep_alive_and_is_told_once(
    sweep: PretendedSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker: Worker = sweep.worker()

    def work(tuner: PretendedTuner) -> None:
        for trial in ("trial 0", "trial 1"):  # first the behaviour policy, then SARSA
            found = tuner.algorithm.suggest(trial)
            tuner.ask(seconds=0.6 * STUCK)  # both together are longer than silence may be
            worker.work(job_of(found))
            tuner.algorithm.on_trial_complete(trial)
        assert tuner.algorithm.suggest("trial 2") == search.Searcher.FINISHED

    monkeypatch.setattr(PretendedTuner, "act", work, raising=False)
    _, changes = run(sweep, tmp_path / "tune")
    assert worker.trained == ["bc 12 #0", "sarsa 20 #0"]
    assert changes == 4  # two starts, two ends, and not one of some hundred questions


def test_a_job_whose_process_died_is_begun_again_as_another_trial_and_after_five_tries_is_a_failed_row(
    sweep: PretendedSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "back_off_seconds", lambda losses: losses / 100)

    def die(tuner: PretendedTuner) -> None:
        for number in range(schedule.TRIES):
            found = None
            while found is None:
                found = tuner.algorithm.suggest(f"trial {number}")
            tuner.algorithm.on_trial_complete(f"trial {number}", error=True)
            if number == 0:
                assert tuner.algorithm.suggest("trial 1") is None  # it waits
        assert tuner.algorithm.suggest("trial 9") == search.Searcher.FINISHED

    monkeypatch.setattr(PretendedTuner, "act", die, raising=False)
    told, _ = run(sweep, tmp_path / "tune")
    assert told == [f"bc: its process died, {wait}" for wait in (0.01, 0.02, 0.03, 0.04, None)]
    (row,) = sweep.store.rows("sweep")
    assert (row["status"], row["reason"]) == ("failed", "its behaviour policy failed: its process died; tried 5 times")


def test_a_signal_asks_the_jobs_to_stop_and_nothing_is_concluded_from_what_they_leave(
    sweep: PretendedSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(tuner: PretendedTuner) -> None:
        sweep.worker().work(job_of(tuner.algorithm.suggest("trial of the behaviour policy")))
        tuner.algorithm.on_trial_complete("trial of the behaviour policy")
        job = job_of(tuner.algorithm.suggest("trial 0"))
        assert job.stop is not None
        assert not Path(job.stop).exists()
        signal.raise_signal(signal.SIGTERM)
        assert Path(job.stop).exists()
        tuner.algorithm.on_trial_complete("trial 0")
        assert tuner.algorithm.suggest("trial 1") == search.Searcher.FINISHED

    monkeypatch.setattr(PretendedTuner, "act", stop, raising=False)
    with pytest.raises(KeyboardInterrupt):
        run(sweep, tmp_path / "tune")
    assert [trial.state.name for trial in sweep.read_study().trials] == ["RUNNING"]  # SARSA's has not failed


@pytest.mark.parametrize("tells", [True, False])
def test_a_job_that_still_tells_how_far_it_is_is_waited_for_and_a_silent_one_is_not(
    sweep: PretendedSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tells: bool
) -> None:
    watched, waited = Watched(), []

    def stop(tuner: PretendedTuner) -> None:
        name = tuner.algorithm.suggest("trial 0")["name"]
        signal.raise_signal(signal.SIGTERM)
        for step in range(8):  # twice the time after which silence would be an end
            waited.append(step)
            time.sleep(STUCK / 8)
            if tells:
                tuner.tell(name, step=step)
        tuner.algorithm.on_trial_complete("trial 0")

    monkeypatch.setattr(search, "STUCK_SECONDS", 1000.0)
    monkeypatch.setattr(search, "CHECK_SECONDS", 0.05)
    monkeypatch.setattr(search, "Signals", functools.partial(Signals, patience=STUCK / 2))
    monkeypatch.setattr(PretendedTuner, "act", stop, raising=False)
    with pytest.raises(KeyboardInterrupt):
        search.run_schedule(
            sweep.schedule(), places=Room(2), resources=Resources(), folder=tmp_path / "tune", watcher=watched
        )
    assert (waited == list(range(8))) == tells
    assert watched.stopping > 0


def test_tunes_folder_is_made_anew_and_gone_afterwards(
    sweep: PretendedSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tune"
    (folder / "sweep").mkdir(parents=True)
    (folder / "sweep" / "tuner.pkl").write_bytes(b"of a driver that was killed")

    def leave(tuner: PretendedTuner) -> None:
        (own,) = folder.iterdir()
        assert (str(own), list(own.iterdir())) == (tuner.folder, [])
        (own / "tuner.pkl").write_bytes(b"as Tune does")

    monkeypatch.setattr(PretendedTuner, "act", leave, raising=False)
    run(sweep, folder)
    assert not folder.exists()


@pytest.mark.parametrize("asks", [True, False])
def test_a_driver_that_was_followed_ends_at_its_next_turn_and_leaves_its_followers_folder_alone(
    sweep: PretendedSweep, follow: Follow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asks: bool
) -> None:
    folder = tmp_path / "tune"
    lease = driving(sweep.store, "sweep", lambda line: None)

    def sleep(tuner: PretendedTuner) -> None:
        assert tuner.algorithm.suggest("trial 0") is not None
        shutil.rmtree(folder)  # as whoever follows does first
        (folder / "theirs").mkdir(parents=True)
        follow(sweep.store, lease)
        if asks:  # no place is free, and all the same it is looked at
            tuner.algorithm.suggest("trial 1")
            pytest.fail("it went on")
        raise RuntimeError("Trial controller checkpointing failed")  # as Tune, whose folder is gone

    monkeypatch.setattr(PretendedTuner, "act", sleep, raising=False)
    with pytest.raises(LeaseLostError, match=r"^the sweep sweep was taken over"):
        search.run_schedule(
            sweep.schedule(lease=lease), places=Room(1), resources=Resources(), folder=folder, watcher=Watched()
        )
    assert [path.name for path in folder.iterdir()] == ["theirs"]


def test_what_its_machine_did_to_it_is_said_and_stands_in_the_row(
    sweep: PretendedSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "TRIES", 2)
    monkeypatch.setattr(schedule, "back_off_seconds", lambda losses: 0.0)

    def die(tuner: PretendedTuner) -> None:
        for number in range(2):
            found = tuner.algorithm.suggest(f"trial {number}")
            if number == 1:
                told = {"fault": "machine: OSError: No space left on device"}
                tuner.listener.on_trial_result(1, [], SimpleNamespace(config=found), told)
            tuner.algorithm.on_trial_complete(f"trial {number}", error=True)
        assert tuner.algorithm.suggest("trial 2") == search.Searcher.FINISHED

    monkeypatch.setattr(PretendedTuner, "act", die, raising=False)
    told, _ = run(sweep, tmp_path / "tune")
    assert told == ["bc: its process died, 0.0", "bc {}", "bc: machine: OSError: No space left on device, None"]
    (row,) = sweep.store.rows("sweep")
    assert row["reason"].endswith("machine: OSError: No space left on device; tried 2 times")


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "machine: OSError: [Errno 28] No space left on device"),
        (MachineFault("machine: NodeDiedError: the node is gone"), "machine: NodeDiedError: the node is gone"),
        (OSError(errno.EIO, "https://me:secret@host"), "machine: OSError: [Errno 5] https://***@host"),
    ],
)
def test_a_job_that_its_machine_failed_tells_of_it(
    fault: Exception, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[object] = []

    def fail(job: Job, tell: object, placed: object) -> str:
        raise fault

    monkeypatch.setattr(search, "run_job", fail)
    monkeypatch.setattr(search, "this_node", lambda: "here")
    monkeypatch.setattr(search.tune, "report", reported.append)
    mark = (Store(tmp_path).folder / MARK).read_text(encoding="utf-8")
    job = {"store": str(tmp_path), "training": "", "evaluations": [], "resources": {}, "keep_trajectory": False}
    with pytest.raises(type(fault)):
        search._trial({"name": "job", "job": json.dumps(job), "mark": mark})
    assert reported == [{"nodes": ["here"]}, {"fault": told, "nodes": ["here"]}]


@pytest.mark.parametrize(
    ("fault", "nodes"),
    [
        (MachineFault("machine: ActorDiedError: gone", ["there"]), ["there"]),
        (MachineFault("machine: ActorDiedError: gone"), []),  # nobody knows where
        (OSError(errno.ENOSPC, "No space left on device"), ["here"]),  # of the process that waits for the group
        (None, ["elsewhere", "there"]),
    ],
)
def test_what_a_group_does_is_told_of_the_nodes_where_it_was(
    fault: Exception | None, nodes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[Mapping[str, Any]] = []

    def work(job: Job, tell: object, placed: Callable[[Sequence[str]], None]) -> str:
        placed(["there"])
        placed(["there", "elsewhere"])
        if fault is not None:
            raise fault
        return "finished"

    monkeypatch.setattr(search, "run_job", work)
    monkeypatch.setattr(search, "this_node", lambda: "here")
    monkeypatch.setattr(search.tune, "report", reported.append)
    mark = (Store(tmp_path).folder / MARK).read_text(encoding="utf-8")
    job = {"store": str(tmp_path), "training": "", "evaluations": [], "resources": {"ray_train": True}}
    with nullcontext() if fault is None else pytest.raises(type(fault)):
        search._trial({"name": "job", "job": json.dumps(job), "mark": mark})
    assert [told["nodes"] for told in reported] == [["here"], nodes]


def test_where_jobs_were_lost_and_done_is_told(
    sweep: PretendedSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "back_off_seconds", lambda losses: 0.0)
    worker, room = sweep.worker(), Room(2)

    def work(tuner: PretendedTuner) -> None:
        for number, told in enumerate(
            (
                [],  # its process was not even there
                [{"nodes": ["one"]}],
                [{"nodes": ["one"]}, {"fault": "machine: gone", "nodes": ["two"]}],
                [{"nodes": ["one"]}, {"fault": "machine: gone", "nodes": []}],
                [{"nodes": ["one"]}, {"status": "finished", "nodes": ["one", "two"]}],
            )
        ):
            found = tuner.algorithm.suggest(f"trial {number}")
            for result in told:
                tuner.listener.on_trial_result(1, [], SimpleNamespace(config=found), result)
            if number == 4:
                worker.work(job_of(found))
            tuner.algorithm.on_trial_complete(f"trial {number}", error=number < 4)

    monkeypatch.setattr(PretendedTuner, "act", work, raising=False)
    run(sweep, tmp_path / "tune", room)
    assert room.ends == [("lost", []), ("lost", ["one"]), ("lost", ["two"]), ("lost", []), ("done", ["one", "two"])]


def job_of(found: dict[str, Any]) -> Job:
    """The job of what Tune was given."""
    values = json.loads(found["job"])
    return Job(**values | {"resources": Resources(**values["resources"]), "evaluations": tuple(values["evaluations"])})


HANGS = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from sweeps import bandit_ablation, search
from sweeps.commands.run import run_command

def hang(config):
    time.sleep(1000)

search.STUCK_SECONDS, search._trial = 5.0, hang
sys.exit(run_command(bandit_ablation.QUESTION, "bandit", sys.argv[1:]))
"""


DIES = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from sweeps import bandit_ablation, schedule, search
from sweeps.commands.run import run_command

schedule.back_off_seconds = lambda losses: 0.5

def die(config):
    with open(os.environ["DEATHS"], "a") as deaths:
        deaths.write("x")
    os.kill(os.getpid(), signal.SIGKILL)

search._trial = die
sys.exit(run_command(bandit_ablation.QUESTION, "bandit", sys.argv[1:]))
"""


@pytest.mark.timeout(400)
def test_with_tune_itself_a_worker_that_is_killed_each_time_is_tried_so_often_and_no_more(
    commands: Commands, tmp_path: Path
) -> None:
    process = commands.start(
        "-c", DIES, "--preset", "smoke", "--store", str(tmp_path / "store"), "--methods", "bc", "--trials", "0",
        "--no-mlflow", DEATHS=str(tmp_path / "deaths"),
    )  # fmt: skip
    out, err = process.communicate(timeout=350)
    assert process.returncode == 1, out + err
    assert (tmp_path / "deaths").read_text() == "x" * schedule.TRIES
    assert out.count("bc: its process died; it is begun again in ") == schedule.TRIES - 1
    assert out.count("bc: its process died; it has failed") == 1
    (row,) = Store(tmp_path / "store").rows()
    assert (row["status"], row["reason"]) == ("failed", f"its process died; tried {schedule.TRIES} times")


@pytest.mark.long
@pytest.mark.timeout(400)
def test_with_tune_itself_a_job_that_hangs_while_a_place_is_free_ends_the_sweep(
    commands: Commands, tmp_path: Path
) -> None:
    done = commands.run(
        "-c", HANGS, "--preset", "smoke", "--store", str(tmp_path / "store"), "--methods", "sarsa", "--trials", "0",
        "--no-mlflow", timeout=300,
    )  # fmt: skip
    assert done.status == 1, done.out + done.err
    (line,) = [line for line in done.out.splitlines() if line.startswith("nothing was reported for ")]
    assert ": running: bc (weights " in line
    assert "; the same command goes on from here: " in line
