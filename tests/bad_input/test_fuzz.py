"""Sound inputs after accidents, given to the commands that read them: taken, or refused in one clear line.

In CI each reader gets few examples, the same ones every time. `make fuzz EXAMPLES=2000` gives each of them so many
others, and prints how many were taken and how many refused.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bad_dialogues
import bad_gguf
import bad_imagining
import bad_models
import bad_reddit
import bad_store
import bad_visdial
import bad_wordle
import bad_yaml
import mutations
import pytest
import torch
import yaml
from faults import FOUND, WRONG, Place, assert_one_line, run, tree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sound import trial_of

from ilql.checkpoint import CheckpointError, resume, save_checkpoint
from sweeps.store import Store

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
"""Examples of each reader; 0 for as few as CI has time for."""

LIMIT_SECONDS = 30
"""What takes longer counts as hung."""

pytestmark = pytest.mark.timeout(36_000 if EXAMPLES else 300, method="thread")  # the limit below has the signal


@dataclass(frozen=True)
class Target:
    """A reader, and how its inputs are made.

    Attributes:
        name: What it reads.
        make: Takes what draws and a place; makes an input and gives the arguments that read it.
        few: Examples in CI.
    """

    name: str
    make: Callable[[st.DataObject, Place], Sequence[str]]
    few: int = 8


def _bytes(
    name: str,
    sound: bytes | str,
    read: Callable[[Place, str], Sequence[str]],
    few: int = 8,
    pieces: Sequence[bytes] = mutations.PIECES,
) -> Target:
    """A file whose bytes change."""
    content = sound.encode() if isinstance(sound, str) else sound

    def make(data: st.DataObject, at: Place) -> Sequence[str]:
        return read(at, at.write(name, data.draw(mutations.bytes_of(content, pieces))))

    return Target(f"{name}, bytes", make, few)


def _values(
    name: str, sound: Any, write: Callable[[Any], str], read: Callable[[Place, str], Sequence[str]], few: int = 8
) -> Target:
    """A file whose values change."""

    def make(data: st.DataObject, at: Place) -> Sequence[str]:
        return read(at, at.write(name, write(data.draw(mutations.value_of(sound)))))

    return Target(f"{name}, values", make, few)


def _lines(rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows) if isinstance(rows, list) else json.dumps(rows)


def _of_path(read: Callable[[str], Sequence[str]]) -> Callable[[Place, str], Sequence[str]]:
    return lambda at, path: read(path)


def _store_file(pattern: str, commands: Sequence[Sequence[str]]) -> Callable[[st.DataObject, Place], Sequence[str]]:
    """A file of the store whose bytes change, and a command that may read it."""

    def make(data: st.DataObject, at: Place) -> Sequence[str]:
        file = data.draw(st.sampled_from(sorted(at.store.glob(pattern))))
        content = data.draw(mutations.bytes_of(file.read_bytes()))
        trial = trial_of(at.store, "bc")
        file.write_bytes(content)
        return [word.replace("TRIAL", trial) for word in data.draw(st.sampled_from(commands))]

    return make


def _record(data: st.DataObject, at: Place) -> Sequence[str]:
    """A whole record of another shape, with its checksum, under a new key or in place of a sound one."""
    store = Store(at.store)
    key, trial = f"{bad_store.SWEEP}/zz", trial_of(at.store, "bc")
    weights = next(each["weights_id"] for each in store.members() if each["trial_id"] == trial)
    sound = {
        "member": (key, {**bad_store.SPEC, "origin": "design", "arm": "bc", "seed": 0, "columns": {}, "spec": "{}"}),
        "sweep": (bad_store.SWEEP, {"question": "bandit", "created_at": "x", "task": "bandit", "methods": ["bc"]}),
        "lease": (f"{trial}.2", {"lease": trial, "term": 2}),
        "evaluation": (trial, dict(store.get("evaluation", trial) or {})),
        "training": (weights, dict(store.get("training", weights) or {})),
        "dropped": (weights, {"rule": "none", "at": "2026-01-01T00:00:00Z"}),
    }
    kind = data.draw(st.sampled_from(sorted(sound)))
    key, value = sound[kind]
    whole = {"line": 0, "time": 2**62, "kind": kind, "key": key, "value": value}
    odd = data.draw(mutations.value_of(data.draw(st.sampled_from((value, whole)))))
    told = odd if isinstance(odd, dict) and "kind" in odd and "value" in odd else {**whole, "value": odd}
    text = json.dumps(told, separators=(",", ":"))  # with NaN as it may not stand there, which is one thing more
    bad_store.raw(text.encode())(at)
    if kind != "lease":  # whoever adds a sound claim makes what it claims stale
        assert store.get("evaluation", trial) is not None
    return [word.replace("TRIAL", trial) for word in data.draw(st.sampled_from((*READ_STORE, bad_store.CLEAN)))]


def _about(data: st.DataObject, at: Place) -> Sequence[str]:
    """An about.json of another shape, with its digest."""
    folder = bad_store.stage_of(at, data.draw(st.sampled_from(("weights", "evaluation", "world", "tokenizer"))))
    trial = trial_of(at.store, "bc")
    odd = data.draw(mutations.value_of(bad_store.about_of(folder)))
    (folder / "about.json").write_text("{}")
    if isinstance(odd, dict):
        bad_store.tell(folder, **odd)
    else:
        (folder / "about.json").write_text(json.dumps(odd))
    return [word.replace("TRIAL", trial) for word in data.draw(st.sampled_from((*READ_STORE, bad_store.CLEAN)))]


def _lease(data: st.DataObject, at: Place) -> Sequence[str]:
    """A lease with other bytes, or by another name."""
    sound = json.dumps({"name": "host-1-ab", "process": "1@2", "machine": "m", "since": "2026-01-01T00:00:00Z"})
    name = data.draw(st.sampled_from(("ab/abc.1", "ab/abc.x", "ab/abc", "abc.1", "cd/abc.2", "ab/a b.1")))
    bad_store.put_file(at.store / "leases" / name, data.draw(mutations.bytes_of(sound.encode())))
    return data.draw(st.sampled_from((["list"], ["doctor"], bad_store.CLEAN)))


def _weights(data: st.DataObject, at: Place) -> Sequence[str]:
    folder = bad_store.stage_of(at, "weights")
    content = (folder / "weights.safetensors").read_bytes()
    bad_store.put(folder, "weights.safetensors", data.draw(mutations.bytes_of(content)))
    return ["reply", trial_of(at.store, "bc"), "pull"]


def _folder(
    sound: Callable[[], Path], name: str, read: Callable[[str], Sequence[str]], *, values: bool
) -> Callable[[st.DataObject, Place], Sequence[str]]:
    """A model's folder in which one file is another."""

    def make(data: st.DataObject, at: Place) -> Sequence[str]:
        shutil.copytree(sound(), at.folder / "m")
        content = (at.folder / "m" / name).read_bytes()
        if values:
            changed = json.dumps(data.draw(mutations.value_of(json.loads(content)))).encode()
        else:
            changed = data.draw(mutations.bytes_of(content))
        (at.folder / "m" / name).write_bytes(changed)
        return read(str(at.folder / "m"))

    return make


