"""What `COLUMN=VALUES` says of a design: fixed, varied, by all arms that have it or by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from sweeps.asked import options_of
from sweeps.bandit_ablation import QUESTION
from sweeps.options import Options
from sweeps.sizing import chosen_preset, proposed_too, side_effects, world_settings
from sweeps.space import Grid
from sweeps.visdial_ablation import QUESTION as VISDIAL


def said(*words: str) -> Options:
    return options_of(QUESTION, "sweeps run bandit", [*words, "--preset", "smoke"])


def asked(*words: str) -> None:
    """Look at everything that is known of a command line before a world is built."""
    options = said(*words)
    world_settings(QUESTION, chosen_preset(QUESTION, options), options)


def columns(options: Options) -> dict[str, Mapping[str, Any]]:
    """What every arm varies."""
    return {grid.arm: grid.columns for grid in QUESTION.chosen(options)}


PLAIN = columns(said())


def test_the_design_is_the_questions_own_where_nothing_is_said() -> None:
    assert PLAIN["ilql"] == {"train.tau": (0.7, 0.9), "decode.beta": PLAIN["sarsa"]["decode.beta"]}
    assert PLAIN["bc"] == {}


def test_one_value_of_what_varies_leaves_one() -> None:
    assert columns(said("train.tau=0.8"))["ilql"]["train.tau"] == (0.8,)


def test_several_values_are_varied_by_every_arm_that_has_the_column() -> None:
    found = columns(said("decode.beta=1,2,inf", "train.gamma=0.9,0.99"))
    assert found["ilql"]["decode.beta"] == found["sarsa"]["decode.beta"] == (1, 2, float("inf"))
    assert found["ilql"]["train.gamma"] == (0.9, 0.99)
    assert found["bc"].keys() == found["filtered_bc"].keys() - {"train.keep"}  # which have gamma too, or have it not


def test_an_arm_may_be_told_alone_and_then_against_all() -> None:
    found = columns(said("ilql.decode.beta=8", "decode.beta=1,2"))
    assert found["ilql"]["decode.beta"] == (8,)
    assert found["sarsa"]["decode.beta"] == (1, 2)


def test_one_value_of_what_does_not_vary_is_set() -> None:
    options = said("train.steps=7", "world.dialogues=8", "behaviour.steps=5")
    assert options.columns == {"train.steps": 7, "world.dialogues": 8, "behaviour.steps": 5}
    assert columns(options) == PLAIN
    assert chosen_preset(QUESTION, options).base["train.steps"] == 7


@pytest.mark.parametrize(
    "word", ["train.steps=7", "world.dialogues=8", "behaviour.steps=5", "train.tau=0.8", "ilql.train.tau=0.8"]
)
def test_set_is_another_spelling_of_one_value(word: str) -> None:
    plainly, with_set = said(word), said("--set", word)
    assert (with_set.columns, with_set.overrides) == (plainly.columns, plainly.overrides) != ({}, {})
    assert with_set.distinction("standard") == plainly.distinction("standard")


def test_with_set_a_comma_belongs_to_a_setting_of_the_world() -> None:
    assert said("--set", "world.roles=user,buyer").columns == {"world.roles": "user,buyer"}


def test_a_design_with_other_values_has_another_name() -> None:
    names = [said(*words).distinction("standard") for words in ([], ["train.tau=0.8"], ["train.tau=0.6"])]
    assert names[0] == []
    assert len({name for each in names for name in each}) == 2


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["train.tua=0.5,0.6"], "'train.tua' is no column of these methods; known: train.tau"),
        (["ilql.train.tua=0.5"], "'train.tua' is no column of an 'ilql' trial; known: train.tau"),
        (["iqll.train.tau=0.5,0.6"], "a design varies train.* and decode.*, got iqll.train.tau with 2 values"),
        (["cql.train.tau=0.5,0.6", "--methods", "ilql"], "a design varies train.* and decode.*, got cql.train.tau"),
        (["world.dialogues=8,16"], "a design varies train.* and decode.*, got world.dialogues with 2 values; try"),
        (["--set", "train.tua=0.5"], "'train.tua' is no column of a bandit sweep; known: train.tau"),
        (["--set", "train.tau=0.5,0.6"], "--set gives a column one value, got train.tau=0.5,0.6; train.tau=VALUE,"),
        (["--set", "ilql.train.steps=[5,6]"], "--set gives a column one value, got ilql.train.steps=[5,6]; "),
        (["--set", "world.dialogues=8,16"], "world.dialogues must be int, got '8,16'"),
    ],
)
def test_what_cannot_be_is_one_line(words: list[str], line: str) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)) as raised:
        asked(*words)
    assert line in str(raised.value)


def test_what_makes_an_arm_what_it_is_does_not_vary() -> None:
    held = Grid("ilql", {"decode.beta": (1.0,)}, variant="ilql_half", switch={"train.tau": 0.5})
    question = dataclasses.replace(QUESTION, grids=(held,), main=(), refine=(), against=())
    options = options_of(question, "p", ["ilql_half.train.tau=0.8"])
    with pytest.raises(ValueError, match=r"ilql_half is what it is by its train\.tau, which cannot vary, got \[0\.8\]"):
        question.chosen(options)


@pytest.mark.parametrize(
    "words",
    [["train.tau="], ["=0.5"], ["train.tau=0.5", "train.tau=0.6"], ["train.tau=5", "--set", "train.tau=6"],
     ["world.dialogues=8", "--vary", "world.dialogues=4,6"], ["--sedes", "2"], ["x"]],
)  # fmt: skip
def test_words_that_are_none_leave_with_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        said(*words)
    assert left.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_one_value_of_what_makes_a_variant_is_for_the_others() -> None:
    plain = Grid("ilql", {"decode.beta": (1.0,)})
    half = dataclasses.replace(plain, variant="ilql_half", switch={"train.tau": 0.5})
    question = dataclasses.replace(QUESTION, grids=(plain, half), main=(), refine=(), against=())
    options = options_of(question, "p", ["train.tau=0.8", "--preset", "smoke"])
    chosen_preset(question, options)
    assert question.chosen(options) == [Grid("ilql", {"decode.beta": (1.0,), "train.tau": (0.8,)}), half]


def test_a_column_that_makes_every_arm_that_has_it_is_for_none() -> None:
    half = Grid("ilql", {"decode.beta": (1.0,)}, variant="ilql_half", switch={"train.tau": 0.5})
    question = dataclasses.replace(QUESTION, grids=(Grid("bc", {}), half), main=(), refine=(), against=())
    options = options_of(question, "p", ["train.tau=0.8,0.9"])
    with pytest.raises(ValueError, match=r"ilql_half is what it is by its train\.tau, which cannot vary"):
        question.chosen(options)


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (["--set", "train.tau=0.6"], ["train.tau=0.6"]),
        (["ilql.train.tau=0.6"], ["ilql.train.tau=0.6"]),
        (["train.tau=0.6", "--trials", "0"], []),
        (["train.tau=0.6", "--refine", "cql"], []),
        (["train.tau=0.6,0.8"], []),  # it is no single value that could be taken for the only one
        (["decode.beta=4"], []),  # nor do proposals vary a decoding
        (["awr.train.tau=0.6"], []),
    ],
)
def test_what_the_design_alone_has_fixed_is_said(words: list[str], lines: list[str]) -> None:
    options = options_of(VISDIAL, "sweeps run visdial", ["--preset", "smoke", "--trials", "2", *words])
    found = proposed_too(VISDIAL, chosen_preset(VISDIAL, options), options)
    more = "is the design's alone: proposals vary train.tau in ilql too; --trials 0 makes none"
    assert found == [f"{line} {more}" for line in lines]


class TestSideEffects:
    """What visual dialogue's design does beside what was meant: AWR's critic has τ, too, and .8 is compared at."""

    def said(self, *words: str) -> list[str]:
        return side_effects(VISDIAL, options_of(VISDIAL, "sweeps run visdial", [*words, "--preset", "smoke"]))

    def test_an_arm_that_varies_what_its_design_does_not_is_said(self) -> None:
        line = "train.tau varies in awr too, whose own design does not vary it: awr.train.tau=VALUE fixes it there"
        assert self.said("train.tau=0.6,0.8") == [line]

    def test_a_comparison_whose_fixed_setting_is_gone_is_said(self) -> None:
        line = "without train.tau=0.8 nothing compares ilql with bc at settings fixed beforehand"
        assert self.said("ilql.train.tau=0.6,0.7") == [line]
        assert self.said("train.tau=0.7") == [line]

    @pytest.mark.parametrize(
        "words", [[], ["train.gamma=0.9,0.99"], ["ilql.train.tau=0.6,0.8"], ["decode.beta=4,8,16"], ["train.tau=0.8"],
                  ["train.tau=0.6,0.8", "awr.train.tau=0.8"],
                  ["train.tau=0.6,0.7", "--methods", "awr"], ["ilql.train.tau=0.6,0.7", "--methods", "ilql,cql"]]
    )  # fmt: skip
    def test_of_the_rest_nothing_is_said(self, words: list[str]) -> None:
        assert self.said(*words) == []
