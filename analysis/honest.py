"""The score of a tuned method, chosen on some training seeds and scored on the others.

Axes: *K* cells, *S* training seeds, *E* episodes; axes in front of these are worlds, for simulations.

"How good is it?" is two questions. *How good is this checkpoint?* is about a trained model that one would ship: choose
on some scenes, score on the others. *How good is this method when tuned?* is about the next training: the winner of K
cells is also the luckiest of K·S trainings, and other scenes do not take that luck away; other training seeds do. The
first can be asked with one seed, the second cannot.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.estimators import Floats
from analysis.student import t_quantile
from analysis.variance import Noise, noise_of

FOLDS = 5
"""Parts that scenes are cut into where something is chosen on the other parts."""

FOLD_SHARE = 0.6
"""What folds that choose by each other's seeds add to the variance of their mean, in units of M/(S − 1).

Where folds are of scenes, in units of the variance of that mean itself."""

FOLD_SHARE_MANY = 0.35
"""The same in units of M/√S, which is more from five seeds on: the more seeds, the more alike the folds choose."""

TIED = 9
"""Decimals of a sum of returns by which options are told apart: in what order a tie was added up must not break it."""


@dataclass(frozen=True, eq=False)
class CrossFitted:
    """Held-out returns of what was chosen without them.

    Attributes:
        returns: `returns[chosen[s], s]`, shape (..., S, E).
        chosen: The cell chosen without seed s, the first of equals, shape (..., S).
    """

    returns: Floats
    chosen: NDArray[np.int64]


def leave_one_seed_out(returns: Floats, chosen_by: Floats | None = None) -> CrossFitted:
    """Per seed, the cell with the highest mean score at the *other* seeds, and what it returns at this one.

    Chosen by scores on other scenes, the mean over seeds is an unbiased estimate of how good a cell is that S − 1
    training seeds choose. Chosen by the mean returns themselves it is too high where scenes mean something of their own
    to each cell: what they do to it is the same at every seed, and no other seed takes it away.

    Args:
        returns: Finite, shape (..., K, S, E).
        chosen_by: Scores to choose by, those of the tune scenes, shape (..., K, S); the mean returns if None.

    Raises:
        ValueError: There is one seed: nothing is left to choose by; or the shapes do not fit.
    """
    seeds = returns.shape[-2]
    if seeds < 2:
        raise ValueError(f"choosing on other training seeds needs at least two, got {seeds}")
    scores = returns.mean(axis=-1) if chosen_by is None else chosen_by
    if scores.shape != returns.shape[:-1]:
        raise ValueError(f"scores to choose by must have shape {returns.shape[:-1]}, got {scores.shape}")
    others = (scores.sum(axis=-1, keepdims=True) - scores) / (seeds - 1)
    chosen = others.argmax(axis=-2)
    held = np.take_along_axis(returns, chosen[..., None, :, None], axis=-3)
    return CrossFitted(held[..., 0, :, :], chosen)


@dataclass(frozen=True, eq=False)
class Tuned:
    """Held-out returns of a tuned method, with what the variance of their mean is made of: `share`·M + scenes.

    Attributes:
        returns: At each seed of the cell chosen without it, shape (..., S, E).
        share: f, the share of one seed's variance that is in that of the mean.
        noise: Its parts; M is one seed's.
    """

    returns: Floats
    share: float
    noise: Noise


def tuned(
    returns: Floats, scenes: NDArray[np.generic], chosen_by: Floats | None = None, trainings: int | None = None
) -> Tuned:
    """A method at the cells that `leave_one_seed_out` chooses, and the noise of its mean as `tuned_max` has it.

    Args:
        returns: Finite, shape (..., K, S, E), S at least 2. One cell alone is not chosen: f = 1/S, and its own M.
        scenes: The scene of each episode, shape (E,).
        chosen_by: See `leave_one_seed_out`.
        trainings: How many different trainings the cells are of, T; K if None.
    """
    cells, seeds = returns.shape[-3:-1]
    held = leave_one_seed_out(returns, chosen_by).returns
    own = noise_of(held[..., None, :, :], scenes)
    if cells == 1:
        return Tuned(held, 1 / seeds, own)
    pooled = returns.mean(axis=-1).var(axis=-1, ddof=1).mean(axis=-1)
    degrees = (cells if trainings is None else trainings) * (seeds - 1.0)
    noise = dataclasses.replace(own, seed=np.maximum(own.seed, pooled), seed_degrees=degrees)
    return Tuned(held, 1 / seeds + fold_share(seeds), noise)


def fold_share(seeds: int) -> float:
    """What is in f beyond 1/S where cells are chosen: max(.6/(S − 1), .35/√S)."""
    return max(FOLD_SHARE / (seeds - 1), FOLD_SHARE_MANY / math.sqrt(seeds))


def tuned_max(
    returns: Floats, scenes: NDArray[np.generic], chosen_by: Floats | None = None, trainings: int | None = None
) -> tuple[Floats, Floats]:
    """How good the method is when tuned: estimate and half width of a 95 % interval.

    The estimand is the mean of μ_k over the S cells that `leave_one_seed_out` chooses: what a new training seed of them
    returns on new scenes. The variance of the estimate is

        f·M + max(0, T − R/S),      f = 1/S + max(.6/(S−1), .35/√S),

    T and R of the held-out returns, as in `analysis.variance`. M is the variance of one seed's score: that of the
    held-out scores, or the mean over all cells of that between their seeds, whichever is larger, with the latter's
    T(S−1) degrees of freedom: the decodings of one training are the same weights. One cell's S − 1 degrees alone would
    do at twice the width for three seeds. f is more than 1/S because folds choose by each other's seeds, and less than
    the 1/S + 1/(S−1) of Nadeau & Bengio (2003), which covers 99 %. Both were chosen by coverage (docs/statistics.md).

    With one cell nothing is chosen: the mean, f = 1/S, and its own M, whose S − 1 degrees are so few that those of
    Satterthwaite's sum, estimated from it, are too many whenever it is small by chance. So each part has its own t,

        half width = √(t²_{S−1}·M/S + t²_{C−1}·max(0, T − R/S)),

    which is the interval of either part where the other is nothing; by coverage, it holds what it should between them.

    Args:
        returns: Finite, shape (..., K, S, E), S at least 2.
        scenes: The scene of each episode, shape (E,).
        chosen_by: See `leave_one_seed_out`.
        trainings: See `tuned`.
    """
    found = tuned(returns, scenes, chosen_by, trainings)
    value, noise, share = found.returns.mean(axis=(-1, -2)), found.noise, found.share
    if returns.shape[-3] == 1:
        of_seeds = np.square(t_quantile(0.975, noise.seed_degrees)) * share * noise.seed
        of_scenes = np.square(t_quantile(0.975, noise.common_degrees)) * noise.scene
        return value, np.sqrt(of_seeds + of_scenes)
    return value, t_quantile(0.975, noise.degrees(share)) * np.sqrt(noise.variance(share))


def scene_folds(scenes: NDArray[np.generic], folds: int = FOLDS) -> NDArray[np.int64]:
    """The fold of each episode, shape (E,): scenes in order are dealt to the folds in turn, so none is in two."""
    _, index = np.unique(scenes, return_inverse=True)
    fold: NDArray[np.int64] = index % folds
    return fold


def chosen_on_other_scenes(returns: Floats, scenes: NDArray[np.generic]) -> Floats:
    """Returns of the option that is best on the scenes of the other folds, per episode; of equals the first.

    Args:
        returns: Finite; the options are axis −2: shape (..., N, E).
        scenes: The scene of each episode, shape (E,), at least two different ones.

    Returns:
        Shape (..., E).

    Raises:
        ValueError: All episodes are of one scene: nothing is left to choose by.
    """
    folds = scene_folds(scenes)
    if folds.max() == 0:
        raise ValueError("choosing on other scenes needs at least two, got one")
    held = np.empty((*returns.shape[:-2], returns.shape[-1]))
    inside = [folds == fold for fold in range(int(folds.max()) + 1)]
    sums = np.stack([returns[..., own].sum(axis=-1) for own in inside])
    for fold, own in enumerate(inside):
        others = np.delete(sums, fold, axis=0).sum(axis=0)
        best = np.round(others, TIED).argmax(axis=-1)
        held[..., own] = np.take_along_axis(returns[..., own], best[..., None, None], axis=-2)[..., 0, :]
    return held


def best_checkpoint(returns: Floats, scenes: NDArray[np.generic]) -> tuple[Floats, Floats]:
    """How good the best of the trained models is: estimate and half width of a 95 % interval.

    The estimand is the mean true score, over scenes, of the models that are chosen on the other scenes (one in each
    fold). The variance is that of the held-out mean over scenes, T, times 1 + .6 where there is a choice: folds choose
    by each other's scenes here, too, and with T alone 88 % of the intervals hold the truth where models are alike.

    Args:
        returns: Finite, one row per trained model: shape (..., N, E).
        scenes: The scene of each episode, shape (E,), at least two different ones.
    """
    held = chosen_on_other_scenes(returns, scenes)
    twice = np.repeat(held[..., None, None, :], 2, axis=-2)  # as two equal seeds: all its noise is that of scenes
    noise = noise_of(twice, scenes)
    share = 1 + FOLD_SHARE if returns.shape[-2] > 1 else 1.0
    return held.mean(axis=-1), t_quantile(0.975, noise.common_degrees) * np.sqrt(share * noise.common)


def tuned_decodings(returns: Floats, trainings: NDArray[np.generic], scenes: NDArray[np.generic]) -> Floats:
    """Returns of every checkpoint at the decoding that is best for it on other scenes.

    Args:
        returns: Shape (..., K, S, E).
        trainings: The training of each cell, shape (K,).
        scenes: The scene of each episode, shape (E,).

    Returns:
        Shape (..., T, S, E), trainings in the order of their names.
    """
    tuned = []
    for name in np.unique(trainings):
        own = np.swapaxes(returns[..., trainings == name, :, :], -3, -2)  # (..., S, B, E)
        tuned.append(chosen_on_other_scenes(own, scenes) if own.shape[-2] > 1 else own[..., 0, :])
    return np.stack(tuned, axis=-3)
