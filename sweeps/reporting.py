"""Table, comparisons and figures of a sweep, from the store alone, and how they are printed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from analysis.ablation import Mode
from analysis.cells import cells_of
from analysis.comparison import Comparison, compare_methods, comparison_markdown
from analysis.published import beside_published
from analysis.render import to_markdown
from analysis.report import Report, write_report
from analysis.runs import RunTable
from ilql.hyperparameters import unknown
from sweeps.store import Store

Against: TypeAlias = tuple[str, str, Mapping[str, float]]
"""An arm, the baseline it is held against, and a fixed cell of the arm: `("ilql", "bc", {"train.tau": .8})`."""


def write_sweep_report(
    store: Store,
    sweep: str,
    against: Sequence[Against],
    *,
    mode: Mode = "default",
) -> tuple[Report, tuple[Comparison, ...]]:
    """Table, comparisons and figures of a sweep, from the store alone, under `<store>/reports/<sweep>/`.

    Args:
        store: Where the rows are.
        sweep: The sweep's name.
        against: The comparisons that are asked for.
        mode: `paper` counts SARSA's cells in ILQL's row as well.

    Raises:
        ValueError: There is no such sweep.
    """
    runs = store.runs(sweep)
    if not runs.height and store.get("sweep", sweep) is None:
        raise ValueError(unknown(sweep, "sweep of this store", [info.name for info in store.sweeps()]))
    finished = runs.filter(runs["status"] == "finished")["trial_id"].to_list()
    columns = ["episode_seed", "scene", "return", "turns"]
    by_arm = runs.with_columns(runs["arm"].alias("method"))
    table = RunTable(by_arm, store.episodes(finished, columns=columns if finished else None))
    made = [_comparisons(table, *asked) for asked in against]
    comparisons = tuple(comparison for found, _ in made for comparison in found)
    missing = [line for _, line in made if line is not None]
    store.compact()
    folder = store.folder / "reports" / sweep
    report = write_report(table, folder, mode=mode, comparisons=comparisons)
    report = dataclasses.replace(report, notes=(*report.notes, *missing))
    return report, comparisons


def _comparisons(
    table: RunTable, method: str, baseline: str, fixed: Mapping[str, float]
) -> tuple[tuple[Comparison, ...], str | None]:
    """The comparisons a question asks for, as far as their cells have finished runs; else a line saying why not."""
    cells = [cell for cell in cells_of(table) if cell.seeds]
    if not {method, baseline} <= {cell.method for cell in cells}:
        return (), None
    planned = any(
        cell.method == method and all(cell.hyperparameters.get(c) == v for c, v in fixed.items()) for cell in cells
    )
    try:
        return compare_methods(cells_of(table), method, baseline, fixed=fixed if planned else None), None
    except ValueError as error:  # no cell has a tune score yet, or several are at the fixed point
        return (), f"no comparison of {method} and {baseline}: {error}"


def files_to_show(report: Report) -> list[Path]:
    """The report's files that stand for all of it: the page holds every interactive figure once."""
    return [path for path in report.paths if path.parent.name != "figures" or path.suffix == ".svg"]


def print_report(report: Report, comparisons: Sequence[Comparison], say: Callable[[str], None]) -> None:
    """The table, the comparisons and where the files are."""
    say("")
    say(to_markdown(report.table))
    if (beside := beside_published(report.table)) is not None:
        say(beside)
    for comparison in comparisons:
        say(comparison_markdown(comparison))
    for note in report.notes:
        say(note)
    say(f"report  {report.paths[0]}")
    for path in report.paths[1:]:
        say(f"        {path}")
