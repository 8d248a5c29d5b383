"""Adapters on a frozen trunk: what is shared, what learns, what is saved, and what becomes of it when merged."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ilql import token_values
from ilql.adapters import SharedParameter, adapt, merge
from ilql.batch import TokenBatch, TokenSequence, collate, dialogue_weights
from ilql.checkpoint import WEIGHTS, own_tensors
from ilql.method import Start
from ilql.methods import bc, ilql
from ilql.networks import ValueNetworks, follow
from ilql.tokens import Tokenizer
from ilql.train import Loop, train

LanguageModels = Callable[..., nn.Module]
TOKENS = torch.tensor([[5, 6, 7, 9, 3, 2]])


@pytest.fixture(params=["gpt2", "llama"])
def plain(request: pytest.FixtureRequest, language_model: LanguageModels) -> nn.Module:
    return language_model(request.param, spread=4.0)


@pytest.fixture
def adapted(plain: nn.Module) -> nn.Module:
    return adapt(copy.deepcopy(plain), rank=2, words=False, seed=0)


@pytest.fixture
def batch(pulls: list[TokenSequence], tokenizer: Tokenizer) -> TokenBatch:
    return collate(pulls[:4], pad=tokenizer.structural("pad"))


def value_networks(model: nn.Module) -> ValueNetworks:
    module = token_values.build(Start(model, model, seed=0), ilql.Train())
    assert isinstance(module, ValueNetworks)
    return module


def numbers(*modules: nn.Module) -> int:
    """How many numbers the modules hold together, each memory counted once."""
    held = {p.data_ptr(): p.numel() for module in modules for p in module.parameters()}
    return sum(held.values())


def moved(model: nn.Module) -> nn.Module:
    """Give the model with everything that learns moved."""
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    return model


@torch.no_grad()
@pytest.mark.parametrize("rank", [1, 16])  # 16 is the model's width: a full rank
def test_at_first_it_says_what_the_model_says_bit_by_bit(plain: Any, rank: int) -> None:
    adapted: Any = adapt(copy.deepcopy(plain), rank=rank, words=True, seed=0)
    assert torch.equal(adapted(TOKENS).logits, plain(TOKENS).logits)
    assert not torch.allclose(moved(adapted)(TOKENS).logits, plain(TOKENS).logits, atol=1e-3)


def test_copies_share_what_is_frozen_and_have_adapters_of_their_own(adapted: nn.Module) -> None:
    other = copy.deepcopy(adapted)
    for name, parameter in adapted.named_parameters():
        same = other.get_parameter(name).data_ptr() == parameter.data_ptr()
        assert same == (".lora_" not in name), name


def test_what_is_shared_stays_so_when_a_network_is_moved(adapted: nn.Module) -> None:
    module = value_networks(adapted).to(torch.float64)
    for name, parameter in module.target.trunk.named_parameters():
        online = module.online.trunk.get_parameter(name)
        assert online.dtype == torch.float64
        assert (parameter is online) == (".lora_" not in name)
        assert isinstance(parameter, SharedParameter) == (".lora_" not in name)


def test_asked_to_learn_the_frozen_stay_frozen(adapted: nn.Module) -> None:
    module = bc.build(Start(adapted, None, seed=0), bc.Train())
    learns = {name for name, p in module.named_parameters() if p.requires_grad}
    assert learns == {name for name, _ in module.named_parameters() if ".lora_" in name}
    # Every linear layer of two blocks: 4 of GPT-2, 7 of Llama, each with A and B.
    assert len(learns) in (2 * 4 * 2, 2 * 7 * 2)


def test_words_are_learnt_where_that_is_asked_for_and_are_each_networks_own(plain: Any) -> None:
    adapted: Any = adapt(copy.deepcopy(plain), rank=2, words=True, seed=0)
    other: Any = bc.build(Start(adapted, None, seed=0), bc.Train())
    assert other.get_input_embeddings().weight.requires_grad
    assert other.get_input_embeddings().weight is other.get_output_embeddings().weight
    assert other.get_input_embeddings().weight.data_ptr() != adapted.get_input_embeddings().weight.data_ptr()


class TestLearning:
    def test_a_step_moves_adapters_and_heads_and_nothing_frozen(
        self, adapted: nn.Module, pulls: list[TokenSequence], tokenizer: Tokenizer
    ) -> None:
        module = value_networks(adapted)
        before = {name: p.detach().clone() for name, p in module.named_parameters()}
        settings = ilql.Train(steps=2, batch_size=4, learning_rate=1e-2, polyak=0.5)
        for _ in train(ilql.METHOD, module, pulls, settings, pad=tokenizer.structural("pad"), seed=0, loop=Loop()):
            pass
        for name, parameter in module.named_parameters():
            shared = isinstance(parameter, SharedParameter)
            assert torch.equal(parameter, before[name]) == shared, name

    def test_the_target_is_a_polyak_average_of_adapters_and_heads(self, adapted: nn.Module) -> None:
        module = value_networks(adapted)
        moved(module.online)
        before = {name: p.detach().clone() for name, p in module.target.named_parameters()}
        follow(module, 0.25)
        for name, parameter in module.target.named_parameters():
            online = module.online.get_parameter(name)
            if isinstance(parameter, SharedParameter):
                assert parameter is online
            else:
                assert torch.allclose(parameter, 0.25 * online + 0.75 * before[name], atol=1e-6), name

    def test_gradients_are_those_of_the_merged_weights(self, plain: nn.Module, adapted: Any, batch: TokenBatch) -> None:
        # With W' = W + 2 B A: dL/dB = 2 (dL/dW') Aᵀ, where weights are stored (out, in).
        moved(adapted)
        whole: Any = merge(adapted, copy.deepcopy(plain)).requires_grad_(True)
        weights = dialogue_weights(batch.action_mask)
        for model in (adapted, whole):
            bc.loss(model, batch, weights, bc.Train()).total.backward()  # type: ignore[no-untyped-call]
        for name, layer in adapted.named_modules():
            if hasattr(layer, "get_delta_weight"):
                gradient: Tensor = whole.get_submodule(name).weight.grad
                gradient = gradient.T if layer.fan_in_fan_out else gradient
                expected = 2 * gradient @ layer.lora_A["default"].weight.T
                assert torch.allclose(layer.lora_B["default"].weight.grad, expected, atol=1e-6, rtol=1e-3), name

    def test_a_training_that_is_resumed_ends_in_the_same_bits_and_checkpoints_hold_no_trunk(
        self, adapted: nn.Module, pulls: list[TokenSequence], tokenizer: Tokenizer, tmp_path: Path
    ) -> None:
        def trained(*ends: int) -> dict[str, Tensor]:
            folder = tmp_path / str(len(ends))
            for steps in ends:
                module, pad = value_networks(adapted), tokenizer.structural("pad")
                settings = ilql.Train(steps=steps, batch_size=4, learning_rate=1e-2, polyak=0.5)
                loop = Loop(checkpoint_every=2, checkpoints=folder)
                for _ in train(ilql.METHOD, module, pulls, settings, pad=pad, seed=1, loop=loop):
                    pass
            saved = load_file(folder / f"step-{ends[-1]:08d}" / WEIGHTS)
            assert {name for name in saved if ".trunk." in name} == {
                name for name, _ in module.named_parameters() if ".lora_" in name
            }
            return own_tensors(module)

        whole, resumed = trained(4), trained(2, 4)
        assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_behaviour_policy_online_and_target_hold_one_trunk_instead_of_three(
    plain: nn.Module, adapted: nn.Module
) -> None:
    behaviour = bc.build(Start(adapted, None, seed=0), bc.Train())
    module = value_networks(behaviour)
    heads = numbers(module.v_head, module.online.q_heads, module.target.q_heads)
    adapters = sum(p.numel() for name, p in adapted.named_parameters() if ".lora_" in name)
    assert numbers(behaviour, module) == numbers(plain) + 3 * adapters + heads
    separate = copy.deepcopy(plain)
    three = numbers(separate, value_networks(separate))
    head = numbers(plain) - numbers(plain.base_model)  # type: ignore[arg-type]
    assert three == 3 * numbers(plain) - 2 * head + heads


@torch.no_grad()
def test_merged_it_is_a_plain_model_that_says_the_same(plain: Any, tmp_path: Path) -> None:
    adapted: Any = moved(adapt(copy.deepcopy(plain), rank=2, words=True, seed=0))
    merged: Any = merge(adapted, copy.deepcopy(plain))
    assert merged.state_dict().keys() == plain.state_dict().keys()
    assert torch.allclose(merged(TOKENS).logits, adapted(TOKENS).logits, atol=1e-4)
    assert not torch.allclose(merged(TOKENS).logits, plain(TOKENS).logits, atol=1e-2)
