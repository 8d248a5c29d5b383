"""Language models: built from sizes, loaded from a folder, refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig

from ilql.decode import Speaker, Voice
from ilql.method import Actor, Decoding
from ilql.networks import (
    Architecture,
    build_language_model,
    check_model_folder,
    context_length,
    find_model,
    gather,
    hidden_states,
    hidden_width,
    load_language_model,
    trunk_of,
    vocabulary_size,
)
from ilql.tokens import load_tokenizer

PROMPT = "Once upon a time"


class TestBuilding:
    @pytest.mark.parametrize("family", ["gpt2", "llama"])
    def test_sizes_are_those_asked_for(self, family: str) -> None:
        sizes = Architecture(family=family, layers=1, width=8, heads=2, context=32)
        trunk = trunk_of(model := build_language_model(sizes, vocabulary=70, seed=0))
        assert (hidden_width(trunk), vocabulary_size(trunk), context_length(model)) == (8, 70, 32)

    def test_equal_seeds_give_equal_weights_and_leave_the_global_generator_alone(self) -> None:
        torch.manual_seed(0)
        expected = torch.rand(1)
        torch.manual_seed(0)
        sizes = Architecture(layers=1, width=8, heads=2, context=32)
        one, same, other = (build_language_model(sizes, vocabulary=70, seed=seed).state_dict() for seed in (1, 1, 2))
        assert torch.rand(1) == expected
        assert all(torch.equal(value, same[name]) for name, value in one.items())
        assert not all(torch.equal(value, other[name]) for name, value in one.items())

    def test_a_width_that_the_heads_do_not_share_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"width must be a multiple of heads \(3\), got 8"):
            Architecture(width=8, heads=3)

    @torch.no_grad()
    def test_padding_does_not_move_a_hidden_state(self, language_model: Callable[..., nn.Module]) -> None:
        trunk = trunk_of(language_model())
        short, ones = torch.tensor([[5, 6, 7]]), torch.ones(1, 5, dtype=torch.bool)
        padded, mask = torch.tensor([[5, 6, 7, 9, 9]]), torch.tensor([[True, True, True, False, False]])
        bare = hidden_states(trunk, short, ones[:, :3])
        assert torch.allclose(hidden_states(trunk, padded, mask)[:, :3], bare, atol=1e-6)

    def test_gather_reads_the_positions_of_each_row(self) -> None:
        states = torch.arange(6.0).view(2, 3, 1)
        assert gather(states, torch.tensor([[2, 0], [1, 1]])).squeeze(-1).tolist() == [[2.0, 0.0], [4.0, 4.0]]


def saved_model(folder: Path, *, tied: bool, rows: int = 20) -> dict[str, Tensor]:
    """Write a tiny random Llama into a folder; give its weights."""
    config = LlamaConfig(
        vocab_size=rows, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=32, tie_word_embeddings=tied,
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    factory: Any = AutoModelForCausalLM
    model = factory.from_config(config)
    model.save_pretrained(folder)
    return {name: value.clone() for name, value in model.state_dict().items()}


class TestLoading:
    @pytest.mark.parametrize("tied", [True, False])
    def test_structural_rows_come_behind_the_text_and_begin_near_its_mean(self, tmp_path: Path, tied: bool) -> None:
        before = saved_model(tmp_path, tied=tied)
        after = load_language_model(tmp_path, vocabulary=26, seed=0).state_dict()
        names = ["model.embed_tokens.weight", "lm_head.weight"]
        for name in names:
            known, new = before[name], after[name][20:]
            assert torch.equal(after[name][:20], known)
            assert (new - known.mean(dim=0)).abs().max() < 0.06 * known.std()  # six rows of a hundredth's spread
            assert len({tuple(row.tolist()) for row in new}) == 6
        assert torch.equal(after[names[0]][20:], after[names[1]][20:]) == tied

    def test_rows_a_model_has_beyond_the_text_are_made_the_structure(self, tmp_path: Path) -> None:
        before = saved_model(tmp_path, tied=True, rows=30)["lm_head.weight"]
        after = load_language_model(tmp_path, vocabulary=26, seed=0).state_dict()["lm_head.weight"]
        assert len(after) == 26
        assert torch.equal(after[:20], before[:20])
        assert (after[20:] - before[:20].mean(dim=0)).abs().max() < 0.06 * before[:20].std()

    def test_the_seed_decides_the_new_rows(self, tmp_path: Path) -> None:
        saved_model(tmp_path, tied=True)
        one, same, other = (
            load_language_model(tmp_path, vocabulary=26, seed=seed).state_dict()["lm_head.weight"] for seed in (1, 1, 2)
        )
        assert torch.equal(one, same)
        assert not torch.equal(one, other)

    def test_a_folder_that_is_no_model_is_refused_in_one_line(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"^--model must be a folder with a config.json and weights, got [^\n]*$"):
            load_language_model(tmp_path, vocabulary=26, seed=0)
        (tmp_path / "config.json").write_text("{", encoding="utf-8")
        with pytest.raises(ValueError, match=r"^config.json must be a JSON file, got [^\n]*$"):
            check_model_folder(tmp_path)

    @pytest.mark.parametrize("config", [{}, {"model_type": "llama"}, {"model_type": "no such thing"}])
    def test_a_folder_without_weights_is_refused_in_one_line(self, tmp_path: Path, config: dict[str, str]) -> None:
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        with pytest.raises(ValueError, match=r"^a model folder must hold a causal language model, got [^\n]*$"):
            load_language_model(tmp_path, vocabulary=26, seed=0)

    def test_truncated_weights_are_refused_in_one_line(self, tmp_path: Path) -> None:
        saved_model(tmp_path, tied=True)
        file = tmp_path / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(ValueError, match=r"^a model folder must hold a causal language model, got [^\n]*$"):
            load_language_model(tmp_path, vocabulary=26, seed=0)

    def test_a_folder_is_found_by_its_path(self, tmp_path: Path) -> None:
        assert find_model(str(tmp_path)) == tmp_path.absolute()


class TestPretrained:
    """The small story model that lies beside the project, where it does."""

    def test_our_greedy_words_are_those_of_transformers(self, stories: Path) -> None:
        tokenizer = load_tokenizer(stories)
        factory: Any = AutoModelForCausalLM
        original = factory.from_pretrained(str(stories), local_files_only=True)
        prompt = [original.config.bos_token_id, *tokenizer.encode(PROMPT)]
        expected = original.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), do_sample=False, max_new_tokens=30
        )[0, len(prompt) :].tolist()

        model = load_language_model(stories, vocabulary=tokenizer.size, seed=0)
        speaker = Speaker(Actor(model, None), tokenizer, slots=2, device=torch.device("cpu"))
        speaker.hear(1, prompt)
        decode = Decoding(max_new_tokens=30)
        said = speaker.speak([Voice(1, decode, 0.0, np.random.default_rng(0))])[0]
        assert list(said.tokens) == expected
        assert said.text.startswith(", there was a little girl named")

    def test_its_new_rows_are_shared_between_embedding_and_head(self, stories: Path) -> None:
        tokenizer = load_tokenizer(stories)
        model: Any = load_language_model(stories, vocabulary=tokenizer.size, seed=0)
        assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
        assert vocabulary_size(trunk_of(model)) == tokenizer.size == tokenizer.text_size + 6
