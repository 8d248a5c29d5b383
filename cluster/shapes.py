"""Clusters as numbers: what machines have, what a job's workers need, and how many jobs fit at a time.

Nothing here asks a cluster: a real one and one that is only described (`4x8:80GB`) are planned alike.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

GIB = 2**30

CPUS_PER_GPU = 8
"""What a described machine with GPUs has of CPUs for each, unless it is said."""

LEAST_GPU_SHARE = 1e-4
"""Ray counts resources in ten-thousandths."""

PLANNED_SHARE = 0.9
"""The share of a GPU's memory that is planned with; the rest is the driver's and fragments."""

LARGEST_CLUSTER = 10**5
"""More machines than anybody means: a description with more is a slip of the finger."""

_SLACK = 1e-9  # 1/3 + 1/3 + 1/3 of a GPU is one GPU

_GROUP = re.compile(
    r"(?P<machines>\d+)x(?P<gpus>\d+)(?::(?P<memory>\d+(?:\.\d+)?)GB)?(?::(?P<cpus>\d+)cpus?)?(?::(?P<speed>\d+(?:\.\d+)?)TF)?",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One machine of a cluster.

    Attributes:
        cpus: Logical CPUs, not negative.
        gpus: Whole GPUs, not negative.
        gpu_bytes: Memory of each GPU; None where it is not known.
        gpu_flops: Peak FLOP/s of each GPU at the precision that is trained in; None where it is not known.
    """

    cpus: float
    gpus: float = 0.0
    gpu_bytes: int | None = None
    gpu_flops: float | None = None

    def __post_init__(self) -> None:
        if self.cpus < 0 or self.gpus < 0:
            raise ValueError(f"a machine's cpus and gpus must not be negative, got {self.cpus:g} and {self.gpus:g}")


@dataclass(frozen=True, kw_only=True)
class Need:
    """What one job needs.

    Attributes:
        workers: Processes that train together, at least 1. They may stand on different machines.
        least_workers: With so many it makes do where there is room for no more; with all of them alone if None.
        cpus: CPUs of each, positive.
        gpus: GPUs of each: none, a share of one from `LEAST_GPU_SHARE` on, or a whole number, as Ray has it.
    """

    workers: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    least_workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers < 1 or self.cpus <= 0:
            raise ValueError(f"a job must have workers and each of them CPUs, got {self.workers} and {self.cpus:g}")
        if not 1 <= self.fewest <= self.workers:
            raise ValueError(f"a job must make do with 1 to {self.workers} of its workers, got {self.fewest}")
        if self.gpus < 0 or (self.gpus > 1 and self.gpus != int(self.gpus)):
            raise ValueError(f"a worker's GPUs must be a share of one or a whole number, got {self.gpus:g}")
        if 0 < self.gpus < LEAST_GPU_SHARE:
            raise ValueError(f"a worker's share of a GPU must be at least {LEAST_GPU_SHARE:g}, got {self.gpus:g}")

    @property
    def fewest(self) -> int:
        """How many workers it takes at least."""
        return self.workers if self.least_workers is None else self.least_workers

    def __str__(self) -> str:
        gpus = "" if not self.gpus else f" and {self.gpus:g} GPU{'' if self.gpus <= 1 else 's'}"
        at_least = f"{self.fewest} to " if self.fewest < self.workers else ""
        return f"{at_least}{self.workers} worker{'' if self.workers == 1 else 's'} with {self.cpus:g} CPU{gpus} each"


def worker_places(machine: Machine, need: Need) -> int:
    """How many workers fit a machine. A share of a GPU never reaches over two: three of 0.4 need two GPUs."""
    fit = math.floor(machine.cpus / need.cpus + _SLACK)
    if need.gpus > 1:
        fit = min(fit, math.floor(machine.gpus / need.gpus + _SLACK))
    elif need.gpus:
        fit = min(fit, int(machine.gpus) * math.floor(1 / need.gpus + _SLACK))
    return fit


def worker_room(machines: Sequence[Machine], need: Need) -> int:
    """How many workers fit a cluster, of one job or of several."""
    return sum(worker_places(machine, need) for machine in machines)


def places(machines: Sequence[Machine], need: Need) -> int:
    """How many jobs fit a cluster at a time; 0 if not one does. One of fewer workers fits where none of all does."""
    room = worker_room(machines, need)
    return room // need.workers or int(room >= need.fewest)


def workers_that_fit(machines: Sequence[Machine], need: Need) -> int:
    """Of how many workers a job can be; at least as many as it makes do with, for what is to come back."""
    return max(need.fewest, min(need.workers, worker_room(machines, need)))


def gpu_share(needed_bytes: int, gpu_bytes: int) -> float:
    """The share of a GPU that a training needs: 1/k if k of them fit one, or as many whole GPUs as hold it.

    Args:
        needed_bytes: What one training takes, positive.
        gpu_bytes: A GPU's memory, of which `PLANNED_SHARE` is planned with.
    """
    if needed_bytes <= 0 or gpu_bytes <= 0:
        raise ValueError(f"memory must be positive, got {needed_bytes} and {gpu_bytes} bytes")
    fit = math.floor(PLANNED_SHARE * gpu_bytes / needed_bytes)
    return 1 / fit if fit else float(math.ceil(needed_bytes / (PLANNED_SHARE * gpu_bytes)))


def described(text: str) -> tuple[Machine, ...]:
    """The machines of a description, `4x8:80GB`: four of eight GPUs with 80 GiB each.

    Further parts, in this order: `:64cpu`, CPUs of a machine (eight for each GPU unless it is said); `:67TF`, peak
    TFLOP/s of a GPU. Machines of several kinds are joined by `+`: `2x8:80GB+10x0:32cpu`.

    Raises:
        ValueError: It is no such description, or one of more than `LARGEST_CLUSTER` machines.
    """
    found: list[Machine] = []
    for part in text.split("+"):
        group = _GROUP.fullmatch(part.strip())
        if group is None or not int(group["machines"]) or not (int(group["gpus"]) or group["cpus"]):
            raise ValueError(
                f"a cluster is described as MACHINESxGPUS:MEMORY, such as 4x8:80GB, 2x1:24GB:16cpu or 10x0:32cpu, "
                f"got {text!r}"
            )
        machines, gpus = int(group["machines"]), int(group["gpus"])
        if len(found) + machines > LARGEST_CLUSTER:
            raise ValueError(f"a described cluster must have at most {LARGEST_CLUSTER:,} machines, got {text!r}")
        machine = Machine(
            cpus=float(group["cpus"] or CPUS_PER_GPU * gpus),
            gpus=gpus,
            gpu_bytes=None if group["memory"] is None else round(float(group["memory"]) * GIB),
            gpu_flops=None if group["speed"] is None else float(group["speed"]) * 1e12,
        )
        found += [machine] * machines
    return tuple(found)
