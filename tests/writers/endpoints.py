"""An endpoint of the tests' own: HTTP on the loopback, answering what a test says."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Mapping[str, str], bytes]
"""Status, headers, body."""


@dataclass
class Asked:
    """What came to the endpoint.

    Attributes:
        address: Its base address.
        requests: Bodies, in the order they came.
        headers: Their headers.
        paths: Where they went.
    """

    address: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


def completion(text: str | None) -> Answer:
    """A chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return 200, {}, json.dumps({"object": "chat.completion", "choices": [choice]}).encode()


@contextmanager
def serve(answer: Callable[[int, dict[str, Any]], Answer]) -> Iterator[Asked]:
    """An endpoint while it lasts.

    Args:
        answer: Gets a request's number, from 0, and its body.
    """
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(asked.requests)
                asked.requests.append(body)
                asked.headers.append(dict(self.headers))
                asked.paths.append(self.path)
            status, headers, content = answer(number, body)
            with contextlib.suppress(ConnectionError):  # whoever asked may have gone
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    asked = Asked(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
