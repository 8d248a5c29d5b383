"""Every loss against a second, plain computation: one dialogue at a time, one action at a time, in ordinary floats.

The plain side knows no batch, no mask and no padding. It reads the networks' numbers off for each dialogue alone, in
double precision, and then follows the formulas of the public implementation line by line. Where our files list a
difference from it, the plain side takes our side of it: means are over actions (or utterances); a recording that was
cut off bootstraps from its final state, in every method.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ilql import token_values
from ilql.batch import TokenBatch, TokenSequence, collate, dialogue_weights, tokenize
from ilql.dialogue import Dialogue, Turn
from ilql.language_model import hidden_states
from ilql.losses import expectile_loss, monte_carlo_returns, td_loss, td_target
from ilql.method import Method, Start
from ilql.methods import awr, cql, ilql, mc_returns, psi, sarsa, utterance_ilql
from ilql.networks import ValueNetworks
from ilql.tokens import Tokenizer

WORDS = ["is it red ?", "is it a cat ?", "how many are there ?", "yes", "no", "a", "two cats in the snow", ""]


def test_the_worked_check_of_the_public_implementation() -> None:
    values, after = torch.tensor([[0.5, -0.2]]), torch.tensor([[-0.2, 99.0]])
    rewards, terminal = torch.tensor([[-1.0, 0.0]]), torch.tensor([[False, True]])
    heads, target_q = [torch.tensor([[0.1, 0.3]]), torch.tensor([[0.0, 0.4]])], torch.tensor([[0.2, -0.5]])
    both = torch.ones(1, 2)
    goal = td_target(rewards, after, terminal, gamma=0.99)
    assert goal[0].tolist() == pytest.approx([-1.198, 0.0])
    assert td_loss(goal, heads, both).item() == pytest.approx(1.685004, abs=1e-6)
    assert expectile_loss(target_q, values, both, tau=0.7).item() == pytest.approx(0.027, abs=1e-7)
    assert monte_carlo_returns(rewards, both, gamma=0.99).tolist() == [[-1.0, 0.0]]


@dataclass(frozen=True)
class Seen:
    """What the formulas need of one dialogue; K actions, K + 1 states.

    Attributes:
        v: V of every state.
        q: For every head and action, Q of every token.
        target: For every state, Q̄ of every token: the smaller of the target heads.
        log_pi: For every action, the behaviour policy's log π of the token taken.
        log_pis: For every state, its log π of every token.
        taken: The tokens taken.
        rewards: Theirs.
        ended: Whether the world ended it.
        ends: Which actions ended an utterance.
    """

    v: list[float]
    q: list[list[list[float]]]
    target: list[list[float]]
    log_pi: list[float]
    log_pis: list[list[float]]
    taken: list[int]
    rewards: list[float]
    ended: bool
    ends: list[bool]

    @property
    def actions(self) -> range:
        return range(len(self.taken))

    def goes_on(self, k: int) -> bool:
        """Whether there is a state worth anything after action k."""
        return not (self.ended and k == len(self.taken) - 1)


@torch.no_grad()
def see(module: ValueNetworks, behaviour: nn.Module, s: TokenSequence) -> Seen:
    tokens = torch.from_numpy(s.tokens)[None]
    online = hidden_states(module.online.trunk, tokens)[0]
    frozen = hidden_states(module.target.trunk, tokens)[0]
    states, places = torch.from_numpy(s.state_positions), torch.from_numpy(s.action_positions)
    heads = [head(frozen[states]) for head in module.target.q_heads]
    taken = [int(s.tokens[p + 1]) for p in s.action_positions]
    log_pi = behaviour(tokens).logits[0].log_softmax(-1)
    return Seen(
        module.v_head(online[states]).squeeze(-1).tolist(),
        [head(online[places]).tolist() for head in module.online.q_heads],
        torch.stack(heads).amin(0).tolist() if heads[0].shape[-1] > 1 else [],
        [float(log_pi[p, u]) for p, u in zip(s.action_positions, taken, strict=True)],
        log_pi[states].tolist(),
        taken,
        s.rewards.tolist(),
        s.ended,
        s.ends.tolist(),
    )


def asymmetric(tau: float, target: float, prediction: float) -> float:
    delta = target - prediction
    return (tau if delta >= 0 else 1 - tau) * delta**2


def conservative(d: Seen, k: int, hp: Any) -> float:
    """Σ_i logsumexp_v(Q^i(v)/T) − Q^i(u)/T."""
    total = 0.0
    for head in d.q:
        scaled = [value / hp.cql_temperature for value in head[k]]
        total += math.log(math.fsum(math.exp(x) for x in scaled)) - scaled[d.taken[k]]
    return total


def margin(d: Seen, k: int, hp: Any) -> float:
    """Σ_i Σ_v max(0, Q^i(v) − Q^i(u) + margin)²."""
    return math.fsum(max(0.0, x - head[k][d.taken[k]] + hp.margin) ** 2 for head in d.q for x in head[k])


def squares(d: Seen, k: int, goal: float) -> float:
    return math.fsum((goal - head[k][d.taken[k]]) ** 2 for head in d.q)


def plain_ilql(d: Seen, k: int, hp: Any, tau: float) -> float:
    goal = d.rewards[k] + (hp.gamma * d.v[k + 1] if d.goes_on(k) else 0.0)
    return squares(d, k, goal) + asymmetric(tau, d.target[k][d.taken[k]], d.v[k])


def plain_mc(d: Seen, k: int, hp: Any) -> float:
    """ILQL's, with the return in the place of Q̄."""
    discounted = [hp.gamma ** (j - k) * d.rewards[j] for j in d.actions if j >= k]
    rest = 0.0 if d.ended else hp.gamma ** (len(d.taken) - k) * d.v[-1]  # our difference: there nothing follows a cut
    goal = d.rewards[k] + (hp.gamma * d.v[k + 1] if d.goes_on(k) else 0.0)
    return squares(d, k, goal) + asymmetric(hp.tau, math.fsum(discounted) + rest, d.v[k])


