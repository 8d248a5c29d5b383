"""The remote world, against small servers of our own: they speak the interface, hang, refuse or answer rubbish."""

from __future__ import annotations

import json
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ilql.task import TaskFault
from ilql.tasks.visdial import KIND, load
from ilql.tasks.visdial import remote as remote_world
from ilql.tasks.visdial.protocols import Exchange, Scene
from ilql.tasks.visdial.remote import SERVERS_VARIABLE, RemoteWorld
from ilql.tasks.visdial.remote_client import Servers
from ilql.tasks.visdial.settings import Settings

SETTINGS = Settings(world="remote", remote_pool=99)


@dataclass
class Heard:
    """The requests that one server got: path and form."""

    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)


Reply = Callable[[str, dict[str, str]], tuple[int, str]]


def well(path: str, form: dict[str, str]) -> tuple[int, str]:
    """.2 after the caption and .1 more for each answer; the answer repeats the last word of the question."""
    history = json.loads(form["history"])
    if path == "/fetch_reward_rank":
        return 200, "0.1" if history else "0.2"
    return 200, json.dumps([history[-1]["text"].rstrip(" ?").split()[-1], 0.1])


@contextmanager
def server(reply: Reply) -> Iterator[tuple[str, Heard]]:
    heard = Heard()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            assert self.headers["Content-Type"] == "application/x-www-form-urlencoded"
            form = {key: values[0] for key, values in urllib.parse.parse_qs(body, strict_parsing=True).items()}
            heard.requests.append((self.path, form))
            status, text = reply(self.path, form)
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with suppress(BrokenPipeError):  # the client has given up, which is what a hanging server is here for
                self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{made.server_address[1]}", heard
    finally:
        made.shutdown()
        thread.join()
        made.server_close()


@contextmanager
def hanging_server() -> Iterator[tuple[str, Heard]]:
    """One that accepts and never replies, until the test is over."""
    over = threading.Event()

    def hang(path: str, form: dict[str, str]) -> tuple[int, str]:
        over.wait(10)
        return 200, "0.2"

    with server(hang) as made:
        try:
            yield made
        finally:
            over.set()


def dead_address() -> str:
    """An address at which nobody listens."""
    with server(well) as (address, _):
        pass
    return address


def world_of(servers: Servers) -> RemoteWorld:
    scenes = [Scene("s", "a cat"), Scene("t", "a dog")]
    return RemoteWorld(servers, scenes, {"s": (0.5, 0.25)}, pool=99)


def patient(*addresses: str) -> Servers:
    """For servers that reply, however busy this machine is."""
    return Servers(addresses, timeout_seconds=20.0)


def hasty(*addresses: str, attempts: int = 3) -> Servers:
    """For those that never do."""
    return Servers(addresses, timeout_seconds=1.0, attempts=attempts)


def source_file(folder: Path, servers: list[str], number: int = 10, **changes: object) -> str:
    row = {"dialog": [{"question": "is it red ?", "answer": "red"}] * 2, "img_features": [0.5, 0.25], **changes}
    dialogues = [{"caption": f"scene {i}", **row} for i in range(number)]
    path = folder / "source.json"
    path.write_text(json.dumps({"servers": servers, "dialogues": dialogues}))
    return str(path)


def test_the_requests_are_what_the_reference_says() -> None:
    with server(well) as (address, heard):
        world = world_of(patient(address))
        world.check("s")
        heard.requests.clear()
        history = [Exchange("is it red ?", "no")]
        world.answer(["s"], [history], ["what then ?"])
    said = [{"speaker": "question", "text": "is it red ?"}, {"speaker": "answer", "text": "no"}]
    paths = [path for path, _ in heard.requests]
    assert sorted(paths[:2]) == ["/fetch_reward_rank"] * 2  # after the caption, after the first answer
    assert paths[2:] == ["/step_rank"]
    fetched = {key: json.loads(value) for key, value in heard.requests[1][1].items() if key != "caption"}
    assert fetched["img_features"] == [0.5, 0.25]
    assert "generation_kwargs" not in fetched
    form = heard.requests[2][1]
    assert form["caption"] == "a cat"
    assert json.loads(form["history"]) == [*said, {"speaker": "question", "text": "what then ?"}]
    assert json.loads(form["img_features"]) == [0.5, 0.25]
    assert json.loads(form["generation_kwargs"]) == {"inference": "greedy", "beamSize": 1}


