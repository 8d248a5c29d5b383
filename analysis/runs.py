"""The run table: every evaluation of a sweep and every episode behind it, checked once.

Two polars frames, as a store writes them. `runs` has one row per evaluation (one cell at one training seed on one block
of episodes), `episodes` one row per episode of a finished evaluation. Everything else in this package is computed from
such a table, so what is checked here need not be checked again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, cast

import polars as pl

from analysis.labels import Value, in_order
from analysis.text import count

Kind: TypeAlias = Literal["text", "integer", "number"]

STATUSES = ("finished", "failed", "stopped")
ORIGINS = ("design", "refinement")
BLOCK_COLUMNS = ("task", "data.reward", "evaluation.reward", "evaluation.split", "evaluation.episodes")
"""What a run was trained and judged on. Scores that differ in one of these are not comparable."""

_RUN_COLUMNS: Mapping[str, tuple[Kind | None, bool]] = {  # column: (what it holds, may it be null)
    "sweep": ("text", False),
    "origin": ("text", False),
    "method": ("text", False),
    "cell_id": ("text", False),
    "trial_id": ("text", False),
    "weights_id": ("text", False),
    "seed": ("integer", False),
    "status": ("text", False),
    "reason": ("text", True),
    "task": ("text", False),
    "data.reward": ("text", True),
    "evaluation.reward": ("text", False),
    "evaluation.split": ("text", False),
    "evaluation.episodes": (None, True),
    "score": ("number", True),
    "tune_score": ("number", True),
    "episodes": ("integer", True),
    "train_seconds": ("number", True),
    "evaluate_seconds": ("number", True),
    "code_digest": ("text", True),
}
_EPISODE_COLUMNS: Mapping[str, tuple[Kind | None, bool]] = {
    "trial_id": ("text", False),
    "episode_seed": ("integer", False),
    "scene": ("text", False),
    "return": ("number", False),
    "turns": ("integer", False),
}
_SCORE_TOLERANCE = 1e-4  # a score may have been summed in another order or in single precision


def by_arm(runs: pl.DataFrame) -> pl.DataFrame:
    """The rows, `method` replaced by `arm` where they have one: from here on in this package a method is a table's row.

    A question may have a method several times, each an arm of its own: `ilql_without_lm` beside `ilql`.
    """
    return runs.with_columns(runs["arm"].alias("method")) if "arm" in runs.columns else runs


@dataclass(frozen=True)
class Unlisted:
    """What a sweep took for a method beyond its rows.

    Attributes:
        method: The method.
        train_seconds: Trainings that no row stands on: behaviour policies and critics of no cell, trainings to a rung.
        play_seconds: Play that no row has: at rungs, and of cells whose rows are still to come.
        shared_seconds: What training behaviour policies and critics anew for every finished row of the method that
            stands on them would have taken beyond doing it once.
    """

    method: str
    train_seconds: float
    play_seconds: float
    shared_seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class RunTable:
    """The evaluations of one or more sweeps and their episodes.

    Attributes:
        runs: One row per evaluation, with the columns `sweep origin method cell_id trial_id weights_id seed status
            reason task data.reward evaluation.reward evaluation.split evaluation.episodes score tune_score episodes
            train_seconds evaluate_seconds code_digest`, and any of `tune_seconds train.* decode.* backbone.*
            measure.* doubt`, the last being why an estimate is not believed.
        episodes: One row per episode, with the columns `trial_id episode_seed scene return turns`; more do no harm.
        unlisted: What all of it took beyond these rows, by method; a part of the table has none.

    Raises:
        ValueError: A column is missing, holds something else or nulls where it must not; a status or an origin is
            unknown; a sweep has an evaluation twice; a run that is not finished has a score; or a finished run's
            score is not the mean of its episodes.
    """

    runs: pl.DataFrame
    episodes: pl.DataFrame
    unlisted: tuple[Unlisted, ...] = ()

    def __post_init__(self) -> None:
        _check_columns(self.runs, "runs", _RUN_COLUMNS)
        _check_columns(self.episodes, "episodes", _EPISODE_COLUMNS)
        _check_words(self.runs, "status", STATUSES)
        _check_words(self.runs, "origin", ORIGINS)
        twice = self.runs.filter(self.runs.select("sweep", "origin", "trial_id").is_duplicated())
        if not twice.is_empty():
            raise ValueError(f"a sweep must hold an evaluation once, got trial {twice['trial_id'][0]!r} twice")
        scored = self.runs.filter((pl.col("status") != "finished") & pl.col("score").is_not_null())
        if not scored.is_empty():
            trial, status = scored["trial_id"][0], scored["status"][0]
            raise ValueError(f"only a finished run has a score, got one on trial {trial!r}, which {status}")
        _check_scores(self.runs, self.episodes)

    @staticmethod
    def from_parquet(folder: Path) -> RunTable:
        """The table stored in `folder` as `runs.parquet` and `episodes.parquet`, files or folders of Parquet files.

        Reads only the columns of `episodes` that statements need: transcripts stay on disk. Rows that name an arm stand
        under it, see `by_arm`.

        Raises:
            ValueError: One of the two is missing, or the content is refused (see the class).
        """
        runs = pl.scan_parquet(_parquet(folder, "runs")).collect()
        episodes = pl.scan_parquet(_parquet(folder, "episodes"))
        present = episodes.collect_schema().names()
        return RunTable(by_arm(runs), episodes.select([name for name in _EPISODE_COLUMNS if name in present]).collect())

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that have a run of any status, in the fixed order of tables."""
        return in_order(self.runs["method"].to_list())

    @property
    def estimated(self) -> bool:
        """True if scores are estimates of policies that nobody could play, and no returns."""
        return "evaluation.by" in self.runs.columns and "fitted_q" in self.runs["evaluation.by"].to_list()

    def finished(self) -> RunTable:
        """The runs that have a score."""
        return self._where(pl.col("status") == "finished")

    def design(self) -> RunTable:
        """The runs of the enqueued grid, without the search's own proposals."""
        return self._where(pl.col("origin") == "design")

    def select(self, conditions: Mapping[str, Value]) -> RunTable:
        """The runs whose columns have these values: `select({"evaluation.reward": "yn"})`.

        Raises:
            ValueError: A column does not exist.
        """
        for column in conditions:
            if column not in self.runs.columns:
                raise ValueError(f"runs have no column {column!r}; known: {', '.join(sorted(self.runs.columns))}")
        return self._where(*(pl.col(column) == value for column, value in conditions.items()))

    def counts(self) -> dict[str, int]:
        """How many evaluations finished, failed and stopped; one that two sweeps share counts once."""
        statuses = self._evaluations()["status"].to_list()
        return {status: statuses.count(status) for status in STATUSES}

    def failures(self) -> tuple[tuple[str, str, int], ...]:
        """(method, reason, number of runs) of what failed, methods in their order, the most frequent reason first."""
        tally: dict[tuple[str, str], int] = {}
        failed = self._evaluations().filter(pl.col("status") == "failed")
        for method, reason in failed.select("method", "reason").iter_rows():
            key = (method, reason or "no reason recorded")
            tally[key] = tally.get(key, 0) + 1
        rank = {method: index for index, method in enumerate(self.methods)}
        ordered = sorted(tally.items(), key=lambda item: (rank[item[0][0]], -item[1], item[0][1]))
        return tuple((method, reason, runs) for (method, reason), runs in ordered)

    def train_seconds(self) -> float:
        """Seconds of training, each set of weights counted once however many cells used it."""
        if self.runs.is_empty():
            return 0.0
        return float(self.runs.group_by("weights_id").agg(pl.col("train_seconds").max())["train_seconds"].sum() or 0.0)

    def evaluate_seconds(self) -> float:
        """Seconds of playing the rows' episodes, each evaluation counted once."""
        return self._by_trial("evaluate_seconds")

    def tune_seconds(self) -> float:
        """Seconds of playing the same cells on the tune scenes, each evaluation counted once; 0 where no row says."""
        return self._by_trial("tune_seconds") if "tune_seconds" in self.runs.columns else 0.0

    def took(self) -> str:
        """What training and play took, rows and `unlisted` together, each once, in two sentences."""
        beyond = sum(each.train_seconds for each in self.unlisted)
        play = sum(each.play_seconds for each in self.unlisted)
        weights = count(self.runs["weights_id"].n_unique(), "set of weights", "sets of weights")
        of_cells, report, tune = self.train_seconds(), self.evaluate_seconds(), self.tune_seconds()
        others = f", and {beyond:,.0f} s for weights that no row stands on" if beyond > 0 else ""
        rest = f", {play:,.0f} s at rungs or of cells without a row" if play > 0 else ""
        return (
            f"Training took {of_cells + beyond:,.0f} s: {of_cells:,.0f} s for {weights}, each counted once{others}. "
            f"{'Estimating' if self.estimated else 'Play'} took {report + tune + play:,.0f} s: {report:,.0f} s on the "
            f"scenes of the rows, {tune:,.0f} s on the tune scenes{rest}."
        )

    def _by_trial(self, column: str) -> float:
        if self.runs.is_empty():
            return 0.0
        return float(self.runs.group_by("trial_id").agg(pl.col(column).max())[column].sum() or 0.0)

    def block(self) -> dict[str, Value | None]:
        """What all runs were trained and judged on, one value per column of `BLOCK_COLUMNS`; None where none says.

        Raises:
            ValueError: The runs differ in one of them, so that their scores cannot stand in one table.
        """
        found: dict[str, Value | None] = {}
        for column in BLOCK_COLUMNS:
            values = sorted(self.runs[column].drop_nulls().unique().to_list(), key=str)
            if len(values) > 1:
                raise ValueError(
                    f"a statement is about runs of one {column}, got {', '.join(map(repr, values))}; "
                    f"pick one with RunTable.select({{{column!r}: {values[0]!r}}})"
                )
            found[column] = cast("Value", values[0]) if values else None
        return found

    def _evaluations(self) -> pl.DataFrame:
        """One row per trial_id, a finished one where several sweeps or origins share it."""
        if self.runs.is_empty():
            return self.runs
        by_trial = self.runs.sort(pl.col("status") != "finished", maintain_order=True)
        return by_trial.unique(subset=["trial_id"], keep="first", maintain_order=True)

    def _where(self, *conditions: pl.Expr) -> RunTable:
        if self.runs.is_empty():
            return self
        runs = self.runs.filter(*conditions)
        if runs.height == self.runs.height:
            return self
        episodes = self.episodes.filter(pl.col("trial_id").is_in(runs["trial_id"].unique().to_list()))
        part = object.__new__(RunTable)  # unchecked: a part of what was found sound is sound
        object.__setattr__(part, "runs", runs)
        object.__setattr__(part, "episodes", episodes)
        return part


