from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from analysis.cells import cells_of
from analysis.landscape import weights_key
from analysis.overview_data import costs, learning_curves, parallel
from analysis.runs import RunTable, Unlisted

Make = Callable[..., Any]
MakeTable = Callable[..., RunTable]


def test_values_stand_one_apart_and_cells_on_theirs(run: Make, make_table: MakeTable) -> None:
    settings = [(0.7, 4.0), (0.9, float("inf")), (0.7, 8.0)]
    table = make_table(
        *(run("ilql", [t, t], {"train.tau": t, "decode.beta": b}) for t, b in settings),
        run("ilql", setting={"train.tau": 0.8, "decode.beta": 4.0}, status="failed"),
        run("bc", [1.0]),
    )
    data = parallel(cells_of(table))
    assert data is not None
    assert [(axis.label, axis.values) for axis in data.axes] == [("τ", ("0.7", "0.9")), ("β", ("4", "8", "∞"))]
    assert sorted(zip(*(axis.positions for axis in data.axes), data.scores, strict=True)) == [
        (0, 0, 0.7),
        (0, 1, 0.7),
        (1, 2, 0.9),
    ]


def test_one_hyperparameter_is_no_parallel(run: Make, make_table: MakeTable) -> None:
    assert parallel(cells_of(make_table(*(run("ilql", [1.0], {"train.tau": t}) for t in (0.7, 0.9))))) is None


def test_a_learning_curve_has_the_steps_all_seeds_have(run: Make, make_table: MakeTable) -> None:
    cells = cells_of(make_table(*(run("ilql", [t], {"train.tau": t}) for t in (0.7, 0.9))))
    best = next(cell for cell in cells if cell.hyperparameters["train.tau"] == 0.9)
    (curve,) = learning_curves(cells, {weights_key(best): [{10: 4.0, 20: 2.0}, {10: 2.0, 20: 1.0, 30: 0.5}]})
    assert (curve.label, curve.steps, curve.mean) == ("ILQL, τ 0.9", (10, 20), (3.0, 1.5))
    assert (curve.low, curve.high, curve.seeds) == ((2.0, 1.0), (4.0, 2.0), 2)


def test_a_learning_curve_has_the_held_out_loss_where_all_seeds_have_it(run: Make, make_table: MakeTable) -> None:
    cells = cells_of(make_table(run("ilql", [1.0], {"train.tau": 0.7})))
    losses = {weights_key(cells[0]): [{10: 4.0, 20: 2.0}, {10: 2.0, 20: 1.0}]}
    (curve,) = learning_curves(cells, losses, {weights_key(cells[0]): [{10: 5.0, 20: 3.0}, {20: 2.0}]})
    assert curve.held_out == ((20, 2.5),)
    assert learning_curves(cells, losses)[0].held_out == ()


def test_shared_weights_are_paid_for_once_and_failures_apart(run: Make, make_table: MakeTable) -> None:
    # Every row says 30 s of training and 5 s of playing. Two decodings of one training: 30, saved 30.
    table = make_table(
        run("ilql", [1.0], {"train.tau": 0.7, "decode.beta": 1.0}),
        run("ilql", [1.0], {"train.tau": 0.7, "decode.beta": 2.0}),
        run("ilql", setting={"train.tau": 0.9, "decode.beta": 1.0}, status="failed"),
    )
    (cost,) = costs(table)
    assert (cost.train, cost.evaluate, cost.failed, cost.saved) == pytest.approx((30.0, 10.0, 35.0, 30.0))


def test_play_on_the_tune_scenes_and_what_no_row_has_count_once(run: Make, make_frames: Any) -> None:
    # Two decodings of one training: 30 s of training, 2·5 s of play and 2·3 s on the tune scenes; and beyond the rows
    # cloning's 12 s, and 2 s of play at a rung.
    runs, episodes = make_frames(
        [run("ilql", [1.0], {"train.tau": 0.7, "decode.beta": b}, columns={"tune_seconds": 3.0}) for b in (1.0, 2.0)]
    )
    beyond = (Unlisted("bc", 12.0, 0.0), Unlisted("ilql", 0.0, 2.0))
    table = RunTable(runs, episodes, beyond)
    assert {each.method: (each.train, each.evaluate) for each in costs(table)} == {
        "bc": (12.0, 0.0),
        "ilql": (30.0, 18.0),
    }
    assert table.took() == (
        "Training took 42 s: 30 s for 1 set of weights, each counted once, and 12 s for weights that no row stands on. "
        "Play took 18 s: 10 s on the scenes of the rows, 6 s on the tune scenes, "
        "2 s at rungs or of cells without a row."
    )


def test_rows_of_before_say_what_they_know(run: Make, make_table: Any) -> None:
    table = make_table(run("bc", [1.0]))
    assert (table.tune_seconds(), table.unlisted) == (0.0, ())
    assert [(each.train, each.evaluate) for each in costs(table)] == [(30.0, 5.0)]
