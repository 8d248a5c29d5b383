"""An evaluation that is given a GPU somewhere on the cluster, by a trial that holds next to nothing of it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.connect import ConnectOptions, connect
from sweeps.job import Resources
from sweeps.provenance import package_folders
from sweeps.work import run_job

if TYPE_CHECKING:
    from conftest import Bench


@pytest.mark.timeout(180)
def test_it_is_played_there_told_of_and_recorded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = bench.trial("bc", evaluation={"episodes": 24})
    job = dataclasses.replace(bench.job(bench.trial("bc"), trial), resources=Resources(gpus_per_worker=0.5))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")

    def as_a_trial() -> tuple[str, list[dict[str, float]]]:
        told: list[dict[str, float]] = []
        return run_job(job, lambda numbers: told.append(dict(numbers))), told

    # A GPU by its name alone: its owner sees none, and plays on a CPU.
    with connect(ConnectOptions(cpus=2, gpus=1, packages=package_folders())):
        group = placement_group([{"memory": 1.0}])  # as Tune's
        inside = PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True)
        remote = ray.remote(num_cpus=0, memory=1, scheduling_strategy=inside)(as_a_trial)
        status, told = ray.get(remote.remote(), timeout=120)
    assert status == "finished"
    assert told
    assert told[0]["episodes"] >= 1
    record = bench.store.get("evaluation", trial.trial_id)
    assert record is not None
    assert (record["status"], record["episodes"], record["gpus"]) == ("finished", 24, 0.0)
