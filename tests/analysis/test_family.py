from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from analysis.cells import cells_of
from analysis.comparison import Comparison, compare
from analysis.family import Inference, family, family_markdown, family_rows
from analysis.runs import RunTable

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
    # Seeds move both decodings alike: 1 apart at every seed, so there is no noise in the difference.
    (found,) = made(
        *flat(run, "ilql", {"train.tau": 0.7, "decode.beta": 4.0}, 1.0, 9.0),
        *flat(run, "ilql", {"train.tau": 0.7, "decode.beta": 8.0}, 2.0, 10.0),
    )
    assert (found.difference.low, found.difference.high, found.p) == (-1.0, -1.0, 0.0)


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
