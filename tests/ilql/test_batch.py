"""Dialogues as tensors, by hand and by property."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, models, pre_tokenizers
from tokenizers import Tokenizer as TextTokenizer

from ilql.batch import (
    TokenBatch,
    TokenSequence,
    batch_order,
    collate,
    dialogue_weights,
    load_sequences,
    save_sequences,
    tokenize,
)
from ilql.dialogue import Dialogue, Turn
from ilql.tokens import Tokenizer


def letters() -> Tokenizer:
    """Give a tokeniser of single characters: 26 letters, and G, B, Y for a word game's colours."""
    vocabulary = {character: i for i, character in enumerate("abcdefghijklmnopqrstuvwxyzGBY")}
    text = TextTokenizer(models.WordLevel(vocabulary, unk_token="a"))  # noqa: S106  no password
    text.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    return Tokenizer(text)


LETTERS = letters()
BOS, BOA, EOS, EOA, EOD, PAD = (LETTERS.structural(name) for name in ("bos", "boa", "eos", "eoa", "eod", "pad"))


def agent(text: str, reward: float = 0.0) -> Turn:
    return Turn(text, by_agent=True, reward=reward)


def world(text: str) -> Turn:
    return Turn(text, by_agent=False)


def tokens_of(text: str, *last: int) -> list[int]:
    return [*LETTERS.encode(text), *last]


# A word game whose first guess is invalid and gets no colours, so that two of the agent's turns follow each other.
GAME = Dialogue(
    (agent("abc", -1.0), agent("point", -1.0), world("BGBBG"), agent("robot", 0.0), world("GGGGG")), ended=True
)


class TestTokenize:
    def test_the_worked_example_of_the_reference(self) -> None:
        sequence = tokenize(GAME, LETTERS)
        assert sequence.tokens.tolist() == [
            BOA,  # 0
            *tokens_of("abc", EOA),  # 1-4
            *tokens_of("point", EOA),  # 5-10
            *tokens_of("BGBBG", EOS),  # 11-16
            *tokens_of("robot", EOA),  # 17-22
            *tokens_of("GGGGG", EOS),  # 23-28
            EOD,  # 29
        ]
        assert sequence.action_positions.tolist() == [*range(10), *range(16, 22)]
        assert sequence.state_positions.tolist() == [*range(10), *range(16, 22), 29]
        assert np.flatnonzero(sequence.rewards).tolist() == [3, 9]
        assert sequence.rewards[[3, 9]].tolist() == [-1.0, -1.0]
        assert sequence.ended is True

    def test_the_action_at_a_position_is_the_next_token(self) -> None:
        sequence = tokenize(GAME, LETTERS)
        said = sequence.tokens[sequence.action_positions + 1].tolist()
        assert said == tokens_of("abc", EOA) + tokens_of("point", EOA) + tokens_of("robot", EOA)

    def test_an_empty_game_is_one_state_and_no_action(self) -> None:
        sequence = tokenize(Dialogue((), ended=False), LETTERS)
        assert sequence.tokens.tolist() == [BOA]
        assert sequence.state_positions.tolist() == [0]
        assert len(sequence.action_positions) == len(sequence.rewards) == 0

    def test_the_state_after_an_utterance_is_the_boundary_after_the_reply(self) -> None:
        # bos h i eos | y eoa | o k eos | z eoa: actions at 3, 4 and 8, 9; the final state is the last eoa.
        dialogue = Dialogue((world("hi"), agent("y", 0.5), world("ok"), agent("z", 0.25)), ended=False)
        sequence = tokenize(dialogue, LETTERS)
        assert sequence.tokens[0] == BOS
        assert sequence.state_positions.tolist() == [3, 4, 8, 9, 10]
        assert sequence.tokens[10] == EOA
        assert sequence.rewards.tolist() == [0.0, 0.5, 0.0, 0.25]  # fractions stay fractions

    def test_saying_nothing_is_one_action_the_end_token(self) -> None:
        sequence = tokenize(Dialogue((world("hi"), agent("", -2.0)), ended=True), LETTERS)
        assert sequence.tokens.tolist() == [BOS, *tokens_of("hi", EOS), EOA, EOD]
        assert sequence.action_positions.tolist() == [3]
        assert sequence.rewards.tolist() == [-2.0]


