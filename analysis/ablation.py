"""The ablation table: per method its best score and how much its hyperparameters move it.

The numbers follow the paper (arXiv 2206.11871, ablation on visual dialogue): the highest mean return of any cell with
its standard error over episodes, and the population standard deviation over cells. What a reader has to know to judge
them stands in the footnotes, which are part of the table in every format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from analysis.broken import broken_notes
from analysis.cells import Cell, best_cell, cells_of, varying
from analysis.estimators import mean_over_episodes, population_sigma
from analysis.labels import Value, in_order, method_label
from analysis.runs import STATUSES, RunTable
from analysis.styles import Style
from analysis.text import NOT_BELIEVED, count


@dataclass(frozen=True)
class BestCell:
    """The cell behind a method's max score.

    Attributes:
        cell_id: Its key.
        method: Its own method, which in paper style may be `sarsa` in ILQL's row.
        origin: `design` or `refinement`.
        setting: Its hyperparameters in one line, as far as they vary within a method; empty where none does.
        hyperparameters: All of them.
        seeds: Its finished training seeds.
        tune_score: Its mean score on the tune scenes; None where it has none.
    """

    cell_id: str
    method: str
    origin: str
    setting: str
    hyperparameters: tuple[tuple[str, Value], ...]
    seeds: tuple[int, ...]
    tune_score: float | None


@dataclass(frozen=True)
class AblationRow:
    """One method's line.

    Attributes:
        method: The method's name.
        score: The highest mean return of a cell, of those that are believed if any is; None where nothing has finished.
        standard_error: Of `score` over episodes; None where nothing, or one episode, has finished.
        sigma: Population standard deviation over the mean returns of the design cells; None for fewer than two.
        design_cells: Design cells with a finished run: those in `sigma`.
        design_cells_wanted: All design cells there are rows for.
        refinement_cells: Refinement cells with a finished run.
        failed: Failed runs.
        stopped: Stopped runs.
        seeds: The fewest and the most finished training seeds of a finished cell; (0, 0) where there is none.
        best: The cell behind `score`; None where nothing has finished.
        doubt: Why `score` is not believed, in words; None where it is.
        doubted: Number of its finished cells whose estimates are not believed.
    """

    method: str
    score: float | None
    standard_error: float | None
    sigma: float | None
    design_cells: int
    design_cells_wanted: int
    refinement_cells: int
    failed: int
    stopped: int
    seeds: tuple[int, int]
    best: BestCell | None
    doubt: str | None = None
    doubted: int = 0


@dataclass(frozen=True)
class AblationTable:
    """An ablation of methods on one task, reward and split.

    Attributes:
        rows: One per method, in the fixed order.
        style: Whether SARSA's cells count in ILQL's row as well; also which table a report leads with (`Style`).
        task: The task's name; None where the run table is empty, like the next three.
        train_reward: The reward the methods learned from.
        evaluation_reward: The reward the scores are in.
        split: The scenes the scores are from.
        episodes: Episodes per evaluation; None where nothing has finished.
        finished, failed, stopped: Number of runs.
        code_digests: Of all finished runs, sorted.
        footnotes: What a reader has to know, a sentence or two each.
        estimated: True if scores are estimates and no returns.
        failures: What failed: method, reason, number of runs; `RunTable.failures` has the order.
        digests: Of what it rests on, by what they are of.
    """

    rows: tuple[AblationRow, ...]
    style: Style
    task: str | None
    train_reward: str | None
    evaluation_reward: str | None
    split: str | None
    episodes: int | None
    finished: int
    failed: int
    stopped: int
    code_digests: tuple[str, ...]
    footnotes: tuple[str, ...]
    estimated: bool = False
    failures: tuple[tuple[str, str, int], ...] = ()
    digests: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def caption(self) -> str:
        """One line: what was measured, on what, how often."""
        runs = f"{count(self.finished, 'finished run')}, {self.failed:,} failed, {self.stopped:,} stopped"
        if self.task is None:
            return f"Ablation: {runs}."
        trained = "" if self.train_reward is None else f" trained on reward {self.train_reward},"
        played = "" if self.episodes is None else f" ({count(self.episodes, 'episode')} per run)"
        judged = "estimated under" if self.estimated else "scored by"
        return (
            f"Ablation on {self.task}:{trained} {judged} reward {self.evaluation_reward} "
            f"on the {self.split} scenes{played}; {runs}."
        )


def ablation_table(
    table: RunTable,
    *,
    methods: Sequence[str] | None = None,
    style: Style = "honest",
    cells: Sequence[Cell] | None = None,
    references: Mapping[str, Sequence[float]] | None = None,
    notes: Sequence[str] = (),
    digests: Mapping[str, Sequence[str]] | None = None,
) -> AblationTable:
    """The ablation table of all runs in `table`.

    Args:
        table: Runs that share task, rewards, split and episodes.
        methods: The methods to have a row; those in `table` if not given. One without runs gets dashes.
        style: See `Style`.
        cells: `cells_of(table)` where it is at hand already.
        references: Returns of others that learn nothing here, such as a scripted player's, by name: a row each, behind
            the methods'.
        notes: What else a reader has to know: further footnotes.
        digests: Of what the table rests on beside the code, by what they are of.

    Raises:
        ValueError: The runs differ in what they were trained or judged on.
    """
    block = table.block()
    known = tuple(cells_of(table) if cells is None else cells)
    shown = varying(known)
    rows = tuple(
        _row(method, [cell for cell in known if cell.method in _pooled(method, style)], shown)
        for method in in_order(methods if methods is not None else table.methods)
    )
    others = tuple(_reference(name, returns) for name, returns in (references or {}).items())
    counts = table.counts()
    finished = table.finished()
    codes = sorted(set(finished.runs["code_digest"].drop_nulls().to_list()))
    episodes = {cell.returns.shape[1] for cell in known if cell.seeds}
    return AblationTable(
        rows=(*rows, *others),
        style=style,
        task=cast("str | None", block["task"]),
        train_reward=cast("str | None", block["data.reward"]),
        evaluation_reward=cast("str | None", block["evaluation.reward"]),
        split=cast("str | None", block["evaluation.split"]),
        episodes=max(episodes) if episodes else None,
        **{status: counts[status] for status in STATUSES},
        code_digests=tuple(codes),
        footnotes=(*_footnotes(table, known, rows, style, codes), *_reference_notes(references or {}), *notes),
        estimated=table.estimated,
        failures=table.failures(),
        digests=digests or {},
    )


def _pooled(method: str, style: Style) -> tuple[str, ...]:
    return ("ilql", "sarsa") if style == "paper" and method == "ilql" else (method,)


def _row(method: str, cells: Sequence[Cell], shown: Sequence[str]) -> AblationRow:
    finished = [cell for cell in cells if cell.seeds]
    design = [cell for cell in finished if cell.origin == "design"]
    best = best_cell(finished)
    score = best.score if best else None
    means = np.array([cell.returns.mean() for cell in design], dtype=np.float64)
    return AblationRow(
        method=method,
        score=score.value if score else None,
        standard_error=score.standard_error if score else None,
        sigma=population_sigma(means),
        design_cells=len(design),
        design_cells_wanted=sum(cell.origin == "design" for cell in cells),
        refinement_cells=len(finished) - len(design),
        failed=sum(cell.failed for cell in cells),
        stopped=sum(cell.stopped for cell in cells),
        seeds=(min((len(c.seeds) for c in finished), default=0), max((len(c.seeds) for c in finished), default=0)),
        best=described(best, shown) if best else None,
        doubt=best.doubt if best else None,
        doubted=sum(cell.doubt is not None for cell in finished),
    )


def _reference(name: str, returns: Sequence[float]) -> AblationRow:
    score = mean_over_episodes(np.asarray([returns], dtype=np.float64))
    return AblationRow(name, score.value, score.standard_error, None, 0, 0, 0, 0, 0, (0, 0), None)


def _reference_notes(references: Mapping[str, Sequence[float]]) -> list[str]:
    return [
        f"{method_label(name)} is no run of this sweep: for comparison, the mean over {count(len(returns), 'episode')}."
        for name, returns in references.items()
    ]


def described(cell: Cell, shown: Sequence[str]) -> BestCell:
    """What a table says about a cell; `shown` are the hyperparameters in its one line."""
    return BestCell(
        cell_id=cell.cell_id,
        method=cell.method,
        origin=cell.origin,
        setting=cell.setting(shown),
        hyperparameters=tuple(cell.hyperparameters.items()),
        seeds=cell.seeds,
        tune_score=cell.tune_score,
    )


def _footnotes(
    table: RunTable, cells: Sequence[Cell], rows: Sequence[AblationRow], style: Style, digests: Sequence[str]
) -> tuple[str, ...]:
    finished = [cell for cell in cells if cell.seeds]
    notes = [] if finished else [f"Nothing has finished{_so_far(table)}: a dash stands where there is no number."]
    if finished:
        notes += _score_notes(table, finished, rows)
    notes += _doubt_notes(rows)
    notes += method_notes(rows, style)
    notes += broken_notes(cells)
    notes += _loss_notes(table, rows)
    if len(digests) > 1:
        notes.append(f"Mixed code: the runs were made by {len(digests)} versions of the code ({', '.join(digests)}).")
    return tuple(notes)


def _so_far(table: RunTable) -> str:
    """`yet` where nothing has ended at all; of what failed nothing more is to come by itself."""
    return "" if table.counts()["failed"] else " yet"


def _score_notes(table: RunTable, finished: Sequence[Cell], rows: Sequence[AblationRow]) -> list[str]:
    episodes = finished[0].returns.shape[1]
    split = table.block()["evaluation.split"]
    score, mean = ("estimate", "mean estimate") if table.estimated else ("score", "mean return")
    notes = [
        f"Max {score}: the highest {mean} of a cell over {count(episodes, 'episode')} of the {split} scenes, the "
        "same for every cell; a cell's training seeds are averaged per episode. ± is one standard error over episodes, "
        "for the trained models as they are."
    ]
    if split != "report":
        notes.append(f"The scores are from the {split} scenes, not from the report scenes that a table should use.")
    scenes = len(set(finished[0].scenes.tolist()))
    if scenes < episodes:
        notes.append(f"The {count(episodes, 'episode')} are of {count(scenes, 'scene')}; ± treats them as independent.")
    ranked = ", ".join(f"{method_label(r.method)} {r.design_cells + r.refinement_cells}" for r in rows if r.best)
    notes.append(
        f"The max over k cells on the same episodes is optimistic, the more so the larger k is; here k = {ranked}."
    )
    notes.append(
        f"σ: population standard deviation of the {mean}s of a method's design cells. Refinement cells are left "
        "out, since a search crowds near its optimum; a dash stands for fewer than two cells."
    )
    unheard = sum(cell.tune_score is None for cell in finished)
    if 0 < unheard < len(finished):
        notes.append(
            f"Without a score on the tune scenes, where an evaluation failed or is missing: "
            f"{count(unheard, 'finished cell')}. What is chosen on those scenes is chosen among the others."
        )
    return notes + seed_notes([len(cell.seeds) for cell in finished])


def _doubt_notes(rows: Sequence[AblationRow]) -> list[str]:
    doubted = [row for row in rows if row.doubted]
    if not doubted:
        return []
    counted = ", ".join(
        f"{method_label(row.method)} {row.doubted} of {row.design_cells + row.refinement_cells}" for row in doubted
    )
    notes = [f"Cells whose estimates are not believed, ranked behind all others however high: {counted}."]
    if marked := [f"{method_label(row.method)} ({row.doubt})" for row in rows if row.doubt is not None]:
        notes.insert(0, f"{NOT_BELIEVED} not believed, and the method has no cell that is: {'; '.join(marked)}.")
    return notes


def seed_notes(seeds: Sequence[int]) -> list[str]:
    """What the numbers of finished training seeds, of each cell that has some, mean for σ and max; nothing for none."""
    fewest, most = min(seeds, default=0), max(seeds, default=0)
    if most == 0:
        return []
    if most == 1:
        return ["One training seed per cell: σ contains the noise of seeds, and ± does not."]
    if fewest == most:
        return [f"{most} training seeds per cell."]
    return [
        f"{fewest} to {most} training seeds per cell; a mean over fewer seeds is noisier, and so more often the max."
    ]


def method_notes(rows: Sequence[AblationRow], style: Style) -> list[str]:
    """What a reader must know of single methods among the rows: how their cells are counted."""
    return [*_sarsa_notes(rows, style), *_without_model_notes(rows)]


def _sarsa_notes(rows: Sequence[AblationRow], style: Style) -> list[str]:
    if not {"sarsa", "ilql"} <= {row.method for row in rows}:
        return []
    if style == "paper":
        return [
            "Paper style: SARSA is ILQL at τ = 0.5, so its cells and runs count in ILQL's row as well as in its own."
        ]
    return ["SARSA is ILQL at τ = 0.5; its cells count in its own row only."]


def _without_model_notes(rows: Sequence[AblationRow]) -> list[str]:
    row = next((row for row in rows if row.method == "ilql_without_lm"), None)
    if row is None:
        return []
    sigma = ", so σ is a dash" if row.design_cells_wanted == 1 else ""
    return [
        f"{method_label(row.method)} takes the token of highest Q, which β cannot change: the paper's three cells "
        f"(β = 4, 8, 16) are replicas of one. Here they are one cell, counted once{sigma}."
    ]


def _loss_notes(table: RunTable, rows: Sequence[AblationRow]) -> list[str]:
    counts = table.counts()
    notes = [
        f"{count(counts['finished'], 'run')} finished, {counts['failed']:,} failed, {counts['stopped']:,} stopped "
        "(a run is one cell at one training seed)."
    ]
    lost_runs = " and ".join(status for status in ("failed", "stopped") if counts[status])
    if lost_runs:
        notes.append(f"{lost_runs.capitalize()} runs are counted, and left out of max score and σ.")
    lost = [row for row in rows if row.design_cells < row.design_cells_wanted]
    if lost:
        cells = ", ".join(f"{method_label(row.method)} {row.design_cells} of {row.design_cells_wanted}" for row in lost)
        notes.append(f"Design cells with a finished run: {cells}; the others are missing from max score and σ.")
    return notes
