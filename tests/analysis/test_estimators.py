from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.estimators import (
    Estimate,
    clustered_standard_error,
    mean_over_episodes,
    paired_difference,
    population_sigma,
    seed_variance_of_mean,
    standard_error_with_seeds,
)


def test_the_standard_error_counts_episodes_not_rows() -> None:
    # Means over the two seeds per episode: 2, 4, 6. Mean 4, sample sd 2, s.e. 2/√3; counting 6 rows would give 0.856.
    estimate = mean_over_episodes(np.array([[1.0, 3.0, 5.0], [3.0, 5.0, 7.0]]))
    assert estimate.standard_error == pytest.approx(2 / math.sqrt(3))
    assert (estimate.value, estimate.episodes, estimate.seeds) == (4.0, 3, 2)


def test_one_episode_has_a_mean_and_no_standard_error() -> None:
    assert mean_over_episodes(np.array([[3.0]])) == Estimate(3.0, None, episodes=1, seeds=1)


@pytest.mark.parametrize("shape", [(3,), (0, 3), (3, 0)])
def test_returns_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"returns must have shape \(seeds, episodes\)"):
        mean_over_episodes(np.zeros(shape))


def test_returns_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="returns must be finite, got 1 that are not"):
        mean_over_episodes(np.array([[1.0, math.nan]]))


def test_sigma_divides_by_the_number_of_cells() -> None:
    # Mean 2, squared deviations 1, 0, 1: √(2/3); the sample formula would give 1.
    assert population_sigma(np.array([1.0, 2.0, 3.0])) == pytest.approx(math.sqrt(2 / 3))


def test_one_cell_has_no_sigma() -> None:
    assert population_sigma(np.array([1.0])) is None


def test_clusters_of_one_give_the_ordinary_standard_error() -> None:
    values = np.array([1.0, 2.0, 6.0])  # mean 3, squared deviations 4 + 1 + 9 = 14, variance 7, s.e. √(7/3)
    assert clustered_standard_error(values, np.array(["a", "b", "c"])) == pytest.approx(math.sqrt(7 / 3))


def test_repeating_every_episode_of_a_scene_adds_no_information() -> None:
    # Two copies of the three values above, clustered: the same standard error √(7/3), not that of six values.
    values, scenes = np.array([1.0, 2.0, 6.0] * 2), np.array(["a", "b", "c"] * 2)
    assert clustered_standard_error(values, scenes) == pytest.approx(math.sqrt(7 / 3))


def test_one_cluster_has_no_standard_error() -> None:
    assert clustered_standard_error(np.array([1.0, 2.0]), np.array(["a", "a"])) is None


def test_clusters_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"clusters must have shape \(2,\), got \(1,\)"):
        clustered_standard_error(np.array([1.0, 2.0]), np.array(["a"]))


def test_the_variance_of_seeds_is_that_of_the_crossed_model() -> None:
    # Row means 1 and 4, column means 2 and 3, overall 2.5; residuals ±0.5.
    # MS_seeds = 2·4.5 = 9, MS_residual = 4·0.25/1 = 1, so (9 − 1)/(2·2) = 2.
    assert seed_variance_of_mean(np.array([[0.0, 2.0], [4.0, 4.0]])) == pytest.approx(2.0)


def test_seeds_that_differ_by_noise_only_add_no_variance() -> None:
    assert seed_variance_of_mean(np.array([[0.0, 2.0], [2.0, 0.0]])) == 0.0  # row means are equal, residuals are not


def test_the_error_with_seeds_joins_both_sources() -> None:
    # Column means 2 and 3: variance 0.5, over 2 episodes 0.25. With the 2 above: √2.25 = 1.5.
    assert standard_error_with_seeds(np.array([[0.0, 2.0], [4.0, 4.0]])) == pytest.approx(1.5)


def test_one_seed_says_nothing_about_seeds() -> None:
    assert standard_error_with_seeds(np.array([[0.0, 2.0, 1.0]])) is None


