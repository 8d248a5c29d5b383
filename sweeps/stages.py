"""World, tokeniser, backbone, tokens: what trainings share, each built once and keyed by what decides it.

world ──> tokens ──> behaviour policy ──> value networks ──> evaluations
  └─> tokeniser ─┘─> backbone ──────┘ └─> candidates ─┘ └─> policies extracted from a critic
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ilql.adapters import adapt, merge
from ilql.batch import TokenSequence, dialogue_numbers, load_sequences, save_sequences
from ilql.candidates import Candidates, load_candidates
from ilql.checkpoint import file_digest, load_weights
from ilql.language_model import (
    build_language_model,
    check_causal,
    check_is_ours,
    context_length,
    load_language_model,
    reload_language_model,
    untie_like,
    vocabulary_size,
)
from ilql.method import Method, Start
from ilql.methods import method_named
from ilql.model_folder import MODEL_FILES, check_model_folder
from ilql.propose import draw_candidates
from ilql.task import Task, TaskKind
from ilql.tasks import task_named
from ilql.tokens import (
    Tokenizer,
    chat_tokenizer,
    cut_tokenizer,
    is_gguf,
    load_tokenizer,
    new_tokenizer,
)
from sweeps.exact_json import Record
from sweeps.reading import load_cut, read_as
from sweeps.spec import TrialSpec, world_key
from sweeps.store import Store, StoreError

RETURNS_FILE = "returns.npy"


@dataclass(frozen=True)
class World:
    """A built world.

    Attributes:
        key: Its stage's key.
        notes: What building it had to say: what was skipped, how it is calibrated.
    """

    key: str
    notes: tuple[str, ...]


Say = Callable[[str], None]
"""Told in a line that something is being built, before it is: what follows may be minutes of silence."""


def ensure_world(
    store: Store, kind: TaskKind, settings: Any, sources: Mapping[str, str], say: Say | None = None
) -> World:
    """The world of some settings and sources, built unless it is there.

    Raises:
        ValueError: A source cannot be read; one line.
    """
    digest = kind.source_digest(settings, sources)
    values: Record = dataclasses.asdict(settings)
    key = world_key(kind.name, kind.version, values, digest)
    about: Record = {"task": kind.name, "version": kind.version, "settings": values, "source": digest}
    _announce(store, "world", key, f"building the world of {kind.name}", say)
    store.build("world", key, lambda folder: {"notes": list(kind.build(settings, sources, folder))}, about)
    notes = ((store.about("world", key) or {}).get("notes") or {}).get("notes", ())
    return World(key, tuple(notes))


def _announce(store: Store, kind: str, key: str, line: str, say: Say | None) -> None:
    """Say what is built unless it is there."""
    if say is not None and not store.has(kind, key):
        say(line)


def ensure_start(store: Store, spec: TrialSpec, model: Path | None, say: Say | None = None) -> None:
    """The tokeniser and the initial language model of a spec, built unless they are there.

    Args:
        store: Where.
        spec: Any trial that starts from them.
        model: The pretrained model's folder, for backbones that have one.
        say: Told what is built.

    Raises:
        ValueError: The folder is no model; one line.
    """
    backbone = spec.backbone

    def texts() -> Iterator[str]:
        task = load_task(store, spec.data.task, spec.data.world)
        dialogues = task.dialogues("train", task.rewards[0])
        return (turn.text for dialogue in dialogues for turn in dialogue.turns)

    def make_tokenizer(folder: Path) -> None:
        if backbone.vocabulary:
            symbols = task_named(spec.data.task).symbols
            new_tokenizer(symbols, texts(), vocabulary=backbone.vocabulary).save(folder)
        else:
            assert model is not None, "a pretrained backbone needs its folder"
            own = load_tokenizer(model)
            if backbone.chat_template:
                own = chat_tokenizer(own, model)
            (cut_tokenizer(own, texts()) if backbone.cut_vocabulary else own).save(folder)

    if model is not None and not store.has("backbone", spec.backbone_key):
        _check_pretrained(model, texts())
    _announce(store, "tokenizer", spec.tokenizer_key, "making the tokeniser", say)
    store.build("tokenizer", spec.tokenizer_key, make_tokenizer, {"vocabulary": backbone.vocabulary})
    tokenizer = load_tokenizer_stage(store, spec)

    def make_backbone(folder: Path) -> None:
        if backbone.architecture is not None:
            language_model = build_language_model(backbone.architecture, vocabulary=tokenizer.size, seed=backbone.seed)
        else:
            assert model is not None, "a pretrained backbone needs its folder"
            whole, rows = tokenizer.whole.size, None if tokenizer.kept is None else tokenizer.rows.tolist()
            language_model = load_language_model(model, vocabulary=whole, seed=backbone.seed, rows=rows)
        language_model.save_pretrained(str(folder))  # type: ignore[operator]

    _announce(store, "backbone", spec.backbone_key, "making the language model that training begins with", say)
    store.build("backbone", spec.backbone_key, make_backbone, {"vocabulary": tokenizer.size})


def _check_pretrained(model: Path, texts: Iterator[str]) -> None:
    """Load a pretrained model before anything is kept of it, and see whether model, tokeniser and texts fit.

    Raises:
        ValueError: They do not.
    """
    tokenizer, language_model = load_tokenizer(model), reload_language_model(model)
    rows = vocabulary_size(language_model)
    if tokenizer.whole.text_size > rows:
        raise ValueError(
            f"a model must have a row for each token of its tokenizer, got {rows} for {tokenizer.whole.text_size} "
            f"in {model}"
        )
    try:
        read = any(tokenizer.encode(text) for text in texts)
    except ValueError as fault:
        raise ValueError(f"{fault} ({model})") from None
    if not read:
        raise ValueError(f"a tokenizer must find tokens in the data, got none by that of {model}")
    check_causal(language_model, model)
    check_is_ours(language_model, model)


def vocabulary_note(store: Store, spec: TrialSpec) -> str | None:
    """One line on the tokens that a cut vocabulary keeps; None where it is not cut."""
    tokenizer = load_tokenizer_stage(store, spec)
    if tokenizer.kept is None:
        return None
    kept, whole = tokenizer.text_size, tokenizer.whole.text_size
    if kept == whole:
        return f"all {whole:,} tokens of the pretrained vocabulary are kept: each occurs, or no others can spell it"
    return (
        f"{kept:,} of {whole:,} tokens of the pretrained vocabulary are kept: those that occur in the training split, "
        "and those that spell all others; --no-cut-vocabulary keeps all"
    )


def pretrained_digest(folder: Path) -> str:
    """A digest of the files that decide a pretrained model: configuration, weights, tokeniser.

    A chat template in a file of its own is not among them: whoever uses it names it by its own digest.

    Raises:
        ValueError: The folder is no model.
    """
    check_model_folder(folder)
    digest = hashlib.sha256()
    whole = is_gguf(folder)
    for file in [folder] if whole else sorted(folder.iterdir()):
        if whole or (file.suffix in MODEL_FILES and file.is_file()):
            digest.update(f"{file.name}\0{file_digest(file)}\n".encode())
    return digest.hexdigest()[:20]


def load_task(store: Store, task: str, world: str) -> Task:
    """The task of a built world."""
    folder = _stage(store, "world", world)
    return _load_task(task, str(folder))


@lru_cache(maxsize=2)
def _load_task(task: str, folder: str) -> Task:
    return task_named(task).load(Path(folder))


def load_tokenizer_stage(store: Store, spec: TrialSpec) -> Tokenizer:
    """The tokeniser a spec uses."""
    return load_tokenizer(_stage(store, "tokenizer", spec.tokenizer_key))


def load_tokens(store: Store, spec: TrialSpec) -> list[TokenSequence]:
    """What a spec's training reads: tokenised once, as a stage, of which its method keeps some dialogues."""
    folder = _ensure_tokens(store, spec)
    returns = np.load(folder / RETURNS_FILE, allow_pickle=False)
    windows: list[list[TokenSequence]] = [[] for _ in returns]
    sequences = _load_sequences(str(folder / "train.npz"))
    for number, sequence in zip(dialogue_numbers(sequences), sequences, strict=True):
        windows[number].append(sequence)
    return [window for i in spec.kind.keep(returns, spec.train) for window in windows[i]]


