"""What a training loop sees of the machines: its rank, its device, and where to report.

A loop is a function `train_loop(config, group)`. It runs unchanged in a group of Ray Train workers (`cluster.workers`)
and alone in the caller's process (`run_here`, below), so a one-worker training on a CPU need not pay for a group.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from cluster.faults import Fault, classify

Config = TypeVar("Config")


class Group(Protocol):
    """One worker's view of its group."""

    @property
    def rank(self) -> int:
        """This worker's number, in [0, world_size)."""
        ...

    @property
    def world_size(self) -> int:
        """How many workers train together, at least 1. Above 1, torch.distributed is initialised."""
        ...

    @property
    def device(self) -> str:
        """The device this worker was given, as torch names it: "cpu", "cuda:0"."""
        ...

    def report(self, metrics: Mapping[str, float]) -> None:
        """Report plain floats. Every rank must call it equally often: it is a barrier.

        Raises:
            TypeError: A metric is not a plain number; a tensor is given as `loss.item()`.
        """
        ...


TrainLoop = Callable[[Config, Group], None]


@dataclass(frozen=True)
class Report:
    """What all ranks reported together.

    Attributes:
        metrics: The mean over ranks, key by key. A loop that reduces its metrics itself, as it must wherever ranks
            weigh differently, reports equal numbers on all of them, and the mean is that number exactly.
        by_rank: Each rank's own metrics.
    """

    metrics: Mapping[str, float]
    by_rank: tuple[Mapping[str, float], ...]


@dataclass(frozen=True)
class GroupResult:
    """How a training ended.

    Attributes:
        metrics: The last report's metrics; empty if nothing was reported.
        fault: What ended it; None if the loop returned on every rank.
        workers: How many there were.
    """

    metrics: Mapping[str, float]
    fault: Fault | None
    workers: int = 1


def check_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Give the metrics as plain floats.

    Raises:
        TypeError: A value is no int or float.
    """
    for name, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"a metric must be a plain float, got {name} of type {type(value).__name__}; try .item()")
    return {name: float(value) for name, value in metrics.items()}


def combine(by_rank: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Give the mean over ranks of every metric.

    Raises:
        ValueError: The ranks did not report the same names.
    """
    names = list(by_rank[0])
    for rank, metrics in enumerate(by_rank):
        if set(metrics) != set(names):
            raise ValueError(
                f"all ranks must report the same metrics, got {sorted(metrics)} on rank {rank} "
                f"and {sorted(names)} on rank 0"
            )
    return {name: _mean([metrics[name] for metrics in by_rank]) for name in names}


def run_here(
    train_loop: TrainLoop[Config], config: Config, *, on_report: Callable[[Report], None] | None = None
) -> GroupResult:
    """Run the loop alone in this process, on the CPU, with the same reports and result as a group of workers.

    Errors of the loop come back as the result's fault; errors of `on_report` are the caller's own and are raised.
    """
    here = _Here(on_report)
    fault = None
    try:
        train_loop(config, here)
    except Exception as error:
        if here.caller_failed:
            raise
        fault = classify(error)
    return GroupResult(here.metrics, fault)


class _Here:
    """The only member of its group."""

    rank = 0
    world_size = 1
    device = "cpu"

    def __init__(self, on_report: Callable[[Report], None] | None) -> None:
        self._on_report = on_report
        self.metrics: Mapping[str, float] = {}
        self.caller_failed = False

    def report(self, metrics: Mapping[str, float]) -> None:
        self.metrics = plain = check_metrics(metrics)
        if self._on_report is not None:
            self.caller_failed = True  # until it returns
            self._on_report(Report(plain, (plain,)))
            self.caller_failed = False


def _mean(values: Sequence[float]) -> float:
    if all(value == values[0] for value in values):
        return values[0]  # adding and dividing could move the last digit
    return math.fsum(values) / len(values)
