"""What is special to single methods: %BC's ties, SARSA's identity, ILQL's loss, target and heads."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ilql import token_values
from ilql.batch import TokenBatch, TokenSequence, dialogue_weights
from ilql.language_model import hidden_states
from ilql.losses import conservative_loss, expectile_loss, td_loss, td_target
from ilql.method import Start
from ilql.methods import filtered_bc, ilql, sarsa
from ilql.networks import ValueNetworks, follow, renew_target
from ilql.tokens import Tokenizer
from ilql.train import Loop, train


def networks(start: Start, settings: ilql.Train) -> ValueNetworks:
    module = token_values.build(start, settings)
    assert isinstance(module, ValueNetworks)
    return module


class TestFilteredBc:
    def test_ties_go_to_the_earlier(self) -> None:
        kept = filtered_bc.keep_best(np.asarray([0.0, 1.0, 1.0, 0.0, 1.0]), filtered_bc.Train(keep=0.4))
        assert kept.tolist() == [1, 2]

    def test_the_best_are_kept_in_recorded_order(self) -> None:
        kept = filtered_bc.keep_best(np.asarray([-3.0, -9.0, -1.0, -5.0]), filtered_bc.Train(keep=0.5))
        assert kept.tolist() == [0, 2]

    @pytest.mark.parametrize(
        ("share", "size", "count"),
        [(0.29, 100, 29), (0.2, 9, 1), (0.1, 3, 1), (1.0, 3, 3)],  # .29 * 100 is 28.999... in floating point
    )
    def test_the_share_is_rounded_down_but_never_to_none(self, share: float, size: int, count: int) -> None:
        assert len(filtered_bc.keep_best(np.zeros(size), filtered_bc.Train(keep=share))) == count


class TestSarsa:
    SETTINGS = sarsa.Train(steps=3, batch_size=8, learning_rate=1e-3, polyak=0.1, gamma=0.9)

    def test_it_is_ilql_at_one_half_to_the_bit(
        self, start: Start, tokenizer: Tokenizer, pulls: list[TokenSequence]
    ) -> None:
        results = []
        for method, settings in ((sarsa.METHOD, self.SETTINGS), (ilql.METHOD, sarsa.as_ilql(self.SETTINGS))):
            module = method.build(start, settings)
            pad = tokenizer.structural("pad")
            for _ in train(method, module, pulls, settings, pad=pad, seed=0, loop=Loop()):
                pass
            results.append(module.state_dict())
        assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())

    def test_its_weights_carry_ilqls_name(self) -> None:
        settings = ilql.Train(tau=0.5, steps=3, batch_size=8, learning_rate=1e-3, polyak=0.1, gamma=0.9)
        assert sarsa.METHOD.trained_as(self.SETTINGS) == ("ilql", settings)

    def test_it_has_no_expectile_to_set(self) -> None:
        assert "tau" not in {field.name for field in dataclasses.fields(sarsa.Train)}


class TestIlqlLoss:
    def test_it_is_the_formula_on_straightforward_full_tensors(self, start: Start, batch: TokenBatch) -> None:
        settings = ilql.Train(tau=0.8, gamma=0.9, cql_weight=0.3, cql_temperature=2.0)
        module, weights = networks(start, settings), dialogue_weights(batch.action_mask)
        with torch.no_grad():  # the target must differ from the online networks to be told apart
            for parameter in module.target.parameters():
                parameter.mul_(0.9)
        rows = torch.arange(len(batch.tokens))[:, None]

        def full(trunk: nn.Module) -> Tensor:
            return hidden_states(trunk, batch.tokens)

        v = module.v_head(full(module.online.trunk)).squeeze(-1)[rows, batch.state_positions]
        heads = [q(full(module.online.trunk))[rows, batch.action_positions] for q in module.online.q_heads]
        frozen = torch.minimum(*[q(full(module.target.trunk)) for q in module.target.q_heads])
        target_q = frozen[rows, batch.action_positions].gather(-1, batch.actions[..., None]).squeeze(-1)
        taken = [q.gather(-1, batch.actions[..., None]).squeeze(-1) for q in heads]
        goal = td_target(batch.rewards, v[:, 1:], batch.terminal, gamma=0.9)
        expected = td_loss(goal, taken, weights) + expectile_loss(target_q, v[:, :-1], weights, tau=0.8)
        expected = expected + 0.3 * conservative_loss(heads, batch.actions, weights, temperature=2.0)

        loss = ilql.loss(module, batch, weights, settings)
        assert loss.total.item() == pytest.approx(expected.item(), rel=1e-5)
        assert loss.parts["q_mean"].item() == pytest.approx(((taken[0] * weights).sum() / weights.sum()).item())

    def test_every_online_part_learns(self, start: Start, batch: TokenBatch) -> None:
        module = networks(start, ilql.Train())
        total = ilql.loss(module, batch, dialogue_weights(batch.action_mask), ilql.Train()).total
        total.backward()  # type: ignore[no-untyped-call]
        for part in (module.online.trunk, *module.online.q_heads, module.v_head):
            assert all(p.grad is not None for p in part.parameters())
        assert all(p.grad is None for p in module.target.parameters())

    def test_without_the_conservative_term_it_is_not_computed(self, start: Start, batch: TokenBatch) -> None:
        settings = ilql.Train(cql_weight=0.0)
        loss = ilql.loss(networks(start, settings), batch, dialogue_weights(batch.action_mask), settings)
        assert "conservative" not in loss.parts
        assert loss.total.item() == (loss.parts["td"] + loss.parts["expectile"]).item()

    def test_it_acts_with_the_behaviour_policy_and_the_target(self, start: Start) -> None:
        module = networks(start, ilql.Train())
        actor = token_values.actor(module, start.behaviour)
        assert actor.language_model is start.behaviour
        assert actor.critic is module.target

    def test_one_head_alone_counts_where_double_q_is_off(self, start: Start, batch: TokenBatch) -> None:
        double, single = (networks(start, ilql.Train(double_q=both)) for both in (True, False))
        assert (len(double.online.q_heads), len(single.online.q_heads)) == (2, 1)
        hidden = torch.randn(2, 3, 16)
        assert torch.equal(single.target.minimum(hidden), single.target.q_heads[0](hidden))
        assert torch.equal(double.target.minimum(hidden), torch.minimum(*double.target.heads_at(hidden)))

    def test_q_of_one_action_is_that_of_the_full_vocabulary(self, start: Start) -> None:
        network = networks(start, ilql.Train()).target
        hidden, actions = torch.randn(2, 3, 16), torch.randint(0, 50, (2, 3))
        expected = network.minimum(hidden).gather(-1, actions[..., None]).squeeze(-1)
        assert torch.allclose(network.minimum_of(hidden, actions), expected, atol=1e-6)


class TestValueNetworks:
    def test_the_target_moves_by_the_polyak_share(self, start: Start) -> None:
        module = networks(start, ilql.Train())
        with torch.no_grad():
            for parameter in module.online.parameters():
                parameter.fill_(1.0)
            for parameter in module.target.parameters():
                parameter.fill_(3.0)
        renew_target(module, ilql.Train(polyak=0.25), 1)
        assert all((p == 0.25 * 1.0 + 0.75 * 3.0).all() for p in module.target.parameters())
        assert all((p == 1.0).all() for p in module.online.parameters())

    def test_a_polyak_of_one_copies(self, start: Start) -> None:
        module = networks(start, ilql.Train())
        with torch.no_grad():
            for parameter in module.online.parameters():
                parameter.add_(0.1)
        follow(module, 1.0)
        assert all(map(torch.equal, module.target.parameters(), module.online.parameters()))

    def test_the_target_never_drops_out(self, language_model: Callable[..., nn.Module], batch: TokenBatch) -> None:
        dropping = language_model(dropout=0.5)
        module = networks(Start(dropping, dropping, seed=0), ilql.Train()).train()

        def twice(trunk: nn.Module) -> list[Tensor]:
            return [hidden_states(trunk, batch.tokens) for _ in range(2)]

        assert torch.equal(*twice(module.target.trunk))
        assert not torch.equal(*twice(module.online.trunk))

    def test_it_starts_from_the_trunk_that_is_named(self, start: Start) -> None:
        assert start.behaviour is not None
        for name, model in (("behaviour", start.behaviour), ("pretrained", start.pretrained)):
            trunk = networks(start, ilql.Train(start=name)).online.trunk
            assert all(map(torch.equal, trunk.parameters(), model.base_model.parameters()))  # type: ignore[union-attr]

    def test_heads_follow_the_training_seed(self, start: Start) -> None:
        one, same, other = (networks(dataclasses.replace(start, seed=s), ilql.Train()) for s in (3, 3, 4))
        first = [module.online.q_heads[0].state_dict()["0.weight"] for module in (one, same, other)]
        assert torch.equal(first[0], first[1])
        assert not torch.equal(first[0], first[2])
