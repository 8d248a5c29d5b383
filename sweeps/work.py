"""One job: train one set of weights unless it is there, then evaluate some cells on it, all in one model load.

A job runs in a worker, on whatever machine; it knows the store and nothing else. Whatever goes wrong in it that is its
own fault (divergence, a world that failed) becomes a record with a reason. A machine's fault ends the process; the job
is then done again elsewhere, and resumes.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch

from cluster.call import call
from cluster.faults import Fault, classify
from cluster.group import Group, Report, run_here
from cluster.shapes import Need
from cluster.workers import run_group
from ilql.checkpoint import WEIGHTS, save_gathered_weights, save_weights
from ilql.evaluate import Episode, Player, play
from ilql.sharding import all_finite
from ilql.train import Loop, TrainingInterrupted, train
from sweeps import advantages
from sweeps.curve import Curve
from sweeps.exact_json import Record
from sweeps.frames import EPISODES_FILE
from sweeps.journal import utc
from sweeps.leases import Lease, LeaseLostError
from sweeps.offline import estimated
from sweeps.provenance import code_digest, host, library_versions
from sweeps.redaction import without_secrets
from sweeps.spec import Evaluation, TrialSpec
from sweeps.stages import (
    build_module,
    canonical,
    drop_trajectory,
    ensure_candidates,
    load_behaviour,
    load_module,
    load_task,
    load_tokenizer_stage,
    load_tokens,
)
from sweeps.stopping import Asked, JobStopped
from sweeps.store import CURVE_FILE, Store

RECORD = "record"
"""In the notes of a stage of weights: its training's record, but for what came after."""

