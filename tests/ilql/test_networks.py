"""Language models: built from sizes, loaded from a folder, refused in one line. And the networks made of them."""

from __future__ import annotations

import copy
import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig

from ilql import token_values
from ilql.checkpoint import WEIGHTS, load_weights, own_tensors, save_weights
from ilql.decode import Speaker, Voice
from ilql.language_model import (
    Architecture,
    Frozen,
    build_language_model,
    context_length,
    gather,
    hidden_states,
    hidden_width,
    load_language_model,
    trunk_of,
    vocabulary_size,
)
from ilql.method import Actor, Decoding, Manner, Start
from ilql.methods import ilql
from ilql.model_folder import check_model_folder, find_model
from ilql.networks import QNetwork, ValueNetworks, follow, head
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
        short, padded = torch.tensor([[5, 6, 7]]), torch.tensor([[5, 6, 7, 9, 9]])
        bare = hidden_states(trunk, short)
        assert torch.allclose(hidden_states(trunk, padded)[:, :3], bare, atol=1e-6)

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

    @pytest.mark.parametrize(
        ("config", "said"),
        [
            ({}, "must name a model_type"),
            ({"model_type": "llama"}, "must hold a causal language model"),
            ({"model_type": "no such thing"}, "must be one that Transformers has"),
        ],
    )
    def test_a_folder_without_weights_is_refused_in_one_line(
        self, tmp_path: Path, config: dict[str, str], said: str
    ) -> None:
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        with pytest.raises(ValueError, match=rf"^[^\n]*{said}[^\n]* {tmp_path}[^\n]*$"):
            load_language_model(tmp_path, vocabulary=26, seed=0)

    def test_truncated_weights_are_refused_in_one_line(self, tmp_path: Path) -> None:
        saved_model(tmp_path, tied=True)
        file = tmp_path / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(ValueError, match=r"^a model folder must hold a causal language model, got [^\n]*$"):
            load_language_model(tmp_path, vocabulary=26, seed=0)

    def test_a_gguf_file_is_found_by_its_path_and_needs_the_package_that_reads_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "model.gguf"
        with pytest.raises(ValueError, match="--model must be a folder or a name"):
            find_model(str(file))
        file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))  # neither tensors nor values
        assert find_model(str(file)) == file.absolute()
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        for load in (load_tokenizer, lambda file: load_language_model(file, vocabulary=26, seed=0)):
            with pytest.raises(
                ValueError, match=r"^a GGUF file needs the package gguf, which is not installed, got .*$"
            ):
                load(file)

    def test_a_folder_is_found_by_its_path(self, tmp_path: Path) -> None:
        assert find_model(str(tmp_path)) == tmp_path.absolute()


def constant_head(values: list[float]) -> nn.Sequential:
    """Give a head that says the same of every state."""
    made = head(4, len(values))
    last = made[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor(values))
    return made


class TestClip:
    HIDDEN = torch.zeros(1, 3, 4)

    def q(self, *value_range: float) -> QNetwork:
        heads = [constant_head([5.0, -5.0, 0.0]), constant_head([4.0, -6.0, 1.0])]  # the smaller: 4, -6, 0
        return QNetwork(nn.Identity(), heads, (value_range[0], value_range[1]))

    @pytest.mark.parametrize(
        ("low", "high", "expected"),
        [
            (-math.inf, math.inf, [4.0, -6.0, 0.0]),
            (-2.0, 3.0, [3.0, -2.0, 0.0]),
            (-math.inf, 3.0, [3.0, -6.0, 0.0]),
            (-2.0, math.inf, [4.0, -2.0, 0.0]),
        ],
    )
    def test_the_smaller_head_is_clipped_of_all_tokens_and_of_one(
        self, low: float, high: float, expected: list[float]
    ) -> None:
        q = self.q(low, high)
        assert q.minimum(self.HIDDEN)[0, 0].tolist() == pytest.approx(expected)
        assert q.minimum_of(self.HIDDEN, torch.tensor([[0, 1, 2]]))[0].tolist() == pytest.approx(expected)

    def test_the_heads_themselves_are_not(self) -> None:
        first, second = self.q(-2.0, 3.0).heads_at(self.HIDDEN)
        assert first[0, 0].tolist() == pytest.approx([5.0, -5.0, 0.0])
        assert second[0, 0].tolist() == pytest.approx([4.0, -6.0, 1.0])

    def test_only_the_targets_values_are_clipped(self, language_model: Callable[..., nn.Module]) -> None:
        model = language_model()
        module = token_values.build(Start(model, model, seed=0), ilql.Train(value_low=0.0, value_high=1e-3))
        assert isinstance(module, ValueNetworks)
        hidden = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
        assert module.target.minimum(hidden).min() >= 0
        assert module.target.minimum(hidden).max() <= 1e-3
        assert module.online.minimum(hidden).min() < 0
        assert module.online.minimum(hidden).max() > 1e-3


