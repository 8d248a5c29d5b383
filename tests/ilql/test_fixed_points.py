"""Where every method's training comes to rest, worked by hand: real losses and loop, values in tables.

A table stands in for the transformer: the hidden state at a position is a one-hot vector of all that was said up to
there, and every head is one row of numbers for each. So nothing generalises, and what a method says a value is, it is.

Two worlds. The bandit: `a` pays 0, `b` pays 1, recorded equally often. Two steps: `b` ends it and pays 2; `a` leads to
a second choice, where `a` pays 0 and `b` pays 16; recorded are b, b, a-a and a-b. An utterance is two actions, its
letter and its end, and γ = ½ is taken once for each:

    Q(b) = ½ · 2 = 1        Q(a-a) = ½ · 0 = 0        Q(a-b) = ½ · 16 = 8        Q(a) = ½ · ½ · V(after a)
"""

from __future__ import annotations

import copy
import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ilql.batch import TokenSequence, collate, tokenize
from ilql.candidates import Candidates
from ilql.dialogue import Dialogue, Turn
from ilql.language_model import gather, hidden_states
from ilql.method import Method, Start
from ilql.methods import awr, bc, chai, cql, ilql, mc_returns, psi, qsft, sarsa, utterance_ilql
from ilql.networks import ValueNetworks
from ilql.tokens import Tokenizer
from ilql.train import Loop, train

STATES = 24
PULL = Turn("pull", by_agent=False)
NO = Turn("no", by_agent=False)


