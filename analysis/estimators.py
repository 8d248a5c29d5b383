"""Estimates of a score and of differences between scores, as pure functions of arrays.

Axes: *S* training seeds (replicates of one cell), *E* episodes, *C* cells. `returns` always has shape (S, E): row s
holds the returns of training seed s, column e those of episode e, the same episode (scene and world) in every row.

An episode is what is sampled, so it is what is counted: replicates are averaged per episode first, and E, not S·E, goes
into a standard error over episodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number and how far to trust it.

    Attributes:
        value: The estimate; finite.
        standard_error: Of `value`, over episodes; None where there is one episode, which says nothing about spread.
        episodes: The number of episodes it is a mean over, at least 1.
        seeds: The number of training seeds averaged per episode, at least 1.
    """

    value: float
    standard_error: float | None
    episodes: int
    seeds: int

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"an estimate must be finite, got {self.value}")
        if self.standard_error is not None and not (math.isfinite(self.standard_error) and self.standard_error >= 0):
            raise ValueError(f"a standard error must be finite and not negative, got {self.standard_error}")
        if self.episodes < 1 or self.seeds < 1:
            raise ValueError(
                f"an estimate needs at least one episode and one seed, got {self.episodes} episodes, {self.seeds} seeds"
            )


def mean_over_episodes(returns: Floats) -> Estimate:
    """The mean return of one cell with its standard error over episodes.

    m_e = mean_s returns[s, e]; value = mean_e m_e; s.e. = sd(m) / √E with the sample standard deviation (E − 1).

    Args:
        returns: Finite, shape (S, E), S and E at least 1.

    Raises:
        ValueError: The shape is another one, or a return is not finite.
    """
    per_episode = checked_returns(returns).mean(axis=0)
    return Estimate(float(per_episode.mean()), standard_error_of_mean(per_episode), per_episode.size, returns.shape[0])


def standard_error_of_mean(values: Floats) -> float | None:
    """sd(values) / √n with the sample standard deviation, shape (n,); None for a single value."""
    if values.size < 2:
        return None
    return float(values.std(ddof=1) / math.sqrt(values.size))


def clustered_standard_error(values: Floats, clusters: NDArray[np.generic]) -> float | None:
    """The standard error of the mean of `values` where values of one cluster may depend on each other.

    √(C/(C−1) · Σ_c (Σ_{i in c} (v_i − v̄))²) / n: the sandwich estimator for a mean over C clusters. With one value per
    cluster it is the ordinary standard error. Episodes of one scene form a cluster.

    Args:
        values: Shape (n,).
        clusters: The cluster of each value, shape (n,).

    Returns:
        The standard error; None where there are fewer than two clusters.

    Raises:
        ValueError: The shapes differ.
    """
    if values.shape != clusters.shape:
        raise ValueError(f"clusters must have shape {values.shape}, got {clusters.shape}")
    _, index = np.unique(clusters, return_inverse=True)
    sums = np.bincount(index, weights=values - values.mean())
    if sums.size < 2:
        return None
    return math.sqrt(sums.size / (sums.size - 1) * float(np.square(sums).sum())) / values.size


def population_sigma(scores: Floats) -> float | None:
    """The population standard deviation √(Σ (x − x̄)² / C) of C cell scores, shape (C,); None for fewer than two cells.

    Divides by C, not C − 1: the cells of a grid are all there are, not a sample. A cell is one score: average its
    replicates first.
    """
    if scores.size < 2:
        return None
    return float(scores.std(ddof=0))


def seed_variance_of_mean(returns: Floats) -> float | None:
    """What the choice of training seeds adds to the variance of a cell's mean return.

    In the crossed model y[s, e] = μ + a_s + b_e + ε_se the mean over all S·E returns has the variance
    var(a)/S + var(b)/E + var(ε)/(S·E). The last two terms are what the standard error over episodes sees; this is the
    first, estimated by analysis of variance as max(0, MS_seeds − MS_residual) / (S·E). At the floor of 0 the seeds
    differ no more than the episodes alone would make them.

    Args:
        returns: Finite, shape (S, E).

    Returns:
        The variance, not negative; None where one seed or one episode says nothing about it.

    Raises:
        ValueError: The shape is another one, or a return is not finite.
    """
    y = checked_returns(returns)
    seeds, episodes = y.shape
    if seeds < 2 or episodes < 2:
        return None
    by_seed, by_episode, overall = y.mean(axis=1), y.mean(axis=0), y.mean()
    mean_square_seeds = episodes * float(by_seed.var(ddof=1))
    residual = y - by_seed[:, None] - by_episode[None, :] + overall
    mean_square_residual = float(np.square(residual).sum()) / ((seeds - 1) * (episodes - 1))
    return float(max(0.0, mean_square_seeds - mean_square_residual) / (seeds * episodes))


