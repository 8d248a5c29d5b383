"""A job as a value: which weights, which evaluations of them, what it may use; how parts of it are run elsewhere."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cluster.call import call
from cluster.faults import Fault
from cluster.shapes import Need
from sweeps.stopping import Asked, JobStopped
from sweeps.store import Store, joined

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a job may use. Not part of any key: beyond rounding it decides no number, but for one exception.

    Where networks drop out, what is dropped depends on how a batch is cut into workers and micro-batches, as it does on
    a seed. The record of a training that ended in its loop says how it was cut.

    Attributes:
        workers: Processes that train together.
        least_workers: With so many a training makes do where there is room for no more; None waits for room for all.
        gpus_per_worker: GPUs each of them is given.
        ray_train: Train in a Ray Train worker group even with one worker on a CPU.
        micro_batch: Dialogues per forward pass, for memory and less padding; 0 takes a worker's share whole.
        recompute: Make activations again in the backward pass instead of keeping them, for memory.
        shard: Let each worker hold but a part of every transformer block, for memory.
        checkpoint_every: Steps between checkpoints.
        log_every: Steps between points of the curve.
    """

    workers: int = 1
    least_workers: int | None = None
    gpus_per_worker: float = 0.0
    ray_train: bool = False
    micro_batch: int = 0
    recompute: bool = False
    shard: bool = False
    checkpoint_every: int = 100
    log_every: int = 10

    def __post_init__(self) -> None:
        lowest = {"workers": 1, "gpus_per_worker": 0, "micro_batch": 0, "checkpoint_every": 1, "log_every": 1}
        for name, low in lowest.items():
            if not low <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least {low}, got {getattr(self, name)}")
        if self.least_workers is not None and not 1 <= self.least_workers <= self.workers:
            raise ValueError(
                f"least_workers must be between 1 and the number of workers, {self.workers}, got {self.least_workers}"
            )
        if self.shard and self.need.fewest < 2:
            raise ValueError(f"sharding needs at least 2 workers, got {self.need.fewest}")
        if self.shard and 0 < self.gpus_per_worker < 1:
            raise ValueError(f"sharding needs a whole GPU for each worker, got {self.gpus_per_worker}")

    @property
    def in_group(self) -> bool:
        """True if trainings go through a Ray Train worker group."""
        return self.ray_train or self.workers > 1 or self.gpus_per_worker > 0

    @property
    def need(self) -> Need:
        """What a job needs of a cluster.

        Raises:
            ValueError: No cluster could give it: one GPU and a half.
        """
        if not self.in_group:
            return Need()
        return Need(workers=self.workers, gpus=self.gpus_per_worker, least_workers=self.least_workers)

    def with_workers(self, workers: int) -> Resources:
        """The same for a job of so many: a group as before, of one perhaps. Fewer do only where it has all of them."""
        if workers == self.workers:
            return self
        return dataclasses.replace(self, workers=workers, least_workers=None, ray_train=True)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker is asked to do.

    Attributes:
        store: The store's folder.
        remote: The address of its copy, where machines have a folder each; None where they share one.
        training: Any trial of the weights that are wanted, as JSON.
        evaluations: Trials on those weights, as JSON; those that are recorded are skipped.
        resources: What it may use.
        keep_trajectory: Keep the checkpoints: someone may want to train on from here.
        stop: The file whose being there asks it to stop, if anybody may ask.
    """

    store: str
    training: str
    evaluations: tuple[str, ...]
    resources: Resources
    keep_trajectory: bool = False
    stop: str | None = None
    remote: str | None = None


class MachineFault(RuntimeError):  # noqa: N818  a fault is whose it was, as in cluster.faults
    """A machine failed under work of ours that ran elsewhere.

    Args:
        said: What happened.
        nodes: Ray's ids of the nodes that failed, as far as they are known.
    """

    def __init__(self, said: str, nodes: Sequence[str] = ()) -> None:
        super().__init__(said)
        self.nodes = tuple(nodes)


@functools.lru_cache(maxsize=2)
def opened_store(folder: str, remote: str | None = None) -> Store:
    """The store, opened once by a process that does one job after another; begun here, if its copy is all there is.

    Each opening begins a journal of its own and reads everybody's from their beginning: with one for every job, all
    readers would look at as many journals as there were jobs, and a job would read all that was ever recorded.
    """
    return Store(Path(folder)) if remote is None else joined(Path(folder), remote)


def asked_to_stop(store: Store, stop: str | None) -> Asked:
    """Tells whether a job of a store was asked to stop: by a file, which a machine may know from the copy alone."""
    return Asked(stop, None if stop is None or store.replica is None else lambda: store.is_flagged(stop))


Tell = Callable[[Mapping[str, float]], None]
"""Called now and then with numbers that say how far a job is."""


Placed = Callable[[Sequence[str]], None]
"""Called with Ray's ids of the nodes that did a part of a job which runs elsewhere."""


def elsewhere(
    part: Callable[[Item, Tell], None], item: Item, resources: Resources, tell: Tell, placed: Placed
) -> Fault | None:
    """Run a part of a job wherever one worker of its shape has a place; give the fault of its own that ended it.

    Args:
        part: Called as `part(item, tell)` there; importable.
        item: Picklable.
        resources: The job's.
        tell: Told what it tells.
        placed: Told where it begins.

    Raises:
        JobStopped: It was asked to stop.
        MachineFault: The machine's fault ended it.
    """
    done = call(part, item, tell, gpus=resources.gpus_per_worker, at=lambda node: placed([node]))
    if not isinstance(done, Fault):
        return None
    if done.error == JobStopped.__name__:
        raise JobStopped(done.reason)
    if done.owner == "machine":
        raise MachineFault(str(done), done.nodes)
    return done
