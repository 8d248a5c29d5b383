"""What a training loop sees of the machines: its rank, its device, where to report and what to resume from.

A loop is a function `train_loop(config, group)`. It runs unchanged in a group of Ray Train workers (`cluster.workers`)
and alone in the caller's process (`run_here`, below), so a one-worker training on a CPU need not pay for a group.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar, get_args

from cluster.faults import Fault, classify

Config = TypeVar("Config")
Status = Literal["finished", "failed"]


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

    def report(self, metrics: Mapping[str, float], folder: Path | None = None) -> None:
        """Report plain floats, and a folder to resume from where there is one; returns when the folder is copied.

        Every rank must call it equally often: it is a barrier. Rank 0's folder counts and may be deleted afterwards,
        other ranks' folders are not looked at. A worker killed within the next fraction of a second (the group's health
        check interval) may resume from the folder before.

        Raises:
            TypeError: A metric is not a plain number; a tensor is given as `loss.item()`.
        """
        ...

    def restore_folder(self) -> Path | None:
        """Give the folder last reported under this storage and name, to be read only; None at the first start."""
        ...


TrainLoop = Callable[[Config, Group], None]


@dataclass(frozen=True)
class Report:
    """What all ranks reported together.

    Attributes:
        metrics: The mean over ranks, key by key. A loop that reduces its metrics itself, as it must wherever ranks
            weigh differently, reports equal numbers on all of them, and the mean is that number exactly.
        by_rank: Each rank's own metrics.
        folder: The stored folder that came with it, or None. It lives until the next one is stored.
    """

    metrics: Mapping[str, float]
    by_rank: tuple[Mapping[str, float], ...]
    folder: Path | None


@dataclass(frozen=True)
class GroupResult:
    """How a training ended.

    Attributes:
        status: "finished" if the loop returned on every rank, else "failed".
        metrics: The last report's metrics; empty if nothing was reported.
        folder: The last stored folder, or None; also of an earlier run under the same storage and name.
        fault: What ended it; None exactly if it finished.
        recovered: The faults it went on from, in order.
        seconds: Wall time, the start of the group included.
    """

    status: Status
    metrics: Mapping[str, float]
    folder: Path | None
    fault: Fault | None
    recovered: tuple[Fault, ...]
    seconds: float

    def __post_init__(self) -> None:
        if self.status not in get_args(Status):
            raise ValueError(f"a result's status must be one of {', '.join(get_args(Status))}, got {self.status!r}")
        if (self.status == "finished") != (self.fault is None):
            raise ValueError(f"a result has a fault exactly if it failed, got {self.status} with fault {self.fault}")


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
    train_loop: TrainLoop[Config],
    config: Config,
    *,
    storage: Path,
    name: str,
    on_report: Callable[[Report], None] | None = None,
) -> GroupResult:
    """Run the loop alone in this process, on the CPU, with the same reports, folders and result as a group of workers.

    Errors of the loop come back as the result's fault; errors of `on_report` are the caller's own and are raised.

    Raises:
        ValueError: `storage` is not absolute or `name` not a plain name.
    """
    check_place(storage, name)
    start = time.monotonic()
    here = _Here(storage / name, on_report)
    fault = None
    try:
        train_loop(config, here)
    except Exception as error:
        if here.caller_failed:
            raise
        fault = classify(error)
    return GroupResult(
        status="finished" if fault is None else "failed",
        metrics=here.metrics,
        folder=here.restore_folder(),
        fault=fault,
        recovered=(),
        seconds=time.monotonic() - start,
    )


def check_place(storage: Path, name: str) -> None:
    """Refuse a storage folder that workers elsewhere would understand differently, and a name that leaves it."""
    if not storage.is_absolute():
        raise ValueError(f"storage must be an absolute folder that all machines see, got {str(storage)!r}")
    if Path(name).name != name or name in ("", "..") or "\0" in name:
        raise ValueError(f"a group's name must be one path component, such as its weights_id, got {name!r}")


class _Here:
    """The only member of its group. Folders are stored under increasing numbers; the highest complete one counts."""

    rank = 0
    world_size = 1
    device = "cpu"

    def __init__(self, root: Path, on_report: Callable[[Report], None] | None) -> None:
        self._root = root
        self._on_report = on_report
        self.metrics: Mapping[str, float] = {}
        self.caller_failed = False

    def report(self, metrics: Mapping[str, float], folder: Path | None = None) -> None:
        plain = check_metrics(metrics)
        stored = None if folder is None else self._store(folder)
        self.metrics = plain
        if self._on_report is not None:
            self.caller_failed = True  # until it returns
            self._on_report(Report(plain, (plain,), stored))
            self.caller_failed = False

    def restore_folder(self) -> Path | None:
        stored = self._stored()
        return stored[-1] if stored else None

    def _stored(self) -> list[Path]:
        return sorted(self._root.glob("folder_[0-9]*")) if self._root.is_dir() else []

    def _store(self, folder: Path) -> Path:
        earlier = self._stored()
        number = int(earlier[-1].name.removeprefix("folder_")) + 1 if earlier else 0
        target = self._root / f"folder_{number:09d}"
        unfinished = self._root / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(folder, unfinished)
        for path in unfinished.rglob("*"):  # a rename may survive a power cut that the bytes behind it do not
            if path.is_file():
                with path.open("rb") as stored:
                    os.fsync(stored.fileno())
        unfinished.rename(target)  # complete or not there
        for path in earlier:
            shutil.rmtree(path)
        return target


def _mean(values: Sequence[float]) -> float:
    if all(value == values[0] for value in values):
        return values[0]  # adding and dividing could move the last digit
    return math.fsum(values) / len(values)
