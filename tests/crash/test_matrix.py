"""The crash matrix in short: each victim once. All twelve cells, often, are `make crash`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
