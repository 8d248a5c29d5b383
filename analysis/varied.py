"""The same ablation several times, with one setting varied: how every method's best score moves with it.

What is varied is no hyperparameter of a method but something that all of them live with, such as the noise in the
rewards they learn from; each value is an ablation of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.ablation import AblationRow, AblationTable
from analysis.figure_data import Line
from analysis.figures import draw_lines
from analysis.labels import Value, in_order, method_label, value_label
from analysis.section import Section, TextTable
from analysis.text import DASH, decimals_for, number, with_error


@dataclass(frozen=True)
class Varied:
    """One value of what is varied, and the ablation at it."""

    value: Value
    table: AblationTable


def varied_section(column: str, ablations: Sequence[Varied]) -> Section:
    """Methods down and values across, and a line per method.

    Args:
        column: What is varied, `world.noise`.
        ablations: At least one, in the order in which they are shown.

    Raises:
        ValueError: There is none.
    """
    if not ablations:
        raise ValueError(f"an ablation over {column} needs at least one value, got none")
    rows = {(row.method, place): row for place, each in enumerate(ablations) for row in each.table.rows}
    methods = in_order(method for method, _ in rows)
    decimals = decimals_for(row.standard_error for row in rows.values())
    values = [value_label(each.value) for each in ablations]
    name = column.partition(".")[2].replace("_", " ")
    first = ablations[0].table
    numeric = (False, *([True] * len(values)))
    texts = tuple((method_label(m), *(_score(rows.get((m, p)), decimals) for p in range(len(values)))) for m in methods)
    sigmas = tuple(
        (method_label(m), *(_sigma(rows.get((m, p)), decimals) for p in range(len(values)))) for m in methods
    )
    lost = sum(each.table.failed for each in ablations)
    text = (
        f"{first.task}, scored by reward {first.evaluation_reward} on the {first.split} scenes, with {column} at "
        f"{', '.join(values)}: an ablation at each. Max: the highest mean return of a method's cells, ± one standard "
        f"error over episodes; σ: over its design cells. {lost} runs failed.",
    )
    lines = [
        Line(
            method=method,
            label=method_label(method),
            positions=tuple(p for p in range(len(values)) if _scored(rows.get((method, p)))),
            values=tuple(r.score or 0.0 for p in range(len(values)) if (r := rows.get((method, p))) and _scored(r)),
            errors=tuple(
                r.standard_error or 0.0 for p in range(len(values)) if (r := rows.get((method, p))) and _scored(r)
            ),
        )
        for method in methods
    ]
    caption = f"Max score of every method against {column}, ± one standard error over episodes."
    figure = draw_lines(lines, x_title=name, ticks=values, y_title=f"max score (reward {first.evaluation_reward})")
    return Section(
        name=f"over_{column.replace('.', '_')}",
        title=f"Over {name}",
        text=text,
        tables=(
            TextTable(f"Max score by {name}", ("Method", *values), texts, numeric),
            TextTable(f"σ by {name}", ("Method", *values), sigmas, numeric),
        ),
        figures={f"over_{column.replace('.', '_')}": (figure, caption)},
    )


def _scored(row: AblationRow | None) -> bool:
    return row is not None and row.score is not None


def _score(row: AblationRow | None, decimals: int) -> str:
    return DASH if row is None else with_error(row.score, row.standard_error, decimals)


def _sigma(row: AblationRow | None, decimals: int) -> str:
    return DASH if row is None else number(row.sigma, decimals)
