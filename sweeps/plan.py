"""Cells wanted, minus cells done: what a sweep will train, evaluate and cost, before it spends anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sweeps.cells import Setting
from sweeps.exact_json import Record
from sweeps.refinement import Refinement
from sweeps.space import Training
from sweeps.spec import TrialSpec
from sweeps.store import DROPPED, Store


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
        seconds: What is left of the design costs about this much on one worker, by what was recorded before in this
            store; None where nothing comparable was.
    """

    trainings: int
    trained: int
    dropped: int
    evaluations: int
    evaluated: int
    cells: int
    proposals: int
    seconds: float | None

    def lines(self, *, concurrent: int) -> list[str]:
        """The plan in words."""
        left = self.trainings - self.trained, self.evaluations - self.evaluated
        text = [
            f"{self.cells} cells need {self.trainings} trainings and {self.evaluations} evaluations; "
            f"{self.trained} and {self.evaluated} are in the store, {left[0]} and {left[1]} are to be done"
        ]
        if self.dropped:
            text.append(f"{self.dropped} of the trainings had their weights dropped by `sweeps gc`; no row needs them")
        if self.proposals:
            text.append(f"then {self.proposals} proposals, each a training and what it starts from")
        if left == (0, 0):
            text.append("the design costs nothing more")
        elif self.seconds is None:
            text.append("no estimate: nothing comparable was recorded in this store yet")
        else:
            text.append(
                f"the design takes about {self.seconds / concurrent / 60:.1f} minutes with {concurrent} at a time"
            )
        return text


def make_plan(
    store: Store,
    setting: Setting,
    design: Sequence[Training],
    *,
    seeds: int,
    refinement: Refinement | None,
) -> Plan:
    """Compare what a design needs with what the store has."""
    wanted: dict[str, TrialSpec] = {}
    evaluations: dict[str, TrialSpec] = {}
    cells: set[str] = set()
    for training in design:
        for seed in range(seeds):
            for split in ("tune", "report"):
                for trial in setting.trials(training, seed, split=split):
                    wanted.setdefault(trial.weights_id, trial)
                    evaluations.setdefault(trial.trial_id, trial)
                    if split == "report":
                        cells.add(trial.cell_id)
    for trial in list(wanted.values()):
        for earlier in trial.required:
            wanted.setdefault(earlier.weights_id, earlier)
    recorded = store.some("evaluation", evaluations)
    to_play = [spec for key, spec in evaluations.items() if recorded.get(key, {}).get("status") != "finished"]
    missing = [key for key in wanted if store.stage("weights", key) is None]
    known = store.all(DROPPED)
    dropped = {key for key in missing if key in known and store.dropped_weights(key) is not None}
    if dropped:
        dropped -= {spec.weights_id for trial in to_play for spec in (trial, *trial.required)}
    to_train = [wanted[key] for key in missing if key not in dropped]
    return Plan(
        trainings=len(wanted),
        trained=len(wanted) - len(to_train),
        dropped=len(dropped),
        evaluations=len(evaluations),
        evaluated=len(evaluations) - len(to_play),
        cells=len(cells),
        proposals=0 if refinement is None else refinement.total,
        seconds=_estimate(store, to_train, to_play),
    )


def _estimate(store: Store, to_train: Sequence[TrialSpec], to_play: Sequence[TrialSpec]) -> float | None:
    """Seconds by the mean cost of a step and of an episode with the same model; None if none is recorded."""
    models = {spec.backbone_key for spec in (*to_train, *to_play)}

    def finished(kind: str) -> list[Record]:
        return [r for r in store.all(kind).values() if r.get("status") == "finished" and r.get("backbone") in models]

    trainings = [record for record in finished("training") if record.get("train_seconds")]
    plays = finished("evaluation")
    step, episode = _rate(trainings, "train_seconds", "steps"), _rate(plays, "evaluate_seconds", "episodes")
    if (to_train and step is None) or (to_play and episode is None):
        return None
    steps: int = sum(spec.train.steps for spec in to_train)
    return (step or 0.0) * steps + (episode or 0.0) * sum(spec.evaluation.episodes for spec in to_play)


def _rate(records: Sequence[Record], cost: str, units: str) -> float | None:
    total: float = sum(float(record[units]) for record in records)
    spent: float = sum(float(record[cost]) for record in records)
    return spent / total if total else None
