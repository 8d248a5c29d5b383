"""What decides a number and what does not: the ids of trials, trainings and cells."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from ilql import losses
from ilql.language_model import Architecture
from ilql.methods import known_methods
from sweeps.spec import Backbone, Evaluation, TrialSpec, reference_key, world_key

if TYPE_CHECKING:
    from conftest import MakeTrial

METHODS = sorted(known_methods())
EVERYWHERE = ("weights_id", "trajectory_id", "trial_id", "cell_id")

Change = Mapping[str, Any]


def ids(trial: TrialSpec) -> dict[str, str]:
    return {name: getattr(trial, name) for name in EVERYWHERE}


def changed(before: TrialSpec, after: TrialSpec) -> set[str]:
    return {name for name in EVERYWHERE if ids(before)[name] != ids(after)[name]}


# As text and back


@pytest.mark.parametrize("method", METHODS)
def test_every_methods_trial_comes_back_from_its_text(make_trial: MakeTrial, method: str) -> None:
    trial = make_trial(method, seed=3)
    back = TrialSpec.from_json(trial.to_json())
    assert back == trial
    assert ids(back) == ids(trial)


def test_an_infinite_beta_comes_back(make_trial: MakeTrial) -> None:
    trial = make_trial(decode={"beta": math.inf})
    assert TrialSpec.from_json(trial.to_json()) == trial


def test_a_pretrained_backbone_comes_back(make_trial: MakeTrial) -> None:
    trial = make_trial(backbone={"architecture": None, "pretrained": "abc", "vocabulary": 0})
    assert TrialSpec.from_json(trial.to_json()) == trial


def test_a_whole_number_for_a_float_is_the_same_trial(make_trial: MakeTrial) -> None:
    assert make_trial(decode={"beta": 8}).trial_id == make_trial(decode={"beta": 8.0}).trial_id


@pytest.mark.parametrize(
    ("bag", "name", "message"),
    [
        ("train", "tua", "'train.tua' is no column of an 'ilql' trial; known: train.tau, "),
        ("decode", "betta", "'decode.betta' is no column of an 'ilql' trial; known: decode.beta, "),
        ("evaluation", "splitt", "'evaluation.splitt' is no column of an 'ilql' trial; known: evaluation.split, "),
        ("data", "wrold", "'data.wrold' is no column of an 'ilql' trial; known: data.world, "),
        ("backbone", "sede", "'backbone.sede' is no column of an 'ilql' trial; known: backbone.seed, "),
    ],
)
def test_a_misspelt_name_dies_with_the_nearest_right_one(
    make_trial: MakeTrial, bag: str, name: str, message: str
) -> None:
    content = json.loads(make_trial().to_json())
    content[bag][name] = 1
    with pytest.raises(KeyError) as caught:
        TrialSpec.from_json(json.dumps(content))
    assert str(caught.value.args[0]).startswith(message)


def test_an_unknown_method_dies_with_the_nearest_right_one(make_trial: MakeTrial) -> None:
    content = json.loads(make_trial().to_json()) | {"method": "iqll"}
    with pytest.raises(KeyError, match="'iqll' is no method; known: ilql, "):
        TrialSpec.from_json(json.dumps(content))


# What the weights depend on


@pytest.mark.parametrize(
    "change",
    [
        {"decode": {"beta": 3.0}},
        {"decode": {"greedy": True}},
        {"decode": {"temperature": 0.5}},
        {"evaluation": {"reward": "yn"}},
        {"evaluation": {"split": "tune"}},
        {"evaluation": {"episodes": 1024}},
        {"evaluation": {"first_seed": 7}},
        {"evaluation": {"world": "another"}},
    ],
)
def test_what_only_shapes_acting_and_judging_changes_the_trial_and_not_the_weights(
    make_trial: MakeTrial, change: Change
) -> None:
    assert changed(make_trial(), make_trial(**change)) == {"trial_id", "cell_id"}


@pytest.mark.parametrize(
    "change",
    [
        {"train": {"tau": 0.8}},
        {"train": {"gamma": 0.9}},
        {"train": {"cql_weight": 0.5}},
        {"train": {"batch_size": 8}},
        {"train": {"max_tokens": 12}},
        {"train": {"start": "pretrained"}},
        {"data": {"world": "another"}},
        {"data": {"reward": "yn"}},
        {"backbone": {"architecture": Architecture(layers=2, width=16, heads=2, context=16)}},
        {"backbone": {"vocabulary": 65}},
        {"backbone": {"seed": 1}},
        {"backbone": {"behaviour_seed": 1}},
    ],
)
def test_what_shapes_the_weights_changes_every_id(make_trial: MakeTrial, change: Change) -> None:
    assert changed(make_trial(), make_trial(**change)) == set(EVERYWHERE)


def test_the_behaviour_policys_training_changes_every_id_of_a_value_method(make_trial: MakeTrial) -> None:
    before = make_trial()
    behaviour = dataclasses.replace(before.backbone.behaviour, steps=13)
    assert changed(before, make_trial(backbone={"behaviour": behaviour})) == set(EVERYWHERE)


def test_the_behaviour_policys_training_is_nothing_to_a_method_that_does_without(make_trial: MakeTrial) -> None:
    before = make_trial("bc")
    behaviour = dataclasses.replace(before.backbone.behaviour, steps=13)
    after = make_trial("bc", backbone={"behaviour": behaviour, "behaviour_seed": 1})
    assert changed(before, after) == set()


def test_a_seed_is_another_training_of_the_same_cell(make_trial: MakeTrial) -> None:
    assert changed(make_trial(seed=0), make_trial(seed=1)) == {"weights_id", "trajectory_id", "trial_id"}


def test_trainings_of_different_length_share_their_trajectory(make_trial: MakeTrial) -> None:
    assert changed(make_trial(), make_trial(train={"steps": 21})) == {"weights_id", "trial_id", "cell_id"}


# What is the same under two names


def test_sarsa_is_ilql_at_one_half(make_trial: MakeTrial) -> None:
    sarsa, ilql = make_trial("sarsa"), make_trial("ilql", train={"tau": 0.5})
    assert changed(sarsa, ilql) == set()
    assert sarsa.weights_id != make_trial("ilql", train={"tau": 0.7}).weights_id


def test_cloning_is_the_same_under_every_reward(make_trial: MakeTrial) -> None:
    assert changed(make_trial("bc"), make_trial("bc", data={"reward": "yn"})) == set()


def test_filtered_cloning_is_not(make_trial: MakeTrial) -> None:
    assert changed(make_trial("filtered_bc"), make_trial("filtered_bc", data={"reward": "yn"})) == set(EVERYWHERE)


def test_the_bc_cell_is_the_behaviour_policy(make_trial: MakeTrial) -> None:
    assert make_trial("ilql", seed=5).behaviour.weights_id == make_trial("bc").weights_id


def test_methods_differ_in_their_weights(make_trial: MakeTrial) -> None:
    assert len({make_trial(method).weights_id for method in METHODS}) == len(METHODS)


# Versions


@pytest.mark.parametrize(
    ("loss", "new"),
    [
        ("td", {"ilql", "sarsa"}),
        ("expectile", {"ilql", "sarsa"}),
        ("conservative", {"ilql", "sarsa"}),
        ("nll", {"bc", "filtered_bc", "ilql", "sarsa"}),  # value methods stand on the behaviour policy, which is cloned
        ("monte_carlo", set()),
    ],
)
def test_raising_a_losss_version_makes_exactly_its_dependants_new(
    make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch, loss: str, new: set[str]
) -> None:
    names = ("bc", "filtered_bc", "ilql", "sarsa")
    before = {method: make_trial(method) for method in names}
    assert {method for method in names if changed(before[method], make_trial(method))} == set()
    monkeypatch.setitem(losses.VERSIONS, loss, losses.VERSIONS[loss] + 1)
    differences = {method: changed(before[method], make_trial(method)) for method in names}
    assert {method for method in names if differences[method]} == new
    assert all(differences[method] == set(EVERYWHERE) for method in new)


@pytest.mark.parametrize(
    ("version", "new"),
    [
        ("ilql.train.VERSION", set(EVERYWHERE)),
        ("ilql.batch.VERSION", set(EVERYWHERE)),
        ("ilql.language_model.VERSION", set(EVERYWHERE)),
        ("ilql.decode.VERSION", {"trial_id", "cell_id"}),
        ("ilql.evaluate.VERSION", {"trial_id", "cell_id"}),
    ],
)
def test_raising_a_files_version_makes_what_it_decides_new(
    make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch, version: str, new: set[str]
) -> None:
    before = make_trial()
    ids(before)  # ids are remembered: a later look must not be the first
    monkeypatch.setattr(version, 99)
    assert changed(before, make_trial()) == new


def test_a_worlds_key_depends_on_its_settings_its_source_and_its_version() -> None:
    keys = {
        world_key("bandit", 1, {"dialogues": 16}, ""),
        world_key("bandit", 2, {"dialogues": 16}, ""),
        world_key("bandit", 1, {"dialogues": 17}, ""),
        world_key("bandit", 1, {"dialogues": 16}, "digest"),
        world_key("other", 1, {"dialogues": 16}, ""),
    }
    assert len(keys) == 5


def test_what_others_get_is_new_where_they_play_otherwise() -> None:
    evaluation = Evaluation(world="w0", reward="yn")
    assert reference_key(evaluation) == reference_key(evaluation, 1) == "e33b15827eb4c8e82b3e"
    assert reference_key(evaluation, 2) != reference_key(evaluation)


def test_equal_content_has_the_same_key_in_every_process_and_release() -> None:
    # Recorded once: if the way of hashing changes, every stored result of every user is made anew.
    assert world_key("bandit", 1, {"dialogues": 16}, "") == "b3ca696d79e662ba50db"


# Trials that cannot be


def test_a_trial_takes_its_own_methods_settings_only(make_trial: MakeTrial) -> None:
    with pytest.raises(TypeError, match="a 'bc' trial needs a Train, got Train"):
        dataclasses.replace(make_trial("bc"), train=make_trial("ilql").train)
    with pytest.raises(TypeError, match="a 'bc' trial needs a Decode"):
        dataclasses.replace(make_trial("bc"), decode=make_trial("ilql").decode)


def test_a_seed_is_not_negative(make_trial: MakeTrial) -> None:
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        make_trial(seed=-1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "test"}, "split must be one of train, tune, report, got test"),
        ({"episodes": 0}, "episodes must be at least 1, got 0"),
        ({"first_seed": -1}, "first_seed must be at least 0, got -1"),
    ],
)
def test_an_evaluation_is_refused_outside_its_ranges(change: Change, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Evaluation(**{"world": "w0", "reward": "standard"} | dict(change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": None}, "either an architecture or a pretrained model"),
        ({"pretrained": "abc"}, "either an architecture or a pretrained model"),
        ({"vocabulary": 0}, "must name its vocabulary's size, got 0"),
        ({"vocabulary": -1}, "vocabulary must be at least 0, got -1"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"behaviour_seed": -1}, "behaviour_seed must be at least 0, got -1"),
    ],
)
def test_a_backbone_is_refused_outside_its_ranges(make_trial: MakeTrial, change: Change, message: str) -> None:
    whole: Backbone = make_trial().backbone
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(whole, **change)


def test_an_evaluations_episodes_have_consecutive_seeds() -> None:
    assert list(Evaluation(world="w0", reward="standard", first_seed=4, episodes=3).seeds) == [4, 5, 6]


# Columns


def test_columns_carry_their_bag(make_trial: MakeTrial) -> None:
    columns = make_trial("ilql", train={"tau": 0.9}, decode={"beta": 4.0}).columns()
    assert columns["train.tau"] == 0.9
    assert columns["decode.beta"] == 4.0
    assert (columns["task"], columns["data.reward"], columns["evaluation.split"]) == ("bandit", "standard", "report")
    assert (columns["backbone.width"], columns["behaviour.steps"]) == (16, 12)


def test_a_method_without_behaviour_policy_has_no_columns_of_one(make_trial: MakeTrial) -> None:
    assert not any(name.startswith("behaviour.") for name in make_trial("bc").columns())


def test_columns_say_whatever_tells_two_trials_apart(make_trial: MakeTrial) -> None:
    trial = make_trial()
    for change in ({"train": {"polyak": 0.3}}, {"decode": {"top_k": 3}}, {"evaluation": {"first_seed": 1}}):
        other = make_trial(**change)
        assert other.trial_id != trial.trial_id
        assert other.columns() != trial.columns()
