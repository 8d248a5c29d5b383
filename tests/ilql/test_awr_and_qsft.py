"""Two methods whose policy is a fine-tuned language model: AWR's weighted cloning and Q-SFT's probabilities."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import nn

from ilql import token_values
from ilql.batch import TokenBatch, dialogue_weights
from ilql.method import Method, Start
from ilql.methods import awr, bc, ilql, psi, qsft


def extraction(start: Start, train: awr.Train) -> awr.Extraction:
    critic = token_values.build(start, awr.critic(train)[1]).train()
    module = awr.build(dataclasses.replace(start, critic=critic), train)
    assert isinstance(module, awr.Extraction)
    return module


class TestAwr:
    def test_its_critic_is_ilql_with_its_own_settings(self) -> None:
        train = awr.Train(tau=0.9, gamma=0.8, steps=5, awr_beta=2.0)
        assert awr.critic(train) == ("ilql", ilql.Train(tau=0.9, gamma=0.8, steps=5))
        assert awr.critic(dataclasses.replace(train, awr_beta=16.0)) == awr.critic(train)

    def test_with_a_beta_of_zero_it_is_cloning(self, start: Start, batch: TokenBatch) -> None:
        train = awr.Train(awr_beta=0.0)
        weights = dialogue_weights(batch.action_mask)
        assert start.behaviour is not None
        cloned = bc.loss(start.behaviour, batch, weights, bc.Train()).total
        assert awr.loss(extraction(start, train), batch, weights, train).total.item() == pytest.approx(cloned.item())

    def test_its_policy_starts_from_the_model_that_is_named(self, start: Start) -> None:
        for name, model in (("behaviour", start.behaviour), ("pretrained", start.pretrained)):
            assert model is not None
            policy = extraction(start, awr.Train(policy_start=name)).policy
            assert all(map(torch.equal, policy.parameters(), model.parameters()))

    def test_the_critic_is_not_saved_with_the_policy_and_never_drops_out(
        self, language_model: Callable[..., nn.Module], batch: TokenBatch
    ) -> None:
        dropping = language_model(dropout=0.5)
        module = extraction(Start(dropping, dropping, seed=0), awr.Train()).train()
        assert {name.split(".")[0] for name in module.state_dict()} == {"policy"}
        one, two = (token_values.action_values(module.critic[0], batch).advantage for _ in range(2))
        assert torch.equal(one, two)

    def test_it_acts_alone(self, start: Start) -> None:
        module = extraction(start, awr.Train())
        actor = awr.actor(module, start.behaviour)
        assert actor.language_model is module.policy
        assert actor.critic is None


class TestQsft:
    def test_the_best_token_is_looked_for_among_the_likely(self) -> None:
        log_pi = torch.tensor([[[0.6, 0.39, 0.01]]]).log()
        log_p = torch.tensor([[[0.3, 0.3, 0.4]]]).log()
        # Ratios are .5, .3/.39 and 40; a hundredth is less than a tenth of .6, and more than a hundredth of it.
        assert qsft.supported_ratio(log_p, log_pi, support=0.1)[0, 0].tolist() == pytest.approx([0.5, 0.3 / 0.39, 0.0])
        assert qsft.supported_ratio(log_p, log_pi, support=0.01)[0, 0, 2].item() == pytest.approx(40.0, rel=1e-5)

    def test_its_target_is_the_bellman_equation_on_a_scale_from_nothing_to_one(self) -> None:
        rewards = torch.tensor([[-1.0, -1.0, 0.0, -3.0]])
        best = torch.tensor([[0.5, 0.5, 1.0, 0.1]])
        terminal = torch.tensor([[False, True, False, False]])
        target = qsft.bellman_target(rewards, best, terminal, gamma=0.5, return_range=4.0)
        # Q(s') = (½ - 1) · 4 = -2, so -1 + ½ · -2 = -2, which is 1 - 2/4. At the end -1 is ¾. Nothing lost is 1. The
        # last is 1 - ¾ + ½ · -.9, below -4, and counts as that.
        assert target[0].tolist() == pytest.approx([0.5, 0.75, 1.0, 0.0])

    def test_it_starts_from_the_model_that_is_named_and_so_does_its_target(self, start: Start) -> None:
        for name, model in (("behaviour", start.behaviour), ("pretrained", start.pretrained)):
            assert model is not None
            module = qsft.build(start, qsft.Train(start=name))
            assert isinstance(module, qsft.FineTuned)
            for network in (module.online, module.target):
                assert all(map(torch.equal, network.language_model.parameters(), model.parameters()))
            assert not any(p.requires_grad for p in module.target.parameters())

    def test_the_first_loss_of_a_copy_of_the_behaviour_policy_is_known(self, start: Start, batch: TokenBatch) -> None:
        # p̄ = π_β, so every ratio is 1, nothing is lost behind an action, and B is 1 + r/R alone.
        train = qsft.Train(return_range=4.0)
        module, weights = qsft.build(start, train), dialogue_weights(batch.action_mask)
        loss = qsft.loss(module, batch, weights, train)
        b = (1 + batch.rewards / 4.0).clamp(0, 1)
        assert loss.parts["target_mean"].item() == pytest.approx(((weights * b).sum() / weights.sum()).item(), rel=1e-5)

    def test_the_target_never_drops_out(self, language_model: Callable[..., nn.Module], batch: TokenBatch) -> None:
        dropping = language_model(dropout=0.5)
        module = qsft.build(Start(dropping, dropping, seed=0), qsft.Train()).train()
        assert isinstance(module, qsft.FineTuned)
        assert module.online.training
        assert not module.target.training
        weights = dialogue_weights(batch.action_mask)
        parts = [qsft.loss(module, batch, weights, qsft.Train(return_range=4.0)).parts for _ in range(2)]
        assert parts[0]["target_mean"].item() == parts[1]["target_mean"].item()
        assert parts[0]["probability_q"].item() != parts[1]["probability_q"].item()

    def test_the_behaviour_policy_is_tilted_by_the_targets_probabilities(self, start: Start) -> None:
        module = qsft.build(start, qsft.Train())
        assert isinstance(module, qsft.FineTuned)
        actor = qsft.actor(module, start.behaviour)
        assert actor.language_model is start.behaviour
        assert actor.critic is module.target
        q = module.target.minimum(torch.randn(3, 16))
        assert q.sum(-1).tolist() == pytest.approx([1.0] * 3, rel=1e-5)
        assert q.min() >= 0


@pytest.mark.parametrize("method", [psi.METHOD, qsft.METHOD], ids=lambda method: method.name)
def test_the_behaviour_policy_they_read_is_not_saved_with_them(method: Method, start: Start) -> None:
    saved = {name.split(".")[0] for name in method.build(start, method.train()).state_dict()}
    assert saved <= {"online", "target", "v_head"}
