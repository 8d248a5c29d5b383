from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.estimators import Floats
from analysis.variance import evenness, noise_of, sigma, strata

TWO, FOUR = np.array(["a", "b"]), np.array(["a", "a", "b", "b"])


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_seeds_and_scenes_have_parts_of_their_own() -> None:
    # Seed means 2 and 6: M = 8. Episode means 3 and 5: T = variance 2 over 2 episodes = 1. Nothing is left: R = 0.
    noise = noise_of(np.array([[[1.0, 3.0], [5.0, 7.0]]]), TWO)
    assert (noise.seed, noise.common, noise.rest) == pytest.approx((8.0, 1.0, 0.0))
    assert noise.variance(1 / 2) == pytest.approx(5.0)
    assert noise.degrees(1 / 2) == pytest.approx(25 / 17)  # (4 + 1)² / (4²/1 + 1²/1)


def test_noise_of_episodes_is_not_counted_twice() -> None:
    # Seed means 1 and 4: M = 4.5, the noise of episodes within it. Episode means 2 and 3: T = .25; what is left is ±.5:
    # R/S = (1/1)/2/2 = .25. So nothing is common: N = 4.5/2, the square of the 1.5 of `standard_error_with_seeds`.
    noise = noise_of(np.array([[[0.0, 2.0], [4.0, 4.0]]]), TWO)
    assert (noise.common, noise.rest, noise.scene) == pytest.approx((0.25, 0.25, 0.0))
    assert noise.variance(1 / 2) == pytest.approx(2.25)


def test_repeating_every_episode_of_a_scene_changes_nothing() -> None:
    once, twice = np.array([[[1.0, 3.0], [5.0, 6.0]]]), np.array([[[1.0, 1.0, 3.0, 3.0], [5.0, 5.0, 6.0, 6.0]]])
    a, b = noise_of(once, TWO), noise_of(twice, FOUR)
    assert (b.seed, b.common, b.rest) == pytest.approx((a.seed, a.common, a.rest))


def test_the_order_of_episodes_does_not_matter() -> None:
    returns = np.array([[[1.0, 2.0, 3.0, 5.0], [5.0, 4.0, 6.0, 9.0]]])
    mixed = [2, 0, 3, 1]
    assert noise_of(returns[..., mixed], FOUR[mixed]).common == pytest.approx(noise_of(returns, FOUR).common)


def cells(*means: float) -> Floats:
    """Cells of one seed and one episode."""
    return np.array(means)[:, None, None]


def test_strata_are_trainings_from_the_mean_of_cells_and_decodings_from_their_training() -> None:
    # Training t has 1 and 3, u has 8: means 2, 2 and 8 of the trainings, 4 of all.
    (between, p), (within, q) = strata(cells(1.0, 3.0, 8.0), np.array(["t", "t", "u"]))
    assert between[:, 0, 0] == pytest.approx([-2.0, -2.0, 4.0])
    assert within[:, 0, 0] == pytest.approx([-1.0, 1.0, 0.0])
    assert (p, q) == (1, 1)


def test_strata_have_the_lengths_of_orthonormal_contrasts() -> None:
    trainings = np.array([2, 0, 1, 1, 2, 2, 5])
    member = (np.unique(trainings)[:, None] == trainings).astype(float)
    inside = member.T @ np.diag(1 / member.sum(axis=1)) @ member  # onto what is alike within each training
    projections = inside - 1 / 7, np.eye(7) - inside
    y = rng().normal(size=(7, 3, 4))
    parts = strata(y, trainings)
    for (deviations, p), projection in zip(parts, projections, strict=True):
        values, vectors = np.linalg.eigh(projection)
        q = vectors[:, values > 0.5].T  # orthonormal rows of what the projection keeps
        assert p == len(q)
        assert deviations == pytest.approx(np.einsum("kl,lse->kse", projection, y))
        ours, theirs = noise_of(deviations, FOUR, rank=p), noise_of(np.einsum("pk,kse->pse", q, y), FOUR)
        assert (ours.seed, ours.common, ours.rest) == pytest.approx((theirs.seed, theirs.common, theirs.rest))
        assert (ours.seed_degrees, ours.common_degrees, ours.rest_degrees) == (2 * p, p, 2 * p)
    assert sum(p for _, p in parts) == 6


def test_strata_of_whole_numbers_are_not_rounded() -> None:
    ((within, _),) = strata(np.array([0, 1])[:, None, None], np.zeros(2))
    assert within[:, 0, 0] == pytest.approx([-0.5, 0.5])


