"""Sweeps of up to 10⁵ cells on 10³ nodes, on a clock of their own: are nodes kept busy, and what does a cell cost?

The schedule, its queue and the store are the real ones; nodes and time are pretended. A node is one place. A job takes
what a table says, by its method, times a factor between .8 and 1.25 that its key decides; one node in fifty is a
straggler at a third of the speed. Each node fails once in a thousand hours on average and is back ten minutes later.
What it was at is done again elsewhere, as Ray and a lease have it: noticed after 15 s, taken over after a minute, from
the last checkpoint, at most five minutes old; a job that has lost its node three times fails. Every node writes its
records through a store and a journal of its own, and the driver reads what a thousand of them appended.

- makespan: against the larger of all work by all nodes' speed, and the longest chain of jobs that start from one
  another on one sound node. Neither bound knows of failures, and no schedule reaches it.
- driver: CPU seconds of the process in the schedule's own calls (made, asked for jobs, told of their ends), by cell.
- store: bytes in journals and in the leading files of stages that a job adds, the last tenth of a method's jobs against
  their first. Methods are not mixed, since a job of ILQL's plays four cells and one of AWR's a single one, and AWR's
  come last; what planning writes, every cell's member at once, stands apart. Weights and episodes are not written.

Not pretended, because not run: Ray, Tune and MLflow. `docs/scale.md` says what is known of them.
"""

from __future__ import annotations

import heapq
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from benchmarks.cells import BASE, BETAS, SHARED, SWEEP, evaluation_record, leave_files, training_record
from benchmarks.measure import JSON, Benchmark, Line
from sweeps.job import Job, Resources
from sweeps.schedule import TRIES, Schedule
from sweeps.space import Grid, PlannedTraining
from sweeps.spec import TrialSpec
from sweeps.store import Store
from sweeps.study import Study

SIZES = ((10, 1_000), (100, 10_000), (1_000, 100_000))
QUICK = ((4, 40), (8, 80))

MINUTES = {"bc": 60.0, "ilql": 24.0, "awr": 16.0}
"""A job's time on a sound node, by method: GPT-2 small on one GPU, as the preset `paper` has it, roughly."""

STRAGGLERS, SLOWNESS = 0.02, 3.0
FAILURE_MINUTES, REPAIR_MINUTES = 60_000.0, 10.0
NOTICED_MINUTES, CHECKPOINT_MINUTES = 1.25, 5.0

Result = TypeVar("Result")


