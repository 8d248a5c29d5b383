"""Cells on common episodes as points of a landscape: their mean returns, and how the noise of those moves together.

Axes: *C* cells, *T* trainings (cells that share their weights at every seed), *S* seeds, *E* episodes, *K* scenes.

Cells that differ in decoding alone are played with the same weights: a lucky seed lifts all of them. And all cells play
the same scenes. So the noise of cell means is no matter of one variance: it is a matrix, and what is said of an effect
of tau and of one of beta has different errors from one and the same sweep (a split-plot design).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from analysis.bounded import TOO_FEW_SEEDS, TOO_MUCH_NOISE
from analysis.cells import Cell
from analysis.estimators import Floats, checked_returns
from analysis.labels import Value

FEWEST_DEGREES = 4
"""Degrees of freedom of the seeds below which intervals are withheld: `tests/coverage` shows where they cover."""

LEAST_RELIABILITY = 0.6
"""Below this, what is highest or near the best among cells is left to noise, and no interval of it is given."""


@dataclass(frozen=True, eq=False)
class Landscape:
    """The mean returns of cells, with the covariance of their noise.

    Attributes:
        settings: The hyperparameters of each cell, C of them.
        means: Mean return of each cell over its seeds and the common episodes, shape (C,).
        noise: Covariance of `means` around the cells' expected returns, shape (C, C), symmetric and not negative
            definite: training seeds and scenes as both are drawn. Without a second seed it holds scenes alone.
        trainings: The number of each cell's training, shape (C,).
        freedom: Degrees of freedom the seeds' part of `noise` stands on: Σ over trainings of (seeds − 1).
        seeds: The fewest training seeds of a cell.

    Raises:
        ValueError: The shapes do not fit.
    """

    settings: tuple[Mapping[str, Value], ...]
    means: Floats
    noise: Floats
    trainings: NDArray[np.int64]
    freedom: int
    seeds: int

    def __post_init__(self) -> None:
        cells = len(self.settings)
        for name, shape in (("means", (cells,)), ("noise", (cells, cells)), ("trainings", (cells,))):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {getattr(self, name).shape}")

    @cached_property
    def root(self) -> Floats:
        """R with R Rᵀ = `noise`, shape (C, C)."""
        return root_of(self.noise)

    def noise_draws(self, rng: np.random.Generator, draws: int) -> Floats:
        """Draws of the means' noise, shape (draws, C): normal with covariance `noise`, over √(χ²_f/f).

        The divisor is shared within a draw and makes the draws as heavy in the tails as a variance on f = `freedom`
        degrees of freedom asks for (a multivariate t; Cornish 1954).
        """
        return self._heavy(rng.standard_normal((draws, self.means.size)) @ self.root.T, rng)

    @property
    def reliability(self) -> float:
        """The share of the variance between the cells' means that is not noise, in [0, 1]; 0 where they are alike."""
        own = float(np.trace(self.noise) / self.means.size - self.noise.mean())  # of the noise, what is between cells
        seen = float(self.means.var())
        return max(0.0, 1.0 - own / seen) if seen > 0 else 0.0

    @property
    def unclear(self) -> str:
        """Why maxima over the cells have no intervals that cover: too few seeds, or noise as large as differences.

        Empty where they have. Seeds are asked first: of too few of them the noise is not known.
        """
        return self.unknown or ("" if self.reliability >= LEAST_RELIABILITY else TOO_MUCH_NOISE)

    @property
    def unknown(self) -> str:
        """Why `noise` is not known well enough for an interval, too few seeds; empty where it is."""
        return TOO_FEW_SEEDS if self.seeds < 2 or self.freedom < FEWEST_DEGREES else ""

    def likely_means(self, rng: np.random.Generator, draws: int) -> Floats:
        """Draws of what the cells' expected returns may be, given their means alone, shape (draws, C): means + noise.

        Draws around means that were pulled together first (empirical Bayes, with one variance for all cells or one for
        each term of the analysis of variance) made intervals that covered less in simulated worlds.
        """
        return self.means + self.noise_draws(rng, draws)

    def of(self, cells: Sequence[int]) -> Landscape:
        """The landscape of some of the cells, by their numbers."""
        at = np.asarray(cells, dtype=np.int64)
        return dataclasses.replace(
            self,
            settings=tuple(self.settings[cell] for cell in cells),
            means=self.means[at],
            noise=self.noise[np.ix_(at, at)],
            trainings=self.trainings[at],
        )

    def _heavy(self, normal: Floats, rng: np.random.Generator) -> Floats:
        if self.freedom < 1:
            return normal
        scale = np.sqrt(rng.chisquare(self.freedom, normal.shape[0]) / self.freedom)
        heavy: Floats = normal / scale[:, None]
        return heavy


