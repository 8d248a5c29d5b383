"""What a step and an episode cost, by what the store has recorded of the same model on the same kind of device."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from cluster.shapes import Need
from sweeps.exact_json import Record
from sweeps.store import Store


@dataclass(frozen=True)
class Rate:
    """What one recorded step or episode cost.

    Attributes:
        seconds: On the clock.
        devices: GPUs or shares of one that it held meanwhile, or CPUs where it held no GPU.
    """

    seconds: float
    devices: float

    @property
    def device_seconds(self) -> float:
        """What it took of devices."""
        return self.seconds * self.devices


@dataclass(frozen=True)
class Rates:
    """The comparable rates of a store, one of each record that finished.

    Attributes:
        steps: Of an optimiser step, by training.
        episodes: Of an episode, by evaluation.
    """

    steps: list[Rate]
    episodes: list[Rate]


def rates(store: Store, models: Collection[str], need: Need) -> Rates:
    """The rates of what was done with these models on such devices as a job needs.

    Args:
        store: Where the records are.
        models: Keys of the backbones.
        need: What a job needs: rates of CPUs say nothing of GPUs.
    """

    def found(kind: str, cost: str, units: str) -> list[Rate]:
        return [
            Rate(float(record[cost]) / float(record[units]), _devices(record, need))
            for record in store.all(kind).values()
            if record.get("status") == "finished"
            and record.get("backbone") in models
            and (record.get("gpus", 0) > 0) == (need.gpus > 0)
            and record.get(cost)
        ]

    return Rates(found("training", "train_seconds", "steps"), found("evaluation", "evaluate_seconds", "episodes"))


def devices(need: Need) -> float:
    """What a training holds: GPUs, or CPUs where it needs no GPU. An evaluation holds what one worker does."""
    return need.workers * (need.gpus or need.cpus)


def _devices(record: Record, need: Need) -> float:
    """What the work of a record held.

    An evaluation's record of before it named its workers has 1 for any share of a GPU: the share of today stands in.
    """
    gpus: float = record.get("gpus", 0.0)
    if not gpus:
        return float(record.get("workers", 1))
    return gpus if "workers" in record else need.gpus
