"""Rows say under which lease they were written: what a holder writes that was followed counts no more."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps import leases
from sweeps.cells import drop_stale
from sweeps.doctor import findings
from sweeps.driving import driving
from sweeps.exact_json import Record
from sweeps.leases import Lease, LeaseLostError
from sweeps.records import UNDER, Records
from sweeps.store import Store
from sweeps.work import run_job

if TYPE_CHECKING:
    from conftest import Bench, Commands, Follow, MakeSweep, MakeTrainings, PretendedSweep

ROOT = Path(__file__).resolve().parents[2]


def without_lease(record: Record | None) -> Record | None:
    return None if record is None else {name: value for name, value in record.items() if name != UNDER}


class Clocked:
    """Two writers of one store, whose clocks are the test's."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000
        monkeypatch.setattr("sweeps.records.time.time_ns", lambda: self.now)
        self.folder, self.first, self.second = folder, Records(folder, durable=False), Records(folder, durable=False)

    def read(self) -> Record | None:
        """What a third one reads."""
        return without_lease(Records(self.folder, durable=False).get("training", "key"))


@pytest.fixture
def clocked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clocked:
    return Clocked(tmp_path, monkeypatch)


def test_what_a_followed_holder_writes_does_not_count(clocked: Clocked) -> None:
    clocked.second.claim("lease", 2)
    clocked.now += 10
    clocked.first.put("training", {"key": {"status": "finished", "by": 1}}, ("lease", 1))
    assert clocked.read() is None
    clocked.second.put("training", {"key": {"status": "failed", "by": 2}}, ("lease", 2))
    assert clocked.read() == {"status": "failed", "by": 2}


def test_what_it_wrote_before_does(clocked: Clocked) -> None:
    clocked.first.put("training", {"key": {"status": "finished", "by": 1}}, ("lease", 1))
    clocked.second.claim("lease", 2)
    assert clocked.read() == {"status": "finished", "by": 1}


def test_a_removal_ends_what_was_written_under_a_lease_before_it(clocked: Clocked) -> None:
    clocked.first.put("training", {"key": {"status": "finished", "by": 1}}, ("lease", 1))
    clocked.now += 10
    clocked.second.remove("training", ["key"])
    assert clocked.read() is None
    clocked.now += 10
    clocked.first.put("training", {"key": {"status": "failed", "by": 1}}, ("lease", 1))
    assert clocked.read() == {"status": "failed", "by": 1}


def test_a_claim_comes_after_what_its_writer_had_read_whatever_its_clock_says(clocked: Clocked) -> None:
    clocked.now = 9_000
    clocked.first.put("training", {"key": {"status": "finished", "by": 1}}, ("lease", 1))
    clocked.now = 1_000  # the second one's clock is behind
    clocked.second.claim("lease", 2)
    assert clocked.read() == {"status": "finished", "by": 1}


def test_a_claim_read_late_takes_back_what_counted(clocked: Clocked) -> None:
    reader = Records(clocked.folder, durable=False)
    clocked.second.claim("lease", 2)
    claimed = clocked.folder / f"{clocked.second._writer._name}.jsonl"
    kept = claimed.read_bytes()
    claimed.rename(clocked.folder / "away")  # as a network file system may show it: the later file first
    clocked.now += 10
    clocked.first.put("training", {"key": {"status": "finished", "by": 1}}, ("lease", 1))
    assert without_lease(reader.get("training", "key")) == {"status": "finished", "by": 1}
    assert len(reader.all("training")) == 1
    claimed.write_bytes(kept)
    assert reader.get("training", "key") is None
    assert reader.all("training") == {}


def test_a_later_failure_without_a_lease_is_the_one_that_is_told(clocked: Clocked) -> None:
    """As a driver records that a job's machine died, after an earlier attempt had failed by itself."""
    clocked.first.put("training", {"key": {"status": "failed", "reason": "diverged"}}, ("lease", 1))
    clocked.now += 10
    clocked.second.put("training", {"key": {"status": "failed", "reason": "its process died"}})
    assert clocked.read() == {"status": "failed", "reason": "its process died"}