def root_of(covariance: Floats) -> Floats:
    """R with R Rᵀ = `covariance`, shape (C, C); what rounding left below 0 counts as 0."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    root: Floats = vectors * np.sqrt(np.clip(values, 0.0, None))
    return root


def landscape_of(cells: Sequence[Cell]) -> Landscape:
    """The landscape of cells that have finished.

    Raises:
        ValueError: There is none, a cell has no finished seed, or they did not play the same episodes.
    """
    for cell in cells:
        if not cell.seeds:
            raise ValueError(
                f"a landscape needs a finished seed of every cell, got none of {cell.method} {cell.setting()}"
            )
        if not np.array_equal(cell.episode_seeds, cells[0].episode_seeds):
            raise ValueError(f"cells must have played the same episodes, those of {cell.setting()} are others")
    groups: dict[tuple[tuple[str, Value], ...], int] = {}
    trainings = [groups.setdefault(weights_key(cell), len(groups)) for cell in cells]
    return landscape(
        [cell.returns for cell in cells],
        [cell.seeds for cell in cells],
        trainings,
        cells[0].scenes if cells else np.empty(0),
        settings=[cell.hyperparameters for cell in cells],
    )


def weights_key(cell: Cell) -> tuple[tuple[str, Value], ...]:
    """What of a cell shapes its weights: cells with one such key share them, seed by seed."""
    shaping = [(column, value) for column, value in cell.hyperparameters.items() if not column.startswith("decode.")]
    return (("method", cell.method), *sorted(shaping, key=lambda each: each[0]))


def landscape(
    returns: Sequence[Floats],
    seeds: Sequence[Sequence[int]],
    trainings: Sequence[int],
    scenes: NDArray[np.generic],
    *,
    settings: Sequence[Mapping[str, Value]] | None = None,
) -> Landscape:
    """The landscape of cells by their returns.

    In y[c, s, e] = μ_c + a_cs + b_ce + ε_cse, with a alike within a training as far as the weights decide it and b, ε
    dependent within a scene, the noise of ȳ_c has three parts: seeds, scenes, and what is left of both. The covariance
    over seeds of the seeds' means holds the first and the third, that over scenes the second and the third; so the
    third, from the residuals of both, is taken off once (Owen 2007 for the two-way case).

    Args:
        returns: Of each cell, shape (S_c, E), finite.
        seeds: The seeds of its rows.
        trainings: The number of its training.
        scenes: The scene of each episode, shape (E,).
        settings: Its hyperparameters; empty ones if not given.

    Raises:
        ValueError: There is no cell, or the shapes do not fit.
    """
    if not returns:
        raise ValueError("a landscape needs at least one cell, got none")
    for each in returns:
        if checked_returns(each).shape[1] != scenes.size:
            raise ValueError(f"returns must be of {scenes.size} episodes, got {each.shape[1]}")
    order = np.argsort(scenes, kind="stable")
    _, first = np.unique(scenes[order], return_index=True)
    kinds = first.size

    def onto(values: Floats) -> Floats:
        """Each scene's part of the mean over episodes, (…, scenes) of (…, E), scaled to a covariance over scenes."""
        parts: Floats = np.add.reduceat(values[..., order], first, axis=-1)
        parts *= np.sqrt(kinds / (kinds - 1)) / scenes.size
        return parts

    count = len(returns)
    means = np.array([own.mean() for own in returns])
    noise = np.zeros((count, count))
    if kinds > 1:
        by_scene = np.stack([onto(own.mean(axis=0) - own.mean()) for own in returns], axis=1)
        noise += by_scene.T @ by_scene
    of_training: dict[int, list[int]] = {}
    for cell, training in enumerate(trainings):
        of_training.setdefault(training, []).append(cell)
    for members in of_training.values():  # seeds tie the cells of one training only
        place = {seed: row for row, seed in enumerate(sorted({s for cell in members for s in seeds[cell]}))}
        by_seed = np.zeros((len(place), len(members)))
        by_both = np.zeros((len(place), kinds, len(members)))
        for column, cell in enumerate(members):
            own, rows, s = returns[cell], [place[seed] for seed in seeds[cell]], returns[cell].shape[0]
            if s > 1:
                by_seed[rows, column] = (own.mean(axis=1) - own.mean()) / np.sqrt(s * (s - 1))
                residual = own - own.mean(axis=1, keepdims=True) - (own.mean(axis=0) - own.mean())
                if kinds > 1:
                    by_both[rows, :, column] = onto(residual) / np.sqrt(s * (s - 1))
        left = by_both.reshape(-1, len(members))
        noise[np.ix_(members, members)] += by_seed.T @ by_seed - left.T @ left
    root = root_of(noise)  # what was taken off may exceed what there was
    fewest = [min(len(seeds[cell]) for cell in members) for members in of_training.values()]
    made = Landscape(
        settings=tuple(settings) if settings is not None else tuple({} for _ in returns),
        means=means,
        noise=root @ root.T,
        trainings=np.asarray(trainings, dtype=np.int64),
        freedom=sum(number - 1 for number in fewest),
        seeds=min(len(own) for own in seeds),
    )
    vars(made)["root"] = root  # known already, and dear for many cells
    return made
