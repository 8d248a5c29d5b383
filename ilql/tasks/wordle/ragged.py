"""Many sets of different sizes as one flat array, and sums over each of them.

Axes: N sets, M members of all of them together, one set after the other.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]
Uniforms = npt.NDArray[np.float64]


def addresses(starts: Numbers, counts: Numbers) -> Numbers:
    """Shape (M,): for each set, `starts`, `starts + 1`, ..., `starts + counts - 1`."""
    before = np.cumsum(counts) - counts
    return np.asarray(np.arange(int(counts.sum())) + np.repeat(starts - before, counts))


def sums(values: npt.NDArray[np.generic], counts: Numbers) -> Numbers:
    """Shape (N,): the sum of `values`, shape (M,), over each set; 0 over an empty one."""
    total = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(values, dtype=np.int64)])
    ends = np.cumsum(counts)
    return np.asarray(total[ends] - total[ends - counts])


def rank(uniforms: Uniforms, counts: Numbers) -> Numbers:
    """Shape (N,): the member, 0 to `counts - 1`, that uniforms in [0, 1) draw from sets that are not empty."""
    # u·n can round up to n for the largest u below 1.
    return np.minimum((uniforms * counts).astype(np.int64), counts - 1)


def pick(allowed: npt.NDArray[np.bool_], counts: Numbers, uniforms: Uniforms) -> tuple[Numbers, Numbers]:
    """Draw one allowed member of each set, all of them equally likely.

    Args:
        allowed: Shape (M,).
        counts: Shape (N,), the sizes of the sets.
        uniforms: Shape (N,).

    Returns:
        The positions drawn, shape (N,), in the flat array, and how many were allowed, shape (N,). Where none were, the
        position means nothing.
    """
    places = np.flatnonzero(allowed)
    number = sums(allowed, counts)
    before = np.cumsum(number) - number
    drawn = np.minimum(before + rank(uniforms, np.maximum(number, 1)), len(places) - 1)
    return (places[drawn] if len(places) else np.zeros(len(counts), dtype=np.int64)), number


def blocks(sizes: Numbers, limit: int) -> Iterator[tuple[int, int]]:
    """Consecutive ranges `first, last + 1` whose sizes sum to `limit` at most, or that are a single larger one."""
    ends = np.cumsum(sizes)
    first = 0
    while first < len(sizes):
        done = int(ends[first - 1]) if first else 0
        last = max(int(np.searchsorted(ends, done + limit, side="right")), first + 1)
        yield first, last
        first = last