SECONDS_FILE = "seconds.txt"
"""In a trajectory's folder: what its training has taken so far, over all attempts that came to an end."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a job may use. Not part of any key: beyond rounding it decides no number, but for one exception.

    Where networks drop out, what is dropped depends on how a batch is cut into workers and micro-batches, as it does on
    a seed. A training's record says how it was cut.

    Attributes:
        workers: Processes that train together.
        gpus_per_worker: GPUs each of them is given.
        ray_train: Train in a Ray Train worker group even with one worker on a CPU.
        micro_batch: Dialogues per forward pass, for memory and less padding; 0 takes a worker's share whole.
        recompute: Make activations again in the backward pass instead of keeping them, for memory.
        shard: Let each worker hold but a part of every transformer block, for memory.
        checkpoint_every: Steps between checkpoints.
        log_every: Steps between points of the curve.
    """

    workers: int = 1
    gpus_per_worker: float = 0.0
    ray_train: bool = False
    micro_batch: int = 0
    recompute: bool = False
    shard: bool = False
    checkpoint_every: int = 100
    log_every: int = 10

    def __post_init__(self) -> None:
        least = {"workers": 1, "gpus_per_worker": 0, "micro_batch": 0, "checkpoint_every": 1, "log_every": 1}
        for name, low in least.items():
            if not low <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least {low}, got {getattr(self, name)}")
        if self.shard and self.workers < 2:
            raise ValueError(f"sharding needs at least 2 workers, got {self.workers}")
        if self.shard and 0 < self.gpus_per_worker < 1:
            raise ValueError(f"sharding needs a whole GPU for each worker, got {self.gpus_per_worker}")

    @property
    def in_group(self) -> bool:
        """True if trainings go through a Ray Train worker group."""
        return self.ray_train or self.workers > 1 or self.gpus_per_worker > 0

    @property
    def need(self) -> Need:
        """What a job needs of a cluster.

        Raises:
            ValueError: No cluster could give it: one GPU and a half.
        """
        return Need(workers=self.workers, gpus=self.gpus_per_worker) if self.in_group else Need()


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker is asked to do.

    Attributes:
        store: The store's folder.
        training: Any trial of the weights that are wanted, as JSON.
        evaluations: Trials on those weights, as JSON; those that are recorded are skipped.
        resources: What it may use.
        keep_trajectory: Keep the checkpoints: someone may want to train on from here.
        stop: The file whose being there asks it to stop, if anybody may ask.
    """

    store: str
    training: str
    evaluations: tuple[str, ...]
    resources: Resources
    keep_trajectory: bool = False
    stop: str | None = None


class MachineFault(RuntimeError):  # noqa: N818  a fault is whose it was, as in cluster.faults
    """A machine failed under work of ours that ran elsewhere."""


@functools.lru_cache(maxsize=2)
def opened_store(folder: str) -> Store:
    """The store, opened once by a process that does one job after another.

    Each opening begins a journal of its own and reads everybody's from their beginning: with one for every job, all
    readers would look at as many journals as there were jobs, and a job would read all that was ever recorded.
    """
    return Store(Path(folder))


Tell = Callable[[Mapping[str, float]], None]
"""Called now and then with numbers that say how far a job is."""


def run_job(job: Job, tell: Tell) -> str:
    """Do a job; returns the status of its training, `finished` or `failed`.

    It holds the lease on its trajectory, whose checkpoints and rows nobody else writes meanwhile: where another driver
    is at the same weights, this one waits and then finds what is done.

    Raises:
        MachineFault: See there; like everything a machine does to us, it is for whoever runs jobs to try again.
        LeaseLostError: This process was not heard of for so long that another one took the job over.
        JobStopped: It was asked to stop. A training that had begun is recorded as stopped; the job resumes.
    """
    asked = Asked(job.stop)

    def waiting() -> None:
        asked.check()
        tell({"waiting": 1.0})

    store, spec = opened_store(job.store), TrialSpec.from_json(job.training)
    with store.lease(spec.trajectory_id, waiting) as lease:
        try:
            return _run(job, store, spec, lease, tell)
        except (MachineFault, LeaseLostError, JobStopped):
            raise
        except Exception as error:
            fault = classify(error)
            if fault.owner == "machine":
                raise
            if store.stage("weights", spec.weights_id) is None:
                failed = {"status": "failed", "reason": without_secrets(str(fault))}
                store.put("training", spec.weights_id, _training(spec, failed, utc()), lease)
            else:
                trials = [trial for trial in _trials(job) if not is_evaluated(store, trial)]
                _record_failures(store, trials, str(fault), lease)
            return "failed"


def _trials(job: Job) -> list[TrialSpec]:
    return [TrialSpec.from_json(trial) for trial in job.evaluations]


def _run(job: Job, store: Store, spec: TrialSpec, lease: Lease, tell: Tell) -> str:
    if store.stage("weights", spec.weights_id) is None:
        if not _train(store, spec, job, lease, tell):
            return "failed"
    elif (store.get("training", spec.weights_id) or {}).get("status") != "finished":
        _record_found(store, spec, lease)
    missing = [trial for trial in _trials(job) if not is_evaluated(store, trial)]
    for evaluation in dict.fromkeys(trial.evaluation for trial in missing):
        block = [trial for trial in missing if trial.evaluation == evaluation]
        if job.resources.gpus_per_worker > 0:
            cells = Block(job.store, tuple(trial.to_json() for trial in block), lease, job.stop)
            done = call(evaluate_cells, cells, tell, gpus=job.resources.gpus_per_worker)
            if isinstance(done, Fault) and done.error == JobStopped.__name__:
                raise JobStopped(done.reason)
            if isinstance(done, Fault) and done.owner == "machine":
                raise MachineFault(str(done))
            if isinstance(done, Fault):
                _record_failures(store, block, str(done), lease)
        else:
            evaluate_cells(Block(job.store, tuple(trial.to_json() for trial in block), lease, job.stop), tell)
    if not job.keep_trajectory:
        drop_trajectory(store, spec)
    return "finished"


def is_evaluated(store: Store, trial: TrialSpec) -> bool:
    """True if the trial's evaluation is recorded as finished; one that failed is tried again."""
    record = store.get("evaluation", trial.trial_id)
    return record is not None and record["status"] == "finished"


