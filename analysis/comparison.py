"""Does one method beat another? A paired statement about two cells on common episodes.

Cells are chosen on the tune scenes and compared on the report scenes, so the choice does not flatter these trained
models, as they are. It flatters their methods: the cell that is best on the tune scenes is the one whose training seeds
were lucky, and on the report scenes it acts with the same weights. So a difference of chosen cells has no error over
training seeds here; `analysis.family` states that of the methods, with every choice made at other seeds.

Beside the difference stand the numbers that show *how* a score was reached: rewards are easy to improve on by ending
early or by saying nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from analysis.cells import Cell, varying
from analysis.estimators import (
    Estimate,
    PairedDifference,
    mean_over_episodes,
    paired_difference,
    standard_error_with_seeds,
)
from analysis.labels import Value, is_share, measure_label, method_label, value_label
from analysis.text import DASH, count, decimals_for, markdown_table, number, with_error


@dataclass(frozen=True)
class Side:
    """One of the two cells compared.

    Attributes:
        method: Its method.
        cell_id: Its key.
        setting: Its hyperparameters in one line, as far as they vary within a method.
        chosen: How it was chosen, in words.
        among: The ids of the cells that it was chosen among by their tune scores; none where nothing was chosen.
        score: Mean return on the common episodes, standard error over episodes.
        score_error_with_seeds: Standard error over episodes and training seeds; None with one seed, and where chosen.
        turns: Mean number of the agent's turns, standard error over episodes.
        tune_score: Its mean score on the tune scenes; None where it has none.
        seeds: Its finished training seeds.
        failed: Failed runs of its method.
        stopped: Stopped runs of its method.
        measures: Its diagnostics, averaged over episodes and seeds, by column.
    """

    method: str
    cell_id: str
    setting: str
    chosen: str
    among: tuple[str, ...]
    score: Estimate
    score_error_with_seeds: float | None
    turns: Estimate
    tune_score: float | None
    seeds: tuple[int, ...]
    failed: int
    stopped: int
    measures: Mapping[str, float]

    @property
    def name(self) -> str:
        """The method with its setting, `ILQL (τ 0.8, β 8)`."""
        label = method_label(self.method)
        return f"{label} ({self.setting})" if self.setting else label


@dataclass(frozen=True)
class Comparison:
    """`first` minus `second`, paired by episode.

    Attributes:
        first, second: The two cells.
        score: The difference in mean return; with no error over training seeds where a cell was chosen.
        turns: The difference in the agent's turns per episode.
        measured: The differences of measures, by column, as far as they are known episode by episode.
    """

    first: Side
    second: Side
    score: PairedDifference
    turns: PairedDifference
    measured: Mapping[str, PairedDifference] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """The difference in units of its standard error over scenes; None where it has none or one of zero.

        Episodes of one scene are a cluster, and the trained models count as they are; `ratio_with_seeds` also
        generalises over training seeds.
        """
        return _ratio(self.score.value, self.score.over_scenes)

    @property
    def ratio_with_seeds(self) -> float | None:
        """The difference in units of its standard error over scenes and training seeds; None where it has none."""
        return _ratio(self.score.value, self.score.with_seeds)

    @property
    def sentence(self) -> str:
        """The statement in one sentence, with interval, number of runs and failed runs."""
        d, decimals = self.score, self.decimals
        errors = [f"± {number(d.over_scenes, decimals)} s.e. over {count(d.scenes, 'scene')}"]
        if d.with_seeds is not None:
            errors.append(f"± {number(d.with_seeds, decimals)} over scenes and training seeds")
        ratios = [number(self.ratio, 1), number(self.ratio_with_seeds, 1)][: len(errors)]
        runs = len(self.first.seeds) + len(self.second.seeds)
        failed = self.first.failed + self.second.failed
        value = number(d.value, decimals)
        chosen = " Of these trained models as they are, since cells were chosen by what they score." * self.is_chosen
        return (
            f"{self.first.name} minus {self.second.name}: {value if value.startswith('−') else '+' + value} "
            f"({', '.join(errors)}; {' and '.join(ratios)} times the standard error), paired on "
            f"{count(d.episodes, 'episode')}, {count(runs, 'run')}; of the two methods' runs {failed:,} failed and "
            f"{self.first.stopped + self.second.stopped:,} stopped.{chosen}"
        )

    @property
    def is_chosen(self) -> bool:
        """Whether a side is the best of several cells, chosen with the training seeds that are compared."""
        return bool(self.first.among or self.second.among)

    @property
    def pair(self) -> tuple[str, str]:
        """The ids of the two cells."""
        return self.first.cell_id, self.second.cell_id

    @property
    def decimals(self) -> int:
        """How many decimals its scores are worth."""
        return decimals_for((self.score.over_scenes, self.score.with_seeds, self.first.score.standard_error))


ON_TUNE, FIXED = "best on the tune scenes", "fixed beforehand"
"""How a cell of a comparison was chosen, in words."""


def finished_cells(cells: Sequence[Cell], method: str) -> tuple[Cell, ...]:
    """The method's cells with a finished run.

    Raises:
        ValueError: There is none.
    """
    found = tuple(cell for cell in cells if cell.method == method and cell.seeds)
    if not found:
        have = sorted({cell.method for cell in cells if cell.seeds})
        raise ValueError(f"a comparison needs a finished run of {method!r}; finished: {', '.join(have) or 'none'}")
    return found


def candidates_on_tune(cells: Sequence[Cell], method: str) -> tuple[Cell, ...]:
    """The method's cells that a choice on the tune scenes is made among.

    Only cells with as many finished seeds as the method's best-replicated cell take part, so that one lucky seed does
    not win against means.

    Raises:
        ValueError: The method has no finished run, or none of those cells has a tune score.
    """
    finished = finished_cells(cells, method)
    most = max(len(cell.seeds) for cell in finished)
    found = tuple(cell for cell in finished if len(cell.seeds) == most and cell.tune_score is not None)
    if not found:
        raise ValueError(f"choosing a cell of {method!r} needs tune scores, got none in the column 'tune_score'")
    return found


def chosen_on_tune(cells: Sequence[Cell], method: str) -> Cell:
    """The one of `candidates_on_tune` with the highest tune score, averaged over seeds, the first of equals.

    Raises:
        ValueError: See there.
    """
    return max(candidates_on_tune(cells, method), key=lambda cell: cell.tune_score or 0.0)


def cell_at(cells: Sequence[Cell], method: str, hyperparameters: Mapping[str, Value]) -> Cell:
    """The method's finished cell with these values, `{"train.tau": .8, "decode.beta": 8}`, whatever its others are.

    A cell of the design goes before one of the refinement.

    Raises:
        ValueError: There is none, or several of one origin, so that more hyperparameters must be named.
    """
    wanted = ", ".join(f"{column} = {value_label(value)}" for column, value in hyperparameters.items())
    found = cells_with(finished_cells(cells, method), hyperparameters)
    if len(found) != 1:
        raise ValueError(f"exactly one finished cell of {method!r} must have {wanted}, got {len(found)}")
    return found[0]


def cells_with(cells: Sequence[Cell], hyperparameters: Mapping[str, Value]) -> list[Cell]:
    """The cells with these values, whatever their others are; those of the design alone if there are such."""
    found = [
        cell
        for cell in cells
        if all(_same(cell.hyperparameters.get(column), value) for column, value in hyperparameters.items())
    ]
    return [cell for cell in found if cell.origin == "design"] or found


def compare(
    cells: Sequence[Cell],
    first: Cell,
    second: Cell,
    *,
    first_chosen: str = "given",
    second_chosen: str = "given",
    first_among: Sequence[Cell] = (),
    second_among: Sequence[Cell] = (),
) -> Comparison:
    """The paired statement about two cells, on the episodes both have played.

    Args:
        cells: All cells of the table; they tell which hyperparameters vary and how many runs failed.
        first: A cell with a finished run.
        second: Another one.
        first_chosen: How `first` was chosen, in words.
        second_chosen: How `second` was chosen.
        first_among: The cells that `first` was chosen among, itself one of them; nothing is chosen among one or none.
        second_among: The same of `second`.

    Raises:
        ValueError: They are one cell, one has no finished run, or they have no episode in common.
    """
    if first.cell_id == second.cell_id:
        raise ValueError(f"a comparison is between two cells, got {first.cell_id!r} twice")
    for cell in (first, second):
        if not cell.seeds:
            raise ValueError(f"a comparison needs finished runs, got none for cell {cell.cell_id!r}")
    common, at_first, at_second = np.intersect1d(first.episode_seeds, second.episode_seeds, return_indices=True)
    if common.size == 0:
        raise ValueError(
            f"a paired comparison needs common episodes, got none of {first.cell_id!r}, {second.cell_id!r}"
        )
    if not np.array_equal(first.scenes[at_first], second.scenes[at_second]):
        raise ValueError(f"equal episode seeds must mean equal scenes; {first.cell_id!r} and {second.cell_id!r} differ")
    scenes = first.scenes[at_first]
    shown = varying(cells)
    score = paired_difference(first.returns[:, at_first], second.returns[:, at_second], scenes)
    if max(len(first_among), len(second_among)) > 1:
        score = dataclasses.replace(score, with_seeds=None)
    return Comparison(
        first=_side(cells, first, at_first, first_chosen, first_among, shown),
        second=_side(cells, second, at_second, second_chosen, second_among, shown),
        score=score,
        turns=paired_difference(first.turns[:, at_first], second.turns[:, at_second], scenes),
    )


def compare_chosen(cells: Sequence[Cell], method: str, baseline: str) -> Comparison:
    """`method` against `baseline`, each at the cell chosen on the tune scenes.

    Args:
        cells: All cells of the table.
        method: The method that is hoped to be better.
        baseline: The method it is held against.

    Raises:
        ValueError: See `chosen_on_tune` and `compare`.
    """
    return compare(
        cells,
        chosen_on_tune(cells, method),
        chosen_on_tune(cells, baseline),
        first_chosen=ON_TUNE,
        second_chosen=ON_TUNE,
        first_among=candidates_on_tune(cells, method),
        second_among=candidates_on_tune(cells, baseline),
    )


def compare_fixed(
    cells: Sequence[Cell],
    method: str,
    baseline: str,
    fixed: Mapping[str, Value],
    *,
    baseline_fixed: Mapping[str, Value] | None = None,
) -> Comparison:
    """`method` against `baseline` at hyperparameters that were fixed beforehand.

    A baseline without such a cell in its design (cloning has no β) stands at the one chosen on the tune scenes. One
    whose cell there has failed is not replaced by another: what was fixed beforehand would be chosen afterwards.

    Args:
        cells: All cells of the table, failed ones, too.
        method: The method that is hoped to be better.
        baseline: The method it is held against.
        fixed: Hyperparameters of one cell of `method`, such as `{"train.tau": .8, "decode.beta": 8.0}`.
        baseline_fixed: The baseline's, where they are others.

    Raises:
        ValueError: A cell that is fixed has no finished run, or is not one; see `cell_at` and `compare`.
    """
    first, wanted = cell_at(cells, method, fixed), fixed if baseline_fixed is None else baseline_fixed
    has = cells_with([cell for cell in cells if cell.method == baseline], wanted)
    if has or baseline_fixed is not None:
        return compare(cells, first, cell_at(cells, baseline, wanted), first_chosen=FIXED, second_chosen=FIXED)
    second, among = chosen_on_tune(cells, baseline), candidates_on_tune(cells, baseline)
    return compare(cells, first, second, first_chosen=FIXED, second_chosen=ON_TUNE, second_among=among)


def comparison_rows(comparison: Comparison) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Header and body of a comparison as text: a line per quantity, a column per side and one for the difference."""
    first, second, decimals = comparison.first, comparison.second, comparison.decimals
    d, turns = comparison.score, comparison.turns
    header = ("", first.name, second.name, "Difference")
    body = [
        ("chosen", first.chosen, second.chosen, DASH),
        (
            "mean return ± s.e. over episodes",
            with_error(first.score.value, first.score.standard_error, decimals),
            with_error(second.score.value, second.score.standard_error, decimals),
            with_error(d.value, d.over_episodes, decimals),
        ),
        ("s.e. over scenes", DASH, DASH, number(d.over_scenes, decimals)),
        (
            "s.e. over scenes and training seeds",
            number(first.score_error_with_seeds, decimals),
            number(second.score_error_with_seeds, decimals),
            number(d.with_seeds, decimals),
        ),
        ("difference / s.e. over scenes", "", "", number(comparison.ratio, 1)),
        ("difference / s.e. over scenes and seeds", "", "", number(comparison.ratio_with_seeds, 1)),
        (
            "mean return on the tune scenes",
            number(first.tune_score, decimals),
            number(second.tune_score, decimals),
            DASH,
        ),
        (
            "agent's turns per episode ± s.e.",
            with_error(first.turns.value, first.turns.standard_error),
            with_error(second.turns.value, second.turns.standard_error),
            with_error(turns.value, turns.over_episodes),
        ),
        *(_measure_row(column, comparison) for column in _measures(first, second)),
        ("training seeds", str(len(first.seeds)), str(len(second.seeds)), DASH),
        ("runs of the method failed", str(first.failed), str(second.failed), DASH),
        ("runs of the method stopped", str(first.stopped), str(second.stopped), DASH),
    ]
    return header, tuple(body)


