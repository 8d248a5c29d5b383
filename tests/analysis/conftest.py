"""Made-up rows with the shape of a sweep's, for tests and for looking at tables and figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pytest

from analysis.runs import RunTable


@dataclass(frozen=True)
class Run:
    """One evaluation to make rows of: what is not given is what most tests do not care about."""

    method: str
    returns: Sequence[float] = ()
    setting: dict[str, float] = field(default_factory=dict)
    seed: int = 0
    origin: str = "design"
    status: str = "finished"
    reason: str | None = None
    tune_score: float | None = None
    turns: Sequence[int] | None = None
    scenes: Sequence[str] | None = None
    first_episode: int = 0
    sweep: str = "s"
    measures: dict[str, float] = field(default_factory=dict)
    columns: dict[str, object] = field(default_factory=dict)

    @property
    def cell_id(self) -> str:
        return f"{self.method}({', '.join(f'{name}={value}' for name, value in sorted(self.setting.items()))})"

    @property
    def trial_id(self) -> str:
        return f"{self.cell_id}@{self.seed}"


def frames(runs: Sequence[Run]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The two frames a store would have written for these evaluations."""
    settings = sorted({name for run in runs for name in run.setting})
    measures = sorted({name for run in runs for name in run.measures})
    rows = []
    for run in runs:
        done = run.status == "finished"
        trained = ",".join(f"{k}={v}" for k, v in sorted(run.setting.items()) if k.startswith("train."))
        rows.append(
            {
                "sweep": run.sweep,
                "origin": run.origin,
                "method": run.method,
                "cell_id": run.cell_id,
                "trial_id": run.trial_id,
                "weights_id": f"{run.method}({trained})@{run.seed}",
                "seed": run.seed,
                "status": run.status,
                "reason": run.reason,
                "task": "visdial",
                "data.reward": "yn",
                "evaluation.reward": "yn",
                "evaluation.split": "report",
                "evaluation.episodes": 128,
                "score": float(np.mean(run.returns)) if done else None,
                "score_sd": float(np.std(run.returns)) if done else None,
                "tune_score": run.tune_score,
                "episodes": len(run.returns) if done else None,
                "train_seconds": 30.0,
                "evaluate_seconds": 5.0,
                "code_digest": "c0de",
                **{name: run.measures.get(name) for name in measures},
                **{name: run.setting.get(name) for name in settings},
                **run.columns,
            }
        )
    episodes = [
        {
            "trial_id": run.trial_id,
            "episode_seed": run.first_episode + index,
            "scene": run.scenes[index] if run.scenes else f"scene {run.first_episode + index}",
            "return": float(value),
            "turns": run.turns[index] if run.turns else 5,
        }
        for run in {run.trial_id: run for run in runs if run.status == "finished"}.values()
        for index, value in enumerate(run.returns)
    ]
    run_schema = dict.fromkeys(("score", "score_sd", "tune_score", *settings, *measures), pl.Float64)
    episode_schema = {
        "trial_id": pl.String,
        "episode_seed": pl.Int64,
        "scene": pl.String,
        "return": pl.Float64,
        "turns": pl.Int64,
    }
    return (
        pl.DataFrame(rows, schema_overrides={**run_schema, "episodes": pl.Int64}, infer_schema_length=None)
        if rows
        else frames([Run("bc", [1.0])])[0].clear(),
        pl.DataFrame(episodes, schema=episode_schema),
    )


def table(*runs: Run) -> RunTable:
    return RunTable(*frames(runs))


def realistic(seed: int = 0, *, seeds: int = 3, episodes: int = 256, failures: bool = True) -> RunTable:
    """A yes/no ablation of the size the laptop preset makes: four methods, a grid and a refinement.

    Returns are whole numbers between −30 and 0, scene effects are shared by all cells, replicates differ.
    """
    rng = np.random.default_rng(seed)
    scene = rng.normal(0, 2.2, episodes)
    means: list[tuple[str, dict[str, float], str, float]] = [("bc", {}, "design", -10.8)]
    means += [("filtered_bc", {"train.keep": k}, "design", m) for k, m in ((0.1, -8.4), (0.2, -7.5), (0.3, -8.0))]
    bonus = {4.0: -0.9, 8.0: 0.0, 16.0: -0.3, float("inf"): -1.6}
    for tau, base in ((0.5, -6.6), (0.7, -6.1), (0.8, -5.8), (0.9, -6.0)):
        for beta, extra in bonus.items():
            method = "sarsa" if tau == 0.5 else "ilql"
            own = {} if method == "sarsa" else {"train.tau": tau}  # SARSA has none
            means.append((method, own | {"train.gamma": 0.99, "decode.beta": beta}, "design", base + extra))
    for tau in (0.764, 0.823, 0.851):
        for beta in (4.0, 8.0, 16.0):
            setting = {"train.tau": tau, "train.gamma": 0.985, "decode.beta": beta}
            means.append(("ilql", setting, "refinement", -5.75 + bonus[beta]))
    runs = []
    for index, (method, setting, origin, mean) in enumerate(means):
        for replicate in range(1 if origin == "refinement" else seeds):
            shift = rng.normal(0, 0.25)
            returns = np.clip(np.round(mean + shift + scene + rng.normal(0, 2.0, episodes)), -30, 0)
            status, reason = "finished", None
            if failures and setting.get("train.tau") == 0.9 and setting["decode.beta"] == 16.0 and replicate < 3:
                status, reason = "failed", "the loss is not finite at step 180"
            if failures and origin == "refinement" and index == len(means) - 1:
                status, reason = "stopped", "below the median of step 200"
            runs.append(
                Run(
                    method,
                    returns.tolist() if status == "finished" else (),
                    setting,
                    seed=replicate,
                    origin=origin,
                    status=status,
                    reason=reason,
                    tune_score=float(returns.mean() + rng.normal(0, 0.2)) if status == "finished" else None,
                    turns=rng.integers(3, 11, episodes).tolist(),
                    measures={
                        "measure.turns": 6.5,
                        "measure.broken_share": float(rng.uniform(0, 0.04)),
                        "measure.repeated_share": float(rng.uniform(0, 0.08)),
                        "measure.final_rank": float(rng.uniform(20, 60)),
                    }
                    if status == "finished"
                    else {},
                )
            )
    return table(*runs)


@pytest.fixture
def run() -> type[Run]:
    return Run


@pytest.fixture
def make_table() -> Callable[..., RunTable]:
    return table


@pytest.fixture
def make_frames() -> Callable[[Sequence[Run]], tuple[pl.DataFrame, pl.DataFrame]]:
    return frames


@pytest.fixture(scope="session")
def sweep() -> RunTable:
    """A made-up sweep with failures, a stopped refinement and three seeds."""
    return realistic()
