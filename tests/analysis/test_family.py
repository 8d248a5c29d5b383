from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from analysis.cells import cells_of
from analysis.comparison import Comparison, compare, compare_chosen
from analysis.family import Inference, family, family_markdown, family_rows
from analysis.runs import RunTable
from analysis.student import t_quantile

Make = Callable[..., Any]
MakeTable = Callable[..., RunTable]
E = 20


def flat(run: Make, method: str, setting: dict[str, float], *scores: float) -> list[Any]:
    return [run(method, [score] * E, setting, seed=seed) for seed, score in enumerate(scores)]


@pytest.fixture
def made(make_table: MakeTable) -> Callable[..., tuple[Inference, ...]]:
    """The family of all cells against the last one."""

    def of(*runs: Any) -> tuple[Inference, ...]:
        cells = cells_of(make_table(*runs))
        comparisons: list[Comparison] = [compare(cells, cell, cells[-1]) for cell in cells[:-1]]
        return family(cells, comparisons, np.random.default_rng(0))

    return of


def test_a_difference_of_methods_has_its_interval_over_seeds(
    run: Make, made: Callable[..., tuple[Inference, ...]]
) -> None:
    # Variances 2 and 8 at two seeds each: s.e. √5 at 25/17 = 1.47 degrees; see test_paired.py.
    (found,) = made(*flat(run, "ilql", {}, 1.0, 3.0), *flat(run, "bc", {}, 0.0, 4.0))
    assert (found.difference.value, found.p, found.seeds) == (0.0, 1.0, (2, 2))
    assert found.difference.high == pytest.approx(6.1936 * 5**0.5, rel=1e-3)
    assert found.bootstrap is None


def test_p_values_are_adjusted_for_the_family(run: Make, made: Callable[..., tuple[Inference, ...]]) -> None:
    rows = made(
        *flat(run, "ilql", {"train.tau": 0.7}, 9.0, 10.0, 11.0),
        *flat(run, "ilql", {"train.tau": 0.8}, 2.0, 3.0, 4.0),
        *flat(run, "bc", {}, 0.0, 1.0, 2.0),
    )
    first, second = (row.p for row in rows)
    assert first is not None
    assert second is not None
    assert first < second
    assert [row.p_holm for row in rows] == [pytest.approx(2 * first), pytest.approx(second)]


def test_decodings_of_one_training_are_paired_by_seed(run: Make, made: Callable[..., tuple[Inference, ...]]) -> None:
    # Seeds move both decodings by 8 and by 7: 1 and 0 apart, mean −.5, s.e. √(.5/2) = .5 at one degree: ± 12.706·.5.
    (found,) = made(
        *flat(run, "ilql", {"train.tau": 0.7, "decode.beta": 4.0}, 1.0, 9.0),
        *flat(run, "ilql", {"train.tau": 0.7, "decode.beta": 8.0}, 2.0, 9.0),
    )
    assert (found.difference.low, found.difference.high) == pytest.approx((-0.5 - 6.353, -0.5 + 6.353), abs=1e-3)


def test_without_any_spread_nothing_is_said_of_other_seeds(
    run: Make, made: Callable[..., tuple[Inference, ...]]
) -> None:
    rows = made(*flat(run, "ilql", {}, 0.1, 0.1, 0.1), *flat(run, "bc", {}, 0.7, 0.7, 0.7))
    assert (rows[0].difference.low, rows[0].p, rows[0].p_holm, rows[0].detectable) == (None, None, None, None)
    assert "No interval where there are seeds and scenes without any spread to measure it by." in family_markdown(rows)


