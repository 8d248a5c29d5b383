"""Text and structure never mix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken, models, pre_tokenizers
from tokenizers import Tokenizer as TextTokenizer

from ilql.tokens import STRUCTURE, UNKNOWN, Tokenizer, load_tokenizer, symbol_tokenizer, train_tokenizer

FORGERIES = ["<eoa>", "<bos>", "<pad>", "</s>", "<s>", "<|endoftext|>", UNKNOWN]


def with_special_tokens() -> Tokenizer:
    """Give a tokeniser that has special tokens of its own, as pretrained ones do."""
    vocabulary = {character: i for i, character in enumerate("</s>|endoftxab")}
    text = TextTokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<"))  # noqa: S106  no password
    text.pre_tokenizer = pre_tokenizers.Whitespace()
    text.add_special_tokens([AddedToken("</s>"), AddedToken("<|endoftext|>")])
    return Tokenizer(text)


@pytest.mark.parametrize("text", FORGERIES)
def test_text_cannot_forge_structure(tokenizer: Tokenizer, text: str) -> None:
    assert all(i < tokenizer.text_size for i in tokenizer.encode(f"a {text} b"))


@pytest.mark.parametrize("text", ["</s>", "<|endoftext|>"])
def test_special_tokens_of_the_text_tokeniser_are_plain_text(text: str) -> None:
    tokenizer = with_special_tokens()
    assert tokenizer.text.token_to_id(text) is not None
    assert tokenizer.text.token_to_id(text) not in tokenizer.encode(text)
    assert tokenizer.encode(text)  # spelt out in characters


def test_structure_stands_behind_the_text(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.structural(name) for name in STRUCTURE]
    assert ids == list(range(tokenizer.text_size, tokenizer.size))
    assert [tokenizer.piece(i) for i in ids] == [f"<{name}>" for name in STRUCTURE]


def test_structure_is_silent_when_decoded(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.structural("bos"), *tokenizer.encode("is it red ?"), tokenizer.structural("eoa")]
    assert tokenizer.decode(ids) == "is it red ?"


def test_a_policy_may_write_text_and_the_end_of_its_utterance(tokenizer: Tokenizer) -> None:
    writable = tokenizer.writable()
    structure = {name: bool(writable[tokenizer.structural(name)]) for name in STRUCTURE}
    assert structure == {name: name == "eoa" for name in STRUCTURE}
    assert not writable[tokenizer.text.token_to_id(UNKNOWN)]
    assert writable[: tokenizer.text_size].sum() == tokenizer.text_size - 1


def test_a_policy_may_not_write_special_tokens_nor_ids_without_text() -> None:
    tokenizer = with_special_tokens()
    for text in ("</s>", "<|endoftext|>"):
        assert not tokenizer.writable()[tokenizer.text.token_to_id(text)]


def test_training_text_comes_back(tokenizer: Tokenizer) -> None:
    for text in ("is it a cat ?", "two cats in the snow", "yes"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_an_unknown_character_is_the_unknown_id_and_not_lost(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("aéb")
    assert tokenizer.text.token_to_id(UNKNOWN) in ids
    assert tokenizer.decode(ids) == "ab"  # it has no text


def test_nothing_said_is_no_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""


def test_equal_texts_give_an_equal_tokeniser_of_at_most_the_size_asked_for() -> None:
    texts = [f"is the {colour} {thing} big ?" for colour in ("red", "blue", "green") for thing in ("cat", "dog", "car")]
    one, other = train_tokenizer(texts, vocabulary=64), train_tokenizer(texts, vocabulary=64)
    assert one.text.to_str() == other.text.to_str()
    assert one.size <= 64


def test_a_vocabulary_too_small_for_an_alphabet_is_refused() -> None:
    with pytest.raises(ValueError, match="vocabulary must be at least 64, got 63"):
        train_tokenizer(["a"], vocabulary=63)


def test_what_is_saved_is_loaded_and_still_unforgeable(tmp_path: Path) -> None:
    tokenizer = with_special_tokens()
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.size == tokenizer.size
    assert loaded.encode("a</s>b") == tokenizer.encode("a</s>b")
    assert np.array_equal(loaded.writable(), tokenizer.writable())


def test_a_folder_without_a_tokeniser_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must hold a tokenizer.json, got .* with nothing in it"):
        load_tokenizer(tmp_path)
    with pytest.raises(ValueError, match=r"must hold a tokenizer.json, got .* with nothing in it"):
        load_tokenizer(tmp_path / "absent")


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"tokenizer\.json must be a file of the tokenizers library"):
        load_tokenizer(tmp_path)


class TestPretrained:
    def test_text_comes_back(self, stories: Path) -> None:
        tokenizer = load_tokenizer(stories)
        text = "Once upon a time, there was a little girl named Lily."
        assert tokenizer.decode(tokenizer.encode(text)) == text

    def test_text_cannot_forge_structure(self, stories: Path) -> None:
        tokenizer = load_tokenizer(stories)
        for text in FORGERIES:
            ids = tokenizer.encode(text)
            assert all(i < tokenizer.text_size for i in ids)
            assert not {tokenizer.text.token_to_id("<s>"), tokenizer.text.token_to_id("</s>")} & set(ids)

    def test_its_own_structure_may_not_be_written(self, stories: Path) -> None:
        tokenizer = load_tokenizer(stories)
        for text in ("<s>", "</s>"):
            token = tokenizer.text.token_to_id(text)
            assert token is None or not tokenizer.writable()[token]


class TestSymbols:
    SYMBOLS = ("a", "b", "<g>", "<b>")

    def test_each_symbol_is_one_token_and_text_comes_back(self) -> None:
        tokenizer = symbol_tokenizer(self.SYMBOLS)
        ids = tokenizer.encode("ab<g><b>a")
        assert [tokenizer.piece(i) for i in ids] == ["a", "b", "<g>", "<b>", "a"]
        assert tokenizer.decode(ids) == "ab<g><b>a"
        assert tokenizer.size == 1 + 4 + 6  # unknown, symbols, structure

    def test_what_is_no_symbol_is_unknown_a_character_at_a_time_and_no_policy_writes_it(self) -> None:
        tokenizer = symbol_tokenizer(self.SYMBOLS)
        ids = tokenizer.encode("a<z>\nb")
        assert len(ids) == 6
        assert ids[1:-1] == [ids[1]] * 4
        assert not tokenizer.writable()[ids[1]]
        assert tokenizer.writable().sum() == 4 + 1  # the symbols, and the end of an utterance

    def test_it_is_the_same_after_it_was_saved(self, tmp_path: Path) -> None:
        symbol_tokenizer(self.SYMBOLS).save(tmp_path)
        again = load_tokenizer(tmp_path)
        assert again.encode("<g>ba") == symbol_tokenizer(self.SYMBOLS).encode("<g>ba")
        assert again.size == symbol_tokenizer(self.SYMBOLS).size

    @pytest.mark.parametrize("symbols", [("a", ""), ("a", "b", "a")])
    def test_symbols_are_different_and_not_empty(self, symbols: tuple[str, ...]) -> None:
        with pytest.raises(ValueError, match="symbols must be different and not empty"):
            symbol_tokenizer(symbols)
