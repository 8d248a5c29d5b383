"""A job's first part: train one set of weights, and record how that ended.

What a training says of itself stands beside its weights, from the moment they are there; its record is a copy of that
(`record_found`). So a process that is killed between the two loses nothing. One that was stopped or failed in its loop
is recorded here, too, with what it took; one that failed before that by `sweeps.work`, with its reason; one whose
machines failed, or what it starts from, by the driver (`sweeps.schedule`).
"""

from __future__ import annotations

import functools
import json
import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from cluster.faults import classify
from cluster.group import Group, Report, run_here
from cluster.redaction import without_secrets
from cluster.workers import run_group
from ilql.checkpoint import WEIGHTS, Hold, save_gathered_weights, save_weights
from ilql.held_out import loss_on
from ilql.sharding import all_finite
from ilql.train import Loop, TrainingInterrupted, train
from sweeps.curve import HELD_OUT_LOSS, Curve
from sweeps.exact_json import Record
from sweeps.job import Job, MachineFault, Placed, Resources, Tell, asked_to_stop, elsewhere, opened_store
from sweeps.journal import utc
from sweeps.leases import Lease
from sweeps.provenance import method_digests, provenance
from sweeps.spec import TrialSpec
from sweeps.stages import (
    build_module,
    canonical,
    drop_group_notes,
    drop_trajectory,
    ensure_candidates,
    lacks_candidates,
    load_held_out,
    load_tokenizer_stage,
    load_tokens,
)
from sweeps.stopping import JobStopped
from sweeps.store import CURVE_FILE, Store, StoreError

RECORD = "record"
"""In the notes of a stage of weights: its training's record."""

SECONDS_FILE = "seconds.txt"
"""In a trajectory's folder: what its training has taken so far, over all attempts."""

NOTED_SECONDS = 10.0
"""How often that is written."""

HELD_OUT = 64
"""Dialogues of the tune split, at most, on which the loss is asked for."""

HELD_OUT_POINTS = 10
"""How often that is in a training, about: by count less than a hundredth of a thousand steps of 32 dialogues."""

SENT_SECONDS = 60.0
"""How often checkpoints are sent where machines share no folder: a training waits while they are."""

HEARTBEAT_SECONDS = 10.0
"""How often a training tells that it lives where what it logs is further apart, and a step takes no longer."""

SEEN_SECONDS = 90.0
"""How long weights built elsewhere may take to be seen here: longer than a folder of NFS is cached."""
LOOK_SECONDS = 0.5


def train_weights(store: Store, spec: TrialSpec, job: Job, lease: Lease, tell: Tell, placed: Placed) -> bool:
    """Train, record how it ended; True if the weights are there now.

    Raises:
        JobStopped: It was asked to stop; a rerun goes on from its checkpoint.
        LeaseLostError: Another process has followed this one at these weights.
        MachineFault: A machine failed under it.
    """
    started = utc()
    if lacks_candidates(store, spec):
        if not job.resources.in_group:
            draw(job, tell)
        elif (fault := elsewhere(draw, job, job.resources, tell, placed)) is not None:
            record_failed_training(store, spec, fault.cause, lease, started=started)
            return False

    logged: Record = {}

    def on_report(report: Report) -> None:
        if report.metrics.keys() > {"step"}:  # no mere sign of life
            logged.clear()
            logged.update(report.metrics)
        tell(dict(report.metrics))

    if job.resources.in_group:
        drop_group_notes(store, spec)  # of an attempt that was killed: Ray Train would go on from them
        try:
            result = run_group(
                train_loop,
                Held(job, lease),
                workers=job.resources.workers,
                least_workers=job.resources.least_workers,
                gpus_per_worker=job.resources.gpus_per_worker,
                storage=store.scratch("group", spec.trajectory_id),
                name=spec.weights_id,
                on_report=on_report,
                at=placed,
            )
        finally:
            drop_group_notes(store, spec)
    else:
        result = run_here(train_loop, Held(job, lease), on_report=on_report)
    if result.fault is not None and result.fault.owner == "machine":
        raise MachineFault(without_secrets(str(result.fault)), result.fault.nodes)
    so_far: Record = {
        "train_seconds": _seconds_before(store, spec), "metrics": logged, **_divided(job.resources, result.workers)
    }  # fmt: skip
    if result.fault is not None:
        record_failed_training(store, spec, result.fault.cause, lease, started=started, so_far=so_far)
        drop_trajectory(store, spec)  # what failed by its own fault would fail from there again
        return False
    if result.metrics.get("stopped"):
        reason = f"stopped by a signal at step {result.metrics['step']:.0f}; a rerun goes on from there"
        outcome: Record = {"status": "stopped", "reason": reason}
        store.put("training", spec.weights_id, _record(spec, outcome | so_far, started), lease)
        raise JobStopped(reason)
    _wait_for_weights(store, spec)
    record_found(store, spec, lease)
    return True


