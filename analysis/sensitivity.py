"""Across tasks: how much of a method's score hangs on tuning it for each anew: Adkins, Bowling and White (2024).

What each hyperparameter explains within one task is `analysis.importance`.

Their measures compare settings across environments. Axes: *J* environments (tasks, rewards), *C* settings, the same in
each. Performance is put on one scale, Γ = (x − p₅)/(p₉₅ − p₅) with the 5th and the 95th percentile of all cells of all
methods in that environment; then

    Φ = mean_j max_c Γ[j, c] − max_c mean_j Γ[j, c]

is what tuning per environment gains over one setting for all, and d is the smallest number of hyperparameters that,
tuned per environment while the others stay at the best common setting, reach 95 % of mean_j max_c Γ[j, c].

How this differs from the published script: (1) intervals; (2) settings that failed are no longer left out in silence,
the policy is stated and several can be given side by side. Both numbers rest on maxima of noisy means, which are too
high: their intervals allow for that bias (`hull_interval`), their values are as published.
With one environment Φ is 0 and d is 0 by definition, and nothing is said.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.bounded import Bounded, hull_interval
from analysis.cells import Cell
from analysis.estimators import Floats
from analysis.labels import Value
from analysis.landscape import Landscape, landscape_of
from analysis.styles import Policy
from analysis.text import DASH, count

DRAWS = 2000
DIMENSION_DRAWS = 400
ENOUGH = 0.95
"""The share of the peak that the effective dimension has to reach, as published."""


@dataclass(frozen=True)
class Sensitivity:
    """One method across environments.

    Attributes:
        method: The method.
        phi: Φ, at least 0.
        dimension: d as estimated from the means, between 0 and the number of varying hyperparameters.
        dimensions: By number of hyperparameters, the probability that d is that, given the noise. It is to be said
            where Φ has an interval alone: `dimension_text` keeps to that.
        tuned: mean_j max_c Γ[j, c].
        policy: What failed runs count as.
        environments: How many.
        settings: How many settings were compared.
        excluded: Settings that were left out.
        failed: Failed runs.
    """

    method: str
    phi: Bounded
    dimension: int
    dimensions: Mapping[int, float]
    tuned: Bounded
    policy: Policy
    environments: int
    settings: int
    excluded: int
    failed: int

    @property
    def dimension_text(self) -> str:
        """`2 (1: 3 %, 2: 97 %)`, or `– (too few seeds)`: d hangs on the same maxima as Φ, and is refused with it."""
        if self.phi.why:
            return f"{DASH} ({self.phi.why})"
        chances = ", ".join(f"{d}: {100 * share:.0f} %" for d, share in self.dimensions.items())
        return f"{self.dimension} ({chances})"

    @property
    def dimension_sentence(self) -> str:
        """What d says, or why it says nothing."""
        if self.phi.why:
            return f"How many hyperparameters must be tuned for 95 % of it is not said: {self.phi.why}."
        return f"{count(self.dimension, 'hyperparameter')} must be tuned for 95 % of it."


def sensitivity(
    environments: Sequence[Sequence[Cell]],
    method: str,
    rng: np.random.Generator,
    *,
    policy: Policy = "exclude",
    floors: Sequence[float] | None = None,
    draws: int = DRAWS,
) -> Sensitivity:
    """Φ and d of a method.

    Intervals are of draws of what the cells' expected returns may be (`Landscape.likely_means`), independent between
    environments. The percentiles of the scale are taken as given: they rest on all cells of all methods. So is which
    runs failed: where these count, Φ is of the settings as their runs went, and not of what may fail again.

    Args:
        environments: All cells of each environment, of all methods.
        method: The method that is asked about; its design cells count.
        rng: Draws the noise behind the intervals.
        policy: What failed runs count as.
        floors: For `floor`, the score of a failed run in each environment.
        draws: How often.

    Raises:
        ValueError: There are fewer than two environments, no setting is in all of them, or floors are missing.
    """
    if len(environments) < 2:
        raise ValueError(f"sensitivity is across environments and needs two, got {len(environments)}")
    if policy == "floor" and (floors is None or len(floors) != len(environments)):
        raise ValueError(f"the policy floor needs a floor for each of {len(environments)} environments")
    own = [
        {_key(cell): cell for cell in cells if cell.method == method and cell.origin == "design"}
        for cells in environments
    ]
    common = [key for key in own[0] if all(key in other for other in own)]
    kept = [key for key in common if policy != "exclude" or all(other[key].seeds for other in own)]
    if not kept:
        raise ValueError(f"no setting of {method} is in all {len(environments)} environments with a finished run")
    scapes = []
    for place, cells in enumerate(environments):
        low, high = _scale(cells)
        fill = (
            None
            if policy == "exclude"
            else floors[place]
            if floors is not None and policy == "floor"
            else _worst(cells)
        )
        scapes.append(_filled([own[place][key] for key in kept], fill, low, high))
    levels = _levels([dict(key) for key in kept])
    means = np.stack([scape.means for scape in scapes])
    likely = np.stack([scape.likely_means(rng, draws) for scape in scapes], axis=1)
    dims = np.array([effective_dimension(gamma, levels) for gamma in likely[:DIMENSION_DRAWS]])
    why = next((scape.unclear for scape in scapes if scape.unclear), "")
    return Sensitivity(
        method=method,
        phi=_bounded(float(phi_of(means)), np.maximum(0.0, phi_of(likely)), why),
        dimension=effective_dimension(means, levels),
        dimensions={int(d): float(np.mean(dims == d)) for d in np.unique(dims)},
        tuned=_bounded(float(means.max(axis=1).mean()), likely.max(axis=-1).mean(axis=-1), why),
        policy=policy,
        environments=len(environments),
        settings=len(kept),
        excluded=len(common) - len(kept),
        failed=sum(other[key].failed for other in own for key in common),
    )


def phi_of(gamma: Floats) -> Floats:
    """Φ = mean_j max_c Γ[j, c] − max_c mean_j Γ[j, c], from shape (..., J, C) to (...); never negative."""
    phi: Floats = gamma.max(axis=-1).mean(axis=-1) - gamma.mean(axis=-2).max(axis=-1)
    return phi


def effective_dimension(gamma: Floats, levels: np.ndarray) -> int:
    """The fewest hyperparameters that must be tuned per environment to reach `ENOUGH` of the peak.

    Args:
        gamma: Shape (J, C), on a scale where 0 is poor: shares of a peak at or below 0 mean nothing, and give 0.
        levels: The level of each setting in each hyperparameter, shape (C, P), integers.
    """
    peak = float(gamma.max(axis=1).mean())
    common = levels[int(gamma.mean(axis=0).argmax())]
    count = levels.shape[1]
    for size in range(count + 1):
        for tuned in itertools.combinations(range(count), size):
            fixed = [place for place in range(count) if place not in tuned]
            open_to = (levels[:, fixed] == common[fixed]).all(axis=1)
            if float(gamma[:, open_to].max(axis=1).mean()) >= ENOUGH * peak:
                return size
    return 0


def _key(cell: Cell) -> tuple[tuple[str, Value], ...]:
    return tuple(sorted(cell.hyperparameters.items(), key=lambda each: each[0]))


def _levels(settings: Sequence[Mapping[str, Value]]) -> np.ndarray:
    """Shape (C, P): the number of each setting's value among those of each hyperparameter that varies."""
    columns = [name for name in settings[0] if len({each.get(name) for each in settings}) > 1]
    numbers = []
    for name in columns:
        seen = list(dict.fromkeys(each.get(name) for each in settings))
        numbers.append([seen.index(each.get(name)) for each in settings])
    return np.array(numbers, dtype=np.int64).reshape(len(columns), len(settings)).T