def test_other_leases_are_no_matter(clocked: Clocked) -> None:
    clocked.second.claim("another", 5)
    clocked.now += 10
    clocked.first.put("training", {"key": {"status": "finished", "by": 1}}, ("lease", 1))
    clocked.second.put("training", {"free": {"status": "finished"}})
    assert clocked.read() == {"status": "finished", "by": 1}


Write = tuple[str, int, bool]
"""A claim or a row, its term, whether the row says finished."""


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(("claim", "row")), st.integers(1, 4), st.booleans()), max_size=8),
    st.randoms(use_true_random=False),
)
def test_all_readers_agree_with_the_rule_in_whatever_order_they_read(
    tmp_path_factory: pytest.TempPathFactory, writes: list[Write], random: object
) -> None:
    """Every write is a journal of its own; readers meet the journals in other orders, some before others are there."""
    folder = tmp_path_factory.mktemp("rule")
    expected: list[tuple[bool, int, int]] = []  # finished, place, term
    claims: list[tuple[int, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        for place, (what, term, finished) in enumerate(writes):
            patch.setattr("sweeps.records.time.time_ns", lambda place=place: 1_000 + place)
            writer = Records(folder / "hidden" / str(place), durable=False)
            if what == "claim":
                writer.claim("lease", term)
                claims.append((term, place))
            else:
                status = "finished" if finished else "failed"
                writer.put("training", {"key": {"status": status, "place": place}}, ("lease", term))
                expected.append((finished, place, term))
    sound = [row for row in expected if not any(row[2] < term and row[1] > since for term, since in claims)]
    journals = sorted((folder / "hidden").rglob("*.jsonl"))
    random.shuffle(journals)  # type: ignore[attr-defined]
    seen = folder / "seen"
    seen.mkdir()
    patient = Records(seen, durable=False)
    for number, journal in enumerate(journals):
        journal.rename(seen / f"{number}-{journal.name}")
        patient.get("training", "key")
    for reader in (patient, Records(seen, durable=False)):
        found = reader.get("training", "key")
        assert (None if found is None else found["place"]) == (max(sound)[1] if sound else None)


def lost(store: Store, key: str, monkeypatch: pytest.MonkeyPatch) -> Lease:
    """A lease that somebody else has taken over."""
    ours = store.try_lease(key)
    assert ours is not None
    leases._HEART.drop(ours)
    with monkeypatch.context() as patch:
        patch.setattr(leases.Holder, "is_dead", lambda self: True)
        assert Store(store.folder).try_lease(key) is not None
    return ours


def test_a_writer_looks_before_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "store", durable=False)
    lease = lost(store, "key", monkeypatch)
    with pytest.raises(LeaseLostError):
        store.put("training", "key", {"status": "finished"}, lease)
    assert Store(store.folder).get("training", "key") is None
    assert Store(store.folder)._records.term("key") == 2


def test_a_lease_can_be_checked_wherever_it_is_sent(tmp_path: Path) -> None:
    import pickle

    store = Store(tmp_path / "store", durable=False)
    with store.lease("key") as lease:
        copy = pickle.loads(pickle.dumps(lease))  # noqa: S301  our own, of just now
        copy.check()
    with pytest.raises(LeaseLostError):
        copy.check()


def test_a_sweep_has_one_driver_at_a_time(tmp_path: Path) -> None:
    store, said = Store(tmp_path / "store", durable=False), list[str]()
    with driving(store, "mine", said.append):
        with pytest.raises(ValueError, match=f"one driver at a time, mine has one, since .* process {os.getpid()} of"):
            driving(Store(store.folder), "mine", said.append)
        driving(store, "another", said.append).release()
    driving(store, "mine", said.append).release()
    assert said == []


def test_a_driver_of_a_machine_that_was_switched_off_is_followed_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, said = Store(tmp_path / "store", durable=False), list[str]()
    leases._HEART.drop(driving(store, "mine", said.append))
    monkeypatch.setattr(leases, "_machine", lambda: "the same, started again")
    after = Store(store.folder, durable=False)
    monkeypatch.setattr(after._leases, "_patience", 0.3)
    driving(after, "mine", said.append).release()
    assert len(said) == 1
    assert said[0].startswith("mine has had a driver, since ")


@pytest.fixture
def sweep(make_sweep: MakeSweep, make_trainings: MakeTrainings) -> PretendedSweep:
    """The behaviour policy, and SARSA that waits for it."""
    return make_sweep(make_trainings("sarsa"))


FOLLOWED = (
    r"^the sweep sweep was taken over while its holder was not heard of: another process has had it since \d{4}-.*"
)


def test_a_driver_that_was_followed_begins_nothing_and_concludes_nothing(sweep: PretendedSweep, follow: Follow) -> None:
    store, study = sweep.store, sweep.folder / "sweep.log"
    lease = driving(store, "sweep", lambda line: None)
    schedule = sweep.schedule(lease=lease)
    found = schedule.next_job()
    assert found is not None
    with follow(store, lease):
        study.unlink()
        study.write_bytes(b"of whoever follows")
        before = files_of(store.folder)
        with pytest.raises(LeaseLostError, match=FOLLOWED):
            schedule.next_job()
        with pytest.raises(LeaseLostError, match=FOLLOWED):
            schedule.job_ended(found[0], "its process died")
        with pytest.raises(LeaseLostError, match=FOLLOWED):
            schedule.job_lost(found[0], "its process died")
        assert (files_of(store.folder), study.read_bytes()) == (before, b"of whoever follows")
    with pytest.raises(LeaseLostError, match=r"another process has had it meanwhile$"):  # and has come to its end
        schedule.next_job()


def files_of(folder: Path) -> dict[str, bytes]:
    """All that lies in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_failures_that_a_driver_concludes_are_fenced_as_all_rows_are(sweep: PretendedSweep, follow: Follow) -> None:
    store = sweep.store
    lease = driving(store, "sweep", lambda line: None)
    schedule = sweep.schedule(lease=lease)
    found = schedule.next_job()
    assert found is not None
    schedule.job_ended(found[0], "its process died")
    schedule.next_job()  # SARSA fails of it
    failed = store.all("training")
    assert len(failed) == 2
    assert {tuple(record[UNDER]) for record in failed.values()} == {(lease.key, lease.term)}
    with follow(store, lease):  # and one that was written behind its check, and behind the claim, does not count
        store._records.put("training", {"late": {"status": "failed"}}, (lease.key, lease.term))
    assert Store(store.folder).get("training", "late") is None


def test_a_driver_that_was_followed_removes_no_row_of_a_larger_plan(sweep: PretendedSweep, follow: Follow) -> None:
    store, lease = sweep.store, driving(sweep.store, "sweep", lambda line: None)
    ours, more = sweep.schedule(lease=lease), sweep.schedule(seeds=2)
    assert len(more.members) > len(ours.members)
    with follow(store, lease), pytest.raises(LeaseLostError, match=FOLLOWED):
        drop_stale(store, "sweep", ours.members, lease)
    assert len(store.members("sweep")) == len(more.members)


SLOW = ("--preset", "smoke", "--methods", "bc", "--trials", "0", "--set", "behaviour.steps=2000", "--concurrent", "1",
        "--no-mlflow")  # fmt: skip

ELSEWHERE = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from sweeps import bandit_ablation, leases
from sweeps.commands.run import run_command

here = leases._machine()
leases._machine = lambda: here + " of another machine"
sys.exit(run_command(bandit_ablation.QUESTION, "bandit", sys.argv[1:]))
"""
"""The same command as on another machine: it cannot see whether a process of this one lives."""


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_a_command_that_was_suspended_and_followed_ends_with_one_line(commands: Commands, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    first = commands.start(ROOT / "sweeps" / "bandit_ablation.py", *SLOW, "--store", str(folder))
    wait_for(lambda: list(folder.glob("scratch/trajectory/*/*/checkpoints/step-*")), first)
    ours = set(folder.glob("tune/*/*"))
    first.send_signal(signal.SIGSTOP)
    second = commands.start("-c", ELSEWHERE, *SLOW, "--seeds", "2", "--store", str(folder))
    wait_for(lambda: set(folder.glob("tune/*/*")) - ours, second)
    theirs = set(folder.glob("tune/*/*"))
    assert not theirs & ours
    first.send_signal(signal.SIGCONT)
    out, err = first.communicate(timeout=300)
    assert (first.returncode, "Traceback" in out + err) == (2, False), out + err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert re.match(r"error: the sweep bandit-smoke-\S+ was taken over while its holder was not heard of: ", line)
    assert f"(process {second.pid} of " in line
    assert set(folder.glob("tune/*/*")) == theirs
    out, err = second.communicate(timeout=600)
    assert second.returncode == 0, out + err
    store = Store(folder)
    rows = store.rows()
    assert sorted((row["seed"], row["status"]) for row in rows) == [(0, "finished"), (1, "finished")]
    assert (findings(store), list((folder / "tune").iterdir())) == ([], [])


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str], *, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "".join(process.communicate())
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_a_job_waits_for_whoever_is_at_its_weights(bench: Bench) -> None:
    trial = bench.trial()
    theirs = bench.store.try_lease(trial.trajectory_id)
    assert theirs is not None
    told: list[Mapping[str, float]] = []
    done: list[str] = []
    job = threading.Thread(target=lambda: done.append(run_job(bench.job(trial, trial), told.append)))
    job.start()
    deadline = time.monotonic() + 60
    while {"waiting": 1.0} not in told:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert bench.store.stage("weights", trial.weights_id) is None
    theirs.release()
    job.join(timeout=120)
    assert done == ["finished"]
    assert bench.store.holder(trial.trajectory_id) is None


def test_a_training_that_was_followed_stops_before_it_writes_over_its_follower(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As one that was suspended in step 12 for longer than anybody waits.
    trial = bench.trial()
    checkpoints = bench.store.scratch("trajectory", trial.trajectory_id) / "checkpoints"
    theirs: list[Path] = []

    def follow(numbers: Mapping[str, float]) -> None:
        if numbers.get("step") == 12:
            with monkeypatch.context() as patch:
                patch.setattr(leases.Holder, "is_dead", lambda self: True)
                lease = Store(bench.store.folder).try_lease(trial.trajectory_id)
            assert lease is not None
            theirs.append(checkpoints / f".step-00000005.{lease.term}.1")
            theirs[0].mkdir()

    with pytest.raises(LeaseLostError):
        run_job(bench.job(trial, trial), follow)
    assert sorted(path.name for path in checkpoints.iterdir()) == [theirs[0].name, "step-00000005", "step-00000010"]
    assert bench.store.stage("weights", trial.weights_id) is None
    assert Store(bench.store.folder).get("training", trial.weights_id) is None


def test_two_jobs_on_the_same_weights_train_them_once(bench: Bench) -> None:
    trial = bench.trial()
    code = f"""
import json, sys
from sweeps.job import Job, Resources
from sweeps.work import run_job
values = json.loads({bench_job(bench)!r})
print(run_job(Job(**values | {{"resources": Resources(checkpoint_every=5, log_every=4)}}), lambda numbers: None))
"""
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=os.environ)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=200)[0].strip() for process in both] == ["finished", "finished"]
    lines = b"".join(path.read_bytes() for path in (bench.store.folder / "journals").glob("*.jsonl"))
    assert lines.count(f'"kind":"training","key":"{trial.weights_id}"'.encode()) == 1
    assert lines.count(f'"kind":"evaluation","key":"{trial.trial_id}"'.encode()) == 1


def bench_job(bench: Bench) -> str:
    import json

    trial = bench.trial()
    job = bench.job(trial, trial)
    return json.dumps({"store": job.store, "training": job.training, "evaluations": job.evaluations})
