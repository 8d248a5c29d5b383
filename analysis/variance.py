"""How much a score depends on its hyperparameters, with the noise of training seeds and episodes taken out.

That is σ, of all of them together: what each explains is `analysis.importance`, on `analysis.landscape`'s noise.

Axes: *K* cells, *S* training seeds, *E* episodes, *P* contrasts; axes in front of these are worlds, for simulations.
The model of a return is y[k, s, e] = μ_k + a[k, s] + b_e + g[k, e] + ε[k, s, e]: a cell's truth, what the training seed
does to it, the episode (its scene) that all cells share, what that scene is to this cell, and the rest.

**Common scenes cancel.** Let u = Q ȳ be differences between cell means, Q of shape (P, K) with orthonormal rows that
sum to 0. b is in every cell and gone from u. g is not: u keeps Q ḡ, of variance σ_g²/E, which more seeds do not lower,
since all seeds play the same scenes. With δ = Q μ

    E‖u‖² = ‖δ‖² + P·N,      N = σ_a²/S + σ_g²/E + σ_ε²/(S·E),

and three mean squares give N without a model of the cells (Cornfield & Tukey 1956, "Average values of mean squares in
factorials": the error of cells crossed with seeds and scenes is MS_seed + MS_scene − MS_rest):

    M = mean square of u_s over seeds                      E M = σ_a² + σ_ε²/E
    T = squared standard error of u over scenes            E T = σ_g²/E + σ_ε²/(S·E)
    R = that of what seeds and scenes leave                E R = σ_ε²/E
    N = M/S + max(0, T − R/S).

**Seeds are crossed, too.** M is of *contrasts* at one seed, not of cells: whatever seed 0 does to all cells alike (the
order of batches, a behaviour policy) cancels as well, and so does what all decodings of one training share, which act
with the same weights. Contrasts are therefore taken in two strata, between trainings and between the decodings of one
training, as in a split-plot design; each has an N of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.estimators import Floats

DRAWS = 20_000
"""Draws behind an interval: the probability beyond each end, .025, then has a standard error of .0011."""


@dataclass(frozen=True, eq=False)
class Noise:
    """The parts of the variance of a mean over seeds and episodes. Every field has the leading axes.

    Attributes:
        seed: M, the variance of one seed's mean.
        seed_degrees: Its degrees of freedom.
        common: T, with `common_degrees`.
        rest: R/S, with `rest_degrees`.
    """

    seed: Floats
    seed_degrees: Floats | float
    common: Floats
    common_degrees: float
    rest: Floats
    rest_degrees: float

    @property
    def scene(self) -> Floats:
        """max(0, T − R/S): what common scenes add, however many seeds there are."""
        return np.maximum(0.0, self.common - self.rest)

    def variance(self, share: float) -> Floats:
        """`share`·M + max(0, T − R/S); a mean over S independent seeds has the share 1/S."""
        return share * self.seed + self.scene

    def degrees(self, share: float) -> Floats:
        """Of `variance`, by Satterthwaite (1946): V²/Σ (part²/its degrees), at least 1."""
        squares = np.square(share * self.seed) / self.seed_degrees
        squares = squares + np.square(self.common) / self.common_degrees + np.square(self.rest) / self.rest_degrees
        return np.maximum(1.0, np.square(self.variance(share)) / np.maximum(squares, 1e-300))


def noise_of(contrasts: Floats, scenes: NDArray[np.generic], *, rank: int | None = None) -> Noise:
    """The noise of `contrasts`, averaged over their axis P.

    Args:
        contrasts: Orthonormal combinations of cells per seed and episode, or one cell alone; shape (..., P, S, E). Or
            what these leave of the cells, Qᵀ Q y, shape (..., K, S, E): it has the same sums of squares.
        scenes: The scene of each episode, shape (E,); episodes of one scene are a cluster.
        rank: P, where the rows are not as many.

    Raises:
        ValueError: There are fewer than two seeds or two scenes, or the shapes do not fit.
    """
    rows, s, e = contrasts.shape[-3:]
    p = rows if rank is None else rank
    if scenes.shape != (e,):
        raise ValueError(f"scenes must have shape ({e},), got {scenes.shape}")
    order, starts = clusters(scenes)
    c = starts.size
    if s < 2 or c < 2:
        raise ValueError(f"noise needs at least two training seeds and two scenes, got {s} and {c}")

    def by_scene(values: Floats) -> Floats:
        return values if c == e else np.add.reduceat(values[..., order], starts, axis=-1)

    by_seed, by_episode = contrasts.mean(axis=-1), contrasts.mean(axis=-2)
    mean = by_seed.mean(axis=-1)
    by_episode -= mean[..., None]
    rest = contrasts - by_seed[..., None]
    rest -= by_episode[..., None, :]
    of_rest = by_scene(rest)
    scale = c / (c - 1) / e**2 / p
    common = scale * np.square(by_scene(by_episode)).sum(axis=(-1, -2))
    left = scale * np.square(of_rest, out=of_rest).sum(axis=(-1, -2, -3)) / (s - 1) / s
    seed = np.square(by_seed - mean[..., None]).sum(axis=(-1, -2)) / (p * (s - 1))
    return Noise(seed, p * (s - 1.0), common, p * (c - 1.0), left, p * (c - 1.0) * (s - 1.0))


def strata(returns: Floats, trainings: NDArray[np.generic]) -> tuple[tuple[Floats, int], ...]:
    """How far trainings are from the mean of all cells, and the decodings of one training from its mean.

    With Q the orthonormal contrasts between trainings, or those within them, these are Qᵀ Q y: lengths and mean squares
    are those of Q y, and no matrix of cells by cells is made.

    Args:
        returns: Shape (..., K, S, E).
        trainings: The training of each cell, shape (K,).

    Returns:
        Of each stratum that there is the deviations, shape (..., K, S, E), and the number P of contrasts that they
        hold; both numbers together are K − 1.
    """
    names, index = np.unique(trainings, return_inverse=True)
    centre = np.empty(returns.shape)
    for training in range(names.size):
        own = index == training
        centre[..., own, :, :] = returns[..., own, :, :].mean(axis=-3, keepdims=True)
    found = []
    if index.size > names.size:
        found.append((returns - centre, index.size - names.size))
    if names.size > 1:
        centre -= returns.mean(axis=-3, keepdims=True)
        found.insert(0, (centre, names.size - 1))
    return tuple(found)


def sigma(
    returns: Floats, trainings: NDArray[np.generic], scenes: NDArray[np.generic], rng: np.random.Generator,
    *, draws: int = DRAWS,
) -> tuple[Floats, Floats, Floats]:  # fmt: skip
    """The population standard deviation of the cells' true means: estimate, lower and upper end of a 95 % interval.

    The estimand is √(Σ (μ_k − μ̄)²/K): the cells of a grid are all there are, so it divides by K, and μ_k is a mean over
    all training seeds and scenes that might have been drawn. The estimate is √max(0, Σ_strata (‖u‖² − P·N)/K).

    The interval is a generalised one (Weerahandi 1993). ‖u‖²/N follows a noncentral χ² with P degrees of freedom and
    noncentrality ‖δ‖²/N; turned round, for normal Z, independent X ~ χ²_{P−1} and N* = N·ν/χ²_ν,

        δ* = √(‖u‖² − N*·X) − √N*·Z,

    and δ*² has the sign of δ*; where nothing stands under the root, ‖u‖² − N*·X itself is δ*². So a stratum that moves
    less than its noise takes from the sum what chance has added to another. The ends are quantiles of
    √max(0, Σ_strata δ*²/K). Where seed noise differs between cells, the χ² become scaled ones of fewer degrees
    (`evenness`).

    Args:
        returns: Finite, shape (..., K, S, E), K and S at least 2.
        trainings: The training of each cell, shape (K,).
        scenes: The scene of each episode, shape (E,).
        rng: Draws Z, X and N*.
        draws: Number of draws.
    """
    cells = returns.shape[-3]
    point: Floats = np.zeros(returns.shape[:-3])
    drawn: Floats = np.zeros((draws, *returns.shape[:-3]))
    even = evenness(returns.mean(axis=-1))
    for deviations, p in strata(returns, trainings):
        noise, s = noise_of(deviations, scenes, rank=p), deviations.shape[-2]
        length, variance, degrees = np.square(deviations.mean(axis=(-1, -2))).sum(axis=-1), *_of_mean(noise, s)
        point = point + length - p * variance
        degrees = np.maximum(1.0, degrees * even)
        n = variance * degrees / np.maximum(rng.chisquare(degrees, drawn.shape), 1e-100)
        x = rng.chisquare((p - 1) * even, drawn.shape) / even if p > 1 else np.zeros(drawn.shape)
        left = length - n * x
        delta = np.sqrt(np.maximum(left, 0.0)) - np.sqrt(n) * rng.standard_normal(drawn.shape)
        drawn += np.where(left > 0, delta * np.abs(delta), left)
    ends = np.quantile(np.sqrt(np.maximum(drawn, 0.0) / cells), (0.025, 0.975), axis=0)
    return np.sqrt(np.maximum(point, 0.0) / cells), ends[0], ends[1]


def evenness(scores: Floats) -> Floats:
    """How alike the seed noise of cells is, in (0, 1]: (mean v)²/mean v² of their variances v, 1 where all are equal.

    The sum of P squares of unequal variance has as many degrees of freedom as P times this equal ones (Box 1954). v is
    estimated by S − 1 degrees, which alone makes v² too large by (S+1)/(S−1); that is taken out.

    Args:
        scores: Shape (..., K, S).
    """
    seeds = scores.shape[-1]
    rest = scores - scores.mean(axis=-1, keepdims=True)
    rest = rest - rest.mean(axis=-2, keepdims=True)
    v = np.square(rest).sum(axis=-1)
    ratio = np.square(v.mean(axis=-1)) / np.maximum(np.square(v).mean(axis=-1), 1e-300) * (seeds + 1) / (seeds - 1)
    even: Floats = np.clip(ratio, 0.05, 1.0)
    return even


def _of_mean(noise: Noise, seeds: int) -> tuple[Floats, Floats]:
    return noise.variance(1 / seeds), noise.degrees(1 / seeds)


def clusters(scenes: NDArray[np.generic]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The order that puts equal scenes side by side, and where each begins in it."""
    order = np.argsort(scenes, kind="stable")
    starts = np.flatnonzero(np.append(True, scenes[order][1:] != scenes[order][:-1]))
    return order, starts
