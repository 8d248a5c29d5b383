"""Scores that are nobody's conversation: what most utterances of a best cell are, where they are broken."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.cells import Cell, best_cell
from analysis.labels import in_order, method_label

BROKEN = "measure.broken_share"
MOST = 0.5
"""From this share of its best cell's utterances on, a method is named."""


def broken_notes(cells: Sequence[Cell]) -> list[str]:
    """A footnote on the methods whose best cell says broken things for the most part; none where there is none.

    Where a task forgives what it does not understand, saying nothing that can be understood may score better than
    talking. A table of scores does not show that.
    """
    named = []
    for method in in_order(cell.method for cell in cells if cell.seeds):
        best = best_cell(cell for cell in cells if cell.method == method)
        share = None if best is None else best.measures.get(BROKEN)
        if share is not None and share >= MOST:
            named.append(f"{method_label(method)} {100 * share:.0f} %")
    if not named:
        return []
    return [
        "Of what the best cell says, so much is broken (empty, said before, not understood, or without an end): "
        f"{', '.join(named)}. Such a score is no conversation's."
    ]