class TestTruncation:
    """The rule of the reference's section 1.7 on GAME's 30 tokens."""

    def test_a_dialogue_that_fits_is_whole(self) -> None:
        assert tokenize(GAME, LETTERS, max_tokens=30).tokens.tolist() == tokenize(GAME, LETTERS).tokens.tolist()
        assert tokenize(GAME, LETTERS, max_tokens=30).ended

    @pytest.mark.parametrize(
        ("length", "states"),
        [
            (29, [*range(10), *range(16, 22)]),  # only eod is lost: the last position kept bootstraps without acting
            (20, [*range(10), 16, 17, 18, 19]),  # inside the third guess: position 19 is the state after "rob"
            (13, [*range(10)]),  # inside the colours: the second guess's eoa is no action any more
            (5, [0, 1, 2, 3, 4]),  # the first guess and its end
            (1, [0]),
        ],
    )
    def test_what_is_kept(self, length: int, states: list[int]) -> None:
        whole, cut = tokenize(GAME, LETTERS), tokenize(GAME, LETTERS, max_tokens=length)
        assert cut.tokens.tolist() == whole.tokens[:length].tolist()
        assert cut.state_positions.tolist() == states
        assert cut.action_positions.tolist() == states[:-1]
        assert cut.rewards.tolist() == whole.rewards[: len(states) - 1].tolist()
        assert cut.ended is False

    def test_the_reward_of_a_dropped_end_token_is_lost(self) -> None:
        assert tokenize(GAME, LETTERS, max_tokens=13).rewards.sum() == -1.0
        assert tokenize(GAME, LETTERS, max_tokens=17).rewards.sum() == -2.0  # with position 16 the guess counts

    def test_a_first_turn_that_is_too_long_leaves_one_state(self) -> None:
        cut = tokenize(Dialogue((world("hello"), agent("y", 1.0)), ended=True), LETTERS, max_tokens=4)
        assert cut.state_positions.tolist() == [3]
        assert len(cut.action_positions) == len(cut.rewards) == 0


class TestEnds:
    def test_they_are_the_choices_of_the_end_token_and_nothing_else(self) -> None:
        # Two of the agent's turns in a row, "abc" and "point", then "robot": actions 0-3, 4-9 and 10-15.
        sequence = tokenize(GAME, LETTERS)
        assert np.flatnonzero(sequence.ends).tolist() == [3, 9, 15]
        chosen = sequence.tokens[sequence.action_positions + 1]
        assert sequence.ends.tolist() == (chosen == EOA).tolist()

    def test_a_word_that_looks_like_an_end_is_none(self) -> None:
        # The structure's ids stand behind the text's, so what is said cannot hold one; an empty turn is only an end.
        sequence = tokenize(Dialogue((agent(""), agent("z")), ended=True), LETTERS)
        assert sequence.ends.tolist() == [True, False, True]

    @pytest.mark.parametrize(
        ("length", "ends"),
        [
            (30, [3, 9, 15]),
            (29, [3, 9]),  # the last state kept is that before the end of "robot", which bootstraps and does not act
            (20, [3, 9]),  # inside "robot": its letters are actions, and end nothing
            (13, [3]),  # inside the colours: the state after "point" is cut away, and with it its end
            (5, [3]),
            (4, []),
            (1, []),
        ],
    )
    def test_a_cut_dialogue_keeps_those_of_the_actions_it_keeps(self, length: int, ends: list[int]) -> None:
        cut = tokenize(GAME, LETTERS, max_tokens=length)
        assert len(cut.ends) == len(cut.action_positions)
        assert np.flatnonzero(cut.ends).tolist() == ends

    def test_padding_ends_nothing(self) -> None:
        batch = collate([tokenize(GAME, LETTERS), tokenize(Dialogue((agent("z"),), ended=True), LETTERS)], pad=EOA)
        assert batch.ends.nonzero().tolist() == [[0, 3], [0, 9], [0, 15], [1, 1]]