def load_held_out(store: Store, spec: TrialSpec, dialogues: int) -> list[TokenSequence]:
    """Dialogues of the tune split as a spec's training reads them, at most so many; those its method would keep.

    Empty for a method that learns from utterances which are drawn before training: of these dialogues none are.
    """
    method = spec.kind
    if method.proposals(spec.train) is not None:
        return []
    task, tokenizer = load_task(store, spec.data.task, spec.data.world), load_tokenizer_stage(store, spec)
    reward = spec.data.reward if method.uses_rewards else task.rewards[0]
    found = task.dialogues("tune", reward)[:dialogues]
    kept = set(method.keep(np.asarray([d.total_reward for d in found]), spec.train)) if found else set()
    return read_as(spec, [each for place, each in enumerate(found) if place in kept], tokenizer).sequences


def _ensure_tokens(store: Store, spec: TrialSpec) -> Path:
    method, task = spec.kind, load_task(store, spec.data.task, spec.data.world)

    def make(folder: Path) -> None:
        tokenizer = load_tokenizer_stage(store, spec)
        dialogues = task.dialogues("train", spec.data.reward if method.uses_rewards else task.rewards[0])
        reading = read_as(spec, dialogues, tokenizer)
        reading.cut.save(folder)
        save_sequences(reading.sequences, folder / "train.npz")
        np.save(folder / RETURNS_FILE, np.asarray([d.total_reward for d in dialogues]), allow_pickle=False)

    return store.build("tokens", spec.tokens_key, make, {"reward": spec.data.reward, "split": "train"})


def cut_note(store: Store, spec: TrialSpec, say: Say | None = None) -> str | None:
    """One line on the dialogues that are longer than a spec's training reads; None where all are read whole."""
    _announce(store, "tokens", spec.tokens_key, "tokenising the training dialogues", say)
    cut = load_cut(_ensure_tokens(store, spec))
    return None if cut is None else cut.note("training", spec.train.max_tokens, ", without their last rewards")


