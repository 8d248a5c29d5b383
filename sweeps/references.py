"""What others get in the episodes of a sweep, played once, as a stage, and what anybody can get."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ilql.tasks import task_named
from sweeps.spec import TrialSpec, reference_key
from sweeps.stages import load_task
from sweeps.store import Store

REFERENCES_FILE = "returns.json"


def references_of(store: Store, sweep: str) -> Mapping[str, Sequence[float]]:
    """Returns by name, in the episodes that the sweep's table scores; nothing where its task has nobody to show."""
    member = next(iter(store.members(sweep)), None)
    if member is None:
        return {}
    spec = TrialSpec.from_json(str(member["spec"]))
    evaluation = spec.evaluation

    def make(folder: Path) -> None:
        task = load_task(store, spec.data.task, evaluation.world)
        played = task.references(evaluation.split, evaluation.reward, evaluation.seeds)
        text = json.dumps({name: [float(value) for value in returns] for name, returns in played.items()})
        (folder / REFERENCES_FILE).write_text(text, encoding="utf-8")

    key = reference_key(evaluation, task_named(spec.data.task).references)
    folder = store.build("reference", key, make, {"evaluation": evaluation.world})
    found: dict[str, list[float]] = json.loads((folder / REFERENCES_FILE).read_text(encoding="utf-8"))
    return found


def score_range(store: Store, sweep: str) -> tuple[float, float]:
    """The lowest and the highest return that an episode of the sweep can have, by its task.

    Raises:
        ValueError: The sweep has no trials, so no task either.
    """
    member = next(iter(store.members(sweep)), None)
    if member is None:
        raise ValueError(f"a sweep must have trials to have a range of scores, {sweep!r} has none")
    spec = TrialSpec.from_json(str(member["spec"]))
    task = load_task(store, spec.data.task, spec.evaluation.world)
    return task.score_range(spec.evaluation.reward)
