from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.paired import bootstrap_difference, detectable, holm, p_value, paired_t

TWO = np.array(["a", "b"])


def flat(*scores: float) -> np.ndarray:
    """Returns without noise of episodes, shape (S, 2)."""
    return np.repeat(np.array(scores)[:, None], 2, axis=1)


def test_the_seeds_of_both_sides_add_up_with_welchs_degrees() -> None:
    # Variances 2 and 8 at two seeds each: 1 + 4, and 5²/(1²/1 + 4²/1) = 25/17 degrees.
    value, error, degrees = paired_t(flat(1.0, 3.0), flat(0.0, 4.0), TWO)
    assert (value, error, degrees) == pytest.approx((0.0, math.sqrt(5), 25 / 17))


def test_decodings_of_one_training_are_paired_by_seed() -> None:
    # Differences 1 and 3 at the two seeds: variance 2, over 2 seeds 1, one degree.
    value, error, degrees = paired_t(flat(5.0, 9.0), flat(4.0, 6.0), TWO, one_training=True)
    assert (value, error, degrees) == pytest.approx((2.0, 1.0, 1.0))


def test_scenes_that_both_sides_share_cancel() -> None:
    scenes = np.array([0.0, 100.0])
    plain, moved = paired_t(flat(1.0, 3.0), flat(0.0, 4.0), TWO), paired_t(
        flat(1.0, 3.0) + scenes, flat(0.0, 4.0) + scenes, TWO
    )  # fmt: skip
    assert moved == pytest.approx(plain)


def test_a_scene_that_is_something_else_to_each_side_counts() -> None:
    # No noise of seeds. Differences per scene 0 and 4: variance 8, over 2 scenes 4.
    value, error, degrees = paired_t(flat(1.0, 1.0) + np.array([0.0, 4.0]), flat(1.0, 1.0), TWO)
    assert (value, error, degrees) == pytest.approx((2.0, 2.0, 1.0))


def test_noise_of_episodes_is_not_counted_twice() -> None:
    # Each side has M = 4.5 and R/S = .25 (see test_variance.py). Episode means 2, 3 against 3, 2: differences ∓1,
    # T = 2/2 = 1, of which .25 + .25 are noise of episodes that M holds already: 4.5/2 + 4.5/2 + .5.
    first = np.array([[0.0, 2.0], [4.0, 4.0]])
    assert paired_t(first, first[:, ::-1], TWO)[1] == pytest.approx(math.sqrt(4.5 + 0.5))
    assert paired_t(first, first, TWO)[1] == pytest.approx(math.sqrt(4.5))


def test_p_is_that_of_a_t() -> None:
    assert p_value(2.0, 2.0, 1.0) == pytest.approx(0.5)  # Cauchy: P(|T| ≥ 1)
    assert (p_value(0.0, 0.0, 1.0), p_value(1.0, 0.0, 1.0)) == (None, None)  # no spread: nothing to measure it by


def test_holm_steps_down_and_never_back() -> None:
    # Sorted .01·3, .02·2 = .04, .03·1 = .03, raised to .04.
    assert holm([0.03, 0.01, 0.02]) == pytest.approx((0.04, 0.03, 0.04))
    assert holm([0.6, 0.5]) == (1.0, 1.0)
    assert holm([]) == ()


def test_holm_refuses_what_is_no_probability() -> None:
    with pytest.raises(ValueError, match=r"a p-value must be in \[0, 1\], got 1\.5"):
        holm([0.1, 1.5])


def test_what_can_be_detected_is_level_and_power_in_standard_errors() -> None:
    assert detectable(1.0, 1e9) == pytest.approx(1.95996 + 0.84162, rel=1e-3)
    assert detectable(2.0, 1.0) == pytest.approx(2 * (12.7062 + 1.37638), rel=1e-4)  # Cauchy: tan(.3 π) = 1.37638


def test_without_noise_the_bootstrap_has_no_width() -> None:
    found = bootstrap_difference(flat(3.0, 3.0), flat(1.0, 1.0), TWO, np.random.default_rng(0), replicates=50)
    assert found == pytest.approx((2.0, 2.0))


def test_the_bootstrap_draws_scenes_once_for_both_sides() -> None:
    scenes = np.array([0.0, 100.0])
    rng = np.random.default_rng(0)
    assert bootstrap_difference(flat(3.0) + scenes, flat(1.0) + scenes, TWO, rng, replicates=50) == (2.0, 2.0)


def test_the_bootstrap_draws_a_scene_with_all_its_episodes() -> None:
    # Scene a has one episode, b three: drawn twice, a is 8 of 2, b 0 of 6, and one each 8 of 4 → 8, 0 and 2.
    first, scenes = np.array([[8.0, 0.0, 0.0, 0.0]]), np.array(["a", "b", "b", "b"])
    found = bootstrap_difference(first, np.zeros((1, 4)), scenes, np.random.default_rng(0), replicates=400)
    assert found == (0.0, 8.0)


def test_the_bootstrap_draws_the_seeds_of_one_training_together() -> None:
    first, second = flat(1.0, 3.0), flat(0.0, 2.0)  # 1 apart at either seed
    rng = np.random.default_rng(0)
    assert bootstrap_difference(first, second, TWO, rng, one_training=True, replicates=50) == pytest.approx((1.0, 1.0))
    # Drawn apart, the two means lie 0, 1 or 2 from each other around 1, and two seeds are spread by √2.
    apart = 2 * math.sqrt(2)
    assert bootstrap_difference(first, second, TWO, rng, replicates=400) == pytest.approx((1 - apart, 1 + apart))


def test_episodes_must_be_common() -> None:
    with pytest.raises(ValueError, match="paired returns must be of the same episodes"):
        paired_t(np.zeros((2, 2)), np.zeros((2, 3)), TWO)
