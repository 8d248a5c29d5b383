"""Seconds and memory of a whole report, begun cold, over 5,000 evaluations of 1,024 episodes each.

A store is filled with a made-up sweep as its driver and its workers write it: BC, SARSA and an ILQL grid over tau, the
conservative weight and beta, three training seeds each, with the episodes and transcripts of every evaluation. Returns
are a cell's, a training seed's, a scene's and the rest; transcripts are a few that repeat, so that the disk is not what
is measured. Then `sweeps report` runs in a process of its own, without a browser: static figures take one about a
second each, whatever the size of the sweep.

The other side is what a notebook does before it begins: a fresh process in which pandas reads the same columns of the
same files, one by one, puts them together and takes the mean return of each. The report does all its statements beside.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.cells import BASE, SHARED, evaluation_record, leave_files, training_record
from benchmarks.measure import Benchmark, Line, alternately
from ilql.tasks import task_named
from sweeps.exact_json import Record
from sweeps.frames import EPISODES_FILE
from sweeps.job import Resources
from sweeps.journal import utc
from sweeps.references import REFERENCES_FILE
from sweeps.schedule import Schedule
from sweeps.space import Grid, PlannedTraining
from sweeps.spec import reference_key
from sweeps.store import Store
from sweeps.study import Study

SWEEP = "made-up"
SEEDS = 3
BETAS, CQL_WEIGHTS = (1.0, 2.0, 4.0, 8.0, 16.0), (0.0, 0.1, 0.5, 1.0)
GOAL_SECONDS, GOAL_BYTES = 10.0, 2 * 2**30
TURNS, DISTINCT = 10, 32
"""Of a transcript, and how many different ones there are."""

NO_BROWSER = {"BROWSER_PATH": "/nowhere"}

NOTEBOOK = """
import sys
import pandas as pd
files = open(sys.argv[1]).read().split()
columns = ["episode_seed", "scene", "return", "turns"]
frames = [pd.read_parquet(file, columns=columns).assign(trial=place) for place, file in enumerate(files)]
assert len(pd.concat(frames).groupby("trial")["return"].mean()) == len(files)
"""


@dataclass(frozen=True)
class Size:
    """How large the sweep is.

    Attributes:
        taus: Levels of tau in ILQL's grid, of 20 cells each.
        episodes: Per evaluation.
        rounds: How often both sides are measured.
    """

    taus: int
    episodes: int
    rounds: int

    @property
    def evaluations(self) -> int:
        """On the report scenes: ILQL's, SARSA's and BC's."""
        return SEEDS * ((self.taus + 1) * len(BETAS) * len(CQL_WEIGHTS) + 1)


FULL, QUICK = Size(taus=83, episodes=1024, rounds=3), Size(taus=2, episodes=64, rounds=1)


@dataclass(frozen=True)
class Spent:
    """What a process took, with its start."""

    seconds: float
    peak_bytes: int


def run(quick: bool) -> list[Line]:
    """Fill a store, then let report and notebook take turns."""
    size = QUICK if quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        files = fill(place / "store", size)
        (place / "files").write_text("\n".join(map(str, files)), encoding="utf-8")
        command = f"import sys; from sweeps.cli import main; sys.exit(main({_arguments(place)!r}))"
        spent: list[Spent] = []

        def ours() -> float:
            spent.append(_process([sys.executable, "-c", command]))
            return spent[-1].seconds

        def notebook() -> float:
            return _process([sys.executable, "-c", NOTEBOOK, str(place / "files")]).seconds

        mine, other = alternately(ours, notebook, rounds=size.rounds, warm_up=False)
    peak = max(each.peak_bytes for each in spent)
    within = max(mine) <= GOAL_SECONDS and peak < GOAL_BYTES
    return [
        Line(
            name=f"a report of {size.evaluations:,} evaluations × {size.episodes:,} episodes",
            unit="s",
            ours=mine,
            other=other,
            other_is="pandas reads the same files one by one and takes their means",
            goal=1.0,
            at_least=False,
            more_is_better=False,
            note=f"at most {max(mine):.1f} s and {peak / 2**30:.2f} GiB, cold, with Python's start, without a browser; "
            f"{'as' if within else 'not as'} asked for: {GOAL_SECONDS:.0f} s, {GOAL_BYTES / 2**30:.0f} GiB",
            details={"peak_bytes": [each.peak_bytes for each in spent], "within": within},
        )
    ]


