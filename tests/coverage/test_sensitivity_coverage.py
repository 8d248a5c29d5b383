"""Do the intervals of statements 4 to 7 cover what is true? A sample of worlds, small enough for every run.

A world here is drawn 100 to 600 times, from fixed generators; that an interval which covers 95 % is found below `LEAST`
of 0.9 happens in one run of a thousand with 200 draws. `tests/analysis/test_interval_ends.py` has the ends themselves,
which no coverage tells from those of 90 %; docs/statistics.md has the regions, from longer runs:
`PYTHONPATH=.:tests/coverage python tests/coverage/sensitivity_regions.py`.
"""

from __future__ import annotations

import dataclasses

import pytest
import sensitivity_regions as regions
from sensitivity_regions import BASE
from worlds import World

from analysis.selection import FEWEST_TRAININGS

LEAST = 0.9


@pytest.mark.parametrize(
    "world",
    [
        BASE,
        dataclasses.replace(BASE, seeds=2, tails="t3"),
        dataclasses.replace(BASE, trainings=12, seeds=2, seed_sd=1.0, config_by_decoding_sd=0.0),
    ],
    ids=["three seeds", "two seeds, heavy tails", "noise as large as effects, no interaction"],
)
def test_shares_of_variance_are_covered(world: World) -> None:
    assert min(regions.shares(world, 600 if world.trainings < 12 else 200).values()) >= LEAST


def test_standard_deviations_of_terms_are_covered() -> None:
    assert min(regions.spreads(BASE, 600).values()) >= LEAST


def test_sensitivity_is_covered_where_it_is_given() -> None:
    covered, given = regions.phi(BASE, 300)
    assert covered >= LEAST
    assert given > 0.8


def test_where_noise_is_as_large_as_effects_nothing_is_said_of_maxima() -> None:
    _, given = regions.phi(dataclasses.replace(BASE, config_sd=0.1, decoding_sd=0.1, config_by_decoding_sd=0.1), 40)
    assert given < 0.1


def test_bands_hold_whole_tuning_curves() -> None:
    assert regions.bands(BASE, 100) >= LEAST


@pytest.mark.parametrize("runs", [3, 5])
def test_aggregates_across_tasks_are_covered(runs: int) -> None:
    assert min(regions.across(runs, 8, "normal", 150).values()) >= LEAST


def test_rank_correlations_are_covered() -> None:
    assert regions.ranks(FEWEST_TRAININGS, 0.8, 500) >= 0.92
