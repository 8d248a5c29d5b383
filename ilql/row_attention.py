"""Attention of single tokens over caches of their own, on a CPU: what a policy spends most of an episode in.

torch attends over a batch of conversations as if all of them were as long as the longest, and to one token as to many;
most of that is waiting for memory. Here every token reads the keys and values of its own conversation from memory, in
the order in which they lie, and nothing else. So what comes out for one token depends on no other, to the last bit.

The kernels are compiled by numba for the sizes they are given, in about a second, and kept beside this file or in the
user's cache. numba locks nothing, and numbers what it keeps under one name. So every kernel has a name of its own, by
its sizes, this file's content and the processor: processes that compile at once write the same bytes to the same place.

Axes: *R* tokens, *H* heads, *G* heads that share keys and values, *D* width of a key, *E* of a value,
*S* conversations, *L* columns.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import numba
import numpy as np
import numpy.typing as npt
import torch
from llvmlite.binding import get_host_cpu_features, get_host_cpu_name
from numba import njit
from torch import Tensor

Floats: TypeAlias = npt.NDArray[np.float32]
Integers: TypeAlias = npt.NDArray[np.int64]

ROWS_A_THREAD = 16
"""Fewer tokens are not worth a second thread."""

F = np.float32
LOG2_E, LN2_HIGH, LN2_LOW = F(1.44269504), F(0.693359375), F(-2.12194440e-4)
LEAST = F(-87.0)
"""Just above where e^x becomes smaller than the smallest float32 that is held in full."""

WIDE = 64
"""From this width on a head's numbers in one column keep the processor busy. Below, four columns are taken at once:
the compiler makes vectors of that, and only single steps of a shorter loop. Measured in docs/log.md."""

REASSOCIATED = {"contract", "reassoc", "nsz"}
"""What the compiler may do to sums: reorder them and add a product in one step, and always in the same way for spans of
one length."""


def attend(query: Tensor, keys: Tensor, values: Tensor, spans: Tensor, *, scale: float) -> Tensor:
    """Scaled dot-product attention, Σ_l softmax_l(scale · q·k_l) v_l, where l runs over a token's own span of columns.

    Args:
        query: Shape (R, H·G, D), float32 on the CPU, as all the others that are no integers.
        keys: Shape (S, L, H, D), contiguous.
        values: Shape (S, L, H, E), contiguous.
        spans: Of every token its conversation, the first column that it attends to and the one behind the last, int64,
            shape (R, 3). No span is empty.
        scale: What a product is multiplied with, mostly 1/√D.

    Returns:
        Shape (R, H·G, E).
    """
    rows, heads, width = query.shape
    result = query.new_empty(rows, heads, values.shape[3])
    kernel = _kernel(keys.shape[2], heads // keys.shape[2], width, values.shape[3])
    arrays = query.contiguous().numpy(), spans.contiguous().numpy(), result.numpy()
    caches = keys.numpy(), values.numpy()

    def part(begin: int, end: int) -> None:
        own_query, own_spans, own_result = (array[begin:end] for array in arrays)
        kernel(own_query, *caches, own_spans, F(scale), own_result)

    threads = min(torch.get_num_threads(), rows // ROWS_A_THREAD)
    if threads < 2:
        part(0, rows)
    else:
        bounds = [rows * number // threads for number in range(threads + 1)]
        list(_pool(threads).map(part, bounds[:-1], bounds[1:]))
    return result


def write(keys: Tensor, values: Tensor, new_keys: Tensor, new_values: Tensor, slots: Tensor, columns: Tensor) -> None:
    """Write keys and values of some tokens where they belong.

    Args:
        keys: Shape (S, L, H, D), written into.
        values: Shape (S, L, H, E), written into.
        new_keys: Shape (R, H, D).
        new_values: Shape (R, H, E).
        slots: The conversation of every token, int64, shape (R,).
        columns: Its column there, as `slots`.
    """
    places = slots.contiguous().numpy(), columns.contiguous().numpy()
    for cache, new in ((keys, new_keys), (values, new_values)):
        _writing()(cache.numpy(), new.contiguous().numpy(), *places)


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="attention")


os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has the pool without its threads


def _compiled(function: Callable[..., None], signature: str, *sizes: int, **options: Any) -> Callable[..., None]:
    """A function compiled for these types, now, and kept for other processes if there is a folder with room for it."""
    machine = f"{numba.__version__} {get_host_cpu_name()} {get_host_cpu_features()}"
    digest = hashlib.sha256(machine.encode() + Path(__file__).read_bytes())
    function.__qualname__ = "_".join([function.__name__, *map(str, sizes), digest.hexdigest()[:12]])
    settings = {"nogil": True, "error_model": "numpy", **options}
    try:
        result: Callable[..., None] = njit(signature, **settings, cache=True)(function)
    except (RuntimeError, OSError):  # numba's words for no folder that may be written; a disk that is full
        result = njit(signature, **settings)(function)
    return result


@functools.cache
def _writing() -> Callable[..., None]:
    def place(cache: Floats, new: Floats, slots: Integers, columns: Integers) -> None:  # pragma: no cover - compiled
        for row in range(len(slots)):
            cache[slots[row], columns[row]] = new[row]

    return _compiled(place, "void(float32[:,:,:,::1], float32[:,:,::1], int64[::1], int64[::1])")


@njit(inline="always")
def _exp(x: Any) -> Any:  # pragma: no cover - compiled
    """e^x for x of 0 and less, by Cephes' polynomial: of the compiler's own a loop makes no vectors.

    x = n ln 2 + r with a whole n and |r| ≤ ½ ln 2; e^r by its polynomial, 2^n by its bits.
    """
    x = max(x, LEAST)
    n = np.floor(x * LOG2_E + F(0.5))
    r = x - n * LN2_HIGH - n * LN2_LOW
    p = F(1.9875691500e-4)
    p = p * r + F(1.3981999507e-3)
    p = p * r + F(8.3334519073e-3)
    p = p * r + F(4.1665795894e-2)
    p = p * r + F(1.6666665459e-1)
    p = p * r + F(5.0000001201e-1)
    p = p * r * r + r + F(1.0)
    return p * np.int32((np.int32(n) + np.int32(127)) << 23).view(np.float32)


@functools.cache
def _kernel(heads: int, group: int, key_width: int, value_width: int) -> Callable[..., None]:
    """Attention of tokens, compiled for these sizes: the compiler unrolls what it knows the length of."""

    def attention(
        query: Floats, keys: Floats, values: Floats, spans: Integers, scale: np.float32, result: Floats
    ) -> None:  # pragma: no cover - compiled
        scores = np.empty((heads * group, keys.shape[1]), np.float32)
        for row in range(query.shape[0]):
            slot, first, behind = spans[row, 0], spans[row, 1], spans[row, 2]
            # Column by column, so that memory is read in its order: all heads of a column lie beside each other.
            column = first
            while key_width < WIDE and column + 4 <= behind:
                for head in range(heads):
                    for member in range(head * group, (head + 1) * group):
                        a = b = c = e = F(0)  # of four columns; d counts numbers
                        for d in range(key_width):
                            q = query[row, member, d]
                            a += q * keys[slot, column, head, d]
                            b += q * keys[slot, column + 1, head, d]
                            c += q * keys[slot, column + 2, head, d]
                            e += q * keys[slot, column + 3, head, d]
                        scores[member, column] = a * scale
                        scores[member, column + 1] = b * scale
                        scores[member, column + 2] = c * scale
                        scores[member, column + 3] = e * scale
                column += 4
            while column < behind:
                for head in range(heads):
                    for member in range(head * group, (head + 1) * group):
                        a = F(0)
                        for d in range(key_width):
                            a += query[row, member, d] * keys[slot, column, head, d]
                        scores[member, column] = a * scale
                column += 1
            for member in range(heads * group):
                highest = scores[member, first]
                for column in range(first, behind):
                    highest = max(highest, scores[member, column])
                total = F(0)
                for column in range(first, behind):
                    weight = _exp(scores[member, column] - highest)
                    scores[member, column] = weight
                    total += weight
                share = F(1) / total
                for column in range(first, behind):
                    scores[member, column] *= share
                for d in range(value_width):
                    result[row, member, d] = F(0)
            column = first
            while value_width < WIDE and column + 4 <= behind:
                for head in range(heads):
                    for member in range(head * group, (head + 1) * group):
                        a, b = scores[member, column], scores[member, column + 1]
                        c, e = scores[member, column + 2], scores[member, column + 3]
                        for d in range(value_width):
                            result[row, member, d] += (
                                a * values[slot, column, head, d]
                                + b * values[slot, column + 1, head, d]
                                + c * values[slot, column + 2, head, d]
                                + e * values[slot, column + 3, head, d]
                            )
                column += 4
            while column < behind:
                for head in range(heads):
                    for member in range(head * group, (head + 1) * group):
                        a = scores[member, column]
                        for d in range(value_width):
                            result[row, member, d] += a * values[slot, column, head, d]
                column += 1

    of_rows, of_columns = "float32[:,:,::1]", "float32[:,:,:,::1]"
    signature = f"void({of_rows}, {of_columns}, {of_columns}, int64[:,::1], float32, {of_rows})"
    return _compiled(attention, signature, heads, group, key_width, value_width, fastmath=REASSOCIATED)
