"""Worker groups inside Ray Tune trials, as sweeps run them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from ray import tune

from cluster.connect import ClusterInfo
from cluster.group import Group
from cluster.placement import live_placement_groups
from cluster.workers import CALLER_RESOURCES, run_group

pytestmark = pytest.mark.timeout(240)


def test_two_trials_with_groups_end_one_after_the_other_and_leave_no_reservation(
    ray_here: ClusterInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_DISABLE_SIGINT_HANDLER", "1")  # it would stay behind and swallow a later Ctrl-C
    monkeypatch.setenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # they leave files open

    def loop(settings: dict[str, float], group: Group) -> None:
        for step in (1, 2):
            group.report({"loss": settings["tau"] * step, "step": step})

    def trial(settings: dict[str, float]) -> None:
        # Both CPUs: a group that were not given back would keep the second trial waiting until the time-out.
        name = f"train-{tune.get_context().get_trial_id()}"
        result = run_group(
            loop,
            settings,
            workers=2,
            storage=Path(storage),
            name=name,
            on_report=lambda report: tune.report(dict(report.metrics)),
        )
        if result.fault is not None:
            raise RuntimeError(str(result.fault))

    storage = str(tmp_path)
    tuner = tune.Tuner(
        tune.with_resources(trial, dict(CALLER_RESOURCES)),
        param_space={"tau": tune.grid_search([0.5, 0.75])},
        tune_config=tune.TuneConfig(max_concurrent_trials=1, metric="loss", mode="min"),
        run_config=tune.RunConfig(name="sweep", storage_path=storage, verbose=0),
    )
    results = tuner.fit()
    assert results.num_errors == 0
    losses = [(results[index].metrics or {})["loss"] for index in range(len(results))]
    assert sorted(losses) == [1.0, 1.5]  # tau x 2
    deadline = time.monotonic() + 10  # Tune gives its own trials' groups back a moment after the end
    while live_placement_groups() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert live_placement_groups() == ()
