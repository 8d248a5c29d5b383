"""The comparisons of a report as one family: would other training seeds and scenes say the same?

`analysis.comparison` states each difference of the trained models as they are. Here it is one of methods: an interval
over training seeds and scenes, a p-value adjusted for how many comparisons there are, and what could have been found.

A cell that was fixed beforehand is scored at all its seeds. One that was chosen on the tune scenes is not: the best of
several cells has the luckiest seeds, on other scenes, too. There, for each training seed, the cell is chosen by the
tune scores of the *other* seeds and scored on the report scenes at this one (`analysis.honest.tuned`): the difference
is of methods as they are when tuned, and may be of several cells.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.cells import Cell, without_survivors
from analysis.comparison import Comparison
from analysis.honest import Tuned, tuned
from analysis.honest_table import FEWEST_SCENES, FEWEST_SEEDS, Ranged, training_of
from analysis.labels import method_label
from analysis.paired import bootstrap_difference, detectable, holm, p_value, paired_t, tuned_difference
from analysis.student import t_quantile
from analysis.text import DASH, markdown_table, number

BOOTSTRAP_SEEDS = 10
"""Fewer training seeds on a side get no bootstrap interval.

Coverage of nominal 95 % intervals of a difference over the simulated worlds (docs/statistics.md):

                                     2 seeds    3 seeds    5 seeds    10 seeds
    t over seeds and scenes          95-99 %    95-99 %   95-100 %   94-100 %
    hierarchical bootstrap          84-100 %   90-100 %   91-100 %   94-100 %
"""

TUNED = ", tuned,"
"""Behind the name of a method whose cell is chosen at each seed anew."""

HEADER = ("Comparison", "Difference [95 %]", "p", "p, Holm", "Detectable", "Bootstrap [95 %]", "Seeds")
NUMERIC = (False, True, True, True, True, True, True)


@dataclass(frozen=True)
class Inference:
    """What a comparison says of other training seeds and scenes.

    Attributes:
        name: `ILQL (τ 0.8) minus BC`, and `ILQL, tuned, minus BC` where the cell is chosen at each seed.
        difference: With its interval by Student's t over training seeds and scenes.
        p: Two-sided, of no difference; None where the interval is refused, like the next two.
        p_holm: Adjusted for the family.
        detectable: The difference that would be found four times in five, at a level of 5 %.
        bootstrap: The ends of the hierarchical bootstrap's interval; None for too few seeds, or chosen cells.
        seeds: Training seeds of the two sides.
    """

    name: str
    difference: Ranged
    p: float | None
    p_holm: float | None
    detectable: float | None
    bootstrap: tuple[float, float] | None
    seeds: tuple[int, int]


def family(cells: Sequence[Cell], comparisons: Sequence[Comparison], rng: np.random.Generator) -> tuple[Inference, ...]:
    """One line per comparison, in their order; Holm's adjustment is over those that have a p-value.

    Args:
        cells: The table's cells, those compared among them.
        comparisons: The family.
        rng: Draws the bootstrap.
    """
    by_id = {cell.cell_id: cell for cell in cells}
    found = [
        _of_chosen(each, cells) if each.is_chosen else _inference(each, by_id[each.pair[0]], by_id[each.pair[1]], rng)
        for each in comparisons
    ]
    tested = [index for index, each in enumerate(found) if each.p is not None]
    adjusted = holm([p for each in found if (p := each.p) is not None])
    p_holm = dict(zip(tested, adjusted, strict=True))
    return tuple(
        Inference(e.name, e.difference, e.p, p_holm.get(index), e.detectable, e.bootstrap, e.seeds)
        for index, e in enumerate(found)
    )


def family_rows(rows: Sequence[Inference]) -> tuple[tuple[str, ...], ...]:
    """The family as text, an entry per column of `HEADER`."""
    return tuple(_text(row) for row in rows)


def family_notes(rows: Sequence[Inference]) -> tuple[str, ...]:
    """What a reader must know of the numbers."""
    refused = sorted({row.difference.refused for row in rows if row.difference.refused is not None})
    notes = [
        "Difference: of mean returns on common episodes, with a 95 % interval over training seeds and scenes "
        "(Student's t). p: two-sided; Holm: for all comparisons here together.",
        "Detectable: the smallest true difference that such a comparison would find four times in five at a level of "
        "5 %; to find a smaller one, add training seeds or episodes.",
    ]
    if any(TUNED in row.name for row in rows):
        notes.append(
            "Tuned: for each training seed the cell is chosen by the tune scores of the other seeds, and scored at "
            "this one. The cell that is best at all seeds has lucky ones; its own difference says nothing of methods."
        )
    if any(row.bootstrap is None for row in rows):
        notes.append(
            f"No bootstrap with fewer than {BOOTSTRAP_SEEDS} seeds a side: it would be too narrow; nor of a method "
            "that is tuned."
        )
    return (*notes, *(f"No interval where there are {reason}." for reason in refused))


def family_markdown(rows: Sequence[Inference]) -> str:
    """Table and notes."""
    notes = "\n".join(f"{index}. {note}" for index, note in enumerate(family_notes(rows), 1))
    return f"{markdown_table(HEADER, family_rows(rows), NUMERIC)}\n\n{notes}\n"


def _inference(comparison: Comparison, first: Cell, second: Cell, rng: np.random.Generator) -> Inference:
    _, at_first, at_second = np.intersect1d(first.episode_seeds, second.episode_seeds, return_indices=True)
    sides = first.returns[:, at_first], second.returns[:, at_second]
    scenes, seeds = first.scenes[at_first], (len(first.seeds), len(second.seeds))
    name, value = f"{comparison.first.name} minus {comparison.second.name}", comparison.score.value
    if (refused := _too_few(seeds, scenes)) is not None:
        return Inference(name, Ranged(value, refused=refused), None, None, None, None, seeds)
    one = (first.method, training_of(first), first.seeds) == (second.method, training_of(second), second.seeds)
    _, error, degrees = (float(each) for each in paired_t(*sides, scenes, one_training=one))
    drawn = bootstrap_difference(*sides, scenes, rng, one_training=one) if min(seeds) >= BOOTSTRAP_SEEDS else None
    return _stated(name, value, error, degrees, drawn, seeds)


def _of_chosen(comparison: Comparison, cells: Sequence[Cell]) -> Inference:
    """The difference of methods where a side's cell was chosen: at every seed by the tune scores of the others."""
    kept = {cell.cell_id: cell for cell in without_survivors(cells)}
    by_id = {cell.cell_id: cell for cell in cells}
    sides = [
        [kept[name] for name in side.among if name in kept] if side.among else [by_id[side.cell_id]]
        for side in (comparison.first, comparison.second)
    ]
    as_they_are, value = f"{comparison.first.name} minus {comparison.second.name}", comparison.score.value
    common = [sorted(set.intersection(*(set(cell.seeds) for cell in side))) if side else [] for side in sides]
    seeds, refused = (len(common[0]), len(common[1])), None
    if not all(sides):
        refused = "no cells to choose among but those that a rung let through by their first seed"
    else:
        episodes = functools.reduce(np.intersect1d, [cell.episode_seeds for side in sides for cell in side])
        first = sides[0][0]
        scenes = first.scenes[np.isin(first.episode_seeds, episodes)]
        refused = _too_few(seeds, scenes)
    if refused is not None:
        return Inference(as_they_are, Ranged(value, refused=refused), None, None, None, None, seeds)
    found = [_tuned(side, own, episodes, scenes) for side, own in zip(sides, common, strict=True)]
    difference, error, degrees = (float(each) for each in tuned_difference(found[0], found[1], scenes))
    names = [
        f"{method_label(side.method)}{TUNED}" if side.among else side.name
        for side in (comparison.first, comparison.second)
    ]
    return _stated(f"{names[0]} minus {names[1]}", difference, error, degrees, None, seeds)


