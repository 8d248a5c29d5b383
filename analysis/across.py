"""Methods across tasks: the aggregates of Agarwal et al. (2021), for any number of runs per task.

A method's scores are a list per task, one number per run; as many runs in every task are the `scores` matrix of their
library, rliable, and then every estimate here equals its own. Where runs are missing, every task keeps its equal
weight. What differs: a generator decides the draws; tasks may have unequal runs; intervals widen what is drawn.

Why widen: a bootstrap of n runs sees their variance too small by (n − 1)/n, a third with three, and takes it for known.
So each task's runs are spread around their mean by √(n/(n − 1)) before they are drawn, and ends lie as many times
further out as Student's t lies beyond the normal. Where one task decides most of the estimate, as the middle one of
three does the IQM, its n_j − 1 degrees of freedom are what there is: those of t are Satterthwaite's of the tasks'
parts (`effective_degrees`). And where runs are skewed, those that lie close together lie on the side of the short tail:
the end on the side of the long one is moved out by what Johnson's t has for it (`skew_shift`), the other one stays.

Runs may depend on each other: where the cell of each was chosen by the other seeds' scores, their mean has the variance
f·s² with an f above 1/n (`analysis.honest.fold_share`). Intervals take such shares, one per task, and are √(f·n) times
as wide. These f were chosen by coverage with a t on Σ (n_j − 1) degrees, which they keep, and no end is moved.

What an estimate owes to each run is its influence: the covariance, over the draws, of the estimate and how often the
run was drawn (Efron 2014). Squares of it, added over a task's runs, are that task's part of the variance.

Scores must be on a scale that is known. One made of the same runs (0 the mean of some method, 1 the best method's)
would take the noise of its own ends for nothing, and its upper end is a maximum, which is too high.

Axes: *J* tasks, *n_j* runs of task j, *B* bootstrap draws.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from analysis.bounded import NO_SPREAD, TOO_FEW_SEEDS, Bounded, percentile_interval, t_factor
from analysis.estimators import Floats
from analysis.landscape import FEWEST_DEGREES
from analysis.student import t_quantile

Scores: TypeAlias = Sequence[Floats]
"""Per task the scores of its runs, shape (n_j,), on a scale that tasks share."""

DRAWS = 20_000
CHUNK = 4096
"""Draws made at a time, so that they stay in a processor's cache."""

FEWEST_RUNS = 3
"""Runs of a task below which intervals are withheld: `tests/coverage` shows where they cover."""

NORMAL = 1.959963984540054
"""The 97.5 % point of the normal."""


def iqm(scores: Scores) -> float:
    """The mean of the middle half of all runs: ⌊n/4⌋ of n are cut off at either end, by weight 1/(J n_j)."""
    values, weights = _flat(scores)
    order = np.argsort(values, kind="stable")
    return float(_middle_mean(values[order], weights[order][None, :], _cut(values.size))[0])


def mean_score(scores: Scores) -> float:
    """The mean over tasks of the mean over runs."""
    return float(np.mean([each.mean() for each in _checked(scores)]))


def optimality_gap(scores: Scores) -> float:
    """1 − mean of min(score, 1): by how much runs fall short of 1; less is better."""
    return 1.0 - mean_score(_capped(scores))


def probability_of_improvement(first: Scores, second: Scores) -> float:
    """The mean over tasks of P(X > Y) + ½ P(X = Y) for a run X of `first` and Y of `second` (Mann and Whitney's U/nm).

    Raises:
        ValueError: They are of different numbers of tasks.
    """
    return float(np.mean([_wins(x, y).mean() for x, y in _pairs(first, second)]))


def profile(scores: Scores, thresholds: Floats) -> Floats:
    """The share of runs above each threshold, tasks alike: the run-score distribution, shape as `thresholds`."""
    above: Floats = np.mean([(each[:, None] > thresholds).mean(axis=0) for each in _checked(scores)], axis=0)
    return above


def iqm_draws(scores: Scores, rng: np.random.Generator, draws: int = DRAWS) -> Floats:
    """The IQM of `draws` stratified bootstrap samples, shape (draws,): runs are drawn within each task."""
    return _iqm_draws(scores, rng, draws)[0]


