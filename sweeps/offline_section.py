"""What is known of policies that could not be played, and what that is worth: a section of a report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from analysis.labels import method_label
from analysis.section import Section, TextTable
from analysis.text import number, with_error
from sweeps.offline_clone import beyond_its_model, clone_in, clones_all
from sweeps.samples import best_rows
from sweeps.spec import TrialSpec
from sweeps.stages import load_task
from sweeps.store import Store

CAVEAT = (
    "Nobody was there to answer, so nothing here was earned. The scores are fitted-Q estimates of what each policy "
    "would be paid, learnt from recorded dialogues alone. They rank policies that stay near the recorded one; of a "
    "policy that says what the data does not hold they know nothing, and tend to think too well of it.",
    "Estimate: mean over the beginnings of held-out dialogues, ± one standard error over them. Between members: how "
    "far heads that were fitted on other draws of the same dialogues disagree. NLL: −log π of the recorded tokens, in "
    "nats a token; an agent that is better than the recorded one need not say what it said. Q − followed, correlation: "
    "the method's own values against what followed in held-out dialogues, in the unit they were trained in: standard "
    "deviations of the return where `train.rewards=standardised`; without a correlation, values know nothing. Ψ sums "
    "log-probabilities beside rewards, so nothing that followed is in its unit, and a dash stands there. "
    "Log-ratio: how far the policy goes from its language model; the further, the less an estimate can be trusted. A "
    "greedy policy says for certain what it says: its log-ratio is −log of how likely its language model is to say it. "
    "Bear on it: the training dialogues that an estimate stands on at most, as effective sample size: their number "
    "times exp(−log-ratio). A policy whose language model has not cloned all of them, as %BC's, is measured from one "
    "that has, if the sweep trained one; a dash stands where it did not.",
)

FEWEST = 5
"""An estimate that stands on fewer dialogues means little: one of them decides it."""


def offline_section(store: Store, sweep: str) -> Section | None:
    """What stands behind the scores of a task that cannot be played; None for one that can, or before any score."""
    best = best_rows(store, sweep)
    if not best:
        return None
    specs = _specs(store, sweep, best)
    spec = next(iter(specs.values()))
    if load_task(store, spec.data.task, spec.evaluation.world).playable:
        return None
    header = ("Method", "Estimate", "Between members", "NLL", "Q − followed", "Correlation", "Log-ratio", "Bear on it")
    bearing = _bearing(store, specs, best)
    rows = []
    for arm, row in best.items():
        measures = ("member_sd", "held_out_nll", "q_bias", "q_correlation", "log_ratio")
        rows.append(
            (
                method_label(arm),
                with_error(row["score"], row["score_error"]),
                *(number(row.get(f"measure.{name}")) for name in measures),
                number(bearing[arm], 1),
            )
        )
    table = TextTable("The best cell of each method", header, tuple(rows), (False, *([True] * (len(header) - 1))))
    return Section(name="offline", title="What the scores are", text=CAVEAT, tables=(table,), printed=True)


def little_known(store: Store, sweep: str) -> tuple[str, ...]:
    """One line on the methods whose best cell is so far from the data that its estimate means little; none for none."""
    best = best_rows(store, sweep)
    return far_from_data(_bearing(store, _specs(store, sweep, best), best)) if best else ()


def effective_dialogues(dialogues: int, log_ratio: float) -> float:
    """The dialogues that bear on a policy's value, at most.

    The weights that would turn recorded dialogues into the policy's are w = π/π_β. Of N dialogues as many bear on its
    value as N/E_π[w] (Kong 1992), and by Jensen E_π[w] ≥ exp(E_π[log w]): at most N exp(−log-ratio) do. The log-ratio
    is that of one utterance; over more of them fewer dialogues bear on it.
    """
    return dialogues * math.exp(-max(0.0, log_ratio))  # where few utterances were drawn, their mean may be below 0


def far_from_data(bearing: Mapping[str, float | None]) -> tuple[str, ...]:
    """The line of `little_known`, from the dialogues that bear on each arm's estimate; None where nobody knows."""
    few = [
        f"{method_label(arm)} ({number(dialogues, 1)})"
        for arm, dialogues in bearing.items()
        if dialogues is not None and dialogues < FEWEST
    ]
    if not few:
        return ()
    return (
        f"Estimates that mean little, since fewer than {FEWEST} training dialogues bear on them (at most their number "
        f"times exp(−log-ratio)): {', '.join(few)}.",
    )


def _bearing(
    store: Store, specs: Mapping[str, TrialSpec], best: Mapping[str, Mapping[str, Any]]
) -> dict[str, float | None]:
    """By arm the dialogues that bear on its best cell's estimate; None where how far it is from them cannot be said."""
    spec = next(iter(specs.values()))
    task = load_task(store, spec.data.task, spec.evaluation.world)
    dialogues = min(len(task.dialogues("train", spec.evaluation.reward)), spec.fit.dialogues)
    clone = clone_in(store, list(specs.values()))
    bearing: dict[str, float | None] = {}
    for arm, row in best.items():
        beyond = (
            0.0 if clones_all(specs[arm]) else None if clone is None else beyond_its_model(store, specs[arm], clone)
        )
        bearing[arm] = None if beyond is None else effective_dialogues(dialogues, row["measure.log_ratio"] + beyond)
    return bearing


def _specs(store: Store, sweep: str, best: Mapping[str, Mapping[str, Any]]) -> dict[str, TrialSpec]:
    """By arm the trial of its best cell's first seed."""
    members = {member["trial_id"]: member for member in store.members(sweep)}
    return {arm: TrialSpec.from_json(str(members[row["trial_id"]]["spec"])) for arm, row in best.items()}
