"""The sweeps that a question and a command line ask for, and what answering them would take, for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from cluster.shapes import described
from sweeps.command_line import Plain
from sweeps.forecast import forecast
from sweeps.journal import StoreError
from sweeps.options import Options
from sweeps.plan import make_plan, remaining
from sweeps.power import power_of
from sweeps.presets import Preset
from sweeps.question import Question, Sweep, chosen_preset, make_sweep, side_effects, unreached
from sweeps.schedule import no_room
from sweeps.store import Store


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


def plan_document(question: Question, options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """What `sweeps plan` prints, as JSON values: the store, what was asked that nothing reads, and each sweep's work.

    Of a sweep: `for`, the reward or value that it is for; the counts of `plan.Plan`, with `seconds` of one job at a
    time; with `--cluster` the `forecast` of `forecast.Forecast`; the lines on power.

    Args:
        question: What is asked.
        options: Settled ones.
        say: Told what building the world had to say.

    Raises:
        ValueError: A setting, the data or the model cannot be used, or a job does not fit.
        KeyError: A name does not exist.
        StoreError: The disk is full.
    """
    from sweeps.experiment import check_room  # noqa: PLC0415  it takes its sweeps from here

    preset = chosen_preset(question, options)
    check_room(preset.resources, options.cluster)
    store = Store(options.store)
    if (full := no_room(store.folder)) is not None:
        raise StoreError(full)
    found = []
    for asked, sweep in asked_sweeps(question, preset, options, store, say).items():
        need = sweep.resources.need
        plan = make_plan(store, sweep.shared, sweep.design, seeds=sweep.seeds, refinement=sweep.refinement, need=need)
        document = {"sweep": sweep.name, "for": asked, "seeds": sweep.seeds, **dataclasses.asdict(plan)}
        if options.cluster is not None:
            left = remaining(store, sweep.shared, sweep.design, seeds=sweep.seeds)
            of_cluster = forecast(store, left, sweep.resources, described(options.cluster))
            document["forecast"] = dataclasses.asdict(of_cluster)
        episodes = sweep.shared.report.episodes
        found.append({**document, "power": power_of(store, sweep.name, seeds=sweep.seeds, episodes=episodes)})
    notes = [*unreached(question, preset, options), *side_effects(question, options)]
    return {"store": str(store.folder), "preset": preset.name, "notes": notes, "sweeps": found}


def _keep_quiet(line: str) -> None:
    """Say nothing."""
