"""The sweeps that a question and a command line ask for, and what answering them would take, for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from cluster.shapes import described
from sweeps.definite import asked_sweeps
from sweeps.driving import check_room
from sweeps.forecast import forecast
from sweeps.journal import StoreError
from sweeps.options import Options
from sweeps.plan import make_plan, remaining
from sweeps.power import power_of
from sweeps.question import Question
from sweeps.schedule import no_room
from sweeps.sizing import chosen_preset, side_effects, unreached
from sweeps.store import Store


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
