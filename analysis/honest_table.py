"""The honest table: per method how good it is when tuned, and how much its hyperparameters move it.

Both are said of the method and not of the seeds at hand, beside the paper's numbers, which are repeated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from analysis.broken import broken_notes
from analysis.cells import Cell, best_cell, without_survivors
from analysis.estimators import Floats, population_sigma
from analysis.honest import FOLDS, best_checkpoint, leave_one_seed_out, tuned_decodings, tuned_max
from analysis.labels import in_order, method_label
from analysis.styles import Policy
from analysis.text import count, number
from analysis.variance import sigma

FEWEST_SEEDS, FEWEST_SEEDS_ALONE, FEWEST_SCENES = 2, 3, 20
"""Fewer training seeds or scenes get no interval; of one cell alone it would be of no use: t at one degree is 12.7.

Coverage of nominal 95 % intervals over the simulated worlds, lowest and highest (docs/statistics.md has all of them):

    tuned score, 2 cells or more     2 seeds  96-100 %   3 seeds  96-99 %   5 seeds  95-99 %
    tuned score, 1 cell              2 seeds  95-99 %    3 seeds  91-98 %   5 seeds  91-97 %
    best checkpoint                  2 seeds  94-98 %    3 seeds  93-98 %   5 seeds  92-98 %
    σ                                2 seeds  93-99 %    3 seeds  93-98 %   5 seeds  94-97 %

The lowest of one cell are worlds of skewed seed noise, which three seeds cannot show; in all others it holds 95 % and
more.
"""

MOST_FAILED = 0.2
"""Where failed runs count, and a larger share than this of the runs of cells that finished others, *tuned* has no
interval. Where a fifth of all runs fail it holds the truth in 95 to 99 % of worlds; of three tenths in 85 to 99."""

COUNTED = "failed runs count at a value that nobody played, whose noise is not known"
"""Why σ has no interval then: it would hold the truth in 72 to 100 % of worlds, by how runs fail."""


@dataclass(frozen=True)
class Ranged:
    """An estimate with its 95 % interval, or the reason why there is none.

    Attributes:
        value: The estimate; None where it cannot be made.
        low, high: The ends of the interval; None where there is none.
        refused: Why value or interval are missing; None where neither is.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    refused: str | None = None

    def __post_init__(self) -> None:
        numbers = [each for each in (self.value, self.low, self.high) if each is not None]
        if not all(map(math.isfinite, numbers)):
            raise ValueError(f"an estimate and its interval must be finite, got {numbers}")
        if (self.low is None) != (self.high is None) or (self.low is None) == (self.refused is None):
            raise ValueError(f"an interval has two ends or a reason, got {self.low}, {self.high}, {self.refused!r}")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"an interval must end where it begins or above, got [{self.low}, {self.high}]")


@dataclass(frozen=True)
class HonestRow:
    """One method's line.

    Attributes:
        method: Its name.
        tuned: How good it is when tuned: chosen on the tune scenes by all training seeds but one, scored at that one.
        checkpoint: How good the best trained model is: chosen on some scenes, scored on the others.
        paper_max: The highest mean return of a cell of those that `tuned` chooses from.
        optimism: `paper_max` less `tuned`, by how much the paper's number is above the truth of `tuned`. `paper_max` is
            a number of these runs and has no error: so the ends are those of `tuned`, taken from it.
        sigma: σ over its design cells.
        sigma_train: σ over its trainings, every checkpoint at the decoding that is best for it on other scenes.
        sigma_decode: σ over the decodings of the training that is best by those scores.
        paper_sigma: The population standard deviation of the cells' mean returns.
        sigma_bounds: σ with failed runs left out, and with them as bad as the worst; None where none failed. These are
            two ways of counting, and no bounds of anything in between; the second has no interval (`COUNTED`).
        cells: Cells that `tuned` chooses from.
        design_cells: Cells in `sigma`.
        seeds: Training seeds that all of them have.
        failed: Failed runs among its cells.
        chosen_on_tune: Whether `tuned` chooses by scores on the tune scenes: all of these cells' runs have one.
    """

    method: str
    tuned: Ranged
    checkpoint: Ranged
    paper_max: float | None
    optimism: Ranged
    sigma: Ranged
    sigma_train: Ranged
    sigma_decode: Ranged
    paper_sigma: float | None
    sigma_bounds: tuple[Ranged, Ranged] | None
    cells: int
    design_cells: int
    seeds: int
    failed: int
    chosen_on_tune: bool


