"""How big a question is made: its preset with what the command line says of it, and what that does beside."""

from __future__ import annotations

import dataclasses
from typing import Any

from ilql.conventions import METHODS as CONVENTIONAL
from ilql.conventions import convention
from ilql.hyperparameters import Value, make, unknown
from ilql.methods import method_named
from sweeps.asked import WORLD
from sweeps.intervals import check_corners, searched_notes
from sweeps.options import Options
from sweeps.overrides import parted, widened
from sweeps.presets import Preset
from sweeps.question import Question
from sweeps.space import Grid, known_columns


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
            raise ValueError(
                f"a column that the design varies may not be fixed beside it, got {column}; {column}=VALUE,VALUE gives "
                "the design others"
            )
        elif column in searched:
            raise ValueError(f"a column that proposals vary may not be fixed, got {column}; --trials 0 makes none")
        elif not any(_reaches(preset, grid, column) for grid in chosen):
            raise ValueError(
                f"what is fixed must be a column that a method which is run takes from the preset, got {column} with "
                f"{arms}; how cloning is trained is set with behaviour.*"
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
    if options.behaviour_per_seed:
        changes["behaviour_per_seed"] = True
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
    for grid in chosen:
        check_corners(grid, for_grid(changed, grid))
    searched_notes(refined, options.searched, proposals)
    if changed.resources.shard and changed.adapter_rank:
        raise ValueError("--shard needs networks without adapters, which share one frozen trunk already")
    return changed


def shown(question: Question, options: Options) -> dict[str, Any]:
    """The preset as it would be used, as JSON values, and as `design` each arm's values by column.

    What an interval was said of is there as `search`, its ends by arm and column.
    Where a column is varied over whole sweeps, it and its values are there as `vary`.

    Raises:
        KeyError, ValueError: As of `chosen_preset`.
        TypeError, ValueError: A value of the design is none that its column may have.
    """
    preset = chosen_preset(question, options)
    design = {}
    for grid in question.chosen(options):
        base = for_grid(preset, grid)
        grid.trainings(base)  # what could not be run is not shown as if it could
        design[grid.arm] = {column: list(values) for column, values in grid.values(base).items()}
    search = {
        grid.arm: {column: [search.low, search.high] for column, search in grid.search.items()}
        for grid in question.refined(options)
        if grid.search
    }
    vary = {} if options.vary is None else {"vary": {options.vary[0]: list(options.vary[1])}}
    return {**preset.shown(), "design": design, **({"search": search} if search else {}), **vary}


def world_settings(question: Question, preset: Preset, options: Options) -> Any:
    """The task's settings, with what columns `world.…` say of them.

    Raises:
        KeyError: There is no such setting.
        TypeError, ValueError: A value is none that it may have.
    """
    settings_ = question.world(options.world, options.data is not None, preset)
    said = {name.removeprefix(WORLD): value for name, value in options.columns.items() if name.startswith(WORLD)}
    if not said:
        return settings_
    return make(type(settings_), dataclasses.asdict(settings_) | said, owner=f"a {question.task} world", prefix="world")


def for_grid(preset: Preset, grid: Grid) -> dict[str, Value]:
    """Base columns for a grid: the value methods' steps and rates for those that have a critic, BC's for the others.

    The preset's columns for single methods come on top, and a convention on top of those.
    """
    own = dict(preset.methods.get(grid.method, {}))
    if grid.method in CONVENTIONAL:
        own |= preset.convention
    if method_named(grid.method).needs_behaviour:
        return dict(preset.base) | own
    return dict(preset.base) | _cloning(preset) | own


def unreached(question: Question, preset: Preset, options: Options) -> list[str]:
    """One line for each column that is fixed, and that some of the arms have and do not take from it."""
    lines = []
    for column in options.columns:
        own = [grid for grid in question.chosen(options) if column in known_columns([grid.method])]
        kept = [grid.arm for grid in own if not _reaches(preset, grid, column)]
        if kept:
            cloned = f"behaviour.{column.removeprefix('train.')}"
            lines.append(f"{column} is the behaviour policy's for {', '.join(kept)}: --set {cloned} sets it there")
    return lines


def proposed_too(question: Question, preset: Preset, options: Options) -> list[str]:
    """One line for each column that has one value in the design, as was asked, and that proposals vary nevertheless."""
    lines = []
    refined = question.refined(options) if preset.proposals else []
    for name, values in options.overrides.items():
        named, column = parted(name, question.arms)
        arms = [
            grid.arm
            for grid in refined
            if named in (None, grid.arm) and column in {d.column for d in grid.space(question.held)}
        ]
        if arms and len(values) == 1:
            only = f"{name}={values[0]} is the design's alone: proposals vary {column} in {', '.join(arms)} too"
            lines.append(f"{only}; --trials 0 makes none")
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


def _cloning(preset: Preset) -> dict[str, Value]:
    """The behaviour policy's settings as columns: a method without a critic has those that it shares from here."""
    return {f"train.{name}": value for name, value in dataclasses.asdict(preset.behaviour).items()}


def _reaches(preset: Preset, grid: Grid, column: str) -> bool:
    """True if the grid's method has the column, and from the base: a cloning's settings are the behaviour policy's."""
    cloned = not method_named(grid.method).needs_behaviour and column in _cloning(preset)
    return column in known_columns([grid.method]) and not cloned
