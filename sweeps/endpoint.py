"""An OpenAI-compatible endpoint, asked over HTTP for one chat completion at a time.

Trusted with nothing: a redirect is not followed, since the key would go along; a reply is read up to a size and a time;
what it says of an error is told in one line, without the key. What cannot get better is told at once; what may is tried
again a bounded number of times, as long apart as the endpoint asks for, within a bound.
"""

from __future__ import annotations

import datetime
import email.utils
import http
import http.client
import json
import math
import os
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from email.message import Message
from typing import Any

from analysis.text import count
from cluster.redaction import HIDDEN, without_secrets
from ilql.reply_body import Readable, read_body
from ilql.sampling import Sampling

LONGEST_REPLY_BYTES = 1 << 22
LONGEST_WAIT_SECONDS = 120.0
"""An endpoint that asks to wait longer is not waited for."""
SHORTEST_KEY = 6
"""A shorter key is a dummy of a server that wants some header; as in `cluster.redaction`."""
LONGEST_COMPLAINT = 200
UNUSABLE_IN_A_ROW = 5
"""So many replies without one that can be used between them, and the mistake is taken to be in what is asked."""

_BUSY = (http.HTTPStatus.REQUEST_TIMEOUT, http.HTTPStatus.TOO_MANY_REQUESTS)
_OF_THE_PROMPT = (
    http.HTTPStatus.BAD_REQUEST,
    http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    http.HTTPStatus.UNPROCESSABLE_ENTITY,
)
_REFUSES_KEY = (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class EndpointError(ConnectionError):
    """The endpoint does not answer what is needed, and asking on would not help; one line, without secrets."""


class UnusableError(Exception):
    """One reply that cannot be used; its text is the reason, one of few, so that they can be counted."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Takes a redirect for the error that it is here."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Nothing is asked elsewhere."""


@dataclass
class Endpoint:
    """An endpoint and the model to be asked there; threads may share it.

    Attributes:
        address: Its base, to which `/chat/completions` is added: `http://127.0.0.1:8000/v1`.
        model: The model's name there.
        key: What it is shown as a bearer token, or None.
        timeout_seconds: How long one request may take.
        attempts: How often one is tried.
        first_wait_seconds: The wait behind the first attempt where the endpoint names none; it doubles.

    Raises:
        ValueError: The address is none of http or https, or holds a user, a password or parameters; the key cannot be
            sent in a header. The key is not in the message.
    """

    address: str
    model: str
    key: str | None = field(default=None, repr=False)
    timeout_seconds: float = 120.0
    attempts: int = 5
    first_wait_seconds: float = 1.0

    def __post_init__(self) -> None:
        _check_address(self.address)
        self.address = self.address.rstrip("/")
        if self.key is not None and not (self.key.isascii() and self.key.isprintable() and " " not in self.key):
            raise ValueError("a key must be printable letters without blanks, what stands in its variable is not")
        self._opener = urllib.request.build_opener(_NoRedirects)
        self._unusable, self._lock = 0, threading.Lock()

    def write(self, prompt: str, sampling: Sampling, *, seed: int, stopped: threading.Event) -> str:
        """What the model answers to a prompt.

        Args:
            prompt: One message of the user.
            sampling: How it is to be drawn.
            seed: Told the endpoint, which may heed it.
            stopped: Ends a wait.

        Raises:
            UnusableError: This reply is no chat completion, or this prompt was refused.
            EndpointError: The endpoint is not there, refuses, or gave several such replies in a row.
        """
        asked = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": seed,
        }
        status, body = self._try(json.dumps(asked).encode(), stopped)
        if status in _OF_THE_PROMPT:
            self._count_unusable(f"status {status}{self._complaint(body)}")
            raise UnusableError(f"the endpoint refused the prompt with status {status}")
        content = _content(body)
        if content is None:
            self._count_unusable(f"{self._shown(body.decode('utf-8', 'replace')) or 'an empty reply'}")
            raise UnusableError("the endpoint's reply is no chat completion")
        with self._lock:
            self._unusable = 0
        return self._without_key(content)

    def _try(self, body: bytes, stopped: threading.Event) -> tuple[int, bytes]:
        """Status and body of a reply that is a completion, or a refusal of this prompt."""
        told = ""
        for attempt in range(self.attempts):
            wait: float | None = None
            try:
                status, headers, reply = self._attempt(body)
            except (OSError, http.client.HTTPException) as fault:
                told = self._shown(str(getattr(fault, "reason", None) or fault) or type(fault).__name__)
            else:
                if status == http.HTTPStatus.OK or status in _OF_THE_PROMPT:
                    return status, reply
                told = f"status {status}{self._complaint(reply)}"
                if status in _REFUSES_KEY:
                    shown = "the key that was sent is not taken" if self.key else "name its key with --key-variable"
                    raise self._fault(f"{told}; {shown}")
                if status not in _BUSY and status < http.HTTPStatus.INTERNAL_SERVER_ERROR:
                    where = headers.get("Location")
                    moved = "" if where is None else f", a redirect to {self._shown(where)}, which is not followed"
                    raise self._fault(f"{told}{moved}")
                wait = _asked_wait(headers)
                if wait is not None and wait > LONGEST_WAIT_SECONDS:
                    raise self._fault(f"{told} and asks to wait {wait:.0f} s, longer than is waited")
            pause = min(self.first_wait_seconds * 2**attempt, LONGEST_WAIT_SECONDS) if wait is None else wait
            if attempt + 1 < self.attempts and stopped.wait(pause):
                break
        raise self._fault(f"{told} ({count(self.attempts, 'attempt')})")

    def _attempt(self, body: bytes) -> tuple[int, Message, bytes]:
        deadline = time.monotonic() + self.timeout_seconds
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(  # noqa: S310  the address is checked to be http or https
            f"{self.address}/chat/completions", data=body, headers=headers, method="POST"
        )
        try:
            with self._opener.open(request, timeout=self.timeout_seconds) as response:
                return (
                    response.status,
                    response.headers,
                    _body(response, deadline),
                )
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, _body(error, deadline)

    def _count_unusable(self, told: str) -> None:
        with self._lock:
            self._unusable += 1
            if self._unusable >= UNUSABLE_IN_A_ROW:
                raise self._fault(f"{told} ({self._unusable} in a row)")

    def _fault(self, told: str) -> EndpointError:
        return EndpointError(f"the endpoint {self.address} must answer with chat completions, got {told}")

    def _complaint(self, body: bytes) -> str:
        """What an error's body says, behind a colon; nothing where it says nothing."""
        text = body.decode("utf-8", "replace")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        error = value.get("error") if isinstance(value, dict) else None
        said = error.get("message") if isinstance(error, dict) else error
        shown = self._shown(said if isinstance(said, str) else text)
        return f": {shown}" if shown else ""

    def _shown(self, text: str) -> str:
        """The beginning of a stranger's text, without secrets, on one line."""
        line = " ".join(self._without_key(without_secrets(text)).split())
        return line if len(line) <= LONGEST_COMPLAINT else f"{line[: LONGEST_COMPLAINT - 1]}…"

    def _without_key(self, text: str) -> str:
        return text.replace(self.key, HIDDEN) if self.key and len(self.key) >= SHORTEST_KEY else text


