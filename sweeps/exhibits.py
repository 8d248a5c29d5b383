"""What a tracker is to show of a sweep: its trainings, their loss curves and its evaluations, as plain values."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sweeps.exact_json import Record
from sweeps.plain_files import open_plain
from sweeps.record_shapes import arm_of

_SHAPING = ("train.", "backbone.", "data.")  # what decides the weights
_TELLING = ("train.", "decode.", "backbone.")  # what may tell a sweep's runs apart, in the order of their names
_LONGEST_POINT = 1 << 20
"""Bytes that a line of a curve may have; what goes on without an end is no curve."""
_RESULTS = ("score", "score_sd", "tune_score", "episodes", "train_seconds", "evaluate_seconds")


class Point(NamedTuple):
    """One step of a loss curve and its numbers, which may be infinite or NaN."""

    step: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Exhibit:
    """One training or evaluation as a tracker is to show it.

    Attributes:
        kind: `training` or `evaluation`.
        key: The weights id, or the trial id.
        name: Says in a few words what tells it from the others.
        params: What it was made with, as text by column.
        results: What came out, by name; numbers that may be infinite or NaN.
        tags: Why it ended and what made it.
        status: `finished`, `failed`, `stopped`, or None while it goes on.
        started_at: UTC, or None if not known.
        finished_at: UTC, or None if not known.
        version: Changes when the results do.
    """

    kind: str
    key: str
    name: str
    params: Mapping[str, str]
    results: Mapping[str, float]
    tags: Mapping[str, str]
    status: str | None
    started_at: str | None
    finished_at: str | None
    version: str


def training(member: Record, record: Record, telling: Sequence[str]) -> Exhibit:
    """The training of a member's weights. `record` is empty while it goes on or if it left none."""
    columns = member["columns"]
    shaping = {name: value for name, value in columns.items() if name.startswith(_SHAPING)}
    results = {f"final.{name}": value for name, value in (record.get("metrics") or {}).items()}
    results |= {name: record[name] for name in ("steps", "train_seconds") if name in record}
    return Exhibit(
        kind="training",
        key=member["weights_id"],
        name=_name(member, [name for name in telling if name in shaping]),
        params=_texts({**shaping, **_some(columns, "task"), **_some(member, "seed", "weights_id")}),
        results=_numbers(results),
        tags=_provenance(record),
        status=record.get("status"),
        started_at=record.get("started_at"),
        finished_at=record.get("finished_at"),
        version=_version(record, "status", "finished_at"),
    )


def evaluation(member: Record, row: Record, telling: Sequence[str]) -> Exhibit:
    """The evaluation of a member; `row` is its row of `runs`."""
    columns = member["columns"]
    results = {name: value for name, value in row.items() if name in _RESULTS or name.startswith("measure.")}
    return Exhibit(
        kind="evaluation",
        key=member["trial_id"],
        name=_name(member, telling, str(columns.get("evaluation.split", "")), arm=arm_of(member)),
        params=_texts({**columns, "arm": arm_of(member), **_some(member, "method", "seed", "cell_id", "weights_id")}),
        results=_numbers(results),
        tags={**_provenance(row), "sweeps.origin": str(member["origin"])},
        status=row["status"],
        started_at=row.get("started_at"),
        finished_at=row.get("finished_at"),
        version=_version(row, "status", "finished_at", "score", "tune_score"),
    )


def telling_columns(members: Sequence[Record]) -> list[str]:
    """The hyperparameters that have more than one value in the sweep, in the order in which names give them."""
    seen: dict[str, set[str]] = {}
    for member in members:
        for name, value in member["columns"].items():
            if value is not None and name.startswith(_TELLING):
                seen.setdefault(name, set()).add(text(value))
    varying = sorted(name for name, values in seen.items() if len(values) > 1)
    return [name for bag in _TELLING for name in varying if name.startswith(bag)]


def read_curve(path: Path, offset: int, after: int) -> tuple[list[Point], int]:
    """The points that a curve file has from `offset` on, and the offset to go on from.

    Steps up to `after` are left out, and so are steps that a resumed training wrote again. Lines that are no points are
    skipped; an unfinished last line is left for the next time.
    """
    points: list[Point] = []
    try:
        with open(open_plain(path), "rb") as file:
            file.seek(offset)
            while (line := file.readline(_LONGEST_POINT)).endswith(b"\n"):
                offset += len(line)
                try:
                    values = json.loads(line)
                    step = int(values.pop("step"))
                    numbers = _numbers(values)
                except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
                    continue
                if step > after:
                    after = step
                    points.append(Point(step, numbers))
    except (FileNotFoundError, IsADirectoryError):
        pass  # the scratch folder has just become a stage, where the next look finds it
    except OSError as fault:
        if fault.errno != errno.EINVAL:  # no plain file: no curve
            raise
    return points, offset


def by_size(points: Sequence[Point], size: int) -> Iterator[list[Point]]:
    """The points in groups of at most `size` values, or of one point that has more."""
    group: list[Point] = []
    values = 0
    for point in points:
        if group and values + len(point.values) > size:
            yield group
            group, values = [], 0
        group.append(point)
        values += len(point.values)
    if group:
        yield group


def _short(value: object) -> str:
    """A value in a name: four digits tell proposals apart."""
    return f"{value:.4g}" if isinstance(value, float) else text(value)


def text(value: object) -> str:
    """A value as a parameter shows it: text as it is, a float as Python writes it (`8.0`, `inf`), the rest as JSON."""
    return value if isinstance(value, str) else repr(value) if isinstance(value, float) else json.dumps(value)


def _name(member: Record, columns: Sequence[str], last: str = "", *, arm: str | None = None) -> str:
    values = [(name.split(".", 1)[1], member["columns"].get(name)) for name in columns]
    settings = [f"{name}={_short(value)}" for name, value in values if value is not None]
    return " ".join([arm or str(member["method"]), *settings, f"seed={member['seed']}", last]).strip()


def _some(record: Record, *names: str) -> Record:
    return {name: record.get(name) for name in names}


def _texts(values: Record) -> dict[str, str]:
    return {name: text(value) for name, value in values.items() if value is not None}


def _numbers(values: Record) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if isinstance(value, int | float)}


def _provenance(record: Record) -> dict[str, str]:
    return {f"sweeps.{name}": str(record[name]) for name in ("reason", "code_digest") if record.get(name)}


def _version(record: Record, *names: str) -> str:
    return " ".join(str(record.get(name)) for name in names)
