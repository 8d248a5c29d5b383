from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from analysis.cells import cells_of
from analysis.dose import dose_responses, near_best
from analysis.runs import RunTable

Make = Callable[..., Any]
MakeTable = Callable[..., RunTable]


def test_several_curves_have_the_range_of_each() -> None:
    doses, rng = np.array([0.0, 1, 2, 4]), np.random.default_rng(0)
    curves = rng.normal(size=(50, 4)).round(1)
    each = np.array([near_best(doses, curve, 0.4) for curve in curves])
    together = np.array(near_best(doses, curves, 0.4)).T
    assert together == pytest.approx(each)


def test_the_range_ends_where_the_line_between_doses_crosses_the_bar() -> None:
    # Peak 4 at dose 2, bar 3. Left: the line from (1, 0) to (2, 4) is at 3 at 1.75; right: (3, 3.5) to (4, 2.5) at 3.5.
    assert near_best(np.array([1.0, 2, 3, 4]), np.array([0.0, 4, 3.5, 2.5]), 1.0) == pytest.approx((1.75, 3.5))


def test_a_valley_ends_the_range() -> None:
    assert near_best(np.array([0.0, 1, 2]), np.array([4.0, 0.0, 4.0]), 1.0) == pytest.approx((0.0, 0.25))


def test_a_flat_curve_is_near_its_best_everywhere() -> None:
    assert near_best(np.array([0.0, 1, 2]), np.array([1.0, 1.0, 1.0]), 0.0) == (0.0, 2.0)


def test_a_negative_tolerance_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        near_best(np.array([0.0]), np.array([1.0]), -0.1)


def test_no_beta_and_nothing_but_the_advantage_are_shown_and_lie_outside(run: Make, make_table: MakeTable) -> None:
    means = {0.0: 0.0, 1.0: 2.0, 2.0: 5.0, 4.0: 4.5, math.inf: 9.0}
    table = make_table(
        *(
            run("ilql", [m + s - 1, m + s + 1], {"train.tau": 0.8, "decode.beta": beta}, seed=s)
            for beta, m in means.items()
            for s in range(3)
        )
    )
    (found,) = dose_responses(cells_of(table), np.random.default_rng(0), tolerance=0.5)
    assert found.betas == (0.0, 1.0, 2.0, 4.0, math.inf)
    assert found.best == math.inf
    assert found.range == pytest.approx((2 ** (5 / 6), 4.0))  # from (0, 2) to (1, 5): 4.5 at 2.5/3
    assert found.width.value == pytest.approx(2 - 5 / 6)
    assert found.open
    assert found.width.why == "too few seeds"  # one training of three seeds has two degrees of freedom


def test_two_betas_are_no_curve(run: Make, make_table: MakeTable) -> None:
    table = make_table(*(run("ilql", [1.0], {"train.tau": 0.8, "decode.beta": b}) for b in (1.0, 2.0)))
    assert dose_responses(cells_of(table), np.random.default_rng(0)) == ()
