"""A sweep's rows and episodes as files for other programs: Parquet for data frames, and runs for DeepCAVE."""

from __future__ import annotations

from pathlib import Path

from sweeps.deepcave import write_deepcave
from sweeps.references import score_range
from sweeps.store import Store


def write_rows(store: Store, sweep: str, folder: Path, *, deepcave: bool = False) -> list[Path]:
    """Write `runs.parquet`, a row per evaluation, and `episodes.parquet`, a row per episode without what was said.

    `analysis.runs.RunTable.from_parquet` reads such a folder, and so does every library of data frames.

    Args:
        store: Where the rows are.
        sweep: The sweep's name.
        folder: Where to; made if it does not exist.
        deepcave: Whether to write `deepcave/ARM/` too.

    Raises:
        ValueError: The sweep has no row yet.
        StoreError: Episodes are gone or damaged.
    """
    runs = store.runs(sweep)
    if runs.is_empty():
        raise ValueError(
            f"a sweep must have a finished, failed or stopped evaluation to be written, {sweep!r} has none"
        )
    finished = runs.filter(runs["status"] == "finished")["trial_id"].unique(maintain_order=True).to_list()
    episodes = store.episodes(finished, columns=["episode_seed", "scene", "return", "turns"] if finished else None)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "runs.parquet", folder / "episodes.parquet"]
    for path, frame in zip(paths, (runs, episodes), strict=True):
        frame.write_parquet(path)
    if deepcave:
        paths += write_deepcave(store.rows(sweep), score_range(store, sweep), folder / "deepcave")
    return paths
