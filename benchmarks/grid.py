"""What the complete yes/no grid costs, in core-seconds, against a sweeper that shares nothing between cells.

Ours is the command itself, `sweeps/visdial_ablation.py --preset laptop --methods all --trials 0`, from an empty store
to the report: its wall clock by the number of cores. Every training serves all of its betas, and each cell is played on
the tune scenes and on the report scenes.

The other side runs each cell as a cold Tune trial (`benchmarks.cold_trial`): a process of its own that makes its data,
clones its behaviour policy, trains its value networks and plays the report scenes one episode after the other. Running
all of them would take most of a day, so its cost is composed:

- `start`: a cold trial that only makes its data, measured as such trials, as many at once as there are cores.
- A step of cloning, a step of value training and an episode, the public implementation's way, measured in one process
  per core at once, as the sweeper's trials run; the episode with the grid's own trained weights.
- A method that the public implementation has not costs what ours costs to train, as the grid recorded it, and its
  episodes what ours cost played one by one. That favours the other side.

The composition is checked end to end: six cells of ILQL at reduced steps and episodes really run as cold trials, and
their cost must be what is composed for them, to a fifth.

The gain is split by replacing one thing after the other, in this order: shared trainings, start-up, steps, rollouts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ray
import torch
from ray import tune

from benchmarks import cold_trial
from benchmarks.measure import Benchmark, Line, seconds
from benchmarks.public_rollout import PublicPolicy, episode
from benchmarks.public_step import PublicStep
from ilql import checkpoint
from ilql import train as training_loop
from ilql.evaluate import Player, play
from ilql.networks import ValueNetworks
from ilql.tasks.visdial.settings import Settings
from sweeps import evaluate_cells, stages, train_weights, work
from sweeps.job import Job, Resources
from sweeps.spec import TrialSpec
from sweeps.store import Store

ROOT = Path(__file__).resolve().parent.parent
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
PUBLIC = {"ilql", "sarsa", "ilql_without_lm"}
"""Methods that the other side trains and plays the public implementation's way."""
CLONING = {"bc", "filtered_bc"}

CHECKED = ((0.5, 8.0), (0.7, 4.0), (0.7, 16.0), (0.8, 8.0), (0.9, 4.0), (0.9, 16.0))
"""τ and β of the cells that are run end to end."""
CLOSE = 0.2
"""What is composed for them may be off by this share."""


@dataclass(frozen=True)
class Size:
    """How much is run.

    Attributes:
        arguments: Of our command.
        world: The scenes it makes.
        steps: Optimiser steps of each of both trainings of a checked cell.
        episodes: Of a checked cell.
        checked: How many of `CHECKED`.
        timed: Steps that a unit cost is the mean of; a third of that in episodes.
    """

    arguments: Sequence[str]
    world: Settings
    steps: int
    episodes: int
    checked: int
    timed: int


FULL = Size(("--preset", "laptop", "--methods", "all", "--trials", "0"), Settings(), 60, 48, 6, 24)
QUICK = Size(
    ("--preset", "smoke", "--methods", "bc,sarsa,ilql", "--trials", "0"),
    Settings(train_scenes=200, tune_scenes=60, report_scenes=60),
    2, 2, 2, 3,
)  # fmt: skip


@dataclass(frozen=True)
class Units:
    """What the other side's parts cost, in core-seconds.

    Attributes:
        start: A cold trial that does nothing but make its data.
        cloning: A dialogue in a step of cloning.
        value: A dialogue in a step of value training.
        episode: An episode of the report scenes, by the way its cell acts.
    """

    start: float
    cloning: float
    value: float
    episode: Mapping[str, float]


@dataclass(frozen=True)
class Grid:
    """Our side's run.

    Attributes:
        store: Where.
        core_seconds: Wall clock by cores.
        cells: The trials on the report scenes.
        trained: Seconds each training took, by its weights.
        played: Seconds of all evaluations together.
    """

    store: Store
    core_seconds: float
    cells: Sequence[TrialSpec]
    trained: Mapping[str, float]
    played: float


def ours(size: Size, folder: Path) -> Grid:
    """Run the command on a new store.

    Raises:
        RuntimeError: It failed, or a cell of it did.
    """
    command = [sys.executable, str(ROOT / "sweeps" / "visdial_ablation.py"), *size.arguments, "--store", str(folder)]
    environment = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS",)}
    with (folder.parent / "grid.log").open("w") as log:
        took = seconds(lambda: subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=log, check=True))
    store = Store(folder)
    members = [TrialSpec.from_json(str(member["spec"])) for member in store.members()]
    evaluations, trainings = store.all("evaluation"), store.all("training")
    failed = [key for key, record in {**evaluations, **trainings}.items() if record["status"] != "finished"]
    if failed:
        raise RuntimeError(f"every cell of the grid must finish, {len(failed)} did not: {failed[:3]}")
    return Grid(
        store,
        took * CORES,
        [spec for spec in members if spec.evaluation.split == "report"],
        {key: float(record["train_seconds"]) for key, record in trainings.items()},
        sum(float(record["evaluate_seconds"]) for record in evaluations.values()),
    )


