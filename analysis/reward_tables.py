"""Tables across rewards: what they are made of, and methods under each reward. `analysis.transfer` has the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from analysis.ablation import AblationRow, AblationTable, BestCell, method_notes, seed_notes
from analysis.labels import in_order, method_label
from analysis.text import count

_Common = TypeVar("_Common")


@dataclass(frozen=True)
class RewardField:
    """One number of a table across rewards, with what it stands on.

    Attributes:
        method: The method; None where none could be chosen.
        train_reward: The reward it learned from.
        evaluation_reward: The reward it is judged by.
        score: Mean return of `cell`; None where there is none.
        standard_error: Of `score` over episodes; None where there is no score, or one episode.
        sigma: Population standard deviation over the mean returns of the design cells; None for fewer than two.
        episodes: Episodes per evaluation; None where nothing has finished.
        design_cells: Design cells with a finished run: those in `sigma`.
        design_cells_wanted: All design cells there are rows for.
        failed: Failed runs of the method.
        stopped: Stopped runs of the method.
        cell: The cell behind `score`.
    """

    method: str | None
    train_reward: str
    evaluation_reward: str
    score: float | None = None
    standard_error: float | None = None
    sigma: float | None = None
    episodes: int | None = None
    design_cells: int = 0
    design_cells_wanted: int = 0
    failed: int = 0
    stopped: int = 0
    cell: BestCell | None = None


@dataclass(frozen=True)
class RewardRow:
    """A line: what stands before its numbers, one text per stub column, and a field per reward."""

    stubs: tuple[str, ...]
    fields: tuple[RewardField, ...]


@dataclass(frozen=True)
class RewardTable:
    """Rewards across, with a score ± its standard error and a σ under each.

    Attributes:
        name: `methods`, `best`, or the method of a transfer table.
        caption: One line: what was measured, on what, how often.
        stubs: The header of what stands before the numbers.
        score: What the scores are called in a header, `max` or `score`.
        rewards: The evaluation rewards, across.
        rows: The lines.
    """

    name: str
    caption: str
    stubs: tuple[str, ...]
    score: str
    rewards: tuple[str, ...]
    rows: tuple[RewardRow, ...]


@dataclass(frozen=True)
class RewardTables:
    """Tables that share their footnotes: what a reader has to know, a sentence or two each."""

    tables: tuple[RewardTable, ...]
    footnotes: tuple[str, ...]


def method_by_reward(tables: Mapping[str, AblationTable], *, methods: Sequence[str] | None = None) -> RewardTables:
    """Methods down, rewards across: of each the max score ± its standard error, and σ.

    Args:
        tables: By reward, the ablation of what was trained on it and is judged by it. One may lack methods, or be
            empty: a dash stands for each number there is not.
        methods: The methods to have a row; all of the tables' if not given.

    Raises:
        ValueError: A table is about another reward than it is given for, or the tables differ in task, split or style.
    """
    for reward, table in tables.items():
        check_reward(reward, table.train_reward, table.evaluation_reward)
    task = common("task", [table.task for table in tables.values()])
    split = common("split", [table.split for table in tables.values()])
    if len(styles := {table.style for table in tables.values()}) > 1:
        raise ValueError(f"tables across rewards must have one style, got {', '.join(sorted(styles))}")
    found = {(row.method, reward): row for reward, table in tables.items() for row in table.rows}
    rows = tuple(
        RewardRow(
            stubs=(method_label(method),),
            fields=tuple(_field(method, r, table, found.get((method, r))) for r, table in tables.items()),
        )
        for method in in_order(methods if methods is not None else [method for method, _ in found])
    )
    shown = RewardTable(
        name="methods",
        caption=f"Methods under each reward{place(task, split)}: trained on it and scored by it.",
        stubs=("Method",),
        score="max",
        rewards=tuple(tables),
        rows=rows,
    )
    own = [found[method, reward] for method, reward in found if methods is None or method in methods]
    notes = [
        "Every reward is an ablation of its own: trained on it and scored by it. Numbers under different rewards are "
        "in different units; compare down a column.",
        "Max: the highest mean return of a cell, ± one standard error over episodes, training seeds averaged per "
        "episode. It is the max over the same episodes that it is reported on, so it is optimistic, the more so the "
        "more cells a method has.",
        "σ: population standard deviation of the mean returns of a method's design cells. A dash stands for fewer "
        "than two cells, and wherever there is no number.",
        *seed_notes([number for row in own if row.best for number in row.seeds]),
        *(note for style in styles for note in method_notes(own, style)),
        *episode_notes({reward: table.episodes for reward, table in tables.items()}),
        *run_notes({r: {"finished": t.finished, "failed": t.failed, "stopped": t.stopped} for r, t in tables.items()}),
        *lost_notes([field for row in rows for field in row.fields]),
        *code_notes([table.code_digests for table in tables.values()]),
    ]
    return RewardTables((shown,), tuple(notes))


def _field(method: str, reward: str, table: AblationTable, row: AblationRow | None) -> RewardField:
    if row is None:
        return RewardField(method, reward, reward)
    return RewardField(
        method=method,
        train_reward=reward,
        evaluation_reward=reward,
        score=row.score,
        standard_error=row.standard_error,
        sigma=row.sigma,
        episodes=table.episodes if row.best else None,
        design_cells=row.design_cells,
        design_cells_wanted=row.design_cells_wanted,
        failed=row.failed,
        stopped=row.stopped,
        cell=row.best,
    )


def check_reward(reward: str, *found: object) -> None:
    """Refuse a table whose rewards, as far as they are known, are others than the one it is given for."""
    for other in found:
        if other not in {None, reward}:
            raise ValueError(f"the table of reward {reward!r} must be trained on it and judged by it, got {other!r}")


def common(what: str, values: Sequence[_Common | None]) -> _Common | None:
    """The value they all have, as far as they have one. Raises ValueError where two differ."""
    known = list(dict.fromkeys(value for value in values if value is not None))
    if len(known) > 1:
        raise ValueError(f"tables across rewards must have one {what}, got {', '.join(map(repr, known))}")
    return known[0] if known else None


def place(task: object, split: object) -> str:
    """` on visdial, report scenes`; empty where nothing is known."""
    return "" if task is None else f" on {task}, {split} scenes"


def episode_notes(episodes: Mapping[str, int | None]) -> list[str]:
    """How many episodes a run has, by training reward where they differ."""
    known = {reward: number for reward, number in episodes.items() if number is not None}
    if len(set(known.values())) == 1:
        return [f"{count(next(iter(known.values())), 'episode')} per run."]
    return [f"Episodes per run: {', '.join(f'{r} {n:,}' for r, n in known.items())}."] if known else []


def run_notes(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """How many runs there are of each training reward and status."""
    parts = [
        f"{r} {n['finished']:,} finished, {n['failed']:,} failed, {n['stopped']:,} stopped" for r, n in counts.items()
    ]
    return [f"Runs, by training reward: {'; '.join(parts)}. Failed and stopped runs are counted, and in no number."]


def lost_notes(fields: Sequence[RewardField]) -> list[str]:
    """Where design cells are missing for want of a finished run, one field per method and training reward."""
    lost = [
        f"{method_label(field.method)} under {field.train_reward} {field.design_cells} of {field.design_cells_wanted}"
        for field in fields
        if field.method is not None and field.design_cells < field.design_cells_wanted
    ]
    return [f"Design cells with a finished run: {', '.join(lost)}; the others are in no number."] if lost else []


def code_notes(digests: Sequence[Sequence[str]]) -> list[str]:
    """That the runs are of several versions of the code, if they are."""
    distinct = sorted({digest for each in digests for digest in each})
    if len(distinct) < 2:
        return []
    return [f"Mixed code: the runs were made by {len(distinct)} versions of the code ({', '.join(distinct)})."]