def value_networks(model: nn.Module, **settings: Any) -> ValueNetworks:
    module = token_values.build(Start(model, model, seed=0), ilql.Train(**settings))
    assert isinstance(module, ValueNetworks)
    return module


class TestSharedTrunk:
    """A target without a trunk of its own."""

    def test_its_heads_read_the_online_trunk_which_is_there_once(
        self, language_model: Callable[..., nn.Module]
    ) -> None:
        shared = value_networks(language_model(), target_trunk=False)
        own = value_networks(language_model())
        assert shared.target.trunk is shared.online.trunk
        saved = {name.split(".trunk.")[0] for name in own_tensors(shared) if ".trunk." in name}
        assert saved == {"online"}
        trunk = sum(p.numel() for p in own.target.trunk.parameters())
        assert sum(t.numel() for t in own_tensors(own).values()) - trunk == sum(
            t.numel() for t in own_tensors(shared).values()
        )

    def test_the_trunk_learns_and_the_targets_heads_do_not(self, language_model: Callable[..., nn.Module]) -> None:
        module = value_networks(language_model(), target_trunk=False)
        assert all(p.requires_grad for p in module.online.parameters())
        assert not any(p.requires_grad for p in module.target.q_heads.parameters())

    def test_the_trunk_drops_out_while_it_trains_and_the_targets_heads_never(
        self, language_model: Callable[..., nn.Module]
    ) -> None:
        module = value_networks(language_model(dropout=0.5), target_trunk=False)
        tokens = torch.tensor([[5, 6, 7]])
        for training in (True, False, True):
            module.train(training)
            states = [hidden_states(module.online.trunk, tokens) for _ in range(2)]
            assert torch.equal(*states) == (not training)
            assert not any(part.training for part in module.target.q_heads.modules())

    def test_a_target_with_a_trunk_of_its_own_never_drops_out(self, language_model: Callable[..., nn.Module]) -> None:
        module = value_networks(language_model(dropout=0.5)).train()
        tokens = torch.tensor([[5, 6, 7]])
        assert torch.equal(*(hidden_states(module.target.trunk, tokens) for _ in range(2)))
        assert not torch.equal(*(hidden_states(module.online.trunk, tokens) for _ in range(2)))

    def test_a_target_drops_out_where_that_is_asked_for_and_only_in_training(
        self, language_model: Callable[..., nn.Module]
    ) -> None:
        module = value_networks(language_model(dropout=0.5), target_dropout=True)
        tokens = torch.tensor([[5, 6, 7]])
        for training in (True, False):
            module.train(training)
            assert torch.equal(*(hidden_states(module.target.trunk, tokens) for _ in range(2))) == (not training)

    @torch.no_grad()
    def test_a_renewal_moves_the_heads_and_not_the_trunk(self, language_model: Callable[..., nn.Module]) -> None:
        module = value_networks(language_model(), target_trunk=False)
        trunk = copy.deepcopy(module.online.trunk.state_dict())
        weight = module.online.q_heads[0].get_parameter("2.weight")
        before = weight.clone()
        weight += 1.0
        follow(module, 0.25)
        assert torch.allclose(module.target.q_heads[0].get_parameter("2.weight"), before + 0.25)
        assert all(torch.equal(value, trunk[name]) for name, value in module.online.trunk.state_dict().items())

    def test_what_is_saved_is_loaded_and_still_shared(
        self, language_model: Callable[..., nn.Module], tmp_path: Path
    ) -> None:
        saved, loaded = (value_networks(language_model(seed=seed), target_trunk=False) for seed in (0, 1))
        save_weights(saved, tmp_path)
        assert not any(name.startswith("target.trunk") for name in load_file(tmp_path / WEIGHTS))
        load_weights(loaded, tmp_path)
        assert loaded.target.trunk is loaded.online.trunk
        assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in saved.state_dict().items())


