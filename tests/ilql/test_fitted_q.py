"""Fitted-Q evaluation gives what arithmetic gives: on one pull, and on two pulls that pay if they match."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ilql import fitted_q
from ilql.batch import TokenBatch, TokenSequence, tokenize
from ilql.dialogue import Dialogue, Turn
from ilql.fitted_q import Acting, Fit, FittedQ, fit, rewards_to_go
from ilql.language_model import trunk_of
from ilql.method import Actor, Decoding, Manner, Start
from ilql.methods import bc
from ilql.tokens import Tokenizer
from ilql.train import Loop, train
from ilql.windows import cut

CPU = torch.device("cpu")
SAMPLING = Decoding(greedy=False)
FIT = Fit(steps=800, batch_size=8, learning_rate=3e-3, polyak=0.2, members=2)


class LikesB(nn.Module):
    """A critic made by hand: Q of `b` is 1 in every state, and 0 of everything else."""

    def __init__(self, trunk: nn.Module, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.trunk = trunk
        self._q = torch.zeros(tokenizer.size)
        self._q[tokenizer.encode("b")] = 1.0

    def minimum(self, hidden: Tensor) -> Tensor:
        return self._q.expand(*hidden.shape[:-1], -1)


def matching(first: str, second: str) -> Dialogue:
    """Two pulls that pay 1 if they are the same."""
    turns = (
        Turn("pull", by_agent=False),
        Turn(first, by_agent=True),
        Turn("pull", by_agent=False),
        Turn(second, by_agent=True, reward=float(first == second)),
    )
    return Dialogue(turns, ended=True)


@pytest.fixture(scope="module")
def twice(tokenizer: Tokenizer) -> list[TokenSequence]:
    return [tokenize(matching(first, second), tokenizer) for first in "ab" for second in "ab"]


def cloned(start: nn.Module, sequences: list[TokenSequence], tokenizer: Tokenizer) -> nn.Module:
    """A language model that says `a` and `b` equally often, as the data does."""
    settings = bc.Train(steps=200, batch_size=16, learning_rate=1e-2)
    module = bc.build(Start(start, None, seed=0), settings)
    pad = tokenizer.structural("pad")
    for _ in train(bc.METHOD, module, sequences, settings, pad=pad, seed=0, loop=Loop(log_every=1000)):
        pass
    return module.eval()


@pytest.fixture(scope="module")
def policy(
    language_model: Callable[..., nn.Module], pulls: list[TokenSequence], twice: list[TokenSequence],
    tokenizer: Tokenizer,
) -> nn.Module:  # fmt: skip
    return cloned(language_model(), [*pulls[:4], *twice] * 2, tokenizer)


def acting(policy: nn.Module, tokenizer: Tokenizer, beta: float, decode: Decoding = SAMPLING) -> Acting:
    return Acting(Actor(policy, LikesB(trunk_of(policy), tokenizer)), decode, Manner(beta=beta), tokenizer)


def opening_value(who: Acting, fitted: FittedQ, tokenizer: Tokenizer) -> float:
    opening = tokenize(Dialogue((Turn("pull", by_agent=False),), ended=False), tokenizer)
    return float(fitted.values(who, [opening], CPU).mean())


@pytest.mark.parametrize(
    "beta", [pytest.param(0.0, marks=pytest.mark.long), 1.0, pytest.param(3.0, marks=pytest.mark.long)]
)
def test_a_pull_is_worth_sigmoid_of_beta(
    policy: nn.Module, pulls: list[TokenSequence], tokenizer: Tokenizer, beta: float
) -> None:
    who = acting(policy, tokenizer, beta)
    value = opening_value(who, fit(who, pulls, FIT, CPU), tokenizer)
    assert value == pytest.approx(1 / (1 + math.exp(-beta)), abs=0.04)


def test_a_greedy_policy_is_worth_its_own_arm(
    policy: nn.Module, pulls: list[TokenSequence], tokenizer: Tokenizer
) -> None:
    who = acting(policy, tokenizer, 3.0, Decoding(greedy=True))
    assert opening_value(who, fit(who, pulls, FIT, CPU), tokenizer) == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("beta", [pytest.param(0.0, marks=pytest.mark.long), 1.0])
def test_two_pulls_that_pay_if_they_match_are_worth_p_squared_plus_q_squared(
    policy: nn.Module, twice: list[TokenSequence], tokenizer: Tokenizer, beta: float
) -> None:
    # b is taken with p = sigmoid(β) each time: 1/2 · 1/2 twice is 1/2; .731² + .269² is .607
    p = 1 / (1 + math.exp(-beta))
    who = acting(policy, tokenizer, beta)
    value = opening_value(who, fit(who, twice * 8, FIT, CPU), tokenizer)  # 8 of each: no head misses one
    assert value == pytest.approx(p**2 + (1 - p) ** 2, abs=0.04)


def test_what_is_paid_in_a_later_window_is_worth_as_much_in_the_first(
    policy: nn.Module, twice: list[TokenSequence], tokenizer: Tokenizer
) -> None:
    # One token short of a dialogue, so that the second pull, and the pay, stand in a window of their own.
    length = len(twice[0].tokens) - 1
    parts = [cut(matching(*pair), tokenizer, max_tokens=length).sequences for pair in itertools.product("ab", repeat=2)]
    assert [[float(window.rewards.sum()) for window in windows] for windows in parts] == [
        [0, 1],
        [0, 0],
        [0, 0],
        [0, 1],
    ]
    who = acting(policy, tokenizer, 1.0)
    value = opening_value(who, fit(who, [window for windows in parts for window in windows] * 8, FIT, CPU), tokenizer)
    p = 1 / (1 + math.exp(-1))
    assert value == pytest.approx(p**2 + (1 - p) ** 2, abs=0.04)


def test_a_dialogue_is_fitted_alike_in_all_its_windows_and_counts_once(
    policy: nn.Module, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    length = len(tokenize(matching("a", "b"), tokenizer).tokens) - 1
    windows = [w for pair in ("ab", "bb", "ba") for w in cut(matching(*pair), tokenizer, max_tokens=length).sequences]
    seen: list[Tensor] = []
    real = fitted_q._squared_errors

    def watched(who: Acting, made: FittedQ, target: FittedQ, batch: TokenBatch, luck: Tensor) -> Tensor:
        seen.append(torch.cat([batch.returns[None], batch.later[None], luck]))
        return real(who, made, target, batch, luck)

    monkeypatch.setattr(fitted_q, "_squared_errors", watched)
    fit(acting(policy, tokenizer, 0.0), windows, Fit(steps=1, batch_size=16, members=8, dialogues=2), CPU)
    drawn = torch.cat(seen, dim=1)
    assert drawn.shape[1] == 4  # the windows of the first two
    for total in (0.0, 1.0):  # of "ab" and of "bb"
        one, other = drawn[2:, drawn[0] == total].T
        assert torch.equal(one, other)


def test_equal_seeds_fit_equally_and_members_differ(
    policy: nn.Module, pulls: list[TokenSequence], tokenizer: Tokenizer
) -> None:
    who, short = acting(policy, tokenizer, 1.0), Fit(steps=5, batch_size=8, members=2)
    one, two = (fit(who, pulls, short, CPU).values(who, pulls[:3], CPU) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one[0], one[1])
    assert one.shape == (2, 3)


def test_before_a_step_every_state_is_worth_the_mean_of_what_followed(
    policy: nn.Module, pulls: list[TokenSequence], tokenizer: Tokenizer
) -> None:
    who = acting(policy, tokenizer, 0.0)
    fitted = fit(who, pulls, Fit(steps=1, learning_rate=1e-9, batch_size=1, members=1), CPU)
    # of 8 pulls of b, both the arm and its end are followed by 1; of 8 of a, by 0
    assert fitted.values(who, pulls[:2], CPU).tolist() == [[pytest.approx(0.5, abs=1e-3)] * 2]


def test_what_followed_in_later_windows_counts_before_a_step(
    policy: nn.Module, twice: list[TokenSequence], tokenizer: Tokenizer
) -> None:
    who, barely = acting(policy, tokenizer, 0.0), Fit(steps=1, learning_rate=1e-9, batch_size=1, members=1)
    length = len(twice[0].tokens) - 1
    windows = [w for pair in ("aa", "ab") for w in cut(matching(*pair), tokenizer, max_tokens=length).sequences]
    # Of the actions of "aa" and its ends all are followed by 1, of as many of "ab" none is.
    assert fit(who, windows, barely, CPU).values(who, twice[:1], CPU).tolist() == [[pytest.approx(0.5, abs=1e-3)]]


def test_rewards_to_go_are_sums_from_each_action_on(twice: list[TokenSequence]) -> None:
    same, other = rewards_to_go(twice[0].rewards), rewards_to_go(twice[1].rewards)
    assert same.tolist() == [1.0] * len(same)
    assert other.tolist() == [0.0] * len(other)


def test_a_policy_that_ranks_utterances_is_refused(policy: nn.Module, tokenizer: Tokenizer) -> None:
    class Judge(nn.Module):
        trunk = None

        def score(self, last: Tensor, mean: Tensor) -> Tensor:
            return last.sum(-1)

    with pytest.raises(ValueError, match="needs a policy whose tokens have probabilities, got one that ranks whole"):
        Acting(Actor(policy, judge=Judge()), SAMPLING, Manner(candidates=2), tokenizer)
    with pytest.raises(ValueError, match="got one that is asked for a return"):
        Acting(Actor(policy, condition=lambda returns: returns[..., None]), SAMPLING, Manner(), tokenizer)


def test_dialogues_without_an_agent_are_refused(policy: nn.Module, tokenizer: Tokenizer) -> None:
    silent = tokenize(Dialogue((Turn("pull", by_agent=False),), ended=True), tokenizer)
    with pytest.raises(ValueError, match="needs dialogues in which the agent speaks, got none"):
        fit(acting(policy, tokenizer, 0.0), [silent], FIT, CPU)
