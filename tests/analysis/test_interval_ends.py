"""The ends of every interval that draws make, on one fixed sample each, against a computation that shares no code.

Coverage in a hundred worlds cannot tell an interval of 95 % from one of 90 %: both hold the truth in most of them. Here
the ends themselves are compared, each within a quarter of the way to where those of 90 % would be.

Axes: C cells, S seeds, E episodes, each of its own scene.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from analysis.across import iqm_interval
from analysis.budget import Trained, tuning_curve
from analysis.cells import Cell
from analysis.dose import dose_responses
from analysis.importance import anova
from analysis.landscape import Landscape
from analysis.sensitivity import sensitivity
from analysis.variance import sigma

DRAWS = 40_000
E = 60


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def other_rng() -> np.random.Generator:
    """Draws of its own, so that two computations agree in what they mean and not in their luck."""
    return np.random.default_rng(8)


def assert_ends(found: tuple[float | None, float | None], at: dict[float, tuple[float, float]]) -> None:
    """Both ends are those of 95 %, and the sample is one on which those of 90 % are elsewhere."""
    for place in (0, 1):
        right, wrong, end = at[0.95][place], at[0.90][place], found[place]
        assert abs(right - wrong) > 1e-3
        assert end == pytest.approx(right, abs=abs(right - wrong) / 4)


def percentiles(draws: np.ndarray) -> dict[float, tuple[float, float]]:
    ordered = np.sort(draws)

    def at(share: float) -> float:
        return float(ordered[round(share * (ordered.size - 1))])

    return {level: (at((1 - level) / 2), at((1 + level) / 2)) for level in (0.95, 0.90)}


def hulls(value: float, draws: np.ndarray, *, most: float = np.inf) -> dict[float, tuple[float, float]]:
    """The hull of the percentiles and of those moved by twice the draws' bias, between 0 and `most`."""
    moved = 2 * (float(draws.mean()) - value)
    return {
        level: (float(np.clip(min(low, low - moved), 0, most)), float(np.clip(max(high, high - moved), 0, most)))
        for level, (low, high) in percentiles(draws).items()
    }


def covariance_of_means(returns: np.ndarray, trainings: list[int]) -> np.ndarray:
    """Of the means of y[c, s, e]: seeds (within a training) + scenes − what both hold, by loops over pairs of cells."""
    count, seeds, episodes = returns.shape
    found = np.zeros((count, count))
    for i, j in itertools.product(range(count), repeat=2):
        one, other = returns[i], returns[j]
        found[i, j] = np.cov(one.mean(axis=0), other.mean(axis=0))[0, 1] / episodes
        if trainings[i] != trainings[j]:
            continue
        found[i, j] += np.cov(one.mean(axis=1), other.mean(axis=1))[0, 1] / seeds
        left = [y - y.mean(axis=0) - y.mean(axis=1)[:, None] + y.mean() for y in (one, other)]
        found[i, j] -= (left[0] * left[1]).sum() / ((seeds - 1) * (episodes - 1)) / (seeds * episodes)
    values, vectors = np.linalg.eigh(found)
    positive: np.ndarray = (vectors * np.clip(values, 0, None)) @ vectors.T
    return positive


def noise(covariance: np.ndarray, freedom: int) -> np.ndarray:
    """A multivariate t: normal draws over the root of a χ² on its degrees."""
    generator = other_rng()
    normal = generator.multivariate_normal(np.zeros(len(covariance)), covariance, DRAWS, method="eigh")
    drawn: np.ndarray = normal / np.sqrt(generator.chisquare(freedom, DRAWS) / freedom)[:, None]
    return drawn


def a_cell(setting: dict[str, float], returns: np.ndarray) -> Cell:
    scenes = np.array([f"s{index:03d}" for index in range(E)])
    seeds = tuple(range(len(returns)))
    row = (seeds, returns, np.ones_like(returns), np.arange(E), scenes, 0.0, {}, 0, 0)
    return Cell("ilql", repr(setting), "design", dict(setting), *row)