class Prefixes(nn.Module):
    """A trunk without weights of its own: one-hot vectors of what was said so far."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, STATES)
        with torch.no_grad():
            self.embedding.weight[:, 0] = torch.arange(vocabulary)  # an embedding says which token it is of
        self.known: dict[tuple[int, ...], int] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Prefixes:
        return self  # all copies count prefixes together

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def state(self, prefix: tuple[int, ...]) -> int:
        return self.known.setdefault(prefix, len(self.known))

    def forward(self, inputs_embeds: Tensor, **_: object) -> SimpleNamespace:
        ids = inputs_embeds[..., 0].round().long().tolist()
        states = [[self.state((*row[: t + 1],)) for t in range(len(row))] for row in ids]
        return SimpleNamespace(last_hidden_state=nn.functional.one_hot(torch.tensor(states), STATES).float())


class Table(nn.Module):
    """A language model whose logits are a table, one row for each state."""

    def __init__(self, trunk: Prefixes, vocabulary: int) -> None:
        super().__init__()
        self.base_model, self.rows = trunk, table(vocabulary)

    def get_output_embeddings(self) -> nn.Module:
        return self.rows


def table(outputs: int, *, fill: float = 0.0) -> nn.Sequential:
    """Give a head that is one number for each state and output, `fill` to begin with."""
    last = nn.Linear(STATES, outputs)
    nn.init.constant_(last.weight, fill)
    nn.init.zeros_(last.bias)
    last.bias.requires_grad_(False)  # it would be shared between states
    return nn.Sequential(nn.Identity(), last)


class World:
    """Recorded dialogues as tokens, tables that know their prefixes, and the behaviour policy's true logits.

    The first `cut` of the dialogues did not end but were cut off.
    """

    def __init__(self, dialogues: list[tuple[Turn, ...]], tokenizer: Tokenizer, *, cut: int = 0) -> None:
        self.tokenizer, self.pad = tokenizer, tokenizer.structural("pad")
        self.sequences = [
            dataclasses.replace(tokenize(Dialogue(turns, ended=n >= cut), tokenizer), number=n)
            for n, turns in enumerate(dialogues)
        ]
        self.trunk = Prefixes(tokenizer.size)
        batch = collate(self.sequences, pad=self.pad)
        hidden_states(self.trunk, batch.tokens)  # numbers every prefix
        self.behaviour = self.language_model(fill=-30.0)
        counts: dict[tuple[int, int], int] = {}
        for s in self.sequences:
            for p in s.action_positions.tolist():
                place = self.trunk.state((*s.tokens[: p + 1].tolist(),)), int(s.tokens[p + 1])
                counts[place] = counts.get(place, 0) + 1
        with torch.no_grad():
            for (state, token), count in counts.items():
                self.behaviour.rows[-1].weight[token, state] = math.log(count)  # type: ignore[union-attr,operator,index]

    def language_model(self, *, fill: float = 0.0) -> Table:
        model = Table(self.trunk, self.tokenizer.size)
        nn.init.constant_(model.rows[-1].weight, fill)  # type: ignore[arg-type]
        return model

    def start(self, **other: Any) -> Start:
        return Start(self.language_model(), self.behaviour, seed=0, **other)

    def state(self, *said: str) -> int:
        """Give the number of the state in which so much was said; every second utterance is the world's."""
        words: list[int] = [self.tokenizer.structural("bos")]
        for number, text in enumerate(("pull", *said)):
            letter = text.removesuffix("|")
            words += self.tokenizer.encode(letter)
            if letter == text:
                words.append(self.tokenizer.structural("eoa" if number % 2 else "eos"))
        assert (*words,) in self.trunk.known
        return self.trunk.known[(*words,)]

    def one_hot(self, state: int) -> Tensor:
        return nn.functional.one_hot(torch.tensor(state), STATES).float()

    def letter(self, text: str) -> int:
        (token,) = self.tokenizer.encode(text)
        return token

    def learn(self, method: Method, module: nn.Module, settings: Any, *rates: float, steps: int = 100) -> None:
        for rate in rates:
            exact = dataclasses.replace(
                settings, steps=steps, learning_rate=rate, batch_size=len(self.sequences), weighting="token"
            )
            for _ in train(method, module, self.sequences, exact, pad=self.pad, seed=0, loop=Loop(log_every=1000)):
                pass

    def values(self, method: Method, settings: Any, *, outputs: int = 0, fill: float = 0.0) -> ValueNetworks:
        """Train a value method with tables for heads until it rests."""
        module = method.build(self.start(), settings)
        assert isinstance(module, ValueNetworks)
        outputs = outputs or self.tokenizer.size
        module.online.q_heads = nn.ModuleList([table(outputs, fill=fill) for _ in module.online.q_heads])
        module.target.q_heads = copy.deepcopy(module.online.q_heads).requires_grad_(False)
        module.v_head = table(1).requires_grad_(module.v_head[-1].weight.requires_grad)
        module.v_head[-1].bias.requires_grad_(False)
        self.learn(method, module, settings, 0.3, 0.03, 0.003)
        return module

    @torch.no_grad()
    def q(self, module: ValueNetworks, state: int, text: str) -> float:
        return module.target.minimum(self.one_hot(state))[self.letter(text)].item()

    @torch.no_grad()
    def v(self, module: ValueNetworks, state: int) -> float:
        value: Tensor = module.v_head(self.one_hot(state))
        return value.item()


def agent(text: str, reward: float = 0.0) -> Turn:
    return Turn(text, by_agent=True, reward=reward)


@pytest.fixture
def bandit(tokenizer: Tokenizer) -> World:
    return World([(PULL, agent("a", 0.0)), (PULL, agent("b", 1.0))], tokenizer)


@pytest.fixture
def two_steps(tokenizer: Tokenizer) -> World:
    short = (PULL, agent("b", 2.0))
    return World(
        [short, short, *((PULL, agent("a"), NO, agent(t, r)) for t, r in (("a", 0.0), ("b", 16.0)))], tokenizer
    )


HALF: dict[str, Any] = {"gamma": 0.5, "cql_weight": 0.0, "polyak": 0.5}


