"""`sweeps status SWEEP`: every row of a sweep, and what tells it from the others."""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.text import count
from sweeps.command import Command, add_json, add_sweep, chosen, print_json
from sweeps.exact_json import Record
from sweeps.store import Store, SweepInfo


def _add(parser: argparse.ArgumentParser) -> None:
    add_sweep(parser)
    add_json(parser)
    parser.add_argument(
        "--watch",
        nargs="?",
        type=_seconds,
        const=10.0,
        metavar="SECONDS",
        help="again every so many seconds (%(const)g if not said), until all is done",
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be seconds above 0, got {text!r}")
    return seconds


def _run(given: argparse.Namespace, rest: Sequence[str]) -> int:
    store, name = chosen(given)
    while True:
        info = next(info for info in store.sweeps() if info.name == name)
        rows = _with_doubts(store, name, store.rows(name))
        if given.json:
            print_json({"store": str(store.folder), **dataclasses.asdict(info), "rows": rows})
        else:
            if given.watch is not None and sys.stdout.isatty():
                print("\033[H\033[2J", end="")  # from the top of an empty screen
            _show(info, rows)
        ended = info.done + info.failed + info.stopped >= info.wanted
        if given.watch is None or ended:
            return 0
        sys.stdout.flush()
        time.sleep(given.watch)


def _with_doubts(store: Store, sweep: str, rows: Sequence[Record]) -> list[Record]:
    """The rows; those whose estimates are not believed say why in `doubt`."""
    if not any(row.get("evaluation.by") == "fitted_q" for row in rows):
        return list(rows)
    from sweeps.doubts import doubts_of  # noqa: PLC0415  it loads torch, which what was played can do without

    doubts = doubts_of(store, sweep, rows, compare=False)
    return [row | ({"doubt": doubts[row["trial_id"]]} if row["trial_id"] in doubts else {}) for row in rows]


def _show(info: SweepInfo, rows: Sequence[Mapping[str, Any]]) -> None:
    print(f"{info.name}: {info.done} of {count(info.wanted, 'evaluation')} done, {info.failed} failed")
    settings = _settings_apart(rows)
    table = [("trial", "method", "seed", "status", "score", "settings", "reason")] if rows else []
    for row in rows:
        score = "" if row.get("score") is None else f"{row['score']:.3f}" + ("†" if row.get("doubt") else "")
        said = f"not believed: {row['doubt']}" if row.get("doubt") else row["reason"] or ""
        cell = str(row["trial_id"]), str(row["arm"]), str(row["seed"]), str(row["status"])
        table.append((*cell, score, settings[row["trial_id"]], said))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        print("  " + "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


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


COMMAND = Command(name="status", help="what a sweep has done", run=_run, add=_add)
