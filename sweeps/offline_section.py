"""What is known of policies that could not be played, and what that is worth: a section of a report."""

from __future__ import annotations

from analysis.labels import method_label
from analysis.section import Section, TextTable
from analysis.text import number, with_error
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
    "the method's own values against what followed in held-out dialogues; without a correlation, values know nothing. "
    "Log-ratio: how far the policy goes from its language model; the further, the less an estimate can be trusted.",
)


def offline_section(store: Store, sweep: str) -> Section | None:
    """What stands behind the scores of a task that cannot be played; None for one that can, or before any score."""
    best = best_rows(store, sweep)
    if not best:
        return None
    members = {member["trial_id"]: member for member in store.members(sweep)}
    spec = TrialSpec.from_json(str(members[next(iter(best.values()))["trial_id"]]["spec"]))
    if load_task(store, spec.data.task, spec.evaluation.world).playable:
        return None
    header = ("Method", "Estimate", "Between members", "NLL", "Q − followed", "Correlation", "Log-ratio")
    rows = []
    for arm, row in best.items():
        measures = ("member_sd", "held_out_nll", "q_bias", "q_correlation", "log_ratio")
        rows.append(
            (
                method_label(arm),
                with_error(row["score"], row["score_error"]),
                *(number(row.get(f"measure.{name}")) for name in measures),
            )
        )
    table = TextTable("The best cell of each method", header, tuple(rows), (False, *([True] * (len(header) - 1))))
    return Section(name="offline", title="What the scores are", text=CAVEAT, tables=(table,), printed=True)