def test_the_error_with_seeds_is_that_of_the_simulated_mean() -> None:
    # y = a_s + b_e + noise with variances 1, 4, 1, S = 4, E = 50: var of the mean 1/4 + 4/50 + 1/200 = 0.335.
    rng = np.random.default_rng(0)
    worlds = rng.normal(size=(4000, 4, 1)) + 2 * rng.normal(size=(4000, 1, 50)) + rng.normal(size=(4000, 4, 50))
    squares = [(standard_error_with_seeds(world) or 0.0) ** 2 for world in worlds]
    assert np.mean(squares) == pytest.approx(0.335, rel=0.04)


def test_pairing_removes_what_the_episodes_share() -> None:
    # Differences 1, 1, 2, 0: mean 1, sample variance 2/3, s.e. √(2/3/4) = 0.408, though the episodes spread over 30.
    base = np.array([[0.0, 10.0, 20.0, 30.0]])
    found = paired_difference(base + np.array([[1.0, 1.0, 2.0, 0.0]]), base, np.array(list("abcd")))
    assert found.value == pytest.approx(1.0)
    assert found.over_episodes == pytest.approx(math.sqrt(2 / 3 / 4))
    assert (found.with_seeds, found.episodes, found.scenes) == (None, 4, 4)


def test_a_paired_difference_averages_the_seeds_of_each_side_first() -> None:
    # First: means over two seeds 2 and 4. Second, one seed: 1 and 1. Differences 1 and 3: mean 2, sd √2, s.e. 1.
    found = paired_difference(np.array([[1.0, 5.0], [3.0, 3.0]]), np.array([[1.0, 1.0]]), np.array(["a", "b"]))
    assert found.value == 2.0
    assert found.over_episodes == pytest.approx(1.0)


def test_the_seeds_of_both_sides_add_to_the_error_of_a_difference() -> None:
    # Each side adds a seed variance of 2 (see above). The second is the first less 1 and 3, so that the differences
    # have s.e. 1 over episodes: √(1 + 2 + 2).
    first = np.array([[0.0, 2.0], [4.0, 4.0]])
    found = paired_difference(first, first - np.array([[1.0, 3.0]]), np.array(["a", "b"]))
    assert found.with_seeds == pytest.approx(math.sqrt(5))


def test_episodes_of_one_scene_are_a_cluster_in_a_difference() -> None:
    # Differences 1, 1, 3, 3 of two scenes: mean 2; sums per scene −2 and 2: √(2·8)/4 = 1. Over episodes √(4/3/4).
    found = paired_difference(np.array([[1.0, 1.0, 3.0, 3.0]]), np.zeros((1, 4)), np.array(["a", "a", "b", "b"]))
    assert found.scenes == 2
    assert found.over_scenes == pytest.approx(1.0)
    assert found.over_episodes == pytest.approx(math.sqrt(1 / 3))


def test_the_error_with_seeds_starts_from_the_larger_of_episodes_and_scenes() -> None:
    # The same differences at two equal seeds a side, which add nothing: 1 over scenes, √(1/3) over episodes.
    first, second = np.array([[1.0, 1.0, 3.0, 3.0]] * 2), np.zeros((2, 4))
    assert paired_difference(first, second, np.array(["a", "a", "b", "b"])).with_seeds == pytest.approx(1.0)
    # Scenes a: 1, 3 and b: 1, 3 cancel within: 0 over scenes, √(1/3) over episodes.
    first = np.array([[1.0, 3.0, 1.0, 3.0]] * 2)
    found = paired_difference(first, second, np.array(["a", "a", "b", "b"]))
    assert found.with_seeds == pytest.approx(math.sqrt(1 / 3))


def test_differences_of_other_episodes_are_refused() -> None:
    with pytest.raises(ValueError, match="must be of the same episodes, got 2 and 3"):
        paired_difference(np.zeros((1, 2)), np.zeros((1, 3)), np.array(["a", "b"]))


@pytest.mark.parametrize(
    ("value", "error", "episodes", "wrong"),
    [
        (math.nan, 0.1, 2, "an estimate must be finite"),
        (1.0, -0.1, 2, "a standard error must be finite and not negative"),
        (1.0, 0.1, 0, "at least one episode"),
    ],
)
def test_an_estimate_refuses_to_be_wrong(value: float, error: float, episodes: int, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        Estimate(value, error, episodes, seeds=1)
