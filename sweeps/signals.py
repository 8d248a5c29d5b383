"""What trainings said of themselves: their stored curves as signals to choose by, and scores at a rung and after it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from analysis.cells import Cell
from analysis.labels import Value
from analysis.landscape import weights_key
from analysis.selection import RungPair
from sweeps.exhibits import Point, read_curve
from sweeps.record_shapes import arm_of
from sweeps.spec import TrialSpec
from sweeps.store import Store

Key: TypeAlias = tuple[tuple[str, Value], ...]

SHARES = (0.5, 1.0)
"""The shares of a training at which its signals are read."""

AROUND = 0.1
"""A signal is the mean of its points in the last tenth before: single steps are noisy."""


def stored_curves(store: Store, sweep: str, cells: Sequence[Cell]) -> dict[Key, list[list[Point]]]:
    """The loss curves of every training that has finished, one for each seed."""
    keys = {cell.cell_id: weights_key(cell) for cell in cells}
    found: dict[Key, dict[str, list[Point]]] = {}
    for row in store.rows(sweep):
        if row["status"] != "finished" or row["cell_id"] not in keys:
            continue
        own = found.setdefault(keys[row["cell_id"]], {})
        if row["weights_id"] not in own and (path := store.curve(row["weights_id"])) is not None:
            own[row["weights_id"]] = read_curve(path, 0, -1)[0]
    return {key: [points for points in own.values() if points] for key, own in found.items()}


def loss_by_step(
    curves: Mapping[Key, Sequence[Sequence[Point]]], name: str = "loss"
) -> dict[Key, list[dict[int, float]]]:
    """A loss at each step where it was logged, as learning curves show it."""
    return {
        key: [{point.step: point.values[name] for point in points if name in point.values} for points in seeds]
        for key, seeds in curves.items()
    }


def signals_of(curves: Mapping[Key, Sequence[Sequence[Point]]]) -> dict[tuple[str, float], dict[Key, float]]:
    """By name and share of the training, each number of the curves: the mean over seeds of its mean around there."""
    found: dict[tuple[str, float], dict[Key, float]] = {}
    for share in SHARES:
        for key, seeds in curves.items():
            names = {name for points in seeds for point in points for name in point.values if name != "step"}
            for name in names:
                read = [_around(points, name, share) for points in seeds]
                if all(value is not None for value in read):
                    found.setdefault((name, share), {})[key] = float(np.mean([v for v in read if v is not None]))
    return found


def rung_pairs(store: Store, sweep: str) -> tuple[RungPair, ...]:
    """Of every proposal that went on from a rung, its best decoding's score on the tune scenes there and at its end.

    A training to a rung is a training of fewer steps, with a key of its own: it is looked for among the numbers of
    steps that trainings of the store have.
    """
    lengths = sorted({int(record["steps"]) for record in store.all("training").values() if "steps" in record})
    by_weights: dict[str, list[tuple[TrialSpec, str]]] = {}
    arms: dict[str, str] = {}
    for member in store.members(sweep):
        if member["origin"] == "refinement" and member.get("tune_trial_id"):
            by_weights.setdefault(member["weights_id"], []).append(
                (TrialSpec.from_json(str(member["spec"])), member["tune_trial_id"])
            )
            arms[member["weights_id"]] = arm_of(member)
    evaluations = store.all("evaluation")

    def score(trial: str) -> float | None:
        record = evaluations.get(trial)
        return None if record is None or record["status"] != "finished" else float(record["score"])

    found = []
    for weights, members in by_weights.items():
        ends = [value for _, tune in members if (value := score(tune)) is not None]
        for steps in lengths:
            if not ends or steps >= members[0][0].train.steps:
                continue
            short = []
            for spec, tune in members:
                about = store.about("evaluation", tune)
                if about is None:
                    continue
                whole = TrialSpec.from_json(json.dumps(about["about"]["spec"]))
                cut = dataclasses.replace(whole, train=dataclasses.replace(spec.train, steps=steps))
                short.append(score(cut.trial_id))
            reached = [value for value in short if value is not None]
            if reached:
                found.append(RungPair(arms[weights], steps, max(reached), max(ends)))
    return tuple(found)


def _around(points: Sequence[Point], name: str, share: float) -> float | None:
    end = points[-1].step * share
    near = [p.values[name] for p in points if end - AROUND * points[-1].step <= p.step <= end and name in p.values]
    return float(np.mean(near)) if near else None
