"""What is taken out of a text before it is written down."""

from __future__ import annotations

import pytest

from sweeps.redaction import without_secrets


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("--tracking-uri=http://ann:pa55@host:5000/a", "--tracking-uri=http://***@host:5000/a"),
        ("http://ann@host", "http://***@host"),
        ("HTTP 401 for https://host/a?api_key=1234&seed=3", "HTTP 401 for https://host/a?api_key=***&seed=3"),
        ("sqlite:////tmp/store/mlflow.db?timeout=6", "sqlite:////tmp/store/mlflow.db?timeout=6"),
        ("a mail to ann@host costs 3 tokens", "a mail to ann@host costs 3 tokens"),
    ],
)
def test_addresses_lose_their_secrets_and_nothing_else(text: str, told: str) -> None:
    assert without_secrets(text) == told


@pytest.mark.parametrize(
    "name", ["MLFLOW_TRACKING_PASSWORD", "RAY_AUTH_TOKEN", "HF_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY"]
)
def test_the_value_of_a_variable_that_is_named_like_a_secret_is_hidden(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "hunter2-hunter2")
    assert without_secrets("KeyError: 'hunter2-hunter2'") == "KeyError: '***'"


@pytest.mark.parametrize("name", ["PWD", "TOKENIZERS_PARALLELISM", "RAY_AUTH_TOKEN_PATH", "MAX_TOKENS"])
def test_what_only_sounds_like_one_stays(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "/some/where")
    assert without_secrets("no file in /some/where") == "no file in /some/where"


def test_of_two_secrets_the_longer_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "abcdef")
    monkeypatch.setenv("B_TOKEN", "abcdefghi")
    assert without_secrets("abcdefghi") == "***"  # else 'ghi' would be left
