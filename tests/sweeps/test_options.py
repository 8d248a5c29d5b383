"""The command line of a question: what it means, and one line for everything that is wrong with it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from sweeps.asked import options_of
from sweeps.bandit_ablation import QUESTION
from sweeps.options import Options


def parsed(*arguments: str) -> Options:
    return options_of(QUESTION, "sweeps/bandit_ablation.py", arguments)


def with_inputs(inputs: Mapping[str, str], *arguments: str) -> Options:
    """The options of a question that has other sources."""
    return options_of(dataclasses.replace(QUESTION, inputs=inputs), "p", arguments)


def test_without_options_everything_is_the_presets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SWEEPS_STORE", str(tmp_path))
    options = parsed()
    assert (options.preset, options.store, options.mirror, options.search_seed) == ("laptop", tmp_path, True, 0)
    unsaid = (options.seeds, options.episodes, options.proposals, options.methods, options.rewards, options.concurrent)
    assert set(unsaid) == {options.refine, options.convention} == {None}
    assert not options.transfer
    assert (options.columns, options.resources) == ({}, {})


def test_the_store_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert parsed("--store", "here").store == tmp_path / "here"


def test_every_option_arrives() -> None:
    options = parsed(
        "--preset", "smoke", "--data", "d", "--world", "w", "--rewards", "yn,standard", "--evaluation-reward",
        "standard", "--transfer", "--model", "m", "--methods", "bc, ilql", "--refine", "ilql,cql", "--convention",
        "trlx", "--seeds", "3", "--episodes", "64", "--trials", "0", "--name", "n", "--search-seed", "7",
        "--concurrent", "2", "--tracking-uri", "u", "--no-mlflow", "--plan",
    )  # fmt: skip
    assert (options.preset, options.data, options.world, options.rewards) == ("smoke", "d", "w", ("yn", "standard"))
    assert (options.transfer, options.refine, options.convention) == (True, ("ilql", "cql"), "trlx")
    assert (options.evaluation_reward, options.model, options.methods) == ("standard", "m", ("bc", "ilql"))
    assert (options.seeds, options.episodes, options.proposals, options.name) == (3, 64, 0, "n")
    assert (options.search_seed, options.concurrent, options.tracking) == (7, 2, "u")
    assert (options.mirror, options.plan_only, options.show) == (False, True, False)


def test_a_questions_other_sources_have_options_of_their_own() -> None:
    inputs = {"words": "a file of words", "judge_data": "another"}
    options = with_inputs(inputs, "--data", "d", "--words", "w.txt")
    assert options.inputs == {"words": "w.txt"}
    assert options.sources == {"data": "d", "words": "w.txt"}
    assert with_inputs(inputs, "--judge-data", "j").sources == {"judge_data": "j"}
    assert parsed("--data", "d").sources == {"data": "d"}
    assert parsed().sources == {}


def test_a_setting_of_the_world_may_be_empty() -> None:
    assert parsed("--set", "world.template=").columns == {"world.template": ""}


def test_a_setting_may_be_varied() -> None:
    assert parsed("--vary", "world.noise=0, 0.5,1").vary == ("world.noise", (0, 0.5, 1))
    assert parsed().vary is None


def test_a_question_with_a_reward_function_takes_it_as_reward() -> None:
    options = with_inputs({"reward": "a function"}, "--reward", "f.py:g", "--rewards", "custom")
    assert (options.inputs, options.rewards) == ({"reward": "f.py:g"}, ("custom",))


def test_another_source_makes_another_sweep() -> None:
    one, other = (with_inputs({"words": "words"}, "--words", file) for file in ("a", "b"))
    assert one.distinction("standard") != other.distinction("standard")
    assert with_inputs({"words": "words"}).distinction("standard") == []


def test_one_reward_is_named_as_several_are() -> None:
    assert parsed("--reward", "yn").rewards == parsed("--rewards", "yn").rewards == ("yn",)


def test_resources_are_those_that_were_given() -> None:
    said = "--workers 2 --least-workers 1 --gpus-per-worker 0.5 --ray-train --micro-batch 0 --shard"
    options, given = parsed(*said.split()), {"workers": 2, "least_workers": 1, "gpus_per_worker": 0.5}
    given |= {"ray_train": True, "micro_batch": 0, "shard": True}
    assert options.resources == given


@pytest.mark.parametrize(
    ("text", "value"),
    [("7", 7), ("7.0", 7.0), ("1e-3", 1e-3), ("true", True), ("false", False), ("inf", math.inf), ("token", "token")],
)
def test_a_fixed_columns_value_keeps_its_kind(text: str, value: object) -> None:
    found = parsed("--set", f"train.x={text}").columns["train.x"]
    assert found == value
    assert type(found) is type(value)


def test_several_columns_are_fixed_and_the_last_word_counts() -> None:
    columns = parsed("--set", "train.a=1", "--set", "train.b=2", "--set", "train.a=3").columns
    assert columns == {"train.a": 3, "train.b": 2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seeds", "0"), "must be a whole number of at least 1, got '0'"),
        (("--seeds", "two"), "must be a whole number of at least 1, got 'two'"),
        (("--episodes", "-5"), "must be a whole number of at least 1, got '-5'"),
        (("--episodes", "1.5"), "must be a whole number of at least 1, got '1.5'"),
        (("--trials", "-1"), "must be a whole number of at least 0, got '-1'"),
        (("--search-seed", "-1"), "must be a whole number of at least 0, got '-1'"),
        (("--concurrent", "0"), "must be a whole number of at least 1, got '0'"),
        (("--workers", "0"), "must be a whole number of at least 1, got '0'"),
        (("--micro-batch", "-1"), "must be a whole number of at least 0, got '-1'"),
        (("--gpus-per-worker", "some"), "must be a number of at least 0, got 'some'"),
        (("--gpus-per-worker", "-1"), "must be a number of at least 0, got '-1'"),
        (("--gpus-per-worker", "nan"), "must be a number of at least 0, got 'nan'"),
        (("--gpus-per-worker", "inf"), "must be a number of at least 0, got 'inf'"),
        (("--vary", "world.noise"), "must be COLUMN=VALUES, such as world.noise=0,0.5, got 'world.noise'"),
        (("--set", "train.tau"), "must be COLUMN=VALUE, such as train.steps=500, got 'train.tau'"),
        (("--set", "=3"), "must be COLUMN=VALUE, such as train.steps=500, got '=3'"),
        (("--set", "train.tau="), "must be COLUMN=VALUE, such as train.steps=500, got 'train.tau='"),
        (("--methods", ""), "must be names separated by commas, got ''"),
        (("--methods", " , "), "must be names separated by commas, got ' , '"),
        (("--refine", ","), "must be names separated by commas, got ','"),
        (("--rewards", ""), "must be names separated by commas, got ''"),
        (("--rewards",), "expected one argument"),
        (("--seeds",), "expected one argument"),
        (("--nosuch",), "unrecognised: --nosuch"),
        (("something",), "unrecognised: something"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        parsed(*arguments)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err


def test_help_lists_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parsed("--help")
    assert caught.value.code == 0
    assert "--evaluation-reward" in capsys.readouterr().out


# The sweep's name


def test_more_of_the_same_is_the_same_sweep() -> None:
    for more in (("--seeds", "3"), ("--episodes", "99"), ("--trials", "9"), ("--concurrent", "2"), ("--workers", "2")):
        assert parsed(*more).distinction("yn") == []


@pytest.mark.parametrize(
    "other",
    [
        ("--set", "train.steps=5"),
        ("--methods", "bc"),
        ("--refine", "cql"),
        ("--convention", "trlx"),
        ("--model", "m"),
        ("--data", "d"),
        ("--search-seed", "1"),
        ("--reward", "yn", "--evaluation-reward", "standard"),
    ],
)
def test_something_else_is_another_sweep(other: tuple[str, ...]) -> None:
    (word,) = parsed(*other).distinction("yn")
    assert parsed(*other).distinction("yn") == [word]
    assert parsed(*other, "--set", "train.gamma=0.5").distinction("yn") != [word]


def test_a_reward_of_several_makes_the_sweep_it_makes_alone() -> None:
    several, alone = parsed("--rewards", "yn,standard"), parsed("--reward", "yn")
    assert several.distinction("yn") == alone.distinction("yn") == []
    judged = ("--evaluation-reward", "conservative")
    several, alone = parsed("--rewards", "yn,standard", *judged), parsed("--reward", "yn", *judged)
    assert several.distinction("yn") == alone.distinction("yn") != several.distinction("standard")


def test_the_order_of_fixed_columns_makes_no_other_sweep() -> None:
    one = parsed("--set", "train.a=1", "--set", "train.b=2").distinction("yn")
    assert one == parsed("--set", "train.b=2", "--set", "train.a=1").distinction("yn")
