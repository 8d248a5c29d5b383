"""Functions called on the cluster."""

from __future__ import annotations

import os
import signal

import pytest

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


def test_what_has_no_room_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must not be negative, got -1, 0.0, 0"):
        call(abs, 3, cpus=-1)
