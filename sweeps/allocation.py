"""What the C library does with memory that is freed."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's `mallopt`, by its malloc.h."""

_MOST = {_TRIM_THRESHOLD: (2**30,), _MMAP_THRESHOLD: (2**30, 2**25)}
"""What each is set to; older ones refuse the first for arrays' own mappings, and take half of their arenas' size."""


def keep_freed_memory() -> bool:
    """Let this process keep what it frees for what it needs next; returns whether its C library can be told so.

    By itself glibc gives every array of some size back to the system, which zeroes the next one's pages anew: of the
    29 processor seconds that a report of 5,000 evaluations took, two were spent so. The peak stays what it was (log).
    Only for processes that end soon.
    """
    try:
        tune = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library has no such function, another system no such call
        return False
    taken = [any(tune(parameter, value) == 1 for value in values) for parameter, values in _MOST.items()]
    return all(taken)
