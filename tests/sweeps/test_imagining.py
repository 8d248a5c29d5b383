"""Dialogues that a model imagines: read strictly, paid, kept under a key of all that decides them, lost by nothing."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from endpoints import Answer, Asked, completion, serve
from line_models import BEGIN, BEGIN_AGENT, REPAIRS, save_line_model

from ilql.sampling import Sampling
from ilql.tasks.dialogues import KIND as DIALOGUES
from ilql.tasks.dialogues import Settings, transcript, validate
from ilql.tasks.dialogues.read import read_lines
from sweeps import cli, gc, imagining, replies
from sweeps.doctor import findings
from sweeps.endpoint import Endpoint, EndpointError
from sweeps.imagining import Imagining, examples_of, imagine
from sweeps.offline_data import Outcome, Reward
from sweeps.store import Store
from sweeps.writers import EndpointWriter, LocalWriter

KEY = "key-93d0a"
BRIEF = '''"""Words cost, thanks at the end are worth ten."""


def reward(dialogue, turn):
    answers = dialogue[turn + 1 :]
    thanked = len(answers) == 1 and "thank" in answers[0]["text"]
    return 10.0 * thanked - 0.1 * len(dialogue[turn]["text"].split())
'''
SAMPLING = Sampling(max_tokens=12)

Lines = Callable[[Outcome], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_line_model(tmp_path_factory.mktemp("line") / "model", REPAIRS)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", durable=False)


@pytest.fixture
def reward(tmp_path: Path) -> Reward:
    (tmp_path / "brief.py").write_text(BRIEF)
    return Reward(f"{tmp_path / 'brief.py'}:reward", Settings())


@pytest.fixture
def writer(folder: Path) -> LocalWriter:
    return LocalWriter(folder, chat=False, sampling=SAMPLING)


def asked(**fields: Any) -> Imagining:
    return Imagining(**({"description": "a repair shop", "settings": Settings(), "count": 6, "tries": 20} | fields))


def lines_of(outcome: Outcome) -> list[dict[str, Any]]:
    return [json.loads(line) for line in outcome.data.read_text(encoding="utf-8").splitlines()]


def refused_of(outcome: Outcome) -> list[dict[str, Any]]:
    return [json.loads(line) for line in outcome.refused_file.read_text(encoding="utf-8").splitlines()]


def remote(asked_of: Asked, **fields: Any) -> EndpointWriter:
    endpoint = Endpoint(asked_of.address, "m", first_wait_seconds=0.01, attempts=2)
    return EndpointWriter(
        **({"endpoint": endpoint, "key_variable": None, "sampling": SAMPLING, "concurrent": 3} | fields)
    )


def dialogue(number: int) -> str:
    return f"user: zorp {number}\nagent: here is {number}\nuser: thank you\nEND"


# What a local model writes


def test_what_a_model_wrote_is_data_as_documented_and_paid_by_the_reward(
    store: Store, writer: LocalWriter, reward: Reward
) -> None:
    made = imagine(store, asked(), writer, reward)
    assert made.dialogues == 6
    assert made.reproducible
    problems, summary = validate(str(made.data), Settings())
    assert problems == ()
    assert (summary.dialogues, summary.named, summary.duplicates, summary.share_ended) == (6, 6, 0, 1.0)
    for line in lines_of(made):
        agents = [turn for turn in line["turns"] if turn["role"] == "agent"]
        # Every turn of the shop has five words at a tenth each; thanks are worth ten to the last.
        thanked = line["turns"][-1]["text"] == "thank you"
        assert [turn["reward"] for turn in agents] == pytest.approx(
            [-0.5] * (len(agents) - 1) + [9.5 * thanked or -0.5]
        )
        said = [f"{turn['role']}: {turn['text']}" for turn in line["turns"]]
        said[0] = said[0].removeprefix(BEGIN)
        for before, behind in zip([BEGIN, *said], [*said, "END"], strict=True):
            assert behind in REPAIRS[before]
    assert (made.folder / "reward" / "brief.py").read_text() == BRIEF  # what paid them stays with them
    assert list(findings(store)) == []
    assert gc.find(store, gc.Rule("none")) == []  # neither dialogues nor replies are freed


def test_what_was_imagined_becomes_a_world(store: Store, writer: LocalWriter, reward: Reward, tmp_path: Path) -> None:
    made = imagine(store, asked(), writer, reward)
    (tmp_path / "world").mkdir()
    DIALOGUES.build(Settings(), {"data": str(made.data)}, tmp_path / "world")
    task = DIALOGUES.load(tmp_path / "world")
    assert sum(len(task.dialogues(split, "recorded")) for split in ("train", "tune", "report")) == 6


def test_the_same_is_made_once_and_made_again_elsewhere_is_the_same(
    store: Store, writer: LocalWriter, reward: Reward, folder: Path, tmp_path: Path
) -> None:
    made = imagine(store, asked(), writer, reward)
    broken = LocalWriter(folder, chat=False, sampling=SAMPLING)
    broken.write = None  # type: ignore[method-assign, assignment]
    assert imagine(store, asked(), broken, reward) == made
    elsewhere = imagine(Store(tmp_path / "other", durable=False), asked(), writer, reward)
    assert elsewhere.key == made.key
    assert elsewhere.data.read_bytes() == made.data.read_bytes()


def test_every_decision_is_in_the_key(
    store: Store, folder: Path, reward: Reward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other.py").write_text(BRIEF.replace("10.0", "9.0"))
    other_model = save_line_model(tmp_path / "m", {**REPAIRS, "END": {"END": 1.0}})
    example = ((("user", "zorp"), ("agent", "here")),)

    def key(reward: Reward = reward, model: Path = folder, sampling: Sampling = SAMPLING, **fields: Any) -> str:
        one = asked(**({"count": 1} | fields))
        return imagine(store, one, LocalWriter(model, chat=False, sampling=sampling), reward).key

    keys = [
        key(),
        key(description="another shop"), key(count=2), key(tries=21), key(seed=1), key(examples=example, shown=1),
        key(settings=Settings(max_turns=3)), key(settings=Settings(world_roles="user,someone"), shown=0),
        key(sampling=Sampling(max_tokens=13)), key(sampling=Sampling(max_tokens=12, temperature=0.9)),
        key(sampling=Sampling(max_tokens=12, top_p=0.99)), key(model=other_model),
        key(reward=Reward(f"{tmp_path / 'other.py'}:reward", Settings())),
        key(reward=Reward(reward.given, Settings(lowest_reward=-2.0))),
    ]  # fmt: skip
    for owner, name in ((imagining, "VERSION"), (transcript, "VERSION"), (replies, "VERSION")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, 99)
            keys.append(key())
    assert len(set(keys)) == len(keys)
    moved = tmp_path / "moved.py"
    moved.write_text(BRIEF)
    assert key(reward=Reward(f"{moved}:reward", Settings())) == keys[0]  # where a file lies decides nothing


def test_more_dialogues_and_another_reward_ask_for_nothing_again(
    store: Store, writer: LocalWriter, reward: Reward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = imagine(store, asked(count=2), writer, reward)
    (tmp_path / "other.py").write_text(BRIEF.replace("10.0", "9.0"))
    monkeypatch.setattr(LocalWriter, "write", lambda *_: pytest.fail("asked again"))
    other = imagine(store, asked(count=2), writer, Reward(f"{tmp_path / 'other.py'}:reward", Settings()))
    assert [line["id"] for line in lines_of(other)] == [line["id"] for line in lines_of(few)]
    monkeypatch.undo()
    monkeypatch.setenv("no_proxy", "*")
    more = imagine(store, asked(count=6), writer, reward)
    assert lines_of(more)[:2] == lines_of(few)


def test_tries_are_bounded_and_fewer_dialogues_are_kept_and_told(
    store: Store, writer: LocalWriter, reward: Reward
) -> None:
    made = imagine(store, asked(count=9, tries=3), writer, reward)  # the chain has eight
    assert made.dialogues <= 8
    assert made.dialogues + sum(made.refused.values()) == 27  # though they are drawn in blocks of eight
    assert made.refused == {imagining.AGAIN: 27 - made.dialogues}
    assert made.notes[0].startswith(f"{made.dialogues} dialogues of the 9 wanted: 27 tries")


def test_a_model_that_was_stopped_within_a_block_goes_on_to_the_same_dialogues(
    store: Store, writer: LocalWriter, reward: Reward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = imagine(Store(tmp_path / "other", durable=False), asked(), writer, reward)
    add = replies.Replies.add

    def killed(log: replies.Replies, name: str, reply: replies.Reply) -> None:
        if len(log) == 11:
            raise KeyboardInterrupt
        add(log, name, reply)

    monkeypatch.setattr(replies.Replies, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        imagine(store, asked(), writer, reward)
    monkeypatch.setattr(replies.Replies, "add", add)
    assert imagine(store, asked(), writer, reward).data.read_bytes() == whole.data.read_bytes()
    logs = [next(each.glob(f"scratch/replies/*/*/{replies.LOG_FILE}")) for each in (store.folder, tmp_path / "other")]
    assert logs[0].read_bytes() == logs[1].read_bytes()


def test_what_is_refused_is_counted_by_reason_and_kept_with_its_text(
    store: Store, reward: Reward, tmp_path: Path
) -> None:
    chain = {
        BEGIN: {" a": 0.4, " it is": 0.2, " alone": 0.2, "": 0.2}, " a": {"agent: c": 0.5, "user: a": 0.5},
        " it is": {"so he said": 1.0}, "so he said": {"END": 1.0}, " alone": {"END": 1.0}, "": {"agent: c": 1.0},
        "user: a": {"agent: c": 1.0}, "agent: c": {"END": 1.0}, "END": {"END": 1.0},
    }  # fmt: skip
    writer = LocalWriter(save_line_model(tmp_path / "m", chain), chat=False, sampling=Sampling(max_tokens=3))
    made = imagine(store, asked(count=8, tries=8), writer, reward)
    kept = [[(turn["role"], turn["text"]) for turn in line["turns"]] for line in lines_of(made)]
    # Three tokens hold two lines and END.
    assert kept == [[("user", "a"), ("agent", "c")]]
    assert set(made.refused) == {
        transcript.NO_ROLE, transcript.ONE_SIDE, transcript.WORLD_SILENT, transcript.NO_END, imagining.AGAIN,
    }  # fmt: skip
    rows = refused_of(made)
    assert Counter(row["reason"] for row in rows) == made.refused
    assert {row["text"] for row in rows if row["reason"] == transcript.NO_ROLE} == {"user: it is\nso he said\nEND"}
    assert len({row["name"] for row in rows}) == len(rows) == 63


def test_a_model_that_writes_no_dialogue_is_one_line_and_its_texts_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], reward: Reward
) -> None:
    prose = {BEGIN: {" once upon a time": 1.0}, " once upon a time": {"there was a lamp": 1.0}, "there was a lamp": {}}
    model = save_line_model(tmp_path / "m", prose)
    (tmp_path / "shop.txt").write_text("a repair shop")
    arguments = ["imagine", str(tmp_path / "shop.txt"), "--model", str(model), "--reward", reward.given]
    arguments += ["--count", "2", "--max-tokens", "3", "--store", str(tmp_path / "s")]
    assert cli.main(arguments) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith(
        "error: a model must write dialogues as they are asked for, got none: 8 × a line begins with no role"
    )
    (kept,) = (tmp_path / "s").glob("stages/imagined/*/*/refused.jsonl")
    assert len(kept.read_text().splitlines()) == 8  # two wanted, four tries each
    assert str(kept) in err


# Examples


def rows(count: int) -> bytes:
    turns = [{"role": "customer", "text": "my  lamp\nflickers"}, {"role": "clerk", "text": "ok"}]
    return "".join(json.dumps({"id": f"d{n}", "turns": turns}) + "\n" for n in range(count)).encode()


def test_a_prompt_shows_some_examples_others_at_every_try_and_none_that_is_judged_on() -> None:
    settings = Settings(agent_roles="clerk", world_roles="customer", train_share=0.5, tune_share=0.25)
    lines = [json.loads(line) for line in rows(40).splitlines()]
    for number, line in enumerate(lines):
        line["turns"][1]["text"] = f"ok {number}"
        line["split"] = "train" if number < 30 else ("tune", "report")[number % 2]
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    one = asked(settings=settings, examples=examples_of(read_lines(text, settings), settings), shown=3)
    prompts = [one.prompt(number) for number in range(20)]
    shown = [[int(line.split()[-1]) for line in p.splitlines() if line.startswith("clerk: ok")] for p in prompts]
    assert all(len(set(numbers)) == 3 for numbers in shown)
    assert max(number for numbers in shown for number in numbers) < 30
    assert len(set(map(tuple, shown))) > 15
    assert prompts == [one.prompt(number) for number in range(20)]
    assert "customer: my lamp flickers\nclerk: ok" in prompts[0]
    assert prompts[0].startswith("a repair shop\n\n")
    assert prompts[0].endswith("END\n\n")


def test_an_example_that_is_said_again_is_refused(store: Store, reward: Reward, tmp_path: Path) -> None:
    chain = {BEGIN: {" a": 0.5, " b": 0.5}, " a": {"agent: c": 1.0}, " b": {"agent: c": 1.0},
             "agent: c": {"END": 1.0}, "END": {"END": 1.0}}  # fmt: skip
    writer = LocalWriter(save_line_model(tmp_path / "m", chain), chat=False, sampling=SAMPLING)
    made = imagine(store, asked(examples=((("user", "a"), ("agent", "c")),), count=2, tries=8), writer, reward)
    assert [line["turns"][0]["text"] for line in lines_of(made)] == ["b"]
    assert set(made.refused) == {imagining.COPIED, imagining.AGAIN}


def test_of_a_file_that_cannot_be_split_all_are_shown_that_ask_for_no_other_split() -> None:
    settings = Settings(agent_roles="clerk", world_roles="customer")
    assert len(examples_of(read_lines(rows(2), settings), settings)) == 2
    lines = [json.loads(line) for line in rows(3).splitlines()]
    text = "".join(
        json.dumps(line | {"split": split}) + "\n"
        for line, split in zip(lines, (None, "report", "report"), strict=True)
    )
    assert len(examples_of(read_lines(text.encode(), settings), settings)) == 1


def test_a_dialogue_is_begun_by_whoever_begins_the_examples(store: Store, reward: Reward, tmp_path: Path) -> None:
    chain = {BEGIN_AGENT: {" hello": 1.0}, " hello": {"user: hi": 1.0}, "user: hi": {"END": 1.0}, "END": {"END": 1.0}}
    writer = LocalWriter(save_line_model(tmp_path / "m", chain), chat=False, sampling=SAMPLING)
    agent_first = (("agent", "what is it ?"), ("user", "a lamp"))
    assert asked().opening == asked(examples=(agent_first, agent_first[::-1])).opening == BEGIN
    made = imagine(store, asked(examples=(agent_first,), count=1), writer, reward)
    assert [[turn["text"] for turn in line["turns"]] for line in lines_of(made)] == [["hello", "hi"]]


# Endpoints


def test_an_endpoints_answers_become_data_and_are_said_to_be_a_record(store: Store, reward: Reward) -> None:
    with serve(lambda number, body: completion(dialogue(number))) as served:
        made = imagine(store, asked(), remote(served), reward)
        assert len(served.requests) == 6  # no more than can be of use
    assert made.dialogues == 6
    assert not made.reproducible
    assert any("cannot be drawn again" in line for line in made.lines())
    assert len({request["seed"] for request in served.requests}) == 6
    about = store.about(imagining.KIND, made.key)
    assert about is not None
    assert about["about"]["writer"]["endpoint"] == served.address
    # The stage is there when the endpoint is not.
    assert imagine(store, asked(), remote(served), reward) == made


def test_address_and_name_are_in_the_key_and_what_is_no_decision_is_not(store: Store, reward: Reward) -> None:
    with serve(lambda number, body: completion(dialogue(number))) as served:
        one = imagine(store, asked(), remote(served), reward)
        same = imagine(store, asked(), remote(served, concurrent=1, key_variable="MINE"), reward)
        other = remote(served)
        other.endpoint = dataclasses.replace(other.endpoint, model="n")
        assert imagine(store, asked(), other, reward).key != one.key == same.key


def test_replies_that_are_garbage_count_as_tries_and_are_kept(store: Store, reward: Reward) -> None:
    def answer(number: int, body: object) -> Answer:
        return (200, {}, b"<html>") if number % 2 else completion(dialogue(number))

    with serve(answer) as served:
        made = imagine(store, asked(count=4, tries=3), remote(served, concurrent=1), reward)
    assert made.dialogues == 4
    assert made.refused == {"the endpoint's reply is no chat completion": len(served.requests) - 4}
    assert {row["text"] for row in refused_of(made)} == {None}


@pytest.fixture
def failing() -> Iterator[tuple[Asked, threading.Event]]:
    """An endpoint that answers four times and is then out of order, until it is mended."""
    mended = threading.Event()

    def answer(number: int, body: object) -> Answer:
        return completion(dialogue(number)) if number < 4 or mended.is_set() else (500, {}, b"out of order")

    with serve(answer) as served:
        yield served, mended


def test_what_was_answered_before_it_failed_stays_and_the_same_call_goes_on(
    failing: tuple[Asked, threading.Event], store: Store, reward: Reward
) -> None:
    served, mended = failing
    with pytest.raises(EndpointError) as caught:
        imagine(store, asked(), remote(served, concurrent=1), reward)
    assert str(caught.value) == (
        f"the endpoint {served.address} must answer with chat completions, got status 500: out of order (2 attempts); "
        "4 replies are kept, and the same command goes on from them"
    )
    assert store.stage(imagining.KIND, "x") is None
    mended.set()
    before = len(served.requests)
    made = imagine(store, asked(), remote(served), reward)
    assert made.dialogues == 6
    assert len(served.requests) - before == 2
    texts = [line["turns"][0]["text"] for line in lines_of(made)]
    assert texts[:4] == ["zorp 0", "zorp 1", "zorp 2", "zorp 3"]


def test_what_is_under_way_when_another_request_fails_is_kept(store: Store, reward: Reward) -> None:
    failed = threading.Event()
    answered: list[int] = []

    def answer(number: int, body: object) -> Answer:
        if number == 1:
            failed.set()
            return 401, {}, b""
        failed.wait(5)
        answered.append(number)
        return completion(dialogue(number))

    with serve(answer) as served, pytest.raises(EndpointError, match="status 401"):
        imagine(store, asked(), remote(served, concurrent=2), reward)
    (log,) = store.folder.glob(f"scratch/replies/*/*/{replies.LOG_FILE}")
    assert len(log.read_text().splitlines()) == len(answered) >= 1


def test_nothing_more_is_asked_of_one_that_has_failed(store: Store, reward: Reward) -> None:
    def answer(number: int, body: object) -> Answer:
        return (401, {}, b"") if number == 0 else completion(dialogue(number))

    with serve(answer) as served:
        with pytest.raises(EndpointError, match="status 401"):
            imagine(store, asked(count=200), remote(served, concurrent=2), reward)
        assert len(served.requests) < 40  # of 64: some are answered until the other thread hears of it


def test_a_line_that_a_killed_writer_left_is_cut_off_and_asked_for_again(
    failing: tuple[Asked, threading.Event], store: Store, reward: Reward
) -> None:
    served, mended = failing
    with pytest.raises(EndpointError):
        imagine(store, asked(), remote(served, concurrent=1), reward)
    (log,) = store.folder.glob(f"scratch/replies/*/*/{replies.LOG_FILE}")
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(lines[0] + b'{"name": 7}\n' + lines[2] + lines[3][:20])
    mended.set()
    before = len(served.requests)
    assert imagine(store, asked(), remote(served), reward).dialogues == 6
    assert len(served.requests) - before == 4  # of six, the first and the third were whole
    assert [json.loads(line)["name"] for line in log.read_text().splitlines()[:3]] == ["0", 7, "2"]
    assert len(replies.Replies(log.parent)) == 6  # none was appended to half a line


def test_two_processes_do_not_ask_for_the_same(store: Store, writer: LocalWriter, reward: Reward) -> None:
    key = replies.log_key(asked().record, writer)
    with replies.open_replies(store, key), pytest.raises(ValueError, match="by one process at a time"):
        imagine(store, asked(), writer, reward)


def test_a_reward_that_fails_loses_nothing(store: Store, reward: Reward, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def reward(dialogue, turn):\n    return None\n")
    with serve(lambda number, body: completion(dialogue(number))) as served:
        with pytest.raises(ValueError, match=r"the reward function must give a finite number .*, got NoneType None"):
            imagine(store, asked(), remote(served), Reward(f"{tmp_path / 'bad.py'}:reward", Settings()))
        assert imagine(store, asked(), remote(served), reward).dialogues == 6
        assert len(served.requests) == 6


def test_a_key_is_sent_and_stands_nowhere(
    tmp_path: Path, reward: Reward, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINE", KEY)  # a name that nothing knows for a secret's
    (tmp_path / "shop.txt").write_text("a repair shop")

    def answer(number: int, body: object) -> Answer:
        if number == 5:
            return 403, {}, f"{KEY} is over".encode()
        return completion(f"user: {number}\nagent: my key is {KEY}\nEND")

    with serve(answer) as served:
        arguments = ["imagine", str(tmp_path / "shop.txt"), "--model", "m", "--endpoint", served.address]
        arguments += [
            "--key-variable",
            "MINE",
            "--reward",
            reward.given,
            "--count",
            "5",
            "--store",
            str(tmp_path / "s"),
        ]
        assert cli.main(arguments) == 0
        assert cli.main([*arguments, "--json"]) == 0
        assert cli.main([*arguments, "--seed", "1"]) == 2
        assert {headers["Authorization"] for headers in served.headers} == {f"Bearer {KEY}"}
    said = capsys.readouterr()
    assert "*** is over" in said.err
    assert KEY not in said.out + said.err
    files = [path for path in (tmp_path / "s").rglob("*") if path.is_file()]
    assert [str(path) for path in files if KEY in path.read_bytes().decode()] == []
    assert any("my key is ***" in path.read_text() for path in files if path.name == "dialogues.jsonl")


# The command


def test_programs_read_json_and_the_file_is_copied_where_it_was_asked_for(
    folder: Path, reward: Reward, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shop.txt").write_text("a repair shop")
    out = tmp_path / "mine.jsonl"
    arguments = [
        "imagine",
        str(tmp_path / "shop.txt"),
        "--model",
        str(folder),
        "--reward",
        reward.given,
        "-o",
        str(out),
    ]
    arguments += ["--count", "3", "--max-tokens", "12", "--store", str(tmp_path / "s")]
    assert cli.main([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["dialogues"], told["file"], told["reproducible"]) == (3, str(out), True)
    assert Path(told["refused_file"]).is_file()
    assert cli.main(["validate", str(out)]) == 0
    assert cli.main(arguments) == 2
    assert f"-o must name a new file, got {out}, which is there" in capsys.readouterr().err
