"""What a budget of evaluations buys: expected online performance, and when a method beats cloning.

Kurenkov and Kolesnikov (2022): draw k settings at random, train and play each, keep the best; how good is what is kept?
Here the k settings are distinct cells of the method's grid, each trained once; the best is chosen on the tune scenes
and scored on the report scenes, so that the choice does not flatter the score. Over the N cells of one seed, with ranks
r = 1 … N by tune score and report scores x_r, the mean over all C(N, k) subsets is a U-statistic,

    T_k = Σ_r w_k(r) x_r,    w_k(r) = C(r − 1, k − 1) / C(N, k),

unbiased at every k (Tang et al. 2020); the plug-in of Dodge et al. (2019), ((r/N)^k − ((r − 1)/N)^k), is a V-statistic
and too low. Training seeds are averaged. The same sum over [x_r > bar] is the probability that what is kept is better.

Axes: *N* cells, *S* training seeds, *E* episodes, *K* budgets 1 … N.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.bounded import TOO_FEW_SEEDS
from analysis.estimators import Estimate, Floats
from analysis.landscape import FEWEST_DEGREES, root_of

DRAWS = 4000
PROBABILITIES = (0.5, 0.9)


@dataclass(frozen=True, eq=False)
class Trained:
    """A method's grid, trained and played at every training seed.

    Attributes:
        method: The method.
        tune: Score on the tune scenes by which the best is chosen, shape (S, N).
        returns: Returns on the report scenes, shape (S, N, E).
        scenes: The scene of each episode, shape (E,).
        trainings: The number of each cell's training, shape (N,): cells of one number share their weights.
        train_seconds: Of each cell's training, the same for all cells of one, shape (N,).
        evaluate_seconds: Of each cell's evaluation, shape (N,).

    Raises:
        ValueError: The shapes do not fit.
    """

    method: str
    tune: Floats
    returns: Floats
    scenes: NDArray[np.generic]
    trainings: NDArray[np.int64]
    train_seconds: Floats
    evaluate_seconds: Floats

    def __post_init__(self) -> None:
        seeds, cells = self.tune.shape
        if self.returns.shape != (seeds, cells, self.scenes.size) or not seeds * cells:
            raise ValueError(f"returns must have shape {(seeds, cells, self.scenes.size)}, got {self.returns.shape}")
        for name in ("trainings", "train_seconds", "evaluate_seconds"):
            if getattr(self, name).shape != (cells,):
                raise ValueError(f"{name} must have shape {(cells,)}, got {getattr(self, name).shape}")


@dataclass(frozen=True)
class TuningCurve:
    """Expected online performance by budget.

    Attributes:
        method: The method.
        scores: T_k for k = 1 … N, shape (N,).
        low, high: Ends of a band that holds the whole curve with probability .95; None without one.
        why: Why there is no band; empty where there is one.
        seconds: The expected seconds that k evaluations take, training included, weights that cells share once.
        cells: N.
        seeds: S.
    """

    method: str
    scores: tuple[float, ...]
    low: tuple[float, ...] | None
    high: tuple[float, ...] | None
    why: str
    seconds: tuple[float, ...]
    cells: int
    seeds: int


@dataclass(frozen=True)
class Crossing:
    """How many evaluations it takes until what is kept is better than a bar, with a probability.

    Attributes:
        probability: The probability that is asked for.
        evaluations: The smallest budget that reaches it; None where the whole grid does not.
        low, high: Ends of its 95 % interval; a high of None has no end within the grid. Both None without an interval.
        why: Why there is none; empty where there is one.
        seconds: What `evaluations` takes.
    """

    probability: float
    evaluations: int | None
    low: int | None
    high: int | None
    why: str
    seconds: float | None


def weights(tune: Floats) -> Floats:
    """w_k of every cell, shape (K, N): the probability that it is the one kept of k.

    Cells of one tune score share their weight evenly.

    Args:
        tune: Shape (N,).
    """
    count = tune.size
    table = np.zeros((count, count))
    budgets = np.arange(1, count + 1)
    table[:, -1] = budgets / count
    for rank in range(count, 1, -1):  # C(r − 2, k − 1) / C(r − 1, k − 1) = (r − k) / (r − 1)
        table[:, rank - 2] = table[:, rank - 1] * np.maximum(0, rank - budgets) / (rank - 1)
    _, group, size = np.unique(tune, return_inverse=True, return_counts=True)
    order = np.argsort(tune, kind="stable")
    of_group = np.zeros((count, size.size))
    np.add.at(of_group.T, group[order], table.T)
    shared: Floats = (of_group / size)[:, group]
    return shared


def expected_best(tune: Floats, scores: Floats) -> Floats:
    """T_k for k = 1 … N, shape (K,), or (K, …) for `scores` of shape (N, …)."""
    best: Floats = np.tensordot(weights(tune), scores, axes=1)
    return best


def tuning_curve(trained: Trained, rng: np.random.Generator, *, draws: int = DRAWS) -> TuningCurve:
    """The curve of a method with its simultaneous band.

    The band is T_k ± c · s.e.(k), c the 95 % point of the largest of |t_k| over k, drawn. Its covariance has two parts.
    Seeds: T is a function of independent trainings, so by Hoeffding's first projection its variance is Σ_t var_s(g)/S
    where g[t, s] is T averaged over the seeds of all other trainings, with training t at its seed s. Scenes: with the
    choice made on the tune scenes, T is linear in the report scenes' returns; clustered.

    Args:
        trained: The method's grid.
        rng: Draws for the band.
        draws: How many.
    """
    scores = trained.returns.mean(axis=2)
    curve, covariance, freedom = _linearised(trained, scores, trained.returns)
    why = TOO_FEW_SEEDS if freedom < FEWEST_DEGREES else ""
    low = high = None
    if not why:
        error = np.sqrt(np.diag(covariance))
        deviation = rng.standard_normal((draws, curve.size)) @ root_of(covariance).T
        deviation /= np.sqrt(rng.chisquare(freedom, draws) / freedom)[:, None]
        largest = np.abs(deviation / np.where(error > 0, error, math.inf)).max(axis=1)
        width = float(np.quantile(largest, 0.95)) * error
        low, high = tuple(map(float, curve - width)), tuple(map(float, curve + width))
    return TuningCurve(
        method=trained.method,
        scores=tuple(map(float, curve)),
        low=low,
        high=high,
        why=why,
        seconds=tuple(map(float, expected_seconds(trained))),
        cells=curve.size,
        seeds=scores.shape[0],
    )


def crossings(trained: Trained, bar: Estimate, probabilities: Sequence[float] = PROBABILITIES) -> tuple[Crossing, ...]:
    """How many evaluations until what is kept is truly better than `bar`, for each probability.

    The interval lets the probability at each budget err by two standard errors over training seeds, and the bar with
    the cells' own scores by two standard errors of their difference over episodes; both at once, so it is wide.
    """
    scores = trained.returns.mean(axis=2)
    seconds = expected_seconds(trained)
    over_episodes = (
        np.sqrt(trained.returns.var(axis=2, ddof=1).mean() / trained.scenes.size) if trained.scenes.size > 1 else 0.0
    )
    slack = 2.0 * math.hypot(float(over_episodes), bar.standard_error or 0.0)
    middle, _, freedom = _linearised(trained, (scores > bar.value).astype(np.float64))
    ends = []
    for sign in (-1.0, 1.0):
        share, covariance, _ = _linearised(trained, (scores > bar.value + sign * slack).astype(np.float64))
        ends.append(share - sign * 2.0 * np.sqrt(np.diag(covariance)))
    enough = freedom >= FEWEST_DEGREES
    found = []
    for probability in probabilities:
        at = _first(middle, probability)
        found.append(
            Crossing(
                probability=probability,
                evaluations=at,
                low=_first(ends[0], probability) if enough else None,
                high=_first(ends[1], probability) if enough else None,
                why="" if enough else TOO_FEW_SEEDS,
                seconds=None if at is None else float(seconds[at - 1]),
            )
        )
    return tuple(found)


def expected_seconds(trained: Trained) -> Floats:
    """What k cells drawn at random cost on average, shape (K,): E = k·mean(e) + Σ_t c_t (1 − C(N − D_t, k)/C(N, k)).

    A training of c_t seconds is paid once if any of its D_t cells is among the k.
    """
    count = trained.trainings.size
    budgets = np.arange(1, count + 1)
    total = budgets * float(trained.evaluate_seconds.mean())
    for training in np.unique(trained.trainings):
        own = trained.trainings == training
        left = count - int(own.sum())
        absent = np.cumprod([max(0, left - i) / (count - i) for i in range(count)])
        total = total + float(trained.train_seconds[own].max()) * (1.0 - absent)
    return np.asarray(total, dtype=np.float64)


def _linearised(trained: Trained, values: Floats, by_episode: Floats | None = None) -> tuple[Floats, Floats, int]:
    """T of some `values` (S, N), its covariance (K, K), and the degrees of freedom of the seeds' part."""
    seeds, cells = values.shape
    curve = np.mean([expected_best(trained.tune[s], values[s]) for s in range(seeds)], axis=0)
    covariance = np.zeros((cells, cells))
    groups = np.unique(trained.trainings)
    if seeds > 1:
        for training in groups:
            own = trained.trainings == training
            projected = np.zeros((seeds, cells))
            for s in range(seeds):
                for other in range(seeds):
                    tune = np.where(own, trained.tune[s], trained.tune[other])
                    projected[s] += expected_best(tune, np.where(own, values[s], values[other])) / seeds
            away = projected - projected.mean(axis=0)
            covariance += away.T @ away / (seeds * (seeds - 1))
    if by_episode is not None:
        per_episode = np.mean([expected_best(trained.tune[s], by_episode[s]) for s in range(seeds)], axis=0)
        _, scene_of = np.unique(trained.scenes, return_inverse=True)
        scenes = int(scene_of.max()) + 1
        sums = np.zeros((cells, scenes))
        np.add.at(sums.T, scene_of, (per_episode - per_episode.mean(axis=1, keepdims=True)).T / trained.scenes.size)
        if scenes > 1:
            covariance += sums @ sums.T * scenes / (scenes - 1)
    return curve, covariance, groups.size * (seeds - 1)


def _first(probabilities: Floats, wanted: float) -> int | None:
    reached = np.flatnonzero(probabilities >= wanted - 1e-12)
    return int(reached[0]) + 1 if reached.size else None