def returns_of(means: np.ndarray, trainings: list[int], seeds: int, generator: np.random.Generator) -> np.ndarray:
    shared = generator.normal(0, 0.3, (max(trainings) + 1, seeds))
    drawn: np.ndarray = (
        means[:, None, None]
        + shared[trainings][:, :, None]
        + generator.normal(0, 0.2, (len(means), seeds, 1))
        + generator.normal(0, 0.5, (len(means), seeds, E))
    )
    return drawn


def test_the_ends_of_shares_of_variance_and_of_their_roots() -> None:
    # Two by two: each term is one contrast c of the means, with weights ±1/4, and V = c².
    means = np.array([0.0, 1.5, 2.0, 6.5])
    mixed = np.random.default_rng(1).normal(0, 0.25, (4, 4))
    covariance = mixed @ mixed.T
    scape = Landscape(({},) * 4, means, covariance, np.arange(4), freedom=8, seeds=3)
    found = anova(scape, {"train.a": (0, 1), "train.b": (0, 1)}, "ilql", rng(), draws=DRAWS)

    weights = np.array([[-1, -1, 1, 1], [-1, 1, -1, 1], [1, -1, -1, 1]]) / 4
    contrasts, own = weights @ means, np.einsum("uc,cd,ud->u", weights, covariance, weights)
    kept = np.sign(contrasts) * np.sqrt(np.maximum(0, contrasts**2 - own))
    drawn = np.maximum(0, (kept + noise(covariance, 8) @ weights.T) ** 2 - own)
    names = [("train.a",), ("train.b",), ("train.a", "train.b")]
    for place, columns in enumerate(names):
        term = next(each for each in found.terms if each.columns == columns)
        assert_ends((term.share.low, term.share.high), percentiles(drawn[:, place] / drawn.sum(axis=1)))
        assert_ends((term.sd.low, term.sd.high), percentiles(np.sqrt(drawn[:, place])))
    assert_ends((found.sigma.low, found.sigma.high), percentiles(np.sqrt(drawn.sum(axis=1))))


def test_the_ends_of_sensitivity_to_tuning() -> None:
    generator, trainings = np.random.default_rng(2), [0, 1, 2, 3]
    worlds = [
        returns_of(np.array(means), trainings, 4, generator) for means in ((0.0, 2.0, 1.2, 3.0), (3.2, 2.0, 1.0, 0.2))
    ]
    taus = (0.6, 0.7, 0.8, 0.9)
    environments = [[a_cell({"train.tau": t}, y) for t, y in zip(taus, world, strict=True)] for world in worlds]
    found = sensitivity(environments, "ilql", rng(), draws=DRAWS)

    scaled, values = [], []
    for place, world in enumerate(worlds):
        means = world.mean(axis=(1, 2))
        low, high = np.percentile(means, [5, 95])
        spread = noise(covariance_of_means(world, trainings), 4 * 3)
        spread = np.roll(spread, place * 1000, axis=0)  # of other draws than the first's
        scaled.append((means + spread - low) / (high - low))
        values.append((means - low) / (high - low))
    gamma, value = np.stack(scaled, axis=1), np.stack(values)
    best, tuned = gamma.mean(axis=1).max(axis=1), gamma.max(axis=2).mean(axis=1)
    phi = value.max(axis=1).mean() - value.mean(axis=0).max()
    assert found.phi.value == pytest.approx(phi)
    assert_ends((found.phi.low, found.phi.high), hulls(phi, np.maximum(0, tuned - best)))
    assert_ends((found.tuned.low, found.tuned.high), hulls(float(value.max(axis=1).mean()), tuned))