def way(spec: TrialSpec) -> str:
    """A name for how a cell acts, as far as that decides what an episode costs."""
    candidates = spec.kind.manner(spec.train, spec.decode).candidates
    return f"{spec.method}, {candidates} candidates" if candidates else spec.method


def player_of(spec: TrialSpec) -> Player:
    """Who plays a cell's episodes."""
    return Player(spec.decode, spec.kind.manner(spec.train, spec.decode), spec.data.reward)


def at_once(work_: Callable[..., Any], *arguments: Any) -> list[Any]:
    """The same work in one process per core at the same time; what each returned."""
    with ProcessPoolExecutor(CORES, mp_context=multiprocessing.get_context("spawn")) as pool:
        return [each.result() for each in [pool.submit(work_, *arguments) for _ in range(CORES)]]


def mean(numbers: Sequence[float]) -> float:
    """Their mean: what is done by some processes at once costs each core its own."""
    return statistics.fmean(numbers)


def time_steps(folder: Path, trial: str, timed: int) -> tuple[float, float]:
    """Seconds of a dialogue in a public step of cloning, and in one of value training, from a trained policy."""
    torch.set_num_threads(1)
    store, spec = Store(folder), TrialSpec.from_json(trial)
    behaviour, sequences = stages.load_behaviour(store, spec), stages.load_tokens(store, spec)
    module = stages.build_module(store, spec)
    assert isinstance(module, ValueNetworks)
    sides = (
        (cold_trial.PublicCloning(behaviour, spec.backbone.behaviour).step, spec.backbone.behaviour.batch_size),
        (PublicStep(module, spec.train).step, spec.train.batch_size),
    )
    found = []
    for step, batch_size in sides:
        order = cold_trial.batches(sequences, batch_size, 0)
        step(next(order))  # warms up
        found.append(seconds(lambda: [step(next(order)) for _ in range(timed)]) / (timed * batch_size))  # noqa: B023
    return found[0], found[1]


def time_episodes(folder: Path, trials: Sequence[str], count: int) -> dict[str, float]:
    """Seconds of an episode played alone, for each of some trained cells, by its way to act.

    A first episode warms up and does not count.
    """
    torch.set_num_threads(1)
    store, found = Store(folder), dict[str, float]()
    for spec in map(TrialSpec.from_json, trials):
        task, tokenizer = (
            stages.load_task(store, spec.data.task, spec.data.world),
            stages.load_tokenizer_stage(store, spec),
        )
        module = stages.load_module(store, spec)
        behaviour = stages.load_behaviour(store, spec) if spec.kind.needs_behaviour else None
        player, split = player_of(spec), spec.evaluation.split
        if spec.method in PUBLIC:
            assert isinstance(module, ValueNetworks)
            assert behaviour is not None
            policy = PublicPolicy(module, behaviour, tokenizer)
            one: Callable[[int], Any] = lambda seed: episode(policy, task, split, player, seed)  # noqa: B023, E731
        else:
            actor, cpu = spec.kind.actor(module, behaviour), torch.device("cpu")
            one = lambda seed: play(task, split, actor, tokenizer, [player], [seed], device=cpu, slots=1)  # noqa: B023, E731
        one(0)
        found[way(spec)] = seconds(lambda: [one(seed) for seed in range(1, 1 + count)]) / count  # noqa: B023
    return found


