"""Cells wanted, minus cells done: what a sweep will train, evaluate and cost, before it spends anything."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from analysis.text import count
from cluster.shapes import Need
from ilql.methods import method_named
from sweeps.cells import Shared
from sweeps.exact_json import Record
from sweeps.provenance import method_digests
from sweeps.rates import devices, rates
from sweeps.refinement import Refinement
from sweeps.space import PlannedTraining
from sweeps.spec import TrialSpec
from sweeps.store import DROPPED, Store

REASONS = 3
"""Of the reasons of what had failed so many are named."""


@dataclass(frozen=True)
class Plan:
    """The work of a sweep's design, and of its refinement as far as it is known.

    Attributes:
        trainings: Weights wanted, the behaviour policy included.
        trained: How many of them are there, or were and are not needed any more.
        dropped: How many of these were dropped since; they are made again where something new needs them.
        evaluations: Evaluations wanted, on the tune and on the report scenes.
        evaluated: How many of them are recorded.
        cells: Cells of the design.
        proposals: Trainings the refinement will add; each is found again if its weights are there.
        seconds: What is left of the design takes about so long, one job at a time, by what was recorded before in this
            store; None where nothing comparable was.
        failed: How many of what is to be done had failed before, by the reason.
        other_text: Of the trainings that are there, those that another text of their method's file made than it has
            now, a line for each file.
    """

    trainings: int
    trained: int
    dropped: int
    evaluations: int
    evaluated: int
    cells: int
    proposals: int
    seconds: float | None
    failed: Mapping[str, int] = field(default_factory=dict)
    other_text: tuple[str, ...] = ()

    def lines(self, *, concurrent: int) -> list[str]:
        """The plan in words."""
        left = self.trainings - self.trained, self.evaluations - self.evaluated
        text = [
            f"{count(self.cells, 'cell needs', 'cells need')} {count(self.trainings, 'training')} and "
            f"{count(self.evaluations, 'evaluation')}; "
            f"{self.trained} and {self.evaluated} are in the store, {left[0]} and {left[1]} are to be done"
        ]
        if self.failed:
            text.append(f"{sum(self.failed.values())} of these had failed and are tried again: {_most(self.failed)}")
        if self.dropped:
            text.append(f"{self.dropped} of the trainings had their weights dropped by `sweeps gc`; no row needs them")
        text += self.other_text
        if self.proposals:
            text.append(f"then {count(self.proposals, 'proposal')}, each a training and what it starts from")
        if left == (0, 0):
            text.append("the design costs nothing more")
        elif self.seconds is None:
            text.append("no estimate: of this very model, its size and its words, this store has no times yet")
        else:
            text.append(
                f"the design takes about {self.seconds / concurrent / 60:.1f} minutes with {concurrent} at a time"
            )
        return text


@dataclass(frozen=True)
class Remaining:
    """A design's trainings and evaluations, and those of them that are to be done.

    Attributes:
        wanted: A trial of all weights, by their key, those included that others start from.
        evaluations: All trials, by their key.
        to_train: Of `wanted`, those that are not there and are needed.
        to_play: Of `evaluations`, those that did not finish.
        dropped: Keys of weights that were there, were dropped, and are needed for nothing more.
        failed: The records of those of `to_train` and `to_play` that had failed.
        other_text: How many of the trainings that are there were made by another text of a file of their method than it
            has now, by method and file.
    """

    wanted: Mapping[str, TrialSpec]
    evaluations: Mapping[str, TrialSpec]
    to_train: Sequence[TrialSpec]
    to_play: Sequence[TrialSpec]
    dropped: frozenset[str] = frozenset()
    failed: Sequence[Record] = ()
    other_text: Mapping[tuple[str, str], int] = field(default_factory=dict)


def remaining(store: Store, shared: Shared, design: Sequence[PlannedTraining], *, seeds: int) -> Remaining:
    """Compare what a design needs with what the store has."""
    wanted: dict[str, TrialSpec] = {}
    evaluations: dict[str, TrialSpec] = {}
    for training in design:
        for seed in range(seeds):
            tune, report = shared.on_both(training, seed)
            for trial in (*tune, *report):
                wanted.setdefault(trial.weights_id, trial)
                evaluations.setdefault(trial.trial_id, trial)
    for trial in list(wanted.values()):
        for earlier in trial.required:
            wanted.setdefault(earlier.weights_id, earlier)
    recorded = store.some("evaluation", evaluations)
    to_play = [spec for key, spec in evaluations.items() if recorded.get(key, {}).get("status") != "finished"]
    missing = store.lacking("weights", wanted)
    known = store.all(DROPPED)
    dropped = {key for key in missing if key in known and store.dropped_weights(key) is not None}
    if dropped:
        dropped -= {spec.weights_id for trial in to_play for spec in (trial, *trial.required)}
    to_train = [wanted[key] for key in missing if key not in dropped]
    trained = store.some("training", wanted)
    left = [trained[spec.weights_id] for spec in to_train if spec.weights_id in trained]
    tried = [*left, *(recorded[spec.trial_id] for spec in to_play if spec.trial_id in recorded)]
    failed = [record for record in tried if record.get("status") == "failed"]
    there = wanted.keys() - {spec.weights_id for spec in to_train}
    other_text = Counter(
        (name, file)
        for key in there & trained.keys()
        for name, file in _of_another_text(wanted[key], trained[key].get("sources") or {})
    )
    return Remaining(wanted, evaluations, to_train, to_play, frozenset(dropped), failed, other_text)


def _of_another_text(spec: TrialSpec, sources: Mapping[str, object]) -> list[tuple[str, str]]:
    """A training's method and those of its files that had other digests when it was made; none where none is noted."""
    name, _ = spec.kind.trained_as(spec.train)
    now = method_digests(name)
    return [(name, file) for file, digest in sources.items() if file in now and now[file] != digest]


