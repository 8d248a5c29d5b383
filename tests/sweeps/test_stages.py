"""What trainings share: built once, and what was lost in building it is counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ilql.batch import tokenize
from ilql.tasks import bandit, dialogues
from sweeps.reading import load_cut
from sweeps.spec import TrialSpec
from sweeps.stages import cut_note, ensure_start, ensure_world, load_task, load_tokenizer_stage, load_tokens

if TYPE_CHECKING:
    from conftest import Bench


def test_dialogues_that_are_longer_than_is_read_are_counted(bench: Bench) -> None:
    # a pull is six tokens: its beginning, `pull`, its end, the arm, its end, and the end of all
    assert cut_note(bench.store, bench.trial(train={"max_tokens": 4})) == (
        "16 of 16 training dialogues are longer than train.max_tokens=4 and end there, without their last rewards "
        "(33.3% of all tokens are left out)"
    )


def test_where_all_are_read_whole_nothing_is_said(bench: Bench) -> None:
    assert cut_note(bench.store, bench.trial(train={"max_tokens": 6})) is None


TURNS = [("user", "hi"), ("agent", "good morning"), ("user", "and"), ("agent", "bye")]


@pytest.fixture
def windowed(bench: Bench, tmp_path: Path) -> Callable[..., TrialSpec]:
    """Give trials on five dialogues of one's own; the second, third and fourth are three times as long."""
    lines = [
        {
            "split": ("train", "train", "train", "tune", "report")[number],
            "turns": [
                {"role": role, "text": f"{text} {number}"} | ({"reward": number} if role == "agent" else {})
                for role, text in TURNS * (3 if 0 < number < 4 else 1)
            ],
        }
        for number in range(5)
    ]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    world = ensure_world(bench.store, dialogues.KIND, dialogues.Settings(), {"data": str(file)}).key

    def trial(method: str, max_tokens: int, **parts: Any) -> TrialSpec:
        data = {"task": "dialogues", "world": world, "reward": "recorded", "windows": True}
        made = bench.trial(method, data=data, train={"max_tokens": max_tokens} | parts, backbone={"vocabulary": 64})
        ensure_start(bench.store, made, None)
        return made

    return trial


def lengths(bench: Bench, trial: TrialSpec) -> list[int]:
    """Give the lengths of the training dialogues whole, in tokens."""
    tokenizer, task = load_tokenizer_stage(bench.store, trial), load_task(bench.store, "dialogues", trial.data.world)
    return [len(tokenize(each, tokenizer).tokens) for each in task.dialogues("train", "recorded")]


def test_ones_own_dialogues_are_cut_into_windows_that_are_counted(
    bench: Bench, windowed: Callable[..., TrialSpec]
) -> None:
    short, *_ = lengths(bench, windowed("bc", 1000))
    trial = windowed("bc", short + 5)
    sequences = load_tokens(bench.store, trial)
    windows = len(sequences) - 1
    assert windows > 2
    assert cut_note(bench.store, trial) == (
        f"2 of 3 training dialogues are longer than train.max_tokens={short + 5} and are cut into {windows} windows "
        "that bootstrap: no reward is lost"
    )
    paid = load_tokens(bench.store, windowed("ilql", short + 5))
    assert sum(float(each.rewards.sum()) for each in paid) == 0 + 6 * 1 + 6 * 2
    assert sum(each.ended for each in paid) == 3


def test_dialogues_that_fit_are_the_tokens_they_were(bench: Bench, windowed: Callable[..., TrialSpec]) -> None:
    trial = windowed("bc", 1000)
    task, tokenizer = load_task(bench.store, "dialogues", trial.data.world), load_tokenizer_stage(bench.store, trial)
    whole = [tokenize(each, tokenizer) for each in task.dialogues("train", "recorded")]
    assert [each.tokens.tolist() for each in load_tokens(bench.store, trial)] == [
        each.tokens.tolist() for each in whole
    ]
    assert cut_note(bench.store, trial) is None


def test_a_method_that_keeps_the_best_dialogues_keeps_them_whole(
    bench: Bench, windowed: Callable[..., TrialSpec]
) -> None:
    short, *_ = lengths(bench, windowed("bc", 1000))
    kept = load_tokens(bench.store, windowed("filtered_bc", short + 5, keep=0.4))  # int(3 · 0.4) = 1, that of 12
    assert len(kept) > 1
    assert {float(each.rewards.sum()) + each.earlier + each.later for each in kept} == {12.0}
    assert [each.goes_on for each in kept] == [True] * (len(kept) - 1) + [False]


def test_what_a_forecast_counts_is_the_mean_of_what_is_read_at_once(
    bench: Bench, windowed: Callable[..., TrialSpec]
) -> None:
    short, *_ = lengths(bench, windowed("bc", 1000))
    for max_tokens in (1000, short + 5):
        trial = windowed("bc", max_tokens)
        read = load_tokens(bench.store, trial)
        folder = bench.store.stage("tokens", trial.tokens_key)
        assert folder is not None
        cut = load_cut(folder)
        assert cut is not None
        assert cut.mean_tokens == pytest.approx(np.mean([len(each.tokens) for each in read]))


def test_how_windows_are_cut_is_part_of_the_key_of_what_is_cut_and_of_nothing_else(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keys() -> tuple[str, str]:
        return bench.trial().tokens_key, bench.trial(data={"windows": True}).tokens_key

    plain, cut = keys()
    assert plain != cut
    monkeypatch.setattr("ilql.windows.VERSION", 99)
    assert keys()[0] == plain
    assert keys()[1] != cut


def test_a_spec_from_before_there_were_windows_is_the_same(bench: Bench) -> None:
    content = json.loads(bench.trial().to_json())
    del content["data"]["windows"]
    assert TrialSpec.from_json(json.dumps(content)) == bench.trial()
    assert "data.windows" not in bench.trial().columns()
    assert bench.trial(data={"windows": True}).columns()["data.windows"] is True


def test_what_is_built_is_named_before_and_what_is_there_is_not(bench: Bench) -> None:
    said: list[str] = []
    settings = bandit.Settings(dialogues=24)
    for _ in range(2):
        world = ensure_world(bench.store, bandit.KIND, settings, {}, said.append)
        trial = bench.trial(data={"world": world.key}, backbone={"seed": 5})
        ensure_start(bench.store, trial, None, said.append)
        cut_note(bench.store, trial, said.append)
    assert said == [
        "building the world of bandit",
        "making the tokeniser",
        "making the language model that training begins with",
        "tokenising the training dialogues",
    ]