def assert_first_choice(world: World, module: ValueNetworks, *, a: float, b: float) -> None:
    first = world.state()
    assert world.q(module, first, "a") == pytest.approx(a, abs=0.02)
    assert world.q(module, first, "b") == pytest.approx(b, abs=0.02)


def test_ilqls_value_is_the_expectile_of_the_next_q(two_steps: World) -> None:
    module = two_steps.values(ilql.METHOD, ilql.Train(**HALF, tau=0.75))
    second = two_steps.state("a", "no")
    # Of 0 and 8: tau (8 - V) = (1 - tau) V, so V = 8 tau = 6. Then Q(a) = 6/4, and of 1.5 and 1 it is 1 + .75 * .5.
    assert two_steps.v(module, second) == pytest.approx(6.0, abs=0.02)
    assert_first_choice(two_steps, module, a=1.5, b=1.0)
    assert two_steps.v(module, two_steps.state()) == pytest.approx(1.375, abs=0.02)


def test_sarsas_value_is_the_mean_of_the_next_q(two_steps: World) -> None:
    module = two_steps.values(sarsa.METHOD, sarsa.Train(**HALF))
    # (0 + 8) / 2 = 4, so Q(a) = 1, just as good as b.
    assert two_steps.v(module, two_steps.state("a", "no")) == pytest.approx(4.0, abs=0.02)
    assert_first_choice(two_steps, module, a=1.0, b=1.0)


@pytest.mark.parametrize(("tau", "first"), [(0.5, 1.0), (0.8, 2.0 / 1.4)])
def test_mc_returns_value_is_the_expectile_of_the_return(two_steps: World, tau: float, first: float) -> None:
    module = two_steps.values(mc_returns.METHOD, mc_returns.Train(**HALF, tau=tau))
    # Returns from the second choice are 0 and 8, so V = 8 tau there and Q(a) = 2 tau, as ILQL's.
    assert two_steps.v(module, two_steps.state("a", "no")) == pytest.approx(8 * tau, abs=0.02)
    assert_first_choice(two_steps, module, a=2 * tau, b=1.0)
    # But at the first choice returns are 1, 1, 0 and 8/4 = 2: 1 in the mean, and at tau = .8 the V between 1 and 2 with
    # .8 (2 - V) = .2 V + 2 · .2 (V - 1), so 1.4 V = 2. ILQL would find 1 + .8 (1.6 - 1) = 1.48.
    assert two_steps.v(module, two_steps.state()) == pytest.approx(first, abs=0.02)


def test_cql_without_its_weight_is_the_max_backup(two_steps: World) -> None:
    module = two_steps.values(cql.METHOD, cql.Train(**HALF))
    # Tokens that are never said stay at 0, below the best. max(0, 8) = 8, so Q(a) = 8/4. V is the mean of Q and no part
    # of it: (1 + 1 + 2 + 2) / 4.
    assert_first_choice(two_steps, module, a=2.0, b=1.0)
    assert two_steps.v(module, two_steps.state("a", "no")) == pytest.approx(4.0, abs=0.02)
    assert two_steps.v(module, two_steps.state()) == pytest.approx(1.5, abs=0.02)


def test_cqls_term_lowers_what_was_not_said_below_what_was(bandit: World) -> None:
    settings = cql.Train(**{**HALF, "gamma": 1.0, "cql_weight": 0.1})
    module = bandit.values(cql.METHOD, settings)
    first = bandit.state()
    # Both letters are said equally often, and both pull on softmax(Q) = ½: nothing else keeps any weight.
    assert bandit.q(module, first, "b") > bandit.q(module, first, "a") > 2 + bandit.q(module, first, "pull")


# With `begin="random"` the heads are Ψ, and tokens unheard keep a share in every soft value: -20 leaves them none.
BEGINNINGS = pytest.mark.parametrize(("begin", "fill"), [("policy", 0.0), ("random", -20.0)])


