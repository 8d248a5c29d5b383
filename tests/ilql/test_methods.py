"""What every method promises, whatever it is: a new file of `ilql.methods` is held to this page by existing."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Model

from ilql.batch import TokenBatch, TokenSequence, collate, dialogue_weights, tokenize
from ilql.checkpoint import CheckpointError, load_weights, save_weights
from ilql.decode import Speaker, Utterance, Voice
from ilql.dialogue import Dialogue, Turn
from ilql.fitted_q import Acting, without_probabilities
from ilql.language_model import Architecture, build_language_model
from ilql.losses import VERSIONS
from ilql.method import Actor, Decoding, Manner, Method, Start, Training
from ilql.methods import known_methods, method_named
from ilql.tokens import Tokenizer
from ilql.train import Loop, train

if TYPE_CHECKING:
    from conftest import Complete

METHODS = known_methods()


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> Method:
    return METHODS[request.param]


@pytest.fixture
def models(language_model: Callable[..., nn.Module]) -> Start:
    """Give what every method starts from; their weights are wide, so that what they say varies."""
    return Start(language_model(seed=1, spread=4.0), language_model(seed=2, spread=4.0), seed=3)


@pytest.fixture
def sequences(tokenizer: Tokenizer) -> list[TokenSequence]:
    """Give three dialogues of different lengths: ended, cut off, and without an action."""
    world, agent = Turn("two cats in the snow", by_agent=False), Turn("is it red ?", by_agent=True, reward=-1.0)
    last = Turn("a", by_agent=True, reward=2.0)
    dialogues = [Dialogue((world, agent, Turn("no", by_agent=False), last), ended=True), Dialogue((agent,), False)]
    return [
        dataclasses.replace(tokenize(dialogue, tokenizer), number=number)
        for number, dialogue in enumerate((*dialogues, Dialogue((world,), ended=False)))
    ]


@pytest.fixture
def batch(sequences: list[TokenSequence], tokenizer: Tokenizer) -> TokenBatch:
    return collate(sequences, pad=tokenizer.structural("pad"))


@pytest.fixture
def start(method: Method, models: Start, sequences: list[TokenSequence], complete: Complete) -> Start:
    return complete(method, models, sequences)


def loss_of(method: Method, module: nn.Module, batch: TokenBatch) -> Tensor:
    torch.manual_seed(0)  # a loss may draw
    return method.loss(module, batch, dialogue_weights(method.counts(batch)), method.train()).total


def wiggled(module: nn.Module) -> nn.Module:
    """Give the module with every weight moved, so that no two of its parts are copies of each other."""
    draw = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=draw))
    return module


def said_by(actor: Actor, tokenizer: Tokenizer, decode: Decoding, manner: Manner) -> list[Utterance]:
    """Give what the actor says twice in each of three conversations."""
    speaker = Speaker(actor, tokenizer, slots=3, device=torch.device("cpu"))
    openings = ["pull", "two cats in the snow", "is it red ?"]
    voices, said = [Voice(slot, decode, manner, np.random.default_rng(slot)) for slot in range(3)], []
    for slot, text in enumerate(openings):
        if manner.target_return is not None:
            speaker.ask(slot, manner.target_return)
        speaker.hear(slot, [tokenizer.structural("bos"), *tokenizer.encode(text), tokenizer.structural("eos")])
    for _ in range(2):
        said += speaker.speak(voices)
        for slot in range(3):
            speaker.hear(slot, [*tokenizer.encode("no"), tokenizer.structural("eos")])
    return said


def decoding_with(field: str) -> list[str]:
    """Give the methods that have such a decoding setting."""
    return [name for name, m in METHODS.items() if field in {item.name for item in dataclasses.fields(m.decode)}]


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same_weights(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


class TestPresentation:
    def test_it_is_found_by_its_name(self, method: Method) -> None:
        assert method_named(method.name) is method

    def test_names_and_titles_are_its_own(self, method: Method) -> None:
        others = [m for m in METHODS.values() if m is not method]
        assert method.name not in {m.name for m in others}
        assert method.title not in {m.title for m in others}

    def test_its_two_bags_extend_what_every_method_has(self, method: Method) -> None:
        assert issubclass(method.train, Training)
        assert issubclass(method.decode, Decoding)

    def test_no_hyperparameter_is_in_both_bags(self, method: Method) -> None:
        bags = [{field.name for field in dataclasses.fields(kind)} for kind in (method.train, method.decode)]
        assert bags[0] & bags[1] == set()

    def test_every_hyperparameter_says_what_it_means(self, method: Method) -> None:
        for kind in (method.train, method.decode):
            assert all(field.metadata["meaning"] for field in dataclasses.fields(kind))

    def test_its_losses_have_versions(self, method: Method) -> None:
        assert method.losses
        assert set(method.losses) <= set(VERSIONS)

    def test_canonical_names_the_weights_once_and_for_all(self, method: Method) -> None:
        name, settings = method.trained_as(method.train(steps=7))
        assert METHODS[name].trained_as(settings) == (name, settings)
        assert settings.steps == 7

    def test_its_critic_is_a_method_of_the_house_with_settings_of_its_own(self, method: Method) -> None:
        if (named := method.critic(method.train(steps=7))) is not None:
            name, settings = named
            assert isinstance(settings, METHODS[name].train)
            assert settings.steps == 7
            assert METHODS[name].critic(settings) is None

    def test_its_proposals_are_some_utterances_of_some_length(self, method: Method) -> None:
        if (proposals := method.proposals(method.train())) is not None:
            assert method.needs_behaviour
            assert proposals.count >= 1
            assert proposals.max_new_tokens >= 1


class TestData:
    def test_it_keeps_some_dialogues_each_once_and_in_order(self, method: Method) -> None:
        kept = method.keep(np.asarray([0.0, -1.0, 3.0, -1.0, 0.0, 1.0]), method.train()).tolist()
        assert kept
        assert kept == sorted(set(kept))
        assert set(kept) <= set(range(6))

    @pytest.mark.parametrize("method", [name for name in METHODS if not METHODS[name].uses_rewards], indirect=True)
    def test_without_rewards_it_is_unmoved_by_them(self, method: Method, start: Start, batch: TokenBatch) -> None:
        other = dataclasses.replace(batch, rewards=batch.rewards + 1)
        module = method.build(start, method.train())
        assert loss_of(method, module, batch).item() == loss_of(method, module, other).item()
        returns = np.arange(4.0)
        assert method.keep(returns, method.train()).tolist() == method.keep(-returns, method.train()).tolist()


class TestLoss:
    def test_it_is_finite_and_so_are_its_parts(self, method: Method, start: Start, batch: TokenBatch) -> None:
        module = method.build(start, method.train())
        loss = method.loss(module, batch, dialogue_weights(method.counts(batch)), method.train())
        assert loss.total.shape == ()
        assert loss.total.isfinite()
        assert loss.parts
        assert all(part.isfinite() and not part.requires_grad for part in loss.parts.values())

    def test_it_counts_some_actions_and_no_other_place(self, method: Method, start: Start, batch: TokenBatch) -> None:
        counts = method.counts(batch)
        assert counts.shape == batch.actions.shape
        assert counts.any()
        assert not counts[~batch.action_mask].any()

    def test_gradient_reaches_all_that_is_trained_and_nothing_frozen(
        self, method: Method, start: Start, batch: TokenBatch
    ) -> None:
        module = wiggled(method.build(start, method.train()))
        loss_of(method, module, batch).backward()  # type: ignore[no-untyped-call]
        without = [n for n, p in module.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
        assert without == []
        frozen = [p for p in module.parameters() if not p.requires_grad]
        others = [m for m in (start.behaviour, start.pretrained, start.critic) if m is not None]
        assert all(p.grad is None for p in (*frozen, *(p for other in others for p in other.parameters())))

    def test_padding_does_not_move_it(self, method: Method, start: Start, batch: TokenBatch) -> None:
        module = wiggled(method.build(start, method.train()))
        length, actions = int(batch.attention_mask[1].sum()), int(batch.action_mask[1].sum())
        padded = batch.rows(slice(1, 2))
        widths = {"tokens": length, "attention_mask": length, "state_positions": actions + 1}
        bare = TokenBatch(
            **{
                name: value if value.dim() == 1 else value[:, : widths.get(name, actions)]
                for name, value in vars(padded).items()
            }
        )
        assert bare.tokens.shape != padded.tokens.shape
        assert loss_of(method, module, bare).item() == pytest.approx(loss_of(method, module, padded).item(), rel=1e-5)

    def test_what_stands_under_a_mask_does_not_move_it(self, method: Method, start: Start, batch: TokenBatch) -> None:
        module, real = wiggled(method.build(start, method.train())), batch.action_mask
        states = torch.cat([real.any(dim=1, keepdim=True) | True, real], dim=1)
        other = dataclasses.replace(
            batch,
            tokens=torch.where(batch.attention_mask, batch.tokens, 5),
            action_positions=torch.where(real, batch.action_positions, 2),
            state_positions=torch.where(states, batch.state_positions, 2),
            actions=torch.where(real, batch.actions, 7),
            rewards=torch.where(real, batch.rewards, 9.0),
            terminal=batch.terminal | ~real,
        )
        assert not torch.equal(other.rewards, batch.rewards)
        assert loss_of(method, module, other).item() == pytest.approx(loss_of(method, module, batch).item(), rel=1e-6)

    def test_the_order_of_dialogues_does_not_move_it(
        self, method: Method, start: Start, batch: TokenBatch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Draws follow the order of the batch; here they are all alike.
        monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.full(tuple(shape[0]), 0.8))
        module = wiggled(method.build(start, method.train()))
        other = TokenBatch(**{name: value[[2, 1, 0]] for name, value in vars(batch).items()})
        assert loss_of(method, module, other).item() == pytest.approx(loss_of(method, module, batch).item(), rel=1e-5)

    def test_a_batch_without_actions_costs_nothing(
        self, method: Method, start: Start, batch: TokenBatch, sequences: list[TokenSequence], tokenizer: Tokenizer
    ) -> None:
        module = method.build(start, method.train())
        alone = collate(sequences[2:], pad=tokenizer.structural("pad"))
        assert alone.actions.shape == (1, 0)
        for none in (batch.rows(slice(2, 3)), alone):
            loss = loss_of(method, module, none)
            loss.backward()  # type: ignore[no-untyped-call]
            assert loss.item() == 0.0
            assert all(p.grad.isfinite().all() for p in module.parameters() if p.grad is not None)

    def test_half_precision_moves_it_and_its_gradients_a_little(
        self, method: Method, start: Start, batch: TokenBatch
    ) -> None:
        module = wiggled(method.build(start, method.train()))
        found = []
        for half in (False, True):
            module.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                loss = loss_of(method, module, batch)
            loss.backward()  # type: ignore[no-untyped-call]
            assert loss.dtype == torch.float32
            grads = [p.grad for p in module.parameters() if p.grad is not None]
            assert {grad.dtype for grad in grads} == {torch.float32}
            found.append((loss.item(), torch.cat([grad.flatten() for grad in grads])))
        (whole, gradient), (rough, rough_gradient) = found
        assert rough != whole
        assert rough == pytest.approx(whole, rel=0.03, abs=0.01)
        assert torch.cosine_similarity(gradient, rough_gradient, dim=0) > 0.99

    def test_an_utterance_that_was_cut_off_can_be_learned_from(
        self, method: Method, models: Start, tokenizer: Tokenizer, complete: Complete
    ) -> None:
        turns = (Turn("a", True, 1.0), Turn("no", False), Turn("how many are there ?", True, 1.0))
        whole = tokenize(Dialogue(turns, ended=True), tokenizer)
        cut = tokenize(Dialogue(turns, ended=True), tokenizer, max_tokens=len(whole.tokens) - 3)
        assert cut.ends.tolist()[1] and not cut.ends[2:].any() and len(cut.ends) > 2  # noqa: PT018  one picture
        module = method.build(complete(method, models, [cut]), method.train())
        loss = loss_of(method, module, collate([cut], pad=tokenizer.structural("pad")))
        loss.backward()  # type: ignore[no-untyped-call]
        assert loss.isfinite()
        assert all(p.grad.isfinite().all() for p in module.parameters() if p.grad is not None)


class TestTraining:
    def test_a_few_steps_on_the_bandit_lower_the_loss(
        self, method: Method, models: Start, tokenizer: Tokenizer, pulls: list[TokenSequence], complete: Complete
    ) -> None:
        pad = tokenizer.structural("pad")
        settings = method.train(steps=10, batch_size=16, learning_rate=3e-3)
        pulls = [dataclasses.replace(pull, number=number) for number, pull in enumerate(pulls)]
        start = complete(method, models, pulls)
        module = method.build(start, settings)
        before = loss_of(method, module, collate(pulls, pad=pad)).item()
        others = [m for m in (start.behaviour, start.pretrained, start.critic) if m is not None]
        untouched = [weights_of(other) for other in others]
        for _ in train(method, module, pulls, settings, pad=pad, seed=0, loop=Loop()):
            pass
        assert loss_of(method, module, collate(pulls, pad=pad)).item() < before
        for other, before_training in zip(others, untouched, strict=True):
            assert_same_weights(weights_of(other), before_training)

    def test_equal_starts_build_equal_modules(self, method: Method, start: Start) -> None:
        one, other = (method.build(start, method.train()) for _ in range(2))
        assert_same_weights(weights_of(one), weights_of(other))

    def test_its_manner_tells_whether_its_tokens_have_probabilities(
        self, method: Method, start: Start, tokenizer: Tokenizer
    ) -> None:
        decode = method.decode()
        manner = method.manner(method.train(), decode)
        actor = method.actor(method.build(start, method.train()), start.behaviour)
        told = without_probabilities(manner)
        with pytest.raises(ValueError, match=told) if told else contextlib.nullcontext():
            Acting(actor, decode, manner, tokenizer)

    def test_saved_and_loaded_weights_give_the_same_loss_and_say_the_same(
        self, method: Method, start: Start, batch: TokenBatch, tokenizer: Tokenizer, tmp_path: Path
    ) -> None:
        saved, loaded = (method.build(dataclasses.replace(start, seed=seed), method.train()) for seed in (3, 4))
        save_weights(wiggled(saved), tmp_path)
        load_weights(loaded, tmp_path)
        assert loss_of(method, saved, batch).item() == loss_of(method, loaded, batch).item()
        decode = method.decode(greedy=False, max_new_tokens=6)
        manner = method.manner(method.train(), decode)
        one, other = (said_by(method.actor(m, start.behaviour), tokenizer, decode, manner) for m in (saved, loaded))
        assert one == other
        assert len({utterance.tokens for utterance in one}) > 1

    def test_weights_of_another_network_are_refused_by_name(
        self,
        method: Method,
        start: Start,
        sequences: list[TokenSequence],
        tokenizer: Tokenizer,
        complete: Complete,
        tmp_path: Path,
    ) -> None:
        narrow = build_language_model(
            Architecture(layers=2, width=8, heads=2, context=64), vocabulary=tokenizer.size, seed=0
        )
        small = complete(method, Start(narrow, narrow, seed=0), sequences, width=8)
        save_weights(method.build(small, method.train()), tmp_path)
        with pytest.raises(CheckpointError, match=r"\w+\.\w+ must have shape \(.*16.*\), got \(.*8.*\) in "):
            load_weights(method.build(start, method.train()), tmp_path)


class TestActing:
    def test_its_manner_is_one_a_speaker_can_follow(self, method: Method, start: Start) -> None:
        manner = method.manner(method.train(), method.decode())
        actor = method.actor(method.build(start, method.train()), start.behaviour)
        assert manner.beta >= 0
        assert manner.candidates >= 0
        assert math.isfinite(manner.log_prob_weight)
        assert (manner.beta > 0) == (actor.critic is not None)
        assert (manner.candidates > 0) == (actor.judge is not None)
        assert (manner.target_return is not None) == (actor.condition is not None)
        assert manner.target_return is None or math.isfinite(manner.target_return)
        assert manner.target_return is not None or not manner.asked_each_turn

    def test_it_speaks_with_at_most_two_transformers(self, method: Method, start: Start, tokenizer: Tokenizer) -> None:
        module, ran = method.build(start, method.train()), set()
        for owner in (module, start.behaviour, start.pretrained, start.critic):
            for part in () if owner is None else owner.modules():
                if isinstance(part, GPT2Model):
                    part.register_forward_hook(lambda part, *_: ran.add(id(part)))
        actor = method.actor(module, start.behaviour if method.needs_behaviour else None)
        decode = method.decode(max_new_tokens=4)
        said = said_by(actor, tokenizer, decode, method.manner(method.train(), decode))
        assert all(1 <= len(utterance.tokens) <= 4 for utterance in said)
        assert 1 <= len(ran) <= 2

    @pytest.mark.parametrize("method", decoding_with("online_critic"), indirect=True)
    def test_asked_for_the_critic_that_does_not_lag_it_has_one(self, method: Method, start: Start) -> None:
        decode = method.decode(online_critic=True)
        actor = method.actor(method.build(start, method.train()), start.behaviour)
        assert method.manner(method.train(), decode).online_critic
        assert actor.online is not None
        assert actor.online is not actor.critic

    @pytest.mark.parametrize("method", decoding_with("beta"), indirect=True)
    @pytest.mark.parametrize("greedy", [True, False])
    def test_with_a_beta_of_zero_it_is_the_behaviour_policy(
        self, method: Method, start: Start, tokenizer: Tokenizer, greedy: bool
    ) -> None:
        assert start.behaviour is not None
        actor = method.actor(wiggled(method.build(start, method.train())), start.behaviour)
        spoken = []
        for beta in (0.0, 50.0):
            decode = method.decode(beta=beta, greedy=greedy, max_new_tokens=6)
            spoken.append(said_by(actor, tokenizer, decode, method.manner(method.train(), decode)))
        alone = said_by(Actor(start.behaviour), tokenizer, Decoding(greedy=greedy, max_new_tokens=6), Manner())
        assert spoken[0] == alone
        assert spoken[1] != alone

    @pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].values], indirect=True)
    def test_its_values_belong_to_the_actions(self, method: Method, start: Start, batch: TokenBatch) -> None:
        assert method.values is not None
        values = method.values(method.build(start, method.train()), batch)
        for part in (values.q, values.v, values.advantage):
            assert part.shape == batch.actions.shape
            assert part[batch.action_mask].isfinite().all()
            assert not part.requires_grad
        assert torch.equal(values.advantage, values.q - values.v)

    @pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].valued], indirect=True)
    def test_the_rewards_that_its_values_sum_belong_to_the_actions(
        self, method: Method, start: Start, batch: TokenBatch
    ) -> None:
        assert method.values is not None
        assert method.valued is not None
        module = method.build(start, method.train())
        assert torch.equal(method.valued(module, batch, method.train()), batch.rewards)
        standardised = method.valued(module, batch, method.train(rewards="standardised"))
        assert standardised.shape == batch.actions.shape


def test_an_unknown_method_is_refused_with_those_there_are() -> None:
    with pytest.raises(KeyError) as refused:
        method_named("iqll")
    assert refused.value.args[0].startswith("'iqll' is no method; known: ilql, ")