def _iqm_draws(scores: Scores, rng: np.random.Generator, draws: int) -> tuple[Floats, list[Floats]]:
    """These draws, and the influence of each task's runs.

    All values are sorted once. A sample is then how often each was drawn, and its middle half a sum over the running
    total of those counts: no sample is ever sorted.
    """
    values, weights = _flat(scores)
    order = np.argsort(values, kind="stable")
    place = np.argsort(order)
    sizes = [each.size for each in scores]
    found, centre = np.empty(draws), iqm(scores)
    times, product = np.zeros(values.size), np.zeros(values.size)
    for begin in range(0, draws, CHUNK):
        many = min(CHUNK, draws - begin)
        counts = np.zeros((many, values.size), dtype=np.float32)
        start = 0
        for size in sizes:
            counts[:, place[start : start + size]] = _counts(rng, size, many)
            start += size
        made = _middle_mean(values[order], (counts * weights[order]).astype(np.float64, copy=False), _cut(values.size))
        found[begin : begin + many] = made
        times += counts.sum(axis=0)
        product += (made - centre) @ counts
    influence = (product / draws - times / draws * (found.mean() - centre))[place]
    return found, np.split(influence, np.cumsum(sizes)[:-1])


def improvement_draws(first: Scores, second: Scores, rng: np.random.Generator, draws: int = DRAWS) -> Floats:
    """The probability of improvement of `draws` samples, the runs of both sides drawn within each task."""
    total = np.zeros(draws)
    for x, y in _pairs(first, second):
        one, other = _counts(rng, x.size, draws), _counts(rng, y.size, draws)
        total += np.einsum("bi,ij,bj->b", one, _wins(x, y), other) / (x.size * y.size)
    return total / len(first)


def mean_draws(scores: Scores, rng: np.random.Generator, draws: int = DRAWS) -> Floats:
    """The mean score of `draws` stratified bootstrap samples, shape (draws,)."""
    total = np.zeros(draws)
    for each in _checked(scores):
        total += _counts(rng, each.size, draws) @ each / each.size
    return total / len(scores)


def spread_out(scores: Scores, shares: Sequence[float] | None = None) -> list[Floats]:
    """Each task's runs, √(f·n²/(n − 1)) times as far from their mean; one run alone stays where it is.

    So the mean of n that are drawn has the variance f·s², s² with n − 1.

    Args:
        scores: The runs.
        shares: f for each task; 1/n if None, as of independent runs.
    """
    return [
        each.mean() + math.sqrt(share * each.size**2 / (each.size - 1)) * (each - each.mean())
        if each.size > 1
        else each
        for each, share in zip(_checked(scores), _shares(scores, shares), strict=True)
    ]


def iqm_interval(
    scores: Scores,
    rng: np.random.Generator,
    *,
    shares: Sequence[float] | None = None,
    draws: int = DRAWS,
    widen: bool = True,
) -> Bounded:
    """The IQM with its 95 % stratified bootstrap interval; `widen=False` is rliable's."""
    drawn, influence = _iqm_draws(spread_out(scores, shares) if widen else scores, rng, draws)
    own = influence if widen and _are_independent(scores, shares) else None
    return _bounded(iqm(scores), drawn, [each.size for each in scores], widen=widen, influence=own)


def gap_interval(
    scores: Scores,
    rng: np.random.Generator,
    *,
    shares: Sequence[float] | None = None,
    draws: int = DRAWS,
) -> Bounded:
    """The optimality gap with its interval, which does not go below 0."""
    spread = spread_out(_capped(scores), shares)
    drawn = 1.0 - mean_draws(spread, rng, draws)
    influence = [-(each - each.mean()) / (each.size * len(scores)) for each in spread]
    own = influence if _are_independent(scores, shares) else None
    found = _bounded(optimality_gap(scores), drawn, [each.size for each in scores], influence=own)
    if found.low is None or found.high is None:
        return found
    return Bounded(found.value, max(0.0, found.low), found.high)


