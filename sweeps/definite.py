"""A question made definite: world, tokeniser and backbone are there, and every cell has a name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from ilql.hyperparameters import unknown
from ilql.model_folder import context_of, find_model
from ilql.task import Task
from ilql.tasks import task_named
from ilql.tokens import chat_template_digest, symbol_tokenizer
from sweeps.cells import Shared
from sweeps.command_line import Plain
from sweeps.offline import distinct_episodes, estimated_alone, held_out_notes
from sweeps.options import Options
from sweeps.presets import Preset
from sweeps.question import Question, Sweep
from sweeps.refinement import Refinement
from sweeps.sizing import chosen_preset, for_grid, world_settings
from sweeps.space import Grid, PlannedTraining
from sweeps.spec import Backbone, Data, Evaluation
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

FIRST_SEED = 0
"""Episode seeds count from here on the tune and on the report scenes: the scenes differ."""


def asked_sweeps(
    question: Question, preset: Preset, options: Options, store: Store, say: Callable[[str], None]
) -> dict[Plain, Sweep]:
    """The sweeps of a command line, by training reward, or by the value of the column that `--vary` varies.

    Args:
        question: What is asked.
        preset: How big.
        options: Settled ones.
        store: Where.
        say: Told what building the world had to say; of several rewards' once, since it is the same for all.

    Raises:
        ValueError: Options exclude each other, or a setting, the data or the model cannot be used.
        KeyError: A name does not exist.
    """
    rewards = question.rewards(options)
    if options.evaluation_reward is not None and (len(rewards) > 1 or options.transfer):
        raise ValueError(
            "--evaluation-reward is for one training reward; with several, or --transfer, each is judged by its own, "
            f"got {options.evaluation_reward!r}"
        )
    if options.vary is not None and (len(rewards) > 1 or options.transfer):
        raise ValueError(f"--vary is for one training reward and no --transfer, got {', '.join(rewards)}")
    sweeps: dict[Plain, Sweep] = {}
    if options.vary is not None:
        column, values = options.vary
        for value in values:
            name = None if options.name is None else f"{options.name}-{value}"
            varied = dataclasses.replace(options, columns={**options.columns, column: value}, name=name)
            size = chosen_preset(question, varied)
            sweeps[value] = make_sweep(question, size, varied, store, say, reward=rewards[0])
        return sweeps
    for reward in rewards:
        tell = _keep_quiet if sweeps else say
        sweeps[reward] = make_sweep(question, preset, options, store, tell, reward=reward)
    return sweeps


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
    design = tuple(training for grid in grids for training in grid.trainings(for_grid(preset, grid)))
    if preset.architecture is not None:
        _check_lengths(preset.architecture.context, preset, design, grids)
    kind = task_named(question.task)
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
    if not task.playable:
        design = estimated_alone(design, (*(options.methods or ()), *(options.refine or ())), say)
    returns = [dialogue.total_reward for dialogue in task.dialogues("train", reward)]
    for line in question.remarks(design, returns):
        say(line)
    model = None if preset.model is None else find_model(preset.model)
    if model is not None:
        _check_lengths(context_of(model), preset, design, grids)
    backbone = Backbone(
        architecture=preset.architecture,
        pretrained="" if model is None else pretrained_digest(model),
        vocabulary=preset.vocabulary if model or not kind.symbols else symbol_tokenizer(kind.symbols).size,
        cut_vocabulary=model is not None and preset.cut_vocabulary,
        chat_template=chat_template_digest(model) if model is not None and preset.chat_template else "",
        adapter_rank=preset.adapter_rank,
        behaviour=preset.behaviour,
        behaviour_per_seed=preset.behaviour_per_seed,
    )
    by = "play" if task.playable else "fitted_q"
    evaluation: dict[str, Any] = {"world": world.key, "reward": judged, "first_seed": FIRST_SEED, "by": by}
    shared = Shared(
        data=Data(task=kind.name, world=world.key, reward=reward, windows=kind.windows),
        backbone=backbone,
        tune=Evaluation(**evaluation, split="tune", episodes=_episodes(task, "tune", preset.tune_episodes)),
        report=Evaluation(**evaluation, split="report", episodes=_episodes(task, "report", preset.report_episodes)),
    )
    _check_distinct(shared, design)
    ensure_start(store, shared.any_trial(design), model, say)
    if (narrowed := vocabulary_note(store, shared.any_trial(design))) is not None:
        say(narrowed)
    lengths = {training.train.max_tokens: training for training in design}
    for training in lengths.values():
        if (cut := cut_note(store, shared.trials(training, 0, shared.tune)[0], say)) is not None:
            say(cut)
        if by == "fitted_q":
            tokenizer = load_tokenizer_stage(store, shared.any_trial(design))
            asked, longest = (shared.tune, shared.report), training.train.max_tokens
            for line in held_out_notes(task, tokenizer, longest, asked, in_windows=kind.windows):
                say(line)
    refinement = None
    run = {training.arm for training in design}
    refined = [grid for grid in question.refined(options) if grid.arm in run]
    if preset.proposals and refined:
        refinement = Refinement(
            bases=tuple(grid.to_refine().trainings(for_grid(preset, grid))[0] for grid in refined),
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
        shared=shared,
        design=design,
        refinement=refinement,
        space={grid.arm: grid.space(question.held) for grid in refined},
        seeds=preset.seeds,
        resources=preset.resources,
    )


def _episodes(task: Task, split: str, wanted: int) -> int:
    """How many episodes a policy is judged on: where it is not played, a scene that comes again says nothing new."""
    return wanted if task.playable else distinct_episodes(task, split, wanted)


def _check_lengths(context: int, preset: Preset, design: Sequence[PlannedTraining], grids: Sequence[Grid]) -> None:
    """Refuse trainings that would read more tokens than the model can.

    Raises:
        ValueError: There is one.
    """
    read = {"behaviour.max_tokens": preset.behaviour.max_tokens}
    read |= {f"train.max_tokens of {training.arm}": training.train.max_tokens for training in design}
    longest = {grid.arm: grid.search["train.max_tokens"].high for grid in grids if "train.max_tokens" in grid.search}
    read |= {f"train.max_tokens of {arm}, as searched,": round(high) for arm, high in longest.items()}
    for what, tokens in read.items():
        if tokens > context:
            raise ValueError(f"{what} must be at most the model's context ({context}), got {tokens}")


def _check_distinct(shared: Shared, design: Sequence[PlannedTraining]) -> None:
    """Refuse a design in which one cell stands twice: SARSA is ILQL at τ = ½, and would be one row under two names.

    Raises:
        ValueError: It does.
    """
    seen: dict[str, str] = {}
    for training in design:
        for trial in shared.trials(training, 0, shared.report):
            if trial.cell_id in seen:
                raise ValueError(f"a design must hold a cell once, got one of {seen[trial.cell_id]} and {training.arm}")
            seen[trial.cell_id] = training.arm


def _keep_quiet(line: str) -> None:
    """Say nothing."""
