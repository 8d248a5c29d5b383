"""Bodies of HTTP replies, read up to their limits."""

from __future__ import annotations

import http.client
import io
import time

import pytest

from ilql.reply_body import read_body


def in_a_second() -> float:
    return time.monotonic() + 1.0


def test_a_body_is_read_to_its_end() -> None:
    whole = bytes(range(256)) * 1000  # more than a piece
    assert read_body(io.BytesIO(whole), longest_bytes=len(whole), deadline=in_a_second()) == whole


def test_one_that_is_too_long_is_refused() -> None:
    with pytest.raises(http.client.HTTPException, match="a reply of more than 4 bytes"):
        read_body(io.BytesIO(b"12345"), longest_bytes=4, deadline=in_a_second())


def test_one_that_drips_is_given_up_at_its_deadline() -> None:
    class Dripping:
        read = 0

        def read1(self, size: int) -> bytes:
            time.sleep(0.01)
            self.read += 1
            return b"x"

    dripping = Dripping()
    with pytest.raises(TimeoutError, match="timed out"):
        read_body(dripping, longest_bytes=10**6, deadline=time.monotonic() + 0.05)
    assert 1 <= dripping.read <= 6
