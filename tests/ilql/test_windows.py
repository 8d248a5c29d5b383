"""Windows: nothing of the agent's is lost where a dialogue is longer than is read at once, and a cut is no end."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ilql.batch import TokenSequence, collate, dialogue_numbers, load_sequences, save_sequences, tokenize
from ilql.chat import AGENT, NOBODY, WORLD, ChatForm
from ilql.dialogue import Dialogue, Turn
from ilql.method import Start
from ilql.methods import chai, decision_transformer, ilql
from ilql.networks import ValueNetworks
from ilql.token_values import outcomes
from ilql.tokens import Tokenizer, symbol_tokenizer
from ilql.windows import cut

LETTERS = symbol_tokenizer("abcdefghijklmnopqrstuvwxyz")
PAD = LETTERS.structural("pad")


def agent(text: str, reward: float = 0.0) -> Turn:
    return Turn(text, by_agent=True, reward=reward)


def world(text: str) -> Turn:
    return Turn(text, by_agent=False)


def spelt(sequence: TokenSequence) -> str:
    """Its tokens, the structural ones by their names in angle brackets."""
    return "".join(LETTERS.piece(token) for token in sequence.tokens.tolist())


def acts(sequence: TokenSequence) -> str:
    """The tokens that are its actions."""
    return "".join(LETTERS.piece(token) for token in sequence.tokens[sequence.action_positions + 1].tolist())


# Eight tokens at once: a quarter is two, which leaves six from a window's first state to its last.
TALK = Dialogue((world("hi"), agent("abcdefghij", 1.0), world("ok"), agent("z", 2.0)), ended=True)
CUT = cut(TALK, LETTERS, max_tokens=8)


class TestByHand:
    def test_an_utterance_longer_than_is_read_goes_on_from_window_to_window(self) -> None:
        # <bos>hi<eos>abcdefghij<eoa>ok<eos>z<eoa><eod> has 21 tokens. The first window reads the first eight. The
        # second acts from the state behind "d" on, has "cd" before it and reaches six further. The third has to reach
        # over "ok" to the next state, and so holds but the end of the utterance.
        assert [spelt(window) for window in CUT.sequences] == [
            "<bos>hi<eos>abcd", "cdefghij", "ghij<eoa>ok<eos>", "<bos>ok<eos>z<eoa><eod>",
        ]  # fmt: skip
        assert [acts(window) for window in CUT.sequences] == ["abcd", "efghij", "<eoa>", "z<eoa>"]
        assert (CUT.tokens, CUT.left_out) == (21, 0)

    def test_states_are_where_the_next_window_begins(self) -> None:
        assert [window.state_positions.tolist() for window in CUT.sequences] == [
            [3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 6, 7], [3, 7], [3, 4, 6],
        ]  # fmt: skip

    def test_only_the_end_is_terminal(self) -> None:
        assert [window.ended for window in CUT.sequences] == [False, False, False, True]
        assert [window.goes_on for window in CUT.sequences] == [True, True, True, False]
        batch = collate(CUT.sequences, pad=PAD)
        assert batch.terminal.nonzero().tolist() == [[3, 1]]

    def test_a_recording_that_was_cut_off_has_no_end_in_its_last_window(self) -> None:
        # Without <eod>, "<eoa>ok<eos>z<eoa>" are the six tokens that the third window reaches.
        windows = cut(dataclasses.replace(TALK, ended=False), LETTERS, max_tokens=8).sequences
        assert [acts(window) for window in windows] == ["abcd", "efghij", "<eoa>z<eoa>"]
        assert [window.ended for window in windows] == [False] * 3
        assert [window.goes_on for window in windows] == [True, True, False]

    def test_rewards_are_in_one_window_each_and_known_to_the_others(self) -> None:
        assert [window.rewards.tolist() for window in CUT.sequences] == [[0.0] * 4, [0.0] * 6, [1.0], [0.0, 2.0]]
        assert [(window.earlier, window.later) for window in CUT.sequences] == [(0, 3), (0, 3), (0, 2), (1, 0)]
        assert collate(CUT.sequences, pad=PAD).returns.tolist() == [3.0] * 4

    def test_a_cut_is_before_the_agents_next_utterance_where_that_is_in_reach(self) -> None:
        # <boa>ab<eoa>w<eos>cd<eoa>w<eos>ef<eoa> has 14 tokens. Twelve would reach into "ef".
        talk = Dialogue((agent("ab", 1), world("w"), agent("cd", 2), world("w"), agent("ef", 4)), ended=False)
        windows = cut(talk, LETTERS, max_tokens=12).sequences
        assert [acts(window) for window in windows] == ["ab<eoa>cd<eoa>", "ef<eoa>"]
        assert [spelt(window) for window in windows] == [
            "<boa>ab<eoa>w<eos>cd<eoa>w<eos>", "<bos>w<eos>cd<eoa>w<eos>ef<eoa>",
        ]  # fmt: skip

    def test_a_window_begins_with_a_turn_of_the_world_if_that_leaves_a_quarter(self) -> None:
        talk = Dialogue((world("a"), agent("bcd"), world("ef"), agent("g"), world("h"), agent("ij")), ended=True)
        # <bos>a<eos>bcd<eoa>ef<eos>g<eoa>h<eos>ij<eoa><eod> has 18 tokens. Sixteen back from its end is the first "a",
        # which has no room for another <bos>; "ef" is the next turn of the world.
        *_, last = cut(talk, LETTERS, max_tokens=16).sequences
        assert (spelt(last), acts(last)) == ("<bos>ef<eos>g<eoa>h<eos>ij<eoa><eod>", "ij<eoa>")

    def test_a_dialogue_that_fits_is_what_it_was(self) -> None:
        (whole,) = cut(TALK, LETTERS, max_tokens=21).sequences
        assert_equal(whole, tokenize(TALK, LETTERS))
        assert len(cut(TALK, LETTERS, max_tokens=20).sequences) > 1


class TestLongTurnsOfTheWorld:
    def test_of_an_opening_its_end_is_read_and_the_rest_is_counted(self) -> None:
        # <bos>hijk<eos> are the six of eight tokens that leave a quarter. Nine are left then, still one too many.
        windows = cut(Dialogue((world("abcdefghijk"), agent("z", 1.0)), ended=True), LETTERS, max_tokens=8)
        assert [spelt(window) for window in windows.sequences] == ["<bos>hijk<eos>z", "hijk<eos>z<eoa><eod>"]
        assert [acts(window) for window in windows.sequences] == ["z", "<eoa>"]
        assert (windows.tokens, windows.left_out) == (16, 7)

    def test_of_a_reply_its_end_is_read_and_the_rest_is_counted(self) -> None:
        # From the state that <eoa> is chosen in, six tokens: itself, the four last letters, and <eos>.
        talk = Dialogue((agent("a", 1.0), world("bcdefghijklm"), agent("z", 2.0)), ended=False)
        windows = cut(talk, LETTERS, max_tokens=8)
        assert [spelt(window) for window in windows.sequences] == ["<boa>a<eoa>jklm<eos>", "<bos>jklm<eos>z<eoa>"]
        assert [acts(window) for window in windows.sequences] == ["a<eoa>", "z<eoa>"]
        assert (windows.tokens, windows.left_out) == (18, 8)

    def test_a_dialogue_in_which_the_agent_never_speaks_is_a_state(self) -> None:
        windows = cut(Dialogue((world("abcdefghijk"),), ended=False), LETTERS, max_tokens=8)
        (only,) = windows.sequences
        assert (spelt(only), acts(only), only.goes_on) == ("<bos>hijk<eos>", "", False)

    def test_too_few_tokens_are_refused_with_how_many_would_do(self) -> None:
        # Between the choices of <eoa> and of "b" stand <eoa> and <eos>; behind the last <eoa> is <eod>.
        talk = Dialogue((agent("a"), world("w"), agent("b")), ended=True)
        with pytest.raises(ValueError, match="windows need max_tokens of at least 3, got 2"):
            cut(talk, LETTERS, max_tokens=2)
        assert [acts(window) for window in cut(talk, LETTERS, max_tokens=3).sequences] == ["a", "<eoa>", "b", "<eoa>"]


MARKED = symbol_tokenizer("abcdefghijklmnopqrstuvwxyzUAE.^")
SEAMS = {
    (NOBODY, WORLD): "^U", (WORLD, AGENT): ".A", (AGENT, WORLD): "E.U", (AGENT, NOBODY): "E.", (AGENT, AGENT): "E.A",
    (WORLD, WORLD): ".U", (WORLD, NOBODY): ".", (NOBODY, AGENT): "^A",
}  # fmt: skip
CHAT = Tokenizer(MARKED.text, chat=ChatForm({who: tuple(MARKED.encode(seam)) for who, seam in SEAMS.items()}))

texts = st.tuples(st.integers(0, 25), st.integers(0, 40)).map(lambda part: (26 * "bcdefghija")[part[0] :][: part[1]])
turns = st.lists(st.tuples(texts, st.booleans(), st.sampled_from([0.0, -1.0, 0.5])), max_size=6).map(
    lambda said: tuple(Turn(text, by, reward if by else 0.0) for text, by, reward in said)
)
dialogues = st.builds(Dialogue, turns, st.booleans())


@pytest.mark.parametrize("tokenizer", [LETTERS, CHAT], ids=["structural", "chat"])
@settings(deadline=None, max_examples=150)
@given(dialogue=dialogues, max_tokens=st.integers(24, 60))
def test_no_action_and_no_reward_is_lost_or_doubled_and_a_cut_is_no_end(
    tokenizer: Tokenizer, dialogue: Dialogue, max_tokens: int
) -> None:
    whole, found = tokenize(dialogue, tokenizer), cut(dialogue, tokenizer, max_tokens=max_tokens)
    *before, last = found.sequences

    def all_of(name: str) -> list[float]:
        return [value for window in found.sequences for value in getattr(window, name).tolist()]

    chosen = [token for w in found.sequences for token in w.tokens[w.action_positions + 1].tolist()]
    assert chosen == whole.tokens[whole.action_positions + 1].tolist()
    assert all_of("rewards") == whole.rewards.tolist()
    assert all_of("ends") == whole.ends.tolist()
    assert all(w.goes_on and not w.ended and len(w.action_positions) for w in before)
    assert (last.goes_on, last.ended) == (False, dialogue.ended)
    assert {float(w.rewards.sum()) + w.earlier + w.later for w in found.sequences} == {float(whole.rewards.sum())}
    assert max(len(w.tokens) for w in found.sequences) <= max_tokens
    if len(whole.tokens) <= max_tokens:
        assert_equal(last, whole)


@pytest.mark.parametrize("tokenizer", [LETTERS, CHAT], ids=["structural", "chat"])
@settings(deadline=None, max_examples=150)
@given(dialogue=dialogues, max_tokens=st.integers(24, 60))
def test_a_window_acts_from_the_state_that_the_one_before_ended_in_with_a_quarter_behind_it(
    tokenizer: Tokenizer, dialogue: Dialogue, max_tokens: int
) -> None:
    marks, found = len(tokenizer.before_first(by_agent=False)), cut(dialogue, tokenizer, max_tokens=max_tokens)
    for before, after in itertools.pairwise(found.sequences):
        end, first = int(before.state_positions[-1]) + 1, int(after.state_positions[0]) + 1
        assert end == len(before.tokens)
        assert first >= max_tokens // 4 or after.tokens[:first].tolist() == before.tokens[:end].tolist()
        same = min(end, first) - marks  # one of them may begin with a mark where the other goes further back
        assert same > 0
        assert after.tokens[first - same : first].tolist() == before.tokens[end - same : end].tolist()


def assert_equal(one: TokenSequence, other: TokenSequence) -> None:
    for name, value in vars(one).items():
        assert np.array_equal(value, getattr(other, name)), name


class TestInTheData:
    def test_windows_are_loaded_as_they_were_saved(self, tmp_path: Path) -> None:
        save_sequences(CUT.sequences, tmp_path / "train.npz")
        for number, (one, other) in enumerate(zip(load_sequences(tmp_path / "train.npz"), CUT.sequences, strict=True)):
            assert_equal(one, dataclasses.replace(other, number=number))

    def test_sequences_that_were_saved_before_there_were_windows_are_whole(self, tmp_path: Path) -> None:
        save_sequences([tokenize(TALK, LETTERS)], tmp_path / "new.npz")
        with np.load(tmp_path / "new.npz") as new:
            np.savez(tmp_path / "old.npz", **{n: new[n] for n in new if n not in ("goes_on", "earlier", "later")})
        (loaded,) = load_sequences(tmp_path / "old.npz")
        assert_equal(loaded, tokenize(TALK, LETTERS))

    def test_the_windows_of_one_dialogue_have_one_number(self) -> None:
        short = tokenize(Dialogue((agent("x"),), ended=True), LETTERS)
        assert dialogue_numbers([short, *CUT.sequences, short]).tolist() == [0, 1, 1, 1, 1, 2]
        assert dialogue_numbers([]).tolist() == []


class TestMethods:
    """What a method asks of a dialogue as a whole, it hears in its windows."""

    BATCH = collate(CUT.sequences, pad=PAD)

    def networks(self, language_model: Callable[..., nn.Module]) -> ValueNetworks:
        start = Start(language_model(), language_model(), seed=0, returns=(1.0, 2.0))
        module = ilql.METHOD.build(start, ilql.Train())
        assert isinstance(module, ValueNetworks)
        return module

    def test_a_recording_that_was_cut_off_may_count_as_ended_and_a_window_never_does(
        self, language_model: Callable[..., nn.Module]
    ) -> None:
        train, module = ilql.Train(truncation="end"), self.networks(language_model)
        cut_off = cut(dataclasses.replace(TALK, ended=False), LETTERS, max_tokens=8).sequences
        _, terminal = outcomes(module, collate(cut_off, pad=PAD), train)
        assert terminal.nonzero().tolist() == [[2, 2]]

    def test_a_standardised_return_is_the_dialogues_and_stands_at_its_last_action(
        self, language_model: Callable[..., nn.Module]
    ) -> None:
        rewards, _ = outcomes(self.networks(language_model), self.BATCH, ilql.Train(rewards="standardised"))
        assert rewards.nonzero().tolist() == [[3, 1]]
        assert rewards[3, 1].item() == pytest.approx(1.0)  # (3 − 1) / 2

    def test_a_decision_transformer_is_told_the_dialogues_return(self) -> None:
        told = decision_transformer.lay_out(self.BATCH, each_turn=False).told
        assert told.tolist() == [[3.0]] * 4
        layout = decision_transformer.lay_out(self.BATCH, each_turn=True)
        assert layout.told[layout.is_told].tolist() == [3.0, 3.0, 3.0, 2.0]

    def test_what_follows_an_utterance_in_the_next_window_is_known(self) -> None:
        assert chai.known_utterances(self.BATCH).nonzero().tolist() == [[2, 0], [3, 1]]