def test_one_decoding_each_leaves_one_stratum() -> None:
    for trainings in (np.arange(4), np.zeros(4)):
        ((deviations, p),) = strata(cells(1.0, 2.0, 3.0, 6.0), trainings)
        assert deviations[:, 0, 0] == pytest.approx([-2.0, -1.0, 0.0, 3.0])
        assert p == 3


def test_without_noise_sigma_is_the_population_one() -> None:
    means = np.array([1.0, 2.0, 3.0])  # √(2/3): divided by K
    value, low, high = sigma(np.broadcast_to(means[:, None, None], (3, 2, 2)), np.arange(3), TWO, rng(), draws=50)
    assert (value, low, high) == pytest.approx((math.sqrt(2 / 3),) * 3)


def test_noise_is_taken_out_of_sigma() -> None:
    # Cells at 0 and 4, seeds at ±1 of them against each other, no noise of episodes: u = 4/√2, u_s = (4 ± 2)/√2, M = 4,
    # N = M/2 = 2. σ² = (u² − N)/K = (8 − 2)/2 = 3, where the sd of the means is 2.
    scores = np.array([[-1.0, 1.0], [5.0, 3.0]])
    returns = np.repeat(scores[..., None], 2, axis=-1)
    assert sigma(returns, np.arange(2), TWO, rng(), draws=10)[0] == pytest.approx(math.sqrt(3))


def test_cells_that_differ_less_than_their_noise_have_sigma_0() -> None:
    returns = np.repeat(np.array([[-1.0, 1.0], [1.0, -1.0]])[..., None], 2, axis=-1)
    value, low, _ = sigma(returns, np.arange(2), TWO, rng(), draws=200)
    assert (value, low) == (0.0, 0.0)


@pytest.mark.parametrize("shape", [(1, 1, 5), (1, 3, 1)], ids=["scenes", "seeds"])
def test_what_scenes_and_seeds_do_to_all_cells_alike_cancels(shape: tuple[int, ...]) -> None:
    returns, scenes = rng().normal(size=(4, 3, 5)), np.arange(5)
    shifted = returns + 10 * rng().normal(size=shape)
    plain, moved = (sigma(each, np.arange(4), scenes, rng(), draws=100) for each in (returns, shifted))
    assert moved == pytest.approx(plain)


def test_a_scene_that_means_something_else_to_each_cell_is_noise_of_theirs() -> None:
    # Truth: all cells equal. Scenes move each cell by 3 on its own, at all seeds alike: 9/4 in every cell's mean, which
    # neither M nor more seeds would show. Without T the mean of σ² would be 9/4·3/4 = 1.69 of four cells.
    draws = 3 * rng().normal(size=(2000, 4, 1, 4)) + np.zeros((1, 1, 2, 1))
    ((deviations, p),) = strata(draws, np.arange(4))
    noise = noise_of(deviations, np.arange(4), rank=p)
    squares = np.square(deviations.mean(axis=(-1, -2))).sum(axis=-1)
    assert np.mean(squares - 3 * noise.variance(1 / 2)) / 4 == pytest.approx(0.0, abs=0.15)  # s.e. of the mean 0.05
    assert np.mean(squares) / 4 == pytest.approx(1.69, abs=0.15)


def test_noise_is_even_where_cells_share_it_and_uneven_where_one_has_it_all() -> None:
    alike = rng().normal(size=(30, 400))
    assert evenness(alike) == pytest.approx(1.0, abs=0.02)
    one = alike * np.array([100.0] + [0.0] * 29)[:, None]  # of K cells one: (v/K)²/(v²/K) = 1/K, and 0.05 is the floor
    assert evenness(one) == pytest.approx(0.05)


def test_evenness_is_of_what_is_left_beside_cells_and_seeds() -> None:
    # Variances 32 and four of 2 (times S − 1): mean 8, of squares 208; 8²/208, times 4/2 for their own noise.
    scores = np.array([[4.0, -4.0, 0.0], *[[-1.0, 1.0, 0.0]] * 4])
    assert evenness(scores) == pytest.approx(2 * 64 / 208)
    assert evenness(scores + np.array([0.0, 100.0, 0.0])) == pytest.approx(2 * 64 / 208)


@pytest.mark.parametrize(("shape", "scenes"), [((1, 1, 2), TWO), ((1, 2, 2), np.array(["a", "a"]))])
def test_one_seed_or_one_scene_has_no_noise_to_measure(shape: tuple[int, ...], scenes: np.ndarray) -> None:
    with pytest.raises(ValueError, match="noise needs at least two training seeds and two scenes"):
        noise_of(np.zeros(shape), scenes)


def test_scenes_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"scenes must have shape \(3,\), got \(2,\)"):
        noise_of(np.zeros((1, 2, 3)), TWO)
