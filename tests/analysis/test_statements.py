from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from analysis.across_section import across_section
from analysis.budget_section import trained_of
from analysis.cells import cells_of
from analysis.figures import figure_html, picture
from analysis.importance import AdaptiveImportance
from analysis.landscape import weights_key
from analysis.runs import RunTable
from analysis.section import section_markdown
from analysis.selection import RungPair
from analysis.selection_section import selection_section
from analysis.statements import Evidence, statements

Make = Callable[..., Any]
MakeTable = Callable[..., RunTable]


def test_every_statement_has_its_section_and_its_figures_draw(sweep: RunTable) -> None:
    cells = cells_of(sweep)
    keys = [weights_key(cell) for cell in cells if cell.seeds]
    evidence = Evidence(
        adaptive=(AdaptiveImportance("ilql", {"train.tau": 0.7, "train.gamma": 0.3}, 24, 0.2),),
        signals={("loss", 1.0): {key: float(place) for place, key in enumerate(keys)}},
        losses={key: [{10: 2.0, 20: 1.0}] for key in keys},
        rungs=tuple(RungPair("ilql", 20, float(i), float(i)) for i in range(8)),
    )
    sections = {section.name: section for section in statements(sweep, cells, evidence)}
    assert list(sections) == ["sensitivity", "budget", "selection", "overview"]
    drawn = {name for section in sections.values() for name in section.figures}
    wanted = {"dose_response", "tuning_curves", "tuning_seconds", "parallel", "learning_curves", "costs"}
    assert wanted <= drawn
    for section in sections.values():
        for name, (figure, caption) in section.figures.items():
            assert name in figure_html(picture(figure), name)
            assert caption
    said = section_markdown(sections["sensitivity"])
    assert "No analysis of variance of ILQL: the grid is not complete: no run has finished at τ 0.9, β 16." in said
    assert "Adaptive data: among 24 trainings" in said
    assert "to stop by the rung is legitimate here" in section_markdown(sections["selection"])


def test_equal_rows_make_equal_sections(sweep: RunTable) -> None:
    cells = cells_of(sweep)
    first, second = (statements(sweep, cells, Evidence()) for _ in range(2))
    assert [section_markdown(each) for each in first] == [section_markdown(each) for each in second]


def test_few_rungs_do_not_make_stopping_legitimate() -> None:
    section = selection_section([], {}, [RungPair("ilql", 20, float(i), float(i)) for i in range(5)])
    assert section is not None
    assert "to stop by the rung is not shown to be legitimate here" in section.text[0]


def test_a_cell_that_failed_has_no_curve_without_its_cost(sweep: RunTable) -> None:
    with pytest.raises(ValueError, match="cells without a finished run cost, too, and are never kept: 1 of the grid"):
        trained_of(sweep, cells_of(sweep), "ilql")


def test_one_task_is_not_several(sweep: RunTable) -> None:
    assert across_section({"a": cells_of(sweep)}, {"a": (-30.0, 0.0)}, np.random.default_rng(0)) is None


RANGES = {"a": (0.0, 8.0), "b": (8.0, 16.0)}


def test_two_tasks_are_put_on_the_scale_of_their_returns(run: Make, make_table: MakeTable) -> None:
    def task(shift: float) -> RunTable:
        runs = [run("bc", [shift - 1 + s, shift + 1 + s], seed=s) for s in (1, 2, 3)]
        return make_table(*runs, *(run("ilql", [shift + 4 + s] * 2, {"train.tau": 0.7}, seed=s) for s in (0, 1, 2)))

    section = across_section({"a": cells_of(task(0.0)), "b": cells_of(task(8.0))}, RANGES, np.random.default_rng(0))
    assert section is not None
    rows = {row[0]: row for row in section.tables[0].rows}
    # BC has 1, 2, 3 of 8 in both, ILQL 4, 5, 6: the middle half of .125, .25, .375 twice is .25.
    assert rows["BC"][1:4] == ("2", "6", rows["BC"][3])
    assert rows["BC"][3].startswith("0.25 [")
    assert rows["ILQL"][3].startswith("0.62 [")
    assert rows["ILQL"][4].startswith("0.38 [")
    assert rows["ILQL"][5] == "1.00 [0.54, 1.00]"  # six wins of six: .025^(1/6) = .541


def test_a_run_across_tasks_is_of_the_cell_that_the_others_choose(run: Make, make_table: MakeTable) -> None:
    # As in test_family.py: seed 1 chooses τ .8, which has 3 at seed 0; seed 0 chooses τ .7, which has 2 at seed 1.
    scores = {0.7: ((5.0, 7.0), (1.0, 2.0)), 0.8: ((2.0, 3.0), (3.0, 6.0))}  # by seed: tune score, report score
    runs = [
        run("ilql", [report] * 2, {"train.tau": tau}, seed=seed, tune_score=tune)
        for tau, of_seed in scores.items()
        for seed, (tune, report) in enumerate(of_seed)
    ]
    cells = cells_of(make_table(*runs, *(run("bc", [1.0, 1.0], seed=s) for s in range(2))))
    section = across_section({"a": cells, "b": cells}, dict.fromkeys("ab", (0.0, 10.0)), np.random.default_rng(0))
    assert section is not None
    assert {row[0]: row[3] for row in section.tables[0].rows}["ILQL"] == "0.25 (too few seeds for an interval)"


def test_failed_runs_count_by_each_policy_where_there_are_some(run: Make, make_table: MakeTable) -> None:
    # τ .9 is by far the best in a; in b it is a little worse than τ .8, and one of its three runs has failed. Counted
    # as the worst cell of b, BC's 1, it is as good as (5 + 5 + 1)/3, and at b's lowest return, 0, as (5 + 5 + 0)/3.
    def task(at_08: float, at_09: float, *, failed: int) -> RunTable:
        kept = [run("ilql", [at_08] * 2, {"train.tau": 0.8}, seed=s) for s in range(3)]
        kept += [run("ilql", [at_09] * 2, {"train.tau": 0.9}, seed=s) for s in range(failed, 3)]
        lost = [run("ilql", setting={"train.tau": 0.9}, seed=s, status="failed") for s in range(failed)]
        return make_table(*kept, *lost, *(run("bc", [1.0, 1.0], seed=s) for s in range(3)))

    cells = {"a": cells_of(task(2.0, 9.0, failed=0)), "b": cells_of(task(5.5, 5.0, failed=1))}
    section = across_section(cells, dict.fromkeys("ab", (0.0, 10.0)), np.random.default_rng(0))
    assert section is not None
    gains = {row[1]: float(row[2].split()[0]) for row in section.tables[1].rows if row[0] == "ILQL"}
    assert list(gains) == ["exclude", "worst", "floor"]
    assert gains["exclude"] < gains["worst"] < gains["floor"]


def test_a_task_must_have_a_range(sweep: RunTable) -> None:
    with pytest.raises(ValueError, match="the returns of task 'a' must have a range"):
        across_section({"a": cells_of(sweep)}, {}, np.random.default_rng(0))
