from __future__ import annotations

from collections.abc import Callable
from typing import Any

from analysis.ablation import ablation_table
from analysis.broken import broken_notes
from analysis.cells import cells_of

Make = Callable[..., Any]


def said(run: Make, method: str, score: float, share: float | None, setting: dict[str, float]) -> Any:
    """One run with the share of its utterances that are broken."""
    measures = {} if share is None else {"measure.broken_share": share}
    return run(method, [score] * 4, setting, measures=measures)


def test_methods_whose_best_cell_says_broken_things_are_named(run: Make, make_table: Make) -> None:
    table = make_table(
        said(run, "ilql", 3.0, 0.25, {"train.tau": 0.7}),
        said(run, "ilql", 1.0, 1.0, {"train.tau": 0.8}),  # not its best
        said(run, "cql", 5.0, 0.998, {"train.cql_weight": 0.1}),
        said(run, "psi", 4.0, 0.5, {"train.reward_scale": 0.1}),
        said(run, "bc", 0.0, 0.49, {}),
    )
    (note,) = broken_notes(cells_of(table))
    assert note.endswith("without an end): CQL 100 %, ψ 50 %. Such a score is no conversation's.")
    assert note in ablation_table(table).footnotes


def test_where_nothing_is_broken_or_known_nothing_is_said(run: Make, make_table: Make) -> None:
    whole = said(run, "ilql", 3.0, 0.1, {"train.tau": 0.7})
    assert broken_notes(cells_of(make_table(whole, said(run, "bc", 1.0, 0.0, {})))) == []
    assert broken_notes(cells_of(make_table(said(run, "bc", 1.0, None, {})))) == []
