"""What the figures over a whole sweep show, as plain values: cells by hyperparameter, learning curves, costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import polars as pl

from analysis.cells import Cell, varying
from analysis.labels import hyperparameter_label, in_order, method_label, value_label
from analysis.landscape import weights_key
from analysis.runs import RunTable, Unlisted
from analysis.selection import Key


@dataclass(frozen=True)
class ParallelAxis:
    """One hyperparameter of a figure of parallel coordinates.

    Attributes:
        label: Its symbol.
        values: How each of its values is written, in order; values stand one apart, whatever they are.
        positions: The place of every cell on it.
    """

    label: str
    values: tuple[str, ...]
    positions: tuple[int, ...]


@dataclass(frozen=True)
class Parallel:
    """The finished cells of one method as lines over its hyperparameters, to their score.

    Attributes:
        method: The method.
        axes: Its varying hyperparameters.
        scores: The score of every cell.
        errors: Its standard error over episodes; None where it is unknown.
    """

    method: str
    axes: tuple[ParallelAxis, ...]
    scores: tuple[float, ...]
    errors: tuple[float | None, ...]


@dataclass(frozen=True)
class LearningCurve:
    """A training signal against steps, over the seeds of one training.

    Attributes:
        method: The method.
        label: Its name in print, with what tells this training from its others.
        steps: Optimiser steps, ascending.
        mean, low, high: Mean, lowest and highest over seeds at each step.
        seeds: How many.
        held_out: Where the loss on dialogues that are not learnt from was asked for, and its mean over seeds.
    """

    method: str
    label: str
    steps: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    seeds: int
    held_out: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Cost:
    """What a method took, in seconds.

    Attributes:
        method: The method.
        train: Training of what finished, weights that several rows stand on once, by the method that comes first; and
            of what no row stands on.
        evaluate: Playing of what finished, on the scenes of the rows and on the tune scenes; and at rungs.
        failed: Training and playing of what failed or was stopped.
        saved: What training for every row anew all that it stands on, behaviour policy and critic too, would have
            taken beyond `train`.
    """

    method: str
    train: float
    evaluate: float
    failed: float
    saved: float


def parallel(cells: Sequence[Cell]) -> Parallel | None:
    """The method with the most varying hyperparameters, of equals the one with more cells; None below two of them."""
    best: tuple[int, int, str] | None = None
    for method in in_order(cell.method for cell in cells):
        own = [cell for cell in cells if cell.method == method and cell.seeds]
        size = (len(varying(own)), len(own))
        if size[0] >= 2 and (best is None or size > best[:2]):
            best = (*size, method)
    if best is None:
        return None
    own = [cell for cell in cells if cell.method == best[2] and cell.seeds]
    columns = [column for column in varying(own) if all(cell.has(column) for cell in own)]
    scores = [score for cell in own if (score := cell.score) is not None]
    return Parallel(
        method=best[2],
        axes=tuple(_axis(column, own) for column in columns),
        scores=tuple(score.value for score in scores),
        errors=tuple(score.standard_error for score in scores),
    )


def learning_curves(
    cells: Sequence[Cell],
    curves: Mapping[Key, Sequence[Mapping[int, float]]],
    held_out: Mapping[Key, Sequence[Mapping[int, float]]] = MappingProxyType({}),
) -> tuple[LearningCurve, ...]:
    """The curve of every method's best training, over the steps that all of its seeds have.

    Args:
        cells: The cells of a sweep.
        curves: By training (`landscape.weights_key`) a signal by step, for each seed.
        held_out: The same of dialogues that are not learnt from, at fewer steps.
    """
    found = []
    for method in in_order(cell.method for cell in cells):
        own = [(score.value, cell) for cell in cells if cell.method == method and (score := cell.score) is not None]
        known = [(score, cell) for score, cell in own if curves.get(weights_key(cell))]
        if not known:
            continue
        best = max(known, key=lambda each: each[0])[1]
        seeds = curves[weights_key(best)]
        steps = sorted(set.intersection(*(set(seed) for seed in seeds)))
        if not steps:
            continue
        values = np.array([[seed[step] for step in steps] for seed in seeds], dtype=np.float64)
        setting = best.setting([column for column in varying([c for _, c in own]) if column.startswith("train.")])
        found.append(
            LearningCurve(
                method=method,
                label=f"{method_label(method)}{', ' if setting else ''}{setting}",
                steps=tuple(steps),
                mean=tuple(map(float, values.mean(axis=0))),
                low=tuple(map(float, values.min(axis=0))),
                high=tuple(map(float, values.max(axis=0))),
                seeds=len(seeds),
                held_out=tuple(_means(held_out.get(weights_key(best), ()))),
            )
        )
    return tuple(found)


def _means(seeds: Sequence[Mapping[int, float]]) -> Iterator[tuple[int, float]]:
    """The mean over seeds at each step that all of them have."""
    for step in sorted(set.intersection(*(set(seed) for seed in seeds))) if seeds else ():
        yield step, float(np.mean([seed[step] for seed in seeds]))


def costs(table: RunTable) -> tuple[Cost, ...]:
    """What every method took, methods in their order; an evaluation that stands in two rows counts once."""
    rows = table.runs.unique(subset=["trial_id"], keep="first", maintain_order=True)
    paid: set[str] = set()
    beyond = {each.method: each for each in table.unlisted}
    found = []
    for method in in_order([*rows["method"].to_list(), *beyond]):
        train = evaluate = failed = alone = 0.0
        own = rows.filter(pl.col("method") == method)
        for row in own.sort(pl.col("status") != "finished", maintain_order=True).iter_rows(named=True):
            trained = row["train_seconds"] or 0.0
            played = (row["evaluate_seconds"] or 0.0) + (row.get("tune_seconds") or 0.0)
            first = row["weights_id"] not in paid
            paid.add(row["weights_id"])
            if row["status"] != "finished":
                failed += (trained if first else 0.0) + played
                continue
            evaluate += played
            alone += trained
            train += trained if first else 0.0
        more = beyond.get(method, Unlisted(method, 0.0, 0.0))
        saved = alone - train + more.shared_seconds
        found.append(Cost(method, train + more.train_seconds, evaluate + more.play_seconds, failed, saved))
    return tuple(found)


def _axis(column: str, cells: Sequence[Cell]) -> ParallelAxis:
    seen = list(dict.fromkeys(cell.hyperparameters[column] for cell in cells))
    numbers = all(isinstance(value, int | float) for value in seen)
    ordered = sorted(seen, key=float) if numbers else sorted(seen, key=str)
    return ParallelAxis(
        label=hyperparameter_label(column),
        values=tuple(map(value_label, ordered)),
        positions=tuple(ordered.index(cell.hyperparameters[column]) for cell in cells),
    )
