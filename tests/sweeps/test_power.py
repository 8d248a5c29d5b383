"""A plan says what the rows that are there make of its seeds and episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import polars as pl

from sweeps.power import power_of
from sweeps.store import Store

E = 20


class Rows:
    """A store's two frames: two trainings of one cell each, at `seeds` training seeds, all finished."""

    def __init__(self, seeds: int) -> None:
        rng = np.random.default_rng(0)
        self._returns = {f"{tau}@{s}": rng.normal(size=E) + tau for tau in (0.7, 0.8) for s in range(seeds)}

    def members(self, sweep: str) -> list[str]:
        return list(self._returns)

    def runs(self, sweep: str) -> pl.DataFrame:
        rows = [
            {
                "sweep": sweep, "origin": "design", "method": "ilql", "arm": "mine", "cell_id": trial.partition("@")[0],
                "trial_id": trial, "weights_id": trial, "seed": int(trial[-1]), "status": "finished", "reason": None,
                "task": "t", "data.reward": "r", "evaluation.reward": "r", "evaluation.split": "report",
                "evaluation.episodes": E, "score": float(returns.mean()), "tune_score": None, "episodes": E,
                "train_seconds": 60.0, "evaluate_seconds": 2.0, "code_digest": "c", "train.tau": float(trial[:3]),
            }
            for trial, returns in self._returns.items()
        ]  # fmt: skip
        return pl.DataFrame(rows)

    def episodes(self, trials: Sequence[str], columns: Sequence[str]) -> pl.DataFrame:
        return pl.DataFrame(
            [
                {"trial_id": t, "episode_seed": e, "scene": f"s{e}", "return": float(self._returns[t][e]), "turns": 1}
                for t in trials
                for e in range(E)
            ]
        ).select("trial_id", *columns)


def lines(seeds: int) -> list[str]:
    return power_of(cast("Store", Rows(seeds)), "mine", seeds=3, episodes=E)


def test_two_trainings_of_two_seeds_say_what_can_be_found_and_for_how_much() -> None:
    said = lines(2)
    assert said[0].startswith("noise of a difference, from 2 cells, 2 seeds and 20 episodes")
    assert said[1].startswith("two cells of 3 seeds and 20 episodes must differ by")
    # A training is 60 s, an episode 2 s / 20 = 0.1 s: three seeds of 20 episodes cost 186 s; nothing dearer is named.
    assert "cheapest for the same" in said[2]
    assert float(said[2].partition("about ")[2].split()[0]) <= 3.1


def test_nothing_is_said_with_one_seed_or_without_rows() -> None:
    assert lines(1) == []
    assert lines(0) == []
