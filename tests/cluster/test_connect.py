"""Starting a cluster, joining one, and leaving things as they were."""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path

import pytest
import ray

from cluster.connect import ConnectOptions, available_cpus, connect, worker_environment
from cluster.placement import describe_cluster

pytestmark = pytest.mark.timeout(150)


def test_a_cluster_is_started_joined_from_within_and_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")  # a stranger's
    with connect(ConnectOptions(cpus=2, gpus=0)) as outer:
        assert (outer.started, outer.in_job, outer.nodes, outer.cpus, outer.gpus) == (True, False, 1, 2.0, 0.0)
        assert outer.state_api is not None
        assert urllib.request.urlopen(outer.state_api, timeout=10).status == 200  # noqa: S310  (our own loopback)
        assert os.environ["RAY_API_SERVER_ADDRESS"] == outer.state_api
        with connect(ConnectOptions()) as inner:
            assert (inner.started, inner.address, inner.state_api) == (False, outer.address, outer.state_api)
        assert ray.is_initialized()  # the inner block ended nothing
    assert not ray.is_initialized()
    assert os.environ["RAY_API_SERVER_ADDRESS"] == "http://127.0.0.1:1"


def _told() -> str | None:
    return os.environ.get("RAY_API_SERVER_ADDRESS")


def test_a_cluster_without_groups_runs_tasks_and_no_state_api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")  # a stranger's
    with connect(ConnectOptions(cpus=1, gpus=0, groups=False)) as info:
        assert (info.started, info.state_api) == (True, None)
        assert "RAY_API_SERVER_ADDRESS" not in os.environ
        assert ray.get(ray.remote(_told).remote()) is None
        assert describe_cluster().endswith("waiting: unknown (this Ray runs no State API)")
        with monkeypatch.context() as dead:
            dead.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
            assert describe_cluster().endswith("waiting: unknown (the State API does not answer: ServerUnavailable)")
    assert os.environ["RAY_API_SERVER_ADDRESS"] == "http://127.0.0.1:1"


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "ray://127.0.0.1:10001"])
def test_an_address_of_another_kind_is_refused_with_the_right_way(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ValueError, match=r"RAY_ADDRESS must be a cluster's host:port.*use `ray job submit`"):
        connect(ConnectOptions()).__enter__()


def test_a_ray_that_others_reach_is_not_joined_before_it_is_said_whether_it_asks_for_a_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE")
    with pytest.raises(ValueError, match=r"a Ray that other machines reach .*, got 192\.0\.2\.9:6379"):
        connect(ConnectOptions(address="192.0.2.9:6379")).__enter__()
    with pytest.raises(ConnectionError):  # on the loopback it may be left open
        connect(ConnectOptions(address="127.0.0.1:1")).__enter__()


def test_an_address_where_nothing_answers_is_one_line() -> None:
    with pytest.raises(ConnectionError, match=r"a Ray cluster must answer at 127.0.0.1:1"):
        connect(ConnectOptions(address="127.0.0.1:1")).__enter__()


def test_a_ray_that_is_not_up_in_time_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(**_: object) -> None:
        raise Exception("The current node timed out during startup. This could happen because")  # as Ray has it

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", late)
    with pytest.raises(ConnectionError, match=r"Ray must be up half a minute after it is started, it was not"):
        connect(ConnectOptions(cpus=1)).__enter__()


def test_workers_find_our_packages_before_what_was_on_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", f"/elsewhere{os.pathsep}{tmp_path}")
    packages = (tmp_path / "a", tmp_path / "b")
    for package in packages:
        package.mkdir()
    environment = worker_environment(ConnectOptions(packages=packages), state_api=None, local=True)
    assert environment["PYTHONPATH"] == f"{tmp_path}{os.pathsep}/elsewhere"
    assert "RAY_API_SERVER_ADDRESS" not in environment


def test_the_state_api_of_a_stranger_cannot_be_given_to_workers() -> None:
    options = ConnectOptions(worker_env={"RAY_API_SERVER_ADDRESS": "http://stranger:8265", "A": "b"})
    environment = worker_environment(options, state_api="http://127.0.0.1:23456", local=False)
    assert (environment["RAY_API_SERVER_ADDRESS"], environment["A"]) == ("http://127.0.0.1:23456", "b")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cpus": 0}, "cpus must be at least 1, got 0"),
        ({"gpus": -1}, "gpus must be at least 0, got -1"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"object_store_bytes": 1}, "object_store_bytes must be at least 80 MiB"),
        ({"packages": (Path("relative"),)}, "packages must be absolute folders that exist, got 'relative'"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConnectOptions(**options)  # type: ignore[arg-type]


def test_at_least_one_cpu_is_available() -> None:
    assert 1 <= available_cpus() <= (os.cpu_count() or 1)