def record_found(store: Store, spec: TrialSpec, lease: Lease) -> None:
    """Record a training whose weights are there, as what stands beside them says."""
    notes = (store.about("weights", spec.weights_id) or {}).get("notes") or {}
    if RECORD in notes:
        store.put("training", spec.weights_id, notes[RECORD], lease)


def record_failed_training(
    store: Store, spec: TrialSpec, reason: str, lease: Lease, *, started: str, so_far: Record | None = None
) -> None:
    """Record a training that failed by its own fault, with what is known of it until then."""
    outcome: Record = {"status": "failed", "reason": without_secrets(reason)}
    store.put("training", spec.weights_id, _record(spec, outcome | (so_far or {}), started), lease)


def _wait_for_weights(store: Store, spec: TrialSpec) -> None:
    """Wait until weights that a worker has built are seen here.

    Raises:
        MachineFault: They never are.
    """
    store.sync()
    deadline = time.monotonic() + SEEN_SECONDS
    while not store.has("weights", spec.weights_id):
        if time.monotonic() > deadline:
            raise MachineFault(f"the weights that a worker built are not seen here after {SEEN_SECONDS:.0f} s")
        time.sleep(LOOK_SECONDS)


def _seconds_before(store: Store, spec: TrialSpec) -> float:
    """What earlier attempts at the weights took, and the training to a rung that goes on here."""
    file = store.scratch("trajectory", spec.trajectory_id) / SECONDS_FILE
    try:
        return float(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # the first attempt, or its writer was killed in it
        return 0.0


def _record(spec: TrialSpec, outcome: Record, started: str) -> Record:
    about = {"method": spec.method, "seed": spec.seed, "steps": spec.train.steps, "backbone": spec.backbone_key}
    return outcome | about | provenance(started) | {"sources": method_digests(canonical(spec)[0].name)}


def _divided(used: Resources, workers: int) -> Record:
    """Into how many parts a training was divided when it ended, as its record says."""
    return {"workers": workers, "micro_batch": used.micro_batch, "gpus": workers * used.gpus_per_worker}


# What workers do


@dataclass(frozen=True)
class Held:
    """A job whose training's trajectory is held.

    Attributes:
        job: It.
        lease: Looked at before a checkpoint or the weights are written: whoever followed us writes the same.
    """

    job: Job
    lease: Lease


def draw(job: Job, tell: Tell) -> None:
    """Draw the utterances that a training needs.

    Raises:
        JobStopped: It was asked to stop; what was drawn is lost.
    """
    store = opened_store(job.store, job.remote)
    asked = asked_to_stop(store, job.stop)

    def on_dialogue(done: int) -> None:
        asked.check()
        tell({"dialogues_drawn": float(done)})

    ensure_candidates(store, TrialSpec.from_json(job.training), on_dialogue)


def train_loop(held: Held, group: Group) -> None:
    """Train one set of weights as one worker of a group (of perhaps one), and build its stage.

    If it is asked to stop it says so in its last report, and returns without building it.

    Raises:
        LeaseLostError: Another process has followed this one at these weights.
    """
    torch.set_num_threads(1)
    job, lease = held.job, held.lease
    store, spec = opened_store(job.store, job.remote), TrialSpec.from_json(job.training)
    try:
        ended = _train(store, spec, job, lease, group)
    except Exception as error:
        if not store.is_of(lease) and classify(error).owner == "program":  # it would fail from there again
            store.drop_scratch("trajectory", spec.trajectory_id)
        raise
    if ended and not store.is_of(lease) and not job.keep_trajectory:  # else whoever holds the lease does it
        store.drop_scratch("trajectory", spec.trajectory_id)


def _train(store: Store, spec: TrialSpec, job: Job, lease: Lease, group: Group) -> bool:
    """Do it; False if it was asked to stop."""
    started = utc()
    method, settings = canonical(spec)
    sequences = load_tokens(store, spec)
    module = build_module(store, spec)
    store.fetch_scratch("trajectory", spec.trajectory_id)
    trajectory = store.scratch("trajectory", spec.trajectory_id)
    sent = _Sent(store, spec.trajectory_id, trajectory / "checkpoints")
    clock = _Clock(trajectory / SECONDS_FILE, before=_seconds_before(store, spec), writes=group.rank == 0)
    loop = Loop(
        device=torch.device(group.device),
        log_every=job.resources.log_every,
        checkpoint_every=job.resources.checkpoint_every,
        checkpoints=trajectory / "checkpoints",
        hold=Hold(spec.trajectory_id, lease.term, functools.partial(store.check, lease)),
        micro_batch=job.resources.micro_batch,
        recompute=job.resources.recompute,
        shard=job.resources.shard,
        rank=group.rank,
        workers=group.world_size,
        stop=asked_to_stop(store, job.stop),
        heartbeat_seconds=HEARTBEAT_SECONDS,
    )
    pad = load_tokenizer_stage(store, spec).structural("pad")
    held_out = load_held_out(store, spec, HELD_OUT) if loop.shard or group.rank == 0 else []
    curve = Curve(trajectory / CURVE_FILE, live=store.scratch("weights", spec.weights_id) / CURVE_FILE)
    step = 0.0
    try:
        for progress in train(method, module, sequences, settings, pad=pad, seed=spec.seed, loop=loop):
            metrics = dict(progress.metrics)
            if held_out and metrics and is_held_out_due(progress.step, settings.steps, loop.log_every):
                # Of workers that share one network's parts all must ask; of others one may.
                fits = loop.micro_batch or settings.batch_size
                loss = loss_on(method, module, held_out, settings, pad=pad, device=loop.device, at_once=fits)
                metrics |= {HELD_OUT_LOSS: loss} if loss is not None and math.isfinite(loss) else {}
            if group.rank == 0 and metrics:
                curve.add(progress.step, metrics)
            step = float(progress.step)
            clock.note()
            sent.send_if_due()
            group.report({"step": step, **progress.metrics})
    except TrainingInterrupted:
        clock.note(now=True)
        sent.send_if_due(now=True)
        group.report({"step": step, "stopped": 1.0})
        return False
    finally:
        clock.note(now=True)
    # A step's loss is taken before its update: what the last one spoilt shows in the weights alone.
    if not all_finite(module):
        raise FloatingPointError("the training has diverged: its last step left weights that are not finite")
    if loop.shard:  # before the stage is built, which one worker does, and perhaps finds there
        save_gathered_weights(module, trajectory, write=group.rank == 0)
    if job.keep_trajectory:
        sent.send_if_due(now=True)
    if group.rank == 0:
        store.check(lease)

        def make(folder: Path) -> Record:
            if loop.shard:
                shutil.move(trajectory / WEIGHTS, folder / WEIGHTS)
            else:
                save_weights(module, folder)
            curve.save(folder / CURVE_FILE)
            outcome: Record = {"status": "finished", "reason": None, "train_seconds": clock.seconds}
            outcome["metrics"] = curve.last()  # which a training that was resumed behind its last step has not made
            return {RECORD: _record(spec, outcome | _divided(job.resources, group.world_size), started)}

        store.build("weights", spec.weights_id, make, {"spec": json.loads(spec.to_json())})
        store.send_curve(spec.weights_id)
    return True


def is_held_out_due(step: int, last: int, log_every: int) -> bool:
    """Whether the loss on held-out dialogues is asked for at a step that is logged: about `HELD_OUT_POINTS` times."""
    every = log_every * max(1, round(last / (log_every * HELD_OUT_POINTS)))
    return step in (1, last) or step % every == 0


class _Sent:
    """What the store's copy has of a training's checkpoints, sent now and then: another machine may go on from them.

    Args:
        store: With or without a copy.
        trajectory_id: Of the training.
        checkpoints: Their folder.
    """

    def __init__(self, store: Store, trajectory_id: str, checkpoints: Path) -> None:
        self._store, self._trajectory_id, self._checkpoints = store, trajectory_id, checkpoints
        self._names: list[str] = []
        self._at = time.monotonic()

    def send_if_due(self, *, now: bool = False) -> None:
        """Send them if there are others than before, and it is due or `now`; what does not answer is asked next time.

        Raises:
            StoreError: They had to be sent now.
        """
        if self._store.replica is None or not (now or time.monotonic() - self._at >= SENT_SECONDS):
            return
        found = sorted(path.name for path in self._checkpoints.glob("[!.]*"))
        if found != self._names:
            self._at = time.monotonic()
            try:
                self._store.send_scratch("trajectory", self._trajectory_id)
            except StoreError:
                if now:
                    raise
            else:
                self._names = found


class _Clock:
    """What a training has taken, over all attempts, written down now and then.

    Args:
        file: Where.
        before: Seconds of the earlier attempts.
        writes: Whether this worker writes.

    Attributes:
        seconds: By the last note.
    """

    def __init__(self, file: Path, *, before: float, writes: bool) -> None:
        self.seconds = before
        self._file, self._writes, self._noted = file, writes, time.monotonic()

    def note(self, *, now: bool = False) -> None:
        """Note them, if that is due."""
        passed = time.monotonic() - self._noted
        if now or passed > NOTED_SECONDS:
            self._noted += passed
            self.seconds += passed
            if self._writes:
                self._file.parent.mkdir(parents=True, exist_ok=True)  # another sweep may have dropped the trajectory
                self._file.write_text(repr(self.seconds), encoding="utf-8")
