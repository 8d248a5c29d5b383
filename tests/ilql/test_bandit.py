"""The world whose answers are known: V is tau, and the good arm is taken with probability sigmoid(beta)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from ilql import token_values
from ilql.batch import TokenSequence, collate, tokenize
from ilql.choose import Knobs, choose
from ilql.language_model import gather, hidden_states
from ilql.method import Actor, Method, Start, Training
from ilql.methods import bc, ilql
from ilql.networks import QNetwork, ValueNetworks
from ilql.task import Reply
from ilql.tasks.bandit import KIND, Bandit, Settings
from ilql.tokens import Tokenizer
from ilql.train import Loop, train

DRAWS = 10_000


def run(method: Method, module: nn.Module, pulls: list[TokenSequence], settings: Training, pad: int) -> nn.Module:
    for _ in train(method, module, pulls, settings, pad=pad, seed=0, loop=Loop(log_every=1000)):
        pass
    return module


@pytest.fixture(scope="module")
def behaviour(language_model: Callable[..., nn.Module], pulls: list[TokenSequence], tokenizer: Tokenizer) -> nn.Module:
    pretrained = language_model()
    settings = bc.Train(steps=150, batch_size=16, learning_rate=1e-2)
    module = bc.build(Start(pretrained, None, seed=0), settings)
    return run(bc.METHOD, module, pulls, settings, tokenizer.structural("pad"))


@pytest.fixture(scope="module", params=[0.5, 0.8])
def trained(
    request: pytest.FixtureRequest, behaviour: nn.Module, pulls: list[TokenSequence], tokenizer: Tokenizer
) -> tuple[float, ValueNetworks]:
    exact = ilql.Train(tau=request.param, gamma=1.0, cql_weight=0.0, polyak=0.1, batch_size=2)
    module = token_values.build(Start(behaviour, behaviour, seed=0), exact)
    for steps, rate in ((150, 1e-2), (100, 3e-3), (100, 3e-4)):  # Adam settles only at a small rate
        settings = dataclasses.replace(exact, steps=steps, learning_rate=rate)
        run(ilql.METHOD, module, pulls[:2], settings, tokenizer.structural("pad"))
    assert isinstance(module, ValueNetworks)
    return request.param, module


@torch.no_grad()
def test_v_is_tau(trained: tuple[float, ValueNetworks], pulls: list[TokenSequence], tokenizer: Tokenizer) -> None:
    tau, module = trained
    batch = collate(pulls[:2], pad=tokenizer.structural("pad"))
    hidden = hidden_states(module.online.trunk, batch.tokens)
    values = module.v_head(gather(hidden, batch.state_positions)).squeeze(-1)
    assert values[:, 0].tolist() == pytest.approx([tau, tau], abs=0.01)  # before the arm is chosen
    assert values[:, 1].tolist() == pytest.approx([0.0, 1.0], abs=0.01)  # and after


@torch.no_grad()
@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_the_good_arm_is_taken_with_probability_sigmoid_of_beta(
    trained: tuple[float, ValueNetworks],
    behaviour: nn.Module,
    pulls: list[TokenSequence],
    tokenizer: Tokenizer,
    beta: float,
) -> None:
    actor: Actor = token_values.actor(trained[1], behaviour)
    assert isinstance(actor.critic, QNetwork)
    state = torch.from_numpy(pulls[0].tokens[: pulls[0].action_positions[0] + 1])[None]
    logits = actor.language_model(state).logits[:, -1]
    q = actor.critic.minimum(actor.critic.trunk(state).last_hidden_state[:, -1])
    knobs = Knobs(
        torch.full((DRAWS,), beta), torch.ones(DRAWS), torch.zeros(DRAWS), torch.ones(DRAWS), torch.zeros(DRAWS).bool()
    )
    evenly = (torch.arange(DRAWS, dtype=torch.float64) + 0.5) / DRAWS
    writable = torch.from_numpy(tokenizer.writable())
    drawn, *_ = choose(logits.expand(DRAWS, -1), q.expand(DRAWS, -1), writable, knobs, evenly)
    (good,) = tokenizer.encode("b")
    share = (drawn == good).double().mean().item()
    assert share == pytest.approx(1 / (1 + math.exp(-beta)), abs=0.01)


class TestWorld:
    def test_half_of_the_recorded_pulls_are_of_each_arm(self, bandit: Bandit) -> None:
        arms = [(d.turns[1].text, d.total_reward) for d in bandit.dialogues("train", "standard")]
        assert arms == [("a", 0.0), ("b", 1.0)] * 8

    def test_an_arm_is_one_action_and_its_end_another(self, bandit: Bandit, tokenizer: Tokenizer) -> None:
        sequence = tokenize(bandit.dialogues("train", "standard")[1], tokenizer)
        assert sequence.rewards.tolist() == [0.0, 1.0]
        assert sequence.ended

    def test_arms_pay_and_anything_else_pays_nothing(self, bandit: Bandit) -> None:
        environments = [bandit.environment(seed, "tune") for seed in range(4)]
        replies = bandit.step(environments, ["a", " b ", "", "c"])
        assert replies == [
            Reply(None, {"standard": 0.0}, ended=True),
            Reply(None, {"standard": 1.0}, ended=True),
            Reply(None, {"standard": 0.0}, ended=True, understood=False),
            Reply(None, {"standard": 0.0}, ended=True, understood=False),
        ]

    def test_it_reads_no_data(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="a bandit reads no data, got somewhere"):
            KIND.build(Settings(), {"data": "somewhere"}, tmp_path)

    def test_its_settings_are_checked(self) -> None:
        with pytest.raises(ValueError, match="dialogues must be at least 1, got 0"):
            Settings(dialogues=0)
