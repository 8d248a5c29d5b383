"""A machine whose memory is full: Ray kills workers, and a sweep ends with rows and words, or goes on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sweeps.store import Store

if TYPE_CHECKING:
    from conftest import BanditSweep, Commands

pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ("trial_id", "status", "reason", "score", "tune_score")


def results(store: Store) -> dict[str, tuple[object, ...]]:
    return {row["trial_id"]: tuple(row.get(name) for name in RESULTS) for row in store.rows()}


def test_workers_that_are_always_killed_are_failed_rows_and_a_rerun_with_room_is_as_if_nothing_had_been(
    commands: Commands, bandit_sweep: BanditSweep, tmp_path: Path
) -> None:
    options = ("--preset", "smoke", "--store", str(tmp_path / "store"), "--no-mlflow")
    # Any use of memory is too much of it: every worker is killed, as soon as it is looked at.
    process = commands.start(ROOT / "sweeps" / "bandit_ablation.py", *options, RAY_memory_usage_threshold="0.001")
    out, err = process.communicate(timeout=600)
    assert process.returncode == 1, out + err
    assert "Traceback" not in out + err
    assert "it is begun again" in out
    store = Store(tmp_path / "store")
    # Ray reports a death as it finds it: of the task, if one had begun, or of its process.
    reasons = {row["reason"] for row in store.rows()}
    died = {"its process was killed for want of memory, 3 times", "its process died 3 times"}
    assert reasons & died
    assert {reason.removeprefix("its behaviour policy failed: ") for reason in reasons} <= died
    assert {row["status"] for row in store.rows()} == {"failed"}
    done = commands.bandit(tmp_path / "store", "--no-mlflow")
    assert done.status == 0, done.out + done.err
    assert results(Store(tmp_path / "store")) == results(bandit_sweep.store)