def of_each_way(cells: Sequence[TrialSpec]) -> list[str]:
    """One trial of each way to act, as JSON: the middle one of those that act so."""
    ways: dict[str, list[TrialSpec]] = {}
    for spec in cells:
        ways.setdefault(way(spec), []).append(spec)
    return [each[len(each) // 2].to_json() for each in ways.values()]


def tuned(trials: Sequence[str], world: Settings, *, nothing: bool = False) -> float:
    """Core-seconds of some cells as cold Tune trials, as many at once as there are cores; Ray is there already.

    Args:
        trials: As JSON.
        world: Its settings.
        nothing: Whether a trial only makes its data.
    """

    def trial(config: dict[str, Any]) -> None:
        spec = TrialSpec.from_json(config["trial"])
        if not nothing:
            tune.report({"score": cold_trial.run(spec, world)})
            return
        with tempfile.TemporaryDirectory() as folder:
            cold_trial.prepare(spec, world, Path(folder))
            tune.report({"score": 0.0})

    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            tune.with_resources(trial, {"cpu": 1}),
            param_space={"trial": tune.grid_search(list(trials))},
            tune_config=tune.TuneConfig(reuse_actors=False),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        begin = time.perf_counter()
        results = tuner.fit()
        took = time.perf_counter() - begin
    if results.errors:
        raise RuntimeError(f"a cold trial failed: {results.errors[0]}")
    return took * CORES


def composed(cells: Sequence[TrialSpec], units: Units, trained: Mapping[str, float]) -> float:
    """What cells cost the other side, each with trainings of its own.

    Args:
        cells: The cells.
        units: What its parts cost.
        trained: Our seconds of the trainings that the public implementation has not, by weights.
    """
    return sum(
        units.start
        + sum(training_cost(spec, units, trained) for spec in (*cell.required, cell))
        + cell.evaluation.episodes * units.episode[way(cell)]
        for cell in cells
    )


def training_cost(spec: TrialSpec, units: Units, trained: Mapping[str, float]) -> float:
    """What one training costs the other side."""
    dialogues = spec.train.steps * spec.train.batch_size
    if spec.method in CLONING:
        return float(dialogues * units.cloning)
    return float(dialogues * units.value) if spec.method in PUBLIC else trained[spec.weights_id]


def reduced(cell: TrialSpec, size: Size) -> list[TrialSpec]:
    """The checked cells: like this one of ILQL, but for τ and β, in fewer steps and episodes."""
    behaviour = dataclasses.replace(cell.backbone.behaviour, steps=size.steps)
    return [
        dataclasses.replace(
            cell,
            backbone=dataclasses.replace(cell.backbone, behaviour=behaviour),
            train=dataclasses.replace(cell.train, tau=tau, steps=size.steps),
            decode=dataclasses.replace(cell.decode, beta=beta),
            evaluation=dataclasses.replace(cell.evaluation, episodes=size.episodes),
        )
        for tau, beta in CHECKED[: size.checked]
    ]


@contextlib.contextmanager
def clocks() -> Iterator[dict[str, float]]:
    """The seconds that jobs of this process take meanwhile in steps (checkpoints included), checkpoints and rollouts.

    Raises:
        AttributeError: A job no longer looks for what is clocked where the clock was put.
    """
    inside = {"train": 0.0, "save": 0.0, "play": 0.0}

    def clocked(name: str, work_: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            begin = time.perf_counter()
            try:
                return work_(*arguments, **named)
            finally:
                inside[name] += time.perf_counter() - begin

        return call

    def steps(*arguments: Any, **named: Any) -> Iterator[Any]:
        going = training_loop.train(*arguments, **named)
        step = clocked("train", lambda: next(going, None))
        while (progress := step()) is not None:
            yield progress

    save = clocked("save", checkpoint.save_checkpoint)
    with (
        patch.object(train_weights, "train", steps),
        patch.object(evaluate_cells, "play", clocked("play", play)),
        patch.object(training_loop, "save_checkpoint", save),
    ):
        yield inside


def shares(spec: TrialSpec, world: Settings) -> tuple[float, float]:
    """Of the seconds that are recorded for a training, and for evaluations: what the steps and the rollouts take.

    A job of one training and its evaluation is done in this process, in a new store, with clocks inside.
    """
    with tempfile.TemporaryDirectory() as folder:
        cold_trial.prepare(spec, world, Path(folder))
        store = Store(Path(folder))
        resources = Resources(micro_batch=4)  # as the preset's
        for needed in spec.required:
            work.run_job(_job(store, needed, (), resources), lambda numbers: None)
        with clocks() as inside:
            work.run_job(_job(store, spec, (spec.to_json(),), resources), lambda numbers: None)
        training, evaluation = store.get("training", spec.weights_id), store.get("evaluation", spec.trial_id)
    assert training is not None
    assert evaluation is not None
    return (
        (inside["train"] - inside["save"]) / float(training["train_seconds"]),
        inside["play"] / float(evaluation["evaluate_seconds"]),
    )


def _job(store: Store, training: TrialSpec, evaluations: tuple[str, ...], resources: Resources) -> Job:
    return Job(store=str(store.folder), training=training.to_json(), evaluations=evaluations, resources=resources)


def run(quick: bool) -> list[Line]:
    """Run our side, measure the other's parts, check its composition, and split the gain.

    Raises:
        RuntimeError: What is composed for the checked cells is not what they cost.
    """
    size = QUICK if quick else FULL
    environment = {"env_vars": {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        grid = ours(size, folder / "grid")
        cell = next(spec for spec in grid.cells if spec.method == "ilql")
        steps = at_once(time_steps, grid.store.folder, cell.to_json(), size.timed)
        episodes = at_once(time_episodes, grid.store.folder, of_each_way(grid.cells), max(1, size.timed // 6))
        small = reduced(cell, size)
        small_store = folder / "small"
        _train_small(small[0], size.world, small_store)
        small_episodes = at_once(time_episodes, small_store, [small[0].to_json()], max(1, size.timed // 3))
        ray.init(address="local", num_cpus=CORES, include_dashboard=False, log_to_driver=False, runtime_env=environment)
        try:
            nothing = [small[place % len(small)].to_json() for place in range(2 * CORES)]
            start = (
                mean(
                    [tuned(nothing[:CORES], size.world, nothing=True), tuned(nothing[CORES:], size.world, nothing=True)]
                )
                / CORES
            )
            really = tuned([spec.to_json() for spec in small], size.world)
        finally:
            ray.shutdown()
        in_training, in_evaluation = shares(cell, size.world)
    cloning, value = (mean(numbers) for numbers in zip(*steps, strict=True))
    units = Units(start, cloning, value, _means(episodes))
    check = composed(small, dataclasses.replace(units, episode=_means(small_episodes)), {})
    if not quick and abs(check / really - 1) > CLOSE:
        raise RuntimeError(f"what is composed for the checked cells must be what they cost, got {check} and {really}")
    return _lines(grid, units, (check, really), in_training, in_evaluation)


def _train_small(spec: TrialSpec, world: Settings, folder: Path) -> None:
    """The checked cells' networks as they are trained, in a store."""
    cold_trial.prepare(spec, world, folder)
    store = Store(folder)
    for needed in (*spec.required, spec):
        work.run_job(_job(store, needed, (), Resources()), lambda numbers: None)


def _means(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: mean([each[name] for each in found]) for name in found[0]}


def _lines(
    grid: Grid, units: Units, check: tuple[float, float], in_training: float, in_evaluation: float
) -> list[Line]:
    everything = composed(grid.cells, units, grid.trained)
    trainings = {spec.weights_id: spec for cell in grid.cells for spec in (*cell.required, cell)}
    training = sum(training_cost(spec, units, grid.trained) for spec in trainings.values())
    playing = sum(cell.evaluation.episodes * units.episode[way(cell)] for cell in grid.cells)
    our_steps, our_rollouts = sum(grid.trained.values()) * in_training, grid.played * in_evaluation
    rest = grid.core_seconds - our_steps - our_rollouts
    totals = [
        everything,
        len(trainings) * units.start + training + playing,
        rest + training + playing,
        rest + our_steps + playing,
        grid.core_seconds,
    ]
    gains = [before / after for before, after in itertools.pairwise(totals)]
    names = ("shared trainings", "start-up", "step", "rollout")
    split = " · ".join(f"{name} {gain:.2f}" for name, gain in zip(names, gains, strict=True))
    return [
        Line(
            name=f"the complete yes/no grid, {len(grid.cells)} cells on {len(trainings)} trainings",
            unit="core-s",
            ours=(grid.core_seconds,),
            other=(everything,),
            other_is="every cell a cold Tune trial with trainings of its own and episodes one by one, composed",
            goal=1 / 8,
            at_least=False,
            more_is_better=False,
            note=f"the gain is {split}, one after the other; composed for {len(CHECKED)} reduced cells "
            f"{check[0]:,.0f} core-s, measured end to end {check[1]:,.0f}",
            details={
                "units": dataclasses.asdict(units),
                "totals": totals,
                "gains": dict(zip(names, gains, strict=True)),
                "composed_and_measured": check,
            },
        ),
        Line(
            name="share of the grid's wall clock that is neither step nor rollout",
            unit="core-s",
            ours=(rest,),
            other=(grid.core_seconds,),
            other_is="the whole run",
            goal=0.05,
            at_least=False,
            more_is_better=False,
            note=f"steps {our_steps:,.0f} core-s, rollouts {our_rollouts:,.0f}; a training's job is {in_training:.0%} "
            f"steps, an evaluation's {in_evaluation:.0%} rollouts",
            details={"in_training": in_training, "in_evaluation": in_evaluation},
        ),
    ]


BENCHMARK = Benchmark("grid", "What does the complete grid cost, and a sweeper that shares nothing?", run, long=True)
