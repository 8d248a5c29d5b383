"""A chat template as a setting of the backbone: what it decides, and a sweep that is led by one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedTokenizerFast

from sweeps import bandit_ablation
from sweeps.asked import options_of
from sweeps.definite import make_sweep
from sweeps.sizing import chosen_preset
from sweeps.spec import TrialSpec
from sweeps.stages import load_tokenizer_stage, load_tokens
from sweeps.store import Store

if TYPE_CHECKING:
    from conftest import MakeTrial

IDS = ("tokenizer_key", "backbone_key", "tokens_key", "weights_id", "trial_id")
OWN: dict[str, Any] = {"architecture": None, "pretrained": "abc", "vocabulary": 0}
TEMPLATE = (
    "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Give the folder of a tiny GPT-2 that has a chat template in a file of its own."""
    folder = tmp_path / "model"
    text = Tokenizer(models.BPE())
    text.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    text.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=280, initial_alphabet=alphabet, special_tokens=["<s>", "</s>"], show_progress=False
    )
    text.train_from_iterator(["pull", "the lever", "user", "assistant"] * 3, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=text)
    made.chat_template = TEMPLATE
    made.save_pretrained(folder)
    assert (folder / "chat_template.jinja").is_file()
    config = GPT2Config(vocab_size=text.get_vocab_size(), n_embd=16, n_layer=1, n_head=2, n_positions=64)
    factory: Any = AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        factory.from_config(config).save_pretrained(folder)
    return folder


def test_a_template_is_another_tokeniser_and_all_that_follows(make_trial: MakeTrial) -> None:
    trials = [make_trial(backbone=OWN | {"chat_template": digest}) for digest in ("", "t1", "t2")]
    for name in IDS:
        assert len({getattr(trial, name) for trial in trials}) == 3, name
    assert [trial.columns().get("backbone.chat_template") for trial in trials] == [None, "t1", "t2"]
    assert all(TrialSpec.from_json(trial.to_json()) == trial for trial in trials)


def test_without_one_no_key_has_changed_and_what_was_stored_is_read(make_trial: MakeTrial) -> None:
    trial = make_trial(backbone=OWN)
    stored = json.loads(trial.to_json())
    del stored["backbone"]["chat_template"]
    assert TrialSpec.from_json(json.dumps(stored)) == trial


def test_raising_its_version_renews_what_has_one(make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch) -> None:
    backbones = (OWN, OWN | {"chat_template": "t1"})
    before = [make_trial(backbone=backbone).weights_id for backbone in backbones]
    monkeypatch.setattr("ilql.chat.VERSION", 99)
    after = [make_trial(backbone=backbone).weights_id for backbone in backbones]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False]


def test_it_is_a_pretrained_models(make_trial: MakeTrial) -> None:
    with pytest.raises(ValueError, match="chat_template is a pretrained model's, got a vocabulary of 64 made here"):
        dataclasses.replace(make_trial().backbone, chat_template="t1")


def bandit(*arguments: str) -> Any:
    return options_of(bandit_ablation.QUESTION, "bandit", ["--preset", "smoke", *arguments])


@pytest.mark.parametrize("cut", ["--cut-vocabulary", "--no-cut-vocabulary"])
def test_a_sweep_reads_its_dialogues_as_the_template_has_them(model: Path, tmp_path: Path, cut: str) -> None:
    options, store = bandit("--model", str(model), "--chat-template", cut), Store(tmp_path / "store", durable=False)
    said: list[str] = []
    question = bandit_ablation.QUESTION
    sweep = make_sweep(question, chosen_preset(question, options), options, store, said.append)
    trial = sweep.shared.trials(sweep.design[0], 0, sweep.shared.tune)[0]
    tokenizer = load_tokenizer_stage(store, trial)
    tokens = load_tokens(store, trial)[0].tokens.tolist()
    text = tokenizer.whole.text.decode([int(tokenizer.rows[i]) for i in tokens[:-1]], skip_special_tokens=False)
    assert text.startswith("<s>user\npull</s>\n<s>assistant\n")
    assert text.endswith("</s>\n")
    assert tokens[-1] == tokenizer.structural("eod")


def test_it_needs_a_pretrained_model_and_one_that_has_a_template(model: Path, tmp_path: Path) -> None:
    question = bandit_ablation.QUESTION
    with pytest.raises(ValueError, match="--chat-template is about a pretrained model, got none; --model names one"):
        chosen_preset(question, bandit("--chat-template"))
    (model / "chat_template.jinja").unlink()
    options, store = bandit("--model", str(model), "--chat-template"), Store(tmp_path / "store", durable=False)
    with pytest.raises(ValueError, match=r"^--chat-template needs a model that has a chat template, got [^\n]*$"):
        make_sweep(question, chosen_preset(question, options), options, store, [].append)


def test_a_sweep_without_it_keeps_its_name() -> None:
    assert bandit().distinction("standard") == []
    assert bandit("--chat-template").distinction("standard") != []
