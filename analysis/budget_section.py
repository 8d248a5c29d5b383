"""The section on budgets: what tuning buys, and how many evaluations it takes to beat cloning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from analysis.budget import Crossing, Trained, TuningCurve, crossings, tuning_curve
from analysis.cells import Cell, without_survivors
from analysis.comparison import candidates_on_tune, chosen_on_tune
from analysis.estimators import Estimate, Floats
from analysis.figures import (
    draw_tuning,
)
from analysis.honest import tuned
from analysis.honest_table import FEWEST_SEEDS, training_of
from analysis.labels import in_order, method_label
from analysis.landscape import weights_key
from analysis.runs import RunTable
from analysis.section import Section, TextTable
from analysis.selection import Key
from analysis.text import DASH, count, number

BAR = "bc"
_CHANCES = {0.5: "one half", 0.9: "nine tenths"}


def budget_section(table: RunTable, cells: Sequence[Cell], rng: np.random.Generator, *, y_title: str) -> Section | None:
    """Expected online performance of every method with a grid, and how many evaluations until it beats cloning."""
    curves: list[TuningCurve] = []
    passed: list[tuple[str, tuple[Crossing, ...]]] = []
    text: list[str] = []
    bar = None
    try:
        bar = bar_of(cells)
    except ValueError as reason:
        text.append(f"{method_label(BAR)} is no bar: {reason}.")
    for method in in_order(cell.method for cell in cells):
        try:
            trained = trained_of(table, cells, method)
        except ValueError as reason:
            if sum(cell.method == method for cell in cells) > 1:
                text.append(f"No curve of {method_label(method)}: {reason}.")
            continue
        curves.append(tuning_curve(trained, rng))
        if bar is not None and method != BAR:
            passed.append((method, crossings(trained, bar)))
    if not curves:
        return None
    said = [_crossing_text(method, found, bar) for method, found in passed if bar is not None]
    text = [
        *said,
        *text,
        "Cells are drawn from the grid without repetition, trained once and kept by their score on the tune scenes. It "
        "says what trying cells of these grids buys; of a search that learns from what it saw, or of other ranges, it "
        "says nothing.",
    ]
    named = None if bar is None else (method_label(BAR), bar)
    caption = (
        "Expected score on the report scenes of the cell kept, by U-statistic. Bands hold a whole curve with "
        "probability .95 over training seeds and scenes; none with too few seeds. Dashed: "
        f"{method_label(BAR)}, tuned, ± one standard error over training seeds and scenes (scenes alone with one "
        f"seed). {_runs_text(table)}"
    )
    header = ("Method", "Cells", "Seeds", "P = 1/2", "P = 9/10", "Seconds at 1/2")
    drawn = {curve.method: curve for curve in curves}
    rows = [
        (
            method_label(method),
            str(drawn[method].cells),
            str(drawn[method].seeds),
            *(_crossing_cell(each) for each in found),
            number(found[0].seconds, 0),
        )
        for method, found in passed
    ]
    title = f"Evaluations until the cell kept beats {method_label(BAR)}, with 95 % interval"
    return Section(
        "budget",
        "What tuning buys",
        tuple(text),
        (TextTable(title, header, tuple(rows), (False, True, True, True, True, True)),) if rows else (),
        {
            "tuning_curves": (draw_tuning(curves, named, y_title=y_title, by_seconds=False), caption),
            "tuning_seconds": (
                draw_tuning(curves, named, y_title=y_title, by_seconds=True),
                caption
                + " Seconds of training and of play on the tune and the report scenes; weights that cells share "
                "are paid for once.",
            ),
        },
    )


def bar_of(cells: Sequence[Cell]) -> Estimate | None:
    """What cloning scores when tuned, with its standard error over training seeds and scenes; None without cloning.

    At each seed of the cell that the tune scores of the others choose (`analysis.honest.tuned`); the highest mean on
    the report scenes would be a bar that luck has raised. With one seed, the cell that the tune scenes choose, and the
    error over episodes alone: `seeds` of the estimate says so.

    Raises:
        ValueError: Cloning has several cells and no tune scores, or cells without a seed in common.
    """
    own = [cell for cell in without_survivors(cells) if cell.method == BAR and cell.seeds]
    if not own:
        return None
    among = own if len(own) == 1 else candidates_on_tune(own, BAR)
    seeds = sorted(set.intersection(*(set(cell.seeds) for cell in among)))
    if not seeds:
        raise ValueError("no training seed has finished in all its cells")
    first = among[0]
    if len(seeds) < FEWEST_SEEDS or len(set(first.scenes.tolist())) < FEWEST_SEEDS:
        return (first if len(among) == 1 else chosen_on_tune(own, BAR)).score
    places = [[cell.seeds.index(seed) for seed in seeds] for cell in among]
    returns = np.stack([cell.returns[at] for cell, at in zip(among, places, strict=True)])
    scores = None
    if len(among) > 1:
        scores = np.array([[(c.tune_scores or ())[i] for i in at] for c, at in zip(among, places, strict=True)])
    found = tuned(returns, first.scenes, scores, len({training_of(cell) for cell in among}))
    error = float(np.sqrt(found.noise.variance(found.share)))
    return Estimate(float(found.returns.mean()), error, first.scenes.size, len(seeds))


def trained_of(table: RunTable, cells: Sequence[Cell], method: str) -> Trained:
    """A method's design cells as a grid that was trained at the seeds which all of them have.

    Raises:
        ValueError: There are fewer than two such cells, they share no seed, or one has no score on the tune scenes.
    """
    own = [cell for cell in cells if cell.method == method and cell.origin == "design"]
    lost = sum(not cell.seeds for cell in own)
    own = [cell for cell in own if cell.seeds]
    if len(own) < 2:
        raise ValueError(
            f"a curve needs two cells of a grid, got {len(own)}{f' and {lost} that failed' if lost else ''}"
        )
    seeds = sorted(set.intersection(*(set(cell.seeds) for cell in own)))
    if not seeds:
        raise ValueError("no training seed has finished in all cells")
    if lost:
        raise ValueError(f"cells without a finished run cost, too, and are never kept: {lost} of the grid")
    finished = table.runs.filter(pl.col("status") == "finished").unique(subset=["trial_id"], maintain_order=True)
    by_run = {(row["cell_id"], row["seed"]): row for row in finished.iter_rows(named=True)}
    rows = [[by_run[cell.cell_id, seed] for cell in own] for seed in seeds]
    if any(row["tune_score"] is None for of_seed in rows for row in of_seed):
        raise ValueError("a cell has no score on the tune scenes, by which it would be kept")
    groups: dict[Key, int] = {}
    places = [[cell.seeds.index(seed) for cell in own] for seed in seeds]
    return Trained(
        method=method,
        tune=np.array([[row["tune_score"] for row in of_seed] for of_seed in rows], dtype=np.float64),
        returns=np.array([[cell.returns[at] for cell, at in zip(own, of_seed, strict=True)] for of_seed in places]),
        scenes=own[0].scenes,
        trainings=np.array([groups.setdefault(weights_key(cell), len(groups)) for cell in own]),
        train_seconds=_mean_seconds(rows, "train_seconds"),
        evaluate_seconds=_mean_seconds(rows, "evaluate_seconds") + _mean_seconds(rows, "tune_seconds"),
    )


def _crossing_text(method: str, found: Sequence[Crossing], bar: Estimate) -> str:
    parts = []
    for each in found:
        chance = _CHANCES.get(each.probability, str(each.probability))
        if each.evaluations is None:
            parts.append(f"no number of the grid's cells reaches probability {chance}")
        else:
            parts.append(f"{_crossing_cell(each)} with probability {chance}")
    return (
        f"Evaluations until {method_label(method)} beats {method_label(BAR)} ({number(bar.value)} ± "
        f"{number(bar.standard_error)}): {'; '.join(parts)}."
    )


def _crossing_cell(each: Crossing) -> str:
    at = DASH if each.evaluations is None else str(each.evaluations)
    if each.why:
        return f"{at} ({each.why})"
    return f"{at} [{'> all' if each.low is None else each.low}, {'> all' if each.high is None else each.high}]"


def _runs_text(table: RunTable) -> str:
    counts = table.counts()
    return f"{count(counts['finished'], 'run')} finished, {counts['failed']:,} failed, {counts['stopped']:,} stopped."


def _mean_seconds(rows: Sequence[Sequence[Mapping[str, object]]], column: str) -> Floats:
    seconds: Floats = np.array([[float(str(row.get(column) or 0.0)) for row in of_seed] for of_seed in rows]).mean(
        axis=0
    )
    return seconds