def make_plan(
    store: Store,
    shared: Shared,
    design: Sequence[PlannedTraining],
    *,
    seeds: int,
    refinement: Refinement | None,
    need: Need,
) -> Plan:
    """The work of a design, how much of it is done, and how long the rest takes of jobs with such a need."""
    found = remaining(store, shared, design, seeds=seeds)
    return Plan(
        trainings=len(found.wanted),
        trained=len(found.wanted) - len(found.to_train),
        dropped=len(found.dropped),
        evaluations=len(found.evaluations),
        evaluated=len(found.evaluations) - len(found.to_play),
        cells=len({trial.cell_id for trial in found.evaluations.values() if trial.evaluation == shared.report}),
        proposals=0 if refinement is None else refinement.total,
        seconds=_estimate(store, found.to_train, found.to_play, need),
        failed=dict(Counter(str(record.get("reason")).partition("\n")[0] for record in found.failed).most_common()),
        other_text=tuple(_other_text(*of, trainings) for of, trainings in sorted(found.other_text.items())),
    )


def _other_text(name: str, file: str, trainings: int) -> str:
    version = method_named(name).version
    numbers = (version,) if isinstance(version, int) else version
    return (
        f"{name}: {count(trainings, 'stored training')} {'was' if trainings == 1 else 'were'} made by another text of "
        f"{file} with the same version {numbers[-1]}; raise it if {'it' if trainings == 1 else 'they'} would learn "
        "otherwise"
    )


def _most(failed: Mapping[str, int]) -> str:
    """The most frequent reasons in words, each with how often it was one, and how many others there were."""
    shown = [f"{reason} ({runs} times)" if runs > 1 else reason for reason, runs in list(failed.items())[:REASONS]]
    others = [f"and {count(len(failed) - REASONS, 'other reason')}"] if len(failed) > REASONS else []
    return "; ".join([*shown, *others])


def _estimate(store: Store, to_train: Sequence[TrialSpec], to_play: Sequence[TrialSpec], need: Need) -> float | None:
    """Seconds by the mean cost of a step and of an episode with the same model; None if none is recorded.

    Several workers are taken to train as much faster as they are more.
    """
    found = rates(store, {spec.backbone_key for spec in (*to_train, *to_play)}, need)
    if (to_train and not found.steps) or (to_play and not found.episodes):
        return None
    seconds = 0.0
    if to_train:
        step = statistics.fmean(rate.device_seconds for rate in found.steps) / devices(need)
        seconds += step * sum(spec.train.steps for spec in to_train)
    if to_play:
        episode = statistics.fmean(rate.seconds for rate in found.episodes)
        seconds += episode * sum(spec.evaluation.episodes for spec in to_play)
    return seconds