def plain_cql(d: Seen, k: int, hp: Any) -> float:
    goal = d.rewards[k] + (hp.gamma * max(d.target[k + 1]) if d.goes_on(k) else 0.0)
    return squares(d, k, goal) + asymmetric(0.5, d.target[k][d.taken[k]], d.v[k])


def plain_psi(d: Seen, k: int, hp: Any) -> float:
    """Ψ is the heads' value, and log π is added to it unless they begin at random."""
    added = hp.begin == "policy"
    nexts = [x + added * log_p for x, log_p in zip(d.target[k + 1], d.log_pis[k + 1], strict=True)]
    soft = math.log(math.fsum(math.exp(x) for x in nexts)) if d.goes_on(k) else 0.0
    goal = hp.gamma * soft + d.rewards[k] / hp.reward_scale + d.log_pi[k]
    errors = [abs(goal - head[k][d.taken[k]] - added * d.log_pi[k]) for head in d.q]
    return math.fsum(0.5 * e**2 if e <= 1 else e - 0.5 for e in errors)


def terms_of(name: str, d: Seen, hp: Any) -> list[float]:
    """The loss of every action of a dialogue."""
    bases: dict[str, Callable[[int], float]] = {
        "ilql": lambda k: plain_ilql(d, k, hp, hp.tau),
        "sarsa": lambda k: plain_ilql(d, k, hp, 0.5),
        "mc_returns": lambda k: plain_mc(d, k, hp),
        "cql": lambda k: plain_cql(d, k, hp),
        "psi": lambda k: plain_psi(d, k, hp),
    }
    extra = [hp.cql_weight * conservative(d, k, hp) + hp.margin_weight * margin(d, k, hp) for k in d.actions]
    return [bases[name](k) + extra[k] for k in d.actions]


def averaged(terms: Sequence[Sequence[float]], weighting: str) -> float:
    """The mean of all terms, or of the dialogues' means."""
    some = [t for t in terms if len(t)]
    if not some:
        return 0.0
    if weighting == "dialogue":
        return math.fsum(math.fsum(t) / len(t) for t in some) / len(some)
    return math.fsum(x for t in some for x in t) / sum(map(len, some))


