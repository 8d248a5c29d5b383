"""What is known of policies that could not be played, and what that is worth: a section of a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.labels import method_label
from analysis.section import Section, TextTable
from analysis.text import NOT_BELIEVED, number, with_error
from sweeps.doubts import RULE, dialogues_that_bear, recorded_of
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
    f"{RULE} {NOT_BELIEVED} marks such an estimate, and the footnotes of the table say what is wrong with it. It ranks "
    "behind every estimate that is believed.",
)


def offline_section(store: Store, sweep: str) -> Section | None:
    """What stands behind the scores of a task that cannot be played; None for one that can, or before any score."""
    best = best_rows(store, sweep)
    if not best:
        return None
    specs = _specs(store, sweep, best)
    spec = next(iter(specs.values()))
    task = load_task(store, spec.data.task, spec.evaluation.world)
    if task.playable:
        return None
    header = ("Method", "Estimate", "Between members", "NLL", "Q − followed", "Correlation", "Log-ratio", "Bear on it")
    bearing = dialogues_that_bear(store, specs, best, recorded_of(task, spec).dialogues)
    rows = []
    for arm, row in best.items():
        measures = ("member_sd", "held_out_nll", "q_bias", "q_correlation", "log_ratio")
        rows.append(
            (
                method_label(arm),
                with_error(row["score"], row["score_error"], believed=row["doubt"] is None),
                *(number(row.get(f"measure.{name}")) for name in measures),
                number(bearing[arm], 1),
            )
        )
    table = TextTable("The best cell of each method", header, tuple(rows), (False, *([True] * (len(header) - 1))))
    return Section(name="offline", title="What the scores are", text=CAVEAT, tables=(table,), printed=True)


def _specs(store: Store, sweep: str, best: Mapping[str, Mapping[str, Any]]) -> dict[str, TrialSpec]:
    """By arm the trial of its best cell's first seed."""
    members = {member["trial_id"]: member for member in store.members(sweep)}
    return {arm: TrialSpec.from_json(str(members[row["trial_id"]]["spec"])) for arm, row in best.items()}