@pytest.mark.parametrize("family", ["gpt2", "llama"])
class TestJointPolicy:
    """A policy that is cloned on the value trunk."""

    @torch.no_grad()
    def test_it_speaks_with_the_online_trunk_and_the_trained_head(
        self, language_model: Callable[..., nn.Module], family: str
    ) -> None:
        behaviour = language_model(family)
        module = value_networks(behaviour, separate_policy=False)
        generator = torch.Generator().manual_seed(0)
        for part in (module.online.trunk, module.policy_head):
            assert part is not None
            for parameter in part.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator))  # as if it had been trained
        actor = token_values.actor(module, behaviour)
        tokens = torch.tensor([[5, 6, 7, 8]])
        spoken = actor.language_model(tokens).logits
        states = hidden_states(module.online.trunk, tokens)
        assert torch.allclose(spoken, module.policy_head(states), atol=1e-5)
        assert not torch.allclose(spoken, behaviour(tokens).logits, atol=0.1)
        assert actor.critic is module.target

    def test_its_head_is_tied_to_nothing_and_begins_as_the_behaviour_policys(
        self, language_model: Callable[..., nn.Module], family: str
    ) -> None:
        behaviour: Any = language_model(family)
        assert behaviour.get_output_embeddings().weight is behaviour.get_input_embeddings().weight
        module = value_networks(behaviour, separate_policy=False)
        assert module.policy_head is not None
        words: Any = module.online.trunk.get_input_embeddings()  # type: ignore[operator]
        assert torch.equal(module.policy_head.weight, words.weight)
        assert behaviour.get_output_embeddings().weight is behaviour.get_input_embeddings().weight  # its own still are
        with torch.no_grad():
            module.policy_head.weight += 1.0
        assert not torch.equal(module.policy_head.weight, words.weight)
        tensors = own_tensors(module)
        assert "policy_head.weight" in tensors
        assert module.policy_head.weight.requires_grad

    @torch.no_grad()
    def test_acting_changes_neither_the_behaviour_policy_nor_what_is_trained(
        self, language_model: Callable[..., nn.Module], family: str
    ) -> None:
        behaviour = language_model(family)
        module = value_networks(behaviour, separate_policy=False)
        kept = copy.deepcopy([behaviour.state_dict(), module.state_dict()])
        acting = token_values.actor(module, behaviour).language_model
        for parameter in acting.parameters():
            parameter.zero_()
        for old, part in zip(kept, (behaviour, module), strict=True):
            assert all(torch.equal(value, old[name]) for name, value in part.state_dict().items())

    def test_what_is_saved_speaks_the_same_when_loaded(
        self, language_model: Callable[..., nn.Module], tmp_path: Path, family: str
    ) -> None:
        behaviour, other = language_model(family), language_model(family, seed=1)
        saved = value_networks(behaviour, separate_policy=False)
        with torch.no_grad():
            assert saved.policy_head is not None
            saved.policy_head.weight += torch.randn(saved.policy_head.weight.shape)
        save_weights(saved, tmp_path)
        loaded = value_networks(other, separate_policy=False)
        load_weights(loaded, tmp_path)
        tokens = torch.tensor([[5, 6, 7, 8]])
        one, two = (module.joint_policy(behaviour)(tokens).logits for module in (saved, loaded))
        assert torch.equal(one, two)


class TestFrozen:
    class Reader(nn.Module):
        """A network that reads a frozen language model."""

        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.own, self.frozen = nn.Linear(1, 1), Frozen(model)

    def test_it_is_neither_saved_nor_trained_with_its_reader(self, language_model: Callable[..., nn.Module]) -> None:
        reader = self.Reader(language_model())
        assert set(reader.state_dict()) == {"own.weight", "own.bias"}
        assert len(list(reader.parameters())) == 2

    def test_its_log_probabilities_are_the_models_own_and_constant(
        self, language_model: Callable[..., nn.Module]
    ) -> None:
        model = language_model(dropout=0.5)
        reader = self.Reader(model).train()  # the frozen model stays out of it
        tokens = torch.tensor([[5, 6, 7, 9]])
        log_pi = reader.frozen.log_probabilities(tokens, torch.tensor([[0, 2]]))
        expected = model(tokens[:, :3]).logits.log_softmax(-1)[:, [0, 2]]
        assert torch.allclose(log_pi, expected, atol=1e-5)
        assert not log_pi.requires_grad
        assert not any(p.requires_grad for p in model.parameters())


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
        said = speaker.speak([Voice(1, decode, Manner(), np.random.default_rng(0))])[0]
        assert list(said.tokens) == expected
        assert said.text.startswith(", there was a little girl named")

    def test_its_new_rows_are_shared_between_embedding_and_head(self, stories: Path) -> None:
        tokenizer = load_tokenizer(stories)
        model: Any = load_language_model(stories, vocabulary=tokenizer.size, seed=0)
        assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
        assert vocabulary_size(trunk_of(model)) == tokenizer.size == tokenizer.text_size + 6
