"""Reservations nobody will use again are given back, and no others."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
import ray
from ray.util.placement_group import placement_group, remove_placement_group

from cluster.connect import ClusterInfo
from cluster.placement import describe_cluster, live_placement_groups, release_orphans

pytestmark = pytest.mark.timeout(120)


def _reserver() -> Any:
    """Make an actor that reserves one CPU; nested, so that workers need not import this file."""

    class Reserver:
        def reserve(self) -> int:
            from ray.util.placement_group import placement_group

            placement_group([{"CPU": 1}]).wait(10)
            return os.getpid()

    remote: Any = ray.remote(Reserver)
    return remote.options(num_cpus=0).remote()


def test_only_what_a_dead_actor_reserved_is_released(ray_here: ClusterInfo) -> None:
    living, dying = _reserver(), _reserver()
    ray.get([living.reserve.remote(), dying.reserve.remote()])
    assert release_orphans() == 0
    assert live_placement_groups() == ("CREATED 1 x {CPU: 1}",) * 2
    ray.kill(dying)
    time.sleep(3)
    assert len(live_placement_groups()) == 2  # Ray itself keeps it: the leak is real
    assert release_orphans() == 1
    assert live_placement_groups() == ("CREATED 1 x {CPU: 1}",)
    ray.kill(living)
    deadline = time.monotonic() + 20
    while not release_orphans():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_description_names_what_holds_and_what_waits(ray_here: ClusterInfo) -> None:
    def too_large(number: int) -> None: ...

    held = placement_group([{"CPU": 1}, {"CPU": 1}])
    assert held.wait(10)
    remote: Any = ray.remote(too_large)
    waiting = remote.options(num_cpus=2, name="train 7").remote(0)
    text, deadline = "", time.monotonic() + 20
    while "train 7" not in text:
        assert time.monotonic() < deadline, text
        text = describe_cluster()
    assert text == "0 of 2 CPU free; placement groups: 1 x CREATED 2 x {CPU: 1}; waiting: 1 x task train 7"
    ray.cancel(waiting)
    remove_placement_group(held)
