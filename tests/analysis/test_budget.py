from __future__ import annotations

import itertools
from math import comb

import numpy as np
import pytest

from analysis.budget import Trained, crossings, expected_best, expected_seconds, tuning_curve
from analysis.estimators import Estimate, Floats


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def trained(tune: Floats, report: Floats, trainings: list[int] | None = None) -> Trained:
    cells = tune.shape[1]
    returns = np.stack([report - 1, report + 1], axis=2)
    of = np.arange(cells) if trainings is None else np.array(trainings)
    return Trained("ilql", tune, returns, np.array([0, 1]), of, np.full(cells, 10.0), np.full(cells, 1.0))


def test_the_curve_is_the_mean_over_all_subsets() -> None:
    tune, report = rng().normal(size=6), rng().normal(size=6) + 1
    for k in range(1, 7):
        kept = [report[max(chosen, key=lambda i: tune[i])] for chosen in itertools.combinations(range(6), k)]
        assert expected_best(tune, report)[k - 1] == pytest.approx(np.mean(kept))


def test_the_weight_of_a_rank_is_the_share_of_subsets_it_wins() -> None:
    table = expected_best(np.array([5.0, 1.0, 3.0, 2.0]), np.eye(4))  # ranks 4, 1, 3, 2
    assert table[1] == pytest.approx([comb(3, 1) / 6, 0, comb(2, 1) / 6, comb(1, 1) / 6])
    np.testing.assert_allclose(table.sum(axis=1), 1.0)


def test_equal_tune_scores_share_what_they_win() -> None:
    # Of three pairs {a, b} is a tie; a and b win against c: 1/2 + 1 each of 3.
    assert expected_best(np.array([1.0, 1.0, 0.0]), np.eye(3))[1] == pytest.approx([0.5, 0.5, 0.0])


def test_no_subset_is_counted_as_a_sample_with_repetition_would() -> None:
    # Of 0 and 1 two evaluations always keep the 1. With repetition (Dodge's V-statistic) a quarter would keep the 0.
    assert expected_best(np.array([0.0, 1.0]), np.array([0.0, 1.0]))[1] == pytest.approx(1.0)


def test_weights_that_cells_share_are_paid_for_once() -> None:
    # Cells a, b share a training of 10 s; c has its own of 10. One evaluation: 1 + 10. All three: 3 + 20.
    # Two of three: {a, b} costs 10 for training, {a, c} and {b, c} 20: 2 + 50/3.
    found = expected_seconds(trained(np.zeros((1, 3)), np.zeros((1, 3)), [0, 0, 1]))
    assert found == pytest.approx([11, 2 + 50 / 3, 23])


def test_how_many_evaluations_until_the_bar_is_passed() -> None:
    # One of five cells is above 0, with the best tune score: after k evaluations it is kept with probability k/5.
    scores = np.tile([-9.0, -9.0, -9.0, -9.0, 9.0], (3, 1))
    half, most = crossings(trained(scores, scores), Estimate(0.0, 0.1, 2, 1))
    assert (half.evaluations, most.evaluations) == (3, 5)
    assert half.seconds == pytest.approx(33.0)
    assert (half.low or 0) <= 3 <= (half.high or 5)


def test_a_bar_that_no_cell_passes_is_never_passed() -> None:
    scores = rng().normal(size=(3, 6))
    half, _ = crossings(trained(scores, scores), Estimate(50.0, 0.1, 2, 1))
    assert (half.evaluations, half.low, half.high, half.seconds) == (None, None, None, None)


def test_a_band_holds_its_curve_and_one_seed_has_none() -> None:
    scores = rng().normal(size=(3, 6))
    curve = tuning_curve(trained(scores, scores), rng())
    assert curve.low is not None
    assert curve.high is not None
    assert all(a < b < c for a, b, c in zip(curve.low, curve.scores, curve.high, strict=True))
    alone = tuning_curve(trained(scores[:1], scores[:1]), rng())
    assert (alone.low, alone.why) == (None, "too few seeds")


def test_the_band_of_one_evaluation_is_wide_by_what_seeds_differ() -> None:
    # At k = 1 the curve is the mean over cells: its variance is that of 3 seeds of each of 40 cells, 1/120 without
    # episodes; √(1/120) = 0.091, and the simultaneous factor is at least 1.96 and at most some 3.5.
    cells = rng().normal(size=(3, 40))
    quiet = Trained("x", cells, cells[..., None], np.array([0]), np.arange(40), np.ones(40), np.ones(40))
    curve = tuning_curve(quiet, rng())
    assert curve.low is not None
    assert curve.high is not None
    assert 1.9 * 0.091 * 0.85 < (curve.high[0] - curve.low[0]) / 2 < 3.5 * 0.091 * 1.15
