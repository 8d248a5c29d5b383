"""Groups of real Ray Train workers: slow to start (about ten seconds each), so each test asks several things of one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster.connect import ClusterInfo
from cluster.group import Group, Report
from cluster.nodes import let_back, nodes_in_use, set_aside, this_node
from cluster.placement import live_placement_groups, release_orphans
from cluster.workers import backend_of, keep_to_loopback, run_group

pytestmark = pytest.mark.timeout(150)

# The loops are nested functions: those are sent to workers by value, and no worker needs to import this file.


def test_of_three_workers_the_two_that_fit_reduce_and_both_are_heard(ray_here: ClusterInfo, tmp_path: Path) -> None:
    def loop(config: dict[str, float], group: Group) -> None:
        import torch
        import torch.distributed

        value = torch.tensor([config["base"] + group.rank])  # 10 on rank 0, 11 on rank 1
        torch.distributed.all_reduce(value)
        group.report({"sum": value.item(), "rank": group.rank, "world_size": group.world_size})

    heard: list[Report] = []
    base, hear = {"base": 10.0}, heard.append
    result = run_group(
        loop, base, workers=3, least_workers=1, storage=tmp_path, name="pair", on_report=hear
    )  # on two CPUs
    assert (result.fault, result.workers) == (None, 2)
    assert result.metrics == {"sum": 21.0, "rank": 0.5, "world_size": 2.0}  # (0 + 1) / 2: the mean over ranks
    assert [report.by_rank[1]["rank"] for report in heard] == [1.0]
    assert live_placement_groups() == ()


def test_an_exception_in_a_worker_is_the_programs_fault_and_a_rerun_begins_again(
    ray_here: ClusterInfo, tmp_path: Path
) -> None:
    def loop(tau: float, group: Group) -> None:
        group.report({"step": 1.0, "tau": tau})
        if tau >= 1:
            raise ValueError("tau must be in (0, 1), got 2\nand more lines")

    first = run_group(loop, 2.0, workers=1, storage=tmp_path, name="single")
    assert str(first.fault) == "program: ValueError: tau must be in (0, 1), got 2"
    assert first.metrics == {"step": 1.0, "tau": 2.0}
    second = run_group(loop, 0.5, workers=1, storage=tmp_path, name="single")
    assert second.fault is None
    assert second.metrics == {"step": 1.0, "tau": 0.5}
    assert live_placement_groups() == ()


@pytest.mark.long
def test_a_group_that_waits_for_nodes_that_are_gone_is_taken_back_and_begun_smaller(
    ray_here: ClusterInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loop(config: None, group: Group) -> None:
        group.report({"world_size": group.world_size})

    here = nodes_in_use()
    known = [[*here, *here], here]  # the first time, one of two equal nodes is not yet known to be gone
    monkeypatch.setattr("cluster.workers.nodes_in_use", lambda: known.pop(0))
    result = run_group(loop, None, workers=4, least_workers=1, storage=tmp_path, name="four")
    assert (result.fault, result.metrics, result.workers) == (None, {"world_size": 2.0}, 2)
    assert known == []
    assert live_placement_groups() == ()


@pytest.mark.long
def test_a_group_that_has_begun_goes_on_though_its_node_is_set_aside(ray_here: ClusterInfo, tmp_path: Path) -> None:
    def loop(config: None, group: Group) -> None:
        group.report({"step": 1.0})
        time.sleep(25.0)
        group.report({"step": 2.0})

    reserved: list[Any] = []

    def note(report: Report) -> None:
        if not reserved:
            reserved.extend(set_aside(*nodes_in_use()))

    try:
        result = run_group(loop, None, workers=2, least_workers=1, storage=tmp_path, name="aside", on_report=note)
    finally:
        let_back(reserved)
    assert (result.fault, result.metrics, result.workers) == (None, {"step": 2.0}, 2)


def test_a_node_that_is_set_aside_is_not_in_use(ray_here: ClusterInfo) -> None:
    (node,) = nodes_in_use()
    reserved = set_aside(node)
    try:
        assert nodes_in_use() == []
    finally:
        let_back(reserved)
    assert nodes_in_use() == [node]


def test_what_keeps_a_group_from_being_made_is_its_fault(ray_here: ClusterInfo, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    result = run_group(lambda config, group: None, None, workers=1, storage=tmp_path / "file", name="nowhere")
    assert result.fault is not None
    assert "list index" not in str(result.fault)
    assert live_placement_groups() == ()


def test_an_exception_in_the_caller_ends_the_group_and_frees_its_cpus(ray_here: ClusterInfo, tmp_path: Path) -> None:
    def loop(config: None, group: Group) -> None:
        group.report({"step": 1.0})
        time.sleep(600)

    def refuse(report: Report) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_group(loop, None, workers=1, storage=tmp_path, name="interrupted", on_report=refuse)
    assert live_placement_groups() == ()


@pytest.mark.long
def test_a_dead_callers_reservation_is_an_orphan_that_any_process_can_release(
    ray_here: ClusterInfo, tmp_path: Path
) -> None:
    def loop(config: None, group: Group) -> None:
        group.report({"step": 1.0})
        time.sleep(600)

    class Caller:
        def train(self, pid_file: str, storage: str) -> None:
            def note(report: Report) -> None:
                Path(pid_file).write_text(str(os.getpid()))

            run_group(loop, None, workers=1, storage=Path(storage), name="orphan", on_report=note)

    caller: Any = ray.remote(Caller)
    pid_file = tmp_path / "pid"
    running = caller.options(num_cpus=0).remote().train.remote(str(pid_file), str(tmp_path))
    _wait_for(pid_file.exists)
    assert release_orphans() == 0  # a living group is nobody's orphan
    assert len(live_placement_groups()) == 1
    os.kill(int(pid_file.read_text()), signal.SIGKILL)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(running)
    _wait_for(lambda: release_orphans() + (live_placement_groups() == ()) > 0)
    assert live_placement_groups() == ()


def test_a_killed_worker_is_the_machines_fault(ray_here: ClusterInfo, tmp_path: Path) -> None:
    def loop(config: None, group: Group) -> None:
        group.report({"step": 1.0})
        time.sleep(2)  # the controller hears of it at its next poll, 0.2 s later
        os.kill(os.getpid(), signal.SIGKILL)

    begun: list[Sequence[str]] = []
    result = run_group(loop, None, workers=1, storage=tmp_path, name="killed", at=begun.append)
    assert result.fault is not None
    assert result.fault.owner == "machine"
    assert begun == [[this_node()]] == [list(result.fault.nodes)]
    assert result.metrics == {"step": 1.0}
    assert live_placement_groups() == ()


@pytest.mark.parametrize(
    ("workers", "gpus", "backend"),
    [(1, 0.0, "gloo"), (4, 0.0, "gloo"), (1, 1.0, "gloo"), (2, 0.5, "gloo"), (2, 1.0, "nccl")],
)
def test_nccl_sums_between_whole_gpus_only(workers: int, gpus: float, backend: str) -> None:
    assert backend_of(workers, gpus) == backend


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"workers": 1, "gpus_per_worker": -1.0}, "gpus_per_worker must not be negative, got -1.0"),
        ({"workers": 1, "storage": Path("relative")}, "storage must be an absolute folder"),
        ({"workers": 1, "name": "a/b"}, "name must be one path component"),
    ],
)
def test_what_makes_no_group_is_refused_at_once(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = {"storage": tmp_path, "name": "refused"} | arguments
    with pytest.raises(ValueError, match=message):
        run_group(lambda config, group: None, None, **settings)


def test_gloo_and_nccl_are_told_the_loopback_unless_the_user_has_named_a_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("socket.if_nameindex", lambda: [(1, "lo0"), (2, "en0")])  # as macOS has them
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "en0")
    keep_to_loopback()
    assert (os.environ.pop("GLOO_SOCKET_IFNAME"), os.environ["NCCL_SOCKET_IFNAME"]) == ("lo0", "en0")


def _wait_for(condition: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not come true within {seconds} s"
        time.sleep(0.1)