def test_the_ends_of_the_width_of_beta() -> None:
    generator, betas = np.random.default_rng(3), (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
    trainings = [0] * len(betas)
    cells, covariances, curves = [], [], []
    for tau in (0.7, 0.8):
        world = returns_of(np.array([0.0, 0.8, 1.5, 1.9, 1.2, 0.3]), trainings, 3, generator)
        cells += [a_cell({"train.tau": tau, "decode.beta": b}, y) for b, y in zip(betas, world, strict=True)]
        covariances.append(covariance_of_means(world, trainings))
        curves.append(world.mean(axis=(1, 2)))
    tolerance, doses, fine = 0.5, np.arange(len(betas), dtype=float), np.linspace(0, 5, 1001)
    found = dose_responses(cells, rng(), tolerance=tolerance, draws=DRAWS)

    def walked(curve: np.ndarray, top: int) -> float:
        """The stretch around a place of `fine`, walked in small steps along the line between doses."""
        line = np.interp(fine, doses, curve)
        near = line >= line[top] - tolerance
        first = top - int(np.argmin(np.append(near[top::-1], False))) + 1
        last = top + int(np.argmin(np.append(near[top:], False))) - 1
        return float(fine[last] - fine[first])

    drawn = noise(np.mean(covariances, axis=0), 2 * 2)
    for each, curve in zip(found, curves, strict=True):
        assert each.width.value == pytest.approx(walked(curve, int(np.interp(fine, doses, curve).argmax())), abs=0.01)
        at: dict[float, tuple[float, float]] = {}
        for level, share in ((0.95, 0.8), (0.90, 0.7)):  # of curves that lie wholly between the two
            ends = []
            for place, top in enumerate(np.searchsorted(fine, doses)):
                apart = (drawn.T - drawn.T[place]).T
                error = np.sqrt((apart**2).mean(axis=0) - apart.mean(axis=0) ** 2)
                ratios = [np.abs(apart[:, x]) / error[x] for x in range(len(doses)) if x != place]
                by = np.sort(np.max(ratios, axis=0))[round(share * len(drawn))] * error
                if all(curve - curve[place] <= by):
                    less = curve - curve[place]
                    ends.append((walked(less - by, int(top)), walked(np.minimum(less + by, 0), int(top))))
            at[level] = (min(low for low, _ in ends), max(high for _, high in ends))
        assert_ends((each.width.low, each.width.high), at)


def test_the_ends_of_the_interquartile_mean() -> None:
    scores = [np.array([0.1, 0.5, 0.3]), np.array([0.9, 0.4, 0.6]), np.array([0.2, 0.8, 1.1])]
    found = iqm_interval(scores, rng(), draws=DRAWS)
    # All 27³ samples of three runs in three tasks, runs spread by √(3/2); of nine values the middle five count.
    spread = [each.mean() + np.sqrt(3 / 2) * (each - each.mean()) for each in scores]
    samples = [np.array(list(itertools.product(each, repeat=3))) for each in spread]
    i, j, k = (index.ravel() for index in np.meshgrid(*[np.arange(27)] * 3))
    drawn = np.sort(np.hstack([samples[0][i], samples[1][j], samples[2][k]]), axis=1)[:, 2:7].mean(axis=1)
    value = float(np.sort(np.concatenate(scores))[2:7].mean())
    # A run's influence: how the middle goes with the number of times that it is drawn.
    runs = np.array(list(itertools.product(range(3), repeat=3)))
    often = [[(runs[index] == run).sum(axis=1) for run in range(3)] for index in (i, j, k)]
    influence = np.array([[np.cov(times, drawn, ddof=0)[0, 1] for times in each] for each in often])
    parts = (influence**2).sum(axis=1)
    degrees = parts.sum() ** 2 / (parts**2 / 2).sum()
    skewness = np.sqrt(6) * (influence**3).sum() / parts.sum() ** 1.5
    moved = (1 / 6 + 1.96**2 / 3) * skewness * np.sqrt(parts.sum())
    factor = stats.t.ppf(0.975, degrees) / stats.norm.ppf(0.975)
    assert 3 < degrees < 5.9  # neither one task's nor all of them
    assert abs(moved) > 0.02
    ends = {
        level: (value + factor * (low - value) + min(0, moved), value + factor * (high - value) + max(0, moved))
        for level, (low, high) in percentiles(drawn).items()
    }
    assert found.value == pytest.approx(value)
    assert_ends((found.low, found.high), ends)


def test_the_ends_of_the_band_of_a_tuning_curve() -> None:
    generator, cells, seeds = np.random.default_rng(4), 3, 3
    returns = returns_of(np.array([0.0, 1.0, 1.6]), [0, 1, 2], seeds, generator)
    tune = returns.mean(axis=2) + generator.normal(0, 0.3, (cells, seeds))
    ones, scenes = np.ones(cells), np.arange(E)
    trained = Trained("x", tune.T, np.swapaxes(returns, 0, 1), scenes, np.arange(cells), ones, ones)
    found = tuning_curve(trained, rng(), draws=DRAWS)

    def kept(chosen: list[int]) -> np.ndarray:
        """T_k per scene with each training at its chosen seed, by every subset of k cells: shape (3, E)."""
        means = []
        for k in range(1, cells + 1):
            best = [max(own, key=lambda cell: tune[cell, chosen[cell]]) for own in itertools.combinations(range(3), k)]
            means.append(np.mean([returns[cell, chosen[cell]] for cell in best], axis=0))
        return np.array(means)

    whole = np.mean([kept([s] * cells) for s in range(seeds)], axis=0)
    curve, covariance = whole.mean(axis=1), np.cov(whole) / E
    for training in range(cells):  # at its seed s, the others at each seed that there is
        by_seed = []
        for s in range(seeds):
            choices = [[s if each == training else other for each in range(cells)] for other in range(seeds)]
            by_seed.append(np.mean([kept(chosen).mean(axis=1) for chosen in choices], axis=0))
        covariance += np.cov(np.array(by_seed).T) / seeds
    error = np.sqrt(np.diag(covariance))
    largest = np.sort(np.abs(noise(covariance, cells * (seeds - 1)) / error).max(axis=1))
    assert found.scores == pytest.approx(curve)
    assert found.low is not None
    assert found.high is not None
    for k in range(cells):
        half = {level: largest[round(level * (DRAWS - 1))] * error[k] for level in (0.95, 0.90)}
        ends = {level: (float(curve[k] - each), float(curve[k] + each)) for level, each in half.items()}
        assert_ends((found.low[k], found.high[k]), ends)


def test_the_ends_of_sigma_where_one_trainings_seeds_differ_more() -> None:
    # Four trainings, four seeds, hardly any noise of episodes; the seeds of the last differ six times as much.
    generator, count, seeds = np.random.default_rng(5), 4, 4
    shift = generator.normal(0, 1, (count, seeds)) * np.array([0.2, 0.2, 0.2, 1.2])[:, None]
    returns = np.array([0.0, 0.6, 1.2, 2.4])[:, None, None] + shift[:, :, None] + generator.normal(0, 0.01, (4, 4, E))
    value, *ends = sigma(returns, np.arange(count), np.arange(E), rng(), draws=DRAWS)

    means = returns.mean(axis=2)
    rest = means - means.mean(axis=1, keepdims=True)
    rest = rest - rest.mean(axis=0)
    v = (rest**2).sum(axis=1)
    even = min(1.0, v.mean() ** 2 / (v**2).mean() * (seeds + 1) / (seeds - 1))
    assert even < 0.8
    contrasts = count - 1
    seed_noise = (rest**2).sum() / (contrasts * (seeds - 1)) / seeds  # that of scenes is a ten-thousandth of it
    degrees = contrasts * (seeds - 1) * even
    generator = other_rng()
    n = seed_noise * degrees / generator.chisquare(degrees, DRAWS)
    x = generator.chisquare((contrasts - 1) * even, DRAWS) / even
    length = ((means.mean(axis=1) - means.mean()) ** 2).sum()
    left = length - n * x
    delta = np.sqrt(np.maximum(left, 0)) - np.sqrt(n) * generator.standard_normal(DRAWS)
    squared = np.where(left > 0, delta * np.abs(delta), left)
    assert float(value) == pytest.approx(np.sqrt((length - contrasts * seed_noise) / count), rel=1e-2)
    at = percentiles(np.sqrt(np.maximum(squared, 0) / count))
    assert_ends((float(ends[0]), float(ends[1])), at)
