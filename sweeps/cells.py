"""The cells of one sweep: the trials they are, their rows' places in the store, and what came of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ilql.hyperparameters import values_of
from sweeps.space import Training
from sweeps.spec import Backbone, Data, Evaluation, TrialSpec
from sweeps.store import Store


@dataclass(frozen=True, kw_only=True)
class Setting:
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

    def trials(self, training: Training, seed: int, *, split: str) -> list[TrialSpec]:
        """The training's cells at one seed, on the tune or the report scenes."""
        evaluation = self.tune if split == "tune" else self.report
        trials: list[TrialSpec] = []
        for decode in training.decodes:
            if trials:
                trials.append(trials[0].acting(decode, evaluation))
            else:
                shared = (training.method, self.data, self.backbone, training.train, seed)
                trials.append(TrialSpec(*shared, decode, evaluation))
        return trials


class Cells:
    """The cells of one sweep in a store.

    A cell's row is found by its place, a `member` record that carries the columns; its result is looked up by the ids
    in it, and may be there for another sweep's sake.

    Args:
        store: Where rows are, and go.
        sweep: The sweep's name.
        setting: What all trials share.
        added: True for cells that no plan of the sweep has, and that stay in it nevertheless.

    Attributes:
        members: Keys of all rows that belong to the sweep as it is planned now.
    """

    def __init__(self, store: Store, sweep: str, setting: Setting, *, added: bool = False) -> None:
        self._store, self._sweep, self._setting = store, sweep, setting
        self._more: Mapping[str, Any] = {"added": True} if added else {}
        self.members: set[str] = set()

    def trials(self, training: Training, seed: int, *, split: str) -> list[TrialSpec]:
        """As the setting's."""
        return self._setting.trials(training, seed, split=split)

    def places(
        self, training: Training, tune: Sequence[TrialSpec], report: Sequence[TrialSpec]
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
        self, training: Training, reached: TrialSpec, *, status: str, reason: str, at: str | None = None
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
        tune, report = (self.trials(training, 0, split=split) for split in ("tune", "report"))
        self.put({key: {**place, **outcome} for key, place in self.places(training, tune, report).items()})

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
            if trial.evaluation == self._setting.tune and record is not None and record["status"] == "finished":
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
    lost = [key for key in finished if store.stage("evaluation", key) is None]
    for key in lost:
        store.remove("evaluation", key)
    return lost


def _varying(decodes: Sequence[Any]) -> list[str]:
    """The decoding hyperparameters in which some of these differ."""
    values = [values_of(decode) for decode in decodes]
    return [name for name in values[0] if len({value[name] for value in values}) > 1]


def _name(decode: Any, varying: Sequence[str]) -> str:
    """A decoding in a few words, for an attribute of a study; different decodings have different names."""
    return " ".join(f"{name}={getattr(decode, name)}" for name in varying) or "as trained"
