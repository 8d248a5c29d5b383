"""Grids and intervals: which columns vary, and what varying each of them costs."""

from __future__ import annotations

import dataclasses

import pytest

from ilql.hyperparameters import Search
from ilql.methods import known_methods, method_named
from sweeps.space import Between, Grid, known_columns, settings

BETAS = (4.0, 8.0, 16.0)


def test_a_grid_is_one_training_per_train_setting_with_all_its_decodings() -> None:
    trainings = Grid("ilql", {"train.tau": (0.7, 0.8, 0.9), "decode.beta": BETAS}).trainings({})
    assert [training.train.tau for training in trainings] == [0.7, 0.8, 0.9]
    assert [[decode.beta for decode in training.decodes] for training in trainings] == [list(BETAS)] * 3
    assert {(training.method, training.origin) for training in trainings} == {("ilql", "design")}


def test_what_varies_in_decoding_alone_is_trained_once() -> None:
    (training,) = Grid("sarsa", {"decode.beta": BETAS}).trainings({})
    assert len(training.decodes) == 3


def test_two_train_columns_are_combined_the_last_one_fastest() -> None:
    trainings = Grid("ilql", {"train.tau": (0.7, 0.9), "train.gamma": (0.9, 1.0)}).trainings({})
    assert [(t.train.tau, t.train.gamma) for t in trainings] == [(0.7, 0.9), (0.7, 1.0), (0.9, 0.9), (0.9, 1.0)]
    assert all(len(t.decodes) == 1 for t in trainings)


def test_a_grid_of_nothing_is_the_base_setting() -> None:
    (training,) = Grid("bc", {}).trainings({"train.steps": 7, "decode.top_k": 3})
    assert (training.train.steps, training.decodes[0].top_k) == (7, 3)


def test_what_varies_goes_before_the_base() -> None:
    trainings = Grid("ilql", {"train.tau": (0.9,)}).trainings({"train.tau": 0.6})
    assert [training.train.tau for training in trainings] == [0.9]


def test_base_columns_a_method_does_not_have_are_passed_over() -> None:
    (training,) = Grid("bc", {}).trainings({"train.tau": 0.6, "decode.beta": 4.0, "train.steps": 7})
    assert training.train.steps == 7


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("train.tua", "'train.tua' is no column of an 'ilql' trial; known: train.tau, "),
        ("decode.bta", "'decode.bta' is no column of an 'ilql' trial; known: decode.beta, "),
        ("tau", "'tau' is no column of an 'ilql' trial; known: train.tau, "),
        ("evaluation.episodes", "'evaluation.episodes' is no column of an 'ilql' trial; known: "),
    ],
)
def test_a_misspelt_column_dies_with_the_nearest_right_one(column: str, message: str) -> None:
    with pytest.raises(KeyError) as caught:
        Grid("ilql", {column: (0.7,)}).trainings({})
    assert str(caught.value.args[0]).startswith(message)


def test_a_column_of_another_method_is_refused() -> None:
    with pytest.raises(KeyError, match=r"'train.tau' is no column of a.* 'bc' trial"):
        Grid("bc", {"train.tau": (0.7,)}).trainings({})


