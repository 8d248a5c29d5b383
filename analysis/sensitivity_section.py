"""The section on sensitivity: what hyperparameters explain, and how carefully β has to be chosen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.cells import Cell
from analysis.dose import DoseResponse, dose_responses
from analysis.figures import (
    Figure,
    draw_dose,
    draw_importance,
)
from analysis.importance import AdaptiveImportance, Importance, grid_importance
from analysis.labels import hyperparameter_label, in_order, label_with, method_label, value_label
from analysis.section import Entry, Section, TextTable
from analysis.text import count, number

DRAWN = 24
"""Lines in the figure of β at most; more of them nobody tells apart."""


def sensitivity_section(
    cells: Sequence[Cell],
    adaptive: Sequence[AdaptiveImportance],
    rng: np.random.Generator,
    *,
    y_title: str,
    notes: Sequence[str] = (),
) -> Section | None:
    """What hyperparameters explain, by exact analysis of variance; PED-ANOVA of searches; β as a dose.

    Args:
        cells: Of all methods.
        adaptive: What searches show.
        rng: Draws intervals.
        y_title: What a score is.
        notes: What must be known of the design cells, said behind the analysis of variance.
    """
    found: list[Importance] = []
    refused: list[str] = []
    for method in in_order(cell.method for cell in cells):
        own = [cell for cell in cells if cell.method == method]
        if len(own) < 2:
            continue
        try:
            found.append(grid_importance(own, rng))
        except ValueError as reason:
            refused.append(f"{method_label(method)}: {reason}")
    doses = [
        curve
        for method in in_order(cell.method for cell in cells)
        for curve in dose_responses([cell for cell in cells if cell.method == method], rng)
    ]
    if not found and not adaptive and not doses:
        return None
    text = [_importance_text(each) for each in found]
    text += [f"No analysis of variance of {line}." for line in refused]
    text += notes if found else ()
    text += [_adaptive_text(each) for each in adaptive]
    if doses:
        text.append(_dose_text(doses))
    figures: dict[str, tuple[Figure, str]] = {}
    shown = [each for each in found if len(each.terms) > 1]
    if shown:
        figures["importance"] = (
            draw_importance(shown),
            "Share of the variance of cells' expected returns that each hyperparameter, and each pair, explains on the "
            f"complete grid, every level with equal weight; {_noise_text(shown)} Bars: 95 % interval (parametric "
            "bootstrap over seeds and scenes); none with too few seeds. Methods of one varying hyperparameter are left "
            "out: it explains everything.",
        )
    if doses:
        bar = sorted((max(curve.scores) for curve in doses), reverse=True)[:DRAWN][-1]
        best = [curve for curve in doses if max(curve.scores) >= bar][:DRAWN]
        which = "every training" if len(best) == len(doses) else f"the best {len(best)} of {len(doses)} trainings"
        figures["dose_response"] = (
            draw_dose(best, y_title=y_title),
            f"Answer of {which} to β, a line each; ± one standard error over training seeds and scenes. Thick: "
            "the near-best range, within one standard error of the line's best at a positive, finite β.",
        )
    tables = []
    if shown:
        rows = [(method_label(each.method), term.label, term.share, term.sd) for each in shown for term in each.terms]
        tables.append(
            TextTable(
                "Analysis of variance",
                ("Method", "Term", "Share [95 %]", "sd [95 %]"),
                tuple(rows),
                (False, False, True, True),
            )
        )
    if doses:
        tables.append(_dose_table(doses))
    return Section("sensitivity", "What hyperparameters explain", tuple(text), tuple(tables), figures)


def _importance_text(each: Importance) -> str:
    first, *others = each.terms
    sigma, label = each.sigma.text(), method_label(each.method)
    noise = f"{100 * each.noise_share:.0f} %"
    if each.seeds < 2:
        noise += " (episodes alone: one training seed cannot be told from the setting)"
    if not others:
        return (
            f"Only {first.label} varies among the {count(each.cells, 'cell')} of {label} ({_levels_text(each)}). The "
            f"standard deviation of their expected scores is {sigma}; noise would make {noise} of what is measured."
        )
    rest = ", ".join(f"{term.label} {term.share.text()}" for term in others[:3])
    return (
        f"Of the variance of {label}'s expected scores {first.label} explains {first.share.text()}; {rest}. Their "
        f"standard deviation over the {count(each.cells, 'cell')} is {sigma}; noise would make {noise} of what is "
        f"measured. Shares are of these levels ({_levels_text(each)}), each with equal weight: of others they differ."
    )


def _noise_text(found: Sequence[Importance]) -> str:
    """Whose noise the shares are without."""
    alone = ", ".join(method_label(each.method) for each in found if each.seeds < 2)
    if not alone:
        return "noise of training seeds and scenes is taken off."
    return f"noise of scenes is taken off; that of training seeds is not, where there is one ({alone})."


def _levels_text(each: Importance) -> str:
    return "; ".join(
        f"{hyperparameter_label(column)} {', '.join(map(value_label, values))}"
        for column, values in each.levels.items()
    )


def _adaptive_text(each: AdaptiveImportance) -> str:
    shares = ", ".join(f"{hyperparameter_label(column)} {number(share)}" for column, share in each.shares.items())
    return (
        f"Adaptive data: among {count(each.trainings, 'training')} of {method_label(each.arm)} that a search chose, "
        f"what tells the best {100 * each.quantile:.0f} % from the rest is, by PED-ANOVA, {shares}. No shares of "
        "variance, no interactions, and no interval: the search went where it expected the best."
    )


def _dose_text(curves: Sequence[DoseResponse]) -> str:
    widest = max(curves, key=lambda each: each.width.value)
    narrowest = min(curves, key=lambda each: each.width.value)

    def of(each: DoseResponse) -> str:
        low, high = (value_label(float(f"{end:.3g}")) for end in each.range)
        least = "at least " if each.open else ""
        return (
            label_with(each.method, each.setting)
            + f" stays within {number(each.tolerance)} of its best at a positive, finite β over "
            f"{least}{each.width.text(1)} doublings of β, {low} to {high}{_beyond_text(each)}"
        )

    said = of(widest) if widest is narrowest else f"{of(widest)}; {of(narrowest)}"
    return f"{said}. A range that ends at the smallest or largest β that was played may go on beyond it."


def _beyond_text(each: DoseResponse) -> str:
    """What a reader of the range alone would miss: that the training's best is not in it."""
    if each.best == each.peak:
        return ""
    return f" (its best, at β {value_label(each.best)}, is {number(each.beyond)} above that)"


def _dose_table(curves: Sequence[DoseResponse]) -> TextTable:
    rows: list[tuple[Entry, ...]] = []
    for each in curves:
        low, high = (value_label(float(f"{end:.3g}")) for end in each.range)
        name = label_with(each.method, each.setting)
        near = f"{low} to {high}{', or beyond' * each.open}"
        best, peak = value_label(each.best), value_label(each.peak)
        rows.append((name, best, peak, near, each.width, number(each.tolerance), str(each.seeds)))
    header = ("Training", "Best β", "Best between 0 and ∞", "Near that", "Doublings [95 %]", "Tolerance", "Seeds")
    return TextTable("Near-best range of β", header, tuple(rows), (False, True, True, True, True, True, True))
