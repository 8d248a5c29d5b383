"""Run a schedule's jobs with Ray Tune: the only file that knows it.

Tune asks for a trial when a place is free; the schedule gives it a job or none. Every Tune trial runs to its own end:
nothing is ever stopped from outside, so no placement group of a worker group can be orphaned by a stop. Actors are
reused, so a job costs a twentieth of a second on top of its work. What a machine failed is not Tune's to try again: the
job goes back to the schedule, waits there while others have its place, and resumes from the store in a new trial,
wherever there is room; where a machine's memory was full, with half as many at a time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ray import tune
from ray.tune.search import Searcher

from cluster.faults import classify, ended_for_memory
from cluster.nodes import this_node, why_hopeless
from cluster.placement import describe_cluster, release_all, release_orphans
from cluster.redaction import without_secrets
from cluster.watchdog import Watchdog
from cluster.workers import CALLER_RESOURCES
from sweeps.job import Job, MachineFault, Resources, opened_store
from sweeps.journal import StoreError
from sweeps.provenance import host
from sweeps.schedule import Schedule
from sweeps.stopping import JobStopped, Signals
from sweeps.store import MARK
from sweeps.work import run_job

STUCK_SECONDS = 1800.0
"""Without a word from any job for so long, a sweep ends and says what holds the cluster."""

CHECK_SECONDS = 5.0
"""How often the watchdog looks, and whoever watches is told that time passes."""

AWAY_SECONDS = 15.0
"""How long a job that came to a machine without the store holds its place there before it is tried elsewhere."""

STARTING = 16
"""Processes that may be starting at once, at least: what a cluster grows by need not wait in a row."""

DIED = "its process died"
"""What is known of a job that did not tell what its machine did to it."""

MEMORY = "its process was killed for want of memory"


class _FromSchedule(Searcher):
    """Tune's view of a schedule."""

    def __init__(
        self,
        schedule: Schedule,
        concurrent: Callable[[], int],
        on_change: Callable[[], None],
        on_lost: Callable[[str], None],
        stop: Path,
        signals: Signals,
    ) -> None:
        super().__init__()
        self._schedule, self._concurrent, self._on_change, self._on_lost = schedule, concurrent, on_change, on_lost
        self._stop, self._signals = stop, signals
        self._names: dict[str, str] = {}

    def suggest(self, trial_id: str) -> Any:
        """The next job's configuration, None if none can start now, FINISHED if none ever will."""
        if self._signals.received is not None:
            return Searcher.FINISHED
        if len(self._names) >= self._concurrent():
            self._schedule.check()
            return None
        found = self._schedule.next_job()
        self._on_change()
        if found is None:
            over = self._schedule.is_over or self._schedule.halted is not None
            return Searcher.FINISHED if over else None
        name, job = found
        self._names[trial_id] = name
        mark = (Path(job.store) / MARK).read_text(encoding="utf-8")
        told = json.dumps(dataclasses.asdict(dataclasses.replace(job, stop=str(self._stop))))
        return {"name": name, "job": told, "mark": mark}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A job ended, or its machine failed it."""
        name = self._names.pop(trial_id, None)
        if name is not None and self._signals.received is not None:
            self._schedule.job_left(name)
        elif name is not None and error:
            self._on_lost(name)
        elif name is not None:
            self._schedule.job_ended(name, None)
        self._on_change()

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store is what a sweep is resumed from."""
        Path(checkpoint_path).write_text("{}", encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


TOLD = ("step", "loss", "episodes", "dialogues_drawn", "estimating", "waiting")
"""The numbers that are passed on to whoever watches."""


class Places(Protocol):
    """How many jobs may run at a time; told what became of those that ran where."""

    def __call__(self) -> int:
        """How many just now."""

    def lost(self, nodes: Sequence[str]) -> None:
        """A job was lost under nodes of these ids."""

    def done(self, nodes: Sequence[str]) -> None:
        """A job came to an end of its own on nodes of these ids."""


class Away(Protocol):
    """Tells jobs on machines that do not see the driver's folder that a file of it is there."""

    def raise_stop(self, file: Path) -> None:
        """It is there now."""

    def lower_stop(self, file: Path) -> None:
        """It is no more."""


class Watcher(Protocol):
    """Whoever is told how a schedule's jobs are getting on."""

    def told(self, name: str, numbers: Mapping[str, float], where: str | None) -> None:
        """A running job told how far it is; and where it is, if that is known."""

    def changed(self) -> None:
        """A job may have started or ended."""

    def lost(self, name: str, why: str, wait: float | None) -> None:
        """A machine failed under a job, which is begun again after so many seconds; None: no more, it has failed."""

    def tick(self, *, stopping: bool) -> None:
        """Some seconds have passed, in which nothing may have been told, or jobs that were asked to stop have not.

        Called from a thread of its own.
        """

    def running(self) -> str:
        """The jobs that run, in words: which, how far, and since when nothing was heard of them."""


class _Listener(tune.Callback):
    """Passes on what running jobs tell.

    Args:
        watcher: Told how far they are.
        watchdog: Told that they live.
        signals: Told the same: who is waited for after a signal is.
        places: Told where they ended.
        faults: What machines did to jobs that told of it.
        at: The nodes whose fault it is if a job is lost now.
        in_group: Whether trials only wait for worker groups.
    """

    def __init__(
        self,
        watcher: Watcher,
        watchdog: Watchdog,
        signals: Signals,
        places: Places,
        faults: dict[str, str],
        at: dict[str, list[str]],
        *,
        in_group: bool,
    ) -> None:
        self._watcher, self._watchdog, self._signals, self._places = watcher, watchdog, signals, places
        self._faults, self._at, self._in_group = faults, at, in_group

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A job told how far it is, or what its machine did to it."""
        self._watchdog.progress()
        self._signals.heard()
        name = trial.config["name"]
        if "nodes" in result:
            self._at[name] = [str(node) for node in result["nodes"]]
        if "fault" in result:
            self._faults[name] = str(result["fault"])
        if result.get("status") in ("finished", "failed"):
            self._places.done(self._at.pop(name, []))
        # A trial that has a worker group only waits: where its workers are Tune does not know.
        where = None if self._in_group or "pid" not in result else f"process {result['pid']} of {result['hostname']}"
        self._watcher.told(name, {key: value for key, value in result.items() if key in TOLD}, where)

    def __getstate__(self) -> dict[str, Any]:
        return {}


def run_schedule(
    schedule: Schedule,
    *,
    places: Places,
    resources: Resources,
    folder: Path,
    watcher: Watcher,
    away: Away | None = None,
) -> None:
    """Do all jobs of a schedule on the connected cluster.

    Args:
        schedule: What to do.
        places: Jobs at a time, asked again and again, as nodes come and go; of that many the half from when a
            machine's memory was full.
        resources: What each may use; decides what Tune reserves for it.
        folder: Where Tune keeps its own notes, pickles among them: in a folder of this run's own, never read again, and
            removed at the end, as those of earlier runs are at the beginning.
        watcher: Told what happens.
        away: By which jobs are told to stop that do not see the folder; None where all do.

    Raises:
        KeyboardInterrupt: A signal asked it to stop, and all jobs have stopped where they can be resumed; or a second
            signal came before they had.
        StuckError: No job said anything for half an hour; the message names what holds the cluster.
    """
    # Ctrl-C is the caller's: Tune's own handler would wait for trials that go on for minutes.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")  # the watcher has a line for it
    # Tune starts so many processes at once; left to itself, without a limit of its own on trials, one after the other.
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", str(max(STARTING, places())))
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # of what failed the rows tell, and why
    divisor = 1
    while True:
        try:
            _run_tune_once(schedule, places, divisor, resources, folder, watcher, away)
            return
        except RuntimeError as error:
            # Where memory is full Ray kills workers before the kernel kills anyone, and Tune ends over it.
            if not ended_for_memory(error):
                raise
        for name, wait in schedule.all_lost(MEMORY).items():
            watcher.lost(name, MEMORY, wait)
        release_all()
        divisor *= 2


def _run_tune_once(
    schedule: Schedule,
    places: Places,
    divisor: int,
    resources: Resources,
    folder: Path,
    watcher: Watcher,
    away: Away | None,
) -> None:
    """Do all jobs in one run of Tune, on a `divisor`-th of the places, at least one; what ends it early is raised."""
    schedule.check()
    shutil.rmtree(folder, ignore_errors=True)  # of a driver that was killed
    own = folder / secrets.token_hex(4)  # whoever follows us, should we sleep, has another
    own.mkdir(parents=True)
    stop = own / "stop"
    tell_away = (lambda: None) if away is None else functools.partial(away.raise_stop, stop)
    signals = Signals(stop, at_once=lambda: watchdog.is_stuck, on_first=tell_away)

    def tend() -> None:
        try:
            watcher.tick(stopping=signals.received is not None)
        finally:
            release_orphans()

    stuck = functools.partial(_what_is_stuck, watcher)
    watchdog = Watchdog(STUCK_SECONDS, stuck, tend=tend, hopeless=why_hopeless, check_seconds=CHECK_SECONDS)
    try:
        with signals, watchdog:
            _tuner(schedule, places, divisor, resources, own, watcher, watchdog, signals).fit()
    except BaseException:
        schedule.check()  # Tune has errors of its own for ours, and some for a folder that whoever follows us removed
        raise
    finally:
        shutil.rmtree(own, ignore_errors=True)
        with contextlib.suppress(OSError):  # theirs lie beside it
            folder.rmdir()
        if away is not None and signals.received is not None:
            with contextlib.suppress(StoreError):  # nobody looks for it any more
                away.lower_stop(stop)
    schedule.check()
    if signals.received is not None:
        raise KeyboardInterrupt


def _what_is_stuck(watcher: Watcher) -> str:
    """The jobs that run, and what holds the cluster and waits for it, as far as that still answers."""
    try:
        cluster = describe_cluster()
    except Exception as error:  # noqa: BLE001  whatever a cluster in trouble raises, the jobs are known without it
        cluster = f"the cluster does not say what holds it ({classify(error).cause})"
    return f"{watcher.running()}; {cluster}"


def _tuner(
    schedule: Schedule,
    places: Places,
    divisor: int,
    resources: Resources,
    folder: Path,
    watcher: Watcher,
    watchdog: Watchdog,
    signals: Signals,
) -> tune.Tuner:
    """Tune's side of it."""
    seen: tuple[int, int, tuple[str, ...]] | None = None

    def changed() -> None:
        # Tune asks for a job all the time while a place is free: only a job that starts or ends is a sign of life.
        nonlocal seen
        now = (schedule.finished_jobs, schedule.cached_jobs, tuple(schedule.running_names))
        if now != seen:
            seen = now
            watchdog.progress()
            watcher.changed()

    faults = dict[str, str]()  # what machines did to jobs that told of it
    at = dict[str, list[str]]()  # the nodes whose fault it is if a job is lost now

    def lost(name: str) -> None:
        why = faults.pop(name, DIED)
        places.lost(at.pop(name, []))
        watcher.lost(name, why, schedule.job_lost(name, why))

    # With a worker group the trial itself only waits; its workers reserve what they need.
    needs = dict(CALLER_RESOURCES) if resources.in_group else {"CPU": 1.0}
    return tune.Tuner(
        tune.with_resources(_trial, needs),
        tune_config=tune.TuneConfig(
            search_alg=_FromSchedule(
                schedule, lambda: max(1, places() // divisor), changed, lost, folder / "stop", signals
            ),
            num_samples=-1,  # and no max_concurrent_trials, which could not grow with the cluster
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=str(folder),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=0),
            callbacks=[_Listener(watcher, watchdog, signals, places, faults, at, in_group=resources.in_group)],
        ),
    )


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

    here = this_node()
    # With a worker group this process only waits: it can be lost itself, but what it is for is done elsewhere.
    worked = set[str]() if job.resources.in_group else {here}
    tune.report({"nodes": [here]})
    try:
        if job.remote is not None:
            opened_store(job.store, job.remote)  # which begins one here, if need be
        check_store(job.store, config["mark"])
        status = run_job(job, tell, worked.update)
    except JobStopped:
        status = "stopped"
    except Exception as error:
        fault = str(error if isinstance(error, MachineFault) else classify(error))
        nodes = error.nodes if isinstance(error, MachineFault) and job.resources.in_group else (here,)
        tune.report({"fault": without_secrets(fault), "nodes": list(nodes)})
        raise
    tune.report({"status": status, "nodes": sorted(worked)})


def check_store(folder: str, mark: str) -> None:
    """Do nothing if the driver's store is here; a node that joins is asked so before it is known to be usable.

    Raises:
        MachineFault: Here is none, or another.
    """
    file = Path(folder) / MARK
    here = file.read_text(encoding="utf-8") if file.is_file() else None
    if here != mark:
        time.sleep(AWAY_SECONDS)  # so long this place takes no other job, and the driver leaves the node out meanwhile
        raise MachineFault(f"the store must be a folder that all machines share, {host()} has none of ours at {folder}")
