"""β as a dose: how the score of each trained model answers to it, and how many doublings of β are near its best.

Between two values that were played, the score is taken for linear in log₂ β. The curve f of a training is over its
positive, finite β: β = 0 and β = ∞ have no place on that axis, so they are shown and lie outside of any range, even
where one of them is the best of all. The near-best range is the connected stretch around the peak of f with f ≥ max f −
tolerance; its width in doublings, log₂ of upper over lower end, is how carefully β has to be chosen. Where it ends at
the smallest or largest β that was played, the width is at least that.

Axes: *B* values of β, ascending; *T* trainings (a setting of the training bag, all its seeds).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.bounded import Bounded
from analysis.cells import Cell
from analysis.estimators import Floats
from analysis.labels import Value, setting_label
from analysis.landscape import Landscape, landscape_of, weights_key

BETA = "decode.beta"
DRAWS = 2000

HELD = 0.8
"""How often a curve lies, as a whole, between the two that the interval of its width is made of.

Less than .95, for no curve is as high as it may be at all doses at once; chosen by coverage (docs/statistics.md)."""


@dataclass(frozen=True)
class DoseResponse:
    """One training's answer to β.

    Attributes:
        method: Its method.
        setting: What tells its training from the method's others, in one line.
        betas: Every β that was played, ascending, 0 and ∞ among them if they were.
        scores: The mean return at each.
        errors: Its standard error over seeds and scenes.
        best: The β with the highest mean, which may be 0 or ∞.
        peak: The positive, finite β with the highest mean.
        beyond: By how much the mean at `best` exceeds that at `peak`; 0 where they are the same.
        range: The near-best range of the means around `peak`, from β to β.
        width: Its length in doublings.
        open: Whether it ends at the smallest or the largest β that was played, so that it may go on.
        tolerance: How far below the mean at `peak` still counts as near it, in units of the score.
        seeds: The fewest training seeds of one of its cells.
    """

    method: str
    setting: str
    betas: tuple[float, ...]
    scores: tuple[float, ...]
    errors: tuple[float, ...]
    best: float
    peak: float
    beyond: float
    range: tuple[float, float]
    width: Bounded
    open: bool
    tolerance: float
    seeds: int


def dose_responses(
    cells: Sequence[Cell], rng: np.random.Generator, *, tolerance: float | None = None, draws: int = DRAWS
) -> tuple[DoseResponse, ...]:
    """The answer of every training of one method's design cells that was played at three or more positive, finite β.

    The noise that the β of one training have among each other is pooled over the trainings that were played at the same
    β: a few seeds of one training could not say how four numbers vary together. The interval of a width is
    `width_interval`'s; its ends lie between 0 and the width of all β played. The tolerance is taken as given.

    Args:
        cells: Of one method.
        rng: Draws the noise behind the intervals.
        tolerance: How far below the best still counts as near it; one standard error of the score at `peak` if none.
        draws: How often.
    """
    design = [cell for cell in cells if cell.origin == "design" and cell.seeds and cell.has(BETA)]
    shown = _varying_in_training(design)
    groups: dict[tuple[tuple[str, Value], ...], list[Cell]] = {}
    for cell in design:
        others = tuple((c, v) for c, v in cell.hyperparameters.items() if c.startswith("decode.") and c != BETA)
        groups.setdefault((*weights_key(cell), *others), []).append(cell)
    curves = []
    for own in groups.values():
        own.sort(key=lambda cell: float(cell.hyperparameters[BETA]))
        if sum(0 < float(cell.hyperparameters[BETA]) < math.inf for cell in own) >= 3:
            curves.append(own)
    scapes = [landscape_of(own) for own in curves]
    alike: dict[tuple[float, ...], list[Landscape]] = {}
    for own, scape in zip(curves, scapes, strict=True):
        alike.setdefault(_betas(own), []).append(scape)
    noise = {betas: np.mean([scape.noise for scape in played], axis=0) for betas, played in alike.items()}
    freedom = {betas: sum(scape.freedom for scape in played) for betas, played in alike.items()}
    found = []
    for own, scape in zip(curves, scapes, strict=True):
        betas = _betas(own)
        pooled = dataclasses.replace(scape, noise=noise[betas], freedom=freedom[betas])
        errors = np.sqrt(np.diag(pooled.noise))
        finite = [place for place, beta in enumerate(betas) if 0 < beta < math.inf]
        best, peak = int(scape.means.argmax()), finite[int(scape.means[finite].argmax())]
        near = float(errors[peak]) if tolerance is None else tolerance
        doses = np.log2([betas[place] for place in finite])
        low, high = (float(end) for end in near_best(doses, scape.means[finite], near))
        of_finite, width = pooled.of(finite), high - low
        ends = width_interval(doses, of_finite.means, of_finite.noise_draws(rng, draws), near)
        why = pooled.unknown
        found.append(
            DoseResponse(
                method=own[0].method,
                setting=setting_label({c: own[0].hyperparameters[c] for c in shown if own[0].has(c)}),
                betas=betas,
                scores=tuple(float(score) for score in scape.means),
                errors=tuple(float(error) for error in errors),
                best=betas[best],
                peak=betas[peak],
                beyond=float(scape.means[best] - scape.means[peak]),
                range=(2.0**low, 2.0**high),
                width=Bounded(width, why=why) if why else Bounded(width, *ends),
                open=bool(low == doses[0] or high == doses[-1]),
                tolerance=near,
                seeds=scape.seeds,
            )
        )
    return tuple(found)


def near_best(doses: Floats, scores: Floats, tolerance: float) -> tuple[Floats, Floats]:
    """Where the curve through (doses, scores), linear in between, is within `tolerance` of its top, around the top.

    Args:
        doses: Ascending, shape (B,).
        scores: Of one curve or of several, shape (..., B).
        tolerance: Not negative.

    Returns:
        The ends, shape (...).

    Raises:
        ValueError: The tolerance is negative, or the shapes differ.
    """
    if tolerance < 0 or doses.shape != scores.shape[-1:]:
        raise ValueError(
            f"a tolerance must not be negative and shapes be alike, got {tolerance}, {doses.shape}, {scores.shape}"
        )
    return _around(doses, scores, scores.argmax(axis=-1), tolerance)


def width_interval(doses: Floats, means: Floats, noise: Floats, tolerance: float) -> tuple[float, float]:
    """The ends of an interval for the width of a curve's near-best range.

    Let p be the dose at which the true curve is highest, d_x = ȳ_x − ȳ_p, and c·s_x such that the noise of all d_x is
    within it with probability `HELD`. Then the true curve, less its top, is between d − c·s and min(0, d + c·s), and
    its range around p between those of the two. Nobody knows p: so the ends are the lowest and the highest over all p
    that may be the top, those with no d_x above c·s_x. Draws of whole curves, mean + noise, would not do: noise makes
    peaks, and the flatter the top the more they are too narrow.

    Args:
        doses: Ascending, shape (B,).
        means: The curve's, shape (B,).
        noise: Draws of their noise, shape (draws, B).
        tolerance: See `near_best`.
    """
    lows, highs = list[float](), list[float]()
    for p in range(doses.size):
        away = noise - noise[:, [p]]
        spread = away.std(axis=0)
        largest = np.abs(away / np.where(spread > 0, spread, math.inf)).max(axis=1)
        slack = float(np.quantile(largest, HELD)) * spread
        d = means - means[p]
        if (d - slack).max() > 0:
            continue
        for curve, found in ((d - slack, lows), (np.minimum(0.0, d + slack), highs)):
            low, high = _around(doses, curve, np.asarray(p), tolerance)
            found.append(float(high - low))
    return min(lows), max(highs)


def _around(doses: Floats, scores: Floats, best: NDArray[np.int64], tolerance: float) -> tuple[Floats, Floats]:
    """The ends of the stretch around the places `best`, of highest scores, where curves are near their best."""
    return (
        _last_near(doses[::-1], scores[..., ::-1], doses.size - 1 - best, tolerance),
        _last_near(doses, scores, best, tolerance),
    )


def _last_near(doses: Floats, scores: Floats, best: NDArray[np.int64], tolerance: float) -> Floats:
    """The last dose, going on from the best, until which every score is within `tolerance` of the best one."""
    places = np.arange(doses.size)
    bar = scores.max(axis=-1) - tolerance
    beyond = np.where((scores < bar[..., None]) & (places > best[..., None]), places, doses.size).min(axis=-1)
    at = beyond - 1
    after = np.minimum(beyond, doses.size - 1)
    last, fallen = (np.take_along_axis(scores, each[..., None], -1)[..., 0] for each in (at, after))
    inside = beyond == doses.size
    share = np.where(inside, 0.0, (last - bar) / np.where(inside, 1.0, last - fallen))
    ends: Floats = doses[at] + share * (doses[after] - doses[at])
    return ends


def _betas(cells: Sequence[Cell]) -> tuple[float, ...]:
    return tuple(float(cell.hyperparameters[BETA]) for cell in cells)


def _varying_in_training(cells: Sequence[Cell]) -> list[str]:
    seen: dict[str, set[Value]] = {}
    for cell in cells:
        for column, value in cell.hyperparameters.items():
            seen.setdefault(column, set()).add(value)
    return [column for column, values in seen.items() if len(values) > 1 and column != BETA]