def _train(store: Store, spec: TrialSpec, job: Job, lease: Lease, tell: Tell) -> bool:
    """Train, record how it ended; True if the weights are there now."""
    started, clock, before = utc(), time.monotonic(), _seconds_before(store, spec)

    def on_report(report: Report) -> None:
        tell(dict(report.metrics))

    if job.resources.in_group:
        result = run_group(
            train_loop,
            job,
            workers=job.resources.workers,
            gpus_per_worker=job.resources.gpus_per_worker,
            storage=store.scratch("group", spec.weights_id),
            name=spec.weights_id,
            on_report=on_report,
        )
    else:
        result = run_here(
            train_loop, job, storage=store.scratch("group", spec.weights_id), name=spec.weights_id, on_report=on_report
        )
    seconds = before + time.monotonic() - clock
    (store.scratch("trajectory", spec.trajectory_id) / SECONDS_FILE).write_text(repr(seconds), encoding="utf-8")
    finished = store.stage("weights", spec.weights_id) is not None
    reason = None if result.fault is None else without_secrets(str(result.fault))
    if not finished and result.fault is not None and result.fault.owner == "machine":
        raise MachineFault(reason)
    stopped = not finished and result.fault is None
    if stopped:
        reason = f"stopped by a signal at step {result.metrics.get('step', 0.0):.0f}; a rerun goes on from there"
    outcome: Record = {
        "status": "finished" if finished else "stopped" if stopped else "failed",
        "reason": reason,
        "train_seconds": seconds,
        "metrics": dict(result.metrics),
    }
    store.put("training", spec.weights_id, _training(spec, outcome | _cut(job.resources), started), lease)
    if stopped:
        raise JobStopped(reason)
    shutil.rmtree(store.scratch("group", spec.weights_id), ignore_errors=True)
    if not finished:
        drop_trajectory(store, spec)  # what failed by its own fault would fail from there again
    return finished


