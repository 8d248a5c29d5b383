"""`generate` of Transformers with our guidance says what our own decoding says."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from ilql import token_values
from ilql.choose import Knobs, scores
from ilql.decode import Speaker, Voice
from ilql.language_model import load_language_model, reload_language_model, trunk_of, whole_language_model, with_trunk
from ilql.logits_processor import GUIDANCE_FILE, HEADS_FILE, Guidance, ValueGuidance, load_values, save_values
from ilql.method import Actor, Decoding, Manner, Start
from ilql.methods import ilql
from ilql.networks import QNetwork, ValueNetworks
from ilql.tokens import Tokenizer, cut_tokenizer, load_tokenizer

CPU = torch.device("cpu")
LIMIT = 8
PROMPTS = ["two cats in the snow", "pull", "is it a cat ? yes how many are there ?"]


def exported(folder: Path, model: Any, tokenizer: Tokenizer, *, relative: bool = False, seed: int = 0) -> Actor:
    """Write a policy with random values whose Q is spread over several units; give it as we act with it."""
    other: Any = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.2 * parameter.std() * torch.randn(parameter.shape, generator=generator))
    module = token_values.build(Start(other, other, seed=seed), ilql.Train(value_low=-1.0))
    assert isinstance(module, ValueNetworks)
    with torch.no_grad():
        for head in module.target.q_heads:
            head.get_submodule("2").weight.mul_(8.0)  # type: ignore[operator]
    model.save_pretrained(folder)
    guidance = Guidance(
        method="ilql", relative=relative, value_range=module.target.value_range,
        rows=tuple(range(tokenizer.size)), writable=tuple(np.flatnonzero(tokenizer.writable()).tolist()),
        end=tokenizer.end, pad=tokenizer.structural("pad"), decode={"beta": 2.0, "greedy": True, "max_new_tokens": 9},
    )  # fmt: skip
    save_values(folder, module.target, module.v_head, module.target.trunk, guidance)
    return Actor(model, module.target, relative=relative)


@pytest.fixture(params=["gpt2", "llama", "mistral"])
def model(
    request: pytest.FixtureRequest, language_model: Callable[..., nn.Module], tokenizer: Tokenizer, tmp_path: Path
) -> nn.Module:
    if request.param != "mistral":
        return language_model(request.param, spread=10.0)
    config = AutoConfig.for_model(
        "mistral", vocab_size=tokenizer.text_size, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, sliding_window=6,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    factory: Any = AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = factory.from_config(config)
        for parameter in made.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.4)
    made.save_pretrained(tmp_path / "mistral")
    return load_language_model(tmp_path / "mistral", vocabulary=tokenizer.size, seed=0)


def heard(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.heard_first(text)


def left_padded(tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    """Give the prompts in one tensor, and which of it is real."""
    rows = [heard(tokenizer, text) for text in PROMPTS]
    longest, pad = max(map(len, rows)), tokenizer.structural("pad")
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows])
    return ids, (ids != pad).long()


def generated(folder: Path, tokenizer: Tokenizer, ids: Tensor, mask: Tensor, **settings: Any) -> list[list[int]]:
    """Give what `generate` says to every row, up to the end of the utterance."""
    model: Any = reload_language_model(folder)
    out = model.generate(
        ids, attention_mask=mask, logits_processor=[ValueGuidance.from_pretrained(folder, **settings)],
        max_new_tokens=LIMIT, do_sample=False, eos_token_id=tokenizer.end, pad_token_id=tokenizer.structural("pad"),
    )[:, ids.shape[1] :].tolist()  # fmt: skip
    return [row[: row.index(tokenizer.end) + 1] if tokenizer.end in row else row for row in out]


def said(actor: Actor, tokenizer: Tokenizer, manner: Manner) -> list[list[int]]:
    """Give what our own decoding says to every prompt."""
    speaker = Speaker(actor, tokenizer, slots=len(PROMPTS), device=CPU)
    for slot, text in enumerate(PROMPTS):
        speaker.hear(slot, heard(tokenizer, text))
    decode = Decoding(max_new_tokens=LIMIT)
    voices = [Voice(slot, decode, manner, np.random.default_rng(0)) for slot in range(len(PROMPTS))]
    return [[*utterance.tokens] for utterance in speaker.speak(voices)]


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("beta", [0.0, 1.0, 8.0, math.inf])
def test_greedy_generation_is_our_greedy_decoding(
    model: nn.Module, tokenizer: Tokenizer, tmp_path: Path, beta: float, relative: bool
) -> None:
    actor = exported(tmp_path, model, tokenizer, relative=relative)
    expected = said(actor, tokenizer, Manner(beta=beta))
    assert generated(tmp_path, tokenizer, *left_padded(tokenizer), beta=beta) == expected
    for text, alone in zip(PROMPTS, expected, strict=True):
        ids = torch.tensor([heard(tokenizer, text)])
        assert generated(tmp_path, tokenizer, ids, torch.ones_like(ids), beta=beta) == [alone]


def test_guidance_changes_what_is_said(model: nn.Module, tokenizer: Tokenizer, tmp_path: Path) -> None:
    exported(tmp_path, model, tokenizer)
    answers = {str(generated(tmp_path, tokenizer, *left_padded(tokenizer), beta=beta)) for beta in (0.0, 8.0)}
    assert len(answers) == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"beta": 2.0},
        {"beta": 2.0, "temperature": 0.7},
        {"beta": 1.0, "top_k": 5},
        {"beta": 1.0, "top_p": 0.6},
        {"beta": 1.0, "top_p": 0.6, "temperature": 2.0, "filter_after": True},
        {"beta": math.inf},
    ],
)
@torch.no_grad()
def test_its_log_probabilities_are_those_we_draw_from(
    model: Any, tokenizer: Tokenizer, tmp_path: Path, settings: dict[str, float]
) -> None:
    actor = exported(tmp_path, model, tokenizer)
    assert actor.critic is not None
    guidance = ValueGuidance.from_pretrained(tmp_path, **settings)
    decode = Decoding(greedy=False, **{k: v for k, v in settings.items() if k in ("temperature", "top_k", "top_p")})
    manner = Manner(beta=settings["beta"], filter_after=bool(settings.get("filter_after", False)))
    knobs, writable = Knobs.of([decode], [manner], CPU), torch.from_numpy(tokenizer.writable())
    ids = torch.tensor([heard(tokenizer, PROMPTS[0])])
    for _ in range(LIMIT):
        logits, q = model(ids).logits[:, -1], actor.critic.minimum(actor.critic.trunk(ids).last_hidden_state[:, -1])
        _, ours = scores(logits, q, writable, knobs)
        theirs = guidance(ids, logits)
        if math.isinf(manner.beta):
            assert theirs.exp().tolist() == [[float(v == int(ours.argmax())) for v in range(tokenizer.size)]]
        else:
            assert torch.allclose(theirs.exp(), ours.softmax(-1), atol=1e-6)
            assert torch.allclose(theirs[theirs > -20], ours.log_softmax(-1)[theirs > -20], atol=1e-5)
        ids = torch.cat([ids, theirs.argmax(-1, keepdim=True)], dim=1)


class TestReading:
    def test_each_token_is_read_once_and_a_new_conversation_from_its_beginning(
        self, model: nn.Module, tokenizer: Tokenizer, tmp_path: Path
    ) -> None:
        exported(tmp_path, model, tokenizer)
        guidance = ValueGuidance.from_pretrained(tmp_path, beta=1.0)
        widths: list[int] = []
        guidance._critic.trunk.register_forward_pre_hook(
            lambda _module, _args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
        )
        ids, mask = left_padded(tokenizer)
        factory: Any = reload_language_model(tmp_path)
        for _ in range(2):
            factory.generate(
                ids, attention_mask=mask, logits_processor=[guidance], max_new_tokens=3, min_new_tokens=3,
                do_sample=False, eos_token_id=tokenizer.end, pad_token_id=tokenizer.structural("pad"),
            )  # fmt: skip
        assert widths == [ids.shape[1], 1, 1] * 2

    @torch.no_grad()
    def test_rows_that_change_places_are_read_anew(
        self, model: nn.Module, tokenizer: Tokenizer, tmp_path: Path
    ) -> None:
        exported(tmp_path, model, tokenizer)
        one, other = (ValueGuidance.from_pretrained(tmp_path, beta=1.0) for _ in range(2))
        ids, _ = left_padded(tokenizer)
        logits = torch.zeros(len(ids), tokenizer.size)
        one(ids, logits)
        longer = torch.cat([ids.flip(0), torch.full((len(ids), 1), 5)], dim=1)
        assert torch.allclose(one(longer, logits).exp(), other(longer, logits).exp(), atol=1e-6)


class TestSaving:
    def test_heads_and_trunk_come_back_bit_by_bit(self, model: nn.Module, tokenizer: Tokenizer, tmp_path: Path) -> None:
        actor = exported(tmp_path, model, tokenizer)
        critic, guidance = load_values(tmp_path)
        hidden = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
        assert actor.critic is not None
        with torch.no_grad():
            assert torch.equal(critic.minimum(hidden), actor.critic.minimum(hidden))
            ids = torch.tensor([heard(tokenizer, PROMPTS[0])])
            one, other = (trunk(ids).last_hidden_state for trunk in (critic.trunk, actor.critic.trunk))
            assert torch.equal(one, other)
        assert guidance.value_range == (-1.0, math.inf)
        assert guidance.decode["beta"] == 2.0

    def test_what_it_was_judged_with_is_its_default(
        self, model: nn.Module, tokenizer: Tokenizer, tmp_path: Path
    ) -> None:
        exported(tmp_path, model, tokenizer)
        by_default = generated(tmp_path, tokenizer, *left_padded(tokenizer))
        assert by_default == generated(tmp_path, tokenizer, *left_padded(tokenizer), beta=2.0)


class TestRefusals:
    def test_settings_that_are_none(self, language_model: Any, tokenizer: Tokenizer, tmp_path: Path) -> None:
        exported(tmp_path, language_model(), tokenizer)
        with pytest.raises(ValueError, match=r"^beta must be at least 0, got -1.0$"):
            ValueGuidance.from_pretrained(tmp_path, beta=-1.0)
        with pytest.raises(ValueError, match=r"top_p must be in \[0, 1\], got 2"):
            ValueGuidance.from_pretrained(tmp_path, top_p=2.0)
        with pytest.raises(KeyError, match=r"guidance has the settings beta, .*, got 'betta'"):
            ValueGuidance.from_pretrained(tmp_path, betta=1.0)

    def test_folders_that_are_no_export(self, language_model: Any, tokenizer: Tokenizer, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"^guidance needs an export of a policy with token values, got [^\n]*$"):
            ValueGuidance.from_pretrained(tmp_path)
        exported(tmp_path, language_model(), tokenizer)
        (tmp_path / HEADS_FILE).write_bytes(b"no")
        with pytest.raises(ValueError, match=r"^an export must hold its value trunk and heads, got [^\n]*$"):
            ValueGuidance.from_pretrained(tmp_path)
        (tmp_path / GUIDANCE_FILE).write_text(json.dumps({"method": "ilql"}), encoding="utf-8")
        with pytest.raises(ValueError, match=r"^guidance needs an export of a policy with token values, got [^\n]*$"):
            ValueGuidance.from_pretrained(tmp_path)

    def test_a_language_model_of_another_vocabulary(
        self, language_model: Any, tokenizer: Tokenizer, tmp_path: Path
    ) -> None:
        exported(tmp_path, language_model(), tokenizer)
        guidance = ValueGuidance.from_pretrained(tmp_path)
        with pytest.raises(ValueError, match="guidance needs the language model it was exported with"):
            guidance(torch.zeros(1, 2, dtype=torch.long), torch.zeros(1, tokenizer.size - 1))


@pytest.mark.parametrize("name", ["stories260K", "stories15M"])
def test_on_a_pretrained_model_with_its_vocabulary_cut_it_is_our_decoding(name: str, tmp_path: Path) -> None:
    stories = Path(__file__).parents[2] / "../shared/data" / name
    if not (stories / "model.safetensors").is_file():
        pytest.skip(f"no pretrained model at {stories}")
    whole = load_tokenizer(stories)
    cut = cut_tokenizer(whole, ["Once upon a time there was a little girl named Lily.", *PROMPTS])
    rows = cut.rows.tolist()
    model = load_language_model(stories, vocabulary=whole.size, seed=0, rows=rows)
    policy = exported(tmp_path / "cut", model, cut)
    critic = policy.critic
    assert isinstance(critic, QNetwork)

    def with_all_tokens(language_model: nn.Module) -> Any:
        return whole_language_model(language_model, stories, vocabulary=whole.size, seed=0, rows=rows)

    guidance = dataclasses.replace(
        load_values(tmp_path / "cut")[1],
        rows=tuple(rows), writable=tuple(cut.rows[cut.writable()].tolist()),
        end=whole.end, pad=whole.structural("pad"),
    )  # fmt: skip
    with_all_tokens(model).save_pretrained(tmp_path)
    save_values(tmp_path, critic, None, trunk_of(with_all_tokens(with_trunk(model, critic.trunk))), guidance)
    ours = said(policy, cut, Manner(beta=0.5))
    assert generated(tmp_path, whole, *left_padded(whole), beta=0.5) == [cut.rows[row].tolist() for row in ours]
    assert len({tuple(row) for row in ours}) == len(PROMPTS)