def _options(data: st.DataObject, at: Place) -> Sequence[str]:
    return bad_store.PLAN + tuple(data.draw(mutations.options()))


def _commands(data: st.DataObject, at: Place) -> Sequence[str]:
    return data.draw(mutations.commands([trial_of(at.store, method) for method in ("bc", "sarsa")]))


def _yaml(name: str, sound: str, read: Callable[[Place, str], Sequence[str]]) -> tuple[Target, Target]:
    """A file of YAML whose bytes change, and one whose values do."""
    value = yaml.safe_load(sound)
    pieces = (*mutations.PIECES, *mutations.OF_YAML)
    return _bytes(name, sound, read, 16, pieces), _values(name, value, yaml.safe_dump, read, 16)


def _gguf(data: st.DataObject, at: Place) -> Sequence[str]:
    """A GGUF file of whose header bytes change, or all of whose bytes do."""
    content = bad_gguf.sound()
    begin = data.draw(st.sampled_from((0, 0, len(content) - len(content) // 8)))
    changed = data.draw(mutations.bytes_of(content[begin : begin + 4096]))
    return bad_models.with_model(at.write("m.gguf", content[:begin] + changed + content[begin + 4096 :]))


READ_STORE = (["list"], ["status", bad_store.SWEEP], ["doctor"], ["reply", "TRIAL", "pull"])

TARGETS = (
    _bytes("d.jsonl", bad_visdial.as_lines(bad_visdial.lines()), _of_path(bad_visdial.read), 4),
    _values("d.jsonl", bad_visdial.lines(), _lines, _of_path(bad_visdial.read), 4),
    _bytes("d.json", json.dumps(bad_visdial.official()), _of_path(bad_visdial.read), 4),
    _values("o.json", bad_visdial.official(), json.dumps, _of_path(bad_visdial.read), 4),
    _values("l.json", bad_visdial.listed(), json.dumps, _of_path(bad_visdial.read), 4),
    _values("r.json", bad_visdial.remote(), json.dumps, _of_path(bad_visdial.read_remote), 4),
    _bytes("w.txt", bad_wordle.word_list(), _of_path(bad_wordle.read_words)),
    _bytes("c.csv", bad_wordle.counts(), bad_wordle.read_counts),
    _bytes("t.csv", bad_reddit.as_csv(), _of_path(bad_reddit.read)),
    _bytes("t.jsonl", bad_reddit.as_lines(), _of_path(bad_reddit.read)),
    _values("t.jsonl", bad_reddit.table(), _lines, _of_path(bad_reddit.read)),
    _bytes("t.parquet", bad_reddit.as_parquet(), _of_path(bad_reddit.read)),
    _bytes("own.jsonl", bad_dialogues.as_lines(), _of_path(bad_dialogues.read)),
    _values("own.jsonl", bad_dialogues.rows(), _lines, _of_path(bad_dialogues.read)),
    _bytes("val.jsonl", bad_dialogues.as_lines(), _of_path(bad_dialogues.validate), 16),
    _values("val.jsonl", bad_dialogues.rows(), _lines, _of_path(bad_dialogues.validate), 16),
    _bytes("shop.txt", bad_imagining.DESCRIPTION, _of_path(bad_imagining.imagine), 4),
    _bytes("ex.jsonl", bad_dialogues.as_lines(), _of_path(bad_imagining.shown), 4),
    _values("ex.jsonl", bad_dialogues.rows(), _lines, _of_path(bad_imagining.shown), 4),
    _bytes("hind.jsonl", bad_dialogues.as_lines(), _of_path(bad_imagining.hindsight), 4),
    _values("hind.jsonl", bad_dialogues.rows(), _lines, _of_path(bad_imagining.hindsight), 4),
    *_yaml("q.yaml", bad_yaml.QUESTION, _of_path(bad_yaml.plan)),
    *_yaml("w.yaml", bad_yaml.WANDB, bad_yaml.wandb),
    *_yaml("t.yaml", bad_yaml.TRLX, bad_yaml.trlx),
    Target("options of a question", _options, 30),
    Target("words of the commands", _commands, 30),
    Target("journals", _store_file("journals/*.jsonl", READ_STORE), 10),
    Target("about.json and mark", _store_file("**/*.json", READ_STORE), 10),
    Target("records", _record, 40),
    Target("about.json that says its digest", _about, 20),
    Target("leases", _lease, 10),
    Target("weights", _weights, 10),
    *(
        Target(f"{part} of a model", _folder(bad_models.model_folder, file, bad_models.with_model, values=values), 6)
        for part, file, values in (
            ("config.json", "config.json", True), ("tokenizer.json", "tokenizer.json", True),
            ("weights", "model.safetensors", False),
        )
    ),
    Target("GGUF file", _gguf, 16),
    Target(
        "config.json of a classifier",
        _folder(bad_models._classifier, "config.json", bad_models.with_classifier, values=True), 4,
    ),
)  # fmt: skip


class Hung(BaseException):
    """A command has gone on for too long."""


@contextmanager
def _limited() -> Iterator[None]:
    """Raises `Hung` inside after `LIMIT_SECONDS`."""

    def ring(number: int, frame: object) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def counts() -> Iterator[Counter[tuple[str, str]]]:
    """How often each reader took an input, and how often it refused one; printed at the end."""
    counted: Counter[tuple[str, str]] = Counter()
    yield counted
    for (name, outcome), number in sorted(counted.items()):
        sys.stdout.write(f"fuzz: {name}: {number} {outcome}\n")


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_what_is_not_taken_is_one_clear_line_and_touches_nothing(
    target: Target, sound_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counts: Counter[tuple[str, str]]
) -> None:
    place = Place(tmp_path / "input", tmp_path / "store")
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")  # what a drawn word names as a path lies here or a little above
    monkeypatch.setenv("SWEEPS_STORE", str(place.store))

    @settings(
        max_examples=EXAMPLES or target.few,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def holds(data: st.DataObject) -> None:
        for folder in (place.folder, place.store):
            shutil.rmtree(folder, ignore_errors=True)
        place.folder.mkdir()
        shutil.copytree(sound_store, place.store)
        arguments = target.make(data, place)
        before = tree(place.store)
        with _limited():
            outcome = run(arguments)
        if outcome.status == WRONG:
            assert_one_line(outcome.err)
            assert tree(place.store) == before
        else:
            assert outcome.err == ""
            assert outcome.status == 0 or (outcome.status == FOUND and arguments[0] == "doctor"), outcome
        counts[target.name, "refused" if outcome.status == WRONG else "taken"] += 1

    holds()


def test_a_checkpoint_after_accidents_is_resumed_from_or_passed_over(
    tmp_path: Path, counts: Counter[tuple[str, str]]
) -> None:
    @settings(
        max_examples=EXAMPLES or 30,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def holds(data: st.DataObject) -> None:
        shutil.rmtree(tmp_path / "c", ignore_errors=True)
        for step in (1, 2):
            module = torch.nn.Linear(3, 2)
            torch.nn.init.constant_(module.weight, float(step))
            save_checkpoint(tmp_path / "c", module, {"moment": torch.zeros(2)}, step=step)
        file = data.draw(st.sampled_from(sorted((tmp_path / "c" / "step-00000002").iterdir())))
        file.write_bytes(data.draw(mutations.bytes_of(file.read_bytes())))
        module = torch.nn.Linear(3, 2)
        with _limited():
            try:
                resumed = resume(tmp_path / "c", module, at_most=9)
            except CheckpointError:
                counts["checkpoints", "refused"] += 1
                return
        assert resumed is not None
        assert bool((module.weight == float(resumed.step)).all())  # never half of one
        counts["checkpoints", f"resumed at {resumed.step}"] += 1

    holds()