@dataclass(frozen=True)
class HonestTable:
    """The rows, in the fixed order, and what a reader must know."""

    rows: tuple[HonestRow, ...]
    policy: Policy
    footnotes: tuple[str, ...]

    @property
    def possible(self) -> bool:
        """Whether some method has more than one training seed; else the table says only what is missing."""
        return any(row.seeds > 1 for row in self.rows)


@dataclass(frozen=True, eq=False)
class _Block:
    """Complete cells.

    Attributes:
        returns: Shape (K, S, E).
        tune: Scores on the tune scenes, shape (K, S); NaN where there is none.
        trainings: The training of each, shape (K,).
        design: Whether it is of the design, shape (K,).
        counted: Whether a run failed and counts nevertheless, at what the policy says, shape (K, S).
        scenes: Shape (E,).
    """

    returns: Floats
    tune: Floats
    trainings: NDArray[np.str_]
    design: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    scenes: NDArray[np.str_]

    @property
    def chosen_by(self) -> Floats | None:
        """What a cell is chosen by: tune scores, shape (K, S); None, the returns themselves, where one is missing."""
        return self.tune if np.isfinite(self.tune).all() else None

    def of(self, kept: NDArray[np.bool_]) -> _Block:
        return _Block(
            self.returns[kept],
            self.tune[kept],
            self.trainings[kept],
            self.design[kept],
            self.counted[kept],
            self.scenes,
        )


def honest_table(
    cells: Sequence[Cell],
    rng: np.random.Generator,
    *,
    policy: Policy = "exclude",
    floor: float | None = None,
    notes: Sequence[str] = (),
) -> HonestTable:
    """The honest table of `cells`.

    Args:
        cells: Of `analysis.cells.cells_of`, failed ones, too.
        rng: Draws the intervals of σ, method by method in their order.
        policy: What a failed run counts as.
        floor: The lowest return there can be; needed for the policy `floor`. Where it is given, the upper bound of σ
            with failed runs takes it, else the method's worst run.
        notes: What else a reader has to know: further footnotes.

    Raises:
        ValueError: The policy is unknown, or `floor` without one.
    """
    if policy not in get_args(Policy):
        raise ValueError(f"unknown policy {policy!r}; known: {', '.join(get_args(Policy))}")
    if policy == "floor" and floor is None:
        raise ValueError("the policy 'floor' needs the task's lowest return, got none; 'worst' needs nothing")
    methods = in_order(cell.method for cell in cells if cell.seeds)
    rows = tuple(_row(method, [c for c in cells if c.method == method], rng, policy, floor) for method in methods)
    return HonestTable(rows, policy, (*_footnotes(rows, cells, policy, floor), *notes))


def _row(
    method: str, cells: Sequence[Cell], rng: np.random.Generator, policy: Policy, floor: float | None
) -> HonestRow:
    block = _complete(cells, policy, floor)
    choosable = _complete(without_survivors(cells), policy, floor)
    k, s = len(choosable.returns), block.returns.shape[1]
    design = block.of(block.design)
    failed = sum(cell.failed for cell in cells)
    none = Ranged(None, refused="no cell has finished at every seed")
    survivors = Ranged(None, refused="no cells but those that a rung let through by their first seed")
    tuned = _tuned(choosable) if k else survivors if len(block.returns) else none
    highest = float(choosable.returns.mean(axis=(1, 2)).max()) if k else None
    return HonestRow(
        method=method,
        tuned=tuned,
        checkpoint=_checkpoint(block) if len(block.returns) else none,
        paper_max=highest,
        optimism=_below(highest, tuned),
        sigma=_sigma(design, rng, "cells"),
        sigma_train=_sigma(_tuned_trainings(design), rng, "trainings"),
        sigma_decode=_sigma(_best_training(design), rng, "decodings"),
        paper_sigma=population_sigma(design.returns.mean(axis=(1, 2))) if len(design.returns) else None,
        sigma_bounds=_bounds(cells, rng, floor) if failed else None,
        cells=k,
        design_cells=len(design.returns),
        seeds=s,
        failed=failed,
        chosen_on_tune=choosable.chosen_by is not None,
    )