def _tuned(cells: Sequence[Cell], seeds: Sequence[int], episodes: NDArray[np.int64], scenes: NDArray[np.str_]) -> Tuned:
    """One side at these seeds and episodes, which all its cells have."""
    places = [[cell.seeds.index(seed) for seed in seeds] for cell in cells]
    returns = np.stack([
        cell.returns[own][:, np.isin(cell.episode_seeds, episodes)]
        for cell, own in zip(cells, places, strict=True)
    ])  # fmt: skip
    if len(cells) == 1:
        return tuned(returns, scenes)
    scores = [[(cell.tune_scores or ())[at] for at in own] for cell, own in zip(cells, places, strict=True)]
    return tuned(returns, scenes, np.array(scores), len({training_of(cell) for cell in cells}))


def _too_few(seeds: tuple[int, int], scenes: NDArray[np.str_]) -> str | None:
    if min(seeds) < FEWEST_SEEDS:
        return f"too few seeds, fewer than {FEWEST_SEEDS} on a side"
    if len(set(scenes.tolist())) < FEWEST_SCENES:
        return f"too few scenes, fewer than {FEWEST_SCENES}"
    return None


def _stated(
    name: str,
    value: float,
    error: float,
    degrees: float,
    drawn: tuple[float, float] | None,
    seeds: tuple[int, int],
) -> Inference:
    p = p_value(value, error, degrees)
    if p is None:  # two seeds that agree do not say how far a third one would lie
        refused = "seeds and scenes without any spread to measure it by"
        return Inference(name, Ranged(value, refused=refused), None, None, None, None, seeds)
    half = float(t_quantile(0.975, degrees)) * error
    return Inference(name, Ranged(value, value - half, value + half), p, None, detectable(error, degrees), drawn, seeds)


def _text(row: Inference) -> tuple[str, ...]:
    d = row.difference
    interval = "" if d.low is None else f" [{number(d.low)}, {number(d.high)}]"
    drawn = DASH if row.bootstrap is None else f"[{number(row.bootstrap[0])}, {number(row.bootstrap[1])}]"
    return (
        row.name,
        f"{number(d.value)}{interval}",
        _p(row.p),
        _p(row.p_holm),
        number(row.detectable),
        drawn,
        str(row.seeds[0]) if row.seeds[0] == row.seeds[1] else f"{row.seeds[0]} and {row.seeds[1]}",
    )


def _p(p: float | None) -> str:
    if p is None:
        return DASH
    return "< .001" if p < 0.001 else f"{p:.3f}".lstrip("0") if p < 1 else "1"
