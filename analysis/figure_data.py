"""What each figure shows, as plain values: pure functions of cells, drawn by `analysis.figures`.

Axes: *T* values of tau, *B* values of beta, ascending; beta = ∞ (no language-model term) is the last category.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.ablation import AblationTable
from analysis.cells import Cell, best_cell, varying
from analysis.estimators import Estimate, Floats, population_sigma
from analysis.labels import in_order, method_label, value_label
from analysis.text import NOT_BELIEVED, count, decimals_for, number, with_error

TAU, BETA = "train.tau", "decode.beta"
GRID_METHODS = ("sarsa", "ilql")
"""The methods of the tau × beta grid: SARSA is its line tau = 0.5."""

SARSA_TAU = 0.5  # SARSA has no tau of its own: it is ILQL at this one, and has that row of a tau × beta grid

LEVEL_METHODS = ("filtered_bc", "bc")
"""What the curves over beta are held against: cloning, which is where beta = 0 ends."""

LABEL_SHARE = 0.055
"""The share of the horizontal axis that a method's name needs, however few cells the method has."""


@dataclass(frozen=True)
class TableLine:
    """A row of the ablation table, as it is drawn.

    Attributes:
        method: The method.
        label: Its name in print.
        score: Its max score.
        error: The standard error of `score`; 0 where there is none.
        text: Both as the table writes them.
        sigma: σ over its design cells; None for fewer than two.
        sigma_text: The same as the table writes it.
    """

    method: str
    label: str
    score: float
    error: float
    text: str
    sigma: float | None
    sigma_text: str


@dataclass(frozen=True)
class TablePicture:
    """The ablation table's rows with a score, in its order; with a caption."""

    lines: tuple[TableLine, ...]
    caption: str


@dataclass(frozen=True)
class CellPoint:
    """One cell in the figure of all cells.

    Attributes:
        method: Its method.
        setting: Its hyperparameters in one line; empty where none varies.
        origin: `design` or `refinement`.
        position: Where it stands on the horizontal axis.
        score: Its mean return with standard error over episodes; None where no run finished.
        seed_scores: The mean return at each training seed.
        failed: Number of its failed runs.
        stopped: Number of its stopped runs.
        best: True for the method's best cell.
        believed: False where the score is an estimate that is not believed.
    """

    method: str
    setting: str
    origin: str
    position: float
    score: Estimate | None
    seed_scores: tuple[float, ...]
    failed: int
    stopped: int
    best: bool
    believed: bool = True


@dataclass(frozen=True)
class MethodSlot:
    """A method's share of the horizontal axis, and the spread of its design cells.

    Attributes:
        method: The method.
        left, right: Where its share begins and ends; the cells stand in its middle, one apart.
        cells: Number of its cells with a finished run.
        mean: Mean over design cells; None where none has finished.
        sigma: Their population standard deviation; None for fewer than two.
        design_left, design_right: The positions of the first and the last design cell; None without `mean`.
    """

    method: str
    left: float
    right: float
    cells: int
    mean: float | None
    sigma: float | None
    design_left: float | None
    design_right: float | None


@dataclass(frozen=True)
class ScoreByCell:
    """Every cell's score, grouped by method; with a caption."""

    points: tuple[CellPoint, ...]
    slots: tuple[MethodSlot, ...]
    caption: str


@dataclass(frozen=True)
class BetaCurve:
    """Score against beta at one tau.

    Attributes:
        method: The method of its cells; `ilql` where both have some at this tau.
        tau: The expectile.
        label: `τ = 0.5 (SARSA)`.
        positions: Indices into the betas of the figure, ascending.
        scores: The score at each position.
        believed: False at each position whose score is an estimate that is not believed.
    """

    method: str
    tau: float
    label: str
    positions: tuple[int, ...]
    scores: tuple[Estimate, ...]
    believed: tuple[bool, ...]


@dataclass(frozen=True)
class BetaCurves:
    """Score against beta, a curve per tau, with the best cells of cloning for comparison.

    Attributes:
        betas: Ascending, ∞ last.
        curves: By tau, ascending.
        levels: (method, name, score) of the best cell of each of `LEVEL_METHODS`.
        caption: What is drawn, and of how many runs.
    """

    betas: tuple[float, ...]
    curves: tuple[BetaCurve, ...]
    levels: tuple[tuple[str, str, Estimate], ...]
    caption: str


