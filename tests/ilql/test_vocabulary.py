"""A cut vocabulary: the training data stays as it is, other text is spelt, what is left of the model is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as TextTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PhiConfig

from ilql.batch import TokenBatch, collate, tokenize
from ilql.dialogue import Dialogue, Turn
from ilql.language_model import (
    gather,
    hidden_states,
    load_language_model,
    reload_language_model,
    trunk_of,
    vocabulary_size,
    whole_language_model,
)
from ilql.losses import weighted_nll
from ilql.methods import bc
from ilql.tokens import STRUCTURE, Tokenizer, cut_tokenizer, load_tokenizer, symbol_tokenizer
from ilql.vocabulary import kept_tokens, token_pieces

CORPUS = ["once there was a cat in the snow", "is it a red cat or a white dog ?", "the dog was there, too"]
TEXTS = ["is it a cat ?", "the dog was red", "", "is it a cat ?"]
STORY = ["once upon a time", "there was a little girl named Lily", "yes"]
STRANGE = ["tomorrow", "née 漢字 😀", "<|endoftext|></s><unk>", "\n\n  x\t", "\x00\u2028�", "▁a ▁▁", "cats catcat"]


def byte_level() -> Tokenizer:
    """A byte-pair tokeniser as GPT-2's: all bytes, merges of them, and an end of text."""
    text = TextTokenizer(models.BPE())
    text.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    text.decoder = decoders.ByteLevel()
    text.train_from_iterator(
        CORPUS * 2,
        trainer=trainers.BpeTrainer(
            vocab_size=320,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=["<|endoftext|>"],
            show_progress=False,
        ),
    )
    return Tokenizer(text)


def byte_fallback() -> Tokenizer:
    """A tokeniser as Llama's: characters and merges of them, blanks as `▁`, and bytes for characters it has not."""
    merges = [("▁", "c"), ("a", "t"), ("▁c", "at"), ("▁", "a"), ("▁", "d"), ("o", "g"), ("▁d", "og"), ("▁cat", "s")]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *(a + b for a, b in merges)]
    tokens += ["▁", *"abcdefghinorstw?", "é"]
    model = models.BPE(
        vocab={token: number for number, token in enumerate(tokens)}, merges=merges, unk_token="<unk>",  # noqa: S106
        fuse_unk=True, byte_fallback=True,
    )  # fmt: skip
    text = TextTokenizer(model)
    text.add_special_tokens(["<unk>", "<s>", "</s>"])
    text.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    text.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return Tokenizer(text)


KINDS = {"byte_level": byte_level(), "byte_fallback": byte_fallback()}
CUT = {kind: cut_tokenizer(whole, TEXTS) for kind, whole in KINDS.items()}
BOTH = pytest.mark.parametrize("kind", sorted(KINDS))


def names(tokenizer: Tokenizer, text: str) -> list[str | None]:
    """The tokens of a text as the text tokeniser calls them."""
    return [tokenizer.text.id_to_token(int(tokenizer.rows[i])) for i in tokenizer.encode(text)]


class TestPieces:
    def test_a_token_is_its_first_merge_else_its_characters_or_bytes(self) -> None:
        vocabulary = {"a": 0, "b": 1, "ab": 2, "bb": 3, "abb": 4, "ba": 5, "<0xC3>": 6, "<0xA9>": 7, "é": 8, "aé": 9}
        merges = [("a", "b"), ("b", "b"), ("a", "bb"), ("ab", "b")]  # abb is made of a and bb before of ab and b
        assert token_pieces(vocabulary, merges) == {2: (0, 1), 3: (1, 1), 4: (0, 3), 5: (1, 0), 8: (6, 7), 9: (0, 8)}

    def test_nothing_is_known_of_a_token_whose_bytes_are_no_tokens(self) -> None:
        assert token_pieces({"é": 0, "<0xC3>": 1, "éé": 2, "xx": 3}, []) == {2: (0, 0)}


def test_a_token_whose_pieces_read_otherwise_inside_a_text_is_kept() -> None:
    vocabulary = {"_a": 0, "a": 1, "aa": 2, "<0x5F>": 3}
    said = [
        " a",
        "a",
        "aa",
        "",
    ]  # a byte that is not said: at a text's beginning, where blanks are cut off, none sees it
    assert kept_tokens({1}, vocabulary, [], lambda ids: "".join(said[i] for i in ids).lstrip()) == (0, 1, 3)


