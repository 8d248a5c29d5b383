"""A sweep's rows as runs that DeepCAVE opens: a folder for each arm, by its converter of data frames.

DeepCAVE (Sass et al. 2022) reads from a folder `configspace.csv`, a line per hyperparameter, and `trials.csv`, a line
per trial; https://automl.github.io/DeepCAVE/main/converters/dataframe.html says how. It reads them with pandas, which
makes numbers, truth values and gaps of what looks so; hence every value of a categorical is written behind `at `.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from analysis.labels import Value
from sweeps.exact_json import Record

BAGS = ("train.", "decode.", "backbone.")
BUDGET = "train.steps"
LOG_FROM = 10.0
"""From this ratio of the largest to the smallest value on, a positive column is taken to be logarithmic."""

_STATUS = {"finished": "success", "failed": "crashed", "stopped": "aborted"}
_SPACE = ("name", "type", "log", "lower", "upper", "default", "distribution", "ordered")


def write_deepcave(rows: Sequence[Record], score_range: tuple[float, float], folder: Path) -> list[Path]:
    """Write `folder/ARM/` with both files for every arm of some rows, and return the folders.

    Hyperparameters are the columns that vary within the arm and that all its rows have; steps of training are the
    budget. An arm without any is left out: DeepCAVE needs a space.

    Args:
        rows: As `Store.rows` gives them, of one sweep.
        score_range: The lowest and the highest score there can be.
        folder: Made if it does not exist.
    """
    arms: dict[str, list[Record]] = {}
    for row in rows:
        arms.setdefault(row["arm"], []).append(row)
    written = []
    for arm, own in arms.items():
        columns = _columns(own)
        if not columns:
            continue
        place = folder / arm
        place.mkdir(parents=True, exist_ok=True)
        _write(place / "configspace.csv", _space(columns))
        _write(place / "trials.csv", _trials(own, columns, score_range))
        written.append(place)
    return written


def _columns(rows: Sequence[Record]) -> dict[str, list[Value]]:
    """By column, its value in every row."""
    names = sorted(name for name in rows[0] if name.startswith(BAGS) and name != BUDGET)
    found = {name: [row.get(name) for row in rows] for name in names}
    return {
        name: [value for value in values if isinstance(value, str | int | float)]
        for name, values in found.items()
        if all(isinstance(value, str | int | float) for value in values) and len(set(map(str, values))) > 1
    }


def _is_number(values: Sequence[Value]) -> bool:
    """Whether a column is numeric to DeepCAVE, whose ranges are finite: β = ∞ makes a categorical."""
    return all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values)


def _space(columns: Mapping[str, Sequence[Value]]) -> list[list[object]]:
    items = {
        name: list(dict.fromkeys(map(_text, values))) for name, values in columns.items() if not _is_number(values)
    }
    width = max(map(len, items.values()), default=0)
    lines: list[list[object]] = [[*_SPACE, *(f"item_{place}" for place in range(width))]]
    for name, values in columns.items():
        gaps: list[object] = [""] * width
        if name in items:
            own = items[name]
            lines.append([name, "categorical", False, "", "", own[0], "", False, *own, *gaps[len(own) :]])
            continue
        numbers = [float(value) for value in values]
        low, high = min(numbers), max(numbers)
        whole = all(isinstance(value, int) for value in values)
        scaled = low > 0 and high / low >= LOG_FROM
        lines.append([name, "integer" if whole else "float", scaled, low, high, "", "uniform", "", *gaps])
    return lines


def _trials(
    rows: Sequence[Record], columns: Mapping[str, Sequence[Value]], score_range: tuple[float, float]
) -> list[list[object]]:
    whole = {name: all(isinstance(value, int) for value in values) for name, values in columns.items()}
    number = {name: _is_number(values) for name, values in columns.items()}
    low, high = (f"{end:.6f}" for end in score_range)
    meta = ("status", "start_time", "end_time", "budget", "seed", "trial_id")
    times = [(_seconds(row.get("started_at")), _seconds(row.get("finished_at"))) for row in rows]
    first = min((start for start, _ in times if start is not None), default=0.0)
    configs: dict[str, int] = {}
    lines: list[list[object]] = []
    for place, (row, (start, end)) in enumerate(zip(rows, times, strict=True)):
        values = [
            (value if whole[name] else float(value)) if number[name] else _text(value)
            for name, value in ((name, own[place]) for name, own in columns.items())
        ]
        begun = first if start is None else start
        score = row.get("score")
        lines.append(
            [
                configs.setdefault(row["cell_id"], len(configs)),
                *values,
                "" if score is None else float(score),
                _STATUS[row["status"]],
                begun,
                begun if end is None else end,
                row.get(BUDGET, 0),
                row["seed"],
                row["trial_id"],
            ]
        )
    lines.sort(key=lambda line: (line[len(columns) + 3], line[-1]))  # DeepCAVE counts time from the first line
    header = ["config_id", *columns, f"metric:score [{low}; {high}] (maximize)", *meta]
    return [list(header), *lines]


def _text(value: Value) -> str:
    return f"at {value}"


def _seconds(time_utc: str | None) -> float | None:
    return None if time_utc is None else datetime.fromisoformat(time_utc).timestamp()


def _write(path: Path, lines: Sequence[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)