@dataclass(frozen=True, eq=False)
class HeatMap:
    """Score over the tau × beta grid.

    Attributes:
        taus: Ascending, T of them.
        tau_labels: How each tau is written, `0.5 (SARSA)`.
        betas: Ascending, ∞ last, B of them.
        scores: Shape (T, B), NaN where no run finished.
        text: Per field, `−5.80 ± 0.15`, or why it is empty; T tuples of B.
        caption: What is drawn, and of how many runs.
    """

    taus: tuple[float, ...]
    tau_labels: tuple[str, ...]
    betas: tuple[float, ...]
    scores: Floats
    text: tuple[tuple[str, ...], ...]
    caption: str


@dataclass(frozen=True)
class Line:
    """A method's line over some categories.

    Attributes:
        method: The method.
        label: Its name in print.
        positions: Indices into the categories, ascending.
        values: The value at each.
        errors: Its standard error.
    """

    method: str
    label: str
    positions: tuple[int, ...]
    values: tuple[float, ...]
    errors: tuple[float, ...]


@dataclass(frozen=True)
class RankCurve:
    """The share of pairs that a method at one expectile ranks rightly, at each token.

    Attributes:
        method: The method.
        label: `ILQL, τ 0.8`.
        place: Where the pairs are.
        shares: Of the pairs that differ by this token, the share ranked rightly, seeds averaged; None where none does.
        low, high: Wilson's 95 % interval, of as many pairs as those of the same two words leave: see `analysis.q_rank`.
        pairs: How many pairs differ by this token.
        seeds: Training seeds.
    """

    method: str
    label: str
    place: str
    shares: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    pairs: tuple[int, ...]
    seeds: int


def table_picture(table: AblationTable) -> TablePicture:
    """The numbers of a table that a picture can show: max score and σ of every row that has a score."""
    decimals = decimals_for(row.standard_error for row in table.rows)
    lines = tuple(
        TableLine(
            method=row.method,
            label=method_label(row.method),
            score=row.score,
            error=row.standard_error or 0.0,
            text=with_error(row.score, row.standard_error, decimals, believed=row.doubt is None),
            sigma=row.sigma,
            sigma_text=number(row.sigma),
        )
        for row in table.rows
        if row.score is not None
    )
    return TablePicture(
        lines,
        f"The table as a picture. Dots: a method's max {'estimate' if table.estimated else 'score'} with one standard "
        f"error over episodes; bars: σ over its design cells. {table.caption}",
    )


def score_by_cell(cells: Sequence[Cell], *, gap: float = 2.0, estimated: bool = False) -> ScoreByCell:
    """Every cell at its own place: methods in their order, cells one apart, `gap` more between methods.

    A method of few cells among many others is given more room, so that its name can stand below it. `estimated` says
    that scores are estimates and no returns, as for the figures below.
    """
    shown = varying(cells)
    methods = in_order(cell.method for cell in cells)
    narrowest = _narrowest([sum(cell.method == method for cell in cells) + gap for method in methods])
    points: list[CellPoint] = []
    slots: list[MethodSlot] = []
    position = 0.0
    for method in methods:
        own = [cell for cell in cells if cell.method == method]
        best = best_cell(own)
        room = max(0.0, narrowest - len(own) - gap)
        placed = [(position + room / 2 + index, cell) for index, cell in enumerate(own)]
        points += [_point(at, cell, cell is best, shown) for at, cell in placed]
        slots.append(_slot(method, placed, room))
        position += len(own) + room + gap
    return ScoreByCell(tuple(points), tuple(slots), _cells_caption(cells, _mean(estimated)))


def has_grid(cells: Sequence[Cell]) -> bool:
    """True if design cells of SARSA or ILQL have a beta: the figures over beta have something to show."""
    return bool(_grid(cells))