def test_the_percentile_is_the_first_and_all_steps() -> None:
    with server(well) as (address, heard):
        world = world_of(patient(address))
        history = (Exchange("a ?", "a"), Exchange("b ?", "b"))
        # .2 + .1 + .1, of a pool of 99: rank (1 - .4) · 100.
        assert world.percentiles(["s"], [history]) == pytest.approx([0.4])
        assert world.ranks(["s", "s"], [history, ()]).tolist() == pytest.approx([60.0, 80.0])
        asked = len(heard.requests)
        assert world.answer(["s"], [history], ["what is c ?"])[0].text == "c"
        # The answer's own step is remembered: nothing more is asked to place the scene after it.
        assert world.percentiles(["s"], [(*history, Exchange("what is c ?", "c"))]) == pytest.approx([0.5])
        assert len(heard.requests) == asked + 1


def test_requests_are_spread_over_all_servers() -> None:
    with server(well) as (one, first), server(well) as (other, second):
        world = world_of(patient(one, other))
        questions = [f"is it {i} ?" for i in range(20)]
        answers = world.answer(["s"] * 20, [()] * 20, questions)
        assert [answer.text for answer in answers] == [str(i) for i in range(20)]
        steps = [sum(path == "/step_rank" for path, _ in heard.requests) for heard in (first, second)]
        assert steps == [10, 10]


def test_a_hanging_server_costs_one_wait_and_no_answer() -> None:
    with hanging_server() as (stuck, heard), server(well) as (address, _):
        world = world_of(hasty(stuck, address))
        started = time.monotonic()
        assert world.answer(["s"] * 8, [()] * 8, ["is it x ?"] * 8)[0].text == "x"
        assert time.monotonic() - started < 5.0  # a wait for each of the 8 would be 8 s
        assert len(heard.requests) == 1  # the health check found it; while it rests nobody asks it


@pytest.mark.parametrize("kind", ["hanging", "dead", "failing"])
def test_when_no_server_is_well_it_is_a_fault(kind: str) -> None:
    with ExitStack() as stack:
        if kind == "hanging":
            address, _ = stack.enter_context(hanging_server())
        elif kind == "failing":
            address, _ = stack.enter_context(server(lambda path, form: (500, "oops")))
        else:
            address = dead_address()
        with pytest.raises(TaskFault, match=f"no visdial server is well: {address}: "):
            world_of(hasty(address)).answer(["s"], [()], ["is it x ?"])


def test_a_server_that_wedges_later_is_a_fault_after_its_attempts() -> None:
    wedged = threading.Event()
    over = threading.Event()

    def reply(path: str, form: dict[str, str]) -> tuple[int, str]:
        if wedged.is_set():
            over.wait(10)
        return well(path, form)

    with server(reply) as (address, _):
        world = world_of(hasty(address, attempts=2))
        assert world.ranks(["s"], [()]).tolist() == pytest.approx([80.0])
        wedged.set()
        with pytest.raises(TaskFault, match="no visdial server replied after 2 attempts"):
            world.answer(["s"], [()], ["is it x ?"])
        over.set()


def test_a_server_that_dies_later_is_replaced_by_another() -> None:
    with server(well) as (address, _), ExitStack() as stack:
        dying, _ = stack.enter_context(server(well))
        world = world_of(patient(dying, address))
        world.check("s")
        stack.close()
        answers = world.answer(["s"] * 6, [()] * 6, ["is it x ?"] * 6)
        assert [answer.text for answer in answers] == ["x"] * 6


