"""The cells of one sweep: the trials they are, their rows' places in the store, and what came of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ilql.hyperparameters import values_of
from sweeps.leases import Lease
from sweeps.space import PlannedTraining
from sweeps.spec import Backbone, Data, Evaluation, TrialSpec
from sweeps.store import Store


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What all trials of a sweep share: data, backbone, and what they are judged on.

    Attributes:
        data: What is learnt from.
        backbone: What it starts from.
        tune: The evaluation that settings are chosen on.
        report: The evaluation that tables score.
    """

    data: Data
    backbone: Backbone
    tune: Evaluation
    report: Evaluation

    def trials(self, training: PlannedTraining, seed: int, evaluation: Evaluation) -> list[TrialSpec]:
        """The training's cells at one seed, each to be judged so."""
        trials: list[TrialSpec] = []
        for decode in training.decodes:
            if trials:
                trials.append(trials[0].acting(decode, evaluation))
            else:
                decided = (training.method, self.data, self.backbone, training.train, seed)
                trials.append(TrialSpec(*decided, decode, evaluation))
        return trials

    def any_trial(self, design: Sequence[PlannedTraining]) -> TrialSpec:
        """A trial of the design, for what all of them share."""
        return self.trials(design[0], 0, self.tune)[0]

    def on_both(self, training: PlannedTraining, seed: int) -> tuple[list[TrialSpec], list[TrialSpec]]:
        """The training's cells at one seed on the tune scenes, and the same cells on the report scenes."""
        return self.trials(training, seed, self.tune), self.trials(training, seed, self.report)


class Cells:
    """The cells of one sweep in a store.

    A cell's row is found by its place, a `member` record that carries the columns; its result is looked up by the ids
    in it, and may be there for another sweep's sake.

    Args:
        store: Where rows are, and go.
        sweep: The sweep's name.
        shared: What all trials share.
        added: True for cells that no plan of the sweep has, and that stay in it nevertheless.

    Attributes:
        shared: As given.
        members: Keys of all rows that belong to the sweep as it is planned now.
    """

    def __init__(self, store: Store, sweep: str, shared: Shared, *, added: bool = False) -> None:
        self._store, self._sweep, self.shared = store, sweep, shared
        self._more: Mapping[str, Any] = {"added": True} if added else {}
        self.members: set[str] = set()

    def places(
        self, training: PlannedTraining, tune: Sequence[TrialSpec], report: Sequence[TrialSpec]
    ) -> dict[str, Mapping[str, Any]]:
        """The places of a training's cells at one seed, by their keys, from its trials on both blocks of scenes."""
        return {
            f"{self._sweep}/{trial.trial_id}": {
                "sweep": self._sweep,
                "trial_id": trial.trial_id,
                "weights_id": trial.weights_id,
                "cell_id": trial.cell_id,
                "method": trial.method,
                "arm": training.arm,
                "origin": training.origin,
                "seed": trial.seed,
                "split": trial.evaluation.split,
                "columns": trial.columns(),
                "tune_trial_id": chosen_on.trial_id,
                "spec": trial.to_json(),
                **self._more,
            }
            for trial, chosen_on in zip(report, tune, strict=True)
        }

    def put(self, places: Mapping[str, Mapping[str, Any]]) -> None:
        """Record the cells that are not recorded just so: a rerun adds nothing."""
        self.members |= places.keys()
        known = self._store.all("member")
        self._store.put_all("member", {key: place for key, place in places.items() if known.get(key) != place})

    def put_unplayed(
        self, training: PlannedTraining, reached: TrialSpec, *, status: str, reason: str, at: str | None = None
    ) -> None:
        """Rows, at the first seed, for cells that will have no evaluation.

        Args:
            training: What they would have been.
            reached: How far they were trained.
            status: How that ended.
            reason: Why.
            at: When, if that tells one failure from another.
        """
        record = self._store.get("training", reached.weights_id) or {}
        outcome = {"status": status, "reason": reason, "train_seconds": record.get("train_seconds")}
        outcome |= {} if at is None else {"finished_at": at}
        places = self.places(training, *self.shared.on_both(training, 0))
        self.put({key: {**place, **outcome} for key, place in places.items()})

    def are_finished(self, trials: Sequence[TrialSpec]) -> bool:
        """True if all of these were played to their end."""
        records = self._store.some("evaluation", [trial.trial_id for trial in trials])
        return all(records.get(trial.trial_id, {}).get("status") == "finished" for trial in trials)

    def tune_scores(self, trials: Sequence[TrialSpec]) -> dict[str, float]:
        """Mean returns on the tune scenes by decoding, of the trials that have one."""
        scores = {}
        varying = _varying([trial.decode for trial in trials])
        records = self._store.some("evaluation", [trial.trial_id for trial in trials])
        for trial in trials:
            record = records.get(trial.trial_id)
            if trial.evaluation == self.shared.tune and record is not None and record["status"] == "finished":
                scores[_name(trial.decode, varying)] = float(record["score"])
        return scores

    def failure(self, trials: Sequence[TrialSpec]) -> tuple[str, str | None]:
        """Why a training, or else the first of its trials that did, has failed; and when, if that is recorded."""
        records = [self._store.get("training", trials[0].weights_id)]
        records += [self._store.get("evaluation", trial.trial_id) for trial in trials]
        found = next((record for record in records if record is not None and record.get("reason")), {})
        return str(found.get("reason", "no reason recorded")), found.get("finished_at")


