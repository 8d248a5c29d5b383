"""However a sweep ends, no run of it is left running in MLflow, as far as that can be reached."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from command_line import ask
from mlflow import MlflowClient
from surrogate import without_ray

from cluster.watchdog import StuckError
from sweeps import cli, driving
from sweeps.leases import LeaseLostError
from sweeps.schedule import Schedule
from sweeps.tracking import EXPERIMENT

if TYPE_CHECKING:
    from conftest import BanditSweep

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def _without_ray() -> Iterator[None]:
    with without_ray():
        yield


def statuses(uri: str) -> set[str]:
    """What MLflow says of the sweep's runs and all below it; nothing while it has none."""
    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(EXPERIMENT)
    runs = [] if found is None else client.search_runs([found.experiment_id], max_results=1000)
    return {run.info.status for run in runs}


def when_it_runs(uri: str, then: Callable[[Schedule], None]) -> Callable[..., None]:
    """In place of a cluster: waits until MLflow has the sweep as running, and ends as told."""

    def run(schedule: Schedule, **_: object) -> None:
        deadline = time.monotonic() + 60
        while "RUNNING" not in statuses(uri):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        then(schedule)

    return run


def _stuck(schedule: Schedule) -> None:
    raise StuckError("nothing was reported")


def _full(schedule: Schedule) -> None:
    schedule.halted = "the store's disk must have room"


def _broken(schedule: Schedule) -> None:
    raise RuntimeError("Ray has ended")


def _interrupted(schedule: Schedule) -> None:
    raise KeyboardInterrupt


def _early(schedule: Schedule) -> None:
    """It ends before its plan is done."""


@pytest.mark.parametrize(
    ("then", "status"), [(_stuck, 1), (_full, 2), (_broken, RuntimeError), (_interrupted, 130), (_early, 1)]
)
def test_a_sweep_that_does_not_come_to_its_end_is_stopped_in_mlflow(
    then: Callable[[Schedule], None], status: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setattr(driving, "run_schedule", when_it_runs(uri, then))
    asked = ("--store", str(tmp_path / "store"), "--methods", "bc", "--trials", "0", "--tracking-uri", uri)
    if isinstance(status, int):
        assert ask(*asked) == status
    else:
        with pytest.raises(status):
            ask(*asked)
    assert statuses(uri) == {"KILLED"}


def _followed(schedule: Schedule) -> None:
    raise LeaseLostError("the sweep was taken over while its holder was not heard of")


def test_who_was_followed_ends_no_run_that_its_follower_keeps_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setattr(driving, "run_schedule", when_it_runs(uri, _followed))
    asked = ("--store", str(tmp_path / "store"), "--methods", "bc", "--trials", "0", "--tracking-uri", uri)
    assert ask(*asked) == 2
    assert capsys.readouterr().err == "error: the sweep was taken over while its holder was not heard of\n"
    assert statuses(uri) == {"RUNNING"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_report_leaves_no_run_running(
    number: signal.Signals,
    copied: BanditSweep,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setattr(driving, "run_schedule", when_it_runs(uri, lambda schedule: None))
    monkeypatch.setattr(Schedule, "is_over", True)
    monkeypatch.setattr(driving, "write_sweep_report", lambda *_, **__: signal.raise_signal(number))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert ask("--store", str(copied.store.folder), "--tracking-uri", uri) == 130
    assert capsys.readouterr().err == "stopped; the same command goes on from here\n"
    found = statuses(uri)
    assert "KILLED" in found  # the sweep itself; what was finished stays so
    assert "RUNNING" not in found


def test_evaluations_that_are_added_end_so_too(
    copied: BanditSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setattr(driving, "run_schedule", when_it_runs(uri, _broken))
    with pytest.raises(RuntimeError):
        cli.main(["eval", copied.name, "--store", str(copied.store.folder), "decode.beta=77", "--tracking-uri", uri])
    found = statuses(uri)
    assert "KILLED" in found
    assert "RUNNING" not in found