def comparison_markdown(comparison: Comparison) -> str:
    """The statement in one sentence and its numbers as a table."""
    header, body = comparison_rows(comparison)
    return f"{comparison.sentence}\n\n{markdown_table(header, body, (False, True, True, True))}\n"


def _side(
    cells: Sequence[Cell], cell: Cell, at: np.ndarray, chosen: str, among: Sequence[Cell], shown: Sequence[str]
) -> Side:
    returns = cell.returns[:, at]
    siblings = [other for other in cells if other.method == cell.method]
    return Side(
        method=cell.method,
        cell_id=cell.cell_id,
        setting=cell.setting(shown),
        chosen=chosen,
        among=tuple(other.cell_id for other in among) if len(among) > 1 else (),
        score=mean_over_episodes(returns),
        score_error_with_seeds=None if len(among) > 1 else standard_error_with_seeds(returns),
        turns=mean_over_episodes(cell.turns[:, at]),
        tune_score=cell.tune_score,
        seeds=cell.seeds,
        failed=sum(other.failed for other in siblings),
        stopped=sum(other.stopped for other in siblings),
        measures=cell.measures,
    )


def _measures(first: Side, second: Side) -> tuple[str, ...]:
    known = dict.fromkeys((*first.measures, *second.measures))
    return tuple(column for column in known if column != "measure.turns")  # the table has the agent's turns already


