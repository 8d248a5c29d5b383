"""What every method promises, whatever it is: a new file of `ilql.methods` is held to this page by existing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Model

from ilql.batch import TokenBatch, TokenSequence, collate, dialogue_weights, tokenize
from ilql.checkpoint import CheckpointError, load_weights, save_weights
from ilql.decode import Speaker, Voice
from ilql.dialogue import Dialogue, Turn
from ilql.losses import VERSIONS
from ilql.method import Decoding, Method, Start, Training
from ilql.methods import known_methods, method_named
from ilql.networks import Architecture, build_language_model
from ilql.tokens import Tokenizer
from ilql.train import Loop, train

METHODS = known_methods()


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> Method:
    return METHODS[request.param]


@pytest.fixture
def start(language_model: Callable[..., nn.Module]) -> Start:
    return Start(language_model(seed=1), language_model(seed=2), seed=3)


@pytest.fixture
def batch(tokenizer: Tokenizer) -> TokenBatch:
    """Give three dialogues of different lengths: ended, cut off, and without an action."""
    world, agent = Turn("two cats in the snow", by_agent=False), Turn("is it red ?", by_agent=True, reward=-1.0)
    last = Turn("a", by_agent=True, reward=2.0)
    dialogues = [Dialogue((world, agent, Turn("no", by_agent=False), last), ended=True), Dialogue((agent,), False)]
    return collate(
        [tokenize(d, tokenizer) for d in (*dialogues, Dialogue((world,), ended=False))],
        pad=tokenizer.structural("pad"),
    )


def loss_of(method: Method, module: nn.Module, batch: TokenBatch) -> Tensor:
    return method.loss(module, batch, dialogue_weights(batch.action_mask), method.train()).total


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
        name, settings = method.canonical(method.train(steps=7))
        assert METHODS[name].canonical(settings) == (name, settings)
        assert settings.steps == 7

    def test_its_tilt_is_a_strength(self, method: Method) -> None:
        assert method.tilt(method.decode()) >= 0


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
        loss = method.loss(module, batch, dialogue_weights(batch.action_mask), method.train())
        assert loss.total.shape == ()
        assert loss.total.isfinite()
        assert loss.parts
        assert all(part.isfinite() and not part.requires_grad for part in loss.parts.values())

    def test_gradient_reaches_what_is_trained_and_nothing_frozen(
        self, method: Method, start: Start, batch: TokenBatch
    ) -> None:
        module = method.build(start, method.train())
        loss_of(method, module, batch).backward()  # type: ignore[no-untyped-call]
        trained = [p for p in module.parameters() if p.requires_grad]
        assert any(p.grad is not None and p.grad.any() for p in trained)
        frozen = [p for p in module.parameters() if not p.requires_grad]
        assert start.behaviour is not None
        for parameter in (*frozen, *start.behaviour.parameters(), *start.pretrained.parameters()):
            assert parameter.grad is None

    def test_padding_does_not_move_it(self, method: Method, start: Start, batch: TokenBatch) -> None:
        module = method.build(start, method.train())
        length, actions = int(batch.attention_mask[1].sum()), int(batch.action_mask[1].sum())
        padded = batch.rows(slice(1, 2))
        widths = {"tokens": length, "attention_mask": length, "state_positions": actions + 1}
        bare = TokenBatch(**{name: value[:, : widths.get(name, actions)] for name, value in vars(padded).items()})
        assert bare.tokens.shape != padded.tokens.shape
        assert loss_of(method, module, bare).item() == pytest.approx(loss_of(method, module, padded).item(), rel=1e-5)

    def test_a_batch_without_actions_costs_nothing(self, method: Method, start: Start, batch: TokenBatch) -> None:
        module = method.build(start, method.train())
        loss = loss_of(method, module, batch.rows(slice(2, 3)))
        loss.backward()  # type: ignore[no-untyped-call]
        assert loss.item() == 0.0
        assert all(p.grad.isfinite().all() for p in module.parameters() if p.grad is not None)


class TestTraining:
    def test_a_few_steps_on_the_bandit_lower_the_loss(
        self, method: Method, start: Start, tokenizer: Tokenizer, pulls: list[TokenSequence]
    ) -> None:
        pad = tokenizer.structural("pad")
        settings = method.train(steps=10, batch_size=16, learning_rate=3e-3)
        module = method.build(start, settings)
        before = loss_of(method, module, collate(pulls, pad=pad)).item()
        assert start.behaviour is not None
        untouched = [weights_of(start.behaviour), weights_of(start.pretrained)]
        for _ in train(method, module, pulls, settings, pad=pad, seed=0, loop=Loop()):
            pass
        assert loss_of(method, module, collate(pulls, pad=pad)).item() < before
        assert_same_weights(weights_of(start.behaviour), untouched[0])
        assert_same_weights(weights_of(start.pretrained), untouched[1])

    def test_equal_starts_build_equal_modules(self, method: Method, start: Start) -> None:
        one, other = (method.build(start, method.train()) for _ in range(2))
        assert_same_weights(weights_of(one), weights_of(other))

    def test_saved_and_loaded_weights_give_the_same_loss(
        self, method: Method, start: Start, batch: TokenBatch, tmp_path: Path
    ) -> None:
        saved, loaded = (method.build(dataclasses.replace(start, seed=seed), method.train()) for seed in (3, 4))
        with torch.no_grad():
            for parameter in saved.parameters():
                parameter.add_(0.01)
        save_weights(saved, tmp_path)
        load_weights(loaded, tmp_path)
        assert loss_of(method, saved, batch).item() == loss_of(method, loaded, batch).item()

    def test_weights_of_another_network_are_refused_by_name(
        self, method: Method, start: Start, tokenizer: Tokenizer, tmp_path: Path
    ) -> None:
        narrow = build_language_model(
            Architecture(layers=2, width=8, heads=2, context=64), vocabulary=tokenizer.size, seed=0
        )
        save_weights(method.build(Start(narrow, narrow, seed=0), method.train()), tmp_path)
        with pytest.raises(CheckpointError, match=r"\w+\.\w+ must have shape \(.*16.*\), got \(.*8.*\) in "):
            load_weights(method.build(start, method.train()), tmp_path)


class TestActing:
    def test_it_speaks_with_at_most_two_transformers(self, method: Method, start: Start, tokenizer: Tokenizer) -> None:
        module, ran = method.build(start, method.train()), set()
        assert start.behaviour is not None
        for owner in (module, start.behaviour, start.pretrained):
            for part in owner.modules():
                if isinstance(part, GPT2Model):
                    part.register_forward_hook(lambda part, *_: ran.add(id(part)))
        actor = method.actor(module, start.behaviour if method.needs_behaviour else None)
        speaker = Speaker(actor, tokenizer, slots=2, device=torch.device("cpu"))
        speaker.hear(0, [tokenizer.structural("boa")])
        decode = method.decode(max_new_tokens=4)
        said = speaker.speak([Voice(0, decode, method.tilt(decode), np.random.default_rng(0))])[0]
        assert 1 <= len(said.tokens) <= 4
        assert 1 <= len(ran) <= 2

    @pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].advantages], indirect=True)
    def test_its_advantages_belong_to_the_actions(self, method: Method, start: Start, batch: TokenBatch) -> None:
        assert method.advantages is not None
        advantages = method.advantages(method.build(start, method.train()), batch)
        assert advantages.shape == batch.actions.shape
        assert advantages[batch.action_mask].isfinite().all()
        assert not advantages.requires_grad


def test_an_unknown_method_is_refused_with_those_there_are() -> None:
    with pytest.raises(KeyError) as refused:
        method_named("iqll")
    assert refused.value.args[0].startswith("'iqll' is no method; known: ilql, ")
