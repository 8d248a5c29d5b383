"""The body of an HTTP reply, from whoever is trusted with nothing: read up to a size and a time."""

from __future__ import annotations

import http.client
import time
from typing import Protocol

_PIECE_BYTES = 1 << 16


class Readable(Protocol):
    """What a body is read from."""

    def read1(self, size: int) -> bytes:
        """What has come of it, at most `size` bytes; nothing at its end."""
        ...


def read_body(response: Readable, *, longest_bytes: int, deadline: float) -> bytes:
    """A body, up to its limits.

    Args:
        response: It.
        longest_bytes: What it may have.
        deadline: Until when, by `time.monotonic`; a single piece may take as long as the connection lets it.

    Raises:
        TimeoutError: It drips.
        HTTPException: It is too long.
    """
    body = b""
    while chunk := response.read1(_PIECE_BYTES):
        body += chunk
        if time.monotonic() > deadline:
            raise TimeoutError("timed out")
        if len(body) > longest_bytes:
            raise http.client.HTTPException(f"a reply of more than {longest_bytes} bytes")
    return body
