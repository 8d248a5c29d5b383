"""Grids and intervals: which columns vary, and what varying each of them costs."""

from __future__ import annotations

import pytest

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


def test_an_interval_has_a_low_and_a_higher_end() -> None:
    with pytest.raises(ValueError, match=r"train.tau must vary between a low and a higher end, got 0.9 and 0.9"):
        Between("train.tau", 0.9, 0.9)


def test_proposals_vary_no_decoding() -> None:
    with pytest.raises(ValueError, match=r"proposals vary train.\* columns.*got decode.beta"):
        Between("decode.beta", 1.0, 2.0)


def test_the_known_columns_of_methods_are_those_of_any_of_them() -> None:
    known = known_columns(["bc", "ilql"])
    assert {"train.tau", "train.steps", "decode.beta", "decode.top_k"} <= set(known)
    assert "train.keep" not in known
    assert "train.keep" in known_columns(["filtered_bc"])
    assert len(known) == len(set(known))
