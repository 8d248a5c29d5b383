"""Recorded dialogues and what became of them in hindsight: both are kept, and what is judged on is left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from endpoints import Answer, completion, serve
from line_models import BEGIN_AGENT, save_line_model

from ilql.sampling import Sampling
from ilql.tasks.dialogues import KIND as DIALOGUES
from ilql.tasks.dialogues import Settings, transcript, validate
from ilql.tasks.dialogues.read import read_lines
from ilql.tasks.dialogues.splits import assign
from sweeps import cli, hindsight
from sweeps.endpoint import Endpoint
from sweeps.hindsight import Hindsight, rewrite
from sweeps.offline_data import Outcome, Reward
from sweeps.store import Store
from sweeps.writers import EndpointWriter, LocalWriter

SHORT = '''def reward(dialogue, turn):
    """What is said in few words is worth more."""
    return -float(len(dialogue[turn]["text"].split()))
'''
SAMPLING = Sampling(max_tokens=8)
SETTINGS = Settings(train_share=0.5, tune_share=0.25)


@pytest.fixture(autouse=True)
def directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", durable=False)


@pytest.fixture
def reward(tmp_path: Path) -> Reward:
    (tmp_path / "short.py").write_text(SHORT)
    return Reward(f"{tmp_path / 'short.py'}:reward", SETTINGS)


@pytest.fixture
def writer(tmp_path: Path) -> LocalWriter:
    """Says `ok` in place of whatever one turn was, half of the time."""
    chain = {BEGIN_AGENT: {" ok": 0.5, " no": 0.5}, " ok": {"END": 1.0}, " no": {"user: ok": 1.0}, "user: ok": {},
             "END": {"END": 1.0}}  # fmt: skip
    return LocalWriter(save_line_model(tmp_path / "m", chain), chat=False, sampling=SAMPLING)


def recorded(count: int = 12, *, agent_turns: int = 1, **more: Any) -> bytes:
    turns = [{"role": "User", "text": "my lamp\nflickers"}]
    turns += [{"role": "assistant", "text": "how old is it ?", **more}, {"role": "user", "text": "two"}] * agent_turns
    return "".join(
        json.dumps({"id": f"d{n}", "turns": turns, "ended": n % 2 == 0}) + "\n" for n in range(count)
    ).encode()


def asked(lines: bytes | None = None, **fields: Any) -> Hindsight:
    dialogues = read_lines(recorded() if lines is None else lines, SETTINGS).dialogues
    return Hindsight(**({"dialogues": dialogues, "description": "a shop", "settings": SETTINGS} | fields))


def lines_of(outcome: Outcome) -> list[dict[str, Any]]:
    return [json.loads(line) for line in outcome.data.read_text(encoding="utf-8").splitlines()]


def test_both_are_kept_and_only_what_is_learnt_from_is_rewritten(
    store: Store, writer: LocalWriter, reward: Reward
) -> None:
    one = asked(tries=10)
    made = rewrite(store, one, writer, reward)
    lines = lines_of(made)
    old = {line["id"]: line for line in lines if not line["id"].startswith("hindsight-")}
    assert list(old) == [f"d{n}" for n in range(12)]
    for (name, line), split in zip(old.items(), one.splits, strict=True):
        texts = [turn["text"] for turn in line["turns"]]
        assert texts == ["my lamp\nflickers", "how old is it ?", "two"], name
        assert line["split"] == split
    train = one.splits.count("train")
    assert 0 < train < 12
    new = [
        (before, line)
        for before, line in zip([None, *lines[:-1]], lines, strict=True)
        if line["id"].startswith("hindsight-")
    ]
    assert len(new) == train
    for before, line in new:  # right behind what it was
        assert before is not None
        assert before["split"] == line["split"] == "train"
        assert before["ended"] == line["ended"]
        assert [turn["text"] for turn in line["turns"]] == ["my lamp\nflickers", "ok", "two"]
        assert [turn["role"] for turn in line["turns"]] == ["user", "assistant", "user"]
        assert [before["turns"][1]["reward"], line["turns"][1]["reward"]] == [-5.0, -1.0]  # words
    assert made.notes[0].startswith(f"{train} of {train} dialogues of train rewritten; all 12 stay")
    assert made.notes[1] == "their mean return under the reward function: -5 as recorded, -1 rewritten"


def test_the_splits_of_the_result_are_those_it_names_whatever_the_shares(
    store: Store, writer: LocalWriter, reward: Reward, tmp_path: Path
) -> None:
    made = rewrite(store, asked(tries=10), writer, reward)
    problems, summary = validate(str(made.data), Settings())
    assert problems == ()
    assert summary.asked == summary.splits
    for settings in (Settings(), Settings(train_share=0.1, tune_share=0.1, seed=5)):
        dialogues = read_lines(made.data.read_bytes(), settings).dialogues
        assert assign(dialogues, settings) == [line["split"] for line in lines_of(made)]
    (tmp_path / "world").mkdir()
    DIALOGUES.build(Settings(), {"data": str(made.data)}, tmp_path / "world")
    held = [d for split in ("tune", "report") for d in DIALOGUES.load(tmp_path / "world").dialogues(split, "recorded")]
    assert {turn.text for dialogue in held for turn in dialogue.turns if turn.by_agent} == {"how old is it ?"}


def test_the_model_sees_how_it_went(store: Store, reward: Reward) -> None:
    def answer(number: int, body: dict[str, Any]) -> Answer:
        return completion("agent: ok\nagent: fine\nEND")

    with serve(answer) as served:
        endpoint = EndpointWriter(Endpoint(served.address, "m"), None, SAMPLING, concurrent=1)
        made = rewrite(store, asked(recorded(agent_turns=2)), endpoint, reward)
    (prompt,) = {request["messages"][0]["content"] for request in served.requests}
    assert prompt.startswith("a shop\n\nA dialogue, which earned agent -10:\n\nuser: my lamp flickers\n")
    assert "agent: how old is it ?\nuser: two\nagent: how old is it ?\nuser: two\nEND\n" in prompt
    assert "2 lines" in prompt
    assert not made.reproducible


def test_a_reply_that_is_no_rewriting_is_refused_and_asked_for_again(store: Store, reward: Reward) -> None:
    wrong = {
        "agent: a\nagent: b\nEND": hindsight.WRONG_COUNT,
        "agent: how  old is it ?\nEND": hindsight.UNCHANGED,
        "user: my lamp flickers\nagent: ok\nEND": transcript.NO_ROLE,  # what the world said is not for it to say
        "agent: ok": transcript.NO_END,
    }
    texts = [*wrong, "agent: ok\nEND"]
    counted: dict[str, int] = {}

    def answer(number: int, body: dict[str, Any]) -> Answer:
        place = body["messages"][0]["content"]
        counted[place] = counted.get(place, -1) + 1
        return completion(texts[counted[place]])

    turns = [{"role": "user", "text": "my lamp flickers"}, {"role": "agent", "text": "how old is it ?"}]
    lines = [{"id": split, "split": split, "turns": turns} for split in ("train", "tune", "report")]
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    with serve(answer) as served:
        endpoint = EndpointWriter(Endpoint(served.address, "m"), None, SAMPLING, concurrent=1)
        few = rewrite(store, asked(data, tries=4), endpoint, reward)
        assert len(lines_of(few)) == 3
        assert few.refused == dict.fromkeys(wrong.values(), 1)
        made = rewrite(store, asked(data, tries=9), endpoint, reward)
        assert len(lines_of(made)) == 4
        assert len(served.requests) == 5  # four tries are remembered, and with the fifth it is done
    rows = [json.loads(line) for line in made.refused_file.read_text().splitlines()]
    assert {row["text"]: row["reason"] for row in rows} == wrong


def test_rewards_of_the_recording_that_the_function_does_not_pay_are_told(
    store: Store, writer: LocalWriter, reward: Reward
) -> None:
    made = rewrite(store, asked(recorded(reward=-5, rewards={"kindness": 1})), writer, reward)
    assert [line for line in made.notes if "another return" in line] == []
    assert made.notes[-1].endswith("nobody paid the rewritten turns under them: kindness")
    made = rewrite(store, asked(recorded(reward=3)), writer, reward)
    assert made.notes[-1].startswith("12 dialogues had another return than the reward function pays")
    assert {turn["reward"] for line in lines_of(made) for turn in line["turns"] if turn["role"] == "assistant"} <= {
        -5,
        -1,
    }


def test_every_decision_is_in_the_key(store: Store, writer: LocalWriter, reward: Reward, tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(SHORT.replace("-float", "float"))
    other = Reward(f"{tmp_path / 'other.py'}:reward", SETTINGS)
    keys = [
        rewrite(store, asked(), writer, reward).key,
        rewrite(store, asked(), writer, other).key,
        rewrite(store, asked(description=""), writer, reward).key,
        rewrite(store, asked(seed=1), writer, reward).key,
        rewrite(store, asked(tries=4), writer, reward).key,
        rewrite(store, asked(recorded(13)), writer, reward).key,
        rewrite(store, asked(settings=Settings(train_share=0.6, tune_share=0.2, seed=3)), writer, reward).key,
        rewrite(store, asked(), LocalWriter(writer.folder, False, Sampling(max_tokens=9)), reward).key,
    ]
    assert len(set(keys)) == len(keys)


def test_the_same_is_made_again_elsewhere(store: Store, writer: LocalWriter, reward: Reward, tmp_path: Path) -> None:
    one = rewrite(store, asked(recorded(40)), writer, reward)
    two = rewrite(Store(tmp_path / "other", durable=False), asked(recorded(40)), writer, reward)
    assert (one.key, one.data.read_bytes()) == (two.key, two.data.read_bytes())


def test_the_command_takes_a_file_and_writes_one(
    writer: LocalWriter, reward: Reward, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.jsonl").write_bytes(recorded())
    arguments = ["hindsight", str(tmp_path / "mine.jsonl"), "--model", str(writer.folder), "--reward", reward.given]
    arguments += ["--max-tokens", "8", "--store", str(tmp_path / "s"), "--set", "world.train_share=0.5"]
    assert cli.main([*arguments, "--json", "-o", str(tmp_path / "both.jsonl")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["dialogues"] > 12
    assert cli.main(["validate", str(tmp_path / "both.jsonl")]) == 0
    assert cli.main(arguments) == 0
    assert f"{told['dialogues']} dialogues in " in capsys.readouterr().out
