"""Sums that come out alike: a product that one thread takes has the same bits on two cores and on sixty-four.

BLAS shares a large product out among its threads, and where it is cut decides how its sums are rounded; a sweep of
5,000 cells has matrices that are large enough for it (1,660 × 1,660), and its report differed in last digits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

_Function = TypeVar("_Function", bound=Callable[..., Any])


def one_thread(function: _Function) -> _Function:
    """The function, computed in one thread of BLAS; how many there are is as before when it returns."""
    calm: _Function = threadpool_limits.wrap(limits=1, user_api="blas")(function)
    return calm