class TestTokens:
    @BOTH
    def test_the_texts_it_was_cut_to_have_the_tokens_they_had(self, kind: str) -> None:
        for text in TEXTS:
            assert CUT[kind].rows[CUT[kind].encode(text)].tolist() == KINDS[kind].encode(text)

    @pytest.mark.parametrize(
        ("kind", "spelling"),
        [
            ("byte_level", {"<|endoftext|>", *pre_tokenizers.ByteLevel.alphabet()}),
            ("byte_fallback", {"<unk>", "<s>", "</s>", "▁", *(f"<0x{byte:02X}>" for byte in range(256))}),
        ],
    )
    def test_what_occurs_is_kept_and_what_spells_the_rest_and_nothing_else(self, kind: str, spelling: set[str]) -> None:
        whole, cut = KINDS[kind], CUT[kind]
        occurring = {whole.text.id_to_token(i) for text in TEXTS for i in whole.encode(text)}
        assert {whole.text.id_to_token(i) for i in cut.kept or ()} == occurring | spelling
        assert cut.text_size < whole.text_size

    def test_a_word_that_does_not_occur_is_spelt_by_undoing_merges_down_to_what_does(self) -> None:
        whole = byte_fallback()
        cut = cut_tokenizer(whole, ["a cat"])  # ▁a ▁cat
        assert (names(whole, "cats"), names(cut, "cats")) == (["▁cats"], ["▁cat", "<0x73>"])  # s is a byte: it fell
        assert (names(whole, "dog"), names(cut, "dog")) == (["▁dog"], ["▁", "<0x64>", "<0x6F>", "<0x67>"])

    def test_a_blank_is_kept_though_none_stands_alone_since_its_bytes_are_no_blank(self) -> None:
        whole = byte_fallback()
        blank = whole.text.token_to_id("▁")
        assert blank not in whole.encode("a cat")
        assert blank in (cut_tokenizer(whole, ["a cat"]).kept or ())

    def test_a_character_is_its_bytes_where_those_are_tokens(self) -> None:
        assert names(KINDS["byte_fallback"], "é") == ["▁", "é"]
        assert names(CUT["byte_fallback"], "é") == ["▁", "<0xC3>", "<0xA9>"]

    def test_a_tokeniser_with_neither_merges_nor_bytes_keeps_all(self) -> None:
        text = TextTokenizer(models.WordLevel({"?": 0, "a": 1, "t": 2, "at": 3}, unk_token="?"))  # noqa: S106
        text.pre_tokenizer = pre_tokenizers.Whitespace()  # read apart, `a t` is not `at`
        cut = cut_tokenizer(Tokenizer(text), ["a"])
        assert cut.kept == (0, 1, 2, 3)

    def test_where_characters_are_read_as_one_word_they_spell_it(self) -> None:
        whole = symbol_tokenizer(["a", "b", "ab"])
        cut = cut_tokenizer(whole, ["a"])
        assert cut.text_size == whole.text_size - 1
        assert cut.decode(cut.encode("abb")) == "abb"

    @BOTH
    @given(text=st.one_of(st.text(max_size=40), st.sampled_from(STRANGE), st.text(st.sampled_from("cat dogs?é"))))
    def test_any_text_comes_back_in_ids_of_text(self, kind: str, text: str) -> None:
        whole, cut = KINDS[kind], CUT[kind]
        ids = cut.encode(text)
        assert cut.decode(ids) == whole.decode(whole.encode(text))
        assert all(0 <= i < cut.text_size for i in ids)
        assert len(ids) >= len(whole.encode(text))

    @given(text=st.text(max_size=40))
    def test_with_bytes_that_is_the_text_itself(self, text: str) -> None:
        assert CUT["byte_level"].decode(CUT["byte_level"].encode(text)) == text.strip()

    @BOTH
    def test_structure_stands_behind_the_kept_text_and_means_the_same(self, kind: str) -> None:
        whole, cut = KINDS[kind], CUT[kind]
        assert [cut.structural(name) for name in STRUCTURE] == list(range(cut.text_size, cut.size))
        for name in STRUCTURE:
            assert cut.rows[cut.structural(name)] == whole.structural(name)
            assert cut.piece(cut.structural(name)) == f"<{name}>"
        assert cut.decode([cut.structural("bos"), *cut.encode("a cat"), cut.structural("eoa")]) == "a cat"

    @BOTH
    def test_a_policy_may_write_what_it_might_before(self, kind: str) -> None:
        whole, cut = KINDS[kind], CUT[kind]
        may = {int(cut.rows[i]) for i in np.flatnonzero(cut.writable())}
        assert may == set(np.flatnonzero(whole.writable()).tolist()) & set(cut.rows.tolist())
        assert cut.writable()[cut.structural("eoa")]

    def test_a_piece_is_shown_as_it_was(self) -> None:
        whole, cut = KINDS["byte_level"], CUT["byte_level"]
        assert [cut.piece(i) for i in range(cut.text_size)] == [whole.piece(int(i)) for i in cut.rows[: cut.text_size]]

    @BOTH
    def test_what_is_saved_is_loaded(self, tmp_path: Path, kind: str) -> None:
        cut = CUT[kind]
        cut.save(tmp_path)
        again = load_tokenizer(tmp_path)
        assert again.kept == cut.kept
        for text in (*TEXTS, *STRANGE):
            assert again.encode(text) == cut.encode(text)
        assert again.whole.encode("tomorrow") == KINDS[kind].encode("tomorrow")

    def test_cutting_again_cuts_the_whole_one(self) -> None:
        whole = KINDS["byte_level"]
        once = cut_tokenizer(whole, ["is it"])
        assert cut_tokenizer(once, ["the dog"]).kept == cut_tokenizer(whole, ["the dog"]).kept

    @pytest.mark.parametrize("kept", [(), (3, 2), (2, 2), (-1, 2), (2, 10_000)])
    def test_kept_ids_are_increasing_and_the_texts_own(self, kept: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="kept must be increasing ids below"):
            Tokenizer(KINDS["byte_level"].text, kept)


