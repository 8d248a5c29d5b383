"""The store's records as tables: `runs`, one row per evaluation of a sweep, and `episodes`, one row per episode."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from sweeps.exact_json import Record, dumps
from sweeps.journal import StoreError
from sweeps.record_shapes import COLUMNS, IDENTITY, NUMBER, TEXT, WHOLE, Sort, arm_of

EPISODES_FILE = "episodes.parquet"
"""What an evaluation's stage keeps: one row per episode."""

_RESULT = ("score", "score_sd", "episodes")
_FILE = " file"
"""A column's name while files are read together: none of theirs begins with a space."""

_BAGS = ("train.", "decode.", "backbone.")

_KINDS: Mapping[Sort, Any] = {TEXT: pl.String, WHOLE: pl.Int64, NUMBER: pl.Float64}
_SCHEMA: dict[str, Any] = {name: _KINDS[sort] for name, sort in COLUMNS.items()}

_EPISODES_SCHEMA: dict[str, Any] = {
    "trial_id": pl.String,
    "episode_seed": pl.Int64,
    "scene": pl.String,
    "return": pl.Float64,
    "turns": pl.Int64,
    "log_ratio": pl.Float64,
    "transcript": pl.String,
}


def rows(
    members: Iterable[Mapping[str, Any]], evaluations: Mapping[str, Record], trainings: Mapping[str, Record]
) -> Iterator[Record]:
    """One flat row, by column, per member that has a result or a known reason for having none.

    The evaluation's status counts first, then the member's own, then the training's; of the latter two only `failed`
    and `stopped` make a row, since a member whose training finished is still to be evaluated. Scores stand only in
    finished rows. What a stopped training took stands in its member. `tune_score` is the score of the finished
    evaluation that the member names in `tune_trial_id`, and `tune_seconds` what that one took.
    """
    for member in members:
        evaluation = evaluations.get(member["trial_id"])
        training = trainings.get(member["weights_id"], {})
        outcome = evaluation or next((each for each in (member, training) if _ended_badly(each)), None)
        if outcome is None:
            continue
        row = {name: member[name] for name in IDENTITY} | {"arm": arm_of(member)}
        row |= {"status": outcome["status"], "reason": outcome.get("reason")}
        row |= member["columns"]
        row["train_seconds"] = training.get("train_seconds", member.get("train_seconds"))
        row |= {name: outcome.get(name) for name in ("code_digest", "started_at", "finished_at")}
        if evaluation is not None:
            row["evaluate_seconds"] = evaluation.get("evaluate_seconds")
            row |= {f"measure.{name}": value for name, value in (evaluation.get("measures") or {}).items()}
            if evaluation["status"] == "finished":
                row |= {name: evaluation.get(name) for name in _RESULT}
        tune = evaluations.get(member.get("tune_trial_id") or "", {})
        row["tune_seconds"] = tune.get("evaluate_seconds")
        row["tune_score"] = tune.get("score") if tune.get("status") == "finished" else None
        yield row


def runs_frame(flat: Sequence[Record]) -> pl.DataFrame:
    """The rows as a frame.

    The contract's columns come first and are always there, then `train.`, `decode.`, `backbone.` and the rest, each by
    name. A column of whole and broken numbers holds floats; one of different sorts holds their JSON.

    Raises:
        StoreError: A row holds something else than its column's type in one of the contract's columns.
    """
    names = {name: None for row in flat for name in row if name not in _SCHEMA}
    extra = sorted(names, key=lambda name: (next((i for i, bag in enumerate(_BAGS) if name.startswith(bag)), 9), name))
    series = []
    for name, kind in _SCHEMA.items():
        try:
            series.append(pl.Series(name, [row.get(name) for row in flat], kind))
        except (TypeError, OverflowError, pl.exceptions.PolarsError) as fault:
            raise StoreError(f"a record does not fit the table's {name}: {str(fault).splitlines()[0]}") from fault
    return pl.DataFrame([*series, *(_series(name, [row.get(name) for row in flat]) for name in extra)])


def episodes_frame(stages: Mapping[str, Path], columns: Sequence[str] | None = None) -> pl.DataFrame:
    """The episodes of the stages, by trial id, one after the other.

    Args:
        stages: Each trial's stage folder.
        columns: Read only these, and `trial_id`. Transcripts are large: name what you need for many trials.

    Raises:
        ValueError: A column is in none of the stages.
        StoreError: A file cannot be read.
    """
    if not stages:
        return pl.DataFrame(schema=_EPISODES_SCHEMA)
    files = {trial_id: folder / EPISODES_FILE for trial_id, folder in stages.items()}
    try:
        return _scanned(files, columns)
    except (OSError, pl.exceptions.PolarsError):  # they differ, or one is damaged: by itself it can be named
        return _one_by_one(files, columns)


def _scanned(files: Mapping[str, Path], columns: Sequence[str] | None) -> pl.DataFrame:
    """All files in one scan, five times as fast as one by one; fails where their columns differ."""
    of_file = {str(path): trial_id for trial_id, path in files.items()}
    whole = pl.scan_parquet(list(of_file), include_file_paths=_FILE, glob=False)
    kept = whole if columns is None else whole.select(_FILE, *dict.fromkeys(columns))
    frame = kept.collect()
    runs = frame[_FILE].rle().struct.unnest()  # one of each file: a look-up for each row would take longer than reading
    trials = pl.Series("trial_id", [of_file[file] for file in runs["value"]], pl.String)
    each = trials.gather(np.repeat(np.arange(runs.height), runs["len"].to_numpy()))
    return frame.drop(_FILE, "trial_id", strict=False).insert_column(0, each)


def _one_by_one(files: Mapping[str, Path], columns: Sequence[str] | None) -> pl.DataFrame:
    """Every file by itself: of what one lacks and another has, its rows hold nulls."""
    frames = []
    for trial_id, path in files.items():
        try:
            present = pl.read_parquet_schema(path)
            wanted = [name for name in present if columns is None or name in columns]
            frame = pl.read_parquet(path, columns=wanted)
        except (OSError, pl.exceptions.PolarsError) as fault:
            raise StoreError(f"the episodes {path} could not be read: {str(fault).splitlines()[0]}") from fault
        frames.append(frame.select(pl.lit(trial_id).alias("trial_id"), pl.exclude("trial_id")))
    joined = pl.concat(frames, how="diagonal_relaxed")
    for name in columns or ():
        if name not in joined.columns:
            raise ValueError(f"no episode has a column {name!r}; known: {', '.join(pl.read_parquet_schema(path))}")
    return joined


def _ended_badly(record: Mapping[str, Any]) -> bool:
    return record.get("status") in {"failed", "stopped"}


def _series(name: str, values: list[Any]) -> pl.Series:
    sorts = {type(value) for value in values if value is not None}
    if sorts <= {int, float} and float in sorts:
        return pl.Series(name, [None if value is None else float(value) for value in values], pl.Float64)
    for sort, kind in ((bool, pl.Boolean), (int, pl.Int64), (str, pl.String)):
        if sorts == {sort}:
            return pl.Series(name, values, kind)
    texts = [None if value is None else value if isinstance(value, str) else dumps(value) for value in values]
    return pl.Series(name, texts, pl.String)
