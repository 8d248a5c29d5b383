"""What is taken out of a text before it is written down."""

from __future__ import annotations

import json
import time
import urllib.parse
from collections.abc import Callable

import pytest

from cluster.faults import REASON_LENGTH, classify
from cluster.redaction import without_secrets


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("--tracking-uri=http://ann:pa55@host:5000/a", "--tracking-uri=http://***@host:5000/a"),
        ("http://ann@host", "http://***@host"),
        ("HTTP 401 for https://host/a?api_key=1234&seed=3", "HTTP 401 for https://host/a?api_key=***&seed=3"),
        ("sqlite:////tmp/store/mlflow.db?timeout=6", "sqlite:////tmp/store/mlflow.db?timeout=6"),
        ("sqlite:////home/ann@lab/mlflow.db", "sqlite:////home/ann@lab/mlflow.db"),
        ("postgresql://ann:pa/ss55@host/db", "postgresql://***@host/db"),
        ("postgresql://ann:p@ss@host/db", "postgresql://***@host/db"),
        ("http://p@ss@host", "http://***@host"),
        ("no server at ann:pa55@host:5000", "no server at ***@host:5000"),
        ("https://host/x?sig=ab%2Bc&auth=abcdef#a", "https://host/x?sig=***&auth=***"),
        ("https://host/x?X-Amz-Signature=ab12&X-Amz-Date=5", "https://host/x?X-Amz-Signature=***&X-Amz-Date=5"),
        ("{'Authorization': 'Basic YW5uOnBhNTU='}", "{'Authorization': 'Basic ***'}"),
        ("sent Bearer abcdefghijklmno, got 401", "sent Bearer ***, got 401"),
        ("the bearer of this", "the bearer of this"),
        ("a mail to ann@host costs 3 tokens", "a mail to ann@host costs 3 tokens"),
    ],
)
def test_addresses_lose_their_secrets_and_nothing_else(text: str, told: str) -> None:
    assert without_secrets(text) == told


@pytest.mark.parametrize(
    "name",
    [
        "MLFLOW_TRACKING_PASSWORD", "RAY_AUTH_TOKEN", "HF_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY",
        "MYSQL_PWD", "PGPASSWORD", "DB_PASS", "GITHUB_PAT", "OPENAI_KEY",
    ],
)  # fmt: skip
def test_the_value_of_a_variable_that_is_named_like_a_secret_is_hidden(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "hunter2-hunter2")
    assert without_secrets("KeyError: 'hunter2-hunter2'") == "KeyError: '***'"


@pytest.mark.parametrize(
    "name", ["PWD", "OLDPWD", "TOKENIZERS_PARALLELISM", "RAY_AUTH_TOKEN_PATH", "MAX_TOKENS", "SORT_KEY"]
)
def test_what_only_sounds_like_one_stays(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "/some/where")
    assert without_secrets("no file in /some/where") == "no file in /some/where"


def test_of_two_secrets_the_longer_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "abcdef")
    monkeypatch.setenv("B_TOKEN", "abcdefghi")
    assert without_secrets("abcdefghi") == "***"  # else 'ghi' would be left


@pytest.mark.parametrize(
    "write",
    [
        str, repr, json.dumps, lambda text: json.dumps(text, ensure_ascii=False), urllib.parse.quote,
        urllib.parse.quote_plus, lambda text: "p%40ss%2fw%22rd%20%c3%a9" if text else "",
    ],
)  # fmt: skip
def test_a_secret_is_known_however_it_is_written(monkeypatch: pytest.MonkeyPatch, write: Callable[[str], str]) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", secret := 'p@ss/w"rd é')
    assert without_secrets(f"it got {write(secret)} for one") == f"it got {write('')[:1]}***{write('')[1:]} for one"


def test_a_reason_holds_no_beginning_of_a_secret_that_it_was_cut_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_TOKEN", "tok_0123456789abcdefghijklmnopqrstuvwxyz")
    # 272 letters and 28 of the token's 40 are a reason's 300.
    fault = classify(ValueError("x" * 272 + "tok_0123456789abcdefghijklmnopqrstuvwxyz is wrong"))
    assert fault.reason == "x" * 272 + "*** is wrong"
    assert len(classify(ValueError("y " * 500)).reason) == REASON_LENGTH


@pytest.mark.parametrize(("behind", "left"), [("", ""), ("...", "..."), ("…; 401", "…; 401"), ("')", "')")])
def test_what_others_cut_in_a_secret_loses_the_rest_of_it(
    monkeypatch: pytest.MonkeyPatch, behind: str, left: str
) -> None:
    monkeypatch.setenv("MY_API_TOKEN", "tok_0123456789abcdefghijklmnopqrstuvwxyz")
    assert without_secrets(f"got tok_0123456789{behind}") == f"got ***{left}"
    assert without_secrets("a tok_0123 of words") == "a tok_0123 of words"


@pytest.mark.parametrize("unit", ["//", "//a:", "a.", "a:", "?a-", "@", "Bearer ", "x"])
def test_a_megabyte_is_read_in_a_moment(unit: str) -> None:
    began = time.monotonic()
    without_secrets(unit * (2**20 // len(unit)) + "@ //a:")
    assert time.monotonic() - began < 5
