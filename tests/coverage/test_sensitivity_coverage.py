"""Do the intervals of statements 4 to 7 cover what is true? A sample of worlds, small enough for every run.

A world here is drawn 100 to 600 times, from fixed generators; that an interval which covers 95 % is found below `LEAST`
of 0.9 happens in one run of a thousand with 200 draws. `tests/analysis/test_interval_ends.py` has the ends themselves,
which no coverage tells from those of 90 %; docs/statistics.md has the regions, from longer runs:
`make coverage`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import sensitivity_regions as regions
from sensitivity_regions import BASE, Rate, Rates
from worlds import World

from analysis.selection import FEWEST_TRAININGS

LEAST = 0.9


def lowest(found: Rates) -> float:
    """Of all kinds of intervals; each is given somewhere."""
    held = [rate.held for rate in found.values() if rate.held is not None]
    assert len(held) == len(found)
    return min(held)


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
    assert lowest(regions.shares(world, 600 if world.trainings < 12 else 200)) >= LEAST


def test_standard_deviations_of_terms_are_covered() -> None:
    assert lowest(regions.spreads(BASE, 600)) >= LEAST


def test_sensitivity_is_covered_where_it_is_given() -> None:
    found = regions.phi(BASE, 300)
    assert lowest(found) >= LEAST
    assert found["Φ"].given > 0.8


def test_where_noise_is_as_large_as_effects_nothing_is_said_of_maxima() -> None:
    found = regions.phi(dataclasses.replace(BASE, config_sd=0.1, decoding_sd=0.1, config_by_decoding_sd=0.1), 40)
    assert found["Φ"].given < 0.1


def test_bands_hold_whole_tuning_curves() -> None:
    assert lowest(regions.bands(BASE, 100)) >= LEAST


@pytest.mark.parametrize("runs", [3, 5])
def test_aggregates_across_tasks_are_covered(runs: int) -> None:
    assert lowest(regions.across(runs, 8, "normal", 150)) >= LEAST


def test_rank_correlations_are_covered() -> None:
    assert lowest(regions.ranks(FEWEST_TRAININGS, 0.8, 500)) >= 0.92


def test_rates_count_what_was_given() -> None:
    # a: given twice, held once; b: given once of three worlds, in one of which it is not named at all; c: never.
    answers: list[regions.Answers] = [{"a": True, "b": None, "c": None}, {"a": False, "b": True}, {"a": None}]
    assert regions.rates(answers) == {"a": Rate(0.5, 2 / 3), "b": Rate(1.0, 1 / 3), "c": Rate(None, 0.0)}


def test_what_is_measured_already_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "statements.jsonl"

    def run(worlds: int) -> str:
        monkeypatch.setattr("sys.argv", ["x", "--out", str(out), "--only", "rank", "--worlds", str(worlds)])
        regions.main()
        return capsys.readouterr().out

    first = run(20)
    lines = out.read_text(encoding="utf-8").splitlines(keepends=True)
    out.write_text("".join(lines[:-1]), encoding="utf-8")
    assert run(10).splitlines()[:-2] == [first.splitlines()[0].replace("20", "10 and 20"), *first.splitlines()[1:-2]]
    assert out.read_text(encoding="utf-8").startswith("".join(lines[:-1]))
