"""What `COLUMN=LOW..HIGH` says: where proposals look, of which arms; and what is none is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from ilql.hyperparameters import Search
from sweeps.asked import options_of
from sweeps.bandit_ablation import QUESTION
from sweeps.intervals import interval, searched_notes, searching, written
from sweeps.options import Options
from sweeps.sizing import chosen_preset, for_grid, shown
from sweeps.space import Between, Grid
from sweeps.study import Study


def said(*words: str) -> Options:
    return options_of(QUESTION, "sweeps run bandit", [*words, "--preset", "smoke"])


def refined(*words: str) -> dict[str, tuple[Between, ...]]:
    """Give what every arm that is refined searches, beside the ends of what was said."""
    options = said(*words)
    chosen_preset(QUESTION, options)
    return {grid.arm: grid.space(QUESTION.held) for grid in QUESTION.refined(options)}


RATE = Between("train.learning_rate", Search(1e-5, 1e-3, log=True))
TAU = Between("train.tau", Search(0.5, 0.95))


def test_every_arm_that_has_the_column_searches_it_beside_what_it_declares() -> None:
    found = refined("train.learning_rate=1e-5..1e-3", "--methods", "bc,ilql")
    assert found == {"bc": (RATE,), "ilql": (TAU, RATE)}


def test_an_interval_stands_in_place_of_what_is_declared_and_frees_what_is_held() -> None:
    found = refined("ilql.train.tau=0.6..0.8", "ilql.train.gamma=0.5..1")
    assert found == {"ilql": (Between("train.tau", Search(0.6, 0.8)), Between("train.gamma", Search(0.5, 1.0)))}


def test_the_arms_that_are_named_alone_are_refined() -> None:
    assert list(refined("train.learning_rate=1e-5..1e-3", "--refine", "sarsa")) == ["sarsa"]


def test_it_is_no_column_of_the_design() -> None:
    plain, with_interval = said(), said("train.tau=0.6..0.8")
    assert [grid.columns for grid in QUESTION.chosen(with_interval)] == [
        grid.columns for grid in QUESTION.chosen(plain)
    ]
    assert with_interval.distinction("standard") != plain.distinction("standard")


def test_it_is_said_and_shown() -> None:
    options = said("train.batch_size=8..128", "--methods", "bc,ilql")
    assert searched_notes(QUESTION.refined(options), options.searched, 2) == [
        "train.batch_size is searched from 8 to 128, logarithmic, in bc, ilql"
    ]
    assert shown(QUESTION, options)["search"] == {arm: {"train.batch_size": [8.0, 128.0]} for arm in ("bc", "ilql")}
    assert "search" not in shown(QUESTION, said())


@pytest.mark.parametrize(
    ("text", "search"),
    [
        ("1e-5..1e-3", Search(1e-5, 1e-3, log=True)),
        ("1..10", Search(1.0, 10.0, log=True)),
        ("1..9.9", Search(1.0, 9.9)),
        ("0..1", Search(0.0, 1.0)),
        ("-30..-1", Search(-30.0, -1.0)),
        ("0.1 .. 0.2", Search(0.1, 0.2)),
    ],
)
def test_ten_times_above_nought_is_logarithmic_and_what_is_written_reads_the_same(text: str, search: Search) -> None:
    assert interval("train.x", (text,)) == search
    assert interval("train.x", (written(search),)) == search


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("train.tau=0.9..0.5", "must go from a lower to a higher end, got train.tau=0.9..0.5; train.tau=0.5..0.9 does"),
        ("train.tau=0.5..0.5", "must go from a lower to a higher end, got train.tau=0.5..0.5; train.tau=0.5 fixes it"),
        (
            "train.tau=0.5..1",
            "both ends of an interval must be what ilql may have, got train.tau=0.5..1: train.tau mus",
        ),
        ("train.tau=0.5..inf", "must lie between two finite numbers, as 1e-5..1e-3, got train.tau=0.5..inf"),
        ("train.tau=a..b", "must lie between two finite numbers, as 1e-5..1e-3, got train.tau=a..b"),
        ("train.tau=0.5..0.6..0.7", "must lie between two finite numbers, as 1e-5..1e-3, got train.tau=0.5..0.6..0.7"),
        (
            "train.tau=0.5..0.6,0.7",
            "an interval must stand alone, got train.tau=0.5..0.6,0.7; train.tau=VALUE,VALUE is",
        ),
        ("train.start=0..1", "an interval must be of a column of numbers, got train.start=0..1; "),
        ("train.double_q=0..1", "an interval must be of a column of numbers, got train.double_q=0..1; "),
        ("train.batch_size=8.5..64", "of whole numbers must have whole ends, got train.batch_size=8.5..64"),
        ("decode.beta=1..16", "must be of a train.* column, since proposals vary no other, got decode.beta=1..16; "),
        ("train.tua=0..1", "'train.tua' is no column of these methods; known: train.tau"),
        ("bc.train.tau=0..1", "'train.tau' is no column of an 'bc' trial"),
        ("behaviour.steps=1..9", "'behaviour.steps' is no column of these methods"),
    ],
)
def test_what_is_none_is_one_line(word: str, line: str) -> None:
    with pytest.raises((KeyError, ValueError)) as raised:
        refined(word)
    assert line in str(raised.value.args[0])
    assert "\n" not in str(raised.value.args[0])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ("--trials", "0"),
            "must have proposals that search it, got bc.train.steps=8..64 and none; --trials 8 makes 8",
        ),
        (("--refine", "ilql"), "must be of a method that is refined, got bc.train.steps=8..64; --refine names others"),
    ],
)
def test_what_nobody_would_search_is_one_line(words: tuple[str, ...], line: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011  the line is compared below
        refined("bc.train.steps=8..64", *words)
    assert line in str(raised.value)


def test_whole_sweeps_are_made_at_values_and_not_between_them() -> None:
    with pytest.raises(ValueError, match=r"--vary must have values, .* got train\.tau=0\.6\.\.0\.8"):
        said("--vary", "train.tau=0.6..0.8")


def test_of_two_columns_one_of_which_must_stay_above_the_other_the_worst_pair_is_tried() -> None:
    with pytest.raises(ValueError, match="value_low must be below value_high"):
        refined("ilql.train.value_low=-9..0.5", "ilql.train.value_high=0..9")
    assert "ilql" in refined("ilql.train.value_low=-9..-1", "ilql.train.value_high=0..9")


def test_what_makes_a_variant_is_not_searched() -> None:
    half = Grid("ilql", {}, variant="half", switch={"train.tau": 0.5})
    with pytest.raises(ValueError, match=r"half is what it is by its train\.tau, which cannot vary"):
        searching([half], {"train.tau": Search(0.6, 0.8)})
    plain, same = searching([Grid("ilql", {}), half], {"train.tau": Search(0.6, 0.8)})
    assert (plain.search, same.search) == ({"train.tau": Search(0.6, 0.8)}, {})


def test_whole_numbers_are_proposed_for_a_column_that_has_them(tmp_path: Path) -> None:
    options = said("train.batch_size=2..64", "--methods", "ilql")
    (grid,) = QUESTION.refined(options)
    (base,) = grid.to_refine().trainings(for_grid(chosen_preset(QUESTION, options), grid))
    study = Study(tmp_path / "study.log", name="s", seed=0, space={"ilql": grid.space(QUESTION.held)})
    study.tell(study.enqueue(base), {"cell": 1.0})
    for _ in range(6):
        number, columns = study.propose("ilql", "ilql")
        assert isinstance(columns["train.batch_size"], int)
        assert 2 <= columns["train.batch_size"] <= 64
        assert isinstance(columns["train.tau"], float)
        study.tell(number, {"cell": 0.0})
