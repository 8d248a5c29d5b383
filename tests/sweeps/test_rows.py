"""A sweep's rows for other programs: data frames, and runs that DeepCAVE opens."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from analysis.cells import cells_of
from analysis.figure_data import heat_map
from analysis.runs import RunTable
from sweeps import cli
from sweeps.deepcave import write_deepcave
from sweeps.run_tables import run_table
from sweeps.store import Store

if TYPE_CHECKING:
    from conftest import BanditSweep


def row(beta: float, *, tau: float = 0.5, score: float | None = 1.0, **more: Any) -> dict[str, Any]:
    """Give a row as the store has it."""
    return {
        "arm": "ilql", "cell_id": f"{tau} {beta}", "trial_id": f"{tau} {beta}", "seed": 0, "status": "finished",
        "score": score, "started_at": "2026-01-02T03:04:05Z", "finished_at": "2026-01-02T03:04:15Z",
        "train.steps": 100, "train.tau": tau, "decode.beta": beta, "decode.greedy": beta > 9, "backbone.model": None,
        **more,
    }  # fmt: skip


def written(folder: Path, rows: list[dict[str, Any]]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The two files of the one arm, a mapping for each line."""
    (place,) = write_deepcave(rows, (-9.0, 0.0), folder)
    space, trials = (
        list(csv.DictReader((place / name).read_text("utf-8").splitlines()))
        for name in ("configspace.csv", "trials.csv")
    )
    return space, trials


def test_the_space_has_what_varies(tmp_path: Path) -> None:
    space, _ = written(tmp_path, [row(1.0, tau=0.5), row(16.0, tau=0.9)])
    assert [(line["name"], line["type"], line["log"]) for line in space] == [
        ("decode.beta", "float", "True"),
        ("decode.greedy", "categorical", "False"),
        ("train.tau", "float", "False"),
    ]
    assert (space[0]["lower"], space[0]["upper"], space[0]["distribution"]) == ("1.0", "16.0", "uniform")
    assert (space[1]["item_0"], space[1]["item_1"], space[1]["default"]) == ("at False", "at True", "at False")


def test_an_infinite_value_makes_a_categorical_of_words(tmp_path: Path) -> None:
    space, trials = written(tmp_path, [row(4.0), row(8.0), row(math.inf)])
    assert space[0]["type"] == "categorical"
    assert [trial["decode.beta"] for trial in trials] == [space[0][f"item_{place}"] for place in range(3)]
    assert [trial["decode.beta"] for trial in trials] == ["at 4.0", "at 8.0", "at inf"]


def test_trials_begin_with_the_earliest_and_failed_ones_have_no_score(tmp_path: Path) -> None:
    rows = [
        row(4.0, started_at="2026-01-02T03:05:05Z", finished_at="2026-01-02T03:05:06Z"),
        row(8.0, score=None, status="failed", started_at=None, finished_at=None),
        row(8.0, score=-2.5),
    ]
    _, trials = written(tmp_path, rows)
    assert [(trial["status"], float(trial["end_time"]) - float(trial["start_time"])) for trial in trials] == [
        ("crashed", 0.0),
        ("success", 10.0),
        ("success", 1.0),
    ]
    metric = next(name for name in trials[0] if name.startswith("metric:"))
    # As DeepCAVE's converter looks for it.
    assert re.fullmatch(r"metric:(\w+) \[(-?\d+\.?\d*|[-+]inf); (-?\d+\.?\d*|[-+]inf)\] \((\w+)\)", metric)
    assert [trial[metric] for trial in trials] == ["", "-2.5", "1.0"]
    assert [(trial["config_id"], trial["budget"]) for trial in trials] == [("1", "100"), ("1", "100"), ("0", "100")]


def test_an_arm_in_which_nothing_varies_is_left_out(tmp_path: Path) -> None:
    assert write_deepcave([row(4.0), row(4.0)], (-9.0, 0.0), tmp_path) == []


def test_rows_and_episodes_are_what_statements_read(bandit_sweep: BanditSweep, tmp_path: Path) -> None:
    assert cli.main(["rows", str(bandit_sweep.store.folder), "-o", str(tmp_path), "--deepcave"]) == 0
    cells = cells_of(RunTable.from_parquet(tmp_path))
    scores = {run["cell_id"]: run["score"] for run in bandit_sweep.store.rows() if run["status"] == "finished"}
    assert {cell.cell_id: float(cell.returns.mean()) for cell in cells if cell.seeds} == pytest.approx(scores)
    assert (tmp_path / "deepcave" / "ilql" / "trials.csv").is_file()


def test_sarsa_has_its_row_of_the_grid_as_ilql_at_one_half(bandit_sweep: BanditSweep) -> None:
    runs = bandit_sweep.store.runs()
    taus = runs.filter(pl.col("method") == "ilql", pl.col("origin") == "design")["train.tau"].unique().to_list()
    assert heat_map(cells_of(run_table(bandit_sweep.store, runs["sweep"][0]))).taus == (0.5, *sorted(taus))


def test_a_sweep_without_rows_and_a_file_in_place_of_a_folder_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "store")
    store.put("sweep", "empty", {"created_at": "2026-01-02T03:04:05Z", "task": "bandit"})
    (tmp_path / "file").touch()
    for out, said in (("out", "'empty' has none"), ("file", "-o must name a folder, got the file")):
        assert cli.main(["rows", "empty", "--store", str(store.folder), "-o", str(tmp_path / out)]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert said in lines[0]
