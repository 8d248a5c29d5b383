"""The paper's own table beside ours: Snell et al. 2022 (arXiv 2206.11871), visual dialogue, the yes/no reward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from analysis.ablation import AblationTable
from analysis.estimators import rank_correlation
from analysis.labels import method_label
from analysis.text import decimals_for, markdown_table, number, with_error


@dataclass(frozen=True)
class Published:
    """A row of the paper's table: max score, its standard error over 1,024 episodes, σ over cells (None for a dash)."""

    score: float
    standard_error: float
    sigma: float | None


VISUAL_DIALOGUE_YN: Mapping[str, Published] = {
    "ilql": Published(-5.69, 0.13, 0.42),
    "cql": Published(-7.32, 0.17, 1.98),
    "psi": Published(-10.05, 0.18, 0.60),
    "sarsa": Published(-6.19, 0.13, 0.27),
    "decision_transformer": Published(-6.70, 0.17, 1.15),
    "awr": Published(-5.96, 0.13, 2.82),
    "filtered_bc": Published(-7.48, 0.21, 0.72),
    "bc": Published(-10.85, 0.27, None),
}
"""By method."""

FEWEST = 3
"""Methods a rank correlation needs to say anything: two always agree or disagree."""


def beside_published(table: AblationTable) -> str | None:
    """Our rows and the paper's side by side in Markdown, with the rank correlation of both columns.

    None where the table is about something else, or shares fewer than three finished methods with the paper's. Worlds,
    models and budgets differ, so it is the order that can be compared, and not the numbers.
    """
    if (table.task, table.train_reward, table.evaluation_reward) != ("visdial", "yn", "yn"):
        return None
    rows = [row for row in table.rows if row.method in VISUAL_DIALOGUE_YN and row.score is not None]
    if len(rows) < FEWEST:
        return None
    decimals = decimals_for(row.standard_error for row in rows)
    body = [
        (
            method_label(row.method),
            with_error(row.score, row.standard_error, decimals),
            with_error(paper.score, paper.standard_error, 2),
            number(row.sigma),
            number(paper.sigma),
        )
        for row in rows
        for paper in [VISUAL_DIALOGUE_YN[row.method]]
    ]
    header = ("Method", "Max score", "the paper's", "σ", "the paper's")
    pairs: dict[str, list[tuple[float | None, float | None]]] = {
        "max score": [(row.score, VISUAL_DIALOGUE_YN[row.method].score) for row in rows],
        "σ": [(row.sigma, VISUAL_DIALOGUE_YN[row.method].sigma) for row in rows],
    }
    lines = []
    for name, values in pairs.items():
        both = [(ours, theirs) for ours, theirs in values if ours is not None and theirs is not None]
        if len(both) >= FEWEST:
            rho = rank_correlation([ours for ours, _ in both], [theirs for _, theirs in both])
            lines.append(f"{name} {number(rho)}{' (all the same)' * (rho is None)} over {len(both)} methods")
    note = f"Spearman's rank correlation with the paper: {'; '.join(lines)}."
    return f"{markdown_table(header, body, (False, True, True, True, True))}\n\n{note}\n"
