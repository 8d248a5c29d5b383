"""Any causal language model of Transformers as a backbone: loaded, trained, led in slots, resumed, its vocabulary cut.

The models are tiny and random, made here from their families' configurations. Windows are eight tokens, so that what
looks back through one sees less than the conversations hold.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from ilql import token_values
from ilql.batch import TokenBatch, TokenSequence, collate, dialogue_weights
from ilql.checkpoint import own_tensors
from ilql.decode import Speaker, Voice
from ilql.language_model import context_length, load_language_model, reload_language_model
from ilql.method import Actor, Decoding, Manner, Start
from ilql.methods import bc, ilql
from ilql.model_folder import find_model
from ilql.networks import QNetwork, ValueNetworks
from ilql.slots import ROW_FAMILIES
from ilql.tokens import Tokenizer
from ilql.train import Loop, train

CPU = torch.device("cpu")
CONTEXT, WINDOW = 96, 8
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": CONTEXT}
LLAMA = SIZES | {"intermediate_size": 32, "num_key_value_heads": 2}
NARROW = LLAMA | {"head_dim": 8, "sliding_window": WINDOW}  # heads of another width than 16 / 4
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT},
    "llama": LLAMA,
    "qwen2": LLAMA | {"tie_word_embeddings": True},
    "qwen3": LLAMA | {"head_dim": 8, "tie_word_embeddings": True},
    "mistral": NARROW,
    "gemma": LLAMA | {"head_dim": 8, "num_key_value_heads": 1},
    "gemma3_text": NARROW | {"num_key_value_heads": 1, "layer_types": ["sliding_attention", "full_attention"]},
    "gpt_neox": SIZES | {"intermediate_size": 32},
    "opt": SIZES | {"ffn_dim": 32, "word_embed_proj_dim": 16},
    "phi": LLAMA,
}
NO_TOKENS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def saved(family: str, rows: int, folder: Path, **others: Any) -> nn.Module:
    """Write a random model of a family into a folder; its weights are so wide that what it says varies."""
    config = AutoConfig.for_model(family, vocab_size=rows, **NO_TOKENS, **CONFIGS.get(family, LLAMA), **others)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        factory: Any = AutoModelForCausalLM
        model: Any = factory.from_config(config, attn_implementation="sdpa").eval()
        for parameter in model.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.4)
    model.save_pretrained(folder)
    result: nn.Module = model
    return result


@pytest.fixture(scope="module", params=CONFIGS)
def folder(request: pytest.FixtureRequest, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a model that has the tokeniser's text ids."""
    folder = tmp_path_factory.mktemp(request.param)
    saved(request.param, tokenizer.text_size, folder)
    return folder


@pytest.fixture
def model(folder: Path, tokenizer: Tokenizer) -> nn.Module:
    return load_language_model(folder, vocabulary=tokenizer.size, seed=0)


@pytest.fixture
def batch(pulls: list[TokenSequence], tokenizer: Tokenizer) -> TokenBatch:
    return collate(pulls[:4], pad=tokenizer.structural("pad"))


def random_ids(count: int, tokenizer: Tokenizer, seed: int) -> list[int]:
    return np.random.default_rng(seed).integers(1, tokenizer.text_size, count).tolist()  # type: ignore[no-any-return]


class TestLoading:
    @torch.no_grad()
    def test_on_text_it_is_the_model_that_was_saved(self, folder: Path, model: nn.Module, tokenizer: Tokenizer) -> None:
        factory: Any = AutoModelForCausalLM
        original = factory.from_pretrained(str(folder), attn_implementation="sdpa")
        tokens = torch.tensor([random_ids(3 * WINDOW, tokenizer, 0)])
        assert torch.equal(model(tokens).logits[..., : tokenizer.text_size], original(tokens).logits)
        assert context_length(model) == CONTEXT

    @torch.no_grad()
    def test_written_with_its_new_rows_and_read_again_it_is_the_same(
        self, model: Any, tokenizer: Tokenizer, tmp_path: Path
    ) -> None:
        model.save_pretrained(tmp_path)
        tokens = torch.tensor([[tokenizer.structural("bos"), *random_ids(12, tokenizer, 0)]])
        assert torch.equal(reload_language_model(tmp_path)(tokens).logits, model(tokens).logits)

    @torch.no_grad()
    def test_a_cut_vocabulary_says_of_kept_tokens_what_the_whole_one_says(
        self, folder: Path, model: nn.Module, tokenizer: Tokenizer, batch: TokenBatch
    ) -> None:
        rows = sorted({*batch.tokens.unique().tolist(), 1, 2, tokenizer.structural("eod")})
        cut = load_language_model(folder, vocabulary=tokenizer.size, seed=0, rows=rows)
        places = torch.zeros(tokenizer.size, dtype=torch.long)
        places[rows] = torch.arange(len(rows))
        kept = model(batch.tokens).logits[..., rows]
        assert torch.allclose(cut(places[batch.tokens]).logits, kept, atol=1e-5)
        at = kept.gather(1, batch.action_positions[..., None].expand(-1, -1, len(rows)))
        nll = -at.log_softmax(-1).gather(-1, places[batch.actions][..., None]).squeeze(-1)
        weights = dialogue_weights(batch.action_mask)
        renewed = TokenBatch(**{**vars(batch), "tokens": places[batch.tokens], "actions": places[batch.actions]})
        loss = bc.loss(cut, renewed, weights, bc.Train()).total
        assert loss.item() == pytest.approx(((nll * weights).sum() / weights.sum()).item(), rel=1e-5)