def beta_curves(cells: Sequence[Cell], *, estimated: bool = False) -> BetaCurves:
    """Score against beta per tau, over design cells.

    Raises:
        ValueError: No design cell of SARSA has `decode.beta`, none of ILQL has it and `train.tau`, or two share both.
    """
    grid = _checked_grid(cells)
    betas = tuple(sorted({beta for _, beta in grid}))
    curves = []
    for tau in sorted({tau for tau, _ in grid}):
        line = [(betas.index(beta), grid[tau, beta]) for beta in betas if (tau, beta) in grid]
        done = [(at, cell.score, cell.doubt is None) for at, cell in line if cell.score is not None]
        curves.append(
            BetaCurve(
                method=_curve_method([cell for _, cell in line]),
                tau=tau,
                label=f"τ = {_tau_label(tau, [cell for _, cell in line])}",
                positions=tuple(at for at, _, _ in done),
                scores=tuple(score for _, score, _ in done),
                believed=tuple(believed for _, _, believed in done),
            )
        )
    caption = _grid_caption(cells, grid, f"{_mean(estimated)} against β, by τ.", "Hollow")
    return BetaCurves(betas, tuple(curves), _levels(cells), caption)


def heat_map(cells: Sequence[Cell], *, estimated: bool = False) -> HeatMap:
    """Score over the tau × beta grid of design cells.

    Raises:
        ValueError: No design cell of SARSA has `decode.beta`, none of ILQL has it and `train.tau`, or two share both.
    """
    grid = _checked_grid(cells)
    taus, betas = tuple(sorted({tau for tau, _ in grid})), tuple(sorted({beta for _, beta in grid}))
    scores = np.full((len(taus), len(betas)), math.nan)
    text = [["not run"] * len(betas) for _ in taus]
    for (tau, beta), cell in grid.items():
        row, column = taus.index(tau), betas.index(beta)
        if cell.score is not None:
            scores[row, column] = cell.score.value
            mark = "" if cell.doubt is None else f" {NOT_BELIEVED}"
            text[row][column] = f"{number(cell.score.value)}<br>± {number(cell.score.standard_error)}{mark}"
        else:
            text[row][column] = "failed" if cell.failed else "stopped"
    caption = _grid_caption(cells, grid, f"{_mean(estimated)} over the τ × β grid.", NOT_BELIEVED)
    labels = tuple(_tau_label(tau, [cell for (row, _), cell in grid.items() if row == tau]) for tau in taus)
    return HeatMap(taus, labels, betas, scores, tuple(tuple(row) for row in text), caption)


def _point(position: float, cell: Cell, best: bool, shown: Sequence[str]) -> CellPoint:
    return CellPoint(
        method=cell.method,
        setting=cell.setting(shown),
        origin=cell.origin,
        position=position,
        score=cell.score,
        seed_scores=cell.seed_scores,
        failed=cell.failed,
        stopped=cell.stopped,
        best=best,
        believed=cell.doubt is None,
    )


def _narrowest(widths: Sequence[float]) -> float:
    """The least width of a slot: what is narrower is widened to `LABEL_SHARE` of the axis as it is then.

    x = LABEL_SHARE · Σ_i max(w_i, x), by iteration, a contraction as long as there is room for every name; 0 otherwise.
    """
    if len(widths) * LABEL_SHARE >= 1:
        return 0.0
    narrowest = 0.0
    for _ in range(200):
        narrowest = LABEL_SHARE * sum(max(width, narrowest) for width in widths)
    return narrowest


def _slot(method: str, placed: Sequence[tuple[float, Cell]], room: float) -> MethodSlot:
    design = [(at, score.value) for at, cell in placed if cell.origin == "design" and (score := cell.score) is not None]
    values = np.array([value for _, value in design], dtype=np.float64)
    return MethodSlot(
        method=method,
        left=placed[0][0] - room / 2,
        right=placed[-1][0] + room / 2,
        cells=sum(bool(cell.seeds) for _, cell in placed),
        mean=float(values.mean()) if design else None,
        sigma=population_sigma(values),
        design_left=design[0][0] if design else None,
        design_right=design[-1][0] if design else None,
    )


def _grid(cells: Sequence[Cell]) -> dict[tuple[float, float], list[Cell]]:
    grid: dict[tuple[float, float], list[Cell]] = {}
    for cell in cells:
        tau = SARSA_TAU if cell.method == "sarsa" else cell.hyperparameters.get(TAU)
        if cell.method in GRID_METHODS and cell.origin == "design" and tau is not None and cell.has(BETA):
            grid.setdefault((float(tau), float(cell.hyperparameters[BETA])), []).append(cell)
    return grid


