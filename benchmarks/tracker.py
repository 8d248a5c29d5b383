"""What a logged step of 20 metrics costs the thread that trains: ours, beside 20 calls of `mlflow.log_metric`.

Our trainings do not talk to MLflow. A logged step appends one line to each of two files (`Curve`), one that is shown
while the training goes on and one that a resumed training goes on from, and reports its numbers to whoever runs the job
(`group.report`), who passes on one report a second. MLflow hears of it from the driver's process, which reads what was
appended (`Mirror`): no thread here waits for that. The other side is what a training script does with the library
itself: `mlflow.log_metric` for each metric, with the SQLite database that our mirror writes to, too, on the same disk.

A measurement of ours is a whole training without its steps: a first point, for which the files are written anew, and
all that follow, so a cost that grew with the curve would show. One line has as many points as a training of the
laptop's preset of the visual dialogue, the other as the longest of the paper's. What is not counted is the report a
second that goes on to Ray: it says that a job is alive, and a job that logs by MLflow needs it as much.
"""

from __future__ import annotations

import logging
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.measure import Benchmark, Line, alternately, seconds
from cluster.group import Group, GroupResult, Report, run_here
from sweeps.curve import Curve
from sweeps.presets import Preset
from sweeps.visdial_presets import LAPTOP, PAPER_SIZE

METRICS = 20
GOAL = 1 / 40
MEMORY = Path("/dev/shm")  # noqa: S108  # a place, not a file  # nosec B108
"""Where files are no disk's, if the system has such a place."""


def points_of(preset: Preset, method: str) -> int:
    """The points of a curve: the first step's, and one each `log_every` steps."""
    own = preset.methods.get(method, {})
    steps = own.get("train.steps", preset.base["train.steps"])
    assert isinstance(steps, int)
    return 1 + steps // preset.resources.log_every


def metrics_of(step: int) -> Mapping[str, float]:
    """Numbers with all their digits, as losses have."""
    draw = random.Random(step)
    return {f"metric_{place}": draw.random() for place in range(METRICS)}


def logged_by_us(folder: Path, points: int) -> float:
    """Seconds that a point takes the thread that trains, on the mean over a curve."""
    metrics = [metrics_of(step) for step in range(1, points + 1)]
    told: list[float] = []

    def loop(points: list[Mapping[str, float]], group: Group) -> None:
        curve = Curve(folder / "trajectory" / "curve.jsonl", live=folder / "weights" / "curve.jsonl")
        for step, own in enumerate(points, start=1):
            curve.add(step, own)
            group.report({"step": float(step), **own})

    def on_report(report: Report) -> None:  # as a job's: it looks whether its second is over
        if not told or time.monotonic() - told[-1] > 1.0:
            told.append(time.monotonic())
            dict(report.metrics)

    took = seconds(lambda: _finished(run_here(loop, metrics, on_report=on_report)))
    written = (folder / "weights" / "curve.jsonl").read_bytes()
    assert written.count(b"\n") == points
    assert written == (folder / "trajectory" / "curve.jsonl").read_bytes()
    for name in ("weights", "trajectory"):
        (folder / name / "curve.jsonl").unlink()
    return took / points


def _finished(result: GroupResult) -> None:
    assert result.fault is None


def logged_by_mlflow(folder: Path, steps: int) -> Callable[[], float]:
    """Measures the seconds that a step's metrics take with MLflow, on the mean over some steps of one run."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow  # noqa: PLC0415  loading it takes seconds

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = mlflow.create_experiment("benchmark", artifact_location=str(folder / "artefacts"))
    run_id = mlflow.MlflowClient().create_run(experiment).info.run_id
    done = 0

    def measure() -> float:
        nonlocal done
        mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
        metrics = [metrics_of(step) for step in range(done, done + steps)]

        def log() -> None:
            for step, own in enumerate(metrics, start=done):
                for name, value in own.items():
                    mlflow.log_metric(name, value, step=step)

        with mlflow.start_run(run_id=run_id):
            took = seconds(log)
        done += steps
        return took / steps

    return measure


def run(quick: bool) -> list[Line]:
    """A line for a curve of the laptop's preset, and one for the longest there is."""
    lengths = {
        "the laptop's preset": points_of(LAPTOP, "ilql"),
        "the paper's longest": points_of(PAPER_SIZE, "chai"),
    }
    rounds, steps = (2, 1) if quick else (7, 3)
    with tempfile.TemporaryDirectory() as disk, tempfile.TemporaryDirectory(dir=_memory()) as memory:
        other = logged_by_mlflow(Path(disk), steps)
        lines = []
        for name, points in lengths.items():
            counted = min(points, 100) if quick else points
            ours, theirs = alternately(lambda: logged_by_us(Path(disk), counted), other, rounds=rounds)  # noqa: B023
            lines.append((name, counted, ours, theirs))
        in_memory = logged_by_mlflow(Path(memory), steps)
        in_memory()
        without_disk = statistics.median(in_memory() for _ in range(rounds))
    return [_line(*line, without_disk) for line in lines]


def _memory() -> Path | None:
    return MEMORY if os.access(MEMORY, os.W_OK) else None


def _line(name: str, points: int, ours: tuple[float, ...], other: tuple[float, ...], without_disk: float) -> Line:
    share = statistics.median(ours) / without_disk
    return Line(
        name=f"seconds of a logged step of {METRICS} metrics on the thread that trains, curve of {points:,} ({name})",
        unit="s",
        ours=ours,
        other=other,
        other_is=f"{METRICS} calls of mlflow.log_metric, SQLite on the same disk",
        goal=GOAL,
        at_least=False,
        more_is_better=False,
        note="ours does not wait for the disk, MLflow's database does at every call; with the database in memory its "
        f"calls take {without_disk * 1e3:.1f} ms, and ours 1/{1 / share:,.0f} of that",
        details={"points": points, "other_in_memory_seconds": without_disk},
    )


BENCHMARK = Benchmark(
    name="tracker",
    question="What does a logged step of 20 metrics cost the thread that trains, beside 20 calls of MLflow?",
    run=run,
)