def _measure_row(column: str, comparison: Comparison) -> tuple[str, str, str, str]:
    """A measure of both sides, and their difference, with its error over scenes where it is known."""
    a, b = comparison.first.measures.get(column), comparison.second.measures.get(column)
    paired, label = comparison.measured.get(column), measure_label(column)
    times, unit, points, decimals = (100, " %", " points", 1) if is_share(column) else (1, "", "", 2)
    error = None if paired is None or paired.over_scenes is None else times * paired.over_scenes
    if error is not None:
        label, decimals = f"{label}; ± s.e. over scenes", max(decimals, decimals_for((0.1 * error,)))

    def said(value: float | None, unit: str) -> str:
        return DASH if value is None else f"{number(times * value, decimals)}{unit}"

    if a is None or b is None:
        return (label, said(a, unit), said(b, unit), DASH)
    between = number(times * (a - b), decimals) if error is None else with_error(times * (a - b), error, decimals)
    return (label, said(a, unit), said(b, unit), f"{between}{points}")


def _ratio(value: float, error: float | None) -> float | None:
    return value / error if error else None


def _same(found: Value | None, wanted: Value) -> bool:
    if isinstance(found, int | float) and isinstance(wanted, int | float):
        return bool(found == wanted or np.isclose(found, wanted, rtol=1e-9))
    return found == wanted