def fill(folder: Path, size: Size) -> list[Path]:
    """Write the finished sweep into a new store, and return the files of its episodes."""
    store = Store(folder, durable=False)
    report = dataclasses.replace(SHARED.report, episodes=size.episodes)
    shared = dataclasses.replace(SHARED, report=report)
    design = design_of(size.taus)
    store.put("sweep", SWEEP, {"created_at": utc(), "task": shared.data.task})
    study = Study(folder / "optuna" / f"{SWEEP}.log", name=SWEEP, seed=0, space={})
    Schedule(store, SWEEP, shared, design, refinement=None, seeds=SEEDS, study=study, resources=Resources())
    store.build("reference", reference_key(report, task_named(shared.data.task).references), _nobody, {})
    trainings: dict[str, Record] = {}
    evaluations: dict[str, Record] = {}
    rng = np.random.default_rng(0)
    scenes = rng.normal(size=size.episodes)
    files = []
    for place, training in enumerate(design):
        for seed in range(SEEDS):
            tune, trials = shared.on_both(training, seed)
            luck = rng.normal(0.0, 0.2)
            for spec in (*trials[0].required, trials[0]):
                if spec.weights_id not in trainings:
                    trainings[spec.weights_id] = training_record(spec)
                    store.build("weights", spec.weights_id, leave_files, {})
            for chosen_on, trial in zip(tune, trials, strict=True):
                merit = 0.5 * np.sin(place) + luck
                played = _episodes(merit + scenes + rng.normal(size=size.episodes))
                score = float(played["return"].to_numpy().mean())
                stage = store.build("evaluation", trial.trial_id, partial(_leave_episodes, played), {})
                files.append(stage / EPISODES_FILE)
                evaluations[trial.trial_id] = evaluation_record(trial, 0) | {"score": score}
                evaluations[chosen_on.trial_id] = evaluation_record(chosen_on, 0) | {"score": float(merit)}
    store.put_all("training", trainings)
    store.put_all("evaluation", evaluations)
    return files


def _episodes(returns: NDArray[np.float64]) -> pl.DataFrame:
    """A table of episodes as `sweeps.evaluate_cells.episodes_table` makes it."""
    count = len(returns)
    said = [
        json.dumps([{"by_agent": turn % 2 == 0, "text": f"is it number {kind * turn}?"} for turn in range(TURNS)])
        for kind in range(DISTINCT)
    ]
    return pl.DataFrame(
        {
            "episode_seed": range(count),
            "scene": [f"scene {place}" for place in range(count)],
            "return": returns,
            "turns": [TURNS] * count,
            "log_ratio": [0.5] * count,
            "empty": [0] * count,
            "repeated": [0] * count,
            "broken": [0] * count,
            "transcript": [said[place % DISTINCT] for place in range(count)],
        }
    )


def _leave_episodes(played: pl.DataFrame, folder: Path) -> None:
    played.write_parquet(folder / EPISODES_FILE)


def _nobody(folder: Path) -> None:
    (folder / REFERENCES_FILE).write_text("{}", encoding="utf-8")


def design_of(taus: int) -> list[PlannedTraining]:
    """BC, SARSA and ILQL at so many levels of tau."""
    shared = {"train.cql_weight": CQL_WEIGHTS, "decode.beta": BETAS}
    levels = [0.5 + 0.499 * (place + 1) / taus for place in range(taus)]
    return [
        *Grid("bc", {}).trainings(BASE),
        *Grid("sarsa", shared).trainings(BASE),
        *Grid("ilql", {"train.tau": levels, **shared}).trainings(BASE),
    ]


def _arguments(place: Path) -> list[str]:
    return ["report", SWEEP, "--store", str(place / "store"), "-o", str(place / "report")]


def _process(command: Sequence[str]) -> Spent:
    """Run a command to its end, with no browser to be found.

    Raises:
        RuntimeError: It failed.
    """
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=os.environ | NO_BROWSER)
        _, status, usage = os.wait4(process.pid, 0)
        taken = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{command[:2]} failed: {said.read().decode(errors='replace')[-2000:]}")
    return Spent(taken, usage.ru_maxrss * 1024)


BENCHMARK = Benchmark(
    name="report",
    question="How long does the report of 5,000 evaluations take, and how much memory?",
    run=run,
    long=True,
)
