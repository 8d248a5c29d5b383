"""An endpoint that is well, down, slow, busy, or says something else: a text, one clear line, a bounded wait."""

from __future__ import annotations

import email.utils
import json
import socket
import threading
import time
from typing import Any

import pytest
from endpoints import Answer, completion, serve

from ilql.sampling import Sampling
from sweeps import endpoint
from sweeps.endpoint import Endpoint, EndpointError, UnusableError, key_from

KEY = "key-93d0a/1+x"
SAMPLING = Sampling(temperature=0.5, top_p=0.9, max_tokens=7)


@pytest.fixture(autouse=True)
def directly(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy of this machine's stands between."""
    monkeypatch.setenv("no_proxy", "*")


def ask(address: str, *, key: str | None = None, timeout: float = 20.0, attempts: int = 3) -> str:
    asked = Endpoint(address, "m", key, timeout_seconds=timeout, attempts=attempts, first_wait_seconds=0.01)
    return asked.write("write", SAMPLING, seed=3, stopped=threading.Event())


def fault_of(address: str, **options: Any) -> str:
    with pytest.raises(EndpointError) as caught:
        ask(address, **options)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"the endpoint {address} must answer with chat completions, got ")
    return str(caught.value).partition(", got ")[2]


def test_it_is_asked_for_a_chat_completion_and_answers_with_its_text() -> None:
    with serve(lambda number, body: completion("user: hello")) as asked:
        assert ask(f"{asked.address}/", key=KEY) == "user: hello"
    assert asked.paths == ["/v1/chat/completions"]
    assert asked.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert asked.requests == [
        {
            "model": "m", "messages": [{"role": "user", "content": "write"}], "temperature": 0.5, "top_p": 0.9,
            "max_tokens": 7, "seed": 3,
        }
    ]  # fmt: skip


def test_without_a_key_none_is_sent() -> None:
    with serve(lambda number, body: completion(None)) as asked:
        assert ask(asked.address) == ""  # a model that said nothing
    assert "Authorization" not in asked.headers[0]


def test_one_that_is_down_is_one_line_after_so_many_attempts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    assert fault_of(f"http://127.0.0.1:{port}/v1") == "[Errno 111] Connection refused (3 attempts)"


def test_one_that_is_slow_is_waited_for_no_longer_than_said() -> None:
    def late(number: int, body: object) -> Answer:
        time.sleep(0.5)
        return completion("late")

    with serve(late) as asked:
        began = time.monotonic()
        assert fault_of(asked.address, timeout=0.1, attempts=2) == "timed out (2 attempts)"
        assert time.monotonic() - began < 0.45


def test_a_reply_that_is_too_long_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "LONGEST_REPLY_BYTES", 100)
    with serve(lambda number, body: completion("x" * 200)) as asked:
        assert fault_of(asked.address, attempts=1) == "a reply of more than 100 bytes (1 attempt)"


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_what_may_get_better_is_tried_again(status: int) -> None:
    def busy(number: int, body: object) -> Answer:
        return (status, {"Retry-After": "0"}, b"later") if number < 2 else completion("at last")

    with serve(busy) as asked:
        assert ask(asked.address) == "at last"
        assert len(asked.requests) == 3
    with serve(lambda number, body: (status, {}, b'{"error": {"message": "no\\nroom"}}')) as asked:
        assert fault_of(asked.address) == f"status {status}: no room (3 attempts)"
        assert len(asked.requests) == 3


@pytest.mark.parametrize("as_date", [False, True])
def test_a_wait_that_it_asks_for_is_waited(as_date: bool) -> None:
    def busy(number: int, body: object) -> Answer:
        # A date has whole seconds: of two, one to two are left.
        wait = email.utils.formatdate(time.time() + 2, usegmt=True) if as_date else "0.4"
        return (429, {"Retry-After": wait}, b"") if number == 0 else completion("at last")

    with serve(busy) as asked:
        began = time.monotonic()
        assert ask(asked.address) == "at last"
        assert time.monotonic() - began > 0.35


@pytest.mark.parametrize(("said", "tries"), [("3600", 1), ("soon", 3), ("nan", 3), ("-5", 3)])
def test_a_wait_beyond_the_bound_is_not_waited_and_one_that_cannot_be_read_is_ours(said: str, tries: int) -> None:
    with serve(lambda number, body: (429, {"Retry-After": said}, b"slow down")) as asked:
        told = fault_of(asked.address)
        assert len(asked.requests) == tries
    if tries == 1:
        assert told == "status 429: slow down and asks to wait 3600 s, longer than is waited"


def test_a_key_that_is_missing_or_not_taken_is_told_at_once_and_never_shown() -> None:
    with serve(lambda number, body: (401, {}, f"no such key: {KEY}".encode())) as asked:
        assert fault_of(asked.address, key=KEY) == "status 401: no such key: ***; the key that was sent is not taken"
        assert fault_of(asked.address) == f"status 401: no such key: {KEY}; name its key with --key-variable"
        assert len(asked.requests) == 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_gets_no_key(status: int) -> None:
    with serve(lambda number, body: completion("stolen")) as elsewhere:
        target = f"{elsewhere.address}/chat/completions"
        with serve(lambda number, body: (status, {"Location": f"{target}?token=hunter2"}, b"")) as asked:
            told = fault_of(asked.address, key=KEY)
        assert told == f"status {status}, a redirect to {target}?token=***, which is not followed"
    assert elsewhere.requests == []