def _complete(cells: Sequence[Cell], policy: Policy, floor: float | None) -> _Block:
    """The cells that have every seed that half of the design's have. Failed runs count as `policy` says."""
    finished = [cell for cell in cells if cell.seeds]
    known = sorted({seed for cell in finished for seed in cell.seeds})
    counted = [cell for cell in finished if cell.origin == "design"] or finished
    seeds = [seed for seed in known if 2 * sum(seed in cell.seeds for cell in counted) >= len(counted)]
    if not seeds:  # nothing has finished, or each cell at a seed of its own
        none, empty = np.empty(0, bool), np.empty((0, 0))
        return _Block(empty[..., None], empty, np.empty(0, np.str_), none, empty.astype(bool), np.empty(0, np.str_))
    worst = min((cell.returns[i] for cell in finished for i in range(len(cell.seeds))), key=lambda r: float(r.mean()))
    lost = np.full_like(worst, floor) if policy == "floor" and floor is not None else worst
    unseen = float(lost.mean())  # on the tune scenes, too, a failed run is taken to score what it counts as
    kept: list[Cell] = []
    returns: list[Floats] = []
    tune: list[list[float]] = []
    for cell in cells:
        missing = [seed for seed in seeds if seed not in cell.seeds]
        if missing and (policy == "exclude" or len(missing) > cell.failed):
            continue
        if cell.seeds and not np.array_equal(cell.episode_seeds, finished[0].episode_seeds):
            continue
        row = {seed: cell.returns[i] for i, seed in enumerate(cell.seeds)}
        kept.append(cell)
        returns.append(np.stack([row.get(seed, lost) for seed in seeds]))
        known_on_tune = dict(zip(cell.seeds, cell.tune_scores or (math.nan,) * len(cell.seeds), strict=True))
        tune.append([known_on_tune.get(seed, unseen) for seed in seeds])
    shape = (0, len(seeds), worst.size)
    return _Block(
        returns=np.stack(returns) if returns else np.empty(shape),
        tune=np.array(tune, dtype=np.float64).reshape(len(kept), len(seeds)),
        trainings=np.array([training_of(cell) for cell in kept], dtype=np.str_),
        design=np.array([cell.origin == "design" for cell in kept], dtype=bool),
        counted=np.array([[s not in cell.seeds for s in seeds] for cell in kept], dtype=bool).reshape(
            len(kept), len(seeds)
        ),
        scenes=finished[0].scenes,
    )


def training_of(cell: Cell) -> str:
    """What two cells share that act with the same weights: all their hyperparameters but those of decoding."""
    return repr([(name, value) for name, value in cell.hyperparameters.items() if not name.startswith("decode.")])


def _tuned(block: _Block) -> Ranged:
    k, seeds, _ = block.returns.shape
    fewest = FEWEST_SEEDS if k > 1 else FEWEST_SEEDS_ALONE
    if seeds < 2:
        return Ranged(None, refused="too few seeds: with one, luck and merit are the same number")
    if len(set(block.scenes.tolist())) < FEWEST_SCENES:
        value = float(leave_one_seed_out(block.returns, block.chosen_by).returns.mean())
        return Ranged(value, refused=f"too few scenes: fewer than {FEWEST_SCENES}")
    trainings = len(set(block.trainings.tolist()))
    found = tuned_max(block.returns, block.scenes, block.chosen_by, trainings)
    value, half = (float(each) for each in found)
    if seeds < fewest:
        return Ranged(value, refused=f"too few seeds: one cell alone needs {fewest}")
    of_alive = block.counted[~block.counted.all(axis=1)]
    if of_alive.size and of_alive.mean() > MOST_FAILED:
        return Ranged(value, refused=f"too many failed runs: more than {100 * MOST_FAILED:.0f} %")
    if half <= 1e-12 * abs(value):  # seeds that agree to the last digit do not say how far another would lie
        return Ranged(value, refused="seeds and scenes without any spread to measure it by")
    return Ranged(value, value - half, value + half)


