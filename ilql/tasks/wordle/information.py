"""Information in fixed point, so that ties are exact: logarithms, spreads, and a list's best openers.

If a guess splits a set S of words into parts of sizes n_c by its code c, its gain is log|S| − (1/|S|) Σ_c n_c log n_c.
The sum, the *spread*, is kept as an integer: logarithms are fixed-point numbers, rounded for primes and added for their
products. So no order of summing matters, and two guesses have equal spreads whenever Π n^n are equal, as for the sizes
(4, 1, 1, 1, 1) and (2, 2, 2, 2).
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from ilql.tasks.wordle.ragged import Numbers

SCALE = 2.0**40
"""One nat in fixed point. The largest spread, n log n for 16,384 words, is then below 2^58."""

OPENERS = 28
"""How many words the start policy opens with: as many as in the paper, but ours are the list's own best."""


@cache
def fixed_logs(largest: int) -> Numbers:
    """Shape (largest + 1,): L(n) = round(2^40 log n) for primes, L(a·b) = L(a) + L(b), L(0) = 0."""
    logs = np.zeros(largest + 1, dtype=np.int64)
    for prime in range(2, largest + 1):
        if logs[prime]:
            continue
        power = prime
        while power <= largest:
            logs[power::power] += round(SCALE * float(np.log(prime)))
            power *= prime
    return logs


def spreads_of(sizes: npt.NDArray[np.integer]) -> Numbers:
    """Shape (G,): Σ_c n_c L(n_c) of G guesses from the sizes of their parts, shape (G, C)."""
    counts = sizes.astype(np.int64)
    return np.asarray((counts * fixed_logs(int(counts.max()))[counts]).sum(axis=1))


def best_openers(spreads: Numbers) -> Numbers:
    """The 28 words, or all of a shorter list, of the highest gain as a first guess; ties go by the alphabet."""
    return np.sort(np.argsort(spreads, kind="stable")[:OPENERS])