def take_back_lost(store: Store, sweep: str) -> list[str]:
    """Take back the records of a sweep's finished evaluations whose episodes are gone or damaged: they wait again.

    A report reads the episodes, so such a sweep would come to no end again; what they say is made anew, and equal.

    Returns:
        The trials, in order.
    """
    wanted = {
        trial for each in store.members(sweep) for trial in (each["trial_id"], each.get("tune_trial_id")) if trial
    }
    finished = [key for key, each in store.some("evaluation", sorted(wanted)).items() if each["status"] == "finished"]
    lost = store.lacking("evaluation", finished)
    for key in lost:
        store.remove("evaluation", key)
    return lost


def drop_other_blocks(
    store: Store, sweep: str, shared: Shared, design: Sequence[PlannedTraining], lease: Lease
) -> None:
    """Take rows of an earlier plan out of the sweep if they were judged on another block; their results stay.

    Raises:
        LeaseLostError: Another process drives the sweep, and plans otherwise.
    """
    block = dataclasses.replace(shared.any_trial(design), evaluation=shared.report).columns()
    names = [name for name in block if name.startswith(("evaluation.", "data.", "backbone.", "task"))]
    for member in store.members(sweep):
        if any(member["columns"].get(name) != block[name] for name in names):
            lease.check()
            store.remove("member", f"{sweep}/{member['trial_id']}")


def drop_stale(store: Store, sweep: str, members: set[str], lease: Lease) -> None:
    """Take rows that are no longer planned out of a sweep whose plan is done; their results stay.

    What was added to it stays in it, as long as the weights belong to the plan.

    Raises:
        LeaseLostError: Another process drives the sweep, and plans otherwise.
    """
    there = {f"{sweep}/{member['trial_id']}": member for member in store.members(sweep)}
    planned = {member["weights_id"] for key, member in there.items() if key in members}
    for key, member in there.items():
        if key not in members and not (member.get("added") and member["weights_id"] in planned):
            lease.check()
            store.remove("member", key)


def _varying(decodes: Sequence[Any]) -> list[str]:
    """The decoding hyperparameters in which some of these differ."""
    values = [values_of(decode) for decode in decodes]
    return [name for name in values[0] if len({value[name] for value in values}) > 1]


def _name(decode: Any, varying: Sequence[str]) -> str:
    """A decoding in a few words, for an attribute of a study; different decodings have different names."""
    return " ".join(f"{name}={getattr(decode, name)}" for name in varying) or "as trained"
