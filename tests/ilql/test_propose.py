"""What a language model might have said in every state of the data, drawn once and read as a judge would."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ilql import propose
from ilql.batch import TokenSequence, tokenize
from ilql.candidates import Candidates, load_candidates
from ilql.dialogue import Dialogue, Turn
from ilql.language_model import trunk_of
from ilql.method import Proposals
from ilql.propose import draw_candidates
from ilql.tokens import Tokenizer

CPU = torch.device("cpu")
PROPOSALS = Proposals(count=3, max_new_tokens=5)


def agent(text: str) -> Turn:
    return Turn(text, by_agent=True)


def world(text: str) -> Turn:
    return Turn(text, by_agent=False)


@pytest.fixture(scope="module")
def model(language_model: Callable[..., nn.Module]) -> nn.Module:
    return language_model(spread=4.0, context=128)


@pytest.fixture(scope="module")
def sequences(tokenizer: Tokenizer) -> list[TokenSequence]:
    """Give dialogues of 2, 3, 0, 1 and 0 whole utterances: two of the agent's in a row, without one, and cut off."""
    whole = (world("two cats in the snow"), agent("is it red ?"), world("no"), agent("is it a cat ?"), world("yes"))
    in_a_row = (agent("a"), agent(""), world("how many are there ?"), agent("b"))
    cut = (world("pull"), agent("a"), world("no"), agent("how many are there ?"))
    kept = len(tokenize(Dialogue(cut, ended=True), tokenizer).tokens) - 3  # ends within the last utterance
    return [
        tokenize(Dialogue(whole, ended=True), tokenizer),
        tokenize(Dialogue(in_a_row, ended=False), tokenizer),
        tokenize(Dialogue((world("two cats in the snow"),), ended=True), tokenizer),
        tokenize(Dialogue(cut, ended=True), tokenizer, max_tokens=kept),
        tokenize(Dialogue((), ended=False), tokenizer),
    ]


def draw(model: nn.Module, tokenizer: Tokenizer, sequences: Sequence[TokenSequence], *, seed: int = 0) -> Candidates:
    return draw_candidates(model, tokenizer, sequences, PROPOSALS, seed=seed, device=CPU)


@pytest.fixture(scope="module")
def drawn(model: nn.Module, tokenizer: Tokenizer, sequences: list[TokenSequence]) -> Candidates:
    return draw(model, tokenizer, sequences)


def boundaries(sequence: TokenSequence) -> list[tuple[int, int]]:
    """Give the position each whole utterance of a dialogue is chosen from, and that of its end token."""
    found, first = [], 0
    for action in np.flatnonzero(sequence.ends):
        found.append((int(sequence.action_positions[first]), int(sequence.action_positions[action]) + 1))
        first = action + 1
    return found


