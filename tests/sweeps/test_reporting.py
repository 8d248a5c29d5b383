"""What a question wants compared is said, or a line says why not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.cells import Cell
from sweeps.component_ablation import QUESTION, copies_as_late
from sweeps.reporting import Against, added_note, comparisons_of
from sweeps.store import Store


def cell(method: str, beta: float | None, *, mean: float | None, tune: float | None = None) -> Cell:
    """Give a cell of two episodes, or one whose only run failed."""
    seeds = () if mean is None else (0,)
    returns = np.full((len(seeds), 2), 0.0 if mean is None else mean) + np.arange(2)
    return Cell(
        method=method,
        cell_id=f"{method} {beta}",
        origin="design",
        hyperparameters={} if beta is None else {"decode.beta": beta},
        seeds=seeds,
        returns=returns,
        turns=np.ones_like(returns),
        episode_seeds=np.arange(2),
        scenes=np.asarray(["a", "b"]),
        tune_scores=None if mean is None else (mean if tune is None else tune,),
        measures={},
        failed=1 - len(seeds),
        stopped=0,
    )


ASKED = Against("without", "ilql", {"decode.beta": 4.0})


def test_the_chosen_and_the_fixed_cells_are_compared() -> None:
    cells = [cell(m, b, mean=x) for m, b, x in (("without", 4.0, 1), ("without", 8.0, 2), ("ilql", 4.0, 4))]
    found, missing = comparisons_of(cells, ASKED)
    assert [each.score.value for each in found] == [2 - 4, 1 - 4]
    assert missing == []


def test_the_same_two_cells_are_compared_once() -> None:
    found, missing = comparisons_of([cell("without", 4.0, mean=1), cell("ilql", 4.0, mean=4)], ASKED)
    assert len(found) == 1
    assert missing == []


def test_the_baseline_may_be_fixed_elsewhere() -> None:
    cells = [cell("without", 4.0, mean=1), cell("ilql", 4.0, mean=4), cell("ilql", 8.0, mean=6)]
    asked = Against("without", "ilql", {"decode.beta": 4.0}, {"decode.beta": 4.0})
    assert [each.score.value for each in comparisons_of(cells, asked)[0]] == [1 - 6, 1 - 4]


def test_an_arm_that_is_not_run_is_not_missed() -> None:
    assert comparisons_of([cell("ilql", 4.0, mean=1)], ASKED) == ([], [])


@pytest.mark.parametrize("failed", ["without", "ilql"])
def test_an_arm_of_which_every_run_failed_has_a_line(failed: str) -> None:
    cells = [cell(m, 4.0, mean=None if m == failed else 1.0) for m in ("without", "ilql")]
    found, missing = comparisons_of(cells, ASKED)
    assert found == []
    assert all(line.startswith("no comparison of without and ilql: ") for line in missing)
    assert f"finished run of '{failed}'" in missing[0]


@pytest.mark.parametrize("failed", ["without", "ilql"])
def test_a_failed_fixed_cell_has_a_line_and_no_stand_in(failed: str) -> None:
    cells = [
        cell(m, beta, mean=None if (m, beta) == (failed, 4.0) else beta)
        for m in ("without", "ilql")
        for beta in (4.0, 8.0)
    ]
    found, missing = comparisons_of(cells, ASKED)
    assert [(each.first.cell_id, each.second.cell_id) for each in found] == [("without 8.0", "ilql 8.0")]
    assert missing == [
        f"no comparison of without and ilql: exactly one finished cell of {failed!r} must have decode.beta = 4, got 0"
    ]


def test_hard_copies_are_as_late_as_polyaks_average() -> None:
    # Polyak's rate p is (1 - p)/p steps late: 2.33 at .3. A copy every k steps is (k - 1)/2 late: 2.5 at k = 6.
    assert [copies_as_late({"train.polyak": p}) for p in (1.0, 0.3, 0.1, 0.005)] == [1, 6, 19, 399]


def test_every_component_has_its_comparison_at_ilqls_fixed_cell() -> None:
    arms = set(QUESTION.arms) - {"bc", "ilql"}
    assert {asked.arm for asked in QUESTION.against} == arms
    assert set(QUESTION.refine) == {*arms, "ilql"}
    for asked in QUESTION.against:
        fixed = asked.fixed if asked.baseline_fixed is None else asked.baseline_fixed
        assert fixed == {"train.tau": 0.8, "decode.beta": 8.0}


def test_cells_that_came_after_the_plan_are_named_by_arm(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for place, (arm, origin, more) in enumerate(
        [
            ("ilql", "design", {}),
            ("ilql", "design", {"added": True}),
            ("ilql", "refinement", {"added": True}),  # left out of every sigma, as a search's proposals are
        ]
    ):
        for seed in (0, 1):
            trial = {"sweep": "s", "trial_id": f"t{place}{seed}", "cell_id": f"c{place}", "arm": arm, "origin": origin}
            rest = {"method": arm, "weights_id": f"w{place}{seed}", "seed": seed, "columns": dict[str, object]()}
            store.put("member", f"s/t{place}{seed}", trial | rest | more)
    note = added_note(store, "s")
    assert note is not None
    assert note.startswith("Added by `sweeps eval` after the sweep was planned, and counted in every σ and")
    assert note.endswith(": ILQL 1 cell.")
    assert added_note(store, "another") is None