def recordings(tokenizer: Tokenizer, seed: int) -> list[TokenSequence]:
    """Draw up to five dialogues: of any number of turns, ended or cut off anywhere, with one action or with none."""
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(int(draw.integers(1, 6))):
        turns = [
            Turn(
                WORDS[draw.integers(len(WORDS))], by_agent := bool(draw.random() < 0.5), by_agent * float(draw.normal())
            )
            for _ in range(int(draw.integers(0, 6)))
        ]
        whole = tokenize(Dialogue(tuple(turns), ended=bool(draw.random() < 0.6)), tokenizer)
        limit = int(draw.integers(1, len(whole.tokens) + 1)) if draw.random() < 0.4 else None
        found.append(tokenize(Dialogue(tuple(turns), ended=whole.ended), tokenizer, max_tokens=limit))
    return found


SEEDS = range(40)


@pytest.fixture(scope="module")
def behaviour(language_model: Callable[..., nn.Module]) -> nn.Module:
    return language_model(seed=2, spread=3.0).double()


def in_general(module: nn.Module) -> nn.Module:
    """Give the module in double precision with weights of which no two agree, and values of a size like rewards'."""
    draw = torch.Generator().manual_seed(5)
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw, dtype=torch.float64))
    return module


SETTINGS: dict[str, tuple[Method, Any]] = {
    "ilql": (ilql.METHOD, ilql.Train(tau=0.8, gamma=0.9, cql_weight=0.3, cql_temperature=2.0)),
    "ilql with a margin": (ilql.METHOD, ilql.Train(tau=0.6, cql_weight=0.0, margin_weight=0.7, margin=0.2)),
    "ilql with one head": (ilql.METHOD, ilql.Train(tau=0.7, double_q=False)),
    "sarsa": (sarsa.METHOD, sarsa.Train(gamma=0.8, cql_weight=0.1)),
    "mc_returns": (mc_returns.METHOD, mc_returns.Train(tau=0.7, gamma=0.9, cql_weight=0.1)),
    "cql": (cql.METHOD, cql.Train(gamma=0.9, cql_weight=0.5)),
    "psi": (psi.METHOD, psi.Train(gamma=0.9, reward_scale=0.5)),
    "psi with heads at random": (psi.METHOD, psi.Train(gamma=0.9, reward_scale=0.5, begin="random")),
}


def batches(tokenizer: Tokenizer) -> Iterator[tuple[list[TokenSequence], str]]:
    """Give batches, and how each one's mean weighs: both ways in turn."""
    for seed in SEEDS:
        yield recordings(tokenizer, seed), ("dialogue", "token")[seed % 2]


def weights_for(method: Method, batch: TokenBatch, weighting: str) -> Tensor:
    counts = method.counts(batch)
    return dialogue_weights(counts) if weighting == "dialogue" else counts.float()


def test_the_drawn_recordings_hold_every_edge(tokenizer: Tokenizer) -> None:
    drawn = [s for batch, _ in batches(tokenizer) for s in batch]
    counts = [len(s.action_positions) for s in drawn]
    assert counts.count(0) >= 5
    assert counts.count(1) >= 5
    assert any(s.ended and k for s, k in zip(drawn, counts, strict=True))
    assert any(not s.ended and k and s.ends[-1] for s, k in zip(drawn, counts, strict=True))
    assert any(not s.ended and k and not s.ends[-1] for s, k in zip(drawn, counts, strict=True))  # within an utterance
    sizes = [[len(s.action_positions) for s in batch] for batch, _ in batches(tokenizer)]
    assert any(max(size) == 0 for size in sizes)
    assert any(min(size) < max(size) for size in sizes)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_token_methods_loss_is_that_of_the_formulas(name: str, tokenizer: Tokenizer, behaviour: nn.Module) -> None:
    method, hp = SETTINGS[name]
    module = in_general(method.build(Start(behaviour, behaviour, seed=3), hp))
    assert isinstance(module, ValueNetworks)
    for sequences, weighting in batches(tokenizer):
        batch = collate(sequences, pad=tokenizer.structural("pad"))
        ours = method.loss(module, batch, weights_for(method, batch, weighting), hp).total.item()
        seen = [see(module, behaviour, s) for s in sequences]
        theirs = averaged([terms_of(method.name, d, hp) for d in seen], weighting)
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-12)


