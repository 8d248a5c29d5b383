"""A machine whose memory is full: Ray kills workers, and a sweep ends with rows and words, or goes on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command_line import answered

from sweeps.schedule import TRIES
from sweeps.search import DIED, MEMORY
from sweeps.store import Store

if TYPE_CHECKING:
    from conftest import BanditSweep, Commands

pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).resolve().parents[2]

IMPATIENT = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from sweeps import bandit_ablation, schedule
from sweeps.commands.run import run_command

schedule.back_off_seconds = lambda losses: 0.1  # else it would wait for seven minutes
sys.exit(run_command(bandit_ablation.QUESTION, "bandit", sys.argv[1:]))
"""
RESULTS = ("trial_id", "status", "reason", "score", "tune_score")


def results(store: Store) -> dict[str, tuple[object, ...]]:
    return {row["trial_id"]: tuple(row.get(name) for name in RESULTS) for row in store.rows()}


def test_workers_that_are_always_killed_are_failed_rows_and_a_rerun_with_room_is_as_if_nothing_had_been(
    commands: Commands, bandit_sweep: BanditSweep, tmp_path: Path
) -> None:
    folder = tmp_path / "store"
    options = ("--preset", "smoke", "--store", str(folder), "--methods", "bc,sarsa", "--trials", "0", "--no-mlflow")
    # Any use of memory is too much of it: every worker is killed, as soon as it is looked at.
    process = commands.start("-c", IMPATIENT, *options, RAY_memory_usage_threshold="0.001")
    out, err = process.communicate(timeout=600)
    assert process.returncode == 1, out + err
    assert "Traceback" not in out + err
    assert "it is begun again in 0 s" in out
    store = Store(folder)
    # Ray reports a death as it finds it: of the task, if one had begun, or of its process.
    reasons = {row["reason"] for row in store.rows()}
    died = {f"{why}; tried {TRIES} times" for why in (MEMORY, DIED)}
    assert reasons & died
    assert {reason.removeprefix("its behaviour policy failed: ") for reason in reasons} <= died
    assert {row["status"] for row in store.rows()} == {"failed"}
    status, out = answered("bandit", *options)
    assert status == 0, out
    found = results(Store(folder))
    assert len(found) > 1
    assert found.items() <= results(bandit_sweep.store).items()
