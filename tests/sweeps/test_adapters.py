"""Adapters as a setting of the backbone: what it decides, what a job trains with it, what an export makes of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from ilql.adapters import SharedParameter
from ilql.methods import known_methods
from sweeps import bandit_ablation
from sweeps.asked import options_of
from sweeps.policy import export_policy, load_policy
from sweeps.sizing import chosen_preset
from sweeps.spec import TrialSpec
from sweeps.stages import build_module, load_backbone, load_behaviour
from sweeps.work import run_job

if TYPE_CHECKING:
    from conftest import Bench, MakeTrial

RANK = {"adapter_rank": 2}


def test_the_rank_is_in_the_key_of_all_weights_and_of_nothing_before_them(make_trial: MakeTrial) -> None:
    trials = [make_trial(method, backbone={"adapter_rank": rank}) for method in ("bc", "ilql") for rank in (0, 1, 2)]
    assert len({trial.weights_id for trial in trials}) == 6
    for name in ("tokenizer_key", "backbone_key", "tokens_key"):
        assert len({getattr(trial, name) for trial in trials if trial.method == "ilql"}) == 1, name
    assert [trial.columns().get("backbone.adapter_rank") for trial in trials[:3]] == [None, 1, 2]
    assert all(TrialSpec.from_json(trial.to_json()) == trial for trial in trials)


def test_without_adapters_what_was_stored_is_read_and_its_key_knows_nothing_of_them(
    make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = make_trial()
    stored = json.loads(trial.to_json())
    del stored["backbone"]["adapter_rank"]
    assert TrialSpec.from_json(json.dumps(stored)) == trial
    before = trial.weights_id, make_trial(backbone=RANK).weights_id
    monkeypatch.setattr("ilql.adapters.VERSION", 99)
    assert make_trial().weights_id == before[0]
    assert make_trial(backbone=RANK).weights_id != before[1]


def shared(module: nn.Module) -> set[int]:
    return {p.data_ptr() for p in module.parameters() if isinstance(p, SharedParameter)}


class TestTraining:
    @pytest.fixture
    def trial(self, bench: Bench) -> TrialSpec:
        """An ILQL trial with adapters, trained and listed, and its behaviour policy before it."""
        trial = bench.trial("ilql", backbone=RANK)
        assert run_job(bench.job(trial.behaviour), lambda numbers: None) == "finished"
        assert run_job(bench.job(trial, trial), lambda numbers: None) == "finished"
        bench.store.put("member", "s/t", bench.member(trial))
        return trial

    def test_its_weights_are_adapters_heads_and_words(self, bench: Bench, trial: TrialSpec) -> None:
        folder = bench.store.stage("weights", trial.weights_id)
        assert folder is not None
        of_trunks = [name for name in load_file(folder / "weights.safetensors") if ".trunk." in name]
        assert of_trunks
        assert all(".lora_" in name or name.endswith("trunk.wte.weight") for name in of_trunks)

    def test_all_its_networks_share_the_backbones_trunk(self, bench: Bench, trial: TrialSpec) -> None:
        backbone, behaviour = load_backbone(bench.store, trial), load_behaviour(bench.store, trial)
        module: Any = build_module(bench.store, trial)
        assert shared(backbone) == shared(behaviour) == shared(module)
        assert shared(module.online.trunk) == shared(module.target.trunk) == shared(module)

    @torch.no_grad()
    def test_its_export_is_a_plain_model_with_what_was_learnt_in_its_weights(
        self, bench: Bench, trial: TrialSpec, tmp_path: Path
    ) -> None:
        export_policy(trial.trial_id, tmp_path / "out", bench.store)
        ids, factory = torch.tensor([[1, 5, 9, 2]]), AutoModelForCausalLM
        policy: Any = load_policy(trial.trial_id, bench.store).actor
        exported: Any = factory.from_pretrained(str(tmp_path / "out"))
        plain: Any = load_backbone(bench.store, dataclasses.replace(trial, backbone=bench.trial().backbone))
        assert exported.state_dict().keys() == plain.state_dict().keys()
        logits: Tensor = exported(ids).logits
        assert torch.allclose(logits, policy.language_model(ids).logits, atol=1e-5)
        assert not torch.allclose(logits, plain(ids).logits, atol=1e-2)


@pytest.mark.parametrize("name", [name for name in known_methods() if name not in ("bc", "ilql")])
def test_every_method_trains_acts_and_stores_no_trunk_with_adapters(bench: Bench, name: str) -> None:
    trial = bench.trial(name, backbone=RANK, train={"steps": 2})
    for each in (*trial.required, trial):
        assert run_job(bench.job(each, *([each] if each is trial else [])), lambda numbers: None) == "finished"
    folder = bench.store.stage("weights", trial.weights_id)
    assert folder is not None
    assert not [tensor for tensor in load_file(folder / "weights.safetensors") if "base_layer" in tensor]


def test_the_command_line_names_a_rank() -> None:
    question = bandit_ablation.QUESTION

    def options(*arguments: str) -> Any:
        return options_of(question, "bandit", ["--preset", "smoke", *arguments])

    assert chosen_preset(question, options()).adapter_rank == 0
    assert chosen_preset(question, options("--adapter-rank", "8")).adapter_rank == 8
    assert options("--adapter-rank", "8").distinction("standard") != []
    assert options().distinction("standard") == []
