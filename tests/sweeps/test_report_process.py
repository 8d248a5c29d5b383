"""What a report asks of its process: one thread of BLAS, and freed memory that stays at hand."""

from __future__ import annotations

import ctypes
import platform

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_info, threadpool_limits

from sweeps.allocation import keep_freed_memory
from sweeps.one_thread import one_thread

Floats = NDArray[np.float64]


def threads() -> set[int]:
    """How many threads each BLAS that is loaded would use."""
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_one_thread_computes_and_as_many_as_before_afterwards() -> None:
    @one_thread
    def product(values: Floats, *, times: float) -> tuple[Floats, set[int]]:
        return times * values @ values, threads()

    with threadpool_limits(limits=2, user_api="blas"):
        before = threads()
        values, inside = product(np.eye(2), times=3.0)
        assert (before, inside, threads()) == ({2}, {1}, {2})
    assert values.tolist() == [[3.0, 0.0], [0.0, 3.0]]


def test_threads_are_as_before_after_an_error() -> None:
    @one_thread
    def fail() -> None:
        raise ValueError(f"{threads()}")

    with threadpool_limits(limits=2, user_api="blas"):
        with pytest.raises(ValueError, match=r"\{1\}"):
            fail()
        assert threads() == {2}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's mallopt")
def test_glibc_is_told_to_keep_what_is_freed() -> None:
    assert keep_freed_memory()


def test_a_system_without_such_a_call_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not keep_freed_memory()
