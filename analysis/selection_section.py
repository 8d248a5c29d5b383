"""The section on choosing without playing: does anything that trainings say of themselves rank them?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from analysis.cells import Cell
from analysis.figures import Figure, draw_estimates
from analysis.labels import in_order, method_label
from analysis.section import Section
from analysis.selection import (
    FEWEST_TRAININGS,
    Key,
    RungPair,
    SignalCorrelation,
    constant_signals,
    correlations,
    spearman,
)
from analysis.text import DASH, count

MOST_SIGNALS = 12


def selection_section(
    cells: Sequence[Cell], signals: Mapping[tuple[str, float], Mapping[Key, float]], rungs: Sequence[RungPair]
) -> Section | None:
    """Whether what trainings say of themselves, or their score half-way, ranks them as their score at the end does."""
    found: list[SignalCorrelation] = []
    same: list[str] = []
    for method in in_order(cell.method for cell in cells):
        found += correlations(cells, method, signals)
        same += [f"{method_label(method)} {_read_at(*each)}" for each in constant_signals(cells, method, signals)]
    text = [_said(found)] if found else []
    if same:
        text.append(
            f"No rank correlation, since the signal or the score is the same in all trainings: {', '.join(same)}."
        )
    if rungs:
        at = [(each.at_rung, each.at_end) for each in rungs]
        ranked = all(len(set(side)) > 1 for side in zip(*at, strict=True))
        bounds = spearman(at) if ranked else None
        why = "too few cells" if len(at) < 2 else "all of them the same at the rung or at the end"
        said = f"{DASH} ({why})" if bounds is None else bounds.text()
        legitimate = bounds is not None and bounds.low is not None and bounds.low >= 0.5
        text.append(
            f"Early stopping: of {count(len(rungs), 'proposal')} that went on from a rung, the score there and at the "
            f"end (tune scenes) have rank correlation {said}: to stop by the rung is "
            f"{'legitimate' if legitimate else 'not shown to be legitimate'} here. Those that were stopped are not in "
            "it; among the better half ranks agree less than among all, so the number errs on the low side."
        )
    if not text:
        return None
    text.append(
        "Signals are those of training batches, and the loss on held-out dialogues. What else these would say (TD "
        "error, Q against what followed) is not recorded for tasks that can be played, and may rank better."
    )
    bounded = [each for each in found if not each.correlation.why]
    shown = sorted(bounded, key=lambda each: -abs(each.correlation.value))[:MOST_SIGNALS]
    figures: dict[str, tuple[Figure, str]] = {}
    if shown:
        rows = [(f"{method_label(e.method)}: {_signal_label(e)}", e.method, e.correlation) for e in shown]
        figures["offline_selection"] = (
            draw_estimates(rows, x_title="rank correlation with the score", at=0.0),
            "Rank correlation of training signals with the score over trainings, seeds averaged, each at the β that "
            f"the tune scenes choose; the {len(shown)} strongest of {len(bounded)}, of methods with at least "
            f"{FEWEST_TRAININGS} trainings. Bars: 95 % by Fisher's z, as if trainings were independent draws. A share "
            "in per cent: read after that share of the steps.",
        )
    return Section("selection", "Choosing without playing", tuple(text), (), figures)


def _said(found: Sequence[SignalCorrelation]) -> str:
    """What the signals together say."""
    asked = "Can a policy be chosen without playing it? "
    bounded = [each for each in found if not each.correlation.why]
    if not bounded:
        most = max(len(each.pairs) for each in found)
        return (
            f"{asked}This sweep cannot say: a rank correlation is read where a method has at least {FEWEST_TRAININGS} "
            f"trainings that differ in more than their seed, and the most that a method has here is {most}. So few are "
            f"ranked rightly by luck, by one or another of {count(len(found), 'signal')}."
        )
    deciding = [each for each in bounded if each.decides]
    strongest = max(bounded, key=lambda each: abs(each.correlation.value))
    return (
        f"{asked}Of {count(len(bounded), 'signal')} the strongest that was read, {_signal_label(strongest)}, has rank "
        f"correlation {strongest.correlation.text()} with the score over {count(len(strongest.pairs), 'training')} of "
        f"{method_label(strongest.method)}. "
        + (
            f"{count(len(deciding), 'signal has', 'signals have')} an interval beyond ½: "
            f"{'; '.join(map(_signal_label, deciding[:3]))}."
            if deciding
            else "None has an interval beyond ½, so none is shown to be fit to choose or to stop by."
        )
        + " Of several signals the strongest is strong by luck, too: intervals are for each alone. In them trainings "
        "are taken for independent draws, and a grid's are chosen: of settings outside they say nothing."
    )


def _signal_label(each: SignalCorrelation) -> str:
    return _read_at(each.signal, each.when)


def _read_at(signal: str, when: float) -> str:
    name = signal.replace("_", " ")
    return name if when >= 1 else f"{name}, at {100 * when:.0f} %"
