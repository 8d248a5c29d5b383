"""`sweeps status SWEEP`: every row of a sweep, and what tells it from the others."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.text import count
from sweeps.command import Command, add_sweep, check_sweep, opened


def _run(given: argparse.Namespace, rest: Sequence[str]) -> int:
    store = opened(given)
    check_sweep(store, given.sweep)
    info = next(info for info in store.sweeps() if info.name == given.sweep)
    print(f"{info.name}: {info.done} of {count(info.wanted, 'evaluation')} done, {info.failed} failed")
    rows = store.rows(info.name)
    settings = _settings_apart(rows)
    table = [("trial", "method", "seed", "status", "score", "settings", "reason")] if rows else []
    for row in rows:
        score = "" if row.get("score") is None else f"{row['score']:.3f}"
        cell = str(row["trial_id"]), str(row["arm"]), str(row["seed"]), str(row["status"])
        table.append((*cell, score, settings[row["trial_id"]], row["reason"] or ""))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        print("  " + "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    return 0


def _settings_apart(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """By trial, the hyperparameters that tell it from its method's other rows, as tables write them."""
    from analysis.labels import hyperparameter_rank, setting_label  # noqa: PLC0415

    values: dict[tuple[str, str], set[object]] = {}
    for row in rows:
        for column in filter(lambda name: name.startswith(("train.", "decode.")), row):
            values.setdefault((row["arm"], column), set()).add(row[column])
    columns = sorted({column for _, column in values}, key=hyperparameter_rank)
    return {
        row["trial_id"]: setting_label({c: row[c] for c in columns if len(values.get((row["arm"], c), ())) > 1})
        for row in rows
    }


COMMAND = Command(name="status", help="what a sweep has done", run=_run, add=add_sweep)
