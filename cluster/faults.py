"""Whose fault was it: the machine's or the program's.

A machine's fault (a worker killed, a node lost, memory or disk exhausted) says nothing about the program: trying again
elsewhere, after a while, is right. A program's fault comes back however often one tries, and belongs in the run table
with its reason.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import ray.exceptions

from cluster.redaction import without_secrets

Owner = Literal["machine", "program"]

REASON_LENGTH = 300
"""Longest reason kept, in characters: it must fit a table's cell and a log's line."""

FIRST_WAIT_SECONDS = 5
WAIT_GROWTH = 4
LONGEST_WAIT_SECONDS = 300
"""Four waits are 405 seconds: what holds up a whole cluster, such as a file server that starts anew or a node that is
not yet known to be gone, has mostly passed by then."""

_MACHINE = (
    ray.exceptions.ActorPlacementGroupRemoved,
    ray.exceptions.ActorUnschedulableError,
    ray.exceptions.LocalRayletDiedError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.ObjectStoreFullError,
    ray.exceptions.OutOfDiskError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.RayActorError,
    ray.exceptions.RaySystemError,
    ray.exceptions.RpcError,
    ray.exceptions.RuntimeEnvSetupError,
    ray.exceptions.TaskPlacementGroupRemoved,
    ray.exceptions.TaskUnschedulableError,
    ray.exceptions.WorkerCrashedError,
)

_MACHINE_ERRNO = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ENOMEM})

# Of a file they are its disk's; without one they may be a server's that a user's environment asks.
_FILE_ERRNO = frozenset({errno.EROFS, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOLCK, errno.ENODEV})

# Libraries and stores raise errors of their own for these, and what they raised them from is lost between processes.
_MACHINE_WORDS = (
    *(os.strerror(number) for number in sorted(_MACHINE_ERRNO)),
    "can't allocate memory",  # torch, of a CPU
    "out of memory",  # torch and CUDA, of a GPU
    "_STATUS_ALLOC_FAILED",  # cuBLAS and its kin
    "uncorrectable ECC error",
    "devices are busy or unavailable",
    "can't start new thread",
    "the object store ",  # sweeps.objects, of one that does not answer, or not here
)

# A worker whose peer is gone fails inside its next collective. That error is an echo: the peer's own error, where there
# is one, is the cause. Told by name, because torch is not imported here.
_ECHO_TYPES = frozenset({"DistBackendError", "DistNetworkError", "DistStoreError"})
_ECHO_WORDS = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL communicator was aborted")


@dataclass(frozen=True)
class Fault:
    """A failure as a value: it can be stored, shown and counted.

    Attributes:
        owner: "machine" where another try elsewhere may well succeed, "program" where it would fail again.
        error: The name of the exception's type.
        reason: One line, at most `REASON_LENGTH` characters, without the secrets that are known here.
        nodes: Ray's ids of the nodes that failed, as far as they are known.
    """

    owner: Owner
    error: str
    reason: str
    nodes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if self.owner not in get_args(Owner):
            raise ValueError(f"a fault's owner must be one of {', '.join(get_args(Owner))}, got {self.owner!r}")
        if not self.reason or "\n" in self.reason:
            raise ValueError(f"a fault's reason must be one line that is not empty, got {self.reason!r}")

    @property
    def cause(self) -> str:
        """What happened, without whose it was: as a row says it that failed by its own fault."""
        return f"{self.error}: {self.reason}"

    def __str__(self) -> str:
        return f"{self.owner}: {self.cause}"


def classify(error: BaseException) -> Fault:
    """Give the fault behind an exception, looking through what Ray wrapped around it.

    Where several errors came together (a group of workers), a lost machine explains all others; then a program's own
    error; a broken collective alone means that a peer vanished, which is the machine's fault.
    """
    roots = list(_roots(error))
    for root in roots:
        if _is_machine(root):
            return _fault("machine", root)
    for root in roots:
        if not _is_echo(root):
            return _fault("program", root)
    return _fault("machine", roots[0])


def nodes_lost(error: BaseException, nodes: Mapping[int, str]) -> tuple[str, ...]:
    """The nodes that failed under a group of workers, as far as an error says.

    Whoever only lost a peer is no sign. Where nobody else is known, and all workers were on one node, it is that.

    Args:
        error: What ended the group.
        nodes: The ids of the workers' nodes, by rank.
    """
    failures = getattr(error, "worker_failures", None)
    ranks = failures if isinstance(failures, Mapping) else {}
    known = {
        nodes[rank]
        for rank, failure in ranks.items()
        if rank in nodes and any(_is_machine(root) for root in _roots(failure))
    }
    one = set(nodes.values()) if len(set(nodes.values())) == 1 else set()
    return tuple(sorted(known or one))


def back_off_seconds(losses: int) -> float:
    """Seconds to wait before what machines have failed so often is tried again: 5, 20, 80, and from then on 300.

    The less of `FIRST_WAIT_SECONDS` · `WAIT_GROWTH`^(losses − 1) and `LONGEST_WAIT_SECONDS`. Without jitter: those who
    wait are begun by one driver, one by one, as there are places.

    Raises:
        ValueError: `losses` is below 1.
    """
    if losses < 1:
        raise ValueError(f"losses must be at least 1, got {losses}")
    return float(min(FIRST_WAIT_SECONDS * WAIT_GROWTH ** (losses - 1), LONGEST_WAIT_SECONDS))


def ended_for_memory(error: BaseException) -> bool:
    """True if Ray killed workers because a machine's memory was full, and whoever waited for them gave up over it."""
    return any(isinstance(each, ray.exceptions.OutOfMemoryError) for each in (error, error.__cause__))


def _fault(owner: Owner, error: BaseException) -> Fault:
    told = without_secrets(str(error))  # before it is cut, where half of a secret would be left
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    reason = lines[0] if lines else "no message"
    return Fault(owner, type(error).__name__, reason[:REASON_LENGTH])


def _is_machine(error: BaseException) -> bool:
    # Torch's own is told by name, as it is not imported here. What fits no machine fails again, but tries are bounded.
    out_of_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return (
        out_of_memory
        or isinstance(error, _MACHINE)
        or (isinstance(error, OSError) and error.errno in _MACHINE_ERRNO)
        or (isinstance(error, OSError) and error.errno in _FILE_ERRNO and error.filename is not None)
        or any(word in str(error) for word in _MACHINE_WORDS)
    )


def _is_echo(error: BaseException) -> bool:
    return type(error).__name__ in _ECHO_TYPES or any(word in str(error) for word in _ECHO_WORDS)


def _roots(error: BaseException) -> Iterator[BaseException]:
    """Yield the innermost errors: Ray Core and Ray Train wrap what happened, each in attributes of its own."""
    failures = getattr(error, "worker_failures", None)
    if isinstance(failures, Mapping) and failures:
        for rank in sorted(failures):
            yield from _roots(failures[rank])
        return
    for attribute in ("controller_failure", "health_check_failure", "_base_exc", "cause"):
        inner = getattr(error, attribute, None)
        if isinstance(inner, BaseException) and inner is not error:
            yield from _roots(inner)
            return
    yield error
