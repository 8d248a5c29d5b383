"""A trained policy as a model of MLflow's: loaded from there, it says what it says here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pandas as pd
import pytest

from sweeps.policy import load_policy
from sweeps.serving import log_policy
from sweeps.work import run_job

if TYPE_CHECKING:
    from conftest import Bench

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),  # of MLflow's own classes
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated:DeprecationWarning"),  # MLflow's own, too
]


@pytest.fixture(autouse=True)
def _environment_is_put_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize("method", ["bc", "ilql"])
def test_a_logged_policy_replies_as_the_stores_does(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    trial = bench.trial(method, decode={"greedy": True})
    assert run_job(bench.job(trial, trial), lambda numbers: None) == "finished"
    bench.store.put("member", "s/t", bench.member(trial))
    monkeypatch.chdir(tmp_path)  # where MLflow would leave files that it has no place for
    uri = log_policy(trial.trial_id, bench.store)
    assert list(tmp_path.iterdir()) == [bench.store.folder]
    assert mlflow.active_run() is None
    assert list(bench.store.folder.rglob("served_policy.py"))
    assert not list(bench.store.folder.rglob("*.pkl"))
    served = mlflow.pyfunc.load_model(uri)
    replies = served.predict(pd.DataFrame({"turns": [[{"text": "pull", "by_agent": False}]]}))
    assert replies == [load_policy(trial.trial_id, bench.store).reply([("pull", False)])]
