"""The section across tasks or rewards: aggregates of normalised scores, and how much hangs on tuning for each anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.across import gap_interval, improvement_interval, iqm_interval, profile, profile_interval
from analysis.bounded import Bounded
from analysis.cells import Cell, without_survivors
from analysis.estimators import Floats
from analysis.figures import Figure, draw_estimates, draw_profiles
from analysis.honest import fold_share, leave_one_seed_out
from analysis.labels import in_order, method_label
from analysis.section import Section, TextTable
from analysis.sensitivity import Sensitivity, sensitivity
from analysis.styles import Policy
from analysis.text import count, number

BAR = "bc"
POLICIES: tuple[Policy, ...] = ("exclude", "worst", "floor")


@dataclass(frozen=True, eq=False)
class _Runs:
    """A method's runs in one task.

    Attributes:
        scores: A mean return for each training seed, shape (n,).
        share: f, with f·s² the variance of their mean; see `analysis.across`.
        pooled: The variance between seeds of all cells that were chosen among, on average: s² of one cell alone.
    """

    scores: Floats
    share: float
    pooled: float

    def on(self, low: float, high: float) -> _Runs:
        """The runs where `low` is 0 and `high` is 1."""
        return _Runs((self.scores - low) / (high - low), self.share, self.pooled / (high - low) ** 2)


def across_section(
    tasks: Mapping[str, Sequence[Cell]], ranges: Mapping[str, tuple[float, float]], rng: np.random.Generator
) -> Section | None:
    """What holds of methods across several tasks or rewards; None below two with cloning and another method in common.

    A method's runs in a task are its training seeds, each a mean over the report scenes at the cell that the *other*
    seeds' tune scores choose: the cell that is best at all of them has lucky ones. They are put on the scale of the
    returns that the task can give, which no run decides.

    Args:
        tasks: The cells of each, by what it is called.
        ranges: The lowest and the highest return that an episode of each can have.
        rng: Draws the bootstrap.

    Raises:
        ValueError: A task has no range, or one that ends where it begins.
    """
    scaled: dict[str, dict[str, _Runs]] = {}
    for name, cells in tasks.items():
        low, high = ranges.get(name, (0.0, 0.0))
        if not low < high:
            raise ValueError(
                f"the returns of task {name!r} must have a range to be put on a scale, got {low} to {high}"
            )
        runs = _tuned_runs(cells)
        if BAR in runs and len(runs) > 1:
            scaled[name] = {method: each.on(low, high) for method, each in runs.items()}
    if len(scaled) < 2:
        return None
    methods = in_order(method for runs in scaled.values() for method in runs)
    by_method = {method: {name: runs[method] for name, runs in scaled.items() if method in runs} for method in methods}
    rows, iqms, wins, profiles = [], [], [], {}
    thresholds = np.linspace(0.0, 1.0, 51)
    for method, found in by_method.items():
        scores, shares = [each.scores for each in found.values()], _shares(list(found.values()))
        middle, gap = iqm_interval(scores, rng, shares=shares), gap_interval(scores, rng, shares=shares)
        iqms.append((method_label(method), method, middle))
        profiles[method] = (profile(scores, thresholds), _ends(profile_interval(scores, thresholds)))
        beats = None
        if method != BAR:
            bars = [scaled[name][BAR] for name in found]
            beats = improvement_interval(
                scores, [bar.scores for bar in bars], rng, first_shares=shares, second_shares=_shares(bars)
            )
            wins.append((method_label(method), method, beats))
        rows.append(
            (
                method_label(method),
                str(len(scores)),
                str(sum(each.size for each in scores)),
                middle.text(),
                gap.text(),
                beats.text() if beats else "",
            )
        )
    sensitive = _sensitivities({name: tasks[name] for name in scaled}, ranges, methods, rng)
    scale = "0: the lowest return that the task can give, 1: the highest"
    about = (
        f"{count(len(scaled), 'task')}: {', '.join(scaled)}. {scale}. A run is a training seed at the cell that the "
        "other seeds choose on the tune scenes; tasks are taken as they are, not as a sample of others."
    )
    caption = f"{about} 95 % by stratified bootstrap over training seeds, widened for few or skewed and for the choice."
    figures: dict[str, tuple[Figure, str]] = {
        "across_profiles": (
            draw_profiles(thresholds, profiles, x_title="normalised score"),
            f"Run-score profiles. {about} Bands: 95 % at each threshold by itself, Clopper and Pearson's of as many "
            "runs; none with too few.",
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


def _tuned_runs(cells: Sequence[Cell]) -> dict[str, _Runs]:
    """Of every method the score of each seed, at the cell that the other seeds' tune scores choose.

    Among the cells with the most seeds, and none that a rung let through. Without tune scores the report scenes of the
    other seeds choose. With one seed nothing can be held out: it is scored at the cell that its own tune score chooses.
    """
    found = {}
    for method in in_order(cell.method for cell in cells):
        own = [cell for cell in without_survivors(cells) if cell.method == method and cell.seeds]
        most = max((len(cell.seeds) for cell in own), default=0)
        own = [cell for cell in own if len(cell.seeds) == most]
        own = [cell for cell in own if cell.tune_scores is not None] or own
        seeds = sorted(set.intersection(*(set(cell.seeds) for cell in own))) if own else []
        if not seeds:
            continue
        places = [[cell.seeds.index(seed) for seed in seeds] for cell in own]
        scores = np.array([[cell.seed_scores[at] for at in of] for cell, of in zip(own, places, strict=True)])
        tune = np.array([
            [(cell.tune_scores or cell.seed_scores)[at] for at in of] for cell, of in zip(own, places, strict=True)
        ])  # fmt: skip
        size = len(seeds)
        if size == 1:
            found[method] = _Runs(scores[tune[:, 0].argmax()], 1.0, 0.0)
            continue
        pooled = float(scores.var(axis=1, ddof=1).mean())
        share = 1 / size + (fold_share(size) if len(own) > 1 else 0.0)
        found[method] = _Runs(leave_one_seed_out(scores[..., None], tune).returns[:, 0], share, pooled)
    return found


def _shares(runs: Sequence[_Runs]) -> list[float]:
    """The f of each task, all larger by how much the variance of all cells exceeds that of the held-out scores.

    A few held-out scores may happen to lie close together, as in `analysis.honest.tuned`, where M is the larger of the
    two. Here they are added over tasks first.
    """
    own = sum(float(each.scores.var(ddof=1)) for each in runs if each.scores.size > 1)
    more = max(1.0, sum(each.pooled for each in runs) / own) if own > 0 else 1.0
    return [more * each.share for each in runs]


def _ends(interval: tuple[Floats, Floats] | None) -> Floats | None:
    return None if interval is None else np.stack(interval)


def _sensitivities(
    tasks: Mapping[str, Sequence[Cell]],
    ranges: Mapping[str, tuple[float, float]],
    methods: Sequence[str],
    rng: np.random.Generator,
) -> list[Sensitivity]:
    """Of each method, without its failed runs and, where it has some, with them as the other policies count them."""
    environments, floors = list(tasks.values()), [ranges[name][0] for name in tasks]
    found = []
    for method in methods:
        fails = any(cell.failed for cells in environments for cell in cells if cell.method == method)
        for policy in POLICIES if fails else POLICIES[:1]:
            try:
                each = sensitivity(environments, method, rng, policy=policy, floors=floors)
            except ValueError:  # the method is not in all tasks, or has no setting in common
                continue
            if each.settings > 1 and (policy == "exclude" or each.failed):
                found.append(each)
    return found


def _sensitivity_table(found: Sequence[Sensitivity]) -> TextTable:
    rows = []
    for each in found:
        counts = (str(each.settings), str(each.excluded), str(each.failed))
        rows.append((method_label(each.method), each.policy, each.phi.text(), each.dimension_text, *counts))
    header = ("Method", "Failed runs", "Φ", "Dimension (given the noise)", "Settings", "Left out", "Failed")
    title = "Sensitivity to tuning (Adkins et al. 2024)"
    return TextTable(title, header, tuple(rows), (False, False, True, True, True, True, True))


def _sensitivity_text(each: Sensitivity) -> str:
    share: Bounded = each.phi
    return (
        f"Tuning {method_label(each.method)} for each task anew gains {share.text()} over one setting for all, of a "
        f"tuned {number(each.tuned.value)} (scale: 5th to 95th percentile of all cells of a task). "
        f"{each.dimension_sentence} {count(each.excluded, 'setting')} left out."
    )