class TestNumbers:
    def test_what_is_loaded_knows_its_place_in_the_data(self, tmp_path: Path) -> None:
        said = [tokenize(Dialogue((agent(text),), ended=True), LETTERS) for text in ("x", "y", "z")]
        save_sequences(said, tmp_path / "train.npz")
        loaded = load_sequences(tmp_path / "train.npz")
        assert [sequence.number for sequence in loaded] == [0, 1, 2]
        # However they are chosen and ordered, a batch tells which they were.
        assert collate([loaded[2], loaded[0]], pad=PAD).numbers.tolist() == [2, 0]


class TestCollate:
    # Four actions and ended; two actions and cut off; none.
    ENDED = tokenize(Dialogue((world("hi"), agent("abc", 1.5)), ended=True), LETTERS)
    CUT = tokenize(Dialogue((agent("z", -0.5),), ended=False), LETTERS)
    NONE = tokenize(Dialogue((world("hi"),), ended=False), LETTERS)

    @pytest.fixture
    def batch(self) -> TokenBatch:
        return collate([self.ENDED, self.CUT, self.NONE], pad=PAD)

    def test_masks_are_true_on_what_is_real(self, batch: TokenBatch) -> None:
        assert batch.attention_mask.sum(dim=1).tolist() == [9, 3, 4]
        assert batch.action_mask.tolist() == [[True] * 4, [True, True, False, False], [False] * 4]
        assert batch.tokens[1].tolist() == [BOA, *tokens_of("z", EOA), *[PAD] * 6]

    def test_a_padding_id_inside_a_dialogue_is_attended_to(self) -> None:
        batch = collate([self.CUT, self.NONE], pad=int(self.CUT.tokens[1]))
        assert batch.attention_mask.tolist() == [[True, True, True, False], [True] * 4]

    def test_only_the_last_action_of_an_ended_dialogue_is_terminal(self, batch: TokenBatch) -> None:
        assert batch.terminal.tolist() == [[False, False, False, True], [False] * 4, [False] * 4]

    def test_a_cut_off_row_has_no_phantom_action(self, batch: TokenBatch) -> None:
        # There, the padded terminals would give row 1 a third valid action at position 0.
        assert batch.action_mask[1].sum() == 2
        assert batch.state_positions[1, :3].tolist() == [0, 1, 2]

    def test_a_row_without_actions_counts_none(self, batch: TokenBatch) -> None:
        assert not batch.action_mask[2].any()
        assert batch.state_positions[2, 0] == 3
        assert dialogue_weights(batch.action_mask)[2].tolist() == [0.0] * 4

    def test_rewards_stay_floats(self, batch: TokenBatch) -> None:
        assert batch.rewards.dtype == torch.float32
        assert batch.rewards.tolist() == [[0.0, 0.0, 0.0, 1.5], [0.0, -0.5, 0.0, 0.0], [0.0] * 4]

    def test_actions_are_the_ids_chosen(self, batch: TokenBatch) -> None:
        assert batch.actions[0].tolist() == tokens_of("abc", EOA)
        assert batch.actions[1, :2].tolist() == tokens_of("z", EOA)

    def test_dialogue_weights_sum_to_one_in_every_dialogue_that_has_actions(self, batch: TokenBatch) -> None:
        assert dialogue_weights(batch.action_mask).tolist() == [[0.25] * 4, [0.5, 0.5, 0.0, 0.0], [0.0] * 4]

    def test_rows_are_cut_out_of_every_field(self, batch: TokenBatch) -> None:
        part = batch.rows(slice(1, 2))
        for name, value in vars(part).items():
            assert torch.equal(value, getattr(batch, name)[1:2]), name


turns = st.lists(
    st.tuples(st.text("abcxyz", max_size=4), st.booleans(), st.sampled_from([0.0, -1.0, 0.5])), max_size=5
).map(lambda said: tuple(Turn(text, by, reward if by else 0.0) for text, by, reward in said))
sequences = st.builds(
    lambda t, ended, cut: tokenize(Dialogue(t, ended), LETTERS, max_tokens=cut),
    turns,
    st.booleans(),
    st.none() | st.integers(1, 12),
)


