"""A sweep's rows and episodes as the run table that statements about it are made from."""

from __future__ import annotations

import polars as pl

from analysis.runs import RunTable, by_arm
from analysis.transfer import RETURN_PREFIX
from sweeps.doubts import doubts_of
from sweeps.store import Store
from sweeps.unlisted import unlisted


def run_table(store: Store, sweep: str, *, every_reward: bool = False, whole_cost: bool = False) -> RunTable:
    """A sweep's rows by arm, and what statements need of its episodes; transcripts stay on disk.

    Rows of a sweep that could not be played say in `doubt` why their estimates are not believed, where they are not.

    Args:
        store: Where they are.
        sweep: The sweep's name.
        every_reward: Whether episodes have their returns under every reward of the task, too.
        whole_cost: Whether to look for what the sweep took beyond its rows, too.

    Raises:
        ValueError: There is no such sweep.
    """
    runs = store.runs(sweep)
    if not runs.height:
        store.check_sweep(sweep)
    if "evaluation.by" in runs.columns and (doubts := doubts_of(store, sweep)):  # what was played has no such column
        runs = runs.with_columns(pl.Series("doubt", [doubts.get(trial) for trial in runs["trial_id"]], pl.String))
    finished = runs.filter(runs["status"] == "finished")["trial_id"].to_list()
    columns = ["episode_seed", "scene", "return", "turns"]
    if every_reward and finished:
        columns += [name for name in store.episodes(finished[:1]).columns if name.startswith(RETURN_PREFIX)]
    beyond = unlisted(store, sweep) if whole_cost else ()
    return RunTable(by_arm(runs), store.episodes(finished, columns=columns if finished else None), beyond)