PAD = min(set(range(CUT["byte_level"].text_size)) - set(CUT["byte_level"].kept or ()))
"""A token that does not occur, and whose number another one has that does."""

MODELS: dict[str, Any] = {
    "gpt2, tied": GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=64, pad_token_id=PAD),
    "llama, not tied": LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=64,
        tie_word_embeddings=False, pad_token_id=PAD,
    ),
    "phi, a bias in the head": PhiConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=64
    ),
}  # fmt: skip
EVERY_MODEL = pytest.mark.parametrize("model", sorted(MODELS))


@pytest.fixture
def pretrained(tmp_path: Path, model: str) -> Path:
    """Give the folder of a tiny model with the byte-level tokeniser's vocabulary and one spare row."""
    config = MODELS[model]
    config.vocab_size = KINDS["byte_level"].text_size + 1
    config.bos_token_id = config.eos_token_id = 0
    folder = tmp_path / "pretrained"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        factory: Any = AutoModelForCausalLM
        made = factory.from_config(config)
        for parameter in made.parameters():
            nn.init.normal_(parameter, std=0.3)
    made.save_pretrained(folder)
    return folder


def loaded(folder: Path, whole: Tokenizer, cut: Tokenizer) -> tuple[Any, Any]:
    """The whole model and the cut one."""
    return (
        load_language_model(folder, vocabulary=whole.size, seed=3),
        load_language_model(folder, vocabulary=whole.size, seed=3, rows=cut.rows.tolist()),
    )


def check_same_function(folder: Path, whole: Tokenizer, cut: Tokenizer, texts: list[str]) -> None:
    """Logits of kept tokens are equal to the bit, and the cloning loss is the whole model's among kept tokens."""
    before, after = (model.double() for model in loaded(folder, whole, cut))
    assert vocabulary_size(trunk_of(after)) == cut.size == after.config.vocab_size
    dialogues = [Dialogue((Turn(text, False), Turn(texts[0], True, 1.0)), ended=True) for text in texts]
    old = collate([tokenize(each, whole) for each in dialogues], pad=whole.structural("pad"))
    new = collate([tokenize(each, cut) for each in dialogues], pad=cut.structural("pad"))
    rows = torch.from_numpy(cut.rows)
    assert torch.equal(rows[new.tokens], old.tokens)
    with torch.no_grad():
        logits = before(old.tokens, attention_mask=old.attention_mask.long()).logits[..., rows]
        assert torch.allclose(
            after(new.tokens, attention_mask=new.attention_mask.long()).logits, logits, rtol=1e-12, atol=1e-12
        )
        # A matrix product may sum in another order where it has another width; summed in one order no bit differs.
        assert torch.equal(_logits(after, new), _logits(before, old)[..., rows])
    ours = bc.loss(after, new, new.action_mask.double(), bc.Train()).total
    states = gather(hidden_states(trunk_of(before), old.tokens), old.action_positions)
    among = before.get_output_embeddings()(states)[..., rows]
    weights = old.action_mask.double()
    expected = weighted_nll(among, new.actions, torch.ones_like(weights), weights)
    assert ours.item() == pytest.approx(expected.item(), rel=1e-14)
    ours.backward()
    expected.backward()
    wanted, got = (model.get_input_embeddings().weight.grad for model in (before, after))
    assert torch.allclose(got, wanted[rows], rtol=1e-12, atol=1e-15)


