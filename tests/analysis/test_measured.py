"""The differences of what two cells measured, with their errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl
import pytest

from analysis.cells import cells_of
from analysis.comparison import Comparison, compare, comparison_markdown
from analysis.measured import with_measures
from analysis.runs import RunTable

Make = Callable[..., Any]


@pytest.fixture
def measured(run: Make, make_frames: Make) -> Callable[..., Comparison]:
    """ILQL minus BC, each with a measure `toxic` of each of its episodes: 0, 1, ..., of BC `first`, `first` + 1, ..."""

    def make(ilql: Sequence[float | None], bc: Sequence[float], *, stated: float, first: int = 0) -> Comparison:
        measures = {"measure.toxic": stated}, {"measure.toxic": sum(bc) / len(bc)}
        runs, episodes = make_frames(
            [
                run("ilql", [0.0] * len(ilql), measures=measures[0]),
                run("bc", [0.0] * len(bc), measures=measures[1], first_episode=first),
            ]
        )
        cells = cells_of(RunTable(runs, episodes))
        values = pl.Series("measure.toxic", [*ilql, *bc], dtype=pl.Float64)
        return with_measures(compare(cells, cells[0], cells[1]), runs, episodes.with_columns(values))

    return make


def test_they_are_paired_on_the_episodes_both_have_played(measured: Callable[..., Comparison]) -> None:
    # Episodes 1 to 3 in common: 0, 1, 0 and 1, 1, 1. Differences −1, 0, −1: mean −2/3, variance 1/3, s.e. 1/3.
    found = measured([1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0], stated=0.5, first=1)
    assert found.measured["measure.toxic"].value == pytest.approx(-2 / 3)
    assert found.measured["measure.toxic"].over_scenes == pytest.approx(1 / 3)
    said = " ".join(comparison_markdown(found).split())
    assert "| toxic; ± s.e. over scenes | 0.33 | 1.00 | −0.67 ± 0.33 |" in said


def test_what_is_no_mean_over_episodes_has_no_error(measured: Callable[..., Comparison]) -> None:
    found = measured([1.0, 0.0], [1.0, 1.0], stated=0.25)  # 2 of its 8 utterances, say
    assert found.measured == {}
    assert "| toxic | 0.25 | 1.00 | −0.75 |" in " ".join(comparison_markdown(found).split())


def test_what_an_episode_lacks_has_no_error(measured: Callable[..., Comparison]) -> None:
    assert measured([1.0, None], [1.0, 1.0], stated=1.0).measured == {}