def psi_of(world: World, module: ValueNetworks, state: int, text: str) -> float:
    """Give Ψ̄ of a letter: the heads' value, and log π_β if they add to that."""
    with torch.no_grad():
        log_pi = world.behaviour.rows(world.one_hot(state)).log_softmax(-1)[world.letter(text)].item()
    return world.q(module, state, text) + (log_pi if module.relative else 0.0)


@BEGINNINGS
def test_psis_value_is_the_soft_one(bandit: World, begin: str, fill: float) -> None:
    module = bandit.values(psi.METHOD, psi.Train(gamma=1.0, polyak=0.5, begin=begin), fill=fill)
    first = bandit.state()
    # The end has log π = 0, so Ψ(end | a) = 0 and Ψ(end | b) = 1, each its state's soft value. The letters have log ½:
    # Ψ(a) = log ½ and Ψ(b) = log ½ + 1, with the soft value log ½(1 + e).
    assert psi_of(bandit, module, first, "a") == pytest.approx(-math.log(2), abs=0.01)
    assert psi_of(bandit, module, first, "b") == pytest.approx(1 - math.log(2), abs=0.01)
    advantages = psi.action_values(module, collate(bandit.sequences, pad=bandit.pad)).advantage
    assert advantages[1, 0].item() == pytest.approx(-math.log(1 + math.exp(-1)), abs=0.01)  # log sigmoid(1)


@BEGINNINGS
def test_psis_reward_scale_divides_the_reward(bandit: World, begin: str, fill: float) -> None:
    settings = psi.Train(gamma=1.0, polyak=0.5, reward_scale=4.0, begin=begin)
    module = bandit.values(psi.METHOD, settings, fill=fill)
    first = bandit.state()
    assert bandit.q(module, first, "b") - bandit.q(module, first, "a") == pytest.approx(0.25, abs=0.01)


@BEGINNINGS
def test_psis_soft_values_go_two_steps_back(two_steps: World, begin: str, fill: float) -> None:
    settings = psi.Train(gamma=0.5, polyak=0.5, reward_scale=4.0, begin=begin)
    module = two_steps.values(psi.METHOD, settings, fill=fill)
    # Rewards are 2/4 and 16/4. Second choice: Ψ(a) = log ½ + 0 and Ψ(b) = log ½ + ½ · 4; its soft value
    # log ½(1 + e²). First choice: Ψ(a) = log ½ + ½ · ½ · that, and Ψ(b) = log ½ + ½ · ½.
    soft = math.log((1 + math.exp(2)) / 2)
    first = two_steps.state()
    assert psi_of(two_steps, module, first, "a") == pytest.approx(soft / 4 - math.log(2), abs=0.02)
    assert psi_of(two_steps, module, first, "b") == pytest.approx(0.25 - math.log(2), abs=0.02)


def test_psi_that_begins_at_random_is_worth_the_log_of_the_vocabulary_too_much(bandit: World) -> None:
    module = bandit.values(psi.METHOD, psi.Train(gamma=1.0, polyak=0.5, begin="random"), fill=0.0)
    # Before the end the V - 1 tokens unheard stay at 0: the soft value is log(V - 1 + e^r), not r. At the choice V - 2
    # tokens are unheard, and Ψ(a) = log ½ + log(V - 1 + 1).
    assert bandit.q(module, bandit.state(), "a") == pytest.approx(math.log(bandit.tokenizer.size / 2), abs=0.01)


