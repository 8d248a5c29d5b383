"""What a sweep takes of a cluster that is only described: GPU-hours, memory of a GPU, disk.

Hours are by what was measured, where this store has rows of the same model on the same kind of device, and else by
counting operations and dividing by a stated share of the GPU's peak. Both are said with an interval, and which it was.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from analysis.student import t_quantile
from cluster.shapes import GIB, Machine, Need, gpu_share, places, workers_that_fit
from ilql.language_model import context_length
from sweeps.job import Resources
from sweeps.machines import check_fits
from sweeps.plan import Remaining
from sweeps.rates import rates
from sweeps.reading import load_cut
from sweeps.sizes import FLOAT, Networks, networks_of
from sweeps.spec import TrialSpec
from sweeps.stages import canonical, cut_note, load_backbone
from sweeps.store import Store

PEAK = 19.5e12
"""FLOP/s of a GPU where the description names none: an A100's in float32, in which we train."""

CPU_PEAK = 50e9
"""FLOP/s of a CPU's core in float32, roughly."""

PROCESS_BYTES = 640 * 2**20
"""What a process takes of a GPU before it has networks: CUDA's context, and the libraries' workspaces. Stated."""

TRAINING_SHARE = (0.25, 0.10, 0.45)
"""Of the peak, while training: what is expected, the least, the most. Stated, not measured."""
EVALUATION_SHARE = (0.08, 0.02, 0.20)
"""Of the peak, while speaking token by token. Stated, not measured."""

EPISODE_BYTES = 600
"""A stored episode, where none was measured: its transcript and numbers, compressed."""


@dataclass(frozen=True)
class Hours:
    """An estimate with its interval.

    Attributes:
        expected: Hours.
        low: The least.
        high: The most.
        by: What it is an estimate by, in words.
    """

    expected: float
    low: float
    high: float
    by: str


@dataclass(frozen=True)
class Forecast:
    """What is left of a sweep, on a cluster.

    Attributes:
        trainings: To be done.
        evaluations: To be done.
        places: Jobs at a time.
        need: What each needs.
        hours: Device-hours: of GPUs where a job has some, else of CPUs.
        memory_bytes: The most that a training takes on one GPU, and the parts of it.
        gpu_bytes: What a GPU has; None where that is not said.
        cpus_per_gpu: CPUs there are for each GPU: a worker takes one.
        disk_bytes: What it adds to the store, by what it is.
    """

    trainings: int
    evaluations: int
    places: int
    need: Need
    hours: Hours
    memory_bytes: Mapping[str, int]
    gpu_bytes: int | None
    cpus_per_gpu: int
    disk_bytes: Mapping[str, int]

    def lines(self) -> list[str]:
        """The forecast in words."""
        device = "GPU" if self.need.gpus else "CPU"
        memory = sum(self.memory_bytes.values())
        parts = ", ".join(f"{name} {_gib(size)}" for name, size in self.memory_bytes.items())
        text = [
            f"{self.trainings} trainings and {self.evaluations} evaluations are to be done, "
            f"{self.places} jobs at a time ({self.need})",
            f"{device}-hours: {self.hours.expected:,.3g} ({self.hours.low:,.3g} to {self.hours.high:,.3g}), "
            f"{self.hours.by}",
            f"memory of a training, the largest, on each {device}: {_gib(memory)} ({parts})",
            f"disk: {_gib(sum(self.disk_bytes.values()))} "
            f"({', '.join(f'{name} {_gib(size)}' for name, size in self.disk_bytes.items())})",
        ]
        if self.need.gpus and self.gpu_bytes is not None:
            text.insert(3, self._fits(memory, self.gpu_bytes))
        return text

    def _fits(self, memory: int, gpu_bytes: int) -> str:
        share = gpu_share(memory, gpu_bytes)
        if share <= 1:
            share = max(share, 1 / max(1, self.cpus_per_gpu))
        if share > 1:
            return (
                f"that is more than {_gib(gpu_bytes)}, a GPU's; --micro-batch takes fewer dialogues at a time, "
                "--recompute keeps less of each; what is held all along must fit, "
                "of which --shard with --workers leaves each but a part of the blocks"
            )
        if share < self.need.gpus:
            several = f"--gpus-per-worker {share:.3g} lets {round(1 / share)} trainings share one"
            return f"a GPU has {_gib(gpu_bytes)}: {several}"
        return f"a GPU has {_gib(gpu_bytes)}"