def standard_error_with_seeds(returns: Floats) -> float | None:
    """The standard error of a cell's mean over episodes *and* training seeds; None where S or E is 1.

    √(s.e. over episodes² + `seed_variance_of_mean`), so never below the standard error over episodes alone.

    Raises:
        ValueError: The shape is not (S, E), or a return is not finite.
    """
    over_episodes, from_seeds = mean_over_episodes(returns).standard_error, seed_variance_of_mean(returns)
    if over_episodes is None or from_seeds is None:
        return None
    return math.sqrt(over_episodes**2 + from_seeds)


@dataclass(frozen=True)
class PairedDifference:
    """A mean difference over common episodes, with one standard error for each thing one may generalise over.

    Attributes:
        value: Mean of the first minus mean of the second.
        over_episodes: Standard error over episodes, the trained models as they are; None for one episode.
        over_scenes: The same with episodes of one scene as a cluster; None for one scene.
        with_seeds: The larger of the two above, joined by the variance that training seeds add on both sides: for
            "would other seeds say the same?". None where a side has one seed.
        episodes: Number of common episodes.
        scenes: Number of different scenes among them.
    """

    value: float
    over_episodes: float | None
    over_scenes: float | None
    with_seeds: float | None
    episodes: int
    scenes: int


def paired_difference(first: Floats, second: Floats, scenes: NDArray[np.generic]) -> PairedDifference:
    """Mean of `first` minus mean of `second`, paired by episode after averaging each one's training seeds.

    The seeds of the two sides count as independent. Where they share something (a behaviour policy of the same seed)
    that errs on the side of a larger standard error.

    Args:
        first: Finite returns, shape (S1, E).
        second: Finite returns of the same episodes in the same order, shape (S2, E).
        scenes: The scene of each episode, shape (E,).

    Raises:
        ValueError: The shapes do not fit, or a return is not finite.
    """
    first, second = checked_returns(first), checked_returns(second)
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"paired returns must be of the same episodes, got {first.shape[1]} and {second.shape[1]}")
    difference = first.mean(axis=0) - second.mean(axis=0)
    over_episodes = standard_error_of_mean(difference)
    over_scenes = clustered_standard_error(difference, scenes)
    parts = (seed_variance_of_mean(first), seed_variance_of_mean(second))
    with_seeds: float | None = None
    if parts[0] is not None and parts[1] is not None and over_episodes is not None:
        with_seeds = math.sqrt(max(over_episodes, over_scenes or 0.0) ** 2 + parts[0] + parts[1])
    return PairedDifference(
        value=float(difference.mean()),
        over_episodes=over_episodes,
        over_scenes=over_scenes,
        with_seeds=with_seeds,
        episodes=difference.size,
        scenes=np.unique(scenes).size,
    )


def checked_returns(returns: Floats) -> Floats:
    """`returns` itself.

    Raises:
        ValueError: It is not of shape (S, E) with both at least 1, or holds a number that is not finite.
    """
    if returns.ndim != 2 or returns.size == 0:
        raise ValueError(f"returns must have shape (seeds, episodes), both at least 1, got {returns.shape}")
    if not np.isfinite(returns).all():
        raise ValueError(f"returns must be finite, got {int((~np.isfinite(returns)).sum())} that are not")
    return returns


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation: Pearson's of the ranks, equal values sharing their mean rank.

    None where one list is the same throughout: it ranks nothing, and the ratio is 0/0.

    Raises:
        ValueError: Their lengths differ, or there are fewer than two.
    """
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(
            f"a rank correlation needs two equally long lists of at least 2, got {len(first)}, {len(second)}"
        )
    one, other = (_ranks(np.asarray(values, dtype=np.float64)) for values in (first, second))
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(np.corrcoef(one, other)[0, 1])


def _ranks(values: Floats) -> Floats:
    below = (values[:, None] > values[None, :]).sum(axis=1)
    equal = (values[:, None] == values[None, :]).sum(axis=1)
    ranks: Floats = below + (equal - 1) / 2
    return ranks
