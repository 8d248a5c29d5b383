"""Score stored transcripts under another reward: no policy runs, and nothing is trained.

Where an episode is one utterance, what it would have been paid under a reward of another world (a new pattern, a new
classifier, a function of one's own) follows from the stored text. What an evaluation is paid so is kept as a stage, by
the evaluation and the reward, so that it is computed once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import polars as pl

from analysis.report import Report, write_report
from analysis.runs import RunTable, by_arm
from ilql.hyperparameters import Value, make, unknown
from ilql.tasks import task_named
from sweeps.names import report_folder
from sweeps.reporting import INTERVAL_SEED
from sweeps.spec import TrialSpec, probe_key
from sweeps.stages import ensure_world, load_task
from sweeps.store import Store

VERSION = 1
"""Raised when a stored transcript would be read otherwise; part of the key of every score."""

RETURNS_FILE = "returns.npy"


@runtime_checkable
class Scoring(Protocol):
    """A task whose episodes are one utterance, that can be scored without being played."""

    def score(self, texts: Sequence[str], parents: Sequence[str | None], reward: str) -> list[float]:
        """What each text would earn after its parent, or as an opening."""


def rescore(
    store: Store,
    sweep: str,
    reward: str,
    *,
    settings: Mapping[str, Value],
    sources: Mapping[str, str],
    say: Callable[[str], None],
) -> Report:
    """The report of a sweep under another reward and world, under `<store>/reports/<sweep>-as-<reward>-<world>/`.

    Args:
        store: Where the transcripts are.
        sweep: The sweep's name.
        reward: The reward's name.
        settings: What the reward's world has otherwise than the sweep's own, by the name of its setting.
        sources: What it is built from, if that is to be read again.
        say: Told what building the world had to say.

    Raises:
        ValueError: There is no such sweep, nothing of it has finished, or the task's episodes are more than one
            utterance.
        KeyError: The world has no such reward or setting.
    """
    members = store.members(sweep)
    if not members:
        raise ValueError(f"a sweep must have finished runs to be scored anew, got {sweep!r} without any")
    spec = TrialSpec.from_json(str(members[0]["spec"]))
    world = _world(store, spec, settings, sources, say)
    task = load_task(store, spec.data.task, world)
    if not isinstance(task, Scoring):
        raise ValueError(f"stored transcripts can be scored anew where an episode is one utterance, got {task.name}")
    if reward not in task.rewards:
        raise KeyError(unknown(reward, f"reward of {task.name}", task.rewards))
    runs = store.runs(sweep)
    finished = runs.filter(pl.col("status") == "finished")["trial_id"].unique(maintain_order=True).to_list()
    if not finished:
        raise ValueError(f"a sweep must have finished runs to be scored anew, got {sweep!r} without any")
    parts = []
    for trial in finished:
        returns = np.load(_scored(store, task, trial, world, reward) / RETURNS_FILE, allow_pickle=False)
        episodes = store.episodes([trial], columns=["episode_seed", "scene", "turns"])
        parts.append(episodes.with_columns(pl.Series("return", returns)))
    episodes = pl.concat(parts)
    scores = episodes.group_by("trial_id").agg(pl.col("return").mean().alias("score"))
    anew = (
        by_arm(runs)
        .drop("score", "score_sd", "tune_score")
        .join(scores, on="trial_id", how="left", maintain_order="left")
        .with_columns(
            pl.lit(reward).alias("evaluation.reward"),
            pl.lit(world).alias("evaluation.world"),
            pl.lit(None, dtype=pl.Float64).alias("tune_score"),
        )
    )
    note = (
        f"Scored anew, from stored transcripts, by the reward {reward} of the world {world}; nothing was played again."
    )
    folder = report_folder(store.folder, f"{sweep}-as-{reward}-{world[:6]}")
    rng = np.random.default_rng(INTERVAL_SEED)
    return write_report(RunTable(anew, episodes), folder, rng=rng, notes=(note,))


def _world(
    store: Store,
    spec: TrialSpec,
    changed: Mapping[str, Value],
    sources: Mapping[str, str],
    say: Callable[[str], None],
) -> str:
    """Key of the world whose reward is asked for: the sweep's own, but for what is changed of it.

    Raises:
        ValueError: A world that was built from sources is changed, and these are not named again.
    """
    if not changed and not sources:
        return spec.evaluation.world
    kind = task_named(spec.data.task)
    about = (store.about("world", spec.evaluation.world) or {})["about"]
    if about["source"] and not sources:
        raise ValueError(
            "a world that was built from files must be given them again, --data and what else it read, got none"
        )
    settings = make(kind.settings, {**about["settings"], **changed}, owner=f"a {kind.name} world", prefix="world")
    world = ensure_world(store, kind, settings, sources)
    for note in world.notes:
        say(note)
    return world.key


def _scored(store: Store, task: Scoring, trial: str, world: str, reward: str) -> Path:
    """The stage of an evaluation's returns under the reward, in the order of its episodes."""

    def make(folder: Path) -> None:
        texts, parents = [], []
        for transcript in store.episodes([trial], columns=["transcript"])["transcript"]:
            turns = json.loads(transcript)
            own = [turn["text"] for turn in turns if turn["by_agent"]]
            heard = [turn["text"] for turn in turns if not turn["by_agent"]]
            texts.append(own[0] if own else "")
            parents.append(heard[0] if heard else None)
        np.save(folder / RETURNS_FILE, np.asarray(task.score(texts, parents, reward)), allow_pickle=False)

    key = probe_key("rescored", VERSION, trial, {"world": world, "reward": reward})
    return store.build("rescored", key, make, {"evaluation": trial, "reward": reward})