def test_a_server_that_fails_later_rests() -> None:
    broken = threading.Event()

    def reply(path: str, form: dict[str, str]) -> tuple[int, str]:
        return (500, "oops") if broken.is_set() else well(path, form)

    with server(reply) as (failing, heard), server(well) as (address, _):
        world = world_of(patient(failing, address))
        world.ranks(["s"], [()])
        broken.set()
        heard.requests.clear()
        for _ in range(6):
            assert world.answer(["s"], [()], ["is it x ?"])[0].text == "x"
        assert len(heard.requests) == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<html>", "'<html>'"),
        ('["red"]', r"\['red'\]"),
        ("[1, 0.1]", r"\[1, 0.1\]"),
        ('["red", "0.1"]', r"\['red', '0.1'\]"),
        ('["red", true]', r"\['red', True\]"),
        ('["red", NaN]', r"\['red', nan\]"),
        ("", "''"),
        ("null", "None"),
    ],
)
def test_a_reply_that_is_none_is_a_fault_that_names_it(text: str, shown: str) -> None:
    def reply(path: str, form: dict[str, str]) -> tuple[int, str]:
        return (200, text) if path == "/step_rank" else well(path, form)

    problem = rf"/step_rank must reply with \[answer, progress\], got {shown}$"
    with server(reply) as (address, _), pytest.raises(TaskFault, match=problem):
        world_of(patient(address)).answer(["s"], [()], ["is it x ?"])


def test_a_percentile_out_of_range_is_a_fault() -> None:
    def reply(path: str, form: dict[str, str]) -> tuple[int, str]:
        return (200, '["red", 0.9]') if path == "/step_rank" else well(path, form)

    with server(reply) as (address, _), pytest.raises(TaskFault, match=r"percentile in \[0, 1\], got 1.1"):
        world_of(patient(address)).answer(["s"], [()], ["is it x ?"])


def test_what_is_remembered_is_bounded_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_world, "REMEMBERED_PERCENTILES", 3)
    with server(well) as (address, heard):
        world = world_of(patient(address))
        history = tuple(Exchange(f"{i} ?", str(i)) for i in range(5))
        for _ in range(2):
            assert world.percentiles(["s"], [history]) == pytest.approx([0.7])
        assert len(heard.requests) == 1 + 6 + 6 - 3  # the check, all, and all that were forgotten


def test_episodes_run_end_to_end(tmp_path: Path) -> None:
    with server(well) as (address, _):
        notes = KIND.build(SETTINGS, {"data": source_file(tmp_path, [address])}, tmp_path)
        task = load(tmp_path)
        assert notes == ["10 dialogues; the servers were asked for the percentiles of 10 of them"]
        # 10 scenes: 2 to tune, 2 to report, the rest to learn on. Two recorded answers, not enough to end: -1 each.
        dialogues = {split: task.dialogues(split, "yn") for split in ("train", "tune", "report")}
        assert [len(rows) for rows in dialogues.values()] == [6, 2, 2]
        assert {dialogue.total_reward for dialogue in dialogues["train"]} == {-2.0}
        environments = [task.environment(seed, "report") for seed in range(2)]
        lengths = 0
        while not environments[0].ended:
            replies = task.step(environments, ["is it yes ?"] * 2)
            lengths += 1
        # .2 then .1 an answer: (.6 - .2) / .8 is half after four.
        assert lengths == 4
        assert replies[0].rewards["yn"] == -2.0
        assert environments[0].measures()["final_percentile"] == pytest.approx(0.6)
        assert environments[0].measures()["penalised_share"] == 1.0
    assert task.references("report", "yn", [0]) == {}  # nobody is there any more, and nobody is asked