def test_utterance_ilqls_loss_is_that_of_the_formulas(tokenizer: Tokenizer, behaviour: nn.Module) -> None:
    hp = utterance_ilql.Train(tau=0.8, gamma=0.9)
    module = in_general(utterance_ilql.build(Start(behaviour, behaviour, seed=3), hp))
    assert isinstance(module, ValueNetworks)
    end = tokenizer.structural("eoa")

    @torch.no_grad()
    def terms(s: TokenSequence) -> list[float]:
        tokens = torch.from_numpy(s.tokens)[None]
        online = hidden_states(module.online.trunk, tokens)[0]
        frozen = hidden_states(module.target.trunk, tokens)[0]
        # Q is read where the agent has ended; an end whose next state was cut away is no action.
        at = [p for p, token in enumerate(s.tokens.tolist()) if token == end and p - 1 in s.action_positions]
        found, opening = [], 0
        for number, p in enumerate(at):
            k = s.action_positions.tolist().index(p - 1)  # the choice of that end
            last = number == len(at) - 1 and k == len(s.action_positions) - 1
            after = 0.0 if last and s.ended else hp.gamma * module.v_head(online[s.state_positions[k + 1]]).item()
            v = module.v_head(online[s.state_positions[opening]]).item()
            q_target = min(head(frozen[p]).item() for head in module.target.q_heads)
            goal = float(s.rewards[k]) + after
            errors = math.fsum((goal - head(online[p]).item()) ** 2 for head in module.online.q_heads)
            found.append(errors + asymmetric(hp.tau, q_target, v))
            opening = k + 1
        return found

    for sequences, weighting in batches(tokenizer):
        batch = collate(sequences, pad=tokenizer.structural("pad"))
        weights = weights_for(utterance_ilql.METHOD, batch, weighting)
        ours = utterance_ilql.loss(module, batch, weights, hp).total.item()
        assert ours == pytest.approx(averaged([terms(s) for s in sequences], weighting), rel=1e-5, abs=1e-12)


def test_awrs_loss_is_that_of_the_formulas(tokenizer: Tokenizer, behaviour: nn.Module) -> None:
    hp = awr.Train(tau=0.8, awr_beta=1.5, awr_clip=1.2)
    start = Start(behaviour, behaviour, seed=3)
    critic = in_general(token_values.build(start, awr.critic(hp)[1]))
    assert isinstance(critic, ValueNetworks)
    module = awr.build(Start(behaviour, behaviour, seed=3, critic=critic), hp)
    assert isinstance(module, awr.Extraction)
    in_general(module)

    def terms(d: Seen, log_p: Sequence[float]) -> list[float]:
        weights = [math.exp(hp.awr_beta * (d.target[k][d.taken[k]] - d.v[k])) for k in d.actions]
        # Our differences: the critic is finished, and the mean is over actions alone.
        return [min(w, hp.awr_clip) * -log_p[k] for k, w in enumerate(weights)]

    clipped = 0.0
    for sequences, weighting in batches(tokenizer):
        batch = collate(sequences, pad=tokenizer.structural("pad"))
        loss = awr.loss(module, batch, weights_for(awr.METHOD, batch, weighting), hp)
        seen = [see(critic, module.policy, s) for s in sequences]
        theirs = averaged([terms(d, d.log_pi) for d in seen], weighting)
        assert loss.total.item() == pytest.approx(theirs, rel=1e-5, abs=1e-12)
        clipped += loss.parts["clipped_share"].item()
    assert 0 < clipped < len(SEEDS)
