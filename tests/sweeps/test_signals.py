from __future__ import annotations

import pytest

from sweeps.exhibits import Point
from sweeps.signals import loss_by_step, signals_of

KEY = (("method", "ilql"),)


def test_a_signal_is_the_mean_of_the_tenth_of_the_steps_before_its_place() -> None:
    # Steps 10 … 100: the end reads 90 and 100, the middle 40 and 50; two seeds are averaged.
    seeds = [[Point(step, {"loss": factor * step}) for step in range(10, 101, 10)] for factor in (1.0, 3.0)]
    found = signals_of({KEY: seeds})
    assert found["loss", 1.0][KEY] == pytest.approx(2 * 95)
    assert found["loss", 0.5][KEY] == pytest.approx(2 * 45)


def test_a_signal_that_a_seed_lacks_is_left_out() -> None:
    assert signals_of({KEY: [[Point(10, {"loss": 1.0})], [Point(10, {"td": 1.0})]]}) == {}


def test_losses_are_read_by_step() -> None:
    assert loss_by_step({KEY: [[Point(10, {"loss": 1.0, "td": 2.0}), Point(20, {"td": 2.0})]]}) == {KEY: [{10: 1.0}]}