@pytest.mark.parametrize(("clip", "odds"), [(100.0, math.exp(2.0)), (1.0, math.exp(2.0 * 0.7))])
def test_awrs_policy_is_the_behaviour_weighed_by_the_advantage(bandit: World, clip: float, odds: float) -> None:
    exact = ilql.Train(**{**HALF, "gamma": 1.0}, tau=0.7)
    critic = bandit.values(ilql.METHOD, exact)
    settings = awr.Train(**{**HALF, "gamma": 1.0}, tau=0.7, awr_beta=2.0, awr_clip=clip)
    module = awr.build(bandit.start(critic=critic), settings)
    bandit.learn(awr.METHOD, module, settings, 0.3, 0.03, steps=100)
    # V = .7: weights exp(2 · .3) and exp(-2 · .7), the first clipped at 1. Shares are as weights: odds e², or e^1.4.
    assert isinstance(module, awr.Extraction)
    logits = module.policy.get_output_embeddings()(bandit.one_hot(bandit.state()))  # type: ignore[operator]
    assert (logits[bandit.letter("b")] - logits[bandit.letter("a")]).item() == pytest.approx(math.log(odds), abs=0.03)


def test_qsfts_probabilities_are_the_behaviour_policys_times_q(tokenizer: Tokenizer) -> None:
    # R = 4, and what pays -1, -3 and 0 has the value ¾, ¼ and 1 on a scale of [0, 1].
    world = World([(PULL, agent("a", -1.0)), (PULL, agent("b", -3.0)), (PULL, agent("c", 0.0))], tokenizer)
    settings = qsft.Train(gamma=1.0, return_range=4.0, polyak=0.5)
    module = qsft.build(world.start(), settings)
    assert isinstance(module, qsft.FineTuned)
    world.learn(qsft.METHOD, module, settings, 0.3, 0.1, 0.03, steps=300)
    p = module.target.minimum(world.one_hot(world.state()))
    # p(v) = π(v) Q(v) + Σ_{u ≠ v} π(u) (1 - Q(u)) / (V - 1): what a token lacks goes to the V - 1 others.
    spread = 1 / (3 * (tokenizer.size - 1))
    for text, own, others_lack in (("a", 0.75, 0.75), ("b", 0.25, 0.25), ("c", 1.0, 1.0)):
        assert p[world.letter(text)].item() == pytest.approx(own / 3 + others_lack * spread, abs=0.002), text


def test_qsfts_value_goes_two_steps_back_over_the_best_token(tokenizer: Tokenizer) -> None:
    dialogues = [
        (PULL, agent("b", -4.0)),
        *((PULL, agent("a"), NO, agent(t, r)) for t, r in (("a", -8.0), ("b", -2.0))),
    ]
    world = World([dialogues[0], dialogues[0], *dialogues[1:]], tokenizer)
    settings = qsft.Train(gamma=1.0, return_range=8.0, polyak=0.5)
    module = qsft.build(world.start(), settings)
    assert isinstance(module, qsft.FineTuned)
    world.learn(qsft.METHOD, module, settings, 0.3, 0.1, 0.03, 0.003, steps=300)
    p = module.target.minimum(world.one_hot(world.state()))
    # Returns -4 after b and at best -2 after a are ½ and ¾ on the scale; π is ½ each. What the letters lack, ½ · ½ and
    # ½ · ¼, is spread over the others; and a gain at one step adds less than 1/V to a ratio at the step before.
    small = 2 / tokenizer.size
    assert p[world.letter("b")].item() == pytest.approx(0.5 * 0.5, abs=small)
    assert p[world.letter("a")].item() == pytest.approx(0.5 * 0.75, abs=small)


def utterance_values(world: World, **settings: Any) -> tuple[float, float, ValueNetworks]:
    """Give Q of saying `a` and `b` first, at their ends."""
    module = world.values(utterance_ilql.METHOD, utterance_ilql.Train(polyak=0.5, **settings), outputs=1)
    with torch.no_grad():
        a, b = (module.target.minimum(world.one_hot(world.state(text))).item() for text in "ab")
    return a, b, module


