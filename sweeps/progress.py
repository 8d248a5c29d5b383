"""What a sweep says while it runs: what runs, what is done, what failed, how long it will take, the best score."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TextIO

from analysis.text import count
from sweeps.doubts import doubts_of
from sweeps.exact_json import Record
from sweeps.schedule import Schedule
from sweeps.store import Store

INTERVAL_SECONDS = 10.0

QUIET_SECONDS = 300.0
"""A job that has told nothing for so long is named with it, and so often, where no other job tells anything."""

STOPPING_SECONDS = 20.0
"""How often jobs are named that were asked to stop and have not yet."""

NAMED = 8
"""Of the jobs that run when nothing moves so many are named, the most silent first."""

PASSING = ("estimating", "waiting")
"""What a job tells of what it is at just now, and is over when it tells anything else."""


class Progress:
    """Prints a line whenever a job ends or begins to be estimated, and otherwise every ten seconds.

    Where no job tells anything, it prints one as soon as one of them is silent for long, and then every five minutes.
    May be used by several threads.

    Args:
        store: Where scores are read from.
        sweep: The sweep's name.
        schedule: What is done and what is to be done.
        out: Where lines go.
    """

    def __init__(self, store: Store, sweep: str, schedule: Schedule, out: TextIO | None = None) -> None:
        self._store, self._sweep, self._schedule = store, sweep, schedule
        self._out = out or sys.stdout
        self._began = time.monotonic()
        self._printed, self._done = 0.0, -1
        self._at: dict[str, Mapping[str, float]] = {}
        self._heard: dict[str, float] = {}
        self._where: dict[str, str | None] = {}
        self._silent: set[str] = set()  # those that were, at the last tick
        self._waited: float | None = None  # since when jobs are to stop, or were named last since
        self._lock = threading.RLock()
        self._estimated: set[str] = set()
        # Of old, and told by the run before; what fails again does so at another time.
        self._failed = _failures(store.rows(sweep))

    def told(self, name: str, numbers: Mapping[str, float], where: str | None = None) -> None:
        """A running job told how far it is; and where it is, if that is known."""
        with self._lock:
            self._heard[name], self._where[name] = time.monotonic(), where
            before = self._at.get(name, {})
            self._at[name] = {**{key: value for key, value in before.items() if key not in PASSING}, **numbers}
            begins = "estimating" in numbers and name not in self._estimated
            if begins:
                self._estimated.add(name)
            if begins or time.monotonic() - self._printed >= INTERVAL_SECONDS:
                self._print()

    def changed(self) -> None:
        """A job may have started or ended."""
        with self._lock:
            if self._schedule.finished_jobs + self._schedule.cached_jobs != self._done:
                self._print()

    def lost(self, name: str, why: str, wait: float | None) -> None:
        """A machine failed under a job, which is begun again after so many seconds; None: no more, it has failed."""
        then = "it has failed" if wait is None else f"it is begun again {f'in {wait:.0f} s' if wait else 'at once'}"
        with self._lock:
            for known in (self._at, self._heard, self._where):
                known.pop(name, None)  # of what is begun again nothing is heard yet
            print(f"{self._method(name)}: {why}; {then}", file=self._out, flush=True)

    def tick(self, *, stopping: bool = False) -> None:
        """Some seconds have passed, in which nothing may have been told, or jobs that were asked to stop have not."""
        with self._lock:
            if stopping:
                self._wait()
                return
            silent = {name for name in self._schedule.running_names if self._silence(name) >= QUIET_SECONDS}
            if silent - self._silent or (silent and time.monotonic() - self._printed >= QUIET_SECONDS):
                self._print()
            self._silent = silent

    def _wait(self) -> None:
        """Say now and then which jobs are waited for to stop."""
        if self._waited is None:
            self._waited = time.monotonic()
        elif time.monotonic() - self._waited >= STOPPING_SECONDS:
            self._waited = time.monotonic()
            print(f"stopping; still {self.running()}; once more stops at once", file=self._out, flush=True)

    def running(self) -> str:
        """The jobs that run, in words: which, how far, and since when nothing was heard of them."""
        with self._lock:
            names = sorted(self._schedule.running_names, key=self._silence, reverse=True)
            told = [f"{self._doing(name)} ({', '.join(self._known_of(name))})" for name in names[:NAMED]]
            told += [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
        return f"running: {', '.join(told)}" if told else "no job runs"

    def _print(self) -> None:
        rows, schedule = self._store.rows(self._sweep), self._schedule
        failed = _failures(rows)
        news = failed.items() - self._failed.items()
        for line in reasons([row for row in rows if (row["trial_id"], failed.get(row["trial_id"])) in news]):
            print(f"failed: {line}", file=self._out)
        self._failed = failed
        self._printed = time.monotonic()
        self._done = schedule.finished_jobs + schedule.cached_jobs
        parts = [f"[{_clock(self._printed - self._began)}] {self._done}/{schedule.wanted_jobs} jobs"]
        if (left := self._seconds_left()) is not None:
            parts.append(f"about {_clock(left)} left")
        if best := _best(rows, doubts_of(self._store, self._sweep, rows, compare=False)):
            parts.append(best)
        running = [self._describe(name) for name in schedule.running_names]
        if running:
            parts.append("running " + ", ".join(running))
        print(" · ".join(parts), file=self._out, flush=True)

    def _describe(self, name: str) -> str:
        return self._doing(name) + (f" ({self._silent_for(name)})" if self._silence(name) >= QUIET_SECONDS else "")

    def _known_of(self, name: str) -> list[str]:
        """Which job it is, how long nothing was heard of it, and where it is, if that is known."""
        weights, seed = name.removesuffix("-rung").rsplit("-", 2)[1:]
        where = self._where.get(name)
        return [f"weights {weights}", f"seed {seed}", self._silent_for(name), *([where] if where else [])]

    def _silent_for(self, name: str) -> str:
        seconds = self._silence(name)
        return f"silent for {seconds:.0f} s" if seconds < 120 else f"silent for {seconds / 60:.0f} min"

    def _silence(self, name: str) -> float:
        """Seconds since a job was heard of, or was first seen to run."""
        now = time.monotonic()
        return now - self._heard.setdefault(name, now)

    def _doing(self, name: str) -> str:
        at = self._at.get(name, {})
        method = self._method(name)
        if "waiting" in at:
            return f"{method} waiting for another driver, which is at it"
        if "estimating" in at:
            step = f", step {at['estimating']:.0f}" if at["estimating"] else ""
            return f"{method} being estimated from recorded dialogues{step}"
        if at.get("episodes"):
            return f"{method} evaluating, {at['episodes']:.0f} episodes"
        if "step" in at:
            return f"{method} at step {at['step']:.0f}"
        if "dialogues_drawn" in at:
            return f"{method} drawing candidates, {at['dialogues_drawn']:.0f} dialogues"
        return method

    def _method(self, name: str) -> str:
        """Of a job, and whether it is on its way to a rung: what `sweeps.waiting.Step.name` has of it."""
        return name.rsplit("-", 2)[0] if not name.endswith("-rung") else name.rsplit("-", 3)[0] + " (to its rung)"

    def _seconds_left(self) -> float | None:
        done, schedule = self._schedule.finished_jobs, self._schedule
        if done < 2:
            return None
        remaining = schedule.wanted_jobs - schedule.finished_jobs - schedule.cached_jobs
        return (time.monotonic() - self._began) / done * remaining


def reasons(rows: Sequence[Record]) -> list[str]:
    """A line for each arm and reason among those rows that have failed, the most frequent first."""
    failed = [row for row in rows if row["status"] == "failed"]
    counted = Counter((str(row["arm"]), str(row["reason"]).partition("\n")[0]) for row in failed)
    return [f"{arm}, {count(runs, 'run')}: {reason}" for (arm, reason), runs in counted.most_common()]


def _failures(rows: Sequence[Record]) -> dict[str, tuple[object, object]]:
    """What tells the failure of a row from that of another attempt at it: its reason and its time."""
    return {row["trial_id"]: (row["reason"], row.get("finished_at")) for row in rows if row["status"] == "failed"}


def _best(rows: Sequence[Record], doubts: Mapping[str, str]) -> str:
    """The row with the highest score; one whose estimate is not believed only where there is no other."""
    scored = [row for row in rows if row.get("score") is not None]
    if not scored:
        return ""
    best = max(scored, key=lambda row: (row["trial_id"] not in doubts, float(row["score"])))
    little = f", not believed: {doubts[best['trial_id']]}" if best["trial_id"] in doubts else ""
    return f"best so far {best['arm']} {best['score']:.2f}{little}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
