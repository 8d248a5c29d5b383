"""Cells: what a table ranks and a figure draws. One (train, decode) setting with all its replicates.

Axes: *S* finished training seeds of the cell, *E* episodes, common to all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.estimators import Estimate, Floats, mean_over_episodes
from analysis.labels import Value, hyperparameter_rank, in_order, setting_label
from analysis.runs import RunTable

_HYPERPARAMETER_BAGS = ("train.", "decode.", "backbone.")
_Row: TypeAlias = Mapping[str, object]


@dataclass(frozen=True, eq=False)
class Cell:
    """One setting of one method, with everything that was played with it.

    Attributes:
        method: The row of the table that it belongs to: a method, or a variant of one such as `ilql_without_lm`.
        cell_id: Its key, the same at every training seed.
        origin: `design` if the grid holds it (also where the search proposed it again), else `refinement`.
        hyperparameters: Its `train.*`, `decode.*` and `backbone.*` columns that are not null.
        seeds: The training seeds that finished, ascending; S of them, possibly none.
        returns: Shape (S, E), a row per seed of `seeds`.
        turns: The agent's turns, shape (S, E).
        episode_seeds: Which episodes, ascending, shape (E,).
        scenes: The scene of each episode, shape (E,).
        tune_scores: The score on the tune scenes at each of `seeds`; None where a seed has none.
        measures: Mean over seeds of each `measure.*` column that all of them have.
        failed: Number of its runs that failed.
        stopped: Number of its runs that were stopped.
        doubt: Why its estimate is not believed, in words, of the first of its seeds whose is not; None where it is, or
            where it was played.
    """

    method: str
    cell_id: str
    origin: str
    hyperparameters: Mapping[str, Value]
    seeds: tuple[int, ...]
    returns: Floats
    turns: Floats
    episode_seeds: NDArray[np.int64]
    scenes: NDArray[np.str_]
    tune_scores: tuple[float, ...] | None
    measures: Mapping[str, float]
    failed: int
    stopped: int
    doubt: str | None = None

    @property
    def score(self) -> Estimate | None:
        """The mean return over its episodes, seeds averaged; None where no seed finished."""
        return mean_over_episodes(self.returns) if self.seeds else None

    @property
    def seed_scores(self) -> tuple[float, ...]:
        """The mean return at each of `seeds`."""
        return tuple(float(score) for score in self.returns.mean(axis=1)) if self.seeds else ()

    @property
    def tune_score(self) -> float | None:
        """Mean over seeds of the score on the tune scenes; None where a seed has none."""
        return float(np.mean(self.tune_scores)) if self.tune_scores else None

    def setting(self, columns: Iterable[str] | None = None) -> str:
        """Its hyperparameters in one line, `τ 0.8, β 8`; only those among `columns` if given."""
        kept = self.hyperparameters if columns is None else {k: self.hyperparameters[k] for k in columns if self.has(k)}
        return setting_label(kept)

    def has(self, column: str) -> bool:
        """True if the method has this hyperparameter."""
        return column in self.hyperparameters


def cells_of(table: RunTable) -> tuple[Cell, ...]:
    """The table's cells: methods in their order, then design before refinement, then by hyperparameters.

    An evaluation that appears twice (two sweeps share it, or the search proposed a point of the grid) counts once, as
    design if either is, and with the finished row's score if either finished.

    Raises:
        ValueError: The runs differ in what they were trained or judged on, or the seeds of a cell in their episodes.
    """
    table.block()
    episodes = _episodes_by_trial(table)
    rows: dict[str, list[_Row]] = {}
    for row in table.runs.iter_rows(named=True):
        rows.setdefault(row["cell_id"], []).append(row)
    scenes = _Scenes()
    cells = [_cell(cell_id, evaluations, episodes, scenes) for cell_id, evaluations in rows.items()]
    rank = {method: index for index, method in enumerate(in_order(cell.method for cell in cells))}
    return tuple(sorted(cells, key=lambda cell: (rank[cell.method], cell.origin, _sort_key(cell), cell.cell_id)))


def varying(cells: Sequence[Cell]) -> tuple[str, ...]:
    """The hyperparameters that take more than one value within some method, in the order of print.

    These tell the cells of a table apart. The others are the same everywhere, or differ between methods only.
    """
    columns = sorted({column for cell in cells for column in cell.hyperparameters}, key=hyperparameter_rank)
    values: dict[tuple[str, str], set[Value]] = {}
    for cell in cells:
        for column, value in cell.hyperparameters.items():
            values.setdefault((cell.method, column), set()).add(value)
    return tuple(
        column for column in columns if any(len(seen) > 1 for (_, name), seen in values.items() if name == column)
    )


def best_cell(cells: Iterable[Cell]) -> Cell | None:
    """The cell with the highest mean return, the first of equals; None where none has finished.

    An estimate that is not believed is behind all that are, however high. This is the one rule by which any cell is
    called the best.
    """
    finished = [(cell.doubt is None, score.value, cell) for cell in cells if (score := cell.score) is not None]
    return max(finished, key=lambda each: each[:2])[2] if finished else None  # `max` takes the first of equals


def without_survivors(cells: Sequence[Cell]) -> list[Cell]:
    """The cells whose own scores did not decide that they were trained to their end.

    Where proposals of a method were stopped at a rung, the others went on for their score there at the first training
    seed. At that seed they are luckier than new trainings, so a search's cells of such a method are left out.
    """
    cut = {cell.method for cell in cells if cell.origin == "refinement" and cell.stopped}
    return [cell for cell in cells if cell.origin == "design" or cell.method not in cut]


def _episodes_by_trial(table: RunTable) -> dict[str, pl.DataFrame]:
    finished = table.finished()
    if finished.runs.is_empty():
        return {}
    frame = finished.episodes.select("trial_id", "episode_seed", "scene", "return", "turns")
    if frame["trial_id"].rle().len() > frame["trial_id"].n_unique():  # an evaluation's rows are not side by side
        frame = frame.sort("trial_id", maintain_order=True)
    found, start = {}, 0
    for trial, length in frame["trial_id"].rle().struct.unnest().select("value", "len").iter_rows():
        part = frame.slice(start, length)  # no copy: of 5,000 evaluations, tables of all would be as large again
        found[cast("str", trial)] = part if part["episode_seed"].is_sorted() else part.sort("episode_seed")
        start += length
    return found


class _Scenes:
    """Scenes as an array; those of a cell that played what the one before it played are the same array."""

    def __init__(self) -> None:
        self._last = pl.Series([], dtype=pl.String)
        self._array: NDArray[np.str_] = np.empty(0, np.str_)

    def __call__(self, scenes: pl.Series) -> NDArray[np.str_]:
        if not scenes.equals(self._last):
            self._last, self._array = scenes, np.array(scenes.to_list(), dtype=np.str_)
            self._array.setflags(write=False)
        return self._array


def _cell(cell_id: str, evaluations: Sequence[_Row], episodes: Mapping[str, pl.DataFrame], scenes: _Scenes) -> Cell:
    first = evaluations[0]
    by_trial: dict[str, _Row] = {}
    for row in evaluations:
        trial = cast("str", row["trial_id"])
        if trial not in by_trial or row["status"] == "finished":
            by_trial[trial] = row
    finished = sorted(
        (row for row in by_trial.values() if row["status"] == "finished"), key=lambda row: cast("int", row["seed"])
    )
    played = [episodes[cast("str", row["trial_id"])] for row in finished]
    for row, part in zip(finished, played, strict=True):
        if not part["episode_seed"].equals(played[0]["episode_seed"]):
            raise ValueError(
                f"all seeds of a cell must play the same episodes; of cell {cell_id!r}, "
                f"seeds {finished[0]['seed']} and {row['seed']} played different ones"
            )
    return Cell(
        method=cast("str", first["method"]),
        cell_id=cell_id,
        origin="design" if any(row["origin"] == "design" for row in evaluations) else "refinement",
        hyperparameters=_hyperparameters(first),
        seeds=tuple(cast("int", row["seed"]) for row in finished),
        returns=_matrix(played, "return"),
        turns=_matrix(played, "turns"),
        episode_seeds=played[0]["episode_seed"].to_numpy() if played else np.empty(0, np.int64),
        scenes=scenes(played[0]["scene"]) if played else np.empty(0, np.str_),
        tune_scores=_values(finished, "tune_score"),
        measures={
            column: mean
            for column in first
            if column.startswith("measure.") and (mean := _mean(finished, column)) is not None
        },
        failed=sum(row["status"] == "failed" for row in by_trial.values()),
        stopped=sum(row["status"] == "stopped" for row in by_trial.values()),
        doubt=next((str(row["doubt"]) for row in finished if row.get("doubt") is not None), None),
    )


def _hyperparameters(row: _Row) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for column in sorted(filter(lambda name: name.startswith(_HYPERPARAMETER_BAGS), row), key=hyperparameter_rank):
        value = row[column]
        if value is not None:
            found[column] = value if isinstance(value, str | int | float | bool) else str(value)
    return found


def _matrix(played: Sequence[pl.DataFrame], column: str) -> Floats:
    if not played:
        return np.empty((0, 0))
    matrix = np.stack([part[column].to_numpy().astype(np.float64) for part in played])
    matrix.setflags(write=False)
    return matrix


def _mean(rows: Sequence[_Row], column: str) -> float | None:
    values = _values(rows, column)
    return None if values is None else float(np.mean(values))


def _values(rows: Sequence[_Row], column: str) -> tuple[float, ...] | None:
    """The column of every row; None where one has none, or there is no row."""
    values = [row[column] for row in rows]
    if not values or any(value is None for value in values):
        return None
    found: list[float] = np.array(values, dtype=np.float64).tolist()
    return tuple(found)


def _sort_key(cell: Cell) -> tuple[tuple[str, int, float, str], ...]:
    return tuple(
        (column, 0, float(value), "") if isinstance(value, int | float) else (column, 1, 0.0, value)
        for column, value in cell.hyperparameters.items()
    )
