"""The transcripts of a sweep as a page: every cell beside the one that others are held against."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import polars as pl

from analysis.cells import Cell, varying
from analysis.comparison import chosen_on_tune
from analysis.labels import label_with
from analysis.transcripts import Paired, Transcripts, Turn, shown_episodes, transcripts_page
from sweeps.frames import EPISODES_FILE
from sweeps.store import Store

PAGE = "transcripts.html"
TABLE = "transcripts.parquet"

BASELINES = ("bc", "filtered_bc", "sarsa")
"""The first of these that a sweep runs is what its cells are held against; else its first arm."""

AT_A_TIME = 64
"""Evaluations whose transcripts are in memory at once."""

_Said: TypeAlias = Mapping[tuple[str, int], Sequence[Turn]]
"""What was said, by trial and episode seed."""


def write_transcripts(store: Store, sweep: str, cells: Sequence[Cell], folder: Path) -> Path | None:
    """Write what every cell said beside what the baseline's best cell said; None where there is no such pair yet.

    The baseline's cell is the best on the tune scenes; it stands beside the best of all others.
    """
    finished = [cell for cell in cells if cell.seeds]
    if len(finished) < 2:
        return None
    trials = {
        (row["cell_id"], row["seed"]): row["trial_id"] for row in store.rows(sweep) if row["status"] == "finished"
    }
    arms = list(dict.fromkeys(cell.method for cell in finished))
    try:
        baseline = chosen_on_tune(finished, next((arm for arm in BASELINES if arm in arms), arms[0]))
    except ValueError:  # none of them has been played on the tune scenes yet
        return None
    best_other = max((cell for cell in finished if cell is not baseline), key=lambda cell: float(cell.returns.mean()))
    shown = varying(cells)
    pairs = [_Pair.of(cell, best_other if cell is baseline else baseline, trials) for cell in finished]
    said = _said(store, pairs)
    made = [_beside(store, pair, said, shown) for pair in pairs]
    path = folder / PAGE
    path.write_text(transcripts_page(f"What was said: {sweep}", made), encoding="utf-8", newline="\n")
    return path


def write_all(store: Store, sweep: str, folder: Path) -> Path:
    """Write every transcript of a sweep into one Parquet file: trial, arm, seed, episode, scene, return, transcript."""
    finished = [row for row in store.rows(sweep) if row["status"] == "finished"]
    frames = []
    for row in finished:
        stage = store.stage("evaluation", row["trial_id"])
        if stage is not None:
            frames.append(
                pl.scan_parquet(stage / EPISODES_FILE).select(
                    pl.lit(row["trial_id"]).alias("trial_id"),
                    pl.lit(row["arm"]).alias("arm"),
                    pl.lit(row["seed"]).alias("seed"),
                    "episode_seed", "scene", "return", "transcript",
                )
            )  # fmt: skip
    path = folder / TABLE
    pl.concat(frames).sink_parquet(path)
    return path


@dataclass(frozen=True)
class _Pair:
    """A cell and the one that it is held against.

    Attributes:
        cells: Both.
        trials: Of each, the evaluation of its first seed.
        episodes: How many episodes both have played.
        shown: Of the episodes that are shown, by seed, both returns.
    """

    cells: tuple[Cell, Cell]
    trials: tuple[str, str]
    episodes: int
    shown: Mapping[int, tuple[float, float]]

    @staticmethod
    def of(cell: Cell, other: Cell, trials: Mapping[tuple[str, int], str]) -> _Pair:
        common, first, second = np.intersect1d(
            cell.episode_seeds, other.episode_seeds, assume_unique=True, return_indices=True
        )
        returns = cell.returns[0][first], other.returns[0][second]
        of_seed = dict(zip(common.tolist(), zip(*(each.tolist() for each in returns), strict=True), strict=True))
        seeds = shown_episodes(returns[0] - returns[1], common)
        return _Pair(
            cells=(cell, other),
            trials=(trials[cell.cell_id, cell.seeds[0]], trials[other.cell_id, other.seeds[0]]),
            episodes=len(common),
            shown={seed: of_seed[seed] for seed in seeds},
        )


def _beside(store: Store, pair: _Pair, said: _Said, shown: Sequence[str]) -> Transcripts:
    own, others = pair.trials
    stage = store.stage("evaluation", own)
    return Transcripts(
        name=_name(pair.cells[0], shown),
        other=_name(pair.cells[1], shown),
        episodes=pair.episodes,
        paired=tuple(
            Paired(seed, returns, (said[own, seed], said[others, seed])) for seed, returns in pair.shown.items()
        ),
        place="" if stage is None else (stage / EPISODES_FILE).relative_to(store.folder).as_posix(),
    )


def _said(store: Store, pairs: Sequence[_Pair]) -> _Said:
    """What was said in the episodes that are shown. Whole files are read, a few of them at a time."""
    wanted = dict.fromkeys((trial, seed) for pair in pairs for trial in pair.trials for seed in pair.shown)
    of_trial = pl.DataFrame(list(wanted), schema={"trial_id": pl.String, "episode_seed": pl.Int64}, orient="row")
    trials = of_trial["trial_id"].unique(maintain_order=True).to_list()
    found: dict[tuple[str, int], list[Turn]] = {}
    for begin in range(0, len(trials), AT_A_TIME):
        played = store.episodes(trials[begin : begin + AT_A_TIME], columns=["episode_seed", "transcript"])
        kept = played.join(of_trial, on=["trial_id", "episode_seed"], how="semi")
        for trial, seed, transcript in kept.select("trial_id", "episode_seed", "transcript").iter_rows():
            found[trial, seed] = [(turn["by_agent"], turn["text"]) for turn in json.loads(transcript)]
    return found


def _name(cell: Cell, shown: Sequence[str]) -> str:
    return label_with(cell.method, cell.setting(shown))