def _below(highest: float | None, tuned: Ranged) -> Ranged:
    """`highest` less `tuned`, as far as that is known."""
    if highest is None or tuned.value is None:
        return Ranged(None, refused=tuned.refused)
    if tuned.low is None or tuned.high is None:
        return Ranged(highest - tuned.value, refused=tuned.refused)
    return Ranged(highest - tuned.value, highest - tuned.high, highest - tuned.low)


def _checkpoint(block: _Block) -> Ranged:
    scenes = len(set(block.scenes.tolist()))
    if scenes < FEWEST_SCENES:
        return Ranged(None, refused=f"too few scenes: fewer than {FEWEST_SCENES}")
    models = block.returns.reshape(-1, block.returns.shape[-1])
    value, half = (float(each) for each in best_checkpoint(models, block.scenes))
    return Ranged(value, value - half, value + half)


def _sigma(block: _Block | None, rng: np.random.Generator, over: str) -> Ranged:
    if block is None:
        return Ranged(None, refused="no training has several decodings")
    if len(block.returns) < 2:
        return Ranged(None, refused=f"fewer than two {over}")
    if block.returns.shape[1] < FEWEST_SEEDS:
        return Ranged(None, refused="too few seeds: with one, their noise cannot be told from hyperparameters")
    if len(set(block.scenes.tolist())) < FEWEST_SCENES:
        return Ranged(None, refused=f"too few scenes: fewer than {FEWEST_SCENES}")
    value, low, high = (float(each) for each in sigma(block.returns, block.trainings, block.scenes, rng))
    return Ranged(value, refused=COUNTED) if block.counted.any() else Ranged(value, low, high)


def _tuned_trainings(design: _Block) -> _Block | None:
    """One row per training, at the decoding best for each checkpoint; None where no training has several."""
    names = np.unique(design.trainings)
    if len(names) == len(design.trainings) or len(set(design.scenes.tolist())) < 2:
        return None
    tuned = tuned_decodings(design.returns, design.trainings, design.scenes)
    counted = np.stack([design.counted[design.trainings == name].any(axis=0) for name in names])
    unknown = np.full(tuned.shape[:2], math.nan)
    return _Block(tuned, unknown, names, np.ones(len(names), bool), counted, design.scenes)


def _best_training(design: _Block) -> _Block | None:
    tuned = _tuned_trainings(design)
    if tuned is None:
        return None
    best = tuned.trainings[int(tuned.returns.mean(axis=(1, 2)).argmax())]
    return design.of(design.trainings == best)


def _bounds(cells: Sequence[Cell], rng: np.random.Generator, floor: float | None) -> tuple[Ranged, Ranged]:
    worst: Policy = "worst" if floor is None else "floor"
    without, within = (_complete(cells, policy, floor) for policy in ("exclude", worst))
    return _sigma(without.of(without.design), rng, "cells"), _sigma(within.of(within.design), rng, "cells")


