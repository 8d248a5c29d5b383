"""Tables across the sweeps of several rewards, from the store alone: methods by reward, and who does well elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from analysis.ablation import ablation_table
from analysis.across_section import across_section
from analysis.cells import cells_of
from analysis.labels import Value
from analysis.report import write_section
from analysis.reward_render import rewards_csv, rewards_json, rewards_latex, rewards_markdown
from analysis.reward_tables import RewardTables, method_by_reward
from analysis.runs import RunTable
from analysis.section import section_markdown
from analysis.transfer import transfer_tables
from analysis.varied import Varied, varied_section
from sweeps.names import report_folder
from sweeps.one_thread import one_thread
from sweeps.references import score_range
from sweeps.run_tables import run_table
from sweeps.store import Store


@one_thread
def write_reward_report(store: Store, sweeps: Mapping[str, str], *, transfer: bool) -> tuple[list[Path], list[str]]:
    """The files of the tables across rewards, under `<store>/reports/`, and the tables as lines to print.

    `rewards.md` (`.tex`, `.csv`, `.json`) holds methods by reward; `transfer.*` holds, for the best method of each
    training reward and for every method, how its policies do under all rewards. The best method's is printed.

    Args:
        store: Where the rows are.
        sweeps: By training reward, the sweep whose methods learned from it and are judged by it. Where one has no
            finished rows, its numbers are dashes.
        transfer: Whether to make the transfer tables.

    Raises:
        ValueError: No sweep is named, there is no such sweep, or its rows are about another reward or task.
    """
    if not sweeps:
        raise ValueError("a reward report needs at least one sweep, got none")
    tables = {reward: run_table(store, sweep, every_reward=transfer) for reward, sweep in sweeps.items()}
    made = {"rewards": method_by_reward({reward: ablation_table(table) for reward, table in tables.items()})}
    if transfer:
        made["transfer"] = transfer_tables(tables)

    folder = report_folder(store.folder, joined_name(list(sweeps.values())))
    folder.mkdir(parents=True, exist_ok=True)
    paths = [path for name, each in made.items() for path in _write(folder, name, each)]
    across, said = _across(store, sweeps, tables, folder)
    paths += across
    lines = ["", *(rewards_markdown(RewardTables(each.tables[:1], each.footnotes)) for each in made.values())]
    return paths, [*lines, *said]


@one_thread
def write_across_report(
    store: Store, sweeps: Sequence[str], *, folder: Path | None = None
) -> tuple[list[Path], list[str]]:
    """The files of what holds across several sweeps, each a task or reward of its own, and lines to print.

    Args:
        store: Where the rows are.
        sweeps: Their names.
        folder: Where to; one under `<store>/reports/` unless another is named.

    Raises:
        ValueError: There is no such sweep.
    """
    tables = {sweep: run_table(store, sweep) for sweep in sweeps}
    names = {sweep: sweep for sweep in sweeps}
    paths, said = _across(store, names, tables, folder or report_folder(store.folder, joined_name(sweeps)))
    return paths, said or [
        "nothing is common to the sweeps: two with finished runs of BC and another method are needed"
    ]


@one_thread
def write_varied_report(store: Store, column: str, sweeps: Mapping[Value, str]) -> tuple[list[Path], list[str]]:
    """The files that show how methods do as one setting varies, under `<store>/reports/`, and lines to print.

    Args:
        store: Where the rows are.
        column: What varies.
        sweeps: By its value, the sweep.
    """
    tables = [Varied(value, ablation_table(run_table(store, sweep))) for value, sweep in sweeps.items()]
    section = varied_section(column, tables)
    paths = write_section(section, report_folder(store.folder, joined_name(list(sweeps.values()))))
    return list(paths), ["", section_markdown(section)]


def joined_name(sweeps: Sequence[str]) -> str:
    """One name for several sweeps: what their names begin with alike, then what is each one's own, with `+` between."""
    names = list(dict.fromkeys(sweeps))
    if len(names) == 1:
        return names[0]
    parts = [name.split("-") for name in names]
    alike = 0
    while all(len(each) > alike + 1 and each[alike] == parts[0][alike] for each in parts):
        alike += 1
    return "-".join([*parts[0][:alike], "+".join("-".join(each[alike:]) for each in parts)])


def _across(
    store: Store, sweeps: Mapping[str, str], tables: Mapping[str, RunTable], folder: Path
) -> tuple[list[Path], list[str]]:
    cells = {name: cells_of(table) for name, table in tables.items()}
    ranges = {name: score_range(store, sweep) for name, sweep in sweeps.items() if _says_its_task(store, sweep)}
    section = across_section({name: cells[name] for name in ranges}, ranges, np.random.default_rng(6))
    if section is None:
        return [], []
    unknown = [f"not across tasks, for want of a record of its task: {name}" for name in tables if name not in ranges]
    return list(write_section(section, folder)), ["", section_markdown(section), *unknown]


def _says_its_task(store: Store, sweep: str) -> bool:
    """Whether a sweep's trials are recorded whole: without its task nobody knows what returns there can be."""
    return any("spec" in member for member in store.members(sweep)[:1])


def _write(folder: Path, name: str, tables: RewardTables) -> list[Path]:
    """The tables in every format."""
    formats: Mapping[str, Callable[[RewardTables], str]] = {
        "md": rewards_markdown,
        "tex": rewards_latex,
        "csv": rewards_csv,
        "json": rewards_json,
    }
    paths = [folder / f"{name}.{suffix}" for suffix in formats]
    for path, render in zip(paths, formats.values(), strict=True):
        path.write_text(render(tables), encoding="utf-8", newline="\n")
    return paths