def assert_equal(one: TokenSequence, other: TokenSequence) -> None:
    for name, value in vars(one).items():
        assert np.array_equal(value, getattr(other, name)), name


@settings(deadline=None, max_examples=60)
@given(st.lists(sequences, min_size=1, max_size=4))
def test_unpadding_a_batch_gives_back_the_sequences(given_sequences: list[TokenSequence]) -> None:
    batch = collate(given_sequences, pad=PAD)
    for row, sequence in enumerate(given_sequences):
        actions = int(batch.action_mask[row].sum())
        unpadded = TokenSequence(
            batch.tokens[row][batch.attention_mask[row]].numpy(),
            batch.action_positions[row][batch.action_mask[row]].numpy(),
            batch.state_positions[row, : actions + 1].numpy(),
            batch.rewards[row][batch.action_mask[row]].numpy(),
            batch.ends[row][batch.action_mask[row]].numpy(),
            # A dialogue without an action has nothing that could be terminal.
            bool(batch.terminal[row].any()) if actions else sequence.ended,
        )
        assert_equal(unpadded, sequence)


@settings(deadline=None, max_examples=60)
@given(sequences)
def test_every_action_is_followed_by_its_next_state_and_lies_inside(sequence: TokenSequence) -> None:
    states = sequence.state_positions.tolist()
    assert states == sorted(set(states))
    assert states[:-1] == sequence.action_positions.tolist()
    assert states[-1] < len(sequence.tokens)


@settings(deadline=None, max_examples=20)
@given(st.lists(sequences, max_size=4))
def test_what_is_saved_is_loaded(tmp_path_factory: pytest.TempPathFactory, kept: list[TokenSequence]) -> None:
    file = tmp_path_factory.mktemp("sequences") / "train.npz"
    save_sequences(kept, file)
    loaded = load_sequences(file)
    assert len(loaded) == len(kept)
    for number, (one, other) in enumerate(zip(loaded, kept, strict=True)):
        assert_equal(one, dataclasses.replace(other, number=number))  # the place in the data


def test_a_sequence_whose_parts_do_not_fit_is_refused() -> None:
    positions, rewards, ends = np.zeros(1, np.int64), np.zeros(1, np.float32), np.zeros(1, np.bool_)
    rule = "1 actions need 2 states, 1 rewards and 1 marks of an end"
    with pytest.raises(ValueError, match=f"{rule}, got 1, 1 and 1"):
        TokenSequence(np.zeros(3, np.int64), positions, positions, rewards, ends, True)
    with pytest.raises(ValueError, match=f"{rule}, got 2, 1 and 0"):
        TokenSequence(np.zeros(3, np.int64), positions, np.arange(2), rewards, ends[:0], True)


class TestBatchOrder:
    def test_an_epoch_shows_every_dialogue_once(self) -> None:
        batches = list(itertools.islice(batch_order(6, batch_size=2, seed=0), 6))
        for epoch in (batches[:3], batches[3:]):
            assert sorted(np.concatenate(epoch).tolist()) == list(range(6))

    def test_epochs_and_seeds_are_shuffled_differently(self) -> None:
        first, second = itertools.islice(batch_order(100, batch_size=100, seed=0), 2)
        other = next(batch_order(100, batch_size=100, seed=1))
        assert first.tolist() != second.tolist() != other.tolist() != first.tolist()

    @pytest.mark.parametrize("start", [0, 1, 2, 3, 7])
    def test_a_resumed_order_goes_on_where_it_was(self, start: int) -> None:
        whole = list(itertools.islice(batch_order(7, batch_size=2, seed=3), 10))
        resumed = itertools.islice(batch_order(7, batch_size=2, seed=3, start=start), 10 - start)
        assert [rows.tolist() for rows in resumed] == [rows.tolist() for rows in whole[start:]]

    def test_fewer_dialogues_than_a_batch_are_a_batch(self) -> None:
        assert sorted(next(batch_order(3, batch_size=64, seed=0)).tolist()) == [0, 1, 2]

    def test_nothing_to_draw_from_is_refused(self) -> None:
        with pytest.raises(ValueError, match="training needs at least one dialogue, got none"):
            next(batch_order(0, batch_size=2, seed=0))
