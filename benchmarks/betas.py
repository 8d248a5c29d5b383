"""Sixteen betas on one checkpoint: one evaluation pass of all of them, against four evaluations of four betas each.

Both sides are `sweeps.evaluate_cells`, which is what a job of a sweep runs: it loads task, tokeniser and networks,
plays, and writes episodes, records and the advantages of a few. Only the number of trials in a call differs. The other
side's four calls are what four jobs would do, each with a load of its own; it gets quarters of neighbouring betas,
which share the most. No side's process is started for it, so the imports of a cold worker are not counted; what a
process would keep from an earlier job (the loaded world) is dropped before every call.

The numbers are seconds of processor time by the number of episodes. What each trial is played, both sides must agree
on, transcript by transcript.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import Benchmark, Line, alternately
from ilql.language_model import Architecture
from ilql.methods import bc, ilql
from ilql.tasks import visdial
from ilql.tasks.visdial.settings import Settings
from sweeps import stages
from sweeps.evaluate_cells import Block, evaluate_cells
from sweeps.job import Job, Resources
from sweeps.spec import Backbone, Data, Evaluation, TrialSpec
from sweeps.store import Store
from sweeps.work import run_job

BETAS = (0.0, *(2 ** (step / 2) for step in range(-2, 12)), math.inf)
"""No tilt, fourteen steps of √2 from ½ to 45, and the critic alone."""

JOBS = 4


def described(store: Store, *, layers: int, width: int, heads: int, steps: int, quick: bool) -> TrialSpec:
    """A trial of ILQL on a generated world of visual dialogue, built in `store` and played on the report scenes."""
    scenes = {"train_scenes": 100, "tune_scenes": 20, "report_scenes": 60} if quick else {"train_scenes": 1000}
    world = stages.ensure_world(store, visdial.KIND, Settings(**scenes), {}).key  # type: ignore[arg-type]
    return TrialSpec(
        "ilql",
        Data(task="visdial", world=world, reward="yn"),
        Backbone(
            architecture=Architecture(layers=layers, width=width, heads=heads, context=256),
            vocabulary=512,
            behaviour=bc.Train(steps=steps, batch_size=32, learning_rate=2e-3, max_tokens=256),
        ),
        ilql.Train(steps=steps, batch_size=16, learning_rate=1e-3, polyak=0.3, start="behaviour", max_tokens=256),
        0,
        ilql.METHOD.decode(max_new_tokens=20),
        Evaluation(world=world, reward="yn"),
    )


def checkpoint(store: Store, *, layers: int, width: int, steps: int, quick: bool) -> TrialSpec:
    """Train such a trial; returns it."""
    spec = described(store, layers=layers, width=width, heads=4, steps=steps, quick=quick)
    stages.ensure_start(store, spec, None)
    for training in (*spec.required, spec):
        job = Job(store=str(store.folder), training=training.to_json(), evaluations=(), resources=Resources())
        status = run_job(job, lambda numbers: None)
        assert status == "finished", f"the checkpoint's training {status}"
    return spec


def trials(spec: TrialSpec, episodes: int) -> list[TrialSpec]:
    """The checkpoint's trial with every beta, on so many episodes."""
    evaluation = dataclasses.replace(spec.evaluation, episodes=episodes)
    return [
        dataclasses.replace(spec, decode=dataclasses.replace(spec.decode, beta=beta), evaluation=evaluation)
        for beta in BETAS
    ]


def core_seconds(store: Store, cells: Sequence[TrialSpec], jobs: int) -> float:
    """Processor seconds an episode of so many calls with equal shares of the cells, each as in a process of its own."""
    each = len(cells) // jobs
    blocks = [tuple(cell.to_json() for cell in cells[job * each : (job + 1) * each]) for job in range(jobs)]
    shutil.rmtree(store.folder / "stages" / "evaluation", ignore_errors=True)
    begin = time.process_time()
    for block in blocks:
        stages._load_task.cache_clear()
        evaluate_cells(Block(str(store.folder), block))
    return (time.process_time() - begin) / sum(cell.evaluation.episodes for cell in cells)


def run(quick: bool) -> list[Line]:
    """Measure it; raises `AssertionError` if the sides did not play the same."""
    episodes, rounds = (4, 1) if quick else (128, 3)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        spec = checkpoint(store, layers=2, width=96, steps=8 if quick else 150, quick=quick)
        cells = trials(spec, episodes)
        core_seconds(store, trials(spec, 1), 1)  # whatever a first call does for the first time
        ids = [cell.trial_id for cell in cells]
        core_seconds(store, cells, JOBS)
        apart = store.episodes(ids)
        ours, other = alternately(
            lambda: core_seconds(store, cells, 1),
            lambda: core_seconds(store, cells, JOBS),
            rounds=rounds,
            warm_up=False,
        )
        core_seconds(store, cells, 1)
        together = store.episodes(ids)
        assert len(together) == len(cells) * episodes, "a cell was not played"
        assert apart.equals(together), "the sides must play the same episodes"
        different = together.select("episode_seed", "transcript").n_unique()
    return [
        Line(
            name="16 betas on one checkpoint, 2 layers of 96",
            unit="core-s/episode",
            ours=ours,
            other=other,
            other_is="four evaluations of 4 neighbouring betas, each with its own load",
            goal=0.8,
            at_least=False,
            more_is_better=False,
            note=f"the {len(cells) * episodes} episodes are {different} different ones, and these begin alike, too: "
            "what betas share is played once where they sit in the same pass",
            details={"betas": [str(beta) for beta in BETAS], "episodes_per_beta": episodes, "different": different},
        )
    ]


BENCHMARK = Benchmark("betas", "What does an episode cost when sixteen betas are played in one pass?", run)
