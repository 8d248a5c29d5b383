"""What one wants to know, as a value, and how it becomes definite: preset, design, world, backbone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ilql.conventions import METHODS as CONVENTIONAL
from ilql.conventions import convention
from ilql.hyperparameters import Value, make, unknown
from ilql.methods import method_named
from ilql.model_folder import context_of, find_model
from ilql.task import Task
from ilql.tasks import known_tasks
from ilql.tokens import chat_template_digest, symbol_tokenizer
from sweeps.cells import Setting
from sweeps.job import Resources
from sweeps.names import one_component
from sweeps.offline import distinct_episodes, held_out_notes
from sweeps.options import Options
from sweeps.overrides import settled, varied, widened
from sweeps.presets import Preset
from sweeps.refinement import Refinement
from sweeps.reporting import Against, MakeSection
from sweeps.space import Between, Grid, known_columns, settings
from sweeps.space import PlannedTraining as Training
from sweeps.spec import Backbone, Data, Evaluation, TrialSpec
from sweeps.stages import (
    cut_note,
    ensure_start,
    ensure_world,
    load_task,
    load_tokenizer_stage,
    pretrained_digest,
    vocabulary_note,
)
from sweeps.store import Store

ALL = "all"
"""Names every arm of a question."""

WORLD = "world."
"""Begins the columns of `--set` that are settings of the task."""

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
        grids: The design: every arm's cells.
        main: The arms that are run unless others are named; all of them if empty.
        refine: The arms whose trainings proposals vary unless others are named.
        held: Columns that proposals leave as the preset has them.
        against: Comparisons to be stated under the table.
        sections: What else its report has.
        world: The task's settings. Takes the world's name or None, whether there is data, and the preset.
        inputs: Its sources besides `--data`, by name, each with a line that says what it is.
        rewards_of_inputs: The reward that is asked about instead where a source is given and no reward is named.
    """

    name: str
    task: str
    presets: Mapping[str, Preset]
    reward: str
    grids: tuple[Grid, ...]
    main: tuple[str, ...] = ()
    refine: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    against: tuple[Against, ...]
    world: Callable[[str | None, bool, Preset], Any]
    sections: tuple[MakeSection, ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    rewards_of_inputs: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for arm in self.refine:
            grid = self.grid(arm)
            for dimension in grid.space(self.held):
                for end in (dimension.low, dimension.high):
                    settings(grid.method, "train", {dimension.column: end})  # a wrong range dies here
        for name in self.main:
            self.grid(name)
        for asked in self.against:
            for arm, fixed in ((asked.arm, asked.fixed), (asked.baseline, asked.baseline_fixed or {})):
                known = known_columns([self.grid(arm).method])
                for column in fixed:
                    if column not in known:
                        raise KeyError(unknown(column, f"column of an {arm!r} trial", known))

    @property
    def arms(self) -> list[str]:
        """The arms of its design, in order."""
        return [grid.arm for grid in self.grids]

    def grid(self, arm: str) -> Grid:
        """An arm's cells.

        Raises:
            KeyError: There is no such arm.
        """
        for grid in self.grids:
            if grid.arm == arm:
                return grid
        raise KeyError(unknown(arm, f"method of a {self.name} sweep", [*self.arms, ALL]))

    def rewards(self, options: Options) -> tuple[str, ...]:
        """The training rewards that the options ask about, each once."""
        own = next((reward for name, reward in self.rewards_of_inputs.items() if name in options.inputs), self.reward)
        return tuple(dict.fromkeys(options.rewards or (own,)))

    def chosen(self, options: Options) -> list[Grid]:
        """The arms that the options name, in the design's order, with the values that they ask for.

        Raises:
            KeyError: An arm or a column does not exist.
            ValueError: A column is one that an arm decides.
        """
        named = options.methods or self.main or (ALL,)
        for arm in named:
            if arm != ALL:
                self.grid(arm)
        return varied([grid for grid in self.grids if grid.arm in named or ALL in named], options.overrides)

    def settled(self, options: Options) -> Options:
        """The options, with what they say of columns put where it belongs: to the design, or to what is fixed.

        Raises:
            KeyError: An arm that is named does not exist.
            ValueError: A column is said twice, or several values of one that no design can vary.
        """
        return settled(self.chosen(options), options)

    def refined(self, options: Options) -> list[Grid]:
        """The chosen arms whose trainings proposals vary.

        Raises:
            KeyError: An arm that is named does not exist.
            ValueError: An arm that is named is not run, or has nothing to vary.
        """
        chosen = self.chosen(options)
        if options.refine is None:
            return [grid for grid in chosen if grid.arm in self.refine]
        named = {self.grid(arm).arm for arm in options.refine if arm != ALL}
        if ALL in options.refine:
            named |= {grid.arm for grid in chosen if grid.dimensions(self.held)}
        if missing := named - {grid.arm for grid in chosen}:
            raise ValueError(f"--refine must name arms that are run, got {sorted(missing)[0]!r}; --methods names them")
        refined = [grid for grid in chosen if grid.arm in named]
        for grid in refined:
            grid.space(self.held)
        return refined


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A question made definite: everything that decides its rows, and how they are to be made.

    Attributes:
        name: Its name in the store.
        setting: What all its trials share.
        design: The trainings that are planned.
        refinement: What is proposed after them, or None.
        space: What proposals vary, or would, by arm that is refined.
        seeds: Training seeds of every cell.
        resources: What a job uses.
    """

    name: str
    setting: Setting
    design: tuple[Training, ...]
    refinement: Refinement | None
    space: Mapping[str, tuple[Between, ...]]
    seeds: int
    resources: Resources

    def __post_init__(self) -> None:
        one_component("a sweep's name", self.name)


def chosen_preset(question: Question, options: Options) -> Preset:
    """The preset named, with what the command line overrides.

    Raises:
        KeyError: There is no such preset, arm or column.
        ValueError: A value is none that it may have, or something is asked for that none of the chosen arms does.
    """
    if options.preset not in question.presets:
        raise KeyError(unknown(options.preset, "preset", question.presets))
    preset = question.presets[options.preset]
    if options.data is not None:
        preset = preset.for_data()
    proposals = preset.proposals if options.proposals is None else options.proposals
    chosen = question.chosen(options)
    refined = question.refined(options)
    arms = ", ".join(grid.arm for grid in chosen)
    if (options.proposals or options.refine) and not refined:
        raise ValueError(f"proposals must have a method to search, got {arms}; --refine names one that has a space")
    if options.convention is not None and not any(grid.method in CONVENTIONAL for grid in chosen):
        raise ValueError(f"--convention is about {', '.join(CONVENTIONAL)}, got {arms}")
    searched = {d.column for grid in refined for d in grid.space(question.held)} if proposals else set()
    known = known_columns([grid.method for grid in question.grids])
    known += [f"behaviour.{f.name}" for f in dataclasses.fields(preset.behaviour)]
    base: dict[str, Value] = dict(preset.base)
    behaviour: dict[str, Any] = {}
    for column, value in options.columns.items():
        if column.startswith(WORLD):
            continue  # the world's own, checked where its settings are made
        if column not in known:
            raise KeyError(unknown(column, f"column of a {question.name} sweep", known))
        if column.startswith("behaviour."):
            behaviour[column.removeprefix("behaviour.")] = value
        elif any(column in grid.decided for grid in chosen):
            raise ValueError(f"--set may not fix a column that the design varies, got {column}")
        elif column in searched:
            raise ValueError(f"--set may not fix a column that proposals vary, got {column}; --trials 0 makes none")
        elif not any(_reaches(preset, grid, column) for grid in chosen):
            raise ValueError(
                f"--set must fix a column that a method which is run takes from the preset, got {column} with {arms}; "
                "how cloning is trained is set with behaviour.*"
            )
        else:
            base[column] = value
    own = {
        method: {name: value for name, value in columns.items() if name not in options.columns}
        for method, columns in preset.methods.items()
    }
    changes: dict[str, Any] = {"base": base, "methods": own}
    if options.convention is not None:
        followed = convention(options.convention)
        changes["convention"] = {name: value for name, value in followed.items() if name not in options.columns}
    if behaviour:
        values = dataclasses.asdict(preset.behaviour) | behaviour
        changes["behaviour"] = make(type(preset.behaviour), values, owner="a 'bc' trial", prefix="behaviour")
    if options.model is not None:
        changes |= {"model": options.model, "architecture": None, "vocabulary": 0}
    if options.cut_vocabulary is not None:
        if options.model is None and preset.model is None:
            raise ValueError("--cut-vocabulary is, as its opposite, about a pretrained model, got none")
        changes["cut_vocabulary"] = options.cut_vocabulary
    if options.chat_template:
        if options.model is None and preset.model is None:
            raise ValueError("--chat-template is about a pretrained model, got none; --model names one")
        changes["chat_template"] = True
    for name, value in (
        ("adapter_rank", options.adapter_rank),
        ("seeds", options.seeds),
        ("report_episodes", options.episodes),
        ("proposals", options.proposals),
    ):
        if value is not None:
            changes[name] = value
    changes["resources"] = dataclasses.replace(preset.resources, **dict[str, Any](options.resources))
    changed = dataclasses.replace(preset, **changes)
    if changed.resources.shard and changed.adapter_rank:
        raise ValueError("--shard needs networks without adapters, which share one frozen trunk already")
    return changed


def world_settings(question: Question, preset: Preset, options: Options) -> Any:
    """The task's settings, with what `--set world.…` says of them.

    Raises:
        KeyError: There is no such setting.
        TypeError, ValueError: A value is none that it may have.
    """
    settings_ = question.world(options.world, options.data is not None, preset)
    said = {name.removeprefix(WORLD): value for name, value in options.columns.items() if name.startswith(WORLD)}
    if not said:
        return settings_
    return make(type(settings_), dataclasses.asdict(settings_) | said, owner=f"a {question.task} world", prefix="world")


def make_sweep(
    question: Question,
    preset: Preset,
    options: Options,
    store: Store,
    say: Callable[[str], None],
    *,
    reward: str | None = None,
) -> Sweep:
    """Make the question definite: build the world, the tokeniser and the backbone, and name every cell.

    Args:
        question: What is asked.
        preset: How big.
        options: What else the user said.
        store: Where.
        say: Told what building the world had to say.
        reward: The training reward, or None for the question's own.

    Raises:
        ValueError: A setting, the data or the model cannot be used.
        KeyError: A method does not exist.
    """
    grids = question.chosen(options)
    design = tuple(training for grid in grids for training in grid.trainings(_for_grid(preset, grid)))
    if preset.architecture is not None:
        _check_lengths(preset.architecture.context, preset, design)
    kind = known_tasks()[question.task]
    chosen = world_settings(question, preset, options)
    world = ensure_world(store, kind, chosen, options.sources, say)
    for note in world.notes:
        say(note)
    task = load_task(store, kind.name, world.key)
    reward = reward or question.reward
    judged = options.evaluation_reward or reward
    for name in (reward, judged):
        if name not in task.rewards:
            raise KeyError(unknown(name, f"reward of {task.name}", task.rewards))
    model = None if preset.model is None else find_model(preset.model)
    if model is not None:
        _check_lengths(context_of(model), preset, design)
    backbone = Backbone(
        architecture=preset.architecture,
        pretrained="" if model is None else pretrained_digest(model),
        vocabulary=preset.vocabulary if model or not kind.symbols else symbol_tokenizer(kind.symbols).size,
        cut_vocabulary=model is not None and preset.cut_vocabulary,
        chat_template=chat_template_digest(model) if model is not None and preset.chat_template else "",
        adapter_rank=preset.adapter_rank,
        behaviour=preset.behaviour,
    )
    by = "play" if task.playable else "fitted_q"
    evaluation: dict[str, Any] = {"world": world.key, "reward": judged, "first_seed": FIRST_SEED, "by": by}
    setting = Setting(
        data=Data(task=kind.name, world=world.key, reward=reward),
        backbone=backbone,
        tune=Evaluation(**evaluation, split="tune", episodes=_episodes(task, "tune", preset.tune_episodes)),
        report=Evaluation(**evaluation, split="report", episodes=_episodes(task, "report", preset.report_episodes)),
    )
    _check_distinct(setting, design)
    ensure_start(store, any_trial(setting, design), model, say)
    if (narrowed := vocabulary_note(store, any_trial(setting, design))) is not None:
        say(narrowed)
    lengths = {training.train.max_tokens: training for training in design}
    for training in lengths.values():
        if (cut := cut_note(store, setting.trials(training, 0, split="tune")[0], say)) is not None:
            say(cut)
        if by == "fitted_q":
            tokenizer = load_tokenizer_stage(store, any_trial(setting, design))
            for line in held_out_notes(task, tokenizer, training.train.max_tokens, (setting.tune, setting.report)):
                say(line)
    refinement = None
    refined = question.refined(options)
    if preset.proposals and refined:
        refinement = Refinement(
            bases=tuple(grid.to_refine().trainings(_for_grid(preset, grid))[0] for grid in refined),
            proposals=preset.proposals,
            round_size=preset.round_size,
            rung=preset.rung,
        )
    several = len(set(options.rewards or ())) > 1
    kept = [getattr(chosen, "world", "recorded" if options.data else "generated"), judged, *options.distinction(reward)]
    plain = "-".join([question.name, preset.name, *kept])
    name = plain if options.name is None else f"{options.name}-{reward}" if several else options.name
    return Sweep(
        name=name,
        setting=setting,
        design=design,
        refinement=refinement,
        space={grid.arm: grid.space(question.held) for grid in refined},
        seeds=preset.seeds,
        resources=preset.resources,
    )


def _episodes(task: Task, split: str, wanted: int) -> int:
    """How many episodes a policy is judged on: where it is not played, a scene that comes again says nothing new."""
    return wanted if task.playable else distinct_episodes(task, split, wanted)


def _for_grid(preset: Preset, grid: Grid) -> dict[str, Value]:
    """Base columns for a grid: the value methods' steps and rates for those that have a critic, BC's for the others.

    The preset's columns for single methods come on top, and a convention on top of those.
    """
    own = dict(preset.methods.get(grid.method, {}))
    if grid.method in CONVENTIONAL:
        own |= preset.convention
    if method_named(grid.method).needs_behaviour:
        return dict(preset.base) | own
    return dict(preset.base) | _cloning(preset) | own


def _cloning(preset: Preset) -> dict[str, Value]:
    """The behaviour policy's settings as columns: a method without a critic has those that it shares from here."""
    return {f"train.{name}": value for name, value in dataclasses.asdict(preset.behaviour).items()}


def _reaches(preset: Preset, grid: Grid, column: str) -> bool:
    """True if the grid's method has the column, and from the base: a cloning's settings are the behaviour policy's."""
    cloned = not method_named(grid.method).needs_behaviour and column in _cloning(preset)
    return column in known_columns([grid.method]) and not cloned


def unreached(question: Question, preset: Preset, options: Options) -> list[str]:
    """One line for each column of `--set` that some of the arms have and do not take from it."""
    lines = []
    for column in options.columns:
        own = [grid for grid in question.chosen(options) if column in known_columns([grid.method])]
        kept = [grid.arm for grid in own if not _reaches(preset, grid, column)]
        if kept:
            cloned = f"behaviour.{column.removeprefix('train.')}"
            lines.append(f"{column} is the behaviour policy's for {', '.join(kept)}: --set {cloned} sets it there")
    return lines


def side_effects(question: Question, options: Options) -> list[str]:
    """One line for each thing that other values of the design bring with them: arms that vary more, what is not said.

    Args:
        question: What is asked.
        options: Settled ones.
    """
    lines = widened(question.chosen(dataclasses.replace(options, overrides={})), options.overrides)
    grids = {grid.arm: grid for grid in question.chosen(options)}
    lost: dict[tuple[str, str], list[str]] = {}
    for asked in question.against:
        if not {asked.arm, asked.baseline} <= grids.keys():
            continue
        for arm, fixed in ((asked.arm, asked.fixed), (asked.baseline, asked.baseline_fixed or asked.fixed)):
            for column, value in fixed.items():
                arms = lost.setdefault((f"{column}={value}", asked.baseline), [])
                if value not in grids[arm].columns.get(column, (value,)) and asked.arm not in arms:
                    arms.append(asked.arm)
    for (setting, baseline), arms in lost.items():
        if arms:
            compared = f"{', '.join(arms)} with {baseline}"
            lines.append(f"without {setting} nothing compares {compared} at settings fixed beforehand")
    return lines


def _check_lengths(context: int, preset: Preset, design: Sequence[Training]) -> None:
    """Refuse trainings that would read more tokens than the model can.

    Raises:
        ValueError: There is one.
    """
    read = {"behaviour.max_tokens": preset.behaviour.max_tokens}
    read |= {f"train.max_tokens of {training.arm}": training.train.max_tokens for training in design}
    for what, tokens in read.items():
        if tokens > context:
            raise ValueError(f"{what} must be at most the model's context ({context}), got {tokens}")


def _check_distinct(setting: Setting, design: Sequence[Training]) -> None:
    """Refuse a design in which one cell stands twice: SARSA is ILQL at τ = ½, and would be one row under two names.

    Raises:
        ValueError: It does.
    """
    seen: dict[str, str] = {}
    for training in design:
        for trial in setting.trials(training, 0, split="report"):
            if trial.cell_id in seen:
                raise ValueError(f"a design must hold a cell once, got one of {seen[trial.cell_id]} and {training.arm}")
            seen[trial.cell_id] = training.arm


def any_trial(setting: Setting, design: Sequence[Training]) -> TrialSpec:
    """A trial of the design, for what all of them share."""
    return setting.trials(design[0], 0, split="tune")[0]
