"""The crash matrix in short: each victim once. All twelve cells, often, are `make crash`."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from matrix import PHASES, VICTIMS, cells

MATRIX = Path(__file__).with_name("matrix.py")


@pytest.mark.timeout(1200)
def test_each_victim_killed_once_leaves_nothing_lost_doubled_or_running(tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    done = subprocess.run(
        [sys.executable, MATRIX, "--kills", "4", "--seed", "1", "--sweep", "grid", "--out", out],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=1100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    results = [json.loads(line) for line in out.read_text().splitlines()]
    assert {result["victim"] for result in results} == {"driver", "worker", "node", "mlflow"}
    assert all(result["killed"] >= 1 and result["running"] for result in results)


def test_in_24_kills_each_cell_comes_twice_and_once_in_a_group_if_its_victim_may_be_of_one() -> None:
    drawn = [(victim, phase, grouped) for victim, phase, _, grouped in cells(24, random.Random(0))]
    expected = [
        (victim, phase, grouped)
        for victim in VICTIMS
        for phase in PHASES
        for grouped in ((False, False) if victim == "mlflow" else (False, True))
    ]
    assert sorted(drawn) == sorted(expected)
