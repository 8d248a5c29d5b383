"""Components of value learning that can be taken out: each switch changes what it says, and nothing else."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ilql import networks, token_values
from ilql.batch import TokenBatch, TokenSequence, dialogue_weights
from ilql.language_model import gather, hidden_states, trunk_of
from ilql.losses import masked_mean
from ilql.method import Loss, Method, Start
from ilql.methods import cql, ilql, mc_returns, psi, qsft, sarsa, utterance_ilql
from ilql.networks import ValueNetworks
from ilql.tokens import Tokenizer
from ilql.train import Loop, train

TOKEN_METHODS = {m.name: m for m in (ilql.METHOD, sarsa.METHOD, cql.METHOD, mc_returns.METHOD)}


@pytest.fixture(params=TOKEN_METHODS)
def method(request: pytest.FixtureRequest) -> Method:
    return TOKEN_METHODS[request.param]


def built(method: Method, start: Start, settings: token_values.ValueTraining) -> ValueNetworks:
    """Give the method's networks, their target moved away from the online ones."""
    module = method.build(start, settings)
    assert isinstance(module, ValueNetworks)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.target.q_heads.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    return module


def loss_of(method: Method, module: nn.Module, batch: TokenBatch, settings: token_values.ValueTraining) -> Loss:
    return method.loss(module, batch, dialogue_weights(batch.action_mask), settings)


