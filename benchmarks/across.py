"""Stratified bootstrap replicates of the interquartile mean a second, on 5 runs of 26 tasks, against rliable.

rliable does not import beside our libraries (it needs pandas below 3), so it runs in an environment of its own, named
by $RLIABLE_PYTHON: `python3 -m venv DIR && DIR/bin/pip install rliable 'arch<8' 'pandas<3'`, then DIR/bin/python. Both
are asked for the same matrix in turn. Before that their values are compared: point estimates of IQM, optimality gap,
probability of improvement and profile must agree to 12 digits, ends of intervals to what drawing leaves open.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import IO, Any

import numpy as np

from analysis.across import iqm, iqm_interval, optimality_gap, probability_of_improvement, profile
from benchmarks.measure import Benchmark, Line, alternately

RUNS, TASKS = 5, 26
DRAWS, QUICK_DRAWS = 10_000, 2_000
PEER = Path(__file__).with_name("across_peer.py")
THRESHOLDS = (-1.0, -0.5, 0.0, 0.5, 1.0)


def run(quick: bool) -> list[Line]:
    """Compare values, then measure.

    Raises:
        RuntimeError: $RLIABLE_PYTHON is not set.
        ValueError: A value of ours is not rliable's.
    """
    python = os.environ.get("RLIABLE_PYTHON")
    if not python:
        raise RuntimeError("rliable's own environment must be named by $RLIABLE_PYTHON: see benchmarks/across.py")
    draws = QUICK_DRAWS if quick else DRAWS
    rng = np.random.default_rng(0)
    matrix, second = rng.normal(size=(RUNS, TASKS)), rng.normal(0.2, 1.0, size=(RUNS, TASKS))
    columns, others = list(matrix.T), list(second.T)
    asked = {"scores": matrix.tolist(), "second": second.tolist(), "thresholds": THRESHOLDS, "draws": draws}
    with subprocess.Popen(
        [python, str(PEER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    ) as peer:
        assert peer.stdin is not None
        assert peer.stdout is not None
        lines = (peer.stdin, peer.stdout)
        theirs = _ask(lines, asked)
        ours = iqm_interval(columns, rng, draws=draws, widen=False)
        _same("IQM", ours.value, theirs["iqm"], 1e-12)
        _same("optimality gap", optimality_gap(columns), theirs["gap"], 1e-12)
        _same("improvement", probability_of_improvement(columns, others), theirs["improvement"], 1e-12)
        for mine, other in zip(profile(columns, np.array(THRESHOLDS)), theirs["profile"], strict=True):
            _same("profile", float(mine), other, 1e-12)
        open_to = 0.05 if quick else 0.02
        assert ours.low is not None
        assert ours.high is not None
        _same("lower end", ours.low, theirs["ends"][0], open_to)
        _same("upper end", ours.high, theirs["ends"][1], open_to)

        def our_side() -> float:
            begin = time.perf_counter()
            iqm_interval(columns, rng, draws=draws, widen=False)
            return draws / (time.perf_counter() - begin)

        mine, other_rates = alternately(
            our_side, lambda: draws / _ask(lines, asked)["seconds"], rounds=2 if quick else 5
        )
        peer.stdin.close()
    return [
        Line(
            name=f"bootstrap replicates of the IQM, {RUNS} runs × {TASKS} tasks",
            unit="replicates/s",
            ours=mine,
            other=other_rates,
            other_is="rliable, get_interval_estimates, in an environment of its own",
            goal=20.0,
            note=f"{draws:,} replicates a measurement; estimates agree to 12 digits, ends within {open_to}",
            details={"ours": [ours.low, ours.high], "rliable": theirs["ends"], "iqm": iqm(columns)},
        )
    ]


def _ask(lines: tuple[IO[str], IO[str]], asked: dict[str, Any]) -> dict[str, Any]:
    lines[0].write(json.dumps(asked) + "\n")
    lines[0].flush()
    answer: dict[str, Any] = json.loads(lines[1].readline())
    return answer


def _same(what: str, ours: float, theirs: float, tolerance: float) -> None:
    if not abs(ours - theirs) <= tolerance:
        raise ValueError(f"{what} must be rliable's {theirs} within {tolerance}, got {ours}")


BENCHMARK = Benchmark(
    name="across",
    question="How many bootstrap replicates a second across tasks, against rliable, and are the values the same?",
    run=run,
    long=True,
)
