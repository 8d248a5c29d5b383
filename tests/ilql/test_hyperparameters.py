"""Settings refuse to exist in a state they should not have."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest

from ilql.hyperparameters import (
    AT_LEAST_ONE,
    NOT_NEGATIVE,
    NOT_NEGATIVE_OR_INFINITE,
    POSITIVE,
    SHARE,
    UNIT,
    Range,
    Search,
    check,
    hyper,
    make,
    unknown,
)


@dataclass(frozen=True, kw_only=True)
class Few:
    tau: float = hyper(0.7, Range(0.0, 1.0, open_low=True, open_high=True), meaning="expectile")
    gamma: float = hyper(0.99, UNIT, meaning="discount")
    keep: float = hyper(0.2, SHARE, meaning="share")
    rate: float = hyper(1e-4, POSITIVE, meaning="learning rate")
    weight: float = hyper(1.0, NOT_NEGATIVE, meaning="weight")
    beta: float = hyper(8.0, NOT_NEGATIVE_OR_INFINITE, meaning="tilt")
    steps: int = hyper(10, AT_LEAST_ONE, meaning="steps")
    kind: str = hyper("token", Range(choices=("dialogue", "token")), meaning="kind")
    double: bool = hyper(True, meaning="two heads")
    clip: float | None = hyper(None, POSITIVE, meaning="clip, or none")

    def __post_init__(self) -> None:
        check(self)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tau": 1.0}, "tau must be in (0, 1), got 1.0"),
        ({"tau": 0.0}, "tau must be in (0, 1), got 0.0"),
        ({"gamma": 1.01}, "gamma must be in [0, 1], got 1.01"),
        ({"keep": 0.0}, "keep must be in (0, 1], got 0.0"),
        ({"rate": 0}, "rate must be above 0, got 0.0"),
        ({"weight": -0.5}, "weight must be at least 0, got -0.5"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"kind": "word"}, "kind must be one of dialogue, token, got word"),
        ({"clip": -1.0}, "clip must be above 0, got -1.0"),
        ({"tau": math.nan}, "tau must be a finite number, got nan"),
        ({"rate": math.inf}, "rate must be a finite number, got inf"),
        ({"weight": math.inf}, "weight must be a finite number, got inf"),
        ({"beta": -math.inf}, "beta must be a finite number, got -inf"),
        ({"beta": math.nan}, "beta must be a finite number, got nan"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name_and_rule(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011  the whole message is compared below
        Few(**values)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tau": "0.7"}, "tau must be float, got '0.7'"),
        ({"tau": None}, "tau must be float, got None"),
        ({"steps": 1.5}, "steps must be int, got 1.5"),
        ({"steps": True}, "steps must be int, got True"),
        ({"gamma": True}, "gamma must be float, got True"),
        ({"double": 1}, "double must be bool, got 1"),
        ({"clip": "no"}, "clip must be float or nothing, got 'no'"),
    ],
)
def test_a_value_of_another_type_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError) as refused:
        Few(**values)
    assert str(refused.value) == message


def test_ends_that_belong_to_a_range_are_taken() -> None:
    Few(gamma=0.0, keep=1.0, weight=0.0, beta=math.inf, steps=1, clip=None)
    Few(gamma=1.0, beta=0.0, clip=0.5)


def test_an_int_is_stored_as_the_float_it_stands_for() -> None:
    assert Few(beta=8) == Few(beta=8.0)
    assert type(Few(beta=8).beta) is float
    assert type(Few(clip=1).clip) is float


def test_settings_are_made_from_names() -> None:
    assert make(Few, {"tau": 0.8}, owner="an 'ilql' trial", prefix="train") == Few(tau=0.8)


def test_an_unknown_name_dies_with_the_nearest_first() -> None:
    with pytest.raises(KeyError) as refused:
        make(Few, {"stesp": 3}, owner="an 'ilql' trial", prefix="train")
    message = refused.value.args[0]
    assert message.startswith("'train.stesp' is no column of an 'ilql' trial; known: train.steps, ")
    assert "train.tau" in message


def test_a_refused_value_is_named_with_its_bag() -> None:
    with pytest.raises(ValueError, match=r"^train.tau must be in \(0, 1\), got 1.0$"):
        make(Few, {"tau": 1.0}, owner="an 'ilql' trial", prefix="train")
    with pytest.raises(TypeError, match=r"^train.steps must be int, got 1.5$"):
        make(Few, {"steps": 1.5}, owner="an 'ilql' trial", prefix="train")


def test_without_a_near_spelling_the_order_is_that_of_the_fields() -> None:
    assert unknown("qqq", "method", ["bc", "ilql"]) == "'qqq' is no method; known: bc, ilql"


@pytest.mark.parametrize(("low", "high", "log"), [(0.9, 0.9, False), (0.0, 1.0, True)])
def test_a_search_goes_from_a_low_to_a_higher_end_which_a_logarithm_has(low: float, high: float, log: bool) -> None:
    with pytest.raises(ValueError, match=f"must go from a low to a higher end, got {low} and {high}"):
        Search(low, high, log)
