"""Sums that come out alike: a product that one thread takes has the same bits on two cores and on sixty-four.

BLAS shares a large product out among its threads, and where it is cut decides how its sums are rounded; a sweep of
5,000 cells has matrices that are large enough for it (1,660 × 1,660), and its report differed in last digits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from threadpoolctl import threadpool_limits

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def one_thread(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """The function, computed in one thread of BLAS; how many there are is as before when it returns."""

    @functools.wraps(function)
    def calm(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        with threadpool_limits(limits=1, user_api="blas"):
            return function(*args, **kwargs)

    return calm