def _footnotes(
    rows: Sequence[HonestRow], cells: Sequence[Cell], policy: Policy, floor: float | None
) -> tuple[str, ...]:
    notes = [
        "Two questions. Tuned: how good is the method's next training, at the setting one would choose? For each "
        "training seed a cell is chosen by its score on the tune scenes at the other seeds, and scored on the report "
        "scenes at this one; the mean over seeds. Checkpoint: how good is the best of these trained models? Chosen on "
        f"four fifths of the scenes, scored on the rest, {FOLDS} times; the seeds' luck is part of it.",
        "Intervals are nominal 95 % ones: of Tuned over training seeds and scenes, of Checkpoint over scenes. "
        "Optimism: the highest mean of the same cells, as paper mode prints it, less Tuned; its interval is Tuned's, "
        "taken from that mean.",
        "σ: the population standard deviation of the true mean returns of a method's design cells (divided by their "
        "number: a grid's cells are all there are), with the variance that training seeds and scenes add to the cells' "
        "means taken out; 0 where the cells differ no more than that. In brackets, without that correction.",
        "σ, β tuned: over trainings, each trained model at the decoding best for it on other scenes. σ of decoding: "
        "over the decodings of the training that is best by those scores.",
    ]
    refined = [cell.method for cell in cells if cell.origin != "design" and cell.seeds]
    proposed = ", ".join(f"{method_label(name)} {count(refined.count(name), 'cell')}" for name in in_order(refined))
    if proposed:
        notes.append(
            f"Refused in every σ, because a search proposed them and a search crowds near its optimum: {proposed}. "
            "Tuned may choose them where they have every training seed."
        )
    unseen = [row.method for row in rows if row.cells > 1 and row.seeds > 1 and not row.chosen_on_tune]
    if unseen:
        notes.append(
            "Chosen on the report scenes themselves, for want of a tune score of every run, and so too high where "
            f"scenes mean something else to one cell than to another: {', '.join(map(method_label, unseen))}."
        )
    kept = without_survivors(cells)
    survivors = [cell.method for cell in cells if cell.seeds and cell not in kept]
    if survivors:
        named = ", ".join(
            f"{method_label(name)} {count(survivors.count(name), 'cell')}" for name in in_order(survivors)
        )
        notes.append(
            f"Tuned does not choose what a rung let through: {named}. They were trained on for their luck at the first "
            "training seed, and would be held against others at that seed as if nobody had looked."
        )
    for row in rows:
        finished = [c for c in cells if c.method == row.method and c.seeds]
        complete = [c for c in finished if c in kept]
        if row.cells < len(complete):
            left = count(len(complete) - row.cells, "cell")
            notes.append(f"{method_label(row.method)}: {left} without all {row.seeds} training seeds left out.")
            score = None if (best := best_cell(finished)) is None else best.score
            if score is not None and row.paper_max is not None and score.value > row.paper_max:
                value = number(score.value)
                notes.append(f"{method_label(row.method)}: its highest mean, {value}, is of a cell that is left out.")
    notes += broken_notes(cells)
    failed = [row for row in rows if row.sigma_bounds is not None]
    if failed:
        counted = {"exclude": "leave with their cell", "worst": "count as the method's worst run"}
        said = counted.get(policy, f"count as the lowest return, {number(floor)}")
        notes.append(f"Failed runs {said}.")
        lowest = "as bad as the method's worst run" if floor is None else f"at {number(floor)}"
        for row in failed:
            assert row.sigma_bounds is not None
            low, high = (f"{number(each.value)}" for each in row.sigma_bounds)
            notes.append(
                f"{method_label(row.method)}, {count(row.failed, 'failed run')}: σ {low} without them, {high} {lowest}."
            )
    return (*notes, *_refusals(rows))


def _refusals(rows: Sequence[HonestRow]) -> list[str]:
    """Why there is a dash, or a number without an interval, once per reason."""
    reasons: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        named = {
            "Tuned": row.tuned,
            "Optimism": row.optimism,
            "Checkpoint": row.checkpoint,
            "σ": row.sigma,
            "σ, β tuned": row.sigma_train,
            "σ of decoding": row.sigma_decode,
        }
        for name, ranged in named.items():
            if ranged.refused is not None:
                said = f"{'No number' if ranged.value is None else 'No interval'}, {ranged.refused}"
                reasons.setdefault(said, {}).setdefault(method_label(row.method), []).append(name)
    said_of = {
        said: ", ".join(f"{method} ({', '.join(names)})" for method, names in of.items())
        for said, of in reasons.items()
    }
    return [f"{said}: {of}." for said, of in said_of.items()]