def test_sarsa_has_no_expectile_of_its_own() -> None:
    with pytest.raises(KeyError, match=r"'train.tau' is no column of a.* 'sarsa' trial"):
        Grid("sarsa", {"train.tau": (0.5,)}).trainings({})


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"train.tau": 1.0}, ValueError, r"train.tau must be in \(0, 1\), got 1.0"),
        ({"train.steps": 0}, ValueError, "train.steps must be at least 1, got 0"),
        ({"train.steps": 2.5}, TypeError, "train.steps must be int, got 2.5"),
        ({"train.start": "nowhere"}, ValueError, "train.start must be one of behaviour, pretrained, got nowhere"),
        ({"train.tau": float("nan")}, ValueError, r"train.tau must be .*number, got nan"),
    ],
)
def test_a_value_outside_its_range_is_refused_under_its_columns_name(
    values: dict[str, float], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        settings("ilql", "train", values)


def test_proposals_vary_no_decoding() -> None:
    with pytest.raises(ValueError, match=r"proposals vary train.\* columns.*got decode.beta"):
        Between("decode.beta", Search(1.0, 2.0))


# Arms


def test_an_arm_is_its_method_unless_it_is_a_variant_of_it() -> None:
    (plain,) = Grid("ilql", {}).trainings({})
    (variant,) = Grid("ilql", {}, variant="ilql_without_lm").trainings({})
    assert (plain.method, plain.arm) == ("ilql", "ilql")
    assert (variant.method, variant.arm) == ("ilql", "ilql_without_lm")


def test_a_switch_goes_before_the_base_and_holds_in_every_cell() -> None:
    grid = Grid("ilql", {"train.tau": (0.7, 0.9)}, variant="single", switch={"train.double_q": False})
    trainings = grid.trainings({"train.double_q": True})
    assert [(training.train.tau, training.train.double_q) for training in trainings] == [(0.7, False), (0.9, False)]


def test_the_design_decides_what_it_varies_and_what_it_switches() -> None:
    grid = Grid("ilql", {"train.tau": (0.7,), "decode.beta": BETAS}, variant="v", switch={"train.cql_weight": 0.0})
    assert grid.decided == {"train.tau", "decode.beta", "train.cql_weight"}


def test_a_misspelt_switch_dies_with_the_nearest_right_one() -> None:
    with pytest.raises(KeyError, match=r"'train.double' is no column of an 'ilql' trial; known: train.double_q"):
        Grid("ilql", {}, variant="v", switch={"train.double": False}).trainings({})
    with pytest.raises(KeyError, match="'double_q' is no column of an 'ilql' trial"):
        Grid("ilql", {}, variant="v", switch={"double_q": False}).trainings({})


# What proposals vary


def test_proposals_vary_what_the_method_declares_on_its_scale() -> None:
    found = {dimension.column: dimension for dimension in Grid("ilql", {"train.tau": (0.7,)}).space()}
    assert set(found) == {"train.tau", "train.gamma", "train.cql_weight"}  # one value in the design is no switch
    assert [name for name, dimension in found.items() if dimension.search.log] == ["train.cql_weight"]


@pytest.mark.parametrize("method", sorted(known_methods()))
def test_both_ends_of_every_search_are_settings_of_the_method(method: str) -> None:
    declared = [item.name for item in dataclasses.fields(method_named(method).train) if item.metadata.get("search")]
    if not declared:
        with pytest.raises(ValueError, match=f"'{method}' declares nothing"):
            Grid(method, {}).space()
        return
    space = Grid(method, {}).space()
    assert [dimension.column for dimension in space] == [f"train.{name}" for name in declared]
    for dimension in space:
        for end in (dimension.low, dimension.high):
            settings(method, "train", {dimension.column: end})


def test_what_makes_a_variant_is_never_proposed() -> None:
    grid = Grid("ilql", {"decode.beta": BETAS}, variant="ilql_without_cql", switch={"train.cql_weight": 0.0})
    assert [dimension.column for dimension in grid.space()] == ["train.gamma", "train.tau"]


def test_what_is_held_is_never_proposed() -> None:
    (only,) = Grid("ilql", {}).space(("train.gamma", "train.cql_weight"))
    assert (only.column, only.low, only.high) == ("train.tau", 0.5, 0.95)


def test_an_arm_must_leave_something_to_vary() -> None:
    grid = Grid("sarsa", {}, variant="v", switch={"train.gamma": 1.0})
    with pytest.raises(ValueError, match="must leave something to vary, 'v' decides all there is"):
        grid.space(("train.cql_weight",))


def test_proposals_start_from_the_first_cell_with_all_its_decodings() -> None:
    grid = Grid("ilql", {"train.tau": (0.7, 0.9), "decode.beta": BETAS}, variant="v", switch={"train.cql_weight": 0.0})
    (start,) = grid.to_refine().trainings({})
    assert (start.arm, start.train.tau, start.train.cql_weight) == ("v", 0.7, 0.0)
    assert [decode.beta for decode in start.decodes] == list(BETAS)


def test_the_known_columns_of_methods_are_those_of_any_of_them() -> None:
    known = known_columns(["bc", "ilql"])
    assert {"train.tau", "train.steps", "decode.beta", "decode.top_k"} <= set(known)
    assert "train.keep" not in known
    assert "train.keep" in known_columns(["filtered_bc"])
    assert len(known) == len(set(known))