@pytest.mark.parametrize(
    "body",
    [
        b"<html>welcome</html>", b"", b"[]", b"{}", b'{"choices": []}', b'{"choices": [{"message": 3}]}', b"\xff\xfe",
        b'{"choices": [{"message": {"content": ["parts"]}}]}', b"[" * 100_000,
    ],
)  # fmt: skip
def test_garbage_is_a_reply_that_counts_and_after_some_in_a_row_the_end(body: bytes) -> None:
    with serve(lambda number, request: (200, {}, body)) as asked:
        one = Endpoint(asked.address, "m", first_wait_seconds=0.01)
        for _ in range(endpoint.UNUSABLE_IN_A_ROW - 1):
            with pytest.raises(UnusableError, match="the endpoint's reply is no chat completion"):
                one.write("p", SAMPLING, seed=0, stopped=threading.Event())
        with pytest.raises(EndpointError, match=r"\(5 in a row\)"):
            one.write("p", SAMPLING, seed=0, stopped=threading.Event())
        assert len(asked.requests) == endpoint.UNUSABLE_IN_A_ROW


def test_a_prompt_that_is_refused_counts_alone_while_others_are_answered() -> None:
    def picky(number: int, body: object) -> Answer:
        return (400, {}, b"too long") if number % 4 else completion("fine")

    with serve(picky) as asked:
        one = Endpoint(asked.address, "m")
        for number in range(16):
            if number % 4:
                with pytest.raises(UnusableError, match="the endpoint refused the prompt with status 400"):
                    one.write("p", SAMPLING, seed=0, stopped=threading.Event())
            else:
                assert one.write("p", SAMPLING, seed=0, stopped=threading.Event()) == "fine"


def test_a_model_that_is_not_there_is_told_at_once() -> None:
    with serve(lambda number, body: (404, {}, json.dumps({"error": "no model m"}).encode())) as asked:
        assert fault_of(asked.address) == "status 404: no model m"
        assert len(asked.requests) == 1


def test_what_echoes_the_key_is_kept_without_it() -> None:
    with serve(lambda number, body: completion(f"user: is it {KEY} ?")) as asked:
        assert ask(asked.address, key=KEY) == "user: is it *** ?"


def test_a_long_complaint_of_several_lines_is_one_short_line() -> None:
    with serve(lambda number, body: (404, {}, b"a\nb\x1b[1m " * 500)) as asked:
        told = fault_of(asked.address)
        assert len(told) < 260
        assert told.startswith("status 404: a b")


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("ftp://host/v1", "'ftp://host/v1'"),
        ("file:///etc/passwd", "'file:///etc/passwd'"),
        ("127.0.0.1:8000", "'127.0.0.1:8000'"),
        ("http://", "'http://'"),
        ("http://host:0/v1", "'http://host:0/v1'"),
        ("http://host:99999/v1", "cannot be read"),
        ("http://[::1/v1", "cannot be read"),
        ("http://host/a b", "'http://host/a b'"),
        ("http://höst/v1", "höst"),
    ],
)
def test_an_address_that_is_none_of_http_is_refused(address: str, says: str) -> None:
    with pytest.raises(ValueError, match="an endpoint's address must look like http://host:port/v1, got") as caught:
        Endpoint(address, "m")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "http://ann:hunter2@host/v1", "ann:hunter2@host/v1", "ftp://hunter2@host", "https://host/v1?key=hunter2",
        "https://host/#hunter2",
    ],
)  # fmt: skip
def test_an_address_with_a_secret_in_it_is_refused_and_not_shown(address: str) -> None:
    with pytest.raises(ValueError, match="must hold no user, password or parameters") as caught:
        Endpoint(address, "m")
    assert "hunter2" not in str(caught.value)


def test_a_key_is_read_from_the_variable_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", f" {KEY}\n")
    assert key_from("MINE") == KEY
    assert key_from(None) is None


@pytest.mark.parametrize("named", ["sk_live_a8f7", "sk-live-a8f7", "", "EMPTY"])
def test_a_key_that_is_named_in_place_of_its_variable_is_not_shown(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTY", "")
    with pytest.raises(ValueError, match="--key-variable must name an environment variable") as caught:
        key_from(named)
    assert not named or named not in str(caught.value)


@pytest.mark.parametrize("key", ["a8f7\nX: y", "a8 f7", "schlüssel"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ValueError, match="a key must be printable letters without blanks") as caught:
        Endpoint("http://host/v1", "m", key)
    assert key not in str(caught.value)
    assert KEY not in repr(Endpoint("http://host/v1", "m", KEY))
