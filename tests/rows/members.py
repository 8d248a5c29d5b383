"""Records as a sweep puts them into its store, for tests that train and play nothing."""

from __future__ import annotations

from typing import Any


def member(sweep: str, trial_id: str, weights_id: str, **more: Any) -> dict[str, Any]:
    """Give the place of a bandit's cell in a sweep, with fields beside or in place of what it has; `columns` are added.

    It names no arm, so its method's row is its own.
    """
    columns = {"task": "bandit", "train.tau": 0.7, "decode.beta": 8.0, "data.reward": "win"}
    columns |= {"evaluation.reward": "win", "evaluation.split": "report", "evaluation.episodes": 4}
    return {
        "sweep": sweep,
        "trial_id": trial_id,
        "weights_id": weights_id,
        "cell_id": f"cell-{trial_id}",
        "method": "ilql",
        "origin": "design",
        "seed": 0,
        "split": "report",
        "columns": columns | more.pop("columns", {}),
        "tune_trial_id": None,
    } | more
