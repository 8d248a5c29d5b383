from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta, t, trim_mean

from analysis.across import (
    effective_degrees,
    gap_interval,
    improvement_draws,
    improvement_interval,
    iqm,
    iqm_draws,
    iqm_interval,
    mean_draws,
    optimality_gap,
    probability_of_improvement,
    profile,
    profile_interval,
    skew_shift,
    spread_out,
)
from analysis.estimators import Floats


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def columns(matrix: Floats) -> list[Floats]:
    return list(matrix.T)


def test_the_middle_half_is_rliables_for_any_number_of_runs() -> None:
    # Theirs trims a quarter at either end of the flattened matrix, rounded down, by SciPy.
    for shape in ((5, 26), (3, 2), (2, 2), (1, 1), (4, 1)):
        matrix = rng().normal(size=shape)
        assert iqm(columns(matrix)) == pytest.approx(trim_mean(matrix, 0.25, axis=None))


def test_a_task_keeps_its_weight_where_runs_are_missing() -> None:
    # Task 1 once at 0, task 2 three times at 3, 6, 9; each of its runs weighs 1/6. ⌊4/4⌋/4 = 1/4 is cut at either end:
    # 0 keeps 1/2 − 1/4, 3 keeps 1/6, and of 6 and 9 the upper quarter goes: 9 wholly, of 6 1/12 of 1/6.
    assert iqm([np.array([0.0]), np.array([3.0, 6.0, 9.0])]) == pytest.approx(
        (0 * 3 / 12 + 3 * 2 / 12 + 6 * 1 / 12) / 0.5
    )


def test_the_gap_counts_nothing_above_gamma() -> None:
    # Task 1: 1 − (0.5 + 1)/2 = 0.25; task 2: 0. Their mean is 0.125.
    assert optimality_gap([np.array([0.5, 3.0]), np.array([1.0, 2.0])]) == pytest.approx(0.125)


def test_improvement_is_a_win_or_half_a_tie() -> None:
    # Of four pairs 2 > 1, 2 < 3, 3 > 1 and 3 = 3: 2.5/4; and 1 in the second task.
    first, second = [np.array([2.0, 3.0]), np.array([1.0])], [np.array([1.0, 3.0]), np.array([0.0])]
    assert probability_of_improvement(first, second) == pytest.approx((2.5 / 4 + 1) / 2)


def test_a_profile_is_strictly_above_its_threshold() -> None:
    # rliable's score distribution is the mean of scores > τ.
    assert profile([np.array([0.0, 1.0]), np.array([1.0])], np.array([0.0, 0.5, 1.0])) == pytest.approx(
        [0.75, 0.75, 0.0]
    )


@pytest.mark.parametrize("runs", [3, 5, 7])
def test_draws_are_those_of_resampling_runs_within_tasks(runs: int) -> None:
    matrix = rng(1).normal(size=(runs, 4))
    slow = rng(2).integers(0, runs, (40_000, runs, 4))
    expected = trim_mean(matrix[slow, np.arange(4)].reshape(40_000, -1), 0.25, axis=1)
    drawn = iqm_draws(columns(matrix), rng(3), 40_000)
    np.testing.assert_allclose(
        np.quantile(drawn, [0.025, 0.5, 0.975]), np.quantile(expected, [0.025, 0.5, 0.975]), atol=0.02
    )
    means = mean_draws(columns(matrix), rng(3), 40_000)
    assert means.var() == pytest.approx(matrix.var(axis=0).mean() / (4 * runs), rel=0.05)


def test_draws_of_improvement_have_their_estimate_for_mean() -> None:
    first, second = columns(rng(1).normal(size=(4, 3))), columns(rng(2).normal(0.3, 1, size=(5, 3)))
    assert improvement_draws(first, second, rng(), 20_000).mean() == pytest.approx(
        probability_of_improvement(first, second), abs=0.01
    )


def test_a_generator_decides_an_interval() -> None:
    scores = columns(rng().normal(size=(5, 6)))
    assert iqm_interval(scores, rng(7), draws=500) == iqm_interval(scores, rng(7), draws=500)
    assert iqm_interval(scores, rng(7), draws=500) != iqm_interval(scores, rng(8), draws=500)


def test_runs_are_spread_by_what_resampling_takes_away() -> None:
    # 0, 3, 6 around 3: variance 6 as drawn from, 9 of the sample. √(3/2)·3 = 3.674 from the mean gives it back.
    (spread,) = spread_out([np.array([0.0, 3.0, 6.0])])
    assert spread.var(ddof=0) == pytest.approx(9.0)


def test_degrees_of_freedom_are_those_of_the_tasks_that_decide() -> None:
    # Parts 2, 2 of three runs each: 4²/(2²/2 + 2²/2) = 4. Parts 2, 0: 2. Parts 2, 8 of three and five: 10²/(2 + 16).
    one, twice = np.array([1.0, -1.0, 0.0]), np.array([2.0, 0.0, 0.0, 0.0, -2.0])
    assert effective_degrees([one, -one]) == pytest.approx(4.0)
    assert effective_degrees([one, 0 * one]) == pytest.approx(2.0)
    assert effective_degrees([one, twice]) == pytest.approx(100 / 18)