def improvement_interval(
    first: Scores,
    second: Scores,
    rng: np.random.Generator,
    *,
    first_shares: Sequence[float] | None = None,
    second_shares: Sequence[float] | None = None,
    draws: int = DRAWS,
) -> Bounded:
    """The probability of improvement with its interval, in [0, 1].

    Ranks cannot be spread out as scores can: what was drawn is, around the estimate, by the most that runs of a task
    would be.
    """
    value = probability_of_improvement(first, second)
    runs = [min(x.size, y.size) for x, y in zip(first, second, strict=True)]
    sides = ((first, _shares(first, first_shares)), (second, _shares(second, second_shares)))
    worth = [min(1 / one, 1 / other) for one, other in zip(sides[0][1], sides[1][1], strict=True)]
    drawn = improvement_draws(first, second, rng, draws)
    if min(runs) > 1:
        spread = max(
            share * each.size**2 / (each.size - 1)
            for scores, shares in sides
            for each, share in zip(scores, shares, strict=True)
        )
        drawn = value + math.sqrt(spread) * (drawn - value)
    if value in {0.0, 1.0} and not _too_few(runs):
        # No draw of runs of which each wins has a loss in it: the end is that of n wins of n.
        end = 0.025 ** (1.0 / sum(worth))
        return Bounded(value, end, 1.0) if value == 1.0 else Bounded(value, 0.0, 1.0 - end)
    found = _bounded(value, drawn, runs)
    if found.low is None or found.high is None:
        return found
    return Bounded(value, max(0.0, found.low), min(1.0, found.high))


def profile_interval(scores: Scores, thresholds: Floats) -> tuple[Floats, Floats] | None:
    """Lower and upper ends of the profile's 95 % interval at each threshold by itself; None with too few runs.

    Clopper and Pearson's (1934) for N = ⌊J²/Σ (1/n_j)⌋ runs, all there are where every task has equally many. That the
    chance to be above differs between tasks makes their sum spread less than a binomial (Hoeffding 1956), so of
    independent runs it holds the truth at least as often as it says. Unlike a bootstrap's it has a width where all runs
    agree. Where tasks have unequal runs, the count above is rounded down for the lower end and up for the upper one.
    """
    if _too_few([each.size for each in scores]):
        return None
    trials = math.floor(len(scores) ** 2 / sum(1 / each.size for each in scores) + 1e-9)
    above = profile(scores, thresholds) * trials
    low = np.array([binomial_end(math.floor(k + 1e-9), trials) for k in above])
    high = np.array([1.0 - binomial_end(trials - math.ceil(k - 1e-9), trials) for k in above])
    return low, high


@functools.cache
def binomial_end(successes: int, trials: int) -> float:
    """The p with P(X ≥ `successes`) = .025 for X binomial of `trials` at p: Clopper and Pearson's lower end.

    0 for no success.

    By bisection of the sum, to 1e-9.
    """
    if successes == 0:
        return 0.0
    low, high = 0.0, 1.0
    while high - low > 1e-9:
        p = (low + high) / 2
        tail = sum(math.comb(trials, k) * p**k * (1 - p) ** (trials - k) for k in range(successes, trials + 1))
        low, high = (low, p) if tail > 0.025 else (p, high)
    return low


def effective_degrees(influence: Sequence[Floats]) -> float:
    """Satterthwaite's degrees of freedom of (Σ v_j)² / Σ v_j²/(n_j − 1), v_j the part of task j in the variance.

    Between the smallest n_j − 1 and Σ (n_j − 1).

    Args:
        influence: Of the runs of each task, shape (n_j,), two at least.
    """
    parts = np.array([np.square(each).sum() for each in influence])
    degrees = np.array([each.size - 1 for each in influence])
    return float(np.clip(parts.sum() ** 2 / (np.square(parts) / degrees).sum(), degrees.min(), degrees.sum()))


def skew_shift(influence: Sequence[Floats]) -> float:
    """By how much Johnson's t (1978) moves the ends of an interval for skewed runs: (1 + 2z²)·κ₃/(6κ₂), z 1.96.

    κ₂ and κ₃ are the estimate's variance and third cumulant: of runs that were spread by √(n/(n − 1)), Σ u² and, free
    of bias, Σ √(n(n − 1))/(n − 2)·Σ u³ with the influence u of the runs of a task.

    Args:
        influence: Of the runs of each task, shape (n_j,), three at least.
    """
    variance = sum(float(np.square(each).sum()) for each in influence)
    third = sum(math.sqrt(n * (n - 1)) / (n - 2) * float((each**3).sum()) for each in influence if (n := each.size) > 2)
    return (1 + 2 * NORMAL**2) * third / (6 * variance)


