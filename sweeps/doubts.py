"""Which estimates of policies that could not be played are not believed, and why.

An estimate is learnt from recorded dialogues. Of a policy that leaves them it knows nothing, and what it then says may
be any number, with a small error. So it is held against what was recorded, and what fails is marked and ranks behind
all that does not: in the table, in what a run says while it goes on, and in the policy that it ends with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.text import number
from ilql.dialogue import Dialogue
from ilql.task import Task
from sweeps.offline_clone import beyond_its_model, clone_in, clones_all
from sweeps.spec import TrialSpec
from sweeps.stages import load_task
from sweeps.store import Store

FEWEST = 5
"""An estimate that stands on fewer dialogues means little: one of them decides it."""

RULE = (
    f"An estimate is not believed where fewer than {FEWEST} training dialogues bear on it (at most their number times "
    "exp(−log-ratio)), where it lies outside of the recorded returns, or where Q − followed is more than what was "
    "recorded to follow lies apart: no return is so far from another. The last is not asked of standardised rewards."
)

NOT_COMPARED = "how far it is from the data is not known yet"


@dataclass(frozen=True)
class Recorded:
    """What an estimate is held against.

    Attributes:
        dialogues: Number of dialogues that estimates are learnt from.
        returns: The least and the largest return, under the reward that is estimated, of a dialogue that was recorded
            to its end, in any split; None where there is none.
        apart: Between the least and the largest sum of rewards, under the one that is learnt from, that followed one of
            the agent's turns in those dialogues, that turn's own included; None where there is none.
    """

    dialogues: int
    returns: tuple[float, float] | None
    apart: float | None


def effective_dialogues(dialogues: int, log_ratio: float) -> float:
    """The dialogues that bear on a policy's value, at most.

    The weights that would turn recorded dialogues into the policy's are w = π/π_β. Of N dialogues as many bear on its
    value as N/E_π[w] (Kong 1992), and by Jensen E_π[w] ≥ exp(E_π[log w]): at most N exp(−log-ratio) do. The log-ratio
    is that of one utterance; over more of them fewer dialogues bear on it.
    """
    return dialogues * math.exp(-max(0.0, log_ratio))  # where few utterances were drawn, their mean may be below 0


def recorded_of(task: Task, spec: TrialSpec) -> Recorded:
    """What the estimates of a trial's sweep are held against."""
    splits = ("train", "tune", "report")
    judged = [each for split in splits for each in task.dialogues(split, spec.evaluation.reward) if each.ended]
    learnt = [each for split in splits for each in task.dialogues(split, spec.data.reward) if each.ended]
    returns = [dialogue.total_reward for dialogue in judged]
    followed = [sum_ for dialogue in learnt for sum_ in _followed(dialogue)]
    return Recorded(
        dialogues=min(len(task.dialogues("train", spec.evaluation.reward)), spec.fit.dialogues),
        returns=(min(returns), max(returns)) if returns else None,
        apart=max(followed) - min(followed) if followed else None,
    )


def _followed(dialogue: Dialogue) -> list[float]:
    """The sum of rewards from each of the agent's turns on."""
    turns = dialogue.turns
    return [math.fsum(turn.reward for turn in turns[place:]) for place, turn in enumerate(turns) if turn.by_agent]


def doubt(score: float, q_bias: float | None, bearing: float | None, recorded: Recorded) -> str | None:
    """Why an estimate is not believed, in words; None where it is.

    Args:
        score: The estimate.
        q_bias: Mean of the method's own Q less what followed; None where it has none.
        bearing: The dialogues that bear on it, at most; None where nobody knows.
        recorded: What it is held against.
    """
    why = []
    if bearing is not None and bearing < FEWEST:
        why.append(f"{number(bearing, 1)} dialogues bear on it")
    if recorded.returns is not None and not recorded.returns[0] <= score <= recorded.returns[1]:
        low, high = recorded.returns
        why.append(f"{number(score)} is outside of the recorded returns, {number(low)} to {number(high)}")
    if q_bias is not None and recorded.apart is not None and abs(q_bias) > recorded.apart:
        why.append(f"Q − followed is {number(q_bias)}, where what followed lies at most {number(recorded.apart)} apart")
    return ", ".join(why) or None


def doubts_of(
    store: Store, sweep: str, rows: Sequence[Mapping[str, Any]] | None = None, *, compare: bool = True
) -> dict[str, str]:
    """By trial why its estimate is not believed; those that are believed, or were played, are not in it.

    Args:
        store: Where the sweep is.
        sweep: Its name.
        rows: Its rows, where they are at hand.
        compare: Whether to ask a clone of all data about policies with a language model of their own, where that was
            not done yet: both their networks are loaded for it. Without it the estimates of such policies are not
            believed.
    """
    rows = store.rows(sweep) if rows is None else rows
    estimated = {
        str(row["trial_id"]): row
        for row in rows
        if row["status"] == "finished" and row.get("evaluation.by") == "fitted_q"
    }
    if not estimated:
        return {}
    specs = {
        member["trial_id"]: TrialSpec.from_json(str(member["spec"]))
        for member in store.members(sweep)
        if member["trial_id"] in estimated
    }
    spec = next(iter(specs.values()))
    recorded = recorded_of(load_task(store, spec.data.task, spec.evaluation.world), spec)
    bearing = dialogues_that_bear(store, specs, estimated, recorded.dialogues, compare=compare)
    found = {}
    for trial, row in estimated.items():
        q_bias = row.get("measure.q_bias")
        if q_bias is not None and not _in_units_of_rewards(specs[trial]):
            q_bias = None
        why = doubt(float(row["score"]), None if q_bias is None else float(q_bias), bearing[trial], recorded)
        if why is None and bearing[trial] is None and not compare:
            why = NOT_COMPARED
        if why is not None:
            found[trial] = why
    return found


def _in_units_of_rewards(spec: TrialSpec) -> bool:
    """Whether a trial's Q is in the units of what was recorded, and not of standardised returns."""
    return getattr(spec.train, "rewards", "recorded") == "recorded"


def dialogues_that_bear(
    store: Store,
    specs: Mapping[str, TrialSpec],
    rows: Mapping[str, Mapping[str, Any]],
    dialogues: int,
    *,
    compare: bool = True,
) -> dict[str, float | None]:
    """How many dialogues bear on each estimate, at most; None where how far it is from them cannot be said.

    Args:
        store: Where what the policies said is, and a clone of all data.
        specs: Trials, by whatever name.
        rows: Of each a row with its log-ratio, by the same names.
        dialogues: Number of dialogues that estimates are learnt from.
        compare: As `doubts_of` has it.
    """
    clone = clone_in(store, list(specs.values()))
    bearing: dict[str, float | None] = {}
    for name, row in rows.items():
        beyond: float | None = 0.0
        if not clones_all(specs[name]):
            beyond = None if clone is None else beyond_its_model(store, specs[name], clone, make=compare)
        log_ratio = row.get("measure.log_ratio")
        bearing[name] = (
            None if beyond is None or log_ratio is None else effective_dialogues(dialogues, log_ratio + beyond)
        )
    return bearing
