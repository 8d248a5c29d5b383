from __future__ import annotations

import numpy as np
import pytest

from analysis.honest import (
    best_checkpoint,
    chosen_on_other_scenes,
    leave_one_seed_out,
    scene_folds,
    tuned_decodings,
    tuned_max,
)


def scores(values: list[list[float]], episodes: int = 2) -> np.ndarray:
    """Returns without noise of episodes, shape (K, S, E), of scores (K, S)."""
    return np.repeat(np.array(values)[..., None], episodes, axis=-1)


LUCKY = scores([[0.0, 9.0, 0.0], [2.0, 2.0, 3.0]])
"""Cell 0 has one lucky seed and the higher mean, 3 against 7/3."""


def test_a_cell_is_scored_at_the_seed_that_did_not_choose_it() -> None:
    # Without seed 0: means 4.5 and 2.5, so cell 0, which has 0 there. Without 1: 0 and 2.5, cell 1: 2. Without 2: 4.5
    # and 2, cell 0: 0.
    held = leave_one_seed_out(LUCKY)
    assert held.chosen.tolist() == [0, 1, 0]
    assert held.returns.mean(axis=-1).tolist() == [0.0, 2.0, 0.0]


def test_the_tuned_score_is_the_mean_of_what_was_held_out() -> None:
    assert tuned_max(LUCKY, np.arange(2))[0] == pytest.approx(2 / 3)


def test_one_seed_cannot_say_how_good_a_tuned_method_is() -> None:
    with pytest.raises(ValueError, match="choosing on other training seeds needs at least two, got 1"):
        leave_one_seed_out(scores([[1.0], [2.0]]))


def test_a_single_cell_has_an_ordinary_t_interval() -> None:
    # Scores 1, 2, 3: sd 1, s.e. 1/√3, t at two degrees 4.3027.
    value, half = tuned_max(scores([[1.0, 2.0, 3.0]]), np.arange(2))
    assert value == pytest.approx(2.0)
    assert half == pytest.approx(4.302652730 / np.sqrt(3))


def test_scenes_have_their_own_degrees_where_there_is_one_cell() -> None:
    # Seeds 0 and 2, and on three scenes −1, 0 and 1 beside: M = 2, M/S = 1; T = 1/3, R = 0. t at one degree 12.7062, at
    # two 4.3027: √(12.7062²·1 + 4.3027²/3).
    returns = np.array([[0.0], [2.0]]) + np.array([-1.0, 0.0, 1.0])
    value, half = tuned_max(returns[None], np.arange(3))
    assert value == pytest.approx(1.0)
    assert half == pytest.approx(np.sqrt(12.70620474**2 + 4.302652730**2 / 3))


def test_seed_noise_is_pooled_over_cells_and_folds_are_not_independent() -> None:
    # Variances of the cells 27 and 1/3: pooled 13.67, above that of the held-out 0, 2, 0, 4/3.
    # f = 1/3 + .6/2 = .6333, 2·2 degrees: t = 2.7764.
    _, half = tuned_max(LUCKY, np.arange(2))
    assert half == pytest.approx(2.776445105 * np.sqrt((27 + 1 / 3) / 2 * (1 / 3 + 0.3)))


def test_held_out_scores_that_vary_more_than_seeds_do_count() -> None:
    # Cell 0 is chosen whichever seed is left out, and has 10, 10, 70: variance 1200, where the other cell's is 0.
    _, half = tuned_max(scores([[10.0, 10.0, 70.0], [0.0, 0.0, 0.0]]), np.arange(2))
    assert half == pytest.approx(2.776445105 * np.sqrt(1200 * (1 / 3 + 0.3)))


def test_no_scene_is_in_two_folds() -> None:
    assert scene_folds(np.array(["b", "a", "b", "c"]), 2).tolist() == [1, 0, 1, 0]  # a, b, c are dealt 0, 1, 0
    assert scene_folds(np.array(["b", "a"]), 5).tolist() == [1, 0]


def test_what_is_best_on_the_other_scenes_is_scored_on_these() -> None:
    # Two scenes, two options: on scene a option 0 is best, on b option 1. Chosen on the other: 1 on a, 0 on b.
    returns = np.array([[5.0, 0.0], [1.0, 2.0]])
    assert chosen_on_other_scenes(returns, np.array(["a", "b"])).tolist() == [1.0, 0.0]


def test_the_order_of_addition_breaks_no_tie() -> None:
    # Both have .6 on either scene; .1 + .2 + .3 is 1e-16 more. The first of equals is chosen.
    returns = np.array([[0.3, 0.2, 0.1] * 2, [0.1, 0.2, 0.3] * 2])
    assert returns[1, :3].sum() > returns[0, :3].sum()
    assert chosen_on_other_scenes(returns, np.repeat(["a", "b"], 3)).tolist() == returns[0].tolist()


def test_a_checkpoint_is_scored_over_scenes_with_folds_that_are_not_independent() -> None:
    # One model: returns 1 and 3 of two scenes: s.e. 1, t at one degree. Two equal ones: √1.6 of that.
    one = np.array([[1.0, 3.0]])
    assert best_checkpoint(one, np.arange(2)) == pytest.approx((2.0, 12.7062047))
    assert best_checkpoint(np.repeat(one, 2, axis=0), np.arange(2))[1] == pytest.approx(12.7062047 * np.sqrt(1.6))


def test_one_scene_leaves_nothing_to_choose_by() -> None:
    with pytest.raises(ValueError, match="choosing on other scenes needs at least two, got one"):
        chosen_on_other_scenes(np.zeros((2, 3)), np.array(["a"] * 3))


def test_every_checkpoint_is_tuned_for_itself() -> None:
    # Training t: at seed 0 its second decoding is better on both scenes, at seed 1 its first. Training u has one.
    returns = np.array([[[1.0, 1.0], [4.0, 4.0]], [[2.0, 2.0], [3.0, 3.0]], [[7.0, 8.0], [9.0, 9.0]]])
    tuned = tuned_decodings(returns, np.array(["t", "t", "u"]), np.array(["a", "b"]))
    assert tuned.tolist() == [[[2.0, 2.0], [4.0, 4.0]], [[7.0, 8.0], [9.0, 9.0]]]
