"""The transcripts of a sweep as a page: every cell beside the one that others are held against."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from analysis.cells import Cell, varying
from analysis.comparison import chosen_on_tune
from analysis.labels import method_label
from analysis.transcripts import Paired, Transcripts, Turn, shown_episodes, transcripts_page
from sweeps.frames import EPISODES_FILE
from sweeps.store import Store

PAGE = "transcripts.html"
TABLE = "transcripts.parquet"

BASELINES = ("bc", "filtered_bc", "sarsa")
"""The first of these that a sweep runs is what its cells are held against; else its first arm."""


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
    made = []
    for cell in finished:
        other = best_other if cell is baseline else baseline
        made.append(_beside(store, cell, other, trials, shown))
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


def _beside(
    store: Store, cell: Cell, other: Cell, trials: Mapping[tuple[str, int], str], shown: Sequence[str]
) -> Transcripts:
    sides = [trials[each.cell_id, each.seeds[0]] for each in (cell, other)]
    at = [dict(zip(each.episode_seeds.tolist(), each.returns[0].tolist(), strict=True)) for each in (cell, other)]
    common = sorted(at[0].keys() & at[1].keys())
    seeds = shown_episodes([(at[0][seed] - at[1][seed], seed) for seed in common])
    said = [_said(store, trial, seeds) for trial in sides]
    stage = store.stage("evaluation", sides[0])
    return Transcripts(
        name=_name(cell, shown),
        other=_name(other, shown),
        episodes=len(common),
        paired=tuple(Paired(seed, (at[0][seed], at[1][seed]), (said[0][seed], said[1][seed])) for seed in seeds),
        place="" if stage is None else (stage / EPISODES_FILE).relative_to(store.folder).as_posix(),
    )


def _said(store: Store, trial: str, seeds: Sequence[int]) -> dict[int, list[Turn]]:
    played = store.episodes([trial], columns=["episode_seed", "transcript"])
    kept = played.filter(pl.col("episode_seed").is_in(list(seeds)))
    return {
        seed: [(turn["by_agent"], turn["text"]) for turn in json.loads(transcript)]
        for seed, transcript in kept.select("episode_seed", "transcript").iter_rows()
    }


def _name(cell: Cell, shown: Sequence[str]) -> str:
    setting = cell.setting(shown)
    return f"{method_label(cell.method)}, {setting}" if setting else method_label(cell.method)
