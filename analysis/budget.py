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
from analysis.landscape import FEWEST_DEGREES

DRAWS = 4000
PROBABILITIES = (0.5, 0.9)

FEWEST_SEEDS = 3
"""Of the method and of the bar, where a crossing has an interval: with two it would hold the truth in 89 to 99 % of
worlds, with three it does in 98 to 100 (docs/statistics.md)."""


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
        evaluate_seconds: Of each cell's play, on the tune scenes and on the report scenes, shape (N,).

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


def rank_weights(count: int) -> Floats:
    """w_k(r) of the cell of each rank, shape (K, N): the probability that it is the one kept of k.

    Weights below 1e-100 are 0: they move no digit of T, and numbers near the smallest there are slow to multiply.

    Args:
        count: N.
    """
    table = np.zeros((count, count))
    budgets = np.arange(1, count + 1)
    table[:, -1] = budgets / count
    for rank in range(count, 1, -1):  # C(r − 2, k − 1) / C(r − 1, k − 1) = (r − k) / (r − 1)
        table[:, rank - 2] = table[:, rank - 1] * np.maximum(0, rank - budgets) / (rank - 1)
    table[table < 1e-100] = 0.0
    return table


def by_rank(tune: Floats, values: Floats) -> Floats:
    """The cells' `values`, shape (N, …), in the order of their tune scores, shape (N,).

    Cells of one tune score share their weight evenly: each has the mean of their values.
    """
    order = np.argsort(tune, kind="stable")
    ordered: Floats = values[order]
    _, first, size = np.unique(tune[order], return_index=True, return_counts=True)
    if size.size < order.size:
        means = (np.add.reduceat(ordered, first, axis=0).T / size).T
        ordered = np.repeat(means, size, axis=0)
    return ordered


def expected_best(tune: Floats, scores: Floats) -> Floats:
    """T_k for k = 1 … N, shape (K,), or (K, …) for `scores` of shape (N, …)."""
    best: Floats = rank_weights(tune.size) @ by_rank(tune, scores)
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
    (curve,), (root,), freedom = _over_seeds(trained, scores[None])
    root = np.hstack([root, _over_scenes(trained)])
    why = TOO_FEW_SEEDS if freedom < FEWEST_DEGREES else ""
    low = high = None
    if not why:
        error = np.sqrt((root**2).sum(axis=1))
        deviation = rng.standard_normal((draws, root.shape[1])) @ root.T
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

    The interval lets the probability at each budget err by two standard errors over training seeds, and the bar by two
    of its own (over seeds and scenes) and of the cells' own scores over episodes; both at once, so it is wide. With
    fewer than `FEWEST_SEEDS` on either side there is none: two seeds do not tell how far a third would lie.
    """
    scores = trained.returns.mean(axis=2)
    seconds = expected_seconds(trained)
    over_episodes = (
        np.sqrt(trained.returns.var(axis=2, ddof=1).mean() / trained.scenes.size) if trained.scenes.size > 1 else 0.0
    )
    slack = 2.0 * math.hypot(float(over_episodes), bar.standard_error or 0.0)
    bars = bar.value + slack * np.array([0.0, -1.0, 1.0])
    better = (scores > bars[:, None, None]).astype(np.float64)
    (middle, low, high), roots, freedom = _over_seeds(trained, better)
    errors = np.sqrt((roots**2).sum(axis=2))
    ends = (low + 2.0 * errors[1], high - 2.0 * errors[2])
    enough = freedom >= FEWEST_DEGREES and min(len(scores), bar.seeds) >= FEWEST_SEEDS
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
    _, first, cells = np.unique(trained.trainings, return_index=True, return_counts=True)
    for size in np.unique(cells):
        absent = np.cumprod(np.maximum(0, count - size - budgets + 1) / (count - budgets + 1))
        total = total + float(trained.train_seconds[first[cells == size]].sum()) * (1.0 - absent)
    return np.asarray(total, dtype=np.float64)


def _over_seeds(trained: Trained, values: Floats) -> tuple[Floats, Floats, int]:
    """T of some values, a root of its covariance over training seeds, and its degrees of freedom.

    T is linear in the values by rank, so those are averaged and centred before the weights are applied, once.

    Args:
        trained: The grid.
        values: Shape (V, S, N).

    Returns:
        Shapes (V, K) and (V, K, R).
    """
    count, seeds, cells = values.shape
    best = rank_weights(cells)
    ranked = [by_rank(trained.tune[s], values[:, s].T) for s in range(seeds)]
    curves = (best @ np.mean(ranked, axis=0)).T
    groups = np.unique(trained.trainings)
    moved = np.empty((groups.size, seeds, cells, count))
    for place, training in enumerate(groups):
        own = trained.trainings == training
        for s in range(seeds):
            moved[place, s] = np.mean(
                [
                    by_rank(
                        np.where(own, trained.tune[s], trained.tune[other]),
                        np.where(own, values[:, s], values[:, other]).T,
                    )
                    for other in range(seeds)
                ],
                axis=0,
            )
    moved -= moved.mean(axis=1, keepdims=True)
    roots = np.tensordot(best, moved, axes=(1, 2)) / math.sqrt(max(1, seeds * (seeds - 1)))
    return curves, np.moveaxis(roots, -1, 0).reshape(count, cells, -1), groups.size * (seeds - 1)


def _over_scenes(trained: Trained) -> Floats:
    """A root of the covariance of T over scenes, shape (K, scenes), the choice of cells given."""
    ranked = [by_rank(tune, returns) for tune, returns in zip(trained.tune, trained.returns, strict=True)]
    _, scene_of = np.unique(trained.scenes, return_inverse=True)
    scenes = int(scene_of.max()) + 1
    mean = np.mean(ranked, axis=0)
    away = (mean - mean.mean(axis=1, keepdims=True)) / trained.scenes.size
    by_scene = np.zeros((scenes, mean.shape[0]))
    np.add.at(by_scene, scene_of, away.T)
    sums = rank_weights(mean.shape[0]) @ by_scene.T
    root: Floats = sums * math.sqrt(scenes / max(1, scenes - 1))
    return root


def _first(probabilities: Floats, wanted: float) -> int | None:
    reached = np.flatnonzero(probabilities >= wanted - 1e-12)
    return int(reached[0]) + 1 if reached.size else None
