"""The transcripts of a sweep: every cell beside the baseline's best one, and all of them in one file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from analysis.cells import cells_of
from analysis.runs import RunTable
from sweeps.transcripts import write_all, write_transcripts

if TYPE_CHECKING:
    from conftest import BanditSweep


def test_every_cell_stands_beside_cloning_and_cloning_beside_the_best(
    bandit_sweep: BanditSweep, tmp_path: Path
) -> None:
    store, sweep = bandit_sweep.store, bandit_sweep.name
    runs = store.runs(sweep)
    finished = runs.filter(runs["status"] == "finished")["trial_id"].to_list()
    episodes = store.episodes(finished, columns=["episode_seed", "scene", "return", "turns"])
    cells = cells_of(RunTable(runs, episodes))
    written = write_transcripts(store, sweep, cells, tmp_path)
    assert written is not None
    page = written.read_text(encoding="utf-8")
    beside = re.findall(r"<summary>(.*?) beside (.*?)<small>", page)
    assert len(beside) == sum(bool(cell.seeds) for cell in cells)
    assert {other for name, other in beside if not name.startswith("BC")} == {"BC"}
    # The gains in the heads of a cell's episodes are differences of what the store has.
    block = page.partition("<summary>")[2].partition("<small>")[2]
    cell = next(cell for cell in cells if cell.seeds)
    cloning = next(cell for cell in cells if cell.method == "bc")
    gains = {
        int(seed): float(gain.replace("−", "-"))
        for seed, gain in re.findall(r"<h3>Episode (\d+): ([+−][\d.]+)</h3>", block.partition("</details>")[0])
    }
    assert len(gains) == 20
    for seed, gain in gains.items():
        own = cell.returns[0][list(cell.episode_seeds).index(seed)]
        assert gain == own - cloning.returns[0][list(cloning.episode_seeds).index(seed)]
    (place,) = set(re.findall(r"all: (\S+?)</small>", block.partition("</summary>")[0]))
    assert pl.read_parquet(store.folder / place).height == len(cell.episode_seeds)


def test_all_of_them_are_in_one_file(bandit_sweep: BanditSweep, tmp_path: Path) -> None:
    store, sweep = bandit_sweep.store, bandit_sweep.name
    found = pl.read_parquet(write_all(store, sweep, tmp_path))
    finished = [row for row in store.rows(sweep) if row["status"] == "finished"]
    assert found.height == sum(row["episodes"] for row in finished)
    row = finished[0]
    own = found.filter(pl.col("trial_id") == row["trial_id"])
    assert own["return"].mean() == row["score"]
    assert all(json.loads(each) for each in own["transcript"])