def forecast(store: Store, remaining: Remaining, resources: Resources, machines: Sequence[Machine]) -> Forecast:
    """What is left of a sweep takes of a cluster.

    Args:
        store: Where its world, its tokens and its backbone are, and perhaps rows of the same model.
        remaining: What is to be done.
        resources: What a job uses.
        machines: The cluster.

    Raises:
        ValueError: Not one job fits.
    """
    need = resources.need
    check_fits(machines, need)
    resources = resources.with_workers(workers_that_fit(machines, need))
    need = resources.need
    sized = list(_sized(store, [*remaining.to_train, *remaining.to_play]))
    networks = {spec.weights_id: found for spec, found, _, _ in sized}
    lengths = {spec.weights_id: (longest, mean) for spec, _, longest, mean in sized}
    gpus = need.workers * need.gpus
    hours = _measured(store, remaining, need) or _counted(remaining, networks, lengths, _peak(machines, gpus))
    fit = places(machines, need)
    memory: dict[str, int] = {}
    for spec in remaining.to_train:
        parts = _memory(networks[spec.weights_id], spec, resources, lengths[spec.weights_id][0])
        if gpus:
            parts["CUDA itself"] = PROCESS_BYTES
        memory = max(memory, parts, key=lambda each: sum(each.values()))
    weights = [networks[spec.weights_id] for spec in remaining.to_train]
    checkpoint = max((each.stored_bytes() + FLOAT * 2 * each.trained for each in weights), default=0)
    return Forecast(
        trainings=len(remaining.to_train),
        evaluations=len(remaining.to_play),
        places=fit,
        need=need,
        hours=hours,
        memory_bytes=memory,
        gpu_bytes=min((m.gpu_bytes for m in machines if m.gpu_bytes is not None), default=None),
        cpus_per_gpu=min((int(m.cpus // m.gpus) for m in machines if m.gpus), default=1),
        disk_bytes={
            "weights": sum(each.stored_bytes() for each in weights),
            "episodes": EPISODE_BYTES * sum(spec.evaluation.episodes for spec in remaining.to_play),
            "checkpoints while it runs": 2 * checkpoint * min(fit, len(weights)),
        },
    )


def _sized(store: Store, specs: Sequence[TrialSpec]) -> Iterator[tuple[TrialSpec, Networks, int, float]]:
    """Trainings with their networks, and the longest and the mean dialogue that they read, in tokens."""
    models: dict[str, nn.Module] = {}
    known: dict[tuple[object, ...], Networks] = {}
    for spec in {spec.weights_id: spec for spec in specs}.values():
        if spec.backbone_key not in models:
            models[spec.backbone_key] = load_backbone(store, spec).to("meta")
        model = models[spec.backbone_key]
        _, train = canonical(spec)
        shape = (spec.method, spec.backbone_key, *(getattr(train, name, None) for name in _SHAPING))
        if shape not in known:
            known[shape] = networks_of(spec, model)
        cut_note(store, spec)  # tokenises, unless that is done
        tokens = store.stage("tokens", spec.tokens_key)
        assert tokens is not None
        cut, longest = load_cut(tokens), min(spec.train.max_tokens, context_length(model))
        yield spec, known[shape], longest, longest if cut is None else cut.mean_tokens


_SHAPING = ("double_q", "target_trunk", "separate_policy", "head_multiple", "start", "tau")
"""Hyperparameters on which the sizes of networks may depend."""


def _memory(networks: Networks, spec: TrialSpec, resources: Resources, longest: int) -> dict[str, int]:
    own = math.ceil(spec.train.batch_size / resources.workers)
    dialogues = min(own, resources.micro_batch or own)
    if resources.shard:
        running = {"blocks that run": networks.running_blocks_bytes()}
        networks = networks.on_each_of(resources.workers)
    else:
        running = {}
    whole = networks.memory_bytes(dialogues=dialogues, tokens=longest, recompute=resources.recompute)
    parts = {
        "weights": FLOAT * networks.trained,
        "gradients": FLOAT * networks.trained,
        "moments": 2 * FLOAT * networks.trained,
        "targets and others": FLOAT * networks.frozen,
    }
    return parts | {"activations": whole - sum(parts.values())} | running


def _counted(
    remaining: Remaining,
    networks: Mapping[str, Networks],
    lengths: Mapping[str, tuple[int, float]],
    peak: float,
) -> Hours:
    """By operations, at a stated share of a device's peak."""
    training = sum(
        spec.train.steps
        * networks[spec.weights_id].step_flops(dialogues=spec.train.batch_size, tokens=lengths[spec.weights_id][1])
        for spec in remaining.to_train
    )
    playing = sum(
        spec.evaluation.episodes * lengths[spec.weights_id][1] * networks[spec.weights_id].token_flops()
        for spec in remaining.to_play
    )

    def hours(training_share: float, evaluation_share: float) -> float:
        return float(training / training_share + playing / evaluation_share) / peak / 3600

    (train, least, most), (play, play_least, play_most) = TRAINING_SHARE, EVALUATION_SHARE
    return Hours(
        hours(train, play),
        hours(most, play_most),
        hours(least, play_least),
        f"by {training + playing:.2g} counted operations at a peak of {peak / 1e12:.3g} TFLOP/s, of which training "
        f"gets {train:.0%} ({least:.0%} to {most:.0%}) and playing {play:.0%} ({play_least:.0%} to {play_most:.0%}); "
        "nothing comparable was measured",
    )


def _peak(machines: Sequence[Machine], gpus: float) -> float:
    """FLOP/s of the slowest device that a training may get."""
    return min((m.gpu_flops for m in machines if m.gpu_flops is not None), default=PEAK) if gpus else CPU_PEAK


def _measured(store: Store, remaining: Remaining, need: Need) -> Hours | None:
    """By the rates of rows of the same model on the same kind of device; None unless there are three of each.

    Several workers are taken to hold no more device-hours together than one does alone.
    """
    found = rates(store, {spec.backbone_key for spec in (*remaining.to_train, *remaining.to_play)}, need)
    parts = [
        (sum(spec.train.steps for spec in remaining.to_train), found.steps),
        (sum(spec.evaluation.episodes for spec in remaining.to_play), found.episodes),
    ]
    expected = low = high = 0.0
    for todo, measured in parts:
        if not todo:
            continue
        if len(measured) < LEAST_ROWS:
            return None
        hours = [rate.device_seconds / 3600 for rate in measured]
        mean, error = statistics.fmean(hours), statistics.stdev(hours) / math.sqrt(len(hours))
        reach = float(t_quantile(0.975, len(hours) - 1)) * error
        expected += todo * mean
        low += todo * max(0.0, mean - reach)
        high += todo * (mean + reach)
    rows = f"{len(found.steps)} trainings and {len(found.episodes)} evaluations"
    return Hours(expected, low, high, f"by the rates of {rows} in this store, 95 % intervals of their means")


LEAST_ROWS = 3
"""So many rows are needed for an interval."""


def _gib(size: int) -> str:
    return f"{size / GIB:,.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:,.1f} MiB"