def gradients(module: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    module.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def trunk_moves(found: dict[str, Tensor]) -> bool:
    return any(gradient.any() for name, gradient in found.items() if name.startswith("online.trunk."))


TERMS = {"cql_weight": 0.5, "margin_weight": 0.5, "margin": 0.1}


class TestGradientsIntoTheTrunk:
    @pytest.mark.parametrize(("q_in", "v_in"), [(True, False), (False, True), (False, False)])
    def test_the_loss_is_the_same_and_only_the_trunks_gradient_is_cut(
        self, method: Method, start: Start, batch: TokenBatch, q_in: bool, v_in: bool
    ) -> None:
        both = method.train(**TERMS)
        some = dataclasses.replace(both, q_into_trunk=q_in, v_into_trunk=v_in)
        whole, cut = built(method, start, both), built(method, start, some)
        losses = [loss_of(method, whole, batch, both).total, loss_of(method, cut, batch, some).total]
        assert losses[0].item() == losses[1].item()
        full, part = gradients(whole, losses[0]), gradients(cut, losses[1])
        for name, gradient in full.items():
            if not name.startswith("online.trunk."):
                assert torch.equal(gradient, part[name]), name
        assert trunk_moves(full)
        assert trunk_moves(part) == (q_in or v_in)

    @pytest.mark.parametrize("cut", ["q", "v"])
    def test_what_one_loss_gives_the_trunk_is_what_the_other_leaves_out(
        self, start: Start, batch: TokenBatch, cut: str
    ) -> None:
        # With Q's gradients cut, L_V alone moves the trunk, and the other way round.
        settings = ilql.Train(cql_weight=0.0, q_into_trunk=cut != "q", v_into_trunk=cut != "v")
        module, plain = built(ilql.METHOD, start, settings), ilql.Train(cql_weight=0.0)
        weights = dialogue_weights(batch.action_mask)
        found = gradients(module, loss_of(ilql.METHOD, module, batch, settings).total)
        run = token_values.forward(module, batch, weights, plain)
        with torch.no_grad():
            target_q = module.target.minimum_of(gather(run.frozen, batch.action_positions), batch.actions)
        if cut == "q":
            alone = ilql.expectile_loss(target_q, run.values[:, :-1], weights, tau=plain.tau)
        else:
            goal = ilql.td_target(batch.rewards, run.values[:, 1:], batch.terminal, gamma=plain.gamma)
            alone = ilql.td_loss(goal, run.q_taken, weights)
        expected = gradients(module, alone)
        for name, gradient in expected.items():
            if name.startswith("online.trunk."):
                assert torch.allclose(found[name], gradient, atol=1e-7), name


class TestTarget:
    @pytest.mark.parametrize(
        ("method", "settings"),
        [
            (ilql.METHOD, ilql.Train(target_every=3, polyak=0.25)),
            (psi.METHOD, psi.Train(target_every=3, polyak=0.25)),
            (qsft.METHOD, qsft.Train(target_every=3, polyak=0.25)),
            (utterance_ilql.METHOD, utterance_ilql.Train(target_every=3, polyak=0.25)),
        ],
        ids=lambda value: getattr(value, "name", ""),
    )
    def test_n_steps_with_renewal_every_k_give_n_over_k_renewals(
        self,
        method: Method,
        settings: ilql.Train,
        start: Start,
        pulls: list[TokenSequence],
        tokenizer: Tokenizer,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        settings = dataclasses.replace(settings, steps=8, batch_size=4, learning_rate=1e-3)
        module = method.build(start, settings)
        steps: list[int] = []
        renew = networks.follow

        def counted(module: networks.Lagging, polyak: float) -> None:
            assert polyak == 0.25
            steps.append(step)
            renew(module, polyak)

        monkeypatch.setattr(networks, "follow", counted)
        step = 1
        pad = tokenizer.structural("pad")
        for progress in train(method, module, pulls, settings, pad=pad, seed=0, loop=Loop(log_every=1)):
            step = progress.step + 1
        assert steps == [3, 6]

    def test_micro_batches_are_no_steps(
        self, start: Start, pulls: list[TokenSequence], tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = ilql.Train(target_every=2, polyak=1.0, steps=4, batch_size=8, learning_rate=1e-3)
        module = token_values.build(start, settings)
        assert isinstance(module, ValueNetworks)
        calls: list[float] = []
        monkeypatch.setattr(networks, "follow", lambda module, polyak: calls.append(polyak))
        loop = Loop(micro_batch=2)
        for _ in train(ilql.METHOD, module, pulls, settings, pad=tokenizer.structural("pad"), seed=0, loop=loop):
            pass
        assert calls == [1.0, 1.0]

    def test_a_hard_copy_at_every_step_is_no_lagging_target(
        self, start: Start, pulls: list[TokenSequence], tokenizer: Tokenizer
    ) -> None:
        settings = ilql.Train(polyak=1.0, steps=3, batch_size=8, learning_rate=1e-3)
        module = token_values.build(start, settings)
        assert isinstance(module, ValueNetworks)
        for _ in train(ilql.METHOD, module, pulls, settings, pad=tokenizer.structural("pad"), seed=0, loop=Loop()):
            pass
        assert all(map(torch.equal, module.target.parameters(), module.online.parameters()))

    def test_without_a_trunk_of_its_own_its_heads_read_the_online_one(
        self, method: Method, start: Start, batch: TokenBatch
    ) -> None:
        shared, own = method.train(target_trunk=False), method.train()
        one, two = built(method, start, shared), built(method, start, own)
        assert one.target.trunk is one.online.trunk
        assert all(p.requires_grad for p in one.online.trunk.parameters())
        assert not any(p.requires_grad for p in one.target.q_heads.parameters())
        # Both trunks are alike to begin with, so the loss is; it is not once the online one has moved.
        same = loss_of(method, one, batch, shared).total.item()
        assert same == pytest.approx(loss_of(method, two, batch, own).total.item(), rel=1e-6)
        before = [p.clone() for p in one.online.trunk.parameters()]
        networks.follow(one, 0.5)
        assert all(map(torch.equal, before, one.online.trunk.parameters()))
        with torch.no_grad():
            for module in (one, two):
                module.online.trunk.get_input_embeddings().weight.add_(0.5 * torch.randn(62, 16))  # type: ignore[operator]
        if method.name != "mc_returns":  # it reads no target
            moved = hidden_states(two.target.trunk, batch.tokens)
            frozen = token_values.forward(two, batch, dialogue_weights(batch.action_mask), own).frozen
            assert torch.equal(frozen, moved)
        frozen = token_values.forward(one, batch, dialogue_weights(batch.action_mask), shared).frozen
        assert torch.equal(frozen, hidden_states(one.online.trunk, batch.tokens))
        assert not frozen.requires_grad


class TestClip:
    def test_the_targets_q_is_clipped_and_the_online_one_is_not(self, start: Start) -> None:
        module = built(ilql.METHOD, start, ilql.Train(value_low=-0.05, value_high=0.02))
        hidden, actions = torch.randn(2, 3, 16), torch.randint(0, 50, (2, 3))
        bare = torch.stack(module.target.heads_at(hidden)).amin(0)
        assert torch.equal(module.target.minimum(hidden), bare.clamp(-0.05, 0.02))
        assert bare.amin() < -0.05
        assert bare.amax() > 0.02
        taken = bare.gather(-1, actions[..., None]).squeeze(-1)
        assert torch.allclose(module.target.minimum_of(hidden, actions), taken.clamp(-0.05, 0.02), atol=1e-6)
        assert torch.stack(module.online.heads_at(hidden)).amax() > 0.02

    def test_it_stands_in_the_target_of_v_and_of_the_max_backup(self, start: Start, batch: TokenBatch) -> None:
        settings = cql.Train(cql_weight=0.0, value_low=-0.5, value_high=-0.4)
        loss = loss_of(cql.METHOD, built(cql.METHOD, start, settings), batch, settings)
        assert loss.parts["best_mean"].item() == pytest.approx(-0.4)  # every Q is near 0, above the clip

    def test_an_empty_range_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"value_low must be below value_high \(-1.0\), got 0.0"):
            ilql.Train(value_low=0.0, value_high=-1.0)


class TestTerms:
    @pytest.mark.parametrize(("weight", "part"), [("cql_weight", "conservative"), ("margin_weight", "margin")])
    def test_a_term_counts_with_its_weight_and_is_not_computed_without(
        self, method: Method, start: Start, batch: TokenBatch, weight: str, part: str
    ) -> None:
        plain = method.train(cql_weight=0.0, margin=0.3)
        module = built(method, start, plain)
        without = loss_of(method, module, batch, plain)
        some = loss_of(method, module, batch, dataclasses.replace(plain, **{weight: 0.25}))
        assert part not in without.parts
        assert some.total.item() == pytest.approx(without.total.item() + 0.25 * some.parts[part].item(), rel=1e-6)
        assert some.parts[part].item() > 0

    def test_one_head_is_half_of_two_equal_ones(self, method: Method, start: Start, batch: TokenBatch) -> None:
        two = built(method, start, method.train(cql_weight=0.0))
        one = built(method, start, method.train(cql_weight=0.0, double_q=False))
        for module in (one, two):
            for network in (module.online, module.target):
                for head in network.q_heads:
                    head.load_state_dict(two.online.q_heads[0].state_dict())
            module.v_head.load_state_dict(two.v_head.state_dict())
        found = [loss_of(method, m, batch, method.train(cql_weight=0.0)) for m in (one, two)]
        assert found[1].parts["td"].item() == pytest.approx(2 * found[0].parts["td"].item(), rel=1e-5)
        assert found[1].parts["expectile"].item() == pytest.approx(found[0].parts["expectile"].item(), rel=1e-5)


class TestJointPolicy:
    def test_its_cloning_loss_is_added_and_trains_the_trunk(
        self, method: Method, start: Start, batch: TokenBatch
    ) -> None:
        joint = method.train(separate_policy=False, q_into_trunk=False, v_into_trunk=False)
        module = built(method, start, joint)
        loss = loss_of(method, module, batch, joint)
        apart = loss_of(method, built(method, start, method.train()), batch, method.train())
        assert loss.total.item() == pytest.approx(apart.total.item() + loss.parts["cloning"].item(), rel=1e-6)
        found = gradients(module, loss.total)
        assert trunk_moves(found)
        assert found["policy_head.weight"].any()
        # It starts as the behaviour policy, whose trunk and head it has: their cloning loss is the same.
        assert start.behaviour is not None
        logits = start.behaviour(batch.tokens, attention_mask=batch.attention_mask.long()).logits
        nll = -gather(logits.log_softmax(-1), batch.action_positions).gather(-1, batch.actions[..., None]).squeeze(-1)
        expected = masked_mean(nll, dialogue_weights(batch.action_mask))
        assert loss.parts["cloning"].item() == pytest.approx(expected.item(), rel=1e-5)

    @torch.no_grad()
    def test_it_acts_instead_of_the_behaviour_policy(self, start: Start, batch: TokenBatch) -> None:
        module = built(ilql.METHOD, start, ilql.Train(separate_policy=False))
        for parameter in module.online.trunk.parameters():
            parameter.add_(0.01)
        assert module.policy_head is not None
        module.policy_head.weight.mul_(1.5)
        assert start.behaviour is not None
        actor = token_values.actor(module, start.behaviour)
        hidden = hidden_states(module.online.trunk, batch.tokens)
        spoken = hidden_states(trunk_of(actor.language_model), batch.tokens)
        assert torch.allclose(hidden, spoken, atol=1e-6)
        head = actor.language_model.get_output_embeddings()  # type: ignore[operator]
        assert torch.allclose(head(spoken), module.policy_head(hidden), atol=1e-5)
        assert actor.critic is module.target

    def test_its_head_is_tied_to_no_embedding(self, start: Start) -> None:
        module = built(ilql.METHOD, start, ilql.Train(separate_policy=False))
        assert module.policy_head is not None
        assert module.policy_head.weight is not module.online.trunk.get_input_embeddings().weight  # type: ignore[operator]

    def test_psi_has_none(self) -> None:
        with pytest.raises(ValueError, match="separate_policy must be true"):
            psi.Train(separate_policy=False)


@pytest.mark.parametrize("field", ["value_low", "value_high"])
def test_no_clip_is_an_infinite_one(field: str) -> None:
    assert math.isinf(getattr(ilql.Train(), field))


class TestConventions:
    """Points in which implementations differ: see `docs/conventions.md`."""

    def test_the_scale_is_on_the_values_terms_alone(self, method: Method, start: Start, batch: TokenBatch) -> None:
        half = method.train(td_scale=0.5, cql_weight=0.3, margin_weight=0.2, margin=0.1, separate_policy=False)
        parts = loss_of(method, module := built(method, start, half), batch, half).parts
        values, rest = parts["td"] + parts["expectile"], 0.3 * parts["conservative"] + 0.2 * parts["margin"]
        total = loss_of(method, module, batch, half).total
        assert total.item() == pytest.approx((0.5 * values + rest + parts["cloning"]).item(), rel=1e-6)

    def test_heads_are_as_wide_as_they_are_told(self, start: Start) -> None:
        for multiple in (1, 3):
            module = built(ilql.METHOD, start, ilql.Train(head_multiple=multiple))
            for head in (*module.online.q_heads, *module.target.q_heads, module.v_head):
                assert head[0].out_features == multiple * 16  # type: ignore[index,union-attr]

    def test_all_heads_can_begin_at_one_value_and_learn_from_there(
        self, method: Method, start: Start, batch: TokenBatch
    ) -> None:
        settings = method.train(head_constant=-4.1)
        module, hidden = method.build(start, settings), torch.randn(2, 3, 16)
        assert isinstance(module, ValueNetworks)
        for head in (*module.online.q_heads, *module.target.q_heads, module.v_head):
            assert torch.equal(head(hidden), torch.full_like(head(hidden), -4.1))
        found = gradients(module, loss_of(method, module, batch, settings).total)
        assert found["online.q_heads.0.2.weight"].any()

    @pytest.mark.parametrize("drops_out", [True, False])
    def test_the_target_drops_out_only_if_it_is_told_to_and_only_in_training(
        self, language_model: Callable[..., nn.Module], batch: TokenBatch, drops_out: bool
    ) -> None:
        dropping = language_model(dropout=0.5)
        module = built(ilql.METHOD, Start(dropping, dropping, seed=0), ilql.Train(target_dropout=drops_out))

        def twice() -> list[Tensor]:
            return [hidden_states(module.target.trunk, batch.tokens) for _ in range(2)]

        module.train()
        assert torch.equal(*twice()) == (not drops_out)
        module.eval()
        assert torch.equal(*twice())

    def test_a_cut_can_count_as_an_end(self, method: Method, start: Start, batch: TokenBatch) -> None:
        end, bootstrap = method.train(truncation="end"), method.train()
        module = built(method, start, end)
        last = batch.action_mask.sum(dim=1) - 1
        terminal = batch.terminal.clone()
        terminal[torch.arange(len(last)), last] = True
        assert not torch.equal(terminal, batch.terminal)
        as_if = dataclasses.replace(batch, terminal=terminal)
        losses = [loss_of(method, module, b, hp).total.item() for b, hp in ((batch, end), (as_if, bootstrap))]
        assert losses[0] == losses[1]
        assert losses[0] != loss_of(method, module, batch, bootstrap).total.item()

    def test_rewards_can_be_the_standardised_return_at_the_last_action(
        self, method: Method, start: Start, batch: TokenBatch
    ) -> None:
        hp = method.train(rewards="standardised")
        module = built(method, dataclasses.replace(start, returns=(0.5, 2.0)), hp)
        # Returns are -1 + 2 = 1 and -1, so (1 - .5) / 2 and (-1 - .5) / 2.
        rewards = torch.zeros_like(batch.rewards)
        last = batch.action_mask.sum(dim=1) - 1
        rewards[torch.arange(2), last] = torch.tensor([0.25, -0.75])
        as_if = dataclasses.replace(batch, rewards=rewards)
        ours = loss_of(method, module, batch, hp).total.item()
        assert ours == pytest.approx(loss_of(method, module, as_if, method.train()).total.item(), rel=1e-6)
        assert ours != pytest.approx(loss_of(method, module, batch, method.train()).total.item(), rel=1e-3)
