"""Differences between two cells on common episodes: interval, p-value, what could have been detected, families.

Axes: *S* training seeds, *E* episodes; axes in front of these are worlds, for simulations.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.estimators import Floats
from analysis.honest import Tuned
from analysis.student import t_quantile, t_two_sided
from analysis.variance import Noise, clusters, noise_of

LEVEL, POWER = 0.05, 0.8
"""Of the smallest difference that a comparison would find: two-sided level, and how often it would."""

REPLICATES = 10_000


def difference_noise(first: Floats, second: Floats, scenes: NDArray[np.generic], *, one_training: bool) -> Noise:
    """The noise of the mean of `first` minus that of `second`, as the variance parts of `share` = 1.

    Two trainings: M₁/S₁ + M₂/S₂, their seeds independent (where they share something, that errs on the side of a larger
    variance), with Welch and Satterthwaite's degrees of freedom; plus what common scenes add to the difference. Two
    decodings of *one* training at the same seeds act with the same weights: their difference at each seed is one
    number, with a variance M/S of its own.

    Args:
        first: Finite returns, shape (..., S₁, E).
        second: Of the same episodes, shape (..., S₂, E).
        scenes: The scene of each episode, shape (E,).
        one_training: Whether row s of both is the same trained model.

    Raises:
        ValueError: A side has one seed, or the shapes do not fit.
    """
    if first.shape[-1] != second.shape[-1] or (one_training and first.shape != second.shape):
        raise ValueError(f"paired returns must be of the same episodes, got {first.shape} and {second.shape}")
    if one_training:
        whole, seeds = noise_of((first - second)[..., None, :, :], scenes), first.shape[-2]
        return dataclasses.replace(whole, seed=whole.seed / seeds)
    first_alone, second_alone = (
        Tuned(side, 1 / side.shape[-2], noise_of(side[..., None, :, :], scenes)) for side in (first, second)
    )
    return _of_two(first_alone, second_alone, scenes)


def tuned_difference(first: Tuned, second: Tuned, scenes: NDArray[np.generic]) -> tuple[Floats, Floats, Floats]:
    """The difference of two tuned methods, its standard error over seeds and scenes, and that one's degrees of freedom.

    V = f₁·M₁ + f₂·M₂ + max(0, T − R₁/S₁ − R₂/S₂): `difference_noise` with the shares and the seed noise of cells that
    were chosen at other seeds, f = 1/S where one cell was fixed. What seeds do to both sides alike would cancel and is
    counted on each, so where there is such a thing the interval is too wide.

    Args:
        first: Held-out returns of one method.
        second: Of the other, on the same episodes.
        scenes: The scene of each episode, shape (E,).

    Raises:
        ValueError: The episodes are not the same.
    """
    if first.returns.shape[-1] != second.returns.shape[-1]:
        shapes = f"{first.returns.shape} and {second.returns.shape}"
        raise ValueError(f"paired returns must be of the same episodes, got {shapes}")
    noise = _of_two(first, second, scenes)
    value = first.returns.mean(axis=(-1, -2)) - second.returns.mean(axis=(-1, -2))
    return value, np.sqrt(noise.variance(1.0)), noise.degrees(1.0)


def _of_two(first: Tuned, second: Tuned, scenes: NDArray[np.generic]) -> Noise:
    """The noise of the difference of two means whose seeds are independent and whose scenes are common."""
    parts = [side.share * side.noise.seed for side in (first, second)]
    squares = sum(np.square(part) / side.noise.seed_degrees for part, side in zip(parts, (first, second), strict=True))
    seed = parts[0] + parts[1]
    degrees = np.where(seed > 0, np.square(seed) / np.maximum(squares, 1e-300), 1.0)
    difference = first.returns.mean(axis=-2) - second.returns.mean(axis=-2)
    both = np.repeat(difference[..., None, None, :], 2, axis=-2)  # twice the same seed: nothing is left but scenes
    common = noise_of(both, scenes)
    rests = first.noise.rest + second.noise.rest
    fewest = min(first.noise.rest_degrees, second.noise.rest_degrees)
    return Noise(seed, degrees, common.common, common.common_degrees, rests, fewest)


def paired_t(
    first: Floats, second: Floats, scenes: NDArray[np.generic], *, one_training: bool = False
) -> tuple[Floats, Floats, Floats]:
    """The difference of the means, its standard error over seeds and scenes, and the degrees of freedom of that.

    Arguments and errors as in `difference_noise`.
    """
    noise = difference_noise(first, second, scenes, one_training=one_training)
    value = first.mean(axis=(-1, -2)) - second.mean(axis=(-1, -2))
    return value, np.sqrt(noise.variance(1.0)), noise.degrees(1.0)


def p_value(value: float, standard_error: float, degrees: float) -> float | None:
    """Two-sided, of the hypothesis that new seeds and scenes would show no difference.

    None for a standard error of 0, up to rounding: a few numbers that are equal do not say how far others would spread,
    so neither p = 0 nor an interval without width holds.
    """
    if standard_error <= 1e-12 * abs(value):
        return None
    return float(t_two_sided(value / standard_error, degrees))


def detectable(standard_error: float, degrees: float) -> float:
    """The smallest difference that a comparison of this standard error finds: (t₁₋α⁄₂ + t₁₋β)·s.e., α = .05, β = .2."""
    return float((t_quantile(1 - LEVEL / 2, degrees) + t_quantile(POWER, degrees)) * standard_error)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p-values of a family, in the order given (Holm 1979).

    p̃₍ᵢ₎ = max_{j ≤ i} min(1, (m − j + 1)·p₍ⱼ₎): comparing each to α keeps the probability of *any* false claim below α.

    Raises:
        ValueError: One is no probability.
    """
    wrong = [p for p in p_values if not 0 <= p <= 1]
    if wrong:
        raise ValueError(f"a p-value must be in [0, 1], got {wrong[0]}")
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return tuple(adjusted)


