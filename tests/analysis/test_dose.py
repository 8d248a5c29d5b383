from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from analysis.cells import Cell, cells_of
from analysis.dose import dose_responses, near_best, width_interval
from analysis.runs import RunTable
from analysis.sensitivity_section import sensitivity_section

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
    assert (found.best, found.peak, found.beyond) == (math.inf, 2.0, pytest.approx(4.0))  # 9 at ∞, 5 at 2
    assert found.range == pytest.approx((2 ** (5 / 6), 4.0))  # from (0, 2) to (1, 5): 4.5 at 2.5/3
    assert found.width.value == pytest.approx(2 - 5 / 6)
    assert found.open
    assert found.width.why == "too few seeds"  # one training of three seeds has two degrees of freedom


def test_two_betas_are_no_curve(run: Make, make_table: MakeTable) -> None:
    table = make_table(*(run("ilql", [1.0], {"train.tau": 0.8, "decode.beta": b}) for b in (1.0, 2.0)))
    assert dose_responses(cells_of(table), np.random.default_rng(0)) == ()


def _played(means: dict[float, float], *, seed_sd: dict[float, float] | None = None, seeds: int = 3) -> list[Cell]:
    """Two trainings at each β of `means`, of 100 episodes; seeds spread evenly, by β."""
    rng, cells = np.random.default_rng(0), []
    scenes = np.array([f"s{index:03d}" for index in range(100)])
    for tau in (0.7, 0.8):
        for beta, mean in means.items():
            shift = np.linspace(-1, 1, seeds)[:, None] * (seed_sd or {}).get(beta, 0.01)
            returns = mean + rng.permutation(shift) + rng.normal(0, 0.1, (seeds, 100))
            setting = {"train.tau": tau, "decode.beta": beta}
            cells.append(
                Cell(
                    "ilql",
                    f"{tau}-{beta}",
                    "design",
                    setting,
                    tuple(range(seeds)),
                    returns,
                    np.ones((seeds, 100)),
                    np.arange(100),
                    scenes,
                    0.0,
                    {},
                    0,
                    0,
                )
            )
    return cells


def test_the_tolerance_is_the_error_of_the_best_that_has_neighbours() -> None:
    # At ∞ seeds differ by 1 and at 4 by hardly anything: the range around 4 is as narrow as the error at 4.
    means = {1.0: 0.0, 2.0: 1.0, 4.0: 2.0, 8.0: 1.0, math.inf: 9.0}
    for found in dose_responses(_played(means, seed_sd={math.inf: 1.0}), np.random.default_rng(0)):
        assert found.best == math.inf
        assert found.tolerance == found.errors[found.betas.index(4.0)]
        assert found.tolerance < 0.1 < found.errors[-1]


def test_where_the_best_beta_is_infinite_the_text_says_what_the_range_is_below() -> None:
    means = {1.0: 0.0, 2.0: 1.0, 4.0: 2.0, 8.0: 1.0, math.inf: 9.0}
    section = sensitivity_section(_played(means), (), np.random.default_rng(0), y_title="y")
    assert section is not None
    said = next(line for line in section.text if "doublings" in line)
    assert "of its best at a positive, finite β over" in said
    assert "(its best, at β ∞, is 7.00 above that)" in said


def test_a_width_is_between_nothing_and_all_that_was_played() -> None:
    for steep in (0.2, 0.05):  # a sharp peak, whose draws are wider than it, and a flat one
        means = {1.0: 0.0, 2.0: steep, 4.0: 2 * steep, 8.0: steep}
        for found in dose_responses(
            _played(means, seed_sd=dict.fromkeys(means, 0.06)), np.random.default_rng(0), tolerance=0.001
        ):
            if found.width.low is not None and found.width.high is not None:
                assert 0.0 <= found.width.low <= found.width.high <= 3.0  # from 1 to 8 are three doublings


def test_a_flat_curve_may_be_near_its_best_anywhere() -> None:
    # Noise makes peaks, each with a narrow range; the truth is three doublings, and so the interval must end there.
    means = dict.fromkeys((1.0, 2.0, 4.0, 8.0), 0.0)
    for found in dose_responses(_played(means, seed_sd=dict.fromkeys(means, 1.0), seeds=10), np.random.default_rng(0)):
        assert found.width.high == 3.0


def test_a_width_lies_between_those_of_the_curves_that_noise_allows() -> None:
    # The outer doses are ±1 with sd 1, the middle is sure: −4 ± 1 below it on either side.
    doses, means = np.array([0.0, 1.0, 2.0]), np.array([0.0, 4.0, 0.0])
    noise = np.array([[a, 0.0, b] for a in (-1.0, 1.0) for b in (-1.0, 1.0)])
    # Within 1 of the top are a fifth of the way to −5, and a third of that to −3.
    assert width_interval(doses, means, noise, 1.0) == pytest.approx((2 / 5, 2 / 3))


def test_whichever_dose_may_be_the_top_counts() -> None:
    doses, means = np.array([0.0, 1.0, 2.0]), np.array([2.9, 4.0, 4.5])
    noise = np.array([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]])
    # Top at the last: the middle is 1.5 to 0 below, the first 1.6: two thirds of a dose, or one and 1/1.6. Top at the
    # middle, which may be: the first 2.1 to .1 below and the last .5 to 0: one and 1/2.1, or both.
    assert width_interval(doses, means, noise, 1.0) == pytest.approx((2 / 3, 2.0))


def test_without_noise_a_width_is_what_it_is() -> None:
    doses, means = np.array([1.0, 2, 3, 4]), np.array([0.0, 4, 3.5, 2.5])
    assert width_interval(doses, means, np.zeros((10, 4)), 1.0) == pytest.approx((1.75, 1.75))
