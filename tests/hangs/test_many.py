"""The long run that looks for hangs: what counts as bad, and that it leaves nothing when it is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from many import is_bad
from services import marked, wait_for

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    ("change", "bad"),
    [
        ({}, False),
        ({"status": None}, True),
        ({"status": 1}, True),
        ({"left": 2}, True),
        ({"rows": {"finished": 13}}, True),  # nothing was stopped early: what it is there for did not happen
    ],
)
def test_a_sweep_is_good_that_ends_well_leaves_nothing_and_has_stopped_somebody_early(
    change: dict[str, Any], bad: bool
) -> None:
    good = {"status": 0, "left": 0, "rows": {"finished": 10, "stopped": 3}}
    assert is_bad(good | change) is bad


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found in /proc, which Linux has")
def test_ended_from_outside_it_ends_its_sweeps(tmp_path: Path) -> None:
    path = os.pathsep.join((str(HERE.parents[1]), str(HERE.parent / "crash")))
    with subprocess.Popen(
        [sys.executable, HERE / "many.py", "--sweeps", "4", "--at-once", "2", "--out", tmp_path / "out.jsonl"],
        env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        begun = f"{process.pid}-0", f"{process.pid}-1-head"  # a sweep of its own Ray, and a head for the other
        wait_for(lambda: all(marked(mark) for mark in begun), 120, "two sweeps had begun")
        home = _home(marked(begun[0]).pop())
        assert home.is_dir()
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert [mark for number in range(4) for mark in _marks(process.pid, number) if marked(mark)] == []
    assert not home.exists()
    assert not (tmp_path / "out.jsonl").exists()
    assert "kept" not in said


def _marks(process: int, number: int) -> tuple[str, str]:
    return f"{process}-{number}", f"{process}-{number}-head"


def _home(sweep: int) -> Path:
    """Where a run keeps what its sweeps need: above the folder of one's Ray."""
    variables = Path(f"/proc/{sweep}/environ").read_bytes().decode().split("\0")
    (ray,) = (each.partition("=")[2] for each in variables if each.startswith("RAY_TMPDIR="))
    return Path(ray).parents[1]