def _seconds_before(store: Store, spec: TrialSpec) -> float:
    """What earlier attempts at the weights took, and the training to a rung that goes on here."""
    file = store.scratch("trajectory", spec.trajectory_id) / SECONDS_FILE
    try:
        return float(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # the first attempt, or its writer was killed in it
        return 0.0


def _training(spec: TrialSpec, outcome: Record, started: str) -> Record:
    """The record of a training."""
    about = {"method": spec.method, "seed": spec.seed, "steps": spec.train.steps, "backbone": spec.backbone_key}
    return outcome | about | _provenance(started)


def _cut(used: Resources) -> Record:
    """How a training was cut, as its record says."""
    return {"workers": used.workers, "micro_batch": used.micro_batch, "gpus": used.workers * used.gpus_per_worker}


def _record_found(store: Store, spec: TrialSpec, lease: Lease) -> None:
    """Record a training that has finished, and whose process was killed before it could say so, as its stage has it."""
    notes = (store.about("weights", spec.weights_id) or {}).get("notes") or {}
    if RECORD in notes:
        store.put("training", spec.weights_id, notes[RECORD], lease)


def train_loop(job: Job, group: Group) -> None:
    """Train one set of weights as one worker of a group (of perhaps one), and build its stage.

    If it is asked to stop it returns without building it.
    """
    with contextlib.suppress(TrainingInterrupted, JobStopped):
        _train_through(job, group, Asked(job.stop))


def _train_through(job: Job, group: Group, asked: Asked) -> None:
    torch.set_num_threads(1)
    store, spec = opened_store(job.store), TrialSpec.from_json(job.training)
    started, clock, before = utc(), time.monotonic(), _seconds_before(store, spec)
    method, settings = canonical(spec)
    sequences = load_tokens(store, spec)

    def on_drawn(done: int) -> None:
        asked.check()
        group.report({"step": 0.0, "dialogues_drawn": float(done)})

    ensure_candidates(store, spec, on_drawn)
    module = build_module(store, spec)
    trajectory = store.scratch("trajectory", spec.trajectory_id)
    loop = Loop(
        device=torch.device(group.device),
        log_every=job.resources.log_every,
        checkpoint_every=job.resources.checkpoint_every,
        checkpoints=trajectory / "checkpoints",
        micro_batch=job.resources.micro_batch,
        recompute=job.resources.recompute,
        shard=job.resources.shard,
        rank=group.rank,
        workers=group.world_size,
        stop=asked,
    )
    pad = load_tokenizer_stage(store, spec).structural("pad")
    curve = Curve(trajectory / CURVE_FILE, live=store.scratch("weights", spec.weights_id) / CURVE_FILE)
    metrics: dict[str, float] = {}
    for progress in train(method, module, sequences, settings, pad=pad, seed=spec.seed, loop=loop):
        if group.rank == 0 and progress.metrics:
            curve.add(progress.step, progress.metrics)
        metrics = {"step": float(progress.step), **progress.metrics}
        group.report(metrics)
    # A step's loss is taken before its update: what the last one spoilt shows in the weights alone.
    if not all_finite(module):
        raise FloatingPointError("the training has diverged: its last step left weights that are not finite")
    if loop.shard:  # before the stage is built, which one worker does, and perhaps finds there
        save_gathered_weights(module, trajectory, write=group.rank == 0)
    if group.rank == 0:

        def make(folder: Path) -> Record:
            if loop.shard:
                shutil.move(trajectory / WEIGHTS, folder / WEIGHTS)
            else:
                save_weights(module, folder)
            curve.save(folder / CURVE_FILE)
            took = {"train_seconds": before + time.monotonic() - clock, "metrics": metrics}
            outcome = {"status": "finished", "reason": None, **took, **_cut(job.resources)}
            return {RECORD: _training(spec, outcome, started)}  # for who finds the weights and no record of them

        store.build("weights", spec.weights_id, make, {"spec": json.loads(spec.to_json())})


@dataclass(frozen=True)
class Block:
    """Trials that share weights and episodes.

    Attributes:
        store: The store's folder.
        trials: They, as JSON.
        lease: What their rows are written under, if anything.
        stop: The file whose being there asks to stop, if anybody may ask.
    """

    store: str
    trials: tuple[str, ...]
    lease: Lease | None = None
    stop: str | None = None


def evaluate_cells(block: Block, tell: Tell | None = None) -> None:
    """Play trials that share weights and episodes in one model load; record each of them.

    A world that fails is recorded as the reason of a failed evaluation; its episodes so far are no score.

    Args:
        block: Which.
        tell: Called now and then with the number of episodes finished.

    Raises:
        JobStopped: It was asked to stop; nothing of what was not finished is recorded.
    """
    torch.set_num_threads(1)
    store, specs, lease = opened_store(block.store), [TrialSpec.from_json(trial) for trial in block.trials], block.lease
    started, clock = utc(), time.monotonic()
    first = specs[0]
    task = load_task(store, first.data.task, first.evaluation.world)
    tokenizer = load_tokenizer_stage(store, first)
    module = load_module(store, first)
    behaviour = load_behaviour(store, first) if first.kind.needs_behaviour else None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    asked = Asked(block.stop)

    def on_episode(done: int) -> None:
        asked.check()
        if tell is not None:
            tell({"episodes": float(done)})

    try:
        played = play(
            task,
            first.evaluation.split,
            first.kind.actor(module, behaviour),
            tokenizer,
            [Player(spec.decode, spec.kind.manner(spec.train, spec.decode), spec.data.reward) for spec in specs],
            first.evaluation.seeds,
            device=device,
            on_episode=on_episode,
        )
    except (MemoryError, torch.OutOfMemoryError, JobStopped):
        raise  # the machine's fault, tried again; or no fault
    except Exception as error:  # noqa: BLE001  whatever it is, it is this row's reason
        _record_failures(store, specs, f"{type(error).__name__}: {classify(error).reason}", lease)
        return
    seconds = (time.monotonic() - clock) / len(specs)
    for spec, samples in zip(specs, played, strict=True):
        episodes, clock = samples, time.monotonic()
        if spec.evaluation.by == "fitted_q":
            if tell is not None:
                tell({"estimating": 1.0})
            try:
                actor = spec.kind.actor(module, behaviour)
                episodes = estimated(store, spec, task, actor, module, tokenizer, samples, device)
            except (ValueError, FloatingPointError) as error:  # a policy that cannot be judged so, or a fit that fails
                _record_failures(store, [spec], str(error), lease)
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
                "evaluate_seconds": seconds + time.monotonic() - clock,
                "backbone": spec.backbone_key,
                "gpus": float(device.type == "cuda"),
                **_provenance(started),
            },
            lease,
        )


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


def _record_failures(store: Store, trials: Sequence[TrialSpec], reason: str, lease: Lease | None) -> None:
    told = without_secrets(reason)  # a user's environment may have been told a password, and say it
    for trial in trials:
        store.put("evaluation", trial.trial_id, {"status": "failed", "reason": told, **_provenance(utc())}, lease)


def _provenance(started: str) -> Record:
    return {
        "started_at": started,
        "finished_at": utc(),
        "code_digest": code_digest(),
        "versions": library_versions(),
        "host": host(),
    }
