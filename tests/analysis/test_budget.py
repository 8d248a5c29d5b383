from __future__ import annotations

import itertools
from collections.abc import Callable
from math import comb
from typing import Any

import numpy as np
import pytest

from analysis.budget import Trained, crossings, expected_best, expected_seconds, tuning_curve
from analysis.budget_section import bar_of, budget_section
from analysis.cells import cells_of
from analysis.estimators import Estimate, Floats

Make = Callable[..., Any]


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
    half, most = crossings(trained(scores, scores), Estimate(0.0, 0.1, 2, 3))
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


class TestBar:
    """Cloning with two cells: at seed 0 the tune scenes like temperature .5, at seed 1 temperature 1."""

    @pytest.fixture
    def runs(self, run: Make) -> list[Any]:
        scores = {0.5: ((5.0, 10.0), (1.0, 2.0)), 1.0: ((2.0, 3.0), (3.0, 8.0))}  # by seed: tune score, report score
        runs = [
            run("bc", [report] * 4, {"decode.temperature": temperature}, seed=seed, tune_score=tune)
            for temperature, of_seed in scores.items()
            for seed, (tune, report) in enumerate(of_seed)
        ]
        taus = ((0.7, 1.0), (0.8, 9.0), (0.9, 12.0))
        return runs + [run("ilql", [x] * 4, {"train.tau": t}, seed=s, tune_score=x) for t, x in taus for s in (0, 1)]

    def test_it_is_what_the_other_seeds_choose_with_their_error(self, runs: list[Any], make_table: Make) -> None:
        # Seed 1 chooses temperature 1, of 3 at seed 0; seed 0 chooses .5, of 2 at seed 1. Not 6, the highest mean.
        found = bar_of(cells_of(make_table(*runs)))
        assert found is not None
        assert (found.value, found.seeds) == (2.5, 2)
        assert found.standard_error == pytest.approx((1.1 * (32.0 + 12.5) / 2) ** 0.5)  # as in test_family.py

    def test_it_is_not_held_against_itself(self, runs: list[Any], make_table: Make) -> None:
        table = make_table(*runs)
        section = budget_section(table, cells_of(table), np.random.default_rng(0), y_title="return")
        assert section is not None
        assert [row[0] for row in section.tables[0].rows] == ["ILQL"]
        assert not any("BC beats" in text for text in section.text)

    def test_one_seed_has_no_error_over_seeds_and_no_interval_of_crossings(
        self, runs: list[Any], make_table: Make
    ) -> None:
        found = bar_of(cells_of(make_table(*(each for each in runs if each.method == "ilql" or each.seed == 0))))
        assert found is not None
        assert (found.value, found.standard_error, found.seeds) == (10.0, 0.0, 1)
        scores = np.arange(24.0).reshape(4, 6)
        assert all(each.why == "too few seeds" for each in crossings(trained(scores, scores), found))

    @pytest.mark.parametrize(("own", "of_bar", "why"), [(3, 3, ""), (2, 3, "too few seeds"), (3, 2, "too few seeds")])
    def test_either_side_needs_three_seeds(self, own: int, of_bar: int, why: str) -> None:
        scores = np.arange(24.0).reshape(4, 6)[:own]
        assert {each.why for each in crossings(trained(scores, scores), Estimate(9.0, 0.1, 2, of_bar))} == {why}

    def test_several_cells_without_tune_scores_are_no_bar(self, run: Make, make_table: Make) -> None:
        cells = cells_of(make_table(*(run("bc", [1.0], {"decode.temperature": t}) for t in (0.5, 1.0))))
        with pytest.raises(ValueError, match="choosing a cell of 'bc' needs tune scores"):
            bar_of(cells)
