"""The crash matrix in short: each victim once, the worker in a group, of a sweep that proposes nothing.

All twelve cells, often, of one that proposes and stops at rungs, are `make crash`.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from matrix import PHASES, VICTIMS, cells, hold
from running import Sweep

MATRIX = Path(__file__).with_name("matrix.py")


SEED = 207
"""Of it the worker is killed while it trains, the node while it plays, the driver and MLflow's server in the report."""


ENVIRONMENT = {"OMP_NUM_THREADS": "1", "BROWSER_PATH": "/nowhere/chromium"}
"""No browser: drawing figures is most of what a report takes, and nine are written. `make crash` has them drawn."""


@pytest.mark.timeout(1200)
def test_each_victim_killed_once_leaves_nothing_lost_doubled_or_running(tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    done = subprocess.run(
        [sys.executable, MATRIX, "--sweep", "grid", "--kills", "4", "--seed", str(SEED), "--out", out],
        env=os.environ | ENVIRONMENT, capture_output=True, text=True, timeout=1100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    results = [json.loads(line) for line in out.read_text().splitlines()]
    assert {(result["victim"], result["phase"], result["grouped"]) for result in results} == {
        ("driver", "report", False), ("worker", "training", True), ("node", "evaluation", False),
        ("mlflow", "report", False),
    }  # fmt: skip
    for what in ("killed", "running", "held_before", "held_after"):
        assert all(result[what] for result in results), done.stdout


def test_in_24_kills_each_cell_comes_twice_and_once_in_a_group_if_its_victim_may_be_of_one() -> None:
    strikes = cells(24, random.Random(0), reporting=5.0)
    drawn = [(strike.victim, strike.phase, strike.grouped) for strike in strikes]
    expected = [
        (victim, phase, grouped)
        for victim in VICTIMS
        for phase in PHASES
        for grouped in ((False, False) if victim == "mlflow" else (False, True))
    ]
    assert sorted(drawn) == sorted(expected)


@pytest.mark.parametrize(
    ("ended", "reports"),
    [
        (["finished", "stopped"], True),
        (["finished"], False),  # the other is planned, and trains or plays
        (["finished", "failed"], False),
        ([], False),
    ],
)
def test_a_sweep_is_in_its_report_once_every_row_has_ended_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: list[str], reports: bool
) -> None:
    store = SimpleNamespace(rows=lambda name: [{"status": each} for each in ended], members=lambda: [{}, {}])
    monkeypatch.setattr("running.opened", lambda folder: store)
    (tmp_path / "store.json").touch()
    assert Sweep(tmp_path, (), 2, "mark", "uri", ray=tmp_path).reports() is reports


def test_many_kills_in_trainings_that_had_nothing_to_lose_are_no_proof() -> None:
    kill = {"victim": "worker", "phase": "training", "broken": None, "lost_steps": 0}
    assert hold([kill] * 3)
    assert not hold([kill] * 4)
    assert hold([*[kill] * 4, kill | {"lost_steps": 20}])
    assert not hold([kill | {"broken": "a promise"}])
    assert not hold([])
