"""Sweeps in seconds: their jobs are done in this process, one after the other, by real workers or out of a table.

Everything but the cluster and what a worker computes is real: plan, schedule, study, leases, `run_job`, store, report.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

import polars as pl
from tabulated import OWN, Played, Table

from cluster.connect import ClusterInfo
from cluster.shapes import Machine
from sweeps.advantages import ADVANTAGES_FILE
from sweeps.evaluate_cells import Block
from sweeps.exact_json import Record
from sweeps.frames import EPISODES_FILE
from sweeps.job import Job, Tell, opened_store
from sweeps.leases import Lease
from sweeps.schedule import Schedule
from sweeps.spec import TrialSpec
from sweeps.stages import load_task
from sweeps.store import CURVE_FILE, Store
from sweeps.train_weights import RECORD, record_found
from sweeps.work import run_job

TABLE = Path(__file__).with_name("bandit.jsonl")
"""What `record_bandit.py` has recorded."""

Entry = TypeVar("Entry")

Counted = Callable[[int], None]
"""Called after each of some events, with their number so far."""


def _nothing(number: int) -> None:
    """Do nothing."""


def _silently(numbers: Mapping[str, float]) -> None:
    """Nobody listens."""


# No cluster

NO_CLUSTER = ClusterInfo(
    address="here", state_api=None, started=True, in_job=False, nodes=1, cpus=2.0, gpus=0.0
)  # fmt: skip


class OneMachine:
    """A fleet of one machine that is not asked."""

    def __init__(self, *_: object, **__: object) -> None:
        self.machines = [Machine(cpus=2, gpus=0)]

    def __enter__(self) -> OneMachine:
        return self

    def __exit__(self, *_: object) -> None: ...

    def places(self, *_: object) -> int:
        return 1


@contextmanager
def without_ray() -> Iterator[None]:
    """Commands find a cluster of one machine where there is none; who does a schedule's jobs is still to be said.

    What commands do to this process, its environment and its handlers of signals, is undone.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with ExitStack() as stack:
        stack.enter_context(patch.dict(os.environ))
        for module in ("sweeps.experiment", "sweeps.added"):
            stack.enter_context(patch(f"{module}.connected", lambda **_: nullcontext(NO_CLUSTER)))
            stack.enter_context(patch(f"{module}.Fleet", OneMachine))
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


def drive(
    schedule: Schedule, work: Callable[[Job], object], *, places: int = 1, pick: int = 0, ended: Counted = _nothing
) -> None:
    """Do a schedule's jobs.

    Args:
        schedule: It.
        work: Does one.
        places: Jobs that run at a time.
        pick: Which of them is done first.
        ended: Called after each.
    """
    running: list[tuple[str, Job]] = []
    done = 0
    while True:
        while len(running) < places and (found := schedule.next_job()) is not None:
            running.append(found)
        assert set(schedule.running_names) == {name for name, _ in running}
        if not running:
            assert schedule.is_over
            return
        assert not schedule.is_over
        name, job = running.pop(pick)
        work(job)
        schedule.job_ended(name, None)
        done += 1
        ended(done)


@contextmanager
def in_this_process(*, places: int = 1, pick: int = 0, ended: Counted = _nothing) -> Iterator[None]:
    """Commands do their jobs here, as `drive` does them; a KeyboardInterrupt in a job is one at the command."""

    def run(schedule: Schedule, **_: object) -> None:
        drive(schedule, partial(run_job, tell=_silently), places=places, pick=pick, ended=ended)

    opened_store.cache_clear()  # as in the new processes that a command begins
    with without_ray(), patch("sweeps.driving.run_schedule", run):
        yield


# No computation


class NotRecorded(BaseException):
    """A table lacks what was asked for. No exception of a job's own: nothing of ours may make a row of it."""


@dataclass
class Surrogate:
    """Workers that look up what they are asked to compute.

    Attributes:
        table: Where.
        kept: Called after each thing that they have put on the disk.
        done: What was looked up, in order: `training` or `evaluation`, and its key.
    """

    table: Table
    kept: Counted = _nothing
    done: list[tuple[str, str]] = field(default_factory=list)
    _kept: int = 0

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Jobs of this process are done by them."""
        with patch("sweeps.work.train_weights", self._train), patch("sweeps.work.evaluate_cells", self._play):
            yield

    def count(self, kind: str) -> int:
        """Trainings, or evaluations, that were looked up."""
        return sum(each == kind for each, _ in self.done)

    def _train(self, store: Store, spec: TrialSpec, job: Job, lease: Lease, tell: Tell, placed: object) -> bool:
        """In place of `sweeps.train_weights.train_weights`."""
        found = self._entry(self.table.trainings, "training", spec, spec.weights_id)
        tell({"step": float(spec.train.steps)})
        if found.record["status"] == "finished":

            def make(folder: Path) -> Record:
                (folder / CURVE_FILE).write_text("".join(json.dumps(point) + "\n" for point in found.curve))
                return {RECORD: found.record}

            store.build("weights", spec.weights_id, make, {"spec": json.loads(spec.to_json())})
            self._has_kept()
            record_found(store, spec, lease)
        else:
            store.put("training", spec.weights_id, found.record, lease)
        self._has_kept()
        return bool(found.record["status"] == "finished")

    def _play(self, block: Block, tell: Tell) -> None:
        """In place of `sweeps.evaluate_cells.evaluate_cells`."""
        store = opened_store(block.store)
        for trial in map(TrialSpec.from_json, block.trials):
            found = self._entry(self.table.evaluations, "evaluation", trial, trial.trial_id)
            tell({"episodes": float(trial.evaluation.episodes)})
            if found.record["status"] == "finished":
                make = partial(_write_episodes, store, trial, found)
                store.build("evaluation", trial.trial_id, make, {"spec": json.loads(trial.to_json())})
                self._has_kept()
            store.put("evaluation", trial.trial_id, found.record, block.lease)
            self._has_kept()

    def _entry(self, entries: Mapping[str, Entry], kind: str, spec: TrialSpec, key: str) -> Entry:
        if key not in entries:
            raise NotRecorded(
                f"a surrogate's {kind} must be in its table, got {spec.method} at seed {spec.seed}, {key[:12]}; "
                "`make surrogate` records it anew, for keys that have changed"
            )
        self.done.append((kind, key))
        return entries[key]

    def _has_kept(self) -> None:
        self._kept += 1
        self.kept(self._kept)


def _write_episodes(store: Store, trial: TrialSpec, played: Played, folder: Path) -> None:
    """Write what `evaluate_cells` writes of a trial, its scenes as its world has them."""
    task, judged = load_task(store, trial.data.task, trial.evaluation.world), trial.evaluation
    scenes = [task.environment(seed, judged.split).scene for seed in judged.seeds]
    own = pl.DataFrame(dict(zip(OWN, (list(judged.seeds), scenes), strict=True)))
    episodes = pl.concat([own, pl.DataFrame(played.episodes.things)], how="horizontal")
    episodes.write_parquet(folder / EPISODES_FILE)
    if played.spoken.signs:
        lines = [
            json.dumps({"episode_seed": seed, **said}) + "\n"
            for seed, said in zip(judged.seeds, played.spoken.things, strict=False)
        ]
        (folder / ADVANTAGES_FILE).write_text("".join(lines), encoding="utf-8")
