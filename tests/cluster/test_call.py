"""Functions called on the cluster."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.call import call
from cluster.connect import ClusterInfo
from cluster.faults import Fault
from cluster.nodes import this_node

pytestmark = pytest.mark.timeout(120)


Tell = Callable[[int], None]


def test_a_result_and_what_is_told_on_the_way_come_back(ray_here: ClusterInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    def count(number: int, tell: Tell) -> int:
        import time

        for done in range(number):
            tell(done)
            time.sleep(0.1)
        time.sleep(2)
        return number

    told: list[tuple[int, float]] = []
    assert call(count, 5, lambda done: told.append((done, time.monotonic()))) == 5
    (first, at_once), (newest, later) = told
    assert (first, newest) == (0, 4)  # what is told within a second of another waits, and only the newest of it comes
    assert later - at_once > 0.8


def test_an_error_is_the_programs_fault(ray_here: ClusterInfo) -> None:
    def inverse(number: int, tell: Tell) -> float:
        return 1 / number

    assert call(inverse, 0, unheard) == Fault("program", "ZeroDivisionError", "division by zero")


def test_a_killed_worker_is_the_machines_fault(ray_here: ClusterInfo) -> None:
    def die(number: int, tell: Tell) -> None:
        tell(number)
        os.kill(os.getpid(), signal.SIGKILL)

    begun: list[str] = []
    outcome = call(die, 9, unheard, at=begun.append)
    assert isinstance(outcome, Fault)
    assert (outcome.owner, outcome.error) == ("machine", "WorkerCrashedError")
    assert begun == [this_node()] == list(outcome.nodes)


def test_who_is_told_may_end_it(ray_here: ClusterInfo, tmp_path: Path) -> None:
    def go_on(file: str, tell: Tell) -> None:
        import time
        from pathlib import Path

        while True:
            Path(file).write_text(str(os.getpid()), encoding="utf-8")
            tell(1)
            time.sleep(0.05)

    def enough(told: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call(go_on, str(tmp_path / "pid"), enough)
    worker = int((tmp_path / "pid").read_text(encoding="utf-8"))
    deadline = time.monotonic() + 30
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{worker}").exists()


def test_workers_import_our_packages_use_one_thread_and_know_this_clusters_state_api(ray_here: ClusterInfo) -> None:
    @ray.remote(num_cpus=2)  # Ray gives each as many threads, unless told otherwise
    def look(name: str) -> tuple[str | None, str | None, str]:
        import importlib

        return (
            os.environ.get("OMP_NUM_THREADS"),
            os.environ.get("RAY_API_SERVER_ADDRESS"),
            importlib.import_module(name).__name__,
        )

    found = ray.get(look.remote("ilql.dialogue"), timeout=60)
    assert found == ("1", ray_here.state_api, "ilql.dialogue")


def unheard(told: object) -> None:
    """Tell nobody."""


def test_whoever_runs_in_a_placement_group_calls_on_the_whole_cluster(ray_here: ClusterInfo) -> None:
    # As a trial of Tune's does, whose group holds a byte of memory and takes in what the trial starts.
    def negated(number: int, tell: Tell) -> int:
        return -number

    @ray.remote(num_cpus=0)
    def trial() -> int | Fault:
        return call(negated, -3, lambda told: None)

    group = placement_group([{"memory": 1.0}])
    ray.get(group.ready(), timeout=60)
    inside = PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True)
    try:
        assert ray.get(trial.options(memory=1, scheduling_strategy=inside).remote(), timeout=60) == 3
    finally:
        remove_placement_group(group)


def test_less_than_no_gpu_is_refused() -> None:
    with pytest.raises(ValueError, match="gpus must not be negative, got -1"):
        call(lambda item, tell: None, 3, unheard, gpus=-1)
