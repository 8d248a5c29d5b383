"""What a sweep took beyond its rows: trainings that no row is of, and play that no row has; and what sharing saved.

A row stands on the weights of its cell and on play on the report scenes, with that on the tune scenes beside it. A
sweep also trains behaviour policies and critics that are in no cell, trains and plays proposals to a rung, and has
cells whose rows are still to come. All of that is in the store under keys of its content, without the sweep's name: it
is found from the sweep's trials. What several sweeps share is counted for each of them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence

from analysis.runs import Unlisted
from sweeps.exact_json import Record
from sweeps.record_shapes import arm_of
from sweeps.spec import Evaluation, TrialSpec
from sweeps.store import Store


def unlisted(store: Store, sweep: str) -> tuple[Unlisted, ...]:
    """By arm, the seconds of trainings and of play that are the sweep's and in none of its rows, each counted once.

    And, by the arm of finished rows, what their behaviour policies and critics would have taken anew for each of them.

    A training that went on from a rung has the rung's seconds in its own, so the rung's are not counted; what a stopped
    or failed one took stands in its row. Play at a rung is found where an evaluation on the tune scenes has its stage,
    which says what these are. Drawing utterances, tokenising and loading are not recorded, and not in it.
    """
    members = [member for member in store.members(sweep) if "spec" in member]
    rows = store.rows(sweep)
    listed = {str(row["trial_id"]) for row in rows}
    trainings, evaluations = store.all("training"), store.all("evaluation")
    lengths = sorted({int(record["steps"]) for record in trainings.values() if "steps" in record})
    tune = _tune(store, members)
    trained: dict[str, str] = {}  # the arm of each training that is the sweep's
    played: dict[str, str] = {}  # and of each evaluation
    in_rows = {str(row["weights_id"]) for row in rows}
    have_rows = set(listed)
    needs: dict[tuple[object, object], tuple[str, ...]] = {}  # by method and weights, the weights that they need
    for member in members:
        arm = arm_of(member)
        for name in ("trial_id", "tune_trial_id"):
            if member.get(name):
                played.setdefault(str(member[name]), arm)
        if member["trial_id"] in listed and member.get("tune_trial_id"):
            have_rows.add(str(member["tune_trial_id"]))
        training = (member["method"], member["weights_id"])
        if member["origin"] != "refinement" and training in needs:
            continue  # it differs in how it acts alone
        spec = TrialSpec.from_json(str(member["spec"]))
        needs[training] = tuple(other.weights_id for other in spec.required)
        trained.setdefault(spec.weights_id, arm)
        needed = list(spec.required)
        for short in _at_rungs(spec, lengths) if member["origin"] == "refinement" else ():
            needed += short.required
            if short.trajectory_id != spec.trajectory_id or (
                "status" not in member and spec.weights_id not in trainings
            ):
                trained.setdefault(short.weights_id, arm)
            if tune is not None:
                played.setdefault(short.acting(spec.decode, tune).trial_id, arm)
        for other in needed:
            trained.setdefault(other.weights_id, other.method)
    train = _by_arm(trained, in_rows, trainings, "train_seconds")
    play = _by_arm(played, have_rows, evaluations, "evaluate_seconds")
    finished = {str(row["trial_id"]) for row in rows if row["status"] == "finished"}
    anew = _anew([member for member in members if member["trial_id"] in finished], needs, trainings)
    return tuple(
        Unlisted(arm, train.get(arm, 0.0), play.get(arm, 0.0), anew.get(arm, 0.0))
        for arm in dict.fromkeys((*train, *play, *anew))
    )


def _anew(
    members: Sequence[Record], needs: Mapping[tuple[object, object], Sequence[str]], trainings: Mapping[str, Record]
) -> dict[str, float]:
    """The seconds that the needs of members would have taken again, by arm: all but those of the first, if no row has.

    Args:
        members: With finished rows.
        needs: By method and weights, the weights that are trained before.
        trainings: Records by weights.
    """
    done = {str(member["weights_id"]) for member in members}
    found: dict[str, float] = {}
    for member in {str(each["trial_id"]): each for each in members}.values():
        arm = arm_of(member)
        for weights in needs[member["method"], member["weights_id"]]:
            if weights in done:
                found[arm] = found.get(arm, 0.0) + float(trainings.get(weights, {}).get("train_seconds") or 0.0)
            done.add(weights)
    return {arm: seconds for arm, seconds in found.items() if seconds > 0}


def _tune(store: Store, members: Sequence[Record]) -> Evaluation | None:
    """What settings are chosen on: the evaluation of the first trial on the tune scenes whose stage is there."""
    for member in members:
        about = store.about("evaluation", str(member["tune_trial_id"])) if member.get("tune_trial_id") else None
        if about is not None:
            return TrialSpec.from_json(json.dumps(about["about"]["spec"])).evaluation
    return None


def _at_rungs(spec: TrialSpec, lengths: Sequence[int]) -> list[TrialSpec]:
    """The trial cut to each number of steps that some training has and that is less than its own."""
    return [
        dataclasses.replace(spec, train=dataclasses.replace(spec.train, steps=steps))
        for steps in lengths
        if steps < spec.train.steps
    ]


def _by_arm(arms: Mapping[str, str], listed: set[str], records: Mapping[str, Record], seconds: str) -> dict[str, float]:
    """The seconds of the records that are not listed, added by arm; arms without any are left out."""
    found: dict[str, float] = {}
    for key, arm in arms.items():
        took = float(records.get(key, {}).get(seconds) or 0.0)
        if key not in listed and took > 0:
            found[arm] = found.get(arm, 0.0) + took
    return found
