"""What two compared cells measured besides their returns, paired episode by episode: the error of each difference."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import polars as pl

from analysis.comparison import Comparison, Side
from analysis.estimators import Floats, paired_difference

MEASURE = "measure."
"""Begins the name of a measure's column, of rows and of episodes alike."""


def with_measures(comparison: Comparison, runs: pl.DataFrame, episodes: pl.DataFrame) -> Comparison:
    """The comparison, with the paired difference of each measure that its episodes have, on those both have played.

    A measure whose value in the rows is not the mean over its episodes (a share of all utterances, say) is left as it
    is, without an error: its difference is none of means. So is one that an episode lacks.

    Args:
        comparison: Of two cells.
        runs: Rows with their `cell_id`, `trial_id`, `seed` and `status`.
        episodes: At least of all finished runs of the two cells, with columns `measure.*`.
    """
    found = {}
    sides = comparison.first, comparison.second
    means: tuple[dict[str, float], dict[str, float]] = dict(sides[0].measures), dict(sides[1].measures)
    for column in (name for name in episodes.columns if name.startswith(MEASURE)):
        first, second = (_values(side, runs, episodes, column) for side in sides)
        if first is None or second is None:
            continue
        common, at_first, at_second = np.intersect1d(first.seeds, second.seeds, return_indices=True)
        if common.size:
            values = first.values[:, at_first], second.values[:, at_second]
            found[column] = paired_difference(*values, first.scenes[at_first])
            for side, mean in zip(means, values, strict=True):
                side[column] = float(mean.mean())
    one, other = (dataclasses.replace(side, measures=mean) for side, mean in zip(sides, means, strict=True))
    return dataclasses.replace(comparison, first=one, second=other, measured=found)


@dataclasses.dataclass(frozen=True)
class _Values:
    """One measure of one cell: of shape (S, E), with the E episode seeds and scenes."""

    values: Floats
    seeds: np.ndarray
    scenes: np.ndarray


def _values(side: Side, runs: pl.DataFrame, episodes: pl.DataFrame, column: str) -> _Values | None:
    """None where an episode has no such value, or the rows' value is not their mean."""
    finished = runs.filter((pl.col("cell_id") == side.cell_id) & (pl.col("status") == "finished"))
    trials = finished.unique("trial_id", maintain_order=True).sort("seed")["trial_id"].to_list()
    parts = [episodes.filter(pl.col("trial_id") == trial).sort("episode_seed") for trial in trials]
    rows = [part[column].cast(pl.Float64).to_numpy() for part in parts]
    stated = side.measures.get(column)
    if stated is None or not math.isfinite(stated) or len({len(row) for row in rows}) != 1:
        return None
    values = np.stack(rows)
    if not math.isclose(values.mean(), stated, rel_tol=1e-6, abs_tol=1e-9):  # of what is missing it is NaN
        return None
    return _Values(values, parts[0]["episode_seed"].to_numpy(), np.array(parts[0]["scene"].to_list(), dtype=np.str_))
