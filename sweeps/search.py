"""Run a schedule's jobs with Ray Tune: the only file that knows it.

Tune asks for a trial when a place is free; the schedule gives it a job or none. Every Tune trial runs to its own end:
nothing is ever stopped from outside, so no placement group of a worker group can be orphaned by a stop. Actors are
reused, so a job costs a twentieth of a second on top of its work. A trial whose process dies is tried again, and
resumes from the store.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from cluster.faults import classify
from cluster.placement import describe_cluster, release_orphans
from cluster.watchdog import Watchdog
from cluster.workers import CALLER_RESOURCES
from sweeps.schedule import Schedule
from sweeps.work import Job, Resources, run_job

STUCK_SECONDS = 1800.0
"""Without a word from any job for so long, a sweep ends and says what holds the cluster."""

RETRIES = 2
"""How often a job is tried again after its process died, or its machine failed it."""

BACK_OFF_SECONDS = 5.0
"""How long a job that its machine failed waits before it lets itself be tried again, wherever there is a place."""


class _FromSchedule(Searcher):
    """Tune's view of a schedule."""

    def __init__(self, schedule: Schedule, on_change: Callable[[], None], faults: Mapping[str, str]) -> None:
        super().__init__()
        self._schedule, self._on_change, self._faults = schedule, on_change, faults
        self._names: dict[str, str] = {}

    def suggest(self, trial_id: str) -> Any:
        """The next job's configuration, None if none can start now, FINISHED if none ever will."""
        found = self._schedule.next_job()
        self._on_change()
        if found is None:
            over = self._schedule.is_over or self._schedule.halted is not None
            return Searcher.FINISHED if over else None
        name, job = found
        self._names[trial_id] = name
        return {"name": name, "job": json.dumps(dataclasses.asdict(job))}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A job ended, or its process died more often than it may."""
        name = self._names.pop(trial_id, None)
        if name is not None:
            told = f"; it told of {self._faults[name]}" if name in self._faults else ""
            self._schedule.job_ended(name, f"its process died {RETRIES + 1} times{told}" if error else None)
        self._on_change()

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store is what a sweep is resumed from."""
        Path(checkpoint_path).write_text("{}", encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


TOLD = ("step", "loss", "episodes", "estimating", "waiting")
"""The numbers that are passed on to whoever watches."""


class _Listener(tune.Callback):
    """Passes on what running jobs tell."""

    def __init__(self, on_progress: Callable[[str, Mapping[str, float]], None], faults: dict[str, str]) -> None:
        self._on_progress, self._faults = on_progress, faults

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A job told how far it is, or what its machine did to it."""
        if "fault" in result:
            self._faults[trial.config["name"]] = str(result["fault"])
        numbers = {key: value for key, value in result.items() if key in TOLD}
        self._on_progress(trial.config["name"], numbers)

    def __getstate__(self) -> dict[str, Any]:
        return {}


def run_schedule(
    schedule: Schedule,
    *,
    concurrent: int,
    resources: Resources,
    folder: Path,
    on_progress: Callable[[str, Mapping[str, float]], None],
    on_change: Callable[[], None],
) -> None:
    """Do all jobs of a schedule on the connected cluster.

    Args:
        schedule: What to do.
        concurrent: Jobs at a time.
        resources: What each may use; decides what Tune reserves for it.
        folder: Where Tune keeps its own notes, which nothing depends on.
        on_progress: Called with a running job's name and its numbers.
        on_change: Called when a job starts or ends.

    Raises:
        StuckError: No job said anything for half an hour; the message names what holds the cluster.
    """
    # Ctrl-C is the caller's: Tune's own handler would wait for trials that go on for minutes.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    watchdog = Watchdog(STUCK_SECONDS, describe_cluster, tend=release_orphans)

    def progressed(name: str, numbers: Mapping[str, float]) -> None:
        watchdog.progress()
        on_progress(name, numbers)

    seen: tuple[int, int, tuple[str, ...]] | None = None

    def changed() -> None:
        # Tune asks for a job all the time while a place is free: only a job that starts or ends is a sign of life.
        nonlocal seen
        now = (schedule.finished_jobs, schedule.cached_jobs, tuple(schedule.running_names))
        if now != seen:
            seen = now
            watchdog.progress()
            on_change()

    faults: dict[str, str] = {}  # what machines did to jobs, the last of each
    # With a worker group the trial itself only waits; its workers reserve what they need.
    needs = dict(CALLER_RESOURCES) if resources.in_group else {"CPU": 1.0}
    tuner = tune.Tuner(
        tune.with_resources(_trial, needs),
        tune_config=tune.TuneConfig(
            search_alg=_FromSchedule(schedule, changed, faults),
            num_samples=-1,
            max_concurrent_trials=concurrent,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=str(folder),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            callbacks=[_Listener(progressed, faults)],
        ),
    )
    with watchdog:
        tuner.fit()


def _trial(config: dict[str, Any]) -> None:
    """One job in a Tune trial."""
    values = json.loads(config["job"])
    job = Job(**values | {"resources": Resources(**values["resources"]), "evaluations": tuple(values["evaluations"])})
    last, of = 0.0, frozenset[str]()

    def tell(numbers: Mapping[str, float]) -> None:
        nonlocal last, of
        # A report waits for the driver: one a second is all a reader can use, but for one of something new.
        if time.monotonic() - last > 1.0 or of != numbers.keys():
            last, of = time.monotonic(), frozenset(numbers)
            tune.report(dict(numbers))

    try:
        status = run_job(job, tell)
    except Exception as error:
        tune.report({"fault": str(classify(error))})
        time.sleep(BACK_OFF_SECONDS)
        raise
    tune.report({"status": status})