class TestChosen:
    """ILQL has two cells, BC one; of ILQL's, the tune scenes like τ .7 at seed 0 and τ .8 at seed 1."""

    @pytest.fixture
    def runs(self, run: Make) -> list[Any]:
        scores = {0.7: ((5.0, 10.0), (1.0, 2.0)), 0.8: ((2.0, 3.0), (3.0, 8.0))}  # by seed: tune score, report score
        runs = [
            run("ilql", [report] * E, {"train.tau": tau}, seed=seed, tune_score=tune)
            for tau, of_seed in scores.items()
            for seed, (tune, report) in enumerate(of_seed)
        ]
        return [*runs, *(run("bc", [score] * E, seed=s, tune_score=0.0) for s, score in enumerate((1.0, 0.0)))]

    def test_every_seed_is_scored_at_the_cell_that_the_others_choose(self, runs: list[Any], make_table: Make) -> None:
        # Seed 1 chooses τ .8, which has 3 at seed 0; seed 0 chooses τ .7, which has 2 at seed 1: 2.5 less BC's .5.
        # τ .7, which both together choose, has 6 at its own seeds.
        cells = cells_of(make_table(*runs))
        comparison = compare_chosen(cells, "ilql", "bc")
        (found,) = family(cells, [comparison], np.random.default_rng(0))
        assert comparison.score.value == pytest.approx(6.0 - 0.5)
        assert (found.name, found.difference.value) == ("ILQL, tuned, minus BC", pytest.approx(2.0))
        # M is the larger of the held-out .5 and the cells' (32 + 12.5)/2 = 22.25; f is 1/2 + .6. BC: .5/2.
        degrees = (1.1 * 22.25 + 0.25) ** 2 / ((1.1 * 22.25) ** 2 / 2 + 0.25**2)
        half = float(t_quantile(0.975, degrees)) * (1.1 * 22.25 + 0.25) ** 0.5
        assert found.difference.high == pytest.approx(2.0 + half)

    def test_the_trained_models_as_they_are_have_no_error_over_seeds(self, runs: list[Any], make_table: Make) -> None:
        comparison = compare_chosen(cells_of(make_table(*runs)), "ilql", "bc")
        assert (comparison.ratio_with_seeds, comparison.first.score_error_with_seeds) == (None, None)
        assert comparison.second.score_error_with_seeds is not None  # BC has one cell
        assert comparison.sentence.endswith(
            "Of these trained models as they are, since cells were chosen by what they score."
        )

    def test_one_seed_has_its_difference_alone(self, runs: list[Any], make_table: Make) -> None:
        cells = cells_of(make_table(*(each for each in runs if each.seed == 0)))
        (found,) = family(cells, [compare_chosen(cells, "ilql", "bc")], np.random.default_rng(0))
        assert (found.name, found.difference.value, found.p) == ("ILQL (τ 0.7) minus BC", 9.0, None)
        assert found.difference.refused == "too few seeds, fewer than 2 on a side"

    def test_what_a_rung_let_through_is_not_chosen(self, runs: list[Any], run: Make, make_table: Make) -> None:
        lucky = [
            run("ilql", [99.0] * E, {"train.tau": 0.75}, seed=s, tune_score=99.0, origin="refinement") for s in (0, 1)
        ]
        stopped = run("ilql", (), {"train.tau": 0.6}, origin="refinement", status="stopped")
        cells = cells_of(make_table(*runs, *lucky, stopped))
        (found,) = family(cells, [compare_chosen(cells, "ilql", "bc")], np.random.default_rng(0))
        assert found.difference.value == pytest.approx(2.0)


def test_one_seed_says_why_there_is_no_interval(run: Make, made: Callable[..., tuple[Inference, ...]]) -> None:
    rows = made(*flat(run, "ilql", {}, 3.0), *flat(run, "bc", {}, 1.0, 2.0))
    assert (rows[0].difference.value, rows[0].p, rows[0].detectable) == (1.5, None, None)
    assert "No interval where there are too few seeds, fewer than 2 on a side." in family_markdown(rows)
    assert family_rows(rows)[0][1:] == ("1.50", "–", "–", "–", "–", "1 and 2")


def test_ten_seeds_have_a_bootstrap(run: Make, made: Callable[..., tuple[Inference, ...]]) -> None:
    (found,) = made(*flat(run, "ilql", {}, *range(10)), *flat(run, "bc", {}, *[0.0] * 10))
    assert found.bootstrap is not None
    assert 2.0 < found.bootstrap[0] < 3.5  # mean 4.5, s.e. over draws √(8.25/10) = 0.91: 4.5 ∓ 1.8
    assert 5.5 < found.bootstrap[1] < 7.0