def _parquet(folder: Path, name: str) -> Path:
    for candidate in (folder / f"{name}.parquet", folder / name):
        if candidate.exists():
            return candidate
    raise ValueError(f"a run table lies in a folder with {name}.parquet, got {folder} without one")


def _check_columns(frame: pl.DataFrame, name: str, columns: Mapping[str, tuple[Kind | None, bool]]) -> None:
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise ValueError(f"{name} must have the column {missing[0]!r}, got {', '.join(frame.columns) or 'no columns'}")
    for column, (kind, nullable) in columns.items():
        dtype = frame.schema[column]
        if dtype != pl.Null and not _holds(dtype, kind):
            raise ValueError(f"column {column!r} of {name} must hold {kind}, got {dtype}")
        if not nullable and frame[column].null_count():
            raise ValueError(f"column {column!r} of {name} must have no nulls, got {frame[column].null_count()}")


def _holds(dtype: pl.DataType, kind: Kind | None) -> bool:
    if kind == "text":
        return dtype == pl.String or isinstance(dtype, pl.Categorical | pl.Enum)
    if kind == "integer":
        return dtype.is_integer()
    return kind is None or dtype.is_numeric()


def _check_words(runs: pl.DataFrame, column: str, known: tuple[str, ...]) -> None:
    unknown = sorted(set(runs[column].to_list()) - set(known))
    if unknown:
        raise ValueError(f"unknown {column} {unknown[0]!r} in runs; known: {', '.join(known)}")


def _check_scores(runs: pl.DataFrame, episodes: pl.DataFrame) -> None:
    finished = runs.filter(pl.col("status") == "finished")
    if finished.is_empty():
        return
    played = {
        trial: (rows, distinct, mean)
        for trial, rows, distinct, mean in episodes.group_by("trial_id")
        .agg(pl.len(), pl.col("episode_seed").n_unique(), pl.col("return").mean().alias("mean"))
        .select("trial_id", "len", "episode_seed", "mean")
        .iter_rows()
    }
    for trial, wanted, score in finished.select("trial_id", "episodes", "score").iter_rows():
        rows, distinct, mean = played.get(trial, (0, 0, None))
        if rows == 0 or rows != wanted or distinct != rows:
            raise ValueError(
                f"finished trial {trial!r} must have {wanted} episodes of different seeds, got {rows} of {distinct}"
            )
        if score is None or not abs(score - mean) <= _SCORE_TOLERANCE * (1 + abs(mean)):
            raise ValueError(
                f"the score of trial {trial!r} must be the mean return of its episodes {mean}, got {score}"
            )
