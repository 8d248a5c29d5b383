"""Sweeps of W&B and of trlX become files that `sweeps plan` takes; what cannot be taken over is said."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from sweeps import cli
from sweeps.importing import Format, Imported, read_sweep
from sweeps.question_file import read_yaml

WANDB = """
program: train.py
method: bayes
metric: {name: return, goal: maximize}
parameters:
  tau: {values: [0.5, 0.9]}
  beta: {value: 4}
  optimizer:
    parameters:
      lr: {distribution: log_uniform_values, min: 1e-4, max: 1e-2}
"""

TRLX = """
tune_config: {mode: max, metric: metrics/return, num_samples: 8}
method.tau: {strategy: uniform, values: [0.6, 0.9]}
steps_for_target_q_sync: {strategy: choice, values: [1, 5]}
alpha: {strategy: loguniform, values: [0.001, 0.1]}
"""


def taken(form: Format, points: int | None = 3, **parameters: Any) -> Imported:
    found = {"parameters": parameters} if form == "wandb" else {"tune_config": {}, **parameters}
    return read_sweep(found, form, points=points, names={})


def choice(*values: float) -> dict[str, Any]:
    """Values as either form writes them."""
    return {"strategy": "choice", "values": list(values)}


@pytest.mark.parametrize(
    ("what", "values"),
    [
        ({"values": [1, 2.5]}, (1, 2.5)),
        ({"value": 3}, (3,)),
        ({"min": 0.0, "max": 1.0}, (0.0, 0.5, 1.0)),
        ({"min": 1, "max": 4}, (1, 2, 4)),  # whole ends: whole numbers, and round(2.5) is 2
        ({"min": "1e-4", "max": "1e-2", "distribution": "log_uniform_values"}, (1e-4, 1e-3, 1e-2)),
        ({"min": 0, "max": 2.302585093, "distribution": "log_uniform"}, (1.0, 3.162, 10.0)),  # exponents of e
        ({"min": 0.0, "max": 1.0, "q": 0.4, "distribution": "q_uniform"}, (0.0, 0.4, 0.8)),
    ],
)
def test_what_wandb_draws_becomes_values(what: dict[str, Any], values: tuple[float, ...]) -> None:
    assert taken("wandb", tau=what).columns["train.tau"] == pytest.approx(values)


@pytest.mark.parametrize(
    ("strategy", "given", "values"),
    [
        ("choice", [1, 5], (1, 5)),
        ("uniform", [0.6, 0.9], (0.6, 0.75, 0.9)),
        ("loguniform", [0.001, 0.1], (0.001, 0.01, 0.1)),
        ("quniform", [0.0, 1.0, 0.5], (0.0, 0.5, 1.0)),
        ("randint", [1, 6], (1, 3, 5)),  # 6 is never drawn
    ],
)
def test_what_trlx_draws_becomes_values(strategy: str, given: list[float], values: tuple[float, ...]) -> None:
    assert taken("trlx", tau={"strategy": strategy, "values": given}).columns["train.tau"] == pytest.approx(values)


def test_only_trlxs_tilt_while_acting_is_our_beta() -> None:
    found = taken("trlx", **{"method.gen_kwargs.beta": choice(1, 4), "method.beta": choice(0)})
    assert found.columns == {"decode.beta": (1, 4)}
    assert found.notes[0].startswith("method.beta is 0, as it is here")
    assert taken("wandb", beta={"value": 4}, **{"method.beta": {"value": 0.0}}).columns == {"decode.beta": (4,)}


@pytest.mark.parametrize(("form", "name"), [("trlx", "method.beta"), ("trlx", "beta"), ("wandb", "method.beta")])
def test_trlxs_weight_in_the_policys_loss_is_refused(form: Format, name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be 0, since in trlX it is the exponent of a weight .*--drop"):
        taken(form, **{name: choice(0, 4)}, tau=choice(0.9))


def test_a_renamed_beta_is_what_its_user_says() -> None:
    found = {"tune_config": {}, "method.beta": choice(1, 4)}
    read = read_sweep(found, "trlx", points=3, names={"method.beta": "train.awr_beta"})
    assert read.columns == {"train.awr_beta": (1, 4)}


@pytest.mark.parametrize("name", ["scheduler.kwargs.gamma", "optimizer.kwargs.alpha"])
def test_an_optimisers_own_names_are_no_columns_of_ours(name: str) -> None:
    assert taken("trlx", **{"optimizer.kwargs.lr": choice(1e-4)}).columns == {"train.learning_rate": (1e-4,)}
    with pytest.raises(ValueError, match=f"'{name}' must be one of our columns"):
        taken("trlx", **{name: choice(0.9)})


STEPPED = [
    ("q_uniform", 3, 64, 8, (8, 24, 48, 64)),  # 1 to 8 times 8: 1, 3⅓, 5⅔, 8
    ("q_uniform", 1e-5, 1e-3, 3e-4, (3e-4, 6e-4, 9e-4)),
    ("q_log_uniform_values", 1, 32, 1, (1, 3, 10, 32)),
    ("q_log_uniform_values", 3, 65, 4, (4, 12, 24, 64)),  # 4·16^(1/3) = 10.1 and 25.4, in fours: 12 and 24
    ("q_uniform", 0.05, 0.97, 0.1, (0.1, 0.4, 0.6, 0.9)),  # 1, 3⅔, 6⅓, 9 tenths
]


@pytest.mark.parametrize(("distribution", "low", "high", "step", "values"), STEPPED)
def test_steps_stay_between_the_ends(
    distribution: str, low: float, high: float, step: float, values: tuple[float, ...]
) -> None:
    tau = {"distribution": distribution, "min": low, "max": high, "q": step}
    found = taken("wandb", 4, tau=tau).columns["train.tau"]
    assert found == values
    assert {type(value) for value in found} == {int if isinstance(step, int) else float}


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-3}, ("1e-05..0.001",)),
        ({"min": 0.6, "max": 0.9}, ("0.6..0.9",)),
        ({"min": 8, "max": 64}, ("8..64",)),
        ({"min": 0.01, "max": 1.0}, (0.01, 0.34, 0.67, 1.0)),  # a search of ours would be logarithmic
        ({"distribution": "log_uniform_values", "min": 1.0, "max": 8.0}, (1.0, 2.0, 4.0, 8.0)),  # and here linear
        ({"distribution": "q_uniform", "min": 0.2, "max": 0.8, "q": 0.2}, (0.2, 0.4, 0.6, 0.8)),
    ],
)
def test_where_no_number_of_values_is_asked_for_an_interval_is_searched_if_that_draws_the_same(
    what: dict[str, Any], said: tuple[object, ...]
) -> None:
    found = taken("wandb", None, lr=what, beta={"min": 1.0, "max": 4.0})
    assert found.columns == {"train.learning_rate": said, "decode.beta": (1.0, 2.0, 3.0, 4.0)}


def test_proposals_are_as_many_as_theirs_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs, ours = tmp_path / "theirs.yaml", tmp_path / "ours.yaml"
    theirs.write_text(TRLX)
    command = ["import", "trlx", str(theirs), "-o", str(ours), "--question", "bandit", "--methods", "ilql"]
    assert cli.main(command) == 0
    assert (read_yaml(ours)["trials"], read_yaml(ours)["train.polyak"]) == (8, ["0.001..0.1"])
    assert cli.main(["plan", str(ours), "--preset", "smoke", "--store", str(tmp_path / "store")]) == 0
    said = capsys.readouterr().out
    assert "proposals for each method that searches: theirs, 8" in said
    assert "train.polyak is searched from 0.001 to 0.1, logarithmic, in ilql" in said
    assert "then 8 proposals" in said


def test_rounding_takes_no_value_out_of_its_interval() -> None:
    found = taken("wandb", 3, tau={"min": 0.123456, "max": 0.99999}).columns["train.tau"]
    assert found == (0.1235, 0.5617, 0.99999)  # 1.0 would be beyond the end


def test_an_interval_without_a_multiple_of_its_step_is_refused() -> None:
    with pytest.raises(ValueError, match="tau must have a multiple of its step, 3, between its ends, got 1, 2"):
        taken("wandb", tau={"distribution": "q_uniform", "min": 1, "max": 2, "q": 3})


def test_more_points_are_more_values_between_the_same_ends() -> None:
    values = taken("wandb", 5, tau={"min": 0.5, "max": 0.9}).columns["train.tau"]
    assert values == pytest.approx((0.5, 0.6, 0.7, 0.8, 0.9))


def test_our_own_names_stay_and_theirs_are_said_by_the_user_where_they_are_not_known() -> None:
    found = {"parameters": {"train.keep": {"value": 0.2}, "mine": {"value": 1.0}, "theirs": {"value": 0}}}
    taken_ = read_sweep(found, "wandb", points=2, names={"mine": "train.margin"}, dropped=["theirs"])
    assert taken_.columns == {"train.keep": (0.2,), "train.margin": (1.0,)}
    assert taken_.notes == ("theirs is left out, as was asked",)


@pytest.mark.parametrize(
    ("form", "found", "line"),
    [
        ("wandb", {}, "a W&B sweep must have `parameters`, this file has none"),
        ("trlx", {"tau": {}}, "a trlX sweep must have a `tune_config`, this file has none"),
        ("trlx", {"tune_config": True, "tau": {}}, "`tune_config` must hold names and values, got True"),
        ("wandb", {"parameters": {}}, "a sweep must vary something"),
        ("wandb", {"parameters": {"tua": {"value": 1}}}, "'tua' must be one of our columns; say --rename tua=train."),
        ("wandb", {"parameters": {"tau": 3}}, "tau must say its values"),
        ("wandb", {"parameters": {"tau": {"values": 3}}}, "tau must have a list of plain values, got 3"),
        ("wandb", {"parameters": {"tau": {"min": 1}}}, "tau must have a number as max, got None"),
        ("wandb", {"parameters": {"tau": {"min": 2, "max": 1}}}, "tau must go from a lower to a higher end, got 2, 1"),
        ("wandb", {"parameters": {"tau": {"mu": 1, "distribution": "normal"}}}, "tau must have a number as min"),
        (
            "wandb",
            {"parameters": {"tau": {"min": 0, "max": 1, "distribution": "log_uniform_values"}}},
            "tau must go from a lower to a higher end, above 0, got 0, 1",
        ),
        (
            "wandb",
            {"parameters": {"tau": {"min": 0, "max": 1, "distribution": "beta"}}},
            "tau must have values or lie between two ends, got the distribution 'beta'; --drop tau",
        ),
        (
            "wandb",
            {"parameters": {"tau": {"min": 0, "max": math.inf, "distribution": "int_uniform"}}},
            "tau must lie between two finite ends, got 0, inf in steps of 1",
        ),
        (
            "wandb",  # e^1000
            {"parameters": {"tau": {"min": 0, "max": 1000, "distribution": "log_uniform"}}},
            "tau must lie between two finite ends, got 1, inf",
        ),
        (
            "wandb",
            {"parameters": {"tau": {"min": -1e308, "max": 1e308}}},
            "tau must lie between two finite ends, got -1e+308, 1e+308",
        ),
        ("trlx", {"tune_config": {}, "tau": {"strategy": "randn", "values": [0, 1]}}, "got 'randn'; --drop tau"),
        ("trlx", {"tune_config": {}, "tau": {"strategy": "uniform", "values": [0]}}, "tau must have 2 values for its"),
        (
            "wandb",
            {"parameters": {"lr": {"value": 1}, "learning_rate": {"value": 1}}},
            "a column must have one name, got learning_rate for train.learning_rate as well",
        ),
        (
            "wandb",
            {"parameters": {"train": {"parameters": {"tau": {"value": 0.5}}}, "train.tau": {"value": 0.9}}},
            "a parameter must be there once, got train.tau twice",
        ),
    ],
)
def test_what_cannot_be_taken_over_is_one_line(form: Format, found: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011  the line is compared below
        read_sweep(found, form, points=3, names={})
    assert line in str(raised.value)


@pytest.mark.parametrize(("form", "text", "cells"), [("wandb", WANDB, 2 * 1 * 3), ("trlx", TRLX, 3 * 2 * 3)])
def test_what_is_imported_can_be_planned(
    form: str, text: str, cells: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs, ours = tmp_path / "theirs.yaml", tmp_path / "ours.yaml"
    theirs.write_text(text)
    command = ["import", form, str(theirs), "-o", str(ours), "--points", "3", "--question", "bandit"]
    assert cli.main([*command, "--methods", "ilql"]) == 0
    assert "left out; every cell of a design is trained and played" in capsys.readouterr().out
    more = ["--preset", "smoke", "--trials", "0", "--store", str(tmp_path / "store")]
    # What they do not vary stays as the question varies it: β where there is none of theirs.
    assert cli.main(["plan", str(ours), *more]) == 0
    betas = 1 if form == "wandb" else 3
    assert f"{cells * betas} cells need" in capsys.readouterr().out
    assert cli.main([*command, "--methods", "ilql"]) == 2
    assert "-o must name a new file" in capsys.readouterr().err


def test_a_name_of_theirs_cannot_end_the_comment_that_it_stands_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs, ours = tmp_path / "theirs.yaml", tmp_path / "ours.yaml"
    theirs.write_text('parameters: {"a\\nstore: /elsewhere # .lr": {min: 0.1, max: 0.2}}')
    assert cli.main(["import", "wandb", str(theirs), "-o", str(ours), "--question", "bandit"]) == 0
    assert "store" not in read_yaml(ours)
    assert "a\\nstore: /elsewhere # .lr, from 0.1 to 0.2, is searched" in capsys.readouterr().out
