"""Transfer: policies of one training reward, judged by the others.

An episode carries its return under every reward of its task. So what was learned from one reward is judged by another
without playing again, which is the same as playing again as long as rewards do not move the world: it answers, and
ends a dialogue, by the same rule under all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from analysis.ablation import AblationTable, ablation_table, described, method_notes, seed_notes
from analysis.cells import Cell, cells_of, varying
from analysis.comparison import chosen_on_tune
from analysis.estimators import population_sigma
from analysis.labels import in_order, method_label
from analysis.reward_tables import (
    RewardField,
    RewardRow,
    RewardTable,
    RewardTables,
    check_reward,
    code_notes,
    common,
    episode_notes,
    lost_notes,
    place,
    run_notes,
)
from analysis.runs import RunTable
from analysis.text import DASH, count

RETURN_PREFIX = "return."
"""Begins the episode columns that hold the return under each reward, by its name."""

BEST = "best"
"""The name of the transfer table of the best method of each training reward."""


def transfer_tables(tables: Mapping[str, RunTable], *, methods: Sequence[str] | None = None) -> RewardTables:
    """Training reward down, evaluation reward across: first of each reward's best method, then of every method.

    A row's cell is chosen on the tune scenes under the training reward; its episodes on the report scenes are then
    scored under every reward. Rewards that were trained on stand first, then those the episodes carry besides.

    Args:
        tables: By training reward, the runs that were trained on it and judged by it, their episodes with a column
            `return.REWARD` per reward of the task. One may be empty.
        methods: The methods to have a table; all that have runs if not given.

    Raises:
        ValueError: A table is about another reward than it is given for, the tables differ in task or split, or
            only some of a table's episodes carry their return under a reward.
    """
    blocks = {reward: table.block() for reward, table in tables.items()}
    for reward, block in blocks.items():
        check_reward(reward, block["data.reward"], block["evaluation.reward"])
    where = place(
        common("task", [block["task"] for block in blocks.values()]),
        common("split", [block["evaluation.split"] for block in blocks.values()]),
    )
    across = _evaluation_rewards(tables)
    parts = {reward: _Part.of(reward, table, across) for reward, table in tables.items()}
    wanted = in_order(methods if methods is not None else [name for table in tables.values() for name in table.methods])
    by_reward = {reward: part.best(wanted) for reward, part in parts.items()}
    best = RewardTable(
        name=BEST,
        caption=f"Transfer{where}: the best method of each training reward, judged by every reward.",
        stubs=("Trained on", "Cell"),
        score="score",
        rewards=across,
        rows=tuple(part.row(by_reward[reward], across, named=True) for reward, part in parts.items()),
    )
    of_methods = [
        RewardTable(
            name=method,
            caption=f"Transfer of {method_label(method)}{where}: trained on one reward, judged by every reward.",
            stubs=best.stubs,
            score=best.score,
            rewards=across,
            rows=tuple(part.row(method, across, named=False) for part in parts.values()),
        )
        for method in wanted
    ]
    notes = [
        "The cell of a row is chosen on the tune scenes under the reward it was trained on, never on the report "
        "scenes: the method's cell with the highest tune score, among those with the most training seeds. The best "
        "method is the one whose chosen cell has the highest tune score.",
        "The episodes that cell played on the report scenes are scored under every reward; each carries its return "
        "under all of them, so nothing is played again. Rewards do not move the world: it answers, and ends a "
        "dialogue, by the same rule under all of them.",
        "Score: the mean return of that cell, ± one standard error over episodes, training seeds averaged per episode. "
        "Numbers under different rewards are in different units; compare down a column.",
        "σ: population standard deviation of the mean returns of the method's design cells of that training reward, "
        "judged by the reward of the column. A dash stands for fewer than two cells, and wherever there is no number.",
        *seed_notes([len(cell.seeds) for part in parts.values() for cell in part.cells if cell.seeds]),
        *method_notes([row for part in parts.values() for row in part.ablation.rows if row.method in wanted], "honest"),
        *_missing_notes(parts, wanted, across),
        *episode_notes({reward: part.ablation.episodes for reward, part in parts.items()}),
        *run_notes({reward: table.counts() for reward, table in tables.items()}),
        *lost_notes([row.fields[0] for table in of_methods for row in table.rows if row.fields]),
        *code_notes([table.finished().runs["code_digest"].drop_nulls().to_list() for table in tables.values()]),
    ]
    return RewardTables((best, *of_methods), tuple(notes))


def judged_by(table: RunTable, reward: str) -> RunTable:
    """The same runs and episodes with scores under another reward, and without the tune scores of their own.

    Raises:
        ValueError: Not every episode carries its return under that reward.
    """
    column = f"{RETURN_PREFIX}{reward}"
    without = table.episodes.height
    if column in table.episodes.columns:
        without = table.episodes[column].null_count()
    if without:
        raise ValueError(
            f"to be judged by {reward!r} every episode must have {column!r}, got {count(without, 'episode')} without it"
        )
    episodes = table.episodes.with_columns(pl.col(column).alias("return"))
    means = episodes.group_by("trial_id").agg(pl.col("return").mean().alias("judged"))
    runs = table.runs.join(means, on="trial_id", how="left", maintain_order="left").with_columns(
        pl.when(pl.col("status") == "finished").then(pl.col("judged")).alias("score"),
        pl.lit(reward).alias("evaluation.reward"),
        pl.lit(None, pl.Float64).alias("tune_score"),
    )
    return RunTable(runs.drop("judged"), episodes)


@dataclass(frozen=True)
class _Part:
    """What a training reward contributes: its cells under its own reward, and under each that judges it, by id."""

    reward: str
    ablation: AblationTable
    cells: tuple[Cell, ...]
    shown: tuple[str, ...]
    judged: Mapping[str, Mapping[str, Cell]]

    @staticmethod
    def of(reward: str, table: RunTable, across: Sequence[str]) -> _Part:
        cells = cells_of(table)
        carried = _rewards_of(table)
        judged = {
            other: {cell.cell_id: cell for cell in cells_of(judged_by(table, other))}
            for other in across
            if other in carried and any(cell.seeds for cell in cells)
        }
        return _Part(reward, ablation_table(table, cells=cells), cells, varying(cells), judged)

    def chosen(self, method: str) -> Cell | None:
        try:
            return chosen_on_tune(self.cells, method)
        except ValueError:  # nothing has finished, or nothing was scored on the tune scenes: a note says which
            return None

    def best(self, methods: Sequence[str]) -> str | None:
        """The method whose chosen cell has the highest tune score, the first of equals."""
        tuned = {m: cell.tune_score for m in methods if (cell := self.chosen(m)) and cell.tune_score is not None}
        return max(tuned, key=lambda method: tuned[method]) if tuned else None

    def row(self, method: str | None, across: Sequence[str], *, named: bool) -> RewardRow:
        cell = None if method is None else self.chosen(method)
        text = DASH
        if cell is not None:
            label, setting = method_label(cell.method), cell.setting(self.shown)
            text = (f"{label} ({setting})" if setting else label) if named else setting or DASH
        return RewardRow((self.reward, text), tuple(self._field(method, cell, other) for other in across))

    def _field(self, method: str | None, cell: Cell | None, evaluation_reward: str) -> RewardField:
        own = [each for each in self.cells if each.method == method]
        judged = self.judged.get(evaluation_reward, {})
        design = [judged[each.cell_id] for each in own if each.origin == "design" and each.seeds and judged]
        score = judged[cell.cell_id].score if cell is not None and judged else None
        return RewardField(
            method=method,
            train_reward=self.reward,
            evaluation_reward=evaluation_reward,
            score=score.value if score else None,
            standard_error=score.standard_error if score else None,
            sigma=population_sigma(np.array([each.returns.mean() for each in design], dtype=np.float64)),
            episodes=score.episodes if score else None,
            design_cells=sum(each.origin == "design" and bool(each.seeds) for each in own),
            design_cells_wanted=sum(each.origin == "design" for each in own),
            failed=sum(each.failed for each in own),
            stopped=sum(each.stopped for each in own),
            cell=described(cell, self.shown) if cell is not None else None,
        )


def _rewards_of(table: RunTable) -> list[str]:
    return [name.removeprefix(RETURN_PREFIX) for name in table.episodes.columns if name.startswith(RETURN_PREFIX)]


def _evaluation_rewards(tables: Mapping[str, RunTable]) -> tuple[str, ...]:
    others = sorted({reward for table in tables.values() for reward in _rewards_of(table)} - set(tables))
    return (*tables, *others)


def _missing_notes(parts: Mapping[str, _Part], methods: Sequence[str], across: Sequence[str]) -> list[str]:
    """Of which method and training reward nothing could be chosen, and why; and what could not be scored."""
    reasons: dict[str, list[str]] = {}
    for reward, part in parts.items():
        for method in methods:
            if part.chosen(method) is None:
                done = any(cell.method == method and cell.seeds for cell in part.cells)
                reason = "without a score on the tune scenes" if done else "without a finished run"
                reasons.setdefault(reason, []).append(f"{method_label(method)} under {reward}")
    lines = [f"No cell could be chosen, {reason}: {', '.join(names)}." for reason, names in reasons.items()]
    silent = [
        f"of {reward} under {other}"
        for reward, part in parts.items()
        for other in across
        if part.judged and other not in part.judged
    ]
    if silent:
        lines.append(f"Not scored, since the episodes do not carry that return: {', '.join(silent)}.")
    return lines
