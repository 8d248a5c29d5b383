"""The section across tasks or rewards: aggregates of normalised scores, and how much hangs on tuning for each anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from analysis.across import (
    FEWEST_RUNS,
    gap_interval,
    improvement_interval,
    iqm_interval,
    profile,
    profile_draws,
)
from analysis.bounded import Bounded
from analysis.cells import Cell, best_cell
from analysis.estimators import Floats
from analysis.figures import Figure, draw_estimates, draw_profiles
from analysis.labels import in_order, method_label
from analysis.section import Section, TextTable
from analysis.sensitivity import Policy, Sensitivity, sensitivity
from analysis.text import count, number

BAR = "bc"
POLICIES: tuple[Policy, ...] = ("exclude", "worst")


def across_section(tasks: Mapping[str, Sequence[Cell]], rng: np.random.Generator) -> Section | None:
    """What holds of methods across several tasks or rewards; None below two with anything in common.

    A method's runs in a task are the training seeds of the cell that the tune scenes choose, among those with the most
    seeds; each is a mean over the report scenes. They are put on one scale: 0 is the mean of cloning's cell, 1 that of
    the best method's.

    Args:
        tasks: The cells of each, by what it is called.
        rng: Draws the bootstrap.
    """
    scaled: dict[str, dict[str, Floats]] = {}
    for name, cells in tasks.items():
        runs = _tuned_runs(cells)
        if BAR not in runs or len(runs) < 2:
            continue
        low, high = float(runs[BAR].mean()), max(float(scores.mean()) for scores in runs.values())
        if high > low:
            scaled[name] = {method: (scores - low) / (high - low) for method, scores in runs.items()}
    if len(scaled) < 2:
        return None
    methods = in_order(method for runs in scaled.values() for method in runs)
    by_method = {method: {name: runs[method] for name, runs in scaled.items() if method in runs} for method in methods}
    rows, iqms, wins = [], [], []
    for method, found in by_method.items():
        scores = list(found.values())
        middle, gap = iqm_interval(scores, rng), gap_interval(scores, rng)
        iqms.append((method_label(method), method, middle))
        beats = None
        if method != BAR:
            beats = improvement_interval(scores, [scaled[name][BAR] for name in found], rng)
            wins.append((method_label(method), method, beats))
        total = sum(each.size for each in scores)
        rows.append(
            (
                method_label(method),
                str(len(scores)),
                str(total),
                middle.text(),
                gap.text(),
                beats.text() if beats else "",
            )
        )
    thresholds = np.linspace(min(0.0, *(float(s.min()) for f in by_method.values() for s in f.values())), 1.1, 56)
    profiles = {method: _profile(list(found.values()), thresholds, rng) for method, found in by_method.items()}
    sensitive = _sensitivities(tasks, scaled, methods, rng)
    scale = "0: cloning, 1: the best method of each task"
    caption = (
        f"{count(len(scaled), 'task')}: {', '.join(scaled)}. {scale}. 95 % by stratified bootstrap over training "
        "seeds, widened for few seeds; tasks are taken as they are, not as a sample of others."
    )
    figures: dict[str, tuple[Figure, str]] = {
        "across_profiles": (
            draw_profiles(thresholds, profiles, x_title="normalised score"),
            f"Run-score profiles. {caption}",
        ),
        "across_iqm": (draw_estimates(iqms, x_title="interquartile mean of normalised scores"), f"IQM. {caption}"),
        "across_improvement": (
            draw_estimates(wins, x_title=f"probability of a better run than {method_label(BAR)}'s", at=0.5),
            f"Probability of improvement. {caption}",
        ),
    }
    header = ("Method", "Tasks", "Runs", "IQM", "Optimality gap", f"P(better than {method_label(BAR)})")
    tables = [TextTable("Across tasks", header, tuple(rows), (False, True, True, True, True, True))]
    if sensitive:
        tables.append(_sensitivity_table(sensitive))
    leader = max(iqms, key=lambda each: each[2].value)
    text = [
        f"{leader[0]} has the highest IQM, {leader[2].text()}, over {count(len(scaled), 'task')} ({scale}). Of other "
        "tasks it says nothing, and methods that are missing in one are compared on the others.",
        *(_sensitivity_text(each) for each in sensitive if each.policy == "exclude"),
    ]
    return Section("across", "Across tasks", tuple(text), tuple(tables), figures, printed=True)


def _tuned_runs(cells: Sequence[Cell]) -> dict[str, Floats]:
    """Of every method the score of each seed at the cell that the tune scenes choose, of those with the most seeds."""
    found = {}
    for method in in_order(cell.method for cell in cells):
        own = [cell for cell in cells if cell.method == method and cell.seeds]
        most = max((len(cell.seeds) for cell in own), default=0)
        own = [cell for cell in own if len(cell.seeds) == most]
        known = [cell for cell in own if cell.tune_score is not None]
        chosen = max(known, key=lambda cell: cell.tune_score or 0.0) if known else best_cell(own)
        if chosen is not None:
            found[method] = np.array(chosen.seed_scores)
    return found


def _profile(scores: Sequence[Floats], thresholds: Floats, rng: np.random.Generator) -> tuple[Floats, Floats | None]:
    shares = profile(scores, thresholds)
    if any(each.size < FEWEST_RUNS for each in scores):
        return shares, None
    ends: Floats = np.quantile(profile_draws(scores, thresholds, rng, 2000), [0.025, 0.975], axis=0)
    return shares, ends


def _sensitivities(
    tasks: Mapping[str, Sequence[Cell]], names: Mapping[str, object], methods: Sequence[str], rng: np.random.Generator
) -> list[Sensitivity]:
    found = []
    for method in methods:
        environments = [tasks[name] for name in names]
        for policy in POLICIES:
            try:
                each = sensitivity(environments, method, rng, policy=policy)
            except ValueError:  # the method is not in all tasks, or has no setting in common
                continue
            if each.settings > 1 and (policy == "exclude" or each.failed):
                found.append(each)
    return found


def _sensitivity_table(found: Sequence[Sensitivity]) -> TextTable:
    rows = []
    for each in found:
        chances = ", ".join(f"{d}: {100 * share:.0f} %" for d, share in each.dimensions.items())
        counts = (str(each.settings), str(each.excluded), str(each.failed))
        rows.append((method_label(each.method), each.policy, each.phi.text(), f"{each.dimension} ({chances})", *counts))
    header = ("Method", "Failed runs", "Φ", "Dimension (given the noise)", "Settings", "Left out", "Failed")
    title = "Sensitivity to tuning (Adkins et al. 2024)"
    return TextTable(title, header, tuple(rows), (False, False, True, True, True, True, True))


def _sensitivity_text(each: Sensitivity) -> str:
    share: Bounded = each.phi
    return (
        f"Tuning {method_label(each.method)} for each task anew gains {share.text()} over one setting for all, of a "
        f"tuned {number(each.tuned.value)} (scale: 5th to 95th percentile of all cells of a task); "
        f"{count(each.dimension, 'hyperparameter')} must be tuned for 95 % of it. "
        f"{count(each.excluded, 'setting')} left out."
    )