def _scale(cells: Sequence[Cell]) -> tuple[float, float]:
    scores = [score.value for cell in cells if (score := cell.score) is not None]
    low, high = np.percentile(scores, [5, 95])
    if not high > low:
        raise ValueError("the scores of an environment must differ, got the same 5th and 95th percentile")
    return float(low), float(high)


def _worst(cells: Sequence[Cell]) -> float:
    return min(score.value for cell in cells if (score := cell.score) is not None)


def _filled(cells: Sequence[Cell], fill: float | None, low: float, high: float) -> Landscape:
    """The landscape on the scale, with failed runs counted as `fill`; one that failed wholly has no noise."""
    done = [place for place, cell in enumerate(cells) if cell.seeds]
    scape = landscape_of([cells[place] for place in done])
    means, noise = np.full(len(cells), fill if fill is not None else 0.0), np.zeros((len(cells), len(cells)))
    means[done] = scape.means
    noise[np.ix_(done, done)] = scape.noise
    if fill is not None:
        share = np.array([len(cell.seeds) / max(1, len(cell.seeds) + cell.failed) for cell in cells])
        means = share * means + (1 - share) * fill
        noise *= np.outer(share, share)
    return Landscape(
        settings=tuple(cell.hyperparameters for cell in cells),
        means=(means - low) / (high - low),
        noise=noise / (high - low) ** 2,
        trainings=np.arange(len(cells)),
        freedom=scape.freedom,
        seeds=scape.seeds,
    )


def _bounded(value: float, draws: Floats, why: str) -> Bounded:
    """`draws` are not negative, and neither is what is estimated: so the interval ends at 0 at the latest."""
    if why:
        return Bounded(value, why=why)
    low, high = hull_interval(value, draws)
    return Bounded(value, max(0.0, low), max(0.0, high))
