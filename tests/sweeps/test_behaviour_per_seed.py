"""A behaviour policy for every training seed: keys, trainings, and what a report says where all share one."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from sweeps import bandit_ablation
from sweeps.asked import options_of
from sweeps.reporting import shared_policy_note
from sweeps.sizing import chosen_preset
from sweeps.spec import TrialSpec
from sweeps.stages import load_behaviour, load_module
from sweeps.work import run_job

if TYPE_CHECKING:
    from conftest import Bench, MakeTrial

OWN = {"behaviour_per_seed": True}


def test_the_first_seeds_training_is_the_shared_ones_and_later_ones_have_their_own(make_trial: MakeTrial) -> None:
    shared, own = ([make_trial(seed=seed, backbone=backbone) for seed in (0, 1)] for backbone in ({}, OWN))
    assert own[0].weights_id == shared[0].weights_id
    assert own[0].trial_id == shared[0].trial_id
    assert own[1].weights_id != shared[1].weights_id
    assert [trial.behaviour.weights_id for trial in own] == [make_trial("bc", seed=seed).weights_id for seed in (0, 1)]
    assert {trial.behaviour.weights_id for trial in shared} == {make_trial("bc").weights_id}
    assert [trial.columns()["behaviour.seed"] for trial in (*shared, *own)] == [0, 0, 0, 1]


def test_a_cell_is_the_same_at_all_seeds_and_another_than_with_one_policy_for_all(make_trial: MakeTrial) -> None:
    shared, own = ({make_trial(seed=s, backbone=backbone).cell_id for s in (0, 1, 2)} for backbone in ({}, OWN))
    assert (len(shared), len(own), len(shared | own)) == (1, 1, 2)
    # A method without a behaviour policy has nothing of its own.
    assert make_trial("bc", seed=1, backbone=OWN).cell_id == make_trial("bc").cell_id


def test_what_was_stored_before_is_read(make_trial: MakeTrial) -> None:
    trial = make_trial(backbone=OWN)
    assert TrialSpec.from_json(trial.to_json()) == trial
    stored = json.loads(make_trial().to_json())
    del stored["backbone"]["behaviour_per_seed"]
    assert TrialSpec.from_json(json.dumps(stored)) == make_trial()


def test_a_fixed_policy_and_one_for_each_seed_exclude_each_other(make_trial: MakeTrial) -> None:
    with pytest.raises(ValueError, match="behaviour_seed must be 0 where every seed has its own, got 2"):
        make_trial(backbone=OWN | {"behaviour_seed": 2})


def test_a_training_starts_from_the_policy_of_its_seed_and_acts_with_it(bench: Bench) -> None:
    trial = bench.trial("ilql", seed=1, backbone=OWN, train={"steps": 2})
    (needed,) = trial.required
    assert (needed.method, needed.seed) == ("bc", 1)
    assert run_job(bench.job(needed), lambda numbers: None) == "finished"
    assert run_job(bench.job(trial, trial), lambda numbers: None) == "finished"
    clone: Any = load_module(bench.store, bench.trial("bc", seed=1))
    acting, first = (dict(load_behaviour(bench.store, each).named_parameters()) for each in (trial, bench.trial()))
    same = dict(clone.named_parameters())
    assert all(torch.equal(value, same[name]) for name, value in acting.items())
    assert not all(torch.equal(value, first[name]) for name, value in acting.items())


def test_a_report_says_which_methods_seeds_have_one_policy(bench: Bench) -> None:
    for seed in (0, 1):
        for method, sweep, backbone in (("ilql", "shared", {}), ("bc", "shared", {}), ("ilql", "own", OWN)):
            trial = bench.trial(method, seed=seed, backbone=backbone)
            bench.store.put("member", f"{sweep}/{trial.trial_id}", bench.member(trial, sweep))
    note = shared_policy_note(bench.store, "shared")
    assert note is not None
    assert note.startswith("All training seeds of ILQL have one behaviour policy, BC's at its first seed:")
    assert shared_policy_note(bench.store, "own") is None


def test_one_seed_shares_its_policy_with_no_other(bench: Bench) -> None:
    trial = bench.trial()
    bench.store.put("member", f"s/{trial.trial_id}", bench.member(trial))
    assert shared_policy_note(bench.store, "s") is None


def test_the_command_line_asks_for_it() -> None:
    question = bandit_ablation.QUESTION
    plain, own = (
        options_of(question, "bandit", ["--preset", "smoke", *more]) for more in ([], ["--behaviour-per-seed"])
    )
    assert [chosen_preset(question, each).behaviour_per_seed for each in (plain, own)] == [False, True]
    assert plain.distinction("standard") == []
    assert own.distinction("standard") != []
    assert dataclasses.replace(own, behaviour_per_seed=False) == dataclasses.replace(plain, command=own.command)