def value_networks(model: nn.Module, **settings: Any) -> ValueNetworks:
    module = token_values.build(Start(model, model, seed=0), ilql.Train(**settings))
    assert isinstance(module, ValueNetworks)
    return module


class TestLearning:
    def test_cloning_descends_the_models_own_cross_entropy(
        self, model: Any, batch: TokenBatch, tokenizer: Tokenizer
    ) -> None:
        weights = dialogue_weights(batch.action_mask)
        module = bc.build(Start(model, None, seed=0), bc.Train())
        loss = bc.loss(module, batch, weights, bc.Train()).total
        loss.backward()  # type: ignore[no-untyped-call]
        logits = model(batch.tokens, attention_mask=batch.attention_mask.long()).logits.detach()
        at = logits.gather(1, batch.action_positions[..., None].expand(-1, -1, tokenizer.size))
        nll = -at.log_softmax(-1).gather(-1, batch.actions[..., None]).squeeze(-1)
        assert loss.item() == pytest.approx(((nll * weights).sum() / weights.sum()).item(), rel=1e-5)
        silent = [name for name, p in module.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        assert not silent

    @pytest.mark.parametrize("separate_policy", [True, False])
    def test_ilql_moves_the_online_trunk_and_leaves_the_target(
        self, model: nn.Module, batch: TokenBatch, separate_policy: bool
    ) -> None:
        settings = ilql.Train(separate_policy=separate_policy)
        module = value_networks(model, separate_policy=separate_policy)
        loss = ilql.loss(module, batch, dialogue_weights(batch.action_mask), settings)
        loss.total.backward()  # type: ignore[no-untyped-call]
        assert all(math.isfinite(part) for part in loss.parts.values())
        for name, parameter in module.online.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().sum() > 0 or parameter.dim() == 1, name
        assert not any(p.requires_grad for p in module.target.parameters())

    def test_a_training_that_is_resumed_ends_in_the_same_bits(
        self, model: nn.Module, pulls: list[TokenSequence], tokenizer: Tokenizer, tmp_path: Path
    ) -> None:
        def trained(*ends: int) -> dict[str, Tensor]:
            folder = tmp_path / str(len(ends))
            for steps in ends:
                module = value_networks(model)
                settings = ilql.Train(steps=steps, batch_size=4, learning_rate=1e-2, polyak=0.5)
                loop = Loop(checkpoint_every=2, checkpoints=folder)
                for _ in train(
                    ilql.METHOD, module, pulls, settings, pad=tokenizer.structural("pad"), seed=1, loop=loop
                ):
                    pass
            return own_tensors(module)

        whole, resumed = trained(4), trained(2, 4)
        assert whole.keys() == resumed.keys()
        assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
        assert not all(
            torch.equal(a, b) for a, b in zip(whole.values(), own_tensors(value_networks(model)).values(), strict=True)
        )


@torch.no_grad()
def uncached(actor: Actor, tokenizer: Tokenizer, ids: Sequence[int], beta: float, limit: int) -> tuple[int, ...]:
    """Speak greedily by running the whole conversation through Transformers' own models for every token."""
    said: list[int] = []
    unwritable = torch.from_numpy(~tokenizer.writable())
    assert isinstance(actor.critic, QNetwork)
    while len(said) < limit and tokenizer.structural("eoa") not in said:
        tokens = torch.tensor([[*ids, *said]])
        base: Tensor = actor.language_model(tokens).logits[0, -1]
        q = actor.critic.minimum(actor.critic.trunk(tokens).last_hidden_state[0, -1])
        score = q if math.isinf(beta) else base.masked_fill(unwritable, -torch.inf).log_softmax(-1) + beta * q
        said.append(int(score.masked_fill(unwritable, -torch.inf).argmax()))
    return tuple(said)


def test_families_that_a_cpu_reads_by_rows_are_those_that_are_tried_here() -> None:
    assert set(CONFIGS) == ROW_FAMILIES


@pytest.mark.usefixtures("layout")
class TestSpeaking:
    DECODE = Decoding(max_new_tokens=5)
    BETAS = (0.0, 2.0, math.inf)

    @pytest.fixture
    def actor(self, model: nn.Module) -> Actor:
        other: Any = copy.deepcopy(model)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        target = value_networks(other).target
        assert isinstance(target, QNetwork)
        with torch.no_grad():
            for head in target.q_heads:
                head.get_submodule("2").weight.mul_(6.0)  # type: ignore[operator]
        return Actor(model, target)

    def voices(self, slots: Sequence[int]) -> list[Voice]:
        return [
            Voice(slot, self.DECODE, Manner(beta=beta), np.random.default_rng(0))
            for slot, beta in zip(slots, self.BETAS, strict=True)
        ]

    def test_cached_words_are_those_of_the_uncached_models_over_several_turns(
        self, actor: Actor, tokenizer: Tokenizer
    ) -> None:
        speaker, voices = Speaker(actor, tokenizer, slots=4, device=CPU), self.voices([0, 2, 3])
        conversations: list[list[int]] = [[] for _ in voices]
        said = []
        for turn, length in enumerate((3, 2 * WINDOW + 5, 7)):
            for number, (voice, conversation) in enumerate(zip(voices, conversations, strict=True)):
                new = [*random_ids(length + number, tokenizer, turn), tokenizer.structural("eos")]
                speaker.hear(voice.slot, new)
                conversation.extend(new)
            for voice, conversation, utterance in zip(voices, conversations, speaker.speak(voices), strict=True):
                expected = uncached(actor, tokenizer, conversation, voice.manner.beta, self.DECODE.max_new_tokens)
                assert utterance.tokens == expected
                conversation.extend(expected if utterance.finished else [*expected, tokenizer.structural("eoa")])
                said.append(expected)
        assert len(set(said)) > 5  # else this would show little

    def test_those_that_share_a_slot_say_what_they_would_have_said_alone(
        self, actor: Actor, tokenizer: Tokenizer
    ) -> None:
        alone, together = (Speaker(actor, tokenizer, slots=4, device=CPU) for _ in range(2))
        heard = random_ids(WINDOW + 3, tokenizer, 0)
        together.hear(1, heard)
        for slot in (0, 1, 2):
            alone.hear(slot, heard)
        expected = alone.speak(self.voices([0, 1, 2]))
        shared = together.speak_together(self.voices([1, 1, 1]))
        parted = {number: spoken.apart for number, spoken in enumerate(shared) if spoken.utterance is None}
        said = {number: spoken.utterance for number, spoken in enumerate(shared) if spoken.utterance is not None}
        assert parted
        for slot, (number, conversation) in zip((2, 3), parted.items(), strict=False):
            assert conversation is not None
            together.put(slot, conversation)
            own = self.voices([slot, slot, slot])[number]
            said[number] = together.speak([own])[0]
        assert [said[number] for number in range(3)] == expected


class TestRefusals:
    @pytest.mark.parametrize(("family", "scaled"), [("granite", {"logits_scaling": 4.0}), ("cohere", {})])
    def test_logits_that_are_scaled_behind_the_head_are_refused(
        self, family: str, scaled: dict[str, float], tmp_path: Path, tokenizer: Tokenizer
    ) -> None:
        saved(family, tokenizer.text_size, tmp_path, **scaled)
        with pytest.raises(ValueError, match=rf"^a model's logits must be its head's output [^\n]* of {family} in .*$"):
            load_language_model(tmp_path, vocabulary=tokenizer.size, seed=0)

    def test_layers_that_are_no_attention_are_refused(self, tmp_path: Path, tokenizer: Tokenizer) -> None:
        kinds = ["linear_attention", "full_attention"]
        config = AutoConfig.for_model("qwen3_next", vocab_size=tokenizer.text_size, **NO_TOKENS, **LLAMA | {
            "layer_types": kinds, "linear_num_value_heads": 2, "linear_num_key_heads": 2, "linear_key_head_dim": 8,
            "linear_value_head_dim": 8, "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16, "head_dim": 8,
        })  # fmt: skip
        factory: Any = AutoModelForCausalLM
        factory.from_config(config).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match=r"^a model's layers must be full_attention or sliding_attention, got lin"):
            load_language_model(tmp_path, vocabulary=tokenizer.size, seed=0)

    def test_a_context_beyond_what_is_used_is_cut(self, tmp_path: Path, tokenizer: Tokenizer) -> None:
        saved("smollm3", tokenizer.text_size, tmp_path)
        model: Any = load_language_model(tmp_path, vocabulary=tokenizer.size, seed=0)
        model.config.max_position_embeddings = 8192
        assert context_length(model) == 2048

    def test_a_name_that_is_not_here_is_one_line_without_a_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(ValueError, match=r"^--model must be [^\n]*'someone/no-such-model'[^\n]*$"):
            find_model("someone/no-such-model")