def test_utterance_ilql_discounts_by_utterance(two_steps: World) -> None:
    a, b, module = utterance_values(two_steps, gamma=0.5, tau=0.75)
    # Q is read at an utterance's end: 2 for b; 0 and 16 at the second choice, with V = 16 tau = 12; Q(a) = ½ · 12.
    assert two_steps.v(module, two_steps.state("a", "no")) == pytest.approx(12.0, abs=0.03)
    assert (a, b) == (pytest.approx(6.0, abs=0.03), pytest.approx(2.0, abs=0.03))
    assert two_steps.v(module, two_steps.state()) == pytest.approx(2 + 0.75 * 4, abs=0.03)


def test_a_recording_that_was_cut_off_bootstraps_from_its_final_state(tokenizer: Tokenizer) -> None:
    # `a` was cut off before the second choice was heard of, in one recording of two; its value is known from the other.
    turns = (PULL, agent("a", 1.0), NO)
    world = World([turns, (*turns, agent("b", 16.0))], tokenizer, cut=1)
    first = world.state()
    for method, settings in (
        (ilql.METHOD, ilql.Train(**HALF)),
        (mc_returns.METHOD, mc_returns.Train(**HALF)),
        (cql.METHOD, cql.Train(**HALF)),
    ):
        module = world.values(method, settings)
        # After both, V = ½ · 16 = 8: Q(a's end) = 1 + ½ · 8 = 5, and Q(a) = 2.5; were it 0, Q(a) would be 1.5.
        assert world.q(module, first, "a") == pytest.approx(2.5, abs=0.03), method.name


def features(sequences: list[TokenSequence], rows: list[int], draws: list[list[int]], width: int) -> Candidates:
    one_hot = np.eye(width, dtype=np.float32)
    counts = [int(s.ends.sum()) for s in sequences]
    drawn = np.asarray(draws)
    first = np.concatenate([[0], np.cumsum(counts)])
    return Candidates(one_hot[rows], one_hot[drawn], np.full(drawn.shape, -math.log(2), np.float32), first)


def test_chais_value_is_that_of_the_best_candidate(two_steps: World) -> None:
    # Features are one-hot: 0 and 1 for a and b said first, 2 and 3 for a and b said second; 4 was never said, and its Q
    # stays 0. In the second state a and 4 are drawn in one recording, b and 4 in the other.
    said, draws = [1, 1, 0, 2, 0, 3], [[0, 1], [0, 1], [0, 1], [2, 4], [0, 1], [3, 4]]
    settings = chai.Train(gamma=0.5, cql_weight=0.0, polyak=0.5)
    module = chai.build(two_steps.start(candidates=features(two_steps.sequences, said, draws, STATES)), settings)
    assert isinstance(module, chai.FeatureHeads)
    module.online = nn.ModuleList([table(1), table(1)])
    module.target = copy.deepcopy(module.online).requires_grad_(False)
    two_steps.learn(chai.METHOD, module, settings, 0.3, 0.03, 0.003)
    q = chai.minimum(module.target, torch.eye(STATES)).tolist()
    # Q is the reward where it ended: 2, 0 and 16. After a the best drawn is worth max(0, 0) = 0 in one recording and
    # max(16, 0) in the other: the mean of ½ · 0 and ½ · 16.
    assert q[:5] == pytest.approx([4.0, 2.0, 0.0, 16.0, 0.0], abs=0.03)


def test_cloning_gives_the_shares_of_what_was_said(two_steps: World) -> None:
    settings = bc.Train()
    module = bc.build(two_steps.start(), settings)
    two_steps.learn(bc.METHOD, module, settings, 0.3, 0.03, steps=100)
    batch = collate(two_steps.sequences, pad=two_steps.pad)
    states = gather(hidden_states(two_steps.trunk, batch.tokens), batch.action_positions)
    p = module.get_output_embeddings()(states).softmax(dim=-1)  # type: ignore[operator]
    taken = p.gather(-1, batch.actions[..., None]).squeeze(-1)
    assert taken[0, :2].tolist() == pytest.approx([0.5, 1.0], abs=0.02)
    assert taken[2].tolist() == pytest.approx([0.5, 1.0, 0.5, 1.0], abs=0.02)