def test_skewed_runs_move_an_end_by_johnsons_t() -> None:
    # The mean of 0, 0, 0, 4, spread by √(4/3): 1/4 of −1, −1, −1, 3 times that. κ₂ = s²/n = 4/4 = 1. The third
    # k-statistic is n/((n − 1)(n − 2))·Σ d³ = 4/6·24 = 16, so κ₃ = 16/n² = 1, and the shift (1 + 2z²)/6.
    spread = np.array([-1.0, -1.0, -1.0, 3.0]) * np.sqrt(4 / 3)
    assert skew_shift([spread / 4]) == pytest.approx((1 + 2 * 1.959964**2) / 6)
    assert skew_shift([-spread / 4]) == pytest.approx(-(1 + 2 * 1.959964**2) / 6)
    assert skew_shift([np.array([-1.0, 0.0, 1.0])]) == pytest.approx(0.0)


def test_a_gaps_ends_are_those_of_its_runs() -> None:
    # Alike in both tasks, so 2·(n − 1) = 8 degrees; symmetric, so no end is moved: a normal's ends for so many runs.
    scores = [np.array([0.1, 0.2, 0.3, 0.4, 0.5])] * 2
    found = gap_interval(scores, rng(), draws=100_000)
    half = t.ppf(0.975, 8) * np.sqrt(0.025 / 10)
    assert found.value == pytest.approx(0.7)
    assert found.low == pytest.approx(0.7 - half, abs=0.05 * half)
    assert found.high == pytest.approx(0.7 + half, abs=0.05 * half)


def test_runs_of_chosen_cells_keep_the_degrees_of_all_tasks() -> None:
    # f = .6 of 3 runs. All but 4 % of the variance is the second task's: Satterthwaite's degrees are 2.2, all are 4.
    scores = [np.array([0.4, 0.5, 0.6]), np.array([0.0, 0.5, 1.0])]
    chosen = gap_interval(scores, rng(), shares=[0.6, 0.6], draws=100_000)
    alone = gap_interval(scores, rng(), draws=100_000)
    assert chosen.high is not None
    assert alone.high is not None
    ratio = (chosen.high - 0.5) / (alone.high - 0.5)
    degrees = 1.04**2 / ((0.04**2 + 1) / 2)
    assert ratio == pytest.approx(np.sqrt(0.6 * 3) * t.ppf(0.975, 4) / t.ppf(0.975, degrees), rel=0.02)


def test_runs_that_choose_each_other_spread_by_what_their_mean_does() -> None:
    # 0, 3, 6: s² = 9. With f = .6 the mean of three drawn has variance .6·9 = 5.4, so what is drawn from has 16.2.
    (spread,) = spread_out([np.array([0.0, 3.0, 6.0])], [0.6])
    assert spread.var(ddof=0) == pytest.approx(16.2)


def test_a_profile_has_the_ends_of_a_binomial() -> None:
    # Of six runs in two tasks 3, 6 and 0 are above; Clopper and Pearson (1934), Table 1: 3 of 6 .118 to .882.
    scores = [np.array([0.9, 0.9, 0.9]), np.array([0.1, 0.1, 0.1])]
    found = profile_interval(scores, np.array([0.5, 0.0, 1.0]))
    assert found is not None
    assert found[0] == pytest.approx([beta.ppf(0.025, 3, 4), 0.025 ** (1 / 6), 0.0])
    assert found[1] == pytest.approx([beta.ppf(0.975, 4, 3), 1.0, 1 - 0.025 ** (1 / 6)])
    assert profile_interval([each[:2] for each in scores], np.array([0.5])) is None


def test_unequal_runs_count_as_fewer() -> None:
    # 3 and 6 runs weigh 1/6 and 1/12 each: J²/Σ (1/n) = 4/(1/3 + 1/6) = 8. Two of the six are above, 1/6 of 8 is 1.33.
    found = profile_interval([np.zeros(3), np.array([0.0, 0.0, 0.0, 0.0, 1.0, 1.0])], np.array([0.5]))
    assert found is not None
    assert (found[0][0], found[1][0]) == pytest.approx((beta.ppf(0.025, 1, 8), beta.ppf(0.975, 3, 6)))


def test_runs_without_spread_have_no_interval() -> None:
    alike = [np.full(3, 0.4)] * 2
    assert iqm_interval(alike, rng()).why == gap_interval(alike, rng()).why == "too little spread"
    assert improvement_interval(alike, alike, rng()).why == "too little spread"  # all ties: ½ in every sample


def test_a_gap_does_not_go_below_0() -> None:
    found = gap_interval([np.array([0.95, 1.2, 1.0]), np.array([0.7, 1.3, 1.1])], rng())
    assert found.low == 0.0
    assert found.value == pytest.approx((0.05 / 3 + 0.1) / 2)


def test_two_runs_have_no_interval() -> None:
    scores = columns(rng().normal(size=(2, 6)))
    assert iqm_interval(scores, rng()).why == gap_interval(scores, rng()).why == "too few seeds"
    assert improvement_interval(scores, columns(rng().normal(size=(5, 6))), rng()).why == "too few seeds"


def test_a_task_without_a_run_is_refused() -> None:
    with pytest.raises(ValueError, match="every task needs at least one run"):
        iqm([np.array([1.0]), np.array([])])
