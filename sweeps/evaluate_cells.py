"""A job's second part: play trials that share weights and episodes in one model load, and record each of them."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch

from cluster.faults import classify
from cluster.redaction import without_secrets
from ilql.evaluate import Episode, Player, play
from sweeps import advantages
from sweeps.exact_json import Record
from sweeps.frames import EPISODES_FILE
from sweeps.job import Tell, asked_to_stop, opened_store
from sweeps.journal import utc
from sweeps.kept_episodes import KeptEpisodes
from sweeps.leases import Lease
from sweeps.offline import estimated
from sweeps.provenance import provenance
from sweeps.spec import Evaluation, TrialSpec
from sweeps.stages import load_behaviour, load_module, load_task, load_tokenizer_stage
from sweeps.stopping import JobStopped
from sweeps.store import Store


@dataclass(frozen=True)
class Block:
    """Trials that share weights and episodes.

    Attributes:
        store: The store's folder.
        trials: They, as JSON.
        gpus: GPUs that are reserved for them: a share, if others share it.
        lease: What their rows are written under, if anything.
        stop: The file whose being there asks to stop, if anybody may ask.
        remote: As a job has it.
    """

    store: str
    trials: tuple[str, ...]
    gpus: float = 0.0
    lease: Lease | None = None
    stop: str | None = None
    remote: str | None = None


def evaluate_cells(block: Block, tell: Tell | None = None) -> None:
    """Play trials that share weights and episodes in one model load; record each of them.

    Episodes that have ended are kept meanwhile (`sweeps.kept_episodes`): whoever goes on plays the others alone.
    A world that fails is recorded as the reason of a failed evaluation; its episodes so far are no score.

    Args:
        block: Which.
        tell: Called now and then with the number of episodes finished, or of a fit's steps while returns are estimated.

    Raises:
        JobStopped: It was asked to stop; what was not finished is not recorded, and its episodes are kept.
        StoreError: The store's copy does not answer.
    """
    torch.set_num_threads(1)
    store, specs = opened_store(block.store, block.remote), [TrialSpec.from_json(trial) for trial in block.trials]
    lease = block.lease
    with store.synced():  # it may have been done elsewhere
        _evaluate(store, specs, lease, block, tell)


def _evaluate(store: Store, specs: Sequence[TrialSpec], lease: Lease | None, block: Block, tell: Tell | None) -> None:
    started, clock = utc(), time.monotonic()
    first = specs[0]
    task = load_task(store, first.data.task, first.evaluation.world)
    tokenizer = load_tokenizer_stage(store, first)
    module = load_module(store, first)
    behaviour = load_behaviour(store, first) if first.kind.needs_behaviour else None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    asked, kept = asked_to_stop(store, block.stop), KeptEpisodes(store, specs, device)

    def lives(what: str, done: int) -> None:
        asked.check()
        if tell is not None:
            tell({what: float(done)})

    def on_episode(done: int) -> None:
        kept.note()
        lives("episodes", done)

    try:
        with kept:
            played = play(
                task,
                first.evaluation.split,
                first.kind.actor(module, behaviour),
                tokenizer,
                [Player(spec.decode, spec.kind.manner(spec.train, spec.decode), spec.data.reward) for spec in specs],
                first.evaluation.seeds,
                device=device,
                played=kept.played,
                on_end=kept.end,
                on_episode=on_episode,
            )
            if first.evaluation.by == "fitted_q":
                kept.note(now=True)  # what follows takes longer than playing did
    except JobStopped:
        raise
    except Exception as error:
        fault = classify(error)
        if fault.owner == "machine":
            raise
        record_failed_evaluations(store, specs, fault.cause, lease)
        kept.drop()
        return
    share = (time.monotonic() - clock) / len(specs)
    for spec, samples, before in zip(specs, played, kept.seconds, strict=True):
        episodes, clock = samples, time.monotonic()
        if spec.evaluation.by == "fitted_q":
            estimating = functools.partial(lives, "estimating")
            estimating(0)
            try:
                actor = spec.kind.actor(module, behaviour)
                episodes = estimated(store, spec, task, actor, module, tokenizer, samples, device, estimating)
            except (ValueError, FloatingPointError) as error:  # a policy that cannot be judged so, or a fit that fails
                record_failed_evaluations(store, [spec], classify(error).cause, lease)
                continue

        def make(target: Path, spec: TrialSpec = spec, episodes: list[Episode] = episodes) -> None:
            episodes_table(episodes, spec.evaluation).write_parquet(target / EPISODES_FILE)
            if spec.kind.values is not None:
                few = episodes[: advantages.EPISODES]
                spoken = advantages.advantages_of(spec, module, [e.transcript for e in few], tokenizer, device)
                advantages.write_advantages(spoken, [e.seed for e in few], target)

        store.build("evaluation", spec.trial_id, make, {"spec": json.loads(spec.to_json())})
        store.put(
            "evaluation",
            spec.trial_id,
            {"status": "finished", "reason": None, **summary(episodes, spec.evaluation)}
            | {
                "evaluate_seconds": before + share + time.monotonic() - clock,
                "backbone": spec.backbone_key,
                "workers": 1,
                "gpus": (block.gpus or 1.0) if device.type == "cuda" else 0.0,
                **provenance(started),
            },
            lease,
        )
    kept.drop()


def unevaluated(store: Store, trials: Sequence[TrialSpec], lease: Lease | None = None) -> list[TrialSpec]:
    """Those of the trials whose evaluation is not recorded as finished; what failed is tried again.

    Args:
        store: Where.
        trials: They.
        lease: As for `Store.some`.
    """
    found = store.some("evaluation", [trial.trial_id for trial in trials], lease)
    return [trial for trial in trials if found.get(trial.trial_id, {}).get("status") != "finished"]


def record_failed_evaluations(store: Store, trials: Sequence[TrialSpec], reason: str, lease: Lease | None) -> None:
    """Record evaluations that failed by their own fault."""
    told = without_secrets(reason)  # a user's environment may have been told a password, and say it
    for trial in trials:
        store.put("evaluation", trial.trial_id, {"status": "failed", "reason": told, **provenance(utc())}, lease)


def summary(episodes: Sequence[Episode], evaluation: Evaluation) -> Record:
    """Score, its standard deviation over episodes, and means of the diagnostics; shares are per utterance."""
    returns = np.asarray([episode.returns[evaluation.reward] for episode in episodes])
    utterances = sum(episode.turns for episode in episodes)
    measures = {
        "turns": utterances / len(episodes),
        "log_ratio": float(np.mean([episode.log_ratio for episode in episodes])),
        "empty_share": sum(episode.empty for episode in episodes) / utterances,
        "repeated_share": sum(episode.repeated for episode in episodes) / utterances,
        "broken_share": sum(episode.broken for episode in episodes) / utterances,
    }
    for name in episodes[0].measures:
        measures[name] = float(np.mean([episode.measures[name] for episode in episodes]))
    return {
        "score": float(returns.mean()),
        "score_sd": float(returns.std(ddof=1)) if len(returns) > 1 else None,
        "episodes": len(episodes),
        "measures": measures,
    }


def episodes_table(episodes: Sequence[Episode], evaluation: Evaluation) -> pl.DataFrame:
    """One row per episode: its seed, its return under every reward, its length, its transcript."""
    table = {
        "episode_seed": [e.seed for e in episodes],
        "scene": [e.scene for e in episodes],
        "return": [e.returns[evaluation.reward] for e in episodes],
        "turns": [e.turns for e in episodes],
        "log_ratio": [e.log_ratio for e in episodes],
        "empty": [e.empty for e in episodes],
        "repeated": [e.repeated for e in episodes],
        "broken": [e.broken for e in episodes],
        "transcript": [
            json.dumps([{"by_agent": t.by_agent, "text": t.text} for t in e.transcript.turns]) for e in episodes
        ],
    }
    columns = {f"return.{name}": [e.returns[name] for e in episodes] for name in episodes[0].returns}
    columns |= {f"measure.{name}": [e.measures[name] for e in episodes] for name in episodes[0].measures}
    return pl.DataFrame(table | columns)