def _logits(model: Any, batch: TokenBatch) -> Tensor:
    """The logits, shape (B, T, V), every one summed by itself."""
    hidden, head = hidden_states(trunk_of(model), batch.tokens), model.get_output_embeddings()
    logits = (hidden.unsqueeze(-2) * head.weight).sum(-1)
    return logits if head.bias is None else logits + head.bias


def changed(weights: dict[str, Tensor], others: dict[str, Tensor]) -> set[str]:
    return {name for name, value in weights.items() if not torch.equal(value, others[name])}


class TestModel:
    @EVERY_MODEL
    def test_it_is_the_whole_model_among_kept_tokens(self, pretrained: Path) -> None:
        check_same_function(pretrained, KINDS["byte_level"], CUT["byte_level"], TEXTS)

    @EVERY_MODEL
    def test_it_comes_back_from_a_folder(self, pretrained: Path, tmp_path: Path, model: str) -> None:
        _, cut = loaded(pretrained, KINDS["byte_level"], CUT["byte_level"])
        cut.save_pretrained(tmp_path / "cut")
        again: Any = reload_language_model(tmp_path / "cut")
        assert changed(cut.state_dict(), again.state_dict()) == set()
        assert again.get_input_embeddings().padding_idx is None
        tied = again.get_input_embeddings().weight is again.get_output_embeddings().weight
        assert tied == (model == "gpt2, tied")

    @EVERY_MODEL
    def test_uncut_untrained_it_is_the_pretrained_model(self, pretrained: Path) -> None:
        whole, cut = KINDS["byte_level"], CUT["byte_level"]
        before, small = loaded(pretrained, whole, cut)
        back = whole_language_model(small, pretrained, vocabulary=whole.size, seed=3, rows=cut.rows.tolist())
        assert changed(before.state_dict(), back.state_dict()) == set()
        original = reload_language_model(pretrained).state_dict()
        for name, value in back.state_dict().items():
            if len(value) == whole.size:
                assert torch.equal(value[: whole.text_size], original[name][: whole.text_size])
            else:
                assert torch.equal(value, original[name])

    @EVERY_MODEL
    def test_uncut_trained_its_kept_rows_are_the_trained_ones_and_the_others_as_they_were(
        self, pretrained: Path
    ) -> None:
        whole, cut = KINDS["byte_level"], CUT["byte_level"]
        before, small = loaded(pretrained, whole, cut)
        with torch.no_grad():
            for parameter in small.parameters():
                parameter.add_(1.0)
        back = whole_language_model(small, pretrained, vocabulary=whole.size, seed=3, rows=cut.rows.tolist())
        left_out = np.setdiff1d(np.arange(whole.size), cut.rows)
        assert len(left_out) > 10
        for name, value in back.state_dict().items():
            trained, old = small.state_dict()[name], before.state_dict()[name]
            if len(value) == whole.size:
                assert torch.equal(value[cut.rows], trained)
                assert torch.equal(value[left_out], old[left_out])
            else:
                assert torch.equal(value, trained)


class TestPretrained:
    """The small story model that lies beside the project, where it does."""

    def test_any_text_comes_back(self, stories: Path) -> None:
        whole = load_tokenizer(stories)
        cut = cut_tokenizer(whole, STORY)
        assert 256 < cut.text_size < 300 < whole.text_size  # bytes are half of its 512 tokens

        @given(text=st.one_of(st.text(max_size=40), st.sampled_from(STRANGE)))
        def check(text: str) -> None:
            ids = cut.encode(text)
            assert cut.decode(ids) == whole.decode(whole.encode(text))
            assert all(0 <= i < cut.text_size for i in ids)

        check()

    def test_it_is_the_whole_model_among_kept_tokens(self, stories: Path) -> None:
        whole = load_tokenizer(stories)
        check_same_function(stories, whole, cut_tokenizer(whole, STORY), STORY)

    def test_uncut_untrained_it_is_the_pretrained_model(self, stories: Path) -> None:
        whole = load_tokenizer(stories)
        cut = cut_tokenizer(whole, STORY)
        before, small = loaded(stories, whole, cut)
        back = whole_language_model(small, stories, vocabulary=whole.size, seed=3, rows=cut.rows.tolist())
        assert changed(before.state_dict(), back.state_dict()) == set()
        rows = reload_language_model(stories).state_dict()["lm_head.weight"]
        assert torch.equal(back.state_dict()["lm_head.weight"][: whole.text_size], rows)