def key_from(variable: str | None) -> str | None:
    """The key in an environment variable; None where none is named.

    Raises:
        ValueError: There is no such variable, or nothing in it. What was named is not in the message.
    """
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip() if _VARIABLE.fullmatch(variable) else ""
    if not key:
        raise ValueError(
            "--key-variable must name an environment variable that holds the key, got one that is not set or empty "
            "(not shown here, as it may be the key itself)"
        )
    return key


def _check_address(address: str) -> None:
    try:
        parts = urllib.parse.urlsplit(address)
        port = parts.port
    except ValueError:
        raise ValueError(
            "an endpoint's address must look like http://host:port/v1, got one that cannot be read"
        ) from None
    if "@" in address or parts.query or parts.fragment:  # without a scheme a user stands elsewhere
        raise ValueError(
            "an endpoint's address must hold no user, password or parameters, since it is stored and shown, got one "
            f"for {parts.hostname or 'no host'}; a key goes into an environment variable, named by --key-variable"
        )
    plain = address.isascii() and address.isprintable() and " " not in address
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or not plain:
        raise ValueError(f"an endpoint's address must look like http://host:port/v1, got {address[:80]!r}")


def _body(response: Readable, deadline: float) -> bytes:
    return read_body(response, longest_bytes=LONGEST_REPLY_BYTES, deadline=deadline)


def _content(body: bytes) -> str | None:
    """The text of a chat completion; "" where the model said nothing, None where it is none."""
    try:
        value = json.loads(body)
        message = value["choices"][0]["message"]
        content = message["content"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return None
    return "" if content is None else content if isinstance(content, str) else None


def _asked_wait(headers: Message) -> float | None:
    """Seconds of a `Retry-After`, which is a number or a date; None where there is none that can be read."""
    asked = headers.get("Retry-After")
    if asked is None:
        return None
    try:
        seconds = float(asked)
    except ValueError:
        try:
            when = email.utils.parsedate_to_datetime(asked)
        except ValueError:
            return None
        zoned = when if when.tzinfo is not None else when.replace(tzinfo=datetime.UTC)
        seconds = zoned.timestamp() - time.time()
    return max(0.0, seconds) if math.isfinite(seconds) else None