def design_of(cells: int) -> list[PlannedTraining]:
    """So many cells, four out of five of them ILQL's at four betas; the others extract a policy from an ILQL critic."""
    values = cells * 4 // 5 // len(BETAS)
    policies = cells - values * len(BETAS)
    taus = [0.5 + 0.499 * (place + 1) / values for place in range(values)]
    grids = [Grid("ilql", {"train.tau": taus, "decode.beta": BETAS})]
    # Five policies share a critic, which is a cell of its own: it should come before what unblocks nobody.
    shared = taus[:: max(1, values // max(1, policies // 5))][: policies // 5]
    betas = (0.5, 1.0, 2.0, 4.0, 8.0)
    grids.append(Grid("awr", {"train.tau": shared, "train.awr_beta": betas}))
    return [training for grid in grids for training in grid.trainings(BASE)]


@dataclass
class Node:
    """A pretended node.

    Attributes:
        store: Through which it writes.
        slowness: What it takes of a sound node's times.
        journal: What that store appends to; None before it has appended.
        written: Bytes in it when last looked at.
        running: Name, job, and when that began; None if it is idle.
        ends: Which of its ends is the valid one: a failure makes an earlier one void.
    """

    store: Store
    slowness: float
    journal: Path | None = None
    written: int = 0
    running: tuple[str, Job, float] | None = None
    ends: int = 0


@dataclass
class Simulated:
    """What came of a sweep.

    Attributes:
        nodes: Of the cluster.
        cells: Of the sweep, on the report scenes.
        minutes: From the start to the last job's end.
        bound: The least that any schedule takes, without failures.
        driver_seconds: CPU seconds in the schedule.
        failures: Of nodes while they were at something.
        jobs: That came to their end.
        planned: The store's bytes before the first job.
        added: By method, the bytes that each job added, in the order of their ends; what the driver wrote since the
            end before is counted to it.
        files: In the store, in the end.
        most_seconds: CPU seconds of the schedule's longest single call after it was made.
    """

    nodes: int
    cells: int
    minutes: float = 0.0
    bound: float = 0.0
    driver_seconds: float = 0.0
    failures: int = 0
    jobs: int = 0
    planned: int = 0
    added: dict[str, list[int]] = field(default_factory=dict)
    files: int = 0
    most_seconds: float = 0.0

    def driving(self, call: Callable[[], Result], *, single: bool = True) -> Result:
        """A call into the schedule, with its CPU seconds counted."""
        begin = time.process_time()
        result = call()
        took = time.process_time() - begin
        self.driver_seconds += took
        if single:
            self.most_seconds = max(self.most_seconds, took)
        return result


def minutes_of(job: Job) -> float:
    """What a job takes on a sound node."""
    spec = TrialSpec.from_json(job.training)
    return minutes_of_weights(spec.method, spec.weights_id)


def minutes_of_weights(method: str, weights_id: str) -> float:
    """The table's time, times a factor that the key decides."""
    return MINUTES[method] * (0.8 + 0.45 * int(weights_id[:4], 16) / 0xFFFF)


def work_of(job: Job, store: Store) -> int:
    """Leave behind what a worker leaves of a job; the bytes of its stage."""
    spec = TrialSpec.from_json(job.training)
    stage = store.build("weights", spec.weights_id, leave_files, {"spec": job.training})
    store.put("training", spec.weights_id, training_record(spec))
    trials = [TrialSpec.from_json(text) for text in job.evaluations]
    store.put_all("evaluation", {trial.trial_id: evaluation_record(trial, place) for place, trial in enumerate(trials)})
    return sum(file.stat().st_size for file in stage.iterdir())


def simulate(folder: Path, nodes: int, cells: int, generator: random.Random) -> Simulated:
    """Run a sweep of so many cells on so many nodes."""
    found = Simulated(nodes, cells)
    design = design_of(cells)
    driver = Store(folder, durable=False)
    study = Study(folder / "optuna" / f"{SWEEP}.log", name=SWEEP, seed=0, space={})
    schedule = found.driving(
        lambda: Schedule(driver, SWEEP, SHARED, design, refinement=None, seeds=1, study=study, resources=Resources()),
        single=False,
    )
    journals = folder / "journals"
    (drivers,) = journals.iterdir()
    found.planned = written = drivers.stat().st_size
    there = [
        Node(Store(folder, durable=False), SLOWNESS if generator.random() < STRAGGLERS else 1.0) for _ in range(nodes)
    ]
    found.bound = lower_bound(design, there)
    clock, serial = 0.0, 0
    events: list[tuple[float, int, str, int, int]] = []
    idle = set(range(nodes))
    again: list[tuple[str, Job, float]] = []  # lost with a node, and what is left of it
    lost: dict[str, int] = {}

    def at(when: float, what: str, node: int) -> None:
        nonlocal serial
        serial += 1
        heapq.heappush(events, (when, serial, what, node, there[node].ends))

    def begin(node: int, name: str, job: Job, minutes: float) -> None:
        idle.discard(node)
        there[node].ends += 1
        there[node].running = (name, job, clock)
        at(clock + minutes * there[node].slowness, "end", node)

    for node in range(nodes):
        at(generator.expovariate(1 / FAILURE_MINUTES), "fail", node)
    while True:
        while idle and again:
            begin(min(idle), *again.pop(0))
        while idle and (ready := found.driving(schedule.next_job)) is not None:
            begin(min(idle), *ready, minutes_of(ready[1]))
        if schedule.is_over:
            break
        clock, _, what, number, end = heapq.heappop(events)
        node_ = there[number]
        if what == "end" and end == node_.ends and node_.running is not None:
            name, job, _ = node_.running
            known = set() if node_.journal else set(journals.iterdir())
            stage = work_of(job, node_.store)
            if node_.journal is None:
                (node_.journal,) = set(journals.iterdir()) - known
            node_.running = None
            idle.add(number)
            found.driving(lambda name=name: schedule.job_ended(name, None))  # type: ignore[misc]
            found.jobs += 1
            by_node, node_.written = node_.written, node_.journal.stat().st_size
            by_driver, written = written, drivers.stat().st_size
            added = stage + node_.written - by_node + written - by_driver
            found.added.setdefault(TrialSpec.from_json(job.training).method, []).append(added)
        elif what == "fail":
            node_.ends += 1
            idle.discard(number)
            at(clock + REPAIR_MINUTES, "repair", number)
            if node_.running is not None:
                found.failures += 1
                name, job, began = node_.running
                node_.running = None
                lost[name] = lost.get(name, 0) + 1
                if lost[name] >= TRIES:
                    found.driving(lambda name=name: schedule.job_ended(name, "its process died"))  # type: ignore[misc]
                    continue
                made = (clock - began) / node_.slowness
                left = minutes_of(job) - (made - min(made, CHECKPOINT_MINUTES)) + NOTICED_MINUTES
                again.append((name, job, left))
        elif what == "repair":
            idle.add(number)
            at(clock + generator.expovariate(1 / FAILURE_MINUTES), "fail", number)
    found.minutes = clock
    found.files = sum(len(names) for _, _, names in os.walk(folder))
    return found


def lower_bound(design: list[PlannedTraining], nodes: list[Node]) -> float:
    """Minutes that no schedule is below: all work by all speed, and the longest chain on one sound node."""
    work: dict[str, float] = {}
    longest = 0.0
    for training in design:
        spec = SHARED.trials(training, 0, SHARED.tune)[0]
        chain = 0.0
        for each in (*spec.required, spec):
            work[each.weights_id] = minutes_of_weights(each.method, each.weights_id)
            chain += work[each.weights_id]
        longest = max(longest, chain)
    return max(sum(work.values()) / sum(1 / node.slowness for node in nodes), longest)


def tenths(added: list[int]) -> tuple[float, float]:
    """Bytes per job of the first and of the last tenth of a method's jobs, at least one each."""
    count = max(1, len(added) // 10)
    return sum(added[:count]) / count, sum(added[-count:]) / count


def growth(found: Simulated) -> dict[str, tuple[float, float]]:
    """The tenths of every method that has a first and a last, the one that grew most in front."""
    by_method = {method: tenths(added) for method, added in found.added.items() if len(added) > 1}
    return dict(sorted(by_method.items(), key=lambda each: each[1][0] / each[1][1]))


def run(quick: bool) -> list[Line]:
    """Three lines: the makespan, the driver's cost, and the store's growth."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))  # a journal is open for each node
    results = list(_results(QUICK if quick else SIZES))
    first, last = results[0], results[-1]
    names = f"{last.cells:,} cells on {last.nodes:,} nodes"
    by_size: list[JSON] = [
        {
            "nodes": each.nodes, "cells": each.cells, "hours": each.minutes / 60, "bound_hours": each.bound / 60,
            "driver_seconds_per_cell": each.driver_seconds / each.cells, "longest_call_seconds": each.most_seconds,
            "failures": each.failures, "jobs": each.jobs, "files_per_cell": each.files / each.cells,
            "planned_bytes_per_cell": each.planned / each.cells,
            "bytes_per_job": {method: list(pair) for method, pair in growth(each).items()},
            "bytes_per_cell": (each.planned + sum(map(sum, each.added.values()))) / each.cells,
        }
        for each in results
    ]  # fmt: skip
    grew = growth(last)
    (worst, (before, after)) = next(iter(grew.items()))
    jobs = ", ".join(f"{method} {start:,.0f} and {end:,.0f}" for method, (start, end) in grew.items())
    return [
        Line(
            name=f"hours of a sweep of {names}", unit="h", ours=(last.minutes / 60,), other=(last.bound / 60,),
            other_is="the lower bound", goal=1.1, at_least=False, more_is_better=False,
            note=f"{last.failures} failures of nodes that were at something, {last.jobs:,} jobs; "
            + ", ".join(f"{each.minutes / each.bound:.3f} with {each.nodes:,} nodes" for each in results),
            details={"by_size": by_size},
        ),
        Line(
            name=f"driver's CPU seconds per cell of {names}", unit="s",
            ours=(last.driver_seconds / last.cells,), other=(first.driver_seconds / first.cells,),
            other_is=f"ours, {first.cells:,} cells on {first.nodes:,} nodes", goal=2.0, at_least=False,
            more_is_better=False,
            note=f"the longest single call took {last.most_seconds:.3f} s; a cell costs "
            + ", ".join(f"{1e3 * r.driver_seconds / r.cells:.2f} ms with {r.nodes:,} nodes" for r in results),
        ),
        Line(
            name=f"store's bytes per job of {worst}, which grew most, of {names}", unit="B", ours=(after,),
            other=(before,), other_is="ours, the first tenth of its jobs", goal=1.1, at_least=False,
            more_is_better=False,
            note=f"first and last tenth: {jobs}; planning wrote {last.planned / last.cells:,.0f} a cell before; "
            f"{last.files / last.cells:.2f} files a cell; without weights' and episodes' own",
        ),
    ]  # fmt: skip


def _results(sizes: tuple[tuple[int, int], ...]) -> Iterator[Simulated]:
    for nodes, cells in sizes:
        with tempfile.TemporaryDirectory() as folder:
            yield simulate(Path(folder) / "store", nodes, cells, random.Random(0))


BENCHMARK = Benchmark(
    name="scale",
    question="Does one driver keep a thousand nodes busy with a hundred thousand cells, and what does a cell cost it?",
    run=run,
    long=True,
)
