"""What share of the variance of a method's scores each hyperparameter explains, and each pair of them.

On a complete grid this is arithmetic, no model: the functional analysis of variance of a function on a finite product
(Hoeffding 1948; Hutter, Hoos and Leyton-Brown 2014 for hyperparameters), every level with equal weight,

    μ(h) = f_∅ + Σ_i f_i(h_i) + Σ_{i<j} f_ij(h_i, h_j) + …,    V_u = mean_h f_u(h)²,    share_u = V_u / Σ_{v≠∅} V_v,

where μ is a cell's expected return. What is measured is ȳ = μ + noise, and noise makes every V_u too large by what it
has of u itself, N_u = tr(P_u Σ)/C with the projection P_u onto u and the covariance Σ of the noise
(`analysis.landscape`); that is taken off, term by term: β's terms see no seed that all decodings share, tau's do.

Axes: *C* cells, *L* levels of a factor.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.bounded import TOO_FEW_SEEDS, Bounded, percentile_interval
from analysis.cells import Cell
from analysis.estimators import Floats
from analysis.labels import Value, hyperparameter_label, value_label
from analysis.landscape import FEWEST_DEGREES, Landscape, landscape_of

DRAWS = 2000


@dataclass(frozen=True)
class Term:
    """A main effect, an interaction of two, or all interactions of three and more.

    Attributes:
        columns: One hyperparameter, two, or none for the interactions of three and more together.
        share: Its share of the variance of the cells' expected returns, in [0, 1].
        sd: √V_u, in units of the score; 0 where noise alone would have made as much.
    """

    columns: tuple[str, ...]
    share: Bounded
    sd: Bounded

    @property
    def label(self) -> str:
        """`τ`, `τ × β`."""
        return " × ".join(map(hyperparameter_label, self.columns)) or "three and more"


@dataclass(frozen=True)
class Importance:
    """An analysis of variance of one method's grid.

    Attributes:
        method: The method.
        terms: Main effects, then pairs, then the rest if there are three factors and more; each sorted by share.
        levels: The levels of each factor, in the order of the cells.
        sigma: The standard deviation of the cells' expected returns, √Σ V_u, each V_u not below 0. `honest_table`'s
            σ lets what one part is short of its noise take from another, so it is lower where effects are small.
        noise_share: Of the variance between the cells' measured means, the share that training seeds and episodes
            alone would make, in [0, 1].
        cells: Number of cells.
        seeds: The fewest training seeds of a cell; with one, seed noise is in the shares and not in `noise_share`.
    """

    method: str
    terms: tuple[Term, ...]
    levels: Mapping[str, tuple[Value, ...]]
    sigma: Bounded
    noise_share: float
    cells: int
    seeds: int


@dataclass(frozen=True)
class AdaptiveImportance:
    """Importances of data that a search proposed, by PED-ANOVA (Watanabe, Bansal and Hutter 2023): made elsewhere.

    Attributes:
        arm: Whose proposals and design they rest on.
        shares: By column, how far its density among the best trainings is from its density among all, in shares of the
            sum; sorted. No shares of variance: they do not compare with those of `Importance`.
        trainings: Number of trainings.
        quantile: The share of them that counts as the best.
    """

    arm: str
    shares: Mapping[str, float]
    trainings: int
    quantile: float


def grid_importance(cells: Sequence[Cell], rng: np.random.Generator, *, draws: int = DRAWS) -> Importance:
    """The analysis of variance of the design cells of one method.

    Args:
        cells: Of one method; refinement cells among them are left out.
        rng: Draws the noise behind the intervals.
        draws: How often.

    Raises:
        ValueError: The cells are of several methods; a cell of the grid is missing or has not finished; nothing varies,
            or all cells are proposals of a search. The message is a reason to print.
    """
    methods = sorted({cell.method for cell in cells})
    if len(methods) != 1:
        raise ValueError(f"an analysis of variance is of one method, got {', '.join(methods) or 'none'}")
    design = [cell for cell in cells if cell.origin == "design"]
    if not design:
        raise ValueError("a search proposed all cells: they crowd where it expects the best, and show no variance")
    levels = complete_grid(design)
    ordered = {tuple(cell.hyperparameters[column] for column in levels): cell for cell in design}
    scape = landscape_of([ordered[key] for key in itertools.product(*levels.values())])
    return anova(scape, {name: tuple(values) for name, values in levels.items()}, methods[0], rng, draws=draws)


def complete_grid(cells: Sequence[Cell]) -> dict[str, list[Value]]:
    """The levels of every hyperparameter that varies among the cells, whose product the cells are.

    Raises:
        ValueError: They are not such a product, or one of them has not finished.
    """
    columns = list(dict.fromkeys(column for cell in cells for column in cell.hyperparameters))
    values: dict[str, list[Value]] = {}
    for column in columns:
        if not all(cell.has(column) for cell in cells):
            raise ValueError(f"some cells have no {column}: they are of different kinds, and no grid")
        seen = list(dict.fromkeys(cell.hyperparameters[column] for cell in cells))
        if len(seen) > 1:
            values[column] = sorted(seen, key=_by_size)
    if not values:
        raise ValueError("one cell, or cells alike: nothing varies")
    found: dict[tuple[Value, ...], list[Cell]] = {}
    for cell in cells:
        found.setdefault(tuple(cell.hyperparameters[column] for column in values), []).append(cell)
    for key in itertools.product(*values.values()):
        there = found.get(key, [])
        number = len(there)
        named = ", ".join(f"{hyperparameter_label(c)} {value_label(v)}" for c, v in zip(values, key, strict=True))
        if number != 1:
            raise ValueError(f"the grid is not complete: {number or 'no'} cell{'s' * (number > 1)} at {named}")
        if not there[0].seeds:
            raise ValueError(f"the grid is not complete: no run has finished at {named}")
    return values


def anova(
    scape: Landscape,
    levels: Mapping[str, tuple[Value, ...]],
    method: str,
    rng: np.random.Generator,
    *,
    draws: int = DRAWS,
) -> Importance:
    """The analysis of variance of a landscape whose cells are the product of `levels` in row-major order.

    Intervals: a world is made whose cells have the effects that were found, each shrunk to √(V_u / raw V_u) of itself
    so that its variance is what was estimated; noise is drawn and the shares are estimated again, noise taken off as
    before; the interval leaves out 2.5 % of these on either side (a parametric bootstrap over seeds and scenes). Those
    of √V_u and of σ are of the same draws.

    Raises:
        ValueError: The cells are not as many as the product of the levels.
    """
    dims = tuple(len(values) for values in levels.values())
    if int(np.prod(dims)) != scape.means.size:
        raise ValueError(f"a grid of {dims} has {int(np.prod(dims))} cells, got {scape.means.size}")
    noise = {u: float(part.sum()) for u, part in _variances(scape.root.T, dims).items()}
    raw = {u: float(part) for u, part in _variances(scape.means, dims).items()}
    found = {u: max(0.0, raw[u] - noise[u]) for u in raw}
    total = sum(found.values())

    centre = np.zeros(dims)
    for u, effect in _effects(scape.means, dims).items():
        if raw[u] > 0:
            centre = centre + np.sqrt(found[u] / raw[u]) * effect
    again = _variances(centre.ravel() + scape.noise_draws(rng, draws), dims)
    drawn = {u: np.maximum(0.0, part - noise[u]) for u, part in again.items()}
    whole = np.sum(list(drawn.values()), axis=0)

    names = tuple(levels)
    groups: dict[tuple[str, ...], list[tuple[int, ...]]] = {}
    for u in raw:
        groups.setdefault(tuple(names[i] for i in u) if len(u) < 3 else (), []).append(u)
    terms = []
    for columns, members in groups.items():
        variance = sum(found[u] for u in members)
        with np.errstate(invalid="ignore"):  # a draw in which noise alone would have made everything has no shares
            shares = np.sum([drawn[u] for u in members], axis=0) / whole
        sd = _root(variance, np.sum([drawn[u] for u in members], axis=0), scape)
        terms.append(Term(columns, _share(variance, total, shares, scape), sd))
    observed = sum(raw.values())
    return Importance(
        method=method,
        terms=tuple(sorted(terms, key=lambda term: (len(term.columns) or 3, -term.share.value))),
        levels=dict(levels),
        sigma=_root(total, whole, scape),
        noise_share=min(1.0, sum(noise.values()) / observed) if observed > 0 else 0.0,
        cells=scape.means.size,
        seeds=scape.seeds,
    )


def _share(variance: float, total: float, drawn: Floats, scape: Landscape) -> Bounded:
    if total <= 0:
        return Bounded(0.0, why="no variance beyond noise, nothing to share")
    if not _enough(scape):
        return Bounded(variance / total, why=TOO_FEW_SEEDS)
    return Bounded(variance / total, *percentile_interval(drawn))


def _root(variance: float, drawn: Floats, scape: Landscape) -> Bounded:
    """√`variance`, with the percentiles of the roots of what was drawn of it, shape (B,)."""
    if not _enough(scape):
        return Bounded(math.sqrt(variance), why=TOO_FEW_SEEDS)
    return Bounded(math.sqrt(variance), *percentile_interval(np.sqrt(drawn)))


def _enough(scape: Landscape) -> bool:
    return scape.seeds >= 2 and scape.freedom >= FEWEST_DEGREES


def _effects(x: Floats, dims: tuple[int, ...]) -> dict[tuple[int, ...], Floats]:
    """f_u of every subset u of the factors, from arrays of shape (..., C), each of shape (..., L_1, …) with ones."""
    grid = x.reshape(*x.shape[:-1], *dims)
    first = grid.ndim - len(dims)
    found = {}
    for size in range(1, len(dims) + 1):
        for u in itertools.combinations(range(len(dims)), size):
            effect = grid
            for factor in range(len(dims)):
                mean = effect.mean(axis=first + factor, keepdims=True)
                effect = effect - mean if factor in u else mean
            found[u] = effect
    return found


def _variances(x: Floats, dims: tuple[int, ...]) -> dict[tuple[int, ...], Floats]:
    """V_u of every subset of the factors, from arrays of shape (..., C), each of shape (...)."""
    axes = tuple(range(-len(dims), 0))
    return {u: np.square(effect).mean(axis=axes) for u, effect in _effects(x, dims).items()}


def _by_size(value: Value) -> tuple[int, float, str]:
    return (1, 0.0, value) if isinstance(value, str) else (0, float(value), "")