def _checked_grid(cells: Sequence[Cell]) -> dict[tuple[float, float], Cell]:
    grid = _grid(cells)
    if not grid:
        raise ValueError(f"a figure over β needs a design cell of SARSA with {BETA!r}, or of ILQL with it and {TAU!r}")
    for (tau, beta), found in grid.items():
        if len(found) > 1:
            raise ValueError(
                f"a tau × beta grid has one cell a field, got {len(found)} at tau {tau}, beta {beta}; select among "
                f"{', '.join(column for column in varying(found)) or 'methods'}"
            )
    return {field: found[0] for field, found in grid.items()}


def _tau_label(tau: float, line: Sequence[Cell]) -> str:
    method = _curve_method(line)
    return value_label(tau) + (f" ({method_label(method)})" if method != "ilql" else "")


def _curve_method(line: Sequence[Cell]) -> str:
    return "ilql" if any(cell.method == "ilql" for cell in line) else "sarsa"


def _levels(cells: Sequence[Cell]) -> tuple[tuple[str, str, Estimate], ...]:
    levels = []
    for method in LEVEL_METHODS:
        own = [cell for cell in cells if cell.method == method]
        best = best_cell(own)
        if best is not None and best.score is not None:
            mark = "" if best.doubt is None else f" {NOT_BELIEVED}"
            name = method_label(method) + (", best cell" if len(own) > 1 else "") + mark
            levels.append((method, name, best.score))
    return tuple(levels)


def _total(cells: Sequence[Cell], of: Callable[[Cell], int]) -> int:
    return sum(of(cell) for cell in cells)


def _runs(cells: Sequence[Cell]) -> str:
    finished = _total(cells, lambda cell: len(cell.seeds))
    failed, stopped = _total(cells, lambda cell: cell.failed), _total(cells, lambda cell: cell.stopped)
    episodes = max((cell.returns.shape[1] for cell in cells if cell.seeds), default=0)
    seeds = sorted({len(cell.seeds) for cell in cells if cell.seeds})
    per_cell = f"{seeds[0]} to {seeds[-1]} training seeds" if len(seeds) > 1 else count(sum(seeds), "training seed")
    return (
        f"{count(sum(bool(cell.seeds) for cell in cells), 'cell')} with {per_cell} each, {count(episodes, 'episode')} "
        f"per run; {count(finished, 'run')} finished, {failed:,} failed, {stopped:,} stopped."
    )


def _mean(estimated: bool) -> str:
    return "Mean estimate" if estimated else "Mean return"


def _cells_caption(cells: Sequence[Cell], what: str) -> str:
    seeds = any(len(cell.seeds) > 1 for cell in cells)
    error = ", training seeds averaged per episode; faint dots: single training seeds" if seeds else ""
    hollow = "Hollow: an estimate that is not believed. " if any(cell.doubt is not None for cell in cells) else ""
    return (
        f"{what} of every cell, by method. Bars: one standard error over episodes{error}; line and band: mean and "
        "population standard deviation σ of the method's design cells; ring: the method's best cell. "
        + hollow
        + _runs(cells)
    )


def _grid_caption(cells: Sequence[Cell], grid: dict[tuple[float, float], Cell], subject: str, mark: str) -> str:
    """The caption of what `subject` says is drawn; `mark` is what an estimate has there that is not believed."""
    refinement = sum(cell.origin == "refinement" and cell.method in GRID_METHODS for cell in cells)
    left_out = f" {count(refinement, 'refinement cell')} not drawn." if refinement else ""
    doubted = (
        f" {mark}: an estimate that is not believed." if any(cell.doubt is not None for cell in grid.values()) else ""
    )
    infinity = " β = ∞: no language-model term." if any(math.isinf(beta) for _, beta in grid) else ""
    drawn = f"{subject} Design cells of SARSA (τ = 0.5) and ILQL; ± is one standard error over episodes."
    return f"{drawn}{infinity}{doubted} {_runs(list(grid.values()))}{left_out}"
