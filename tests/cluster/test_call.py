"""Functions called on the cluster."""

from __future__ import annotations

import os
import signal

import pytest
import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.call import call, call_each
from cluster.connect import ClusterInfo
from cluster.faults import Fault

pytestmark = pytest.mark.timeout(120)


def test_results_come_in_the_order_of_the_items_and_errors_beside_them(ray_here: ClusterInfo) -> None:
    def inverse(number: int) -> float:
        return 1 / number

    done: list[int] = []
    outcomes = call_each(inverse, [1, 0, 4], on_done=lambda index, outcome: done.append(index))
    assert outcomes == [1.0, Fault("program", "ZeroDivisionError", "division by zero"), 0.25]
    assert sorted(done) == [0, 1, 2]


def test_a_killed_worker_is_the_machines_fault(ray_here: ClusterInfo) -> None:
    def die(number: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    outcome = call(die, 9)
    assert isinstance(outcome, Fault)
    assert (outcome.owner, outcome.error) == ("machine", "WorkerCrashedError")


def test_workers_import_our_packages_use_one_thread_and_know_this_clusters_state_api(ray_here: ClusterInfo) -> None:
    def look(name: str) -> tuple[str | None, str | None, str]:
        import importlib

        return (
            os.environ.get("OMP_NUM_THREADS"),
            os.environ.get("RAY_API_SERVER_ADDRESS"),
            importlib.import_module(name).__name__,
        )

    assert call(look, "ilql.dialogue", cpus=2) == ("1", ray_here.state_api, "ilql.dialogue")


def test_whoever_runs_in_a_placement_group_calls_on_the_whole_cluster(ray_here: ClusterInfo) -> None:
    # As a trial of Tune's does, whose group holds a byte of memory and takes in what the trial starts.
    def negated(number: int) -> int:
        return -number

    @ray.remote(num_cpus=0)
    def trial() -> int | Fault:
        return call(negated, -3, cpus=1.0)

    group = placement_group([{"memory": 1.0}])
    ray.get(group.ready(), timeout=60)
    inside = PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True)
    try:
        assert ray.get(trial.options(memory=1, scheduling_strategy=inside).remote(), timeout=60) == 3
    finally:
        remove_placement_group(group)


def test_what_has_no_room_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must not be negative, got -1, 0.0, 0"):
        call(abs, 3, cpus=-1)