def test_a_fault_changes_no_episode(tmp_path: Path) -> None:
    broken = threading.Event()

    def reply(path: str, form: dict[str, str]) -> tuple[int, str]:
        return (200, "rubbish") if broken.is_set() else well(path, form)

    with server(reply) as (address, _):
        KIND.build(SETTINGS, {"data": source_file(tmp_path, [address])}, tmp_path)
        task = load(tmp_path)
        environment = task.environment(0, "tune")
        task.step([environment], ["is it x ?"])
        before = list(environment.exchanges), list(environment.percentiles)
        broken.set()
        with pytest.raises(TaskFault, match="'rubbish'"):
            task.step([environment], ["is it y ?"])
        assert (environment.exchanges, environment.percentiles) == before
        assert not environment.ended


def test_recorded_percentiles_are_kept_as_they_are(tmp_path: Path) -> None:
    with server(well) as (address, heard):
        path = source_file(tmp_path, [address], percentiles=[0.5, 0.6, 0.8])
        KIND.build(SETTINGS, {"data": path}, tmp_path)
        assert len(heard.requests) == 1  # the health check
        # (.8 - .5) / .5 = .6: over with the second answer, which is free.
        assert load(tmp_path).dialogues("train", "yn")[0].total_reward == -1.0


def test_the_addresses_are_no_part_of_the_digest_but_the_words_are(tmp_path: Path) -> None:
    digests = []
    for servers, number in ((["http://a:1"], 5), (["http://b:2"], 5), (["http://a:1"], 6)):
        digests.append(KIND.source_digest(SETTINGS, {"data": source_file(tmp_path, servers, number)}))
    assert digests[0] == digests[1] != digests[2]


def test_a_variable_moves_a_built_world_to_other_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server(well) as (address, _):
        KIND.build(SETTINGS, {"data": source_file(tmp_path, [address])}, tmp_path)
    with server(well) as (moved, heard):
        monkeypatch.setenv(SERVERS_VARIABLE, f" {moved} ,")
        task = load(tmp_path)
        assert task.step([task.environment(0, "tune")], ["is it x ?"])[0].text == "x"
        assert heard.requests


def test_many_threads_share_the_servers(tmp_path: Path) -> None:
    with server(well) as (address, _):
        servers = patient(address)
        form = {"history": "[]", "caption": "a cat", "img_features": "[]"}
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda _: servers.percentile_steps([form] * 5), range(4))) == [[0.2] * 5] * 4


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "must be a readable JSON file"),
        ("[]", "must be an object with 'servers' and 'dialogues', got a list"),
        ('{"dialogues": [{"caption": "x"}]}', "dialogue 0 cannot be read: KeyError 'dialog'"),
        ('{"dialogues": [{"caption": "x", "dialog": []}]}', "dialogue 0 cannot be read: .*at least one exchange"),
        (
            '{"dialogues": [{"caption": "x", "dialog": [{"question": "a", "answer": "b"}]}]}',
            "must have at least 3 scenes, one for each split, got 1",
        ),
        ('{"servers": "http://a:1", "dialogues": []}', "'servers' must be a list of addresses, got 'http://a:1'"),
    ],
)
def test_a_source_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "source.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=problem) as caught:
        KIND.build(SETTINGS, {"data": str(path)}, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_source_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must have a source file with servers and dialogues, got none"):
        KIND.build(SETTINGS, {}, tmp_path)
    with pytest.raises(ValueError, match="must be a readable JSON file"):
        KIND.source_digest(SETTINGS, {"data": str(tmp_path / "nowhere.json")})


def test_an_unreachable_server_ends_a_build_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no visdial server is well: http://127") as caught:
        KIND.build(SETTINGS, {"data": source_file(tmp_path, [dead_address()])}, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["127.0.0.1:5000", "https://a:1", "http://", "http://a:port"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="a server's address must look like http://host:port"):
        Servers([address])


def test_no_server_is_refused() -> None:
    with pytest.raises(ValueError, match="must have at least one server, got none"):
        Servers([])
