"""A tiny world for the learner's tests: a tokeniser, language models of two families, and a bandit's dialogues."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ilql.batch import TokenBatch, TokenSequence, collate, tokenize
from ilql.candidates import Candidates, load_candidates
from ilql.dialogue import Dialogue, Turn
from ilql.language_model import Architecture, build_language_model
from ilql.method import Method, Start
from ilql.methods import method_named
from ilql.tasks.bandit import Bandit, Settings
from ilql.tokens import Tokenizer, train_tokenizer

TEXTS = ["pull", "a", "b", "is it red ?", "is it a cat ?", "how many are there ?", "yes", "no", "two cats in the snow"]

LanguageModels = Callable[..., nn.Module]
Complete = Callable[..., Start]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(params=["rows", "grid"])
def layout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let conversations be read row by row, as a CPU does, or all slots at once, as a device does; gives which."""
    name: str = request.param
    if name == "grid":
        monkeypatch.setattr("ilql.slots.reads_by_rows", lambda trunk, device: False)
    return name


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS * 2, vocabulary=64)


@pytest.fixture(scope="session")
def language_model(tokenizer: Tokenizer) -> LanguageModels:
    """Give random models; with a `spread` above 1 their weights are so wide that what they say varies."""

    def build(
        family: str = "gpt2", *, seed: int = 0, context: int = 64, dropout: float = 0.0, spread: float = 1.0
    ) -> nn.Module:
        sizes = Architecture(family=family, layers=2, width=16, heads=2, context=context, dropout=dropout)
        model = build_language_model(sizes, vocabulary=tokenizer.size, seed=seed)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(spread)
        return model

    return build


@pytest.fixture(scope="session")
def bandit() -> Bandit:
    return Bandit(Settings(dialogues=16))


@pytest.fixture(scope="session")
def pulls(bandit: Bandit, tokenizer: Tokenizer) -> list[TokenSequence]:
    return [tokenize(dialogue, tokenizer) for dialogue in bandit.dialogues("train", "standard")]


@pytest.fixture
def start(language_model: LanguageModels) -> Start:
    """Give two models that differ: the pretrained one, and the behaviour policy."""
    return Start(language_model(seed=1), language_model(seed=2), seed=3)


@pytest.fixture
def batch(tokenizer: Tokenizer) -> TokenBatch:
    """Give a dialogue of two utterances of the agent that has ended, and its first utterance alone, cut off."""
    turns = (Turn("is it red ?", True, -1.0), Turn("no", False), Turn("a", True, 2.0))
    sequences = [tokenize(Dialogue(turns[:length], ended=length == 3), tokenizer) for length in (3, 1)]
    return collate(sequences, pad=tokenizer.structural("pad"))


@pytest.fixture(scope="session")
def stories() -> Path:
    """Give the folder of a small pretrained Llama, where there is one."""
    folder = Path(__file__).parents[2] / "../shared/data/stories260K"
    if not (folder / "model.safetensors").is_file():
        pytest.skip(f"no pretrained model at {folder}")
    return folder.resolve()


@pytest.fixture
def complete(tmp_path: Path) -> Complete:
    """Give what a method starts from, beside language models: its critic, and utterances drawn for its dialogues."""

    def completed(method: Method, models: Start, sequences: Sequence[TokenSequence], *, width: int = 16) -> Start:
        settings, critic, candidates = method.train(), None, None
        if (named := method.critic(settings)) is not None:
            kind = method_named(named[0])
            critic = kind.build(completed(kind, models, sequences), named[1])
        if (proposals := method.proposals(settings)) is not None:
            counts = [int(sequence.ends.sum()) for sequence in sequences]
            draw, shape = np.random.default_rng(0), (sum(counts), proposals.count)
            Candidates(
                draw.normal(size=(shape[0], width)).astype(np.float32),
                draw.normal(size=(*shape, width)).astype(np.float32),
                -draw.exponential(size=shape).astype(np.float32),
                np.concatenate([[0], np.cumsum(counts)]),
            ).save(tmp_path)
            candidates = load_candidates(tmp_path)
        return dataclasses.replace(models, critic=critic, candidates=candidates)

    return completed
