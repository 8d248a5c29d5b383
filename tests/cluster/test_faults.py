"""Whose fault an exception was, seen through what Ray wraps around it."""

from __future__ import annotations

import errno
import os

import pytest
import ray.exceptions
import ray.train
import torch

from cluster.faults import REASON_LENGTH, Fault, back_off_seconds, classify, nodes_lost

LOST = ray.exceptions.NodeDiedError("the node is gone")  # type: ignore[no-untyped-call]
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE)
BUG = ZeroDivisionError("division by zero")
ECHO = RuntimeError("[gloo/transport/tcp/pair.cc:554] Connection closed by peer [127.0.0.1]:3050")


@pytest.mark.parametrize(
    "error",
    [
        LOST,
        ray.exceptions.WorkerCrashedError(),
        ray.exceptions.ActorDiedError(),
        ray.exceptions.OutOfMemoryError("killed by the memory monitor"),  # type: ignore[no-untyped-call]
        ray.exceptions.ObjectLostError("ab" * 28, None, ""),
        *(OSError(number, os.strerror(number)) for number in DISK),
        *(RuntimeError(f"the store could not be written: {os.strerror(number)}") for number in DISK),
        MemoryError(),
        type("_ArrayMemoryError", (MemoryError,), {})("Unable to allocate 8 TiB"),  # numpy's
        torch.OutOfMemoryError("CUDA out of memory"),
        *(OSError(number, os.strerror(number), "weights.safetensors") for number in (errno.EROFS, errno.ETIMEDOUT)),
        RuntimeError("can't start new thread"),
        RuntimeError("CUDA error: uncorrectable ECC error encountered"),
        RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_what_was_lost_is_the_machines_fault(error: Exception) -> None:
    assert classify(error).owner == "machine"


def test_a_cpu_without_memory_is_the_machines_fault() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(10**14)
    assert classify(raised.value).owner == "machine"


@pytest.mark.parametrize(
    "error",
    [
        BUG,
        ValueError("tau"),
        KeyError("beta"),
        OSError(errno.ENOENT, "No such file"),
        OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)),  # a server that a world asks
        RuntimeError("CUDA error: device-side assert triggered"),
    ],
)
def test_everything_else_is_the_programs_fault(error: Exception) -> None:
    fault = classify(error)
    assert (fault.owner, fault.error) == ("program", type(error).__name__)


def test_one_lost_worker_explains_what_its_peers_say() -> None:
    assert classify(ray.train.WorkerGroupError("text", {0: BUG, 1: LOST})).error == "NodeDiedError"


def test_a_programs_error_is_the_cause_of_its_peers_broken_collectives() -> None:
    fault = classify(ray.train.WorkerGroupError("text", {0: ECHO, 1: BUG}))
    assert (fault.owner, fault.reason) == ("program", "division by zero")


def test_broken_collectives_alone_mean_that_a_peer_vanished() -> None:
    assert classify(ray.train.WorkerGroupError("text", {0: ECHO, 1: ECHO})).owner == "machine"


@pytest.mark.parametrize(
    ("failures", "nodes", "lost"),
    [
        ({0: ECHO, 1: LOST}, {0: "a", 1: "b"}, ("b",)),  # who lost a peer is no sign
        ({0: LOST, 1: LOST}, {0: "b", 1: "a"}, ("a", "b")),
        ({0: ECHO, 1: ECHO}, {0: "a", 1: "b"}, ()),  # one of them is gone, and nobody says which
        ({0: ECHO, 1: ECHO}, {0: "a", 1: "a"}, ("a",)),
        ({0: LOST}, {}, ()),  # it had not said where it was
    ],
)
def test_the_nodes_of_lost_workers_are_those_that_failed(
    failures: dict[int, Exception], nodes: dict[int, str], lost: tuple[str, ...]
) -> None:
    assert nodes_lost(ray.train.WorkerGroupError("text", failures), nodes) == lost


def test_of_a_group_that_ends_otherwise_the_one_node_that_it_was_on_has_failed() -> None:
    assert nodes_lost(LOST, {0: "a", 1: "a"}) == ("a",)
    assert nodes_lost(LOST, {0: "a", 1: "b"}) == ()


def test_a_reason_is_one_short_line() -> None:
    fault = classify(ValueError("\n  first " + "x" * 1000 + "\nsecond"))
    assert fault.reason.startswith("first xxx")
    assert len(fault.reason) == REASON_LENGTH
    assert classify(ValueError()).reason == "no message"


def test_a_fault_without_a_reason_cannot_exist() -> None:
    with pytest.raises(ValueError, match="must be one line that is not empty"):
        Fault("machine", "ValueError", "")


def test_each_wait_is_four_times_the_one_before_up_to_five_minutes() -> None:
    # 5, 5 · 4 = 20, 20 · 4 = 80, and 80 · 4 = 320 is more than 300.
    assert [back_off_seconds(losses) for losses in (1, 2, 3, 4, 5)] == [5.0, 20.0, 80.0, 300.0, 300.0]
    assert back_off_seconds(10_000) == 300.0  # a power that no float holds


def test_what_was_not_lost_does_not_wait() -> None:
    with pytest.raises(ValueError, match="losses must be at least 1, got 0"):
        back_off_seconds(0)
