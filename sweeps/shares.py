"""What sharing saved: trainings that were done, and those a sweep with one training per trial would have done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.text import count
from sweeps.spec import TrialSpec
from sweeps.store import Store


@dataclass(frozen=True)
class Shares:
    """The trainings behind a sweep's finished evaluations.

    Attributes:
        evaluations: Finished evaluations on the report scenes.
        trainings: Distinct weights they stand on, behaviour policies and critics included.
        seconds: What those cost to train.
        alone: Trainings if every evaluation had trained everything it stands on for itself.
        alone_seconds: What those would have cost, by the same records.
    """

    evaluations: int
    trainings: int
    seconds: float
    alone: int
    alone_seconds: float


def shares(members: Sequence[Mapping[str, Any]], finished: set[str], trainings: Mapping[str, Any]) -> Shares:
    """Count, for a sweep's members, what was trained and what sharing left out.

    Args:
        members: The sweep's member records.
        finished: The trial ids of finished evaluations.
        trainings: Training records by weights id.
    """
    costs: dict[str, float] = {}
    alone, alone_seconds = 0, 0.0
    specs = [TrialSpec.from_json(member["spec"]) for member in members if member["trial_id"] in finished]
    for spec in specs:
        for weights in {spec.weights_id, *(earlier.weights_id for earlier in spec.required)}:
            costs[weights] = float((trainings.get(weights) or {}).get("train_seconds") or 0.0)
            alone, alone_seconds = alone + 1, alone_seconds + costs[weights]
    return Shares(len(specs), len(costs), sum(costs.values()), alone, alone_seconds)


def shares_line(store: Store, sweep: str) -> str | None:
    """The same in one line, for the end of a sweep; None where nothing has finished."""
    finished = {row["trial_id"] for row in store.rows(sweep) if row["status"] == "finished"}
    if not finished:
        return None
    s = shares(store.members(sweep), finished, store.all("training"))
    stand = count(s.evaluations, "evaluation stands", "evaluations stand")
    return (
        f"{stand} on {count(s.trainings, 'training')} ({_time(s.seconds)}); each with its own would have been "
        f"{count(s.alone, 'training')} ({_time(s.alone_seconds)}): {_time(s.alone_seconds - s.seconds)} saved"
    )


def _time(seconds: float) -> str:
    return (
        f"{seconds / 3600:.1f} h"
        if seconds >= 5400
        else f"{seconds / 60:.1f} min"
        if seconds >= 90
        else f"{seconds:.0f} s"
    )
