"""Several HTTP servers that answer and guess, spoken to as the paper's public environment does.

A request is a form-encoded POST, a reply is JSON. A server that does not reply in time, refuses or replies with an
error rests for a while, and the request goes to another; when no attempt is left, that is a `TaskFault`. So is a reply
that is not what was asked for: no other server is tried then, since it is a misunderstanding and not an outage.
"""

from __future__ import annotations

import http.client
import itertools
import json
import math
import threading
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeGuard

from ilql.reply_body import read_body
from ilql.task import TaskFault

LONGEST_REPLY_BYTES = 1 << 20
REQUESTS_PER_SERVER = 4
REST_SECONDS = 30.0


class Servers:
    """Servers that all say the same, asked in turn.

    Args:
        addresses: Their base addresses, such as `http://127.0.0.1:5000`; at least one.
        timeout_seconds: How long one attempt may take; positive.
        attempts: How often a request is tried, each time on another server as long as there is one; at least 1.

    Raises:
        ValueError: There is no address, or one is none, or a limit is out of its range.
    """

    def __init__(self, addresses: Sequence[str], *, timeout_seconds: float = 60.0, attempts: int = 3) -> None:
        if not addresses:
            raise ValueError("a remote world must have at least one server, got none")
        for address in addresses:
            _host_and_port(address)
        if timeout_seconds <= 0.0 or attempts < 1:
            raise ValueError(
                f"timeout_seconds must be positive and attempts at least 1, got {timeout_seconds} and {attempts}"
            )
        self.addresses = tuple(address.rstrip("/") for address in addresses)
        self._timeout_seconds = timeout_seconds
        self._attempts = attempts
        self._turn = itertools.count()
        self._resting_until = dict.fromkeys(self.addresses, 0.0)
        self._lock = threading.Lock()

    def check(self, probe: Mapping[str, str]) -> list[str]:
        """Ask every server at once for the percentile of `probe`; those that fail rest.

        Returns:
            One line for each server that failed.

        Raises:
            TaskFault: None is well.
        """

        def complaint(address: str) -> str | None:
            try:
                reply = self._attempt(address, "/fetch_reward_rank", probe)
            except (OSError, http.client.HTTPException) as fault:
                self._rest(address)
                return f"{address}: {_reason(fault)}"
            if _is_number(reply):
                return None
            self._rest(address)
            return f"{address}: replied {_shown(reply)}, not a percentile"

        with ThreadPoolExecutor(max_workers=len(self.addresses)) as pool:
            complaints = [line for line in pool.map(complaint, self.addresses) if line is not None]
        if len(complaints) == len(self.addresses):
            raise TaskFault(f"no visdial server is well: {'; '.join(complaints)}")
        return complaints

    def percentile_steps(self, requests: Sequence[Mapping[str, str]]) -> list[float]:
        """`/fetch_reward_rank` of each request: the percentile of an empty history, else the last answer's progress.

        Raises:
            TaskFault: A request failed on every attempt, or a reply is not a finite number.
        """
        numbers = []
        for reply in self._post_all("/fetch_reward_rank", requests):
            if not _is_number(reply):
                raise TaskFault(f"/fetch_reward_rank must reply with a finite number, got {_shown(reply)}")
            numbers.append(float(reply))
        return numbers

    def answers(self, requests: Sequence[Mapping[str, str]]) -> list[tuple[str, float]]:
        """`/step_rank` of each request: the answer and the progress it makes.

        Raises:
            TaskFault: A request failed on every attempt, or a reply is not a list of a string and a finite number.
        """
        replies = []
        for reply in self._post_all("/step_rank", requests):
            if not (isinstance(reply, list) and len(reply) == 2 and isinstance(reply[0], str) and _is_number(reply[1])):
                raise TaskFault(f"/step_rank must reply with [answer, progress], got {_shown(reply)}")
            replies.append((reply[0], float(reply[1])))
        return replies

    def _post_all(self, path: str, requests: Sequence[Mapping[str, str]]) -> list[object]:
        """The replies in the order of the requests; those not yet sent are dropped when one fails."""
        if not requests:
            return []
        workers = min(len(requests), REQUESTS_PER_SERVER * len(self.addresses))
        pool = ThreadPoolExecutor(max_workers=workers)
        try:
            return list(pool.map(lambda request: self._post(path, request), requests))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _post(self, path: str, request: Mapping[str, str]) -> object:
        complaints = []
        for address in self._candidates():
            try:
                return self._attempt(address, path, request)
            except (OSError, http.client.HTTPException) as fault:
                self._rest(address)
                complaints.append(f"{address}{path}: {_reason(fault)}")
        raise TaskFault(f"no visdial server replied after {len(complaints)} attempts: {'; '.join(complaints)}")

    def _candidates(self) -> list[str]:
        """Whom to try, in order: the servers in turn, those that rest last, until the attempts are used."""
        first = next(self._turn)
        turned = [self.addresses[(first + i) % len(self.addresses)] for i in range(len(self.addresses))]
        now = time.monotonic()
        with self._lock:
            turned.sort(key=lambda address: self._resting_until[address] > now)
        return list(itertools.islice(itertools.cycle(turned), self._attempts))

    def _rest(self, address: str) -> None:
        with self._lock:
            self._resting_until[address] = time.monotonic() + REST_SECONDS

    def _attempt(self, address: str, path: str, request: Mapping[str, str]) -> object:
        """One POST. The reply's JSON, or the raw text where it is none."""
        deadline = time.monotonic() + self._timeout_seconds
        host, port, prefix = _host_and_port(address)
        connection = http.client.HTTPConnection(host, port, timeout=self._timeout_seconds)
        try:
            connection.request(
                "POST",
                prefix + path,
                body=urllib.parse.urlencode(request),
                headers={"Content-Type": "application/x-www-form-urlencoded"},
            )
            response = connection.getresponse()
            if response.status != http.HTTPStatus.OK:
                raise http.client.HTTPException(f"HTTP status {response.status}")
            body = read_body(response, longest_bytes=LONGEST_REPLY_BYTES, deadline=deadline)
        finally:
            connection.close()
        text = body.decode("utf-8", errors="replace")
        try:
            reply: object = json.loads(text)
        except ValueError:
            return text
        return reply


def _host_and_port(address: str) -> tuple[str, int, str]:
    """Host, port and path of an address.

    Raises:
        ValueError: It is no plain HTTP address, or has a user or a password in it: addresses are stored and shown.
    """
    parts = urllib.parse.urlsplit(address)
    if "@" in parts.netloc:
        raise ValueError(f"a server's address must hold no user or password, got one for {parts.hostname}")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.scheme != "http" or not parts.hostname or port == 0:
        raise ValueError(f"a server's address must look like http://host:port, got {address!r}")
    return parts.hostname, port or 80, parts.path.rstrip("/")


def _is_number(reply: object) -> TypeGuard[float]:
    return isinstance(reply, (int, float)) and not isinstance(reply, bool) and math.isfinite(reply)


def _reason(fault: Exception) -> str:
    return str(fault) or type(fault).__name__


def _shown(reply: object) -> str:
    text = repr(reply)
    return text if len(text) <= 80 else f"{text[:77]}..."
