from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from analysis.student import t_quantile, t_two_sided

DEGREES = [1.0, 1.5, 2.0, 2.7, 5.0, 30.0, 99.5, 100.5, 3000.0]


def test_one_degree_is_cauchy() -> None:
    # P(T ≤ x) = ½ + arctan(x)/π: the .75 quantile is 1, and P(|T| ≥ 1) is ½.
    assert t_quantile(0.75, 1.0) == pytest.approx(1.0)
    assert t_two_sided(-1.0, 1.0) == pytest.approx(0.5)


def test_two_degrees_have_a_closed_form() -> None:
    # P(|T| ≥ t) = 1 − t/√(2 + t²); at t = √2 that is 1 − 1/√2.
    assert t_two_sided(math.sqrt(2), 2.0) == pytest.approx(1 - 1 / math.sqrt(2))


@pytest.mark.parametrize("degrees", DEGREES)
@pytest.mark.parametrize("probability", [0.5, 0.8, 0.975, 0.999])
def test_quantiles_are_those_of_scipy(probability: float, degrees: float) -> None:
    assert t_quantile(probability, degrees) == pytest.approx(stats.t.ppf(probability, degrees), rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("degrees", DEGREES)
@pytest.mark.parametrize("ratio", [0.0, 0.1, 1.0, 5.0, 30.0])
def test_tails_are_those_of_scipy(ratio: float, degrees: float) -> None:
    assert t_two_sided(ratio, degrees) == pytest.approx(2 * stats.t.sf(ratio, degrees), rel=1e-8, abs=1e-14)


def test_arrays_go_in_and_come_out() -> None:
    found = t_quantile(0.975, np.array([[1.0, 2.0]]))
    assert found.shape == (1, 2)
    assert found[0].tolist() == pytest.approx([12.706204736, 4.302652730])


def test_less_than_one_degree_is_refused() -> None:
    with pytest.raises(ValueError, match=r"degrees of freedom must be at least 1, got 0\.5"):
        t_quantile(0.975, 0.5)
    with pytest.raises(ValueError, match=r"probability must be in \[\.5, \.9999\], got 0\.2"):
        t_quantile(0.2, 3.0)
