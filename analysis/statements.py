"""The statements of a report beside its table, as sections: what the numbers say, and what they cannot say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from analysis.budget_section import budget_section
from analysis.cells import Cell
from analysis.figures import (
    Figure,
    draw_costs,
    draw_learning,
    draw_parallel,
)
from analysis.importance import AdaptiveImportance
from analysis.labels import method_label
from analysis.overview_data import costs, learning_curves, parallel
from analysis.runs import RunTable
from analysis.section import Section
from analysis.selection import Key, RungPair
from analysis.selection_section import selection_section
from analysis.sensitivity_section import sensitivity_section


@dataclass(frozen=True)
class Evidence:
    """What a report knows beyond its rows.

    Attributes:
        adaptive: Importances of what searches proposed.
        signals: Of every training what it said of itself: `selection.correlations` has the form.
        losses: Loss by step of every training, for each seed.
        held_out: The same on dialogues that it does not learn from, where it was asked for.
        rungs: Scores of proposals at a rung and after it.
        design_notes: What a reader of an analysis of variance must know of the design cells, a sentence or two each.
    """

    adaptive: Sequence[AdaptiveImportance] = ()
    signals: Mapping[tuple[str, float], Mapping[Key, float]] = field(default_factory=dict)
    losses: Mapping[Key, Sequence[Mapping[int, float]]] = field(default_factory=dict)
    held_out: Mapping[Key, Sequence[Mapping[int, float]]] = field(default_factory=dict)
    rungs: Sequence[RungPair] = ()
    design_notes: Sequence[str] = ()


def statements(table: RunTable, cells: Sequence[Cell], evidence: Evidence) -> list[Section]:
    """The sections for a table: sensitivity, budget, offline selection, the sweep as a whole; those with something in.

    Draws come from generators of fixed seeds, so that equal rows give equal reports.
    """
    if not any(cell.seeds for cell in cells):
        return []
    y_title = f"mean return per episode (reward {table.block()['evaluation.reward']})"
    made = (
        sensitivity_section(
            cells, evidence.adaptive, np.random.default_rng(4), y_title=y_title, notes=evidence.design_notes
        ),
        budget_section(table, cells, np.random.default_rng(5), y_title=y_title),
        selection_section(cells, evidence.signals, evidence.rungs),
        overview_section(table, cells, evidence, y_title=y_title),
    )
    return [section for section in made if section is not None]


def overview_section(table: RunTable, cells: Sequence[Cell], evidence: Evidence, *, y_title: str) -> Section | None:
    """Cells over their hyperparameters, learning curves, and what everything took."""
    figures: dict[str, tuple[Figure, str]] = {}
    lines = parallel(cells)
    if lines is not None:
        figures["parallel"] = (
            draw_parallel(lines),
            f"Every finished cell of {method_label(lines.method)} as a line through its hyperparameters to its score "
            f"({y_title}), lighter for higher scores, the best one thick; at the right, ± one s.e. over episodes.",
        )
    learnt = learning_curves(cells, evidence.losses, evidence.held_out)
    if learnt:
        figures["learning_curves"] = (
            draw_learning(learnt),
            "Training loss of each method's best cell: mean over training seeds, band from the lowest to the highest. "
            "Losses of different methods are different quantities. Open circles, where there are any: the loss on "
            "dialogues of the tune scenes, from which nothing is learnt and by which nothing is stopped.",
        )
    spent = costs(table)
    figures["costs"] = (
        draw_costs(spent),
        "What every method took: training, that of behaviour policies and critics which no row stands on with it, and "
        "play on the report scenes, the tune scenes and at rungs. Weights that several rows stand on are counted once, "
        "by the method that comes first; hollow: what training anew for each row all it stands on would have added.",
    )
    whole = sum(each.train + each.evaluate + each.failed for each in spent)
    saved = sum(each.saved for each in spent)
    lost = sum(each.failed for each in spent)
    text = (
        f"All of it took {whole:,.0f} s, {lost:,.0f} s of that in runs that failed or were stopped; had every run "
        f"trained all that it stands on for itself, it would have been {saved:,.0f} s more."
    )
    return Section("overview", "The sweep as a whole", (text,), (), figures)