def _bounded(
    value: float,
    drawn: Floats,
    runs: Sequence[int],
    *,
    widen: bool = True,
    influence: Sequence[Floats] | None = None,
) -> Bounded:
    if _too_few(runs):
        return Bounded(value, why=TOO_FEW_SEEDS)
    low, high = percentile_interval(drawn)
    if high - low <= 1e-12 * max(1.0, abs(value)):  # runs that agree do not say how far another would lie
        return Bounded(value, why=NO_SPREAD)
    if influence is None:
        factor = t_factor(sum(number - 1 for number in runs)) if widen else 1.0
        return Bounded(value, value + factor * (low - value), value + factor * (high - value))
    factor, shift = float(t_quantile(0.975, effective_degrees(influence))) / NORMAL, skew_shift(influence)
    # The hull of the interval and of the one that is moved: what so few runs say of skewness may be chance.
    low, high = value + factor * (low - value), value + factor * (high - value)
    return Bounded(value, low + min(0.0, shift), high + max(0.0, shift))


def _are_independent(scores: Scores, shares: Sequence[float] | None) -> bool:
    """Whether the mean of each task's runs has the variance s²/n, as where no cell was chosen."""
    return np.allclose([share * each.size for share, each in zip(_shares(scores, shares), scores, strict=True)], 1.0)


def _too_few(runs: Sequence[int]) -> bool:
    return min(runs) < FEWEST_RUNS or sum(number - 1 for number in runs) < FEWEST_DEGREES


def _shares(scores: Scores, shares: Sequence[float] | None) -> Sequence[float]:
    return [1 / each.size for each in scores] if shares is None else shares


def _counts(rng: np.random.Generator, size: int, draws: int) -> Floats:
    """How often each of `size` runs is drawn in `draws` samples of `size`, shape (draws, size)."""
    table = _tables(size)
    if table is None:
        places = rng.integers(0, size, (draws, size)) + size * np.arange(draws)[:, None]
        counts: Floats = np.bincount(places.ravel(), minlength=draws * size).reshape(draws, size).astype(np.float32)
        return counts
    looked_up: Floats = table[rng.integers(0, table.shape[0], draws, dtype=np.uint32)]
    return looked_up


_TABLES: dict[int, Floats] = {}


def _tables(size: int) -> Floats | None:
    """All size^size samples as counts, where they are few enough: drawing one of them is drawing a sample."""
    if size > 5:
        return None
    if size not in _TABLES:
        samples = np.indices((size,) * size).reshape(size, -1)
        _TABLES[size] = np.stack([(samples == run).sum(axis=0) for run in range(size)], axis=1).astype(np.float32)
    return _TABLES[size]


def _middle_mean(values: Floats, weights: Floats, cut: float) -> Floats:
    """Mean of sorted values over the weight between `cut` and 1 − `cut`, weights of shape (B, n) with rows of sum 1."""
    running = np.cumsum(weights, axis=1)
    np.clip(running, cut, 1 - cut, out=running)
    # Σ_i v_i (C_i − C_{i−1}) by parts, so that the running totals are used as they are.
    gaps = np.append(values[:-1] - values[1:], values[-1]).astype(running.dtype)
    middle: Floats = (running @ gaps - cut * values[0]) / (1 - 2 * cut)
    return middle


def _cut(runs: int) -> float:
    return (runs // 4) / runs


def _flat(scores: Scores) -> tuple[Floats, Floats]:
    checked = _checked(scores)
    return np.concatenate(checked), np.concatenate([np.full(e.size, 1 / (len(checked) * e.size)) for e in checked])


def _checked(scores: Scores) -> Scores:
    if not len(scores) or any(each.ndim != 1 or not each.size or not np.isfinite(each).all() for each in scores):
        raise ValueError("every task needs at least one run with a finite score; leave a task without any out")
    return scores


def _capped(scores: Scores) -> Scores:
    """The scores, none above 1."""
    return [np.minimum(each, 1.0) for each in _checked(scores)]


def _wins(x: Floats, y: Floats) -> Floats:
    difference = x[:, None] - y[None, :]
    won: Floats = (difference > 0) + 0.5 * (difference == 0)
    return won


def _pairs(first: Scores, second: Scores) -> list[tuple[Floats, Floats]]:
    if len(first) != len(second):
        raise ValueError(f"both sides must have the same tasks, got {len(first)} and {len(second)}")
    return list(zip(_checked(first), _checked(second), strict=True))