def bootstrap_difference(
    first: Floats,
    second: Floats,
    scenes: NDArray[np.generic],
    rng: np.random.Generator,
    *,
    one_training: bool = False,
    replicates: int = REPLICATES,
) -> tuple[float, float]:
    """Ends of the 95 % percentile interval of a hierarchical bootstrap of the difference.

    Each replicate draws the seeds of both sides with replacement, once for both where they are `one_training`, and
    scenes with all their episodes, once for both sides. Drawn from S seeds, their variance is (S − 1)/S of what it is:
    so each side's seeds are spread around their mean by √(S/(S − 1)) before (Efron 1982). It has no t and needs many.

    Args:
        first: Finite returns, shape (S₁, E).
        second: Of the same episodes, shape (S₂, E).
        scenes: The scene of each episode, shape (E,).
        rng: Draws seeds and scenes.
        one_training: Whether row s of both is the same trained model.
        replicates: Number of draws.
    """
    order, starts = clusters(scenes)
    sums = [np.add.reduceat(side[:, order], starts, axis=1) for side in (first, second)]
    sizes = np.diff(np.append(starts, scenes.size)).astype(np.float64)
    drawn = [_spread(_shares(rng, replicates, side.shape[0])) for side in sums]
    if one_training:
        drawn[1] = drawn[0]
    times = _shares(rng, replicates, sizes.size)
    differences = np.einsum("rc,rc->r", times, drawn[0] @ sums[0] - drawn[1] @ sums[1]) / (times @ sizes)
    low, high = np.quantile(differences, (LEVEL / 2, 1 - LEVEL / 2))
    return float(low), float(high)


def _shares(rng: np.random.Generator, replicates: int, of: int) -> Floats:
    """How often each of `of` things is drawn, as shares of 1, shape (replicates, of)."""
    return rng.multinomial(of, np.full(of, 1 / of), size=replicates) / of


def _spread(shares: Floats) -> Floats:
    """Shares of S things, of each as much further from 1/S as spreads what they weigh by √(S/(S − 1)); S on axis 1."""
    of = shares.shape[1]
    spread: Floats = 1 / of + (shares - 1 / of) * math.sqrt(of / max(1, of - 1))
    return spread