def lacks_candidates(store: Store, spec: TrialSpec) -> bool:
    """True if a spec's training needs utterances drawn that nobody has drawn yet."""
    key = spec.candidates_key
    return spec.kind.proposals(spec.train) is not None and key is not None and not store.has("candidates", key)


def ensure_candidates(
    store: Store, spec: TrialSpec, on_dialogue: Callable[[int], None] | None = None
) -> Candidates | None:
    """The utterances a spec's training needs drawn, drawn unless they are there; None if it needs none.

    Args:
        store: Where.
        spec: The training.
        on_dialogue: Called now and then, while drawing, with the number of dialogues finished.
    """
    proposals, key = spec.kind.proposals(spec.train), spec.candidates_key
    if proposals is None or key is None:
        return None

    def make(folder: Path) -> None:
        draw_candidates(
            load_behaviour(store, spec),
            load_tokenizer_stage(store, spec),
            _load_sequences(str(_ensure_tokens(store, spec) / "train.npz")),
            proposals,
            seed=0,
            device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
            on_dialogue=on_dialogue,
        ).save(folder)

    return load_candidates(store.build("candidates", key, make, {"behaviour": spec.behaviour.weights_id}))


@lru_cache(maxsize=2)
def _load_sequences(file: str) -> list[TokenSequence]:
    return load_sequences(Path(file))


def load_backbone(store: Store, spec: TrialSpec) -> nn.Module:
    """The initial language model of a spec, fresh; with adapters, its own ones on a trunk that all of them share."""
    folder, b = _stage(store, "backbone", spec.backbone_key), spec.backbone
    if not b.adapter_rank:
        return reload_language_model(folder)
    return copy.deepcopy(_adapted(str(folder), b.adapter_rank, not b.chat_template, b.seed))


@lru_cache(maxsize=1)
def _adapted(folder: str, rank: int, words: bool, seed: int) -> nn.Module:
    return adapt(reload_language_model(Path(folder)), rank=rank, words=words, seed=seed)


def merged(store: Store, spec: TrialSpec, language_model: nn.Module) -> nn.Module:
    """A language model of a spec without adapters: what they learnt is in its weights."""
    if not spec.backbone.adapter_rank:
        return language_model
    plain = reload_language_model(_stage(store, "backbone", spec.backbone_key))
    untie_like(plain, language_model)
    return merge(language_model, plain)


def build_module(store: Store, spec: TrialSpec) -> nn.Module:
    """The module of a spec before its training, built on what was trained before it.

    Raises:
        ValueError: The context is shorter than the dialogues may be.
    """
    method, train = canonical(spec)
    pretrained = load_backbone(store, spec)
    if train.max_tokens > context_length(pretrained):
        raise ValueError(
            f"train.max_tokens must be at most the backbone's context ({context_length(pretrained)}), "
            f"got {train.max_tokens}"
        )
    behaviour = load_behaviour(store, spec) if method.needs_behaviour else None
    critic = None if spec.critic is None else load_module(store, spec.critic)
    kept = np.load(_ensure_tokens(store, spec) / RETURNS_FILE, allow_pickle=False)
    returns = kept[method.keep(kept, train)]
    start = Start(
        pretrained,
        behaviour,
        spec.seed,
        returns=(float(returns.mean()), float(returns.std())),
        critic=critic,
        candidates=ensure_candidates(store, spec),
    )
    return method.build(start, train)


def canonical(spec: TrialSpec) -> tuple[Method, Any]:
    """The method and settings a spec is trained with, whatever name it goes by."""
    name, train = spec.kind.trained_as(spec.train)
    return method_named(name), train


def load_behaviour(store: Store, spec: TrialSpec) -> nn.Module:
    """The frozen behaviour policy of a spec."""
    return load_module(store, spec.behaviour).requires_grad_(False)


def load_module(store: Store, spec: TrialSpec) -> nn.Module:
    """A spec's trained module."""
    folder = _stage(store, "weights", spec.weights_id)
    with torch.random.fork_rng(devices=[]):
        module = build_module(store, spec)
    load_weights(module, folder)
    return module.eval()


def drop_trajectory(store: Store, spec: TrialSpec) -> None:
    """Remove the checkpoints of a training that nobody will continue."""
    store.drop_scratch("trajectory", spec.trajectory_id)


def drop_group_notes(store: Store, spec: TrialSpec) -> None:
    """Remove what Ray Train noted of a training: nothing is ever begun or resumed from it."""
    shutil.rmtree(store.scratch_path("group", spec.trajectory_id), ignore_errors=True)


def _stage(store: Store, kind: str, key: str) -> Path:
    folder = store.stage(kind, key)
    if folder is None:
        away = "" if store.replica is None else f", nor in the object store {store.replica.url}"
        raise StoreError(f"the stage {kind}/{key} must be whole before it is read, it is not in {store.folder}{away}")
    return folder
