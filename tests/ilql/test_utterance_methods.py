"""Methods that judge whole utterances: what an utterance is, CHAI's loss in loops, and what the judges read."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ilql.batch import TokenBatch, TokenSequence, collate, dialogue_weights, tokenize
from ilql.candidates import Candidates
from ilql.dialogue import Dialogue, Turn
from ilql.method import Start
from ilql.methods import chai, utterance_ilql
from ilql.networks import ValueNetworks
from ilql.tokens import Tokenizer

WIDTH, DRAWS = 6, 4


@pytest.fixture
def sequences(tokenizer: Tokenizer) -> list[TokenSequence]:
    """Give three dialogues: two whole utterances and the end, two and a cut, and one that was cut within its second."""
    turns = (Turn("a", True, 1.0), Turn("no", False), Turn("is it red ?", True, -2.0))
    ended = tokenize(Dialogue(turns, ended=True), tokenizer)
    cut = tokenize(Dialogue((*turns, Turn("yes", False)), ended=False), tokenizer)
    short = tokenize(Dialogue(turns, ended=True), tokenizer, max_tokens=len(ended.tokens) - 3)
    assert (short.ends.sum(), short.ended) == (1, False)
    return [
        TokenSequence(**{**vars(sequence), "number": number}) for number, sequence in enumerate((ended, cut, short))
    ]


@pytest.fixture
def batch(sequences: list[TokenSequence], tokenizer: Tokenizer) -> TokenBatch:
    return collate(sequences, pad=tokenizer.structural("pad"))


class TestUtterances:
    def test_they_run_from_a_boundary_to_their_end(self, batch: TokenBatch, sequences: list[TokenSequence]) -> None:
        found = utterance_ilql.utterances(batch)
        last = len(sequences[0].action_positions) - 1
        assert found.row.tolist() == [0, 0, 1, 1, 2]
        assert found.first.tolist() == [0, 2, 0, 2, 0]  # `a` and its end are two actions
        assert found.end.tolist() == [1, last, 1, last, 1]

    def test_rewards_stand_at_their_ends(self, batch: TokenBatch) -> None:
        found = utterance_ilql.utterances(batch)
        assert batch.rewards[found.row, found.end].tolist() == [1.0, -2.0, 1.0, -2.0, 1.0]
        assert batch.terminal[found.row, found.end].tolist() == [False, True, False, False, False]

    def test_none_are_none(self, tokenizer: Tokenizer) -> None:
        silent = collate([tokenize(Dialogue((Turn("no", False),), True), tokenizer)], pad=tokenizer.structural("pad"))
        assert [len(part) for part in vars(utterance_ilql.utterances(silent)).values()] == [0, 0, 0]


def test_utterance_ilqls_judge_is_the_targets_smaller_head_at_the_end(language_model: Callable[..., nn.Module]) -> None:
    model = language_model()
    module = utterance_ilql.build(Start(model, model, seed=0), utterance_ilql.Train())
    assert isinstance(module, ValueNetworks)
    with torch.no_grad():
        module.target.q_heads[0][2].bias.add_(1.0)  # type: ignore[index,union-attr,operator]
    judge = utterance_ilql.actor(module, model).judge
    assert judge is not None
    last, mean = torch.randn(5, 16), torch.randn(5, 16)
    smaller = torch.minimum(*[head(last).squeeze(-1) for head in module.target.q_heads])
    assert torch.equal(judge.score(last, mean), smaller)
    assert judge.trunk is module.target.trunk


def drawn_for(sequences: list[TokenSequence]) -> Candidates:
    draw, counts = np.random.default_rng(1), [int(s.ends.sum()) for s in sequences]
    total = sum(counts)
    return Candidates(
        draw.normal(size=(total, WIDTH)).astype(np.float32),
        draw.normal(size=(total, DRAWS, WIDTH)).astype(np.float32),
        -draw.exponential(size=(total, DRAWS)).astype(np.float32),
        np.concatenate([[0], np.cumsum(counts)]),
    )


def heads_on(candidates: Candidates, train: chai.Train, model: nn.Module) -> chai.FeatureHeads:
    module = chai.build(Start(model, model, seed=0, candidates=candidates), train)
    assert isinstance(module, chai.FeatureHeads)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
        for parameter in module.target.parameters():
            parameter.mul_(0.8)
    return module


class TestChai:
    @pytest.mark.parametrize("uniform_points", [False, True])
    @pytest.mark.parametrize("cql_weight", [0.0, 0.5])
    def test_its_loss_is_that_of_the_formulas_one_utterance_at_a_time(
        self,
        sequences: list[TokenSequence],
        batch: TokenBatch,
        language_model: Callable[..., nn.Module],
        monkeypatch: pytest.MonkeyPatch,
        cql_weight: float,
        uniform_points: bool,
    ) -> None:
        monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.full(tuple(shape[0]), 0.75))  # features of ½
        hp = chai.Train(gamma=0.9, cql_weight=cql_weight, uniform_points=uniform_points)
        stored = drawn_for(sequences)
        module = heads_on(stored, hp, language_model())

        def q(heads: nn.ModuleList, feature: Tensor) -> list[float]:
            return [head(feature).item() for head in heads]

        terms: list[list[float]] = [[], [], []]
        for row, s in enumerate(sequences):
            numbers = range(int(stored.first[row]), int(stored.first[row + 1]))
            rewards = s.rewards[s.ends].tolist()
            for u, n in enumerate(numbers):
                if u == len(numbers) - 1 and not s.ended:
                    continue  # our difference: what follows a cut is not known
                after = 0.0
                if u < len(numbers) - 1:
                    after = hp.gamma * max(min(q(module.target, torch.from_numpy(f))) for f in stored.drawn[n + 1])
                loss = 0.0
                for i, own in enumerate(q(module.online, torch.from_numpy(stored.taken[n]))):
                    loss += (rewards[u] + after - own) ** 2
                    drawn, log_p = torch.from_numpy(stored.drawn[n]), stored.log_probability[n].tolist()
                    points = [(drawn[j], log_p[j]) for j in range(DRAWS)]
                    points += [(torch.full((WIDTH,), 0.5), -WIDTH * math.log(2))] * (DRAWS * uniform_points)
                    soft = [math.exp(module.online[i](f).item() - lp) for f, lp in points]
                    loss += cql_weight * (math.log(math.fsum(soft) / len(soft)) - own)
                terms[row].append(loss)
        # Of the three dialogues the first has two utterances that count, the second one of its two, the third none:
        # the mean of two dialogues' means.
        assert [len(t) for t in terms] == [2, 1, 0]
        weights = dialogue_weights(chai.METHOD.counts(batch))
        expected = (sum(terms[0]) / 2 + terms[1][0]) / 2
        assert chai.loss(module, batch, weights, hp).total.item() == pytest.approx(expected, rel=1e-5)

    def test_a_dialogues_utterances_are_found_by_its_place_in_the_data(
        self, sequences: list[TokenSequence], batch: TokenBatch, tokenizer: Tokenizer,
        language_model: Callable[..., nn.Module],
    ) -> None:  # fmt: skip
        hp = chai.Train(cql_weight=0.0)
        module = heads_on(drawn_for(sequences), hp, language_model())
        pad = tokenizer.structural("pad")
        alone = collate([sequences[1]], pad=pad)
        stranger = collate([TokenSequence(**{**vars(sequences[1]), "number": 0})], pad=pad)
        losses = [
            chai.loss(module, b, dialogue_weights(chai.METHOD.counts(b)), hp).total.item()
            for b in (batch.rows(slice(1, 2)), alone, stranger)
        ]
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)
        assert losses[1] != pytest.approx(losses[2], rel=1e-3)

    def test_its_conservative_draws_follow_torchs_generator(
        self, sequences: list[TokenSequence], batch: TokenBatch, language_model: Callable[..., nn.Module]
    ) -> None:
        hp = chai.Train(cql_weight=1.0, uniform_points=True)
        module, losses = heads_on(drawn_for(sequences), hp, language_model()), []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            losses.append(chai.loss(module, batch, dialogue_weights(chai.METHOD.counts(batch)), hp).total.item())
        assert losses[0] == losses[1]
        assert losses[0] != losses[2]

    def test_its_conservative_term_lowers_what_was_drawn(
        self, sequences: list[TokenSequence], batch: TokenBatch, language_model: Callable[..., nn.Module]
    ) -> None:
        hp = chai.Train(cql_weight=1000.0)
        module = heads_on(drawn_for(sequences), hp, language_model())
        assert isinstance(module, chai.FeatureHeads)
        drawn = torch.as_tensor(module.candidates.drawn[:], dtype=torch.float32).flatten(0, 1)
        taken = torch.as_tensor(module.candidates.taken[:], dtype=torch.float32)

        def gap() -> float:
            values = [(head(drawn).mean() - head(taken).mean()).detach() for head in module.online]
            return float(torch.stack(values).mean())

        before = gap()
        chai.loss(module, batch, dialogue_weights(chai.METHOD.counts(batch)), hp).total.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for parameter in module.online.parameters():
                assert parameter.grad is not None
                parameter.sub_(1e-6 * parameter.grad)
        assert gap() < before

    def test_its_judge_reads_the_mean_feature_with_the_target_heads(
        self, sequences: list[TokenSequence], language_model: Callable[..., nn.Module]
    ) -> None:
        module = heads_on(drawn_for(sequences), chai.Train(), language_model())
        judge = chai.actor(module, language_model()).judge
        assert judge is not None
        assert judge.trunk is None  # the language model's own states
        last, mean = torch.randn(5, WIDTH), torch.randn(5, WIDTH)
        smaller = torch.minimum(*[head(mean).squeeze(-1) for head in module.target])
        assert torch.equal(judge.score(last, mean), smaller)

    def test_what_is_drawn_before_training_is_what_it_names(self) -> None:
        proposals = chai.proposals(chai.Train(proposals=3, proposal_tokens=7))
        assert (proposals.count, proposals.max_new_tokens) == (3, 7)