@torch.no_grad()
def feature(model: nn.Module, ids: Sequence[int]) -> Tensor:
    """Give the mean of all hidden states of a conversation that is read at once."""
    return trunk_of(model)(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(dim=0)  # type: ignore[no-any-return]


@torch.no_grad()
def say(
    model: nn.Module, tokenizer: Tokenizer, ids: list[int], generator: np.random.Generator
) -> tuple[list[int], float]:
    """Draw an utterance by reading everything at once for every token; give it, ended, and its log-probability."""
    said: list[int] = []
    log_probability, end = 0.0, tokenizer.structural("eoa")
    while len(said) < PROPOSALS.max_new_tokens and end not in said:
        logits: Tensor = model(torch.tensor([ids + said])).logits[0, -1]
        log_pi = logits.masked_fill(torch.from_numpy(~tokenizer.writable()), -torch.inf).log_softmax(-1).double()
        cumulative = log_pi.exp().cumsum(0)
        token = int((cumulative <= generator.random() * cumulative[-1]).sum())
        log_probability += float(log_pi[token])
        said.append(token)
    return (said if end in said else [*said, end]), log_probability


class TestPlaces:
    def test_every_whole_utterance_has_one(self, drawn: Candidates) -> None:
        assert drawn.first.tolist() == [0, 2, 5, 5, 6, 6]
        assert drawn.taken.shape == (6, 16)
        assert drawn.drawn.shape == (6, 3, 16)
        assert drawn.log_probability.shape == (6, 3)
        assert np.isfinite(drawn.taken).all()
        assert np.isfinite(drawn.drawn).all()
        assert (drawn.log_probability < 0).all()

    def test_where_nobody_of_ours_speaks_there_is_none(
        self, model: nn.Module, tokenizer: Tokenizer, sequences: list[TokenSequence]
    ) -> None:
        none = draw(model, tokenizer, [sequences[2], sequences[4]])
        assert none.first.tolist() == [0, 0, 0]
        assert (none.taken.shape, none.drawn.shape) == ((0, 16), (0, 3, 16))

    def test_no_data_is_no_candidate(self, model: nn.Module, tokenizer: Tokenizer) -> None:
        none = draw(model, tokenizer, [])
        assert none.first.tolist() == [0]
        assert none.log_probability.shape == (0, 3)


class TestFeatures:
    def test_what_was_said_is_read_up_to_its_end(
        self, model: nn.Module, sequences: list[TokenSequence], drawn: Candidates
    ) -> None:
        for number, sequence in enumerate(sequences):
            for turn, (_, end) in enumerate(boundaries(sequence)):
                expected = feature(model, sequence.tokens[: end + 1].tolist())
                assert torch.allclose(torch.from_numpy(drawn.taken[drawn.first[number] + turn]), expected, atol=1e-5)

    def test_what_was_drawn_is_a_draw_from_the_state_before_it_and_is_read_up_to_its_end(
        self, model: nn.Module, tokenizer: Tokenizer, sequences: list[TokenSequence], drawn: Candidates
    ) -> None:
        utterances = set()
        for number, sequence in enumerate(sequences):
            generator = np.random.default_rng([0, number])
            for turn, (boundary, _) in enumerate(boundaries(sequence)):
                before, place = sequence.tokens[: boundary + 1].tolist(), drawn.first[number] + turn
                for draw_number in range(PROPOSALS.count):
                    said, log_probability = say(model, tokenizer, before, generator)
                    utterances.add(tuple(said))
                    features = torch.from_numpy(drawn.drawn[place, draw_number])
                    assert torch.allclose(features, feature(model, before + said), atol=1e-5)
                    assert drawn.log_probability[place, draw_number] == pytest.approx(log_probability, abs=1e-3)
        assert len(utterances) > 6  # else this would show little


class TestSeeds:
    def test_the_same_seed_draws_the_same_bits_and_another_others(
        self, model: nn.Module, tokenizer: Tokenizer, sequences: list[TokenSequence], drawn: Candidates
    ) -> None:
        again, other = (draw(model, tokenizer, sequences, seed=seed) for seed in (0, 1))
        for name, values in vars(drawn).items():
            assert np.array_equal(getattr(again, name), values), name
        assert np.array_equal(other.first, drawn.first)
        assert np.array_equal(other.taken, drawn.taken)
        assert not np.array_equal(other.log_probability, drawn.log_probability)

    def test_the_other_dialogues_change_no_bit_of_a_draw(
        self, model: nn.Module, tokenizer: Tokenizer, sequences: list[TokenSequence], drawn: Candidates
    ) -> None:
        for kept in (1, 2, 4):
            fewer = draw(model, tokenizer, sequences[:kept])
            utterances = drawn.first[kept]
            assert np.array_equal(fewer.drawn, drawn.drawn[:utterances])
            assert np.array_equal(fewer.log_probability, drawn.log_probability[:utterances])
            assert np.allclose(fewer.taken, drawn.taken[:utterances], atol=1e-5)
        exchanged = draw(model, tokenizer, [sequences[2], *sequences[1:]])  # another in the place of the first
        assert np.array_equal(exchanged.drawn, drawn.drawn[2:])
        assert np.array_equal(exchanged.log_probability, drawn.log_probability[2:])

    def test_more_dialogues_than_slots_are_drawn_in_turn(
        self, model: nn.Module, tokenizer: Tokenizer, sequences: list[TokenSequence], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(propose, "SLOTS", 2)
        finished: list[int] = []
        many = draw_candidates(model, tokenizer, sequences, PROPOSALS, seed=0, device=CPU, on_dialogue=finished.append)
        turns = [len(boundaries(sequence)) for sequence in sequences]  # each is told of, for it takes long
        blocks = [(0, 2), (2, 4), (4, 5)]
        assert finished == [n for begin, end in blocks for n in (*[begin] * max(turns[begin:end]), end)]
        for number, sequence in enumerate(sequences):
            generator = np.random.default_rng([0, number])
            for turn, (boundary, end) in enumerate(boundaries(sequence)):
                place, before = many.first[number] + turn, sequence.tokens[: boundary + 1].tolist()
                drawn = [say(model, tokenizer, before, generator) for _ in range(PROPOSALS.count)]
                assert many.log_probability[place].tolist() == pytest.approx([p for _, p in drawn], abs=1e-3)
                features = torch.stack([feature(model, before + said) for said, _ in drawn])
                assert torch.allclose(torch.from_numpy(many.drawn[place]), features, atol=1e-5)
                taken = feature(model, sequence.tokens[: end + 1].tolist())
                assert torch.allclose(torch.from_numpy(many.taken[place]), taken, atol=1e-5)


def test_a_sure_model_says_what_it_is_sure_of(tokenizer: Tokenizer, model: nn.Module) -> None:
    # A model of one thought: every draw is the end token, with probability one, so the conversation is read up to it.
    end = tokenizer.structural("eoa")

    class Sure(nn.Linear):
        def forward(self, hidden: Tensor) -> Tensor:
            logits = torch.zeros(*hidden.shape[:-1], tokenizer.size)
            logits[..., end] = 1e4
            return logits

    head = model.get_output_embeddings()  # type: ignore[operator]
    sequence = tokenize(Dialogue((world("no"), agent("a")), ended=True), tokenizer)
    try:
        model.set_output_embeddings(Sure(16, tokenizer.size))  # type: ignore[operator]
        drawn = draw(model, tokenizer, [sequence])
    finally:
        model.set_output_embeddings(head)  # type: ignore[operator]
    ((boundary, _),) = boundaries(sequence)
    expected = feature(model, [*sequence.tokens[: boundary + 1].tolist(), end])
    assert torch.allclose(torch.from_numpy(drawn.drawn[0]), expected.expand(3, -1), atol=1e-5)
    assert drawn.log_probability.tolist() == [[pytest.approx(math.log(1.0))] * 3]


def test_what_is_saved_is_loaded(drawn: Candidates, tmp_path: Path) -> None:
    drawn.save(tmp_path)
    loaded = load_candidates(tmp_path)
    for name, values in vars(drawn).items():
        assert np.array_equal(getattr(loaded, name), values), name
        assert getattr(loaded, name).dtype == values.dtype
