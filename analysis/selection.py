"""Can a policy be chosen without playing it? How far a signal of training ranks trainings as their score does.

Axes: *T* trainings (a setting of the training bag, its seeds averaged), the score of each that of the decoding which is
best on the tune scenes, or of its only one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from analysis.bounded import TOO_FEW_CELLS, Bounded
from analysis.cells import Cell
from analysis.estimators import rank_correlation
from analysis.labels import Value
from analysis.landscape import weights_key

Key: TypeAlias = tuple[tuple[str, Value], ...]
"""A training: `landscape.weights_key`."""

FEWEST_TRAININGS = 8
"""Pairs below which the interval of a rank correlation is withheld: see `tests/coverage`."""

_NORMAL = 1.959963984540054


@dataclass(frozen=True)
class SignalCorrelation:
    """One signal against the score.

    Attributes:
        signal: Its name.
        when: At which share of the training it was read; 1 is its end.
        correlation: Spearman's ρ over trainings.
        pairs: Of each training its signal and its score.
        method: Whose trainings.
    """

    signal: str
    when: float
    correlation: Bounded
    pairs: tuple[tuple[float, float], ...]
    method: str

    @property
    def decides(self) -> bool:
        """Whether the whole interval is at ½ and beyond, on one side of 0: the least at which to choose by it."""
        low, high = self.correlation.low, self.correlation.high
        return low is not None and high is not None and (low >= 0.5 or high <= -0.5)


def spearman(pairs: Sequence[tuple[float, float]]) -> Bounded:
    """Spearman's ρ with an interval by Fisher's z: tanh(atanh ρ ± 1.96 √((1 + ρ²/2)/(n − 3))) (Bonett and Wright 2000).

    The interval takes the pairs for independent draws from one population. Trainings of a grid are chosen, not drawn:
    of them it says how far so many pairs could agree by chance, and nothing of settings that are not in the grid.

    Raises:
        ValueError: There are fewer than two pairs, or one side is the same in all of them.
    """
    sides = [one for one, _ in pairs], [other for _, other in pairs]
    found = rank_correlation(*sides)
    if found is None:
        same = next(side for side in sides if len(set(side)) == 1)
        raise ValueError(f"a rank correlation is of values that differ, got {len(same)} times {same[0]}")
    if len(pairs) < FEWEST_TRAININGS:
        return Bounded(found, why=TOO_FEW_CELLS)
    if abs(found) >= 1 - 1e-12:  # atanh has no end there; one swap of neighbours away is as far as n pairs can say
        bounded = 1 - 6 * 2 / (len(pairs) * (len(pairs) ** 2 - 1))
        ends = sorted((found, math.copysign(math.tanh(math.atanh(bounded) - _half(bounded, len(pairs))), found)))
        return Bounded(found, ends[0], ends[1])
    half = _half(found, len(pairs))
    return Bounded(found, math.tanh(math.atanh(found) - half), math.tanh(math.atanh(found) + half))


def scores_by_training(cells: Sequence[Cell], method: str) -> dict[Key, float]:
    """The score of each training of a method's design cells, at the decoding with the best score on the tune scenes."""
    groups: dict[Key, list[Cell]] = {}
    for cell in cells:
        if cell.method == method and cell.origin == "design" and cell.seeds:
            groups.setdefault(weights_key(cell), []).append(cell)
    found = {}
    for key, own in groups.items():
        known = [cell for cell in own if cell.tune_score is not None]
        best = max(known, key=lambda cell: cell.tune_score or 0.0) if known else own[0]
        if best.score is not None and (known or len(own) == 1):
            found[key] = best.score.value
    return found


def correlations(
    cells: Sequence[Cell],
    method: str,
    signals: Mapping[tuple[str, float], Mapping[Key, float]],
) -> tuple[SignalCorrelation, ...]:
    """How each signal ranks the trainings of a method, the strongest first.

    Args:
        cells: The cells of a sweep.
        method: The method.
        signals: By name and share of the training, its value by training (`landscape.weights_key`), seeds averaged.
            Values that are not finite are left out, and signals that rank nothing (`constant_signals`).
    """
    found = [
        SignalCorrelation(name, when, spearman(pairs), pairs, method)
        for (name, when), pairs in _pairs(cells, method, signals).items()
        if not _constant(pairs)
    ]
    return tuple(sorted(found, key=lambda each: (-abs(each.correlation.value), each.signal, each.when)))


def constant_signals(
    cells: Sequence[Cell], method: str, signals: Mapping[tuple[str, float], Mapping[Key, float]]
) -> tuple[tuple[str, float], ...]:
    """The signals, by name and share of the training, that have no rank correlation with the score of a method.

    They are the same in all its trainings; or its scores are, and these are all signals. Arguments as `correlations`.
    """
    return tuple(each for each, pairs in _pairs(cells, method, signals).items() if _constant(pairs))


def _pairs(
    cells: Sequence[Cell], method: str, signals: Mapping[tuple[str, float], Mapping[Key, float]]
) -> dict[tuple[str, float], tuple[tuple[float, float], ...]]:
    """Of each signal that three trainings or more have, it and their score."""
    scores = scores_by_training(cells, method)
    found = {}
    for each, values in signals.items():
        pairs = [(values[key], score) for key, score in scores.items() if math.isfinite(values.get(key, math.nan))]
        if len(pairs) >= 3:
            found[each] = tuple(pairs)
    return found


def _constant(pairs: Sequence[tuple[float, float]]) -> bool:
    return any(len(set(side)) == 1 for side in zip(*pairs, strict=True))


@dataclass(frozen=True)
class RungPair:
    """A proposal that went on from its rung: its score there and at its end, both on the tune scenes."""

    arm: str
    rung_steps: int
    at_rung: float
    at_end: float


def _half(correlation: float, pairs: int) -> float:
    return _NORMAL * math.sqrt((1 + correlation**2 / 2) / (pairs - 3))
