"""From a question to its table: plan, run, mirror, report. What every runnable question of this folder shares."""

from __future__ import annotations

import dataclasses
import shlex
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from cluster.connect import ClusterInfo, ConnectOptions, connect
from ilql.hyperparameters import Value, make, unknown
from ilql.methods import method_named
from ilql.networks import find_model
from ilql.tasks import known_tasks
from sweeps.journal import StoreError, utc
from sweeps.options import Options
from sweeps.plan import make_plan
from sweeps.presets import Preset
from sweeps.progress import Progress
from sweeps.provenance import package_folders
from sweeps.reporting import files_to_show, print_report, write_sweep_report
from sweeps.schedule import Refinement, Schedule, Setting, no_room
from sweeps.search import run_schedule
from sweeps.space import Between, Grid, Training, known_columns, settings
from sweeps.spec import Backbone, Data, Evaluation, TrialSpec
from sweeps.stages import ensure_start, ensure_world, load_task, pretrained_digest
from sweeps.store import Store
from sweeps.study import Study
from sweeps.tracking import Mirror
from sweeps.work import Resources

FIRST_SEED = 0
"""Episode seeds count from here on the tune and on the report scenes: the scenes differ."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What one wants to know, as a value.

    Attributes:
        name: Begins the names of its sweeps.
        task: The task's name.
        presets: Its sizes, by name.
        reward: The reward that is asked about unless another is named.
        grids: The design: every method's cells.
        refine: Whose training the proposals vary.
        space: Over what.
        refine_columns: Decodings of every proposal, and columns the proposals start from.
        against: A method and a baseline to compare, and a fixed cell of the method to show beside the chosen one.
        world: The task's settings. Takes the world's name or None, whether there is data, and the preset.
    """

    name: str
    task: str
    presets: Mapping[str, Preset]
    reward: str
    grids: tuple[Grid, ...]
    refine: str
    space: tuple[Between, ...]
    refine_columns: Mapping[str, Sequence[Value]]
    against: tuple[str, str, Mapping[str, float]]
    world: Callable[[str | None, bool, Preset], Any]

    def __post_init__(self) -> None:
        for dimension in self.space:
            for end in (dimension.low, dimension.high):
                settings(self.refine, "train", {dimension.column: end})  # a wrong name or range dies here
        method, baseline, fixed = self.against
        for name in (method, baseline):
            if name not in self.methods:
                raise KeyError(unknown(name, f"method of a {self.name} sweep", self.methods))
        known = known_columns([method])
        for column in fixed:
            if column not in known:
                raise KeyError(unknown(column, f"column of an {method!r} trial", known))

    @property
    def methods(self) -> list[str]:
        """The methods of its design, in order."""
        return list(dict.fromkeys(grid.method for grid in self.grids))


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A question made definite: everything that decides its rows, and how they are to be made."""

    name: str
    setting: Setting
    design: tuple[Training, ...]
    refinement: Refinement | None
    seeds: int
    resources: Resources


def run_question(question: Question, options: Options, say: Callable[[str], None]) -> int:
    """Answer a question: print the plan, do what is missing, print the table; returns the exit status.

    Raises:
        ValueError: Something the user gave is wrong; one line.
        KeyError: A name the user gave does not exist; one line.
    """
    preset = chosen_preset(question, options)
    store = Store(options.store)
    say(f"store {store.folder}")
    if (full := no_room(store.folder)) is not None:
        raise StoreError(full)
    if preset.paper:
        say(f"preset {preset.name}; against the paper it changes")
        for line in preset.differences():
            say(f"  {line}")
    sweep = make_sweep(question, preset, options, store, say)
    plan = make_plan(store, sweep.setting, sweep.design, seeds=sweep.seeds, refinement=sweep.refinement)
    if options.plan_only:
        for line in plan.lines(concurrent=options.concurrent or 1):
            say(line)
        return 0
    resume = f"the same command goes on from here: {shlex.join([*options.command])}"
    with ExitStack() as stack:
        terminated = signal.getsignal(signal.SIGTERM)
        info = stack.enter_context(connect(ConnectOptions(packages=package_folders())))
        signal.signal(signal.SIGTERM, terminated)  # Ray takes the signal for itself, and answers it by aborting
        concurrent = places(info, sweep.resources, options.concurrent)
        say(f"sweep {sweep.name} on {info}, {concurrent} jobs at a time")
        for line in plan.lines(concurrent=concurrent):
            say(line)
        mirror = Mirror(store, sweep.name, options.tracking) if options.mirror else None
        store.put("sweep", sweep.name, _record(store, question, sweep, options))
        study = Study(
            store.folder / "optuna" / f"{sweep.name}.log",
            name=sweep.name,
            seed=options.search_seed,
            space=question.space,
        )
        _drop_other_blocks(store, sweep)
        schedule = Schedule(
            store,
            sweep.name,
            sweep.setting,
            sweep.design,
            refinement=sweep.refinement,
            seeds=sweep.seeds,
            study=study,
            resources=sweep.resources,
        )
        progress = Progress(store, sweep.name, schedule)
        if mirror is not None:
            mirror.start(15.0)
        try:
            run_schedule(
                schedule,
                concurrent=concurrent,
                resources=sweep.resources,
                folder=store.folder / "tune" / sweep.name,
                on_progress=progress.told,
                on_change=progress.changed,
            )
        except KeyboardInterrupt:
            say(f"stopped; nothing that was finished is lost, and {resume}")
            return 130
        if schedule.halted is not None:
            raise StoreError(f"{schedule.halted}; {resume}")
        if not schedule.is_over:
            say(f"the sweep ended before its plan was done; {resume}")
            return 1
        _drop_stale(store, sweep.name, schedule.members)
    report, comparisons = write_sweep_report(store, sweep.name, question.against)
    if mirror is not None:
        mirror.finish(files_to_show(report))
    print_report(report, comparisons, say)
    say(f"Optuna's view: optuna-dashboard {study.file}")
    if mirror is not None:
        say(f"MLflow's view: {mirror.command}")
    if not any(row["status"] == "finished" for row in store.rows(sweep.name)):
        say(f"nothing has finished; `sweeps status {sweep.name}` says why")
        return 1
    return 0


def chosen_preset(question: Question, options: Options) -> Preset:
    """The preset named, with what the command line overrides.

    Raises:
        KeyError: There is no such preset or column.
    """
    if options.preset not in question.presets:
        raise KeyError(unknown(options.preset, "preset", question.presets))
    preset = question.presets[options.preset]
    if options.data is not None:
        preset = preset.for_data()
    proposals = preset.proposals if options.proposals is None else options.proposals
    chosen = [name for name in options.methods or question.methods if name in question.methods]
    known = known_columns(question.methods) + [f"behaviour.{f.name}" for f in dataclasses.fields(preset.behaviour)]
    base: dict[str, Value] = dict(preset.base)
    behaviour: dict[str, Any] = {}
    for column, value in options.columns.items():
        if column not in known:
            raise KeyError(unknown(column, f"column of a {question.name} sweep", known))
        if column.startswith("behaviour."):
            behaviour[column.removeprefix("behaviour.")] = value
        elif any(column in grid.columns for grid in question.grids):
            raise ValueError(f"--set may not fix a column that the design varies, got {column}")
        elif proposals and any(column == dimension.column for dimension in question.space):
            raise ValueError(f"--set may not fix a column that proposals vary, got {column}; --trials 0 makes none")
        elif column.startswith("train.") and not any(method_named(name).needs_behaviour for name in chosen):
            raise ValueError(f"--set train.* is for methods with a critic, got {column}; cloning takes behaviour.*")
        else:
            base[column] = value
    changes: dict[str, Any] = {"base": base}
    if behaviour:
        values = dataclasses.asdict(preset.behaviour) | behaviour
        changes["behaviour"] = make(type(preset.behaviour), values, owner="a 'bc' trial", prefix="behaviour")
    if options.model is not None:
        changes |= {"model": options.model, "architecture": None, "vocabulary": 0}
    for name, value in (
        ("seeds", options.seeds),
        ("report_episodes", options.episodes),
        ("proposals", options.proposals),
    ):
        if value is not None:
            changes[name] = value
    changes["resources"] = dataclasses.replace(preset.resources, **dict[str, Any](options.resources))
    return dataclasses.replace(preset, **changes)


def make_sweep(question: Question, preset: Preset, options: Options, store: Store, say: Callable[[str], None]) -> Sweep:
    """Make the question definite: build the world, the tokeniser and the backbone, and name every cell.

    Raises:
        ValueError: A setting, the data or the model cannot be used.
        KeyError: A method does not exist.
    """
    for method in options.methods or ():
        method_named(method)
        if method not in question.methods:
            raise KeyError(unknown(method, f"method of a {question.name} sweep", question.methods))
    grids = [grid for grid in question.grids if options.methods is None or grid.method in options.methods]
    design = tuple(training for grid in grids for training in grid.trainings(_for_grid(preset, grid)))
    kind = known_tasks()[question.task]
    world_settings = question.world(options.world, options.data is not None, preset)
    world = ensure_world(store, kind, world_settings, options.data)
    for note in world.notes:
        say(note)
    task = load_task(store, kind.name, world.key)
    reward, judged = options.reward or question.reward, options.evaluation_reward or options.reward or question.reward
    for name in (reward, judged):
        if name not in task.rewards:
            raise KeyError(unknown(name, f"reward of {task.name}", task.rewards))
    model = None if preset.model is None else find_model(preset.model)
    backbone = Backbone(
        architecture=preset.architecture,
        pretrained="" if model is None else pretrained_digest(model),
        vocabulary=preset.vocabulary,
        behaviour=preset.behaviour,
    )
    evaluation = {"world": world.key, "reward": judged}
    setting = Setting(
        data=Data(task=kind.name, world=world.key, reward=reward),
        backbone=backbone,
        tune=Evaluation(**evaluation, split="tune", first_seed=FIRST_SEED, episodes=preset.tune_episodes),
        report=Evaluation(**evaluation, split="report", first_seed=FIRST_SEED, episodes=preset.report_episodes),
    )
    _check_distinct(setting, design)
    ensure_start(store, _any_trial(setting, design), model)
    refinement = None
    if preset.proposals and question.refine in {training.method for training in design}:
        base = Grid(question.refine, question.refine_columns)
        start = base.trainings(_for_grid(preset, base))[0]
        refinement = Refinement(
            method=question.refine,
            base=start,
            proposals=preset.proposals,
            round_size=preset.round_size,
            rung=preset.rung,
        )
    kept = [options.world or ("recorded" if options.data else "generated"), judged, *options.distinction()]
    name = options.name or "-".join([question.name, preset.name, *kept])
    return Sweep(
        name=name,
        setting=setting,
        design=design,
        refinement=refinement,
        seeds=preset.seeds,
        resources=preset.resources,
    )


def places(info: ClusterInfo, resources: Resources, wanted: int | None) -> int:
    """How many jobs fit the cluster at a time, at most `wanted`.

    Raises:
        ValueError: Not one does.
    """
    cpus = resources.workers if resources.in_group else 1
    gpus = resources.workers * resources.gpus_per_worker
    if info.gpus < gpus:
        raise ValueError(
            f"a job needs {gpus:g} GPUs ({resources.workers} workers × {resources.gpus_per_worker:g}), "
            f"the cluster has {info.gpus:g}; --gpus-per-worker 0 trains on CPUs"
        )
    if info.cpus < cpus:
        raise ValueError(f"a job needs {cpus} CPUs, the cluster has {info.cpus:g}; --workers sets how many it uses")
    fit = int(min(info.cpus // cpus, info.gpus // gpus if gpus else info.cpus))
    return max(1, min(fit, wanted or fit))


def _for_grid(preset: Preset, grid: Grid) -> dict[str, Value]:
    """Base columns for a grid: the value methods' steps and rates for those that have a critic, BC's for the others."""
    method = method_named(grid.method)
    if method.needs_behaviour:
        return dict(preset.base)
    cloning = {f"train.{name}": value for name, value in dataclasses.asdict(preset.behaviour).items()}
    return {name: value for name, value in preset.base.items() if name.startswith("decode.")} | cloning


def _check_distinct(setting: Setting, design: Sequence[Training]) -> None:
    """Refuse a design in which one cell stands twice: SARSA is ILQL at τ = ½, and would be one row under two names.

    Raises:
        ValueError: It does.
    """
    seen: dict[str, str] = {}
    for training in design:
        for trial in setting.trials(training, 0, split="report"):
            if trial.cell_id in seen:
                raise ValueError(f"a design must hold a cell once, got one of {seen[trial.cell_id]} and {trial.method}")
            seen[trial.cell_id] = trial.method


def _any_trial(setting: Setting, design: Sequence[Training]) -> TrialSpec:
    return setting.trials(design[0], 0, split="tune")[0]


def _record(store: Store, question: Question, sweep: Sweep, options: Options) -> dict[str, Any]:
    earlier = store.get("sweep", sweep.name) or {}
    return {
        "created_at": earlier.get("created_at") or utc(),
        "question": question.name,
        "task": sweep.setting.data.task,
        "methods": sorted({training.method for training in sweep.design}),
        "data.reward": sweep.setting.data.reward,
        "evaluation.reward": sweep.setting.report.reward,
        "seeds": sweep.seeds,
        "episodes": sweep.setting.report.episodes,
        "proposals": 0 if sweep.refinement is None else sweep.refinement.proposals,
        "command": shlex.join(options.command),
    }


def _drop_other_blocks(store: Store, sweep: Sweep) -> None:
    """Take rows of an earlier plan out of the sweep if they were judged on another block; their results stay."""
    trial = _any_trial(sweep.setting, sweep.design)
    block = dataclasses.replace(trial, evaluation=sweep.setting.report).columns()
    shared = [name for name in block if name.startswith(("evaluation.", "data.", "backbone.", "task"))]
    for member in store.members(sweep.name):
        if any(member["columns"].get(name) != block[name] for name in shared):
            store.remove("member", f"{sweep.name}/{member['trial_id']}")


def _drop_stale(store: Store, sweep: str, members: set[str]) -> None:
    """Take rows that are no longer planned out of a sweep whose plan is done; their results stay."""
    for member in store.members(sweep):
        key = f"{sweep}/{member['trial_id']}"
        if key not in members:
            store.remove("member", key)
