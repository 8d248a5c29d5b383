"""Simulated sweeps whose truth is known: what an estimator says of them can be held against it.

Axes: *W* worlds, *K* cells, *S* training seeds, *E* episodes; the K = trainings · decodings cells lie in row-major
order: the decodings of one training stand side by side and share its weights. The return of cell k = (t, b) at seed s
is

    y[k, s, e] = mean + config[t] + curve[b] + decoding[b] + both[t, b]      what the settings do, a cell's truth
               + common[s] + seed[t, s] + seed_by_decoding[t, b, s]          what the training seed does
               + scene[i] + cell_by_scene[k, i] + training_by_scene[t, s, i] where i is the scene of episode e
               + episode[k, s, e]

with independent effects of mean 0 and the standard deviations of `World`. All cells and seeds play the same scenes. The
curve is the same in all worlds: highest at the decodings in the middle, as scores are of a dose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Tails: TypeAlias = Literal["normal", "t3", "skewed"]
TAILS: tuple[Tails, ...] = ("normal", "t3", "skewed")


@dataclass(frozen=True, kw_only=True)
class World:
    """How sweeps are drawn. All effects are normal but those of seeds, scenes and episodes, which have `tails`.

    Attributes:
        trainings: Settings of the training bag, T.
        decodings: Settings of the decoding bag that each training is played with, B.
        seeds: Training seeds S of every training.
        episodes: Episodes E of every evaluation.
        episodes_per_scene: Episodes e with equal e // episodes_per_scene are of one scene.
        mean: The expected return.
        config_sd: Of the effect of a training's setting.
        decoding_sd: Of the effect that a decoding has on all trainings.
        config_by_decoding_sd: Of what a decoding does to one training beyond that.
        curvature: The curve is −curvature · d² at a decoding that is d places from the middle, or from its plateau.
        plateau: Places on either side of the middle at which the curve is as high as there.
        seed_sd: Of a training seed's effect on one training, shared by all its decodings.
        seed_sd_varies: How much `seed_sd` differs between trainings: it is f · seed_sd with log f normal of this sd and
            E f² = 1.
        seed_common_sd: Of a training seed's effect on all trainings alike.
        seed_by_decoding_sd: Of a training seed's effect on one cell beyond those two.
        scene_sd: Of a scene's effect on all cells.
        cell_by_scene_sd: Of a scene's effect on one cell, whatever the seed.
        training_by_scene_sd: Of a scene's effect on one trained model, whatever the decoding.
        episode_sd: Of the noise of one episode.
        tails: `normal`; `t3`, Student's t with 3 degrees of freedom; `skewed`, an exponential turned to the left, as
            returns are that are bounded above. All are scaled to sd 1.
        failures: Probability that a training at one seed fails, and with it all its decodings there.
        hopeless: Trainings that fail at every seed.
    """

    trainings: int = 12
    decodings: int = 1
    seeds: int = 3
    episodes: int = 256
    episodes_per_scene: int = 1
    mean: float = 0.0
    config_sd: float = 1.0
    decoding_sd: float = 0.0
    config_by_decoding_sd: float = 0.0
    curvature: float = 0.0
    plateau: float = 0.0
    seed_sd: float = 0.5
    seed_sd_varies: float = 0.0
    seed_common_sd: float = 0.0
    seed_by_decoding_sd: float = 0.0
    scene_sd: float = 2.0
    cell_by_scene_sd: float = 0.0
    training_by_scene_sd: float = 0.0
    episode_sd: float = 3.0
    tails: Tails = "normal"
    failures: float = 0.0
    hopeless: int = 0

    def __post_init__(self) -> None:
        sizes = (self.trainings, self.decodings, self.seeds, self.episodes, self.episodes_per_scene)
        if min(sizes) < 1 or self.episodes % self.episodes_per_scene:
            raise ValueError(f"sizes must be at least 1 and scenes whole, got {sizes}")
        spreads = {name: value for name, value in vars(self).items() if "_sd" in name}
        wrong = {name: sd for name, sd in spreads.items() if not 0 <= sd < math.inf}
        if wrong:
            raise ValueError(f"a standard deviation must be finite and not negative, got {wrong}")
        if self.tails not in TAILS:
            raise ValueError(f"unknown tails {self.tails!r}; known: {', '.join(TAILS)}")
        if not 0 <= self.failures < 1:
            raise ValueError(f"failures must be a probability below 1, got {self.failures}")
        if not 0 <= self.hopeless < self.trainings:
            raise ValueError(f"some trainings must not be hopeless, got {self.hopeless} of {self.trainings} that are")

    @property
    def cells(self) -> int:
        """K, all trainings at all decodings."""
        return self.trainings * self.decodings

    @property
    def curve(self) -> Floats:
        """Of the decodings, shape (B,)."""
        places = np.abs(np.arange(self.decodings) - (self.decodings - 1) / 2)
        found: Floats = -self.curvature * np.square(np.maximum(0.0, places - self.plateau))
        return found

    @property
    def fails(self) -> Floats:
        """The probability with which each cell fails at a seed, shape (K,)."""
        return np.where(self.training_of < self.hopeless, 1.0, self.failures)

    @property
    def training_of(self) -> NDArray[np.int64]:
        """The training of each cell, shape (K,)."""
        return np.repeat(np.arange(self.trainings), self.decodings)

    @property
    def scenes(self) -> NDArray[np.int64]:
        """The scene of each episode, shape (E,)."""
        return np.arange(self.episodes) // self.episodes_per_scene


@dataclass(frozen=True, eq=False)
class Sample:
    """What was drawn, and what is true of it. With `sample_many` every array has W in front.

    Attributes:
        returns: Shape (K, S, E); NaN where the training failed.
        means: The truth of each cell: its expected return over seeds and scenes, shape (K,).
        checkpoint_means: The truth of each trained model: its expected return over scenes, shape (K, S).
        finished: False where the training failed, shape (K, S).
    """

    returns: Floats
    means: Floats
    checkpoint_means: Floats
    finished: NDArray[np.bool_]

    @property
    def scores(self) -> Floats:
        """The mean return of every run, shape (K, S); NaN where it failed."""
        scores: Floats = self.returns.mean(axis=-1)
        return scores

    @property
    def best(self) -> Floats:
        """The highest true mean of a cell."""
        best: Floats = self.means.max(axis=-1)
        return best

    @property
    def sigma(self) -> Floats:
        """The population standard deviation of the cells' true means: the paper's σ without any noise."""
        return population_sd(self.means)

    def sigma_train(self, decodings: int) -> Floats:
        """The same over trainings, each at the decoding that is truly best for it."""
        return population_sd(self._grid(decodings).max(axis=-1))

    def sigma_decode(self, decodings: int) -> Floats:
        """The same over the decodings of the training that holds the truly best cell."""
        grid = self._grid(decodings)
        at = grid.max(axis=-1).argmax(axis=-1)[..., None, None]
        return population_sd(np.take_along_axis(grid, at, axis=-2)[..., 0, :])

    def _grid(self, decodings: int) -> Floats:
        return self.means.reshape(*self.means.shape[:-1], -1, decodings)


def population_sd(means: Floats) -> Floats:
    """√(Σ (x − x̄)² / K) over the last axis."""
    sd: Floats = means.std(axis=-1, ddof=0)
    return sd


def sample(world: World, rng: np.random.Generator) -> Sample:
    """One sweep; its arrays begin with K."""
    many = sample_many(world, rng, 1)
    return Sample(many.returns[0], many.means[0], many.checkpoint_means[0], many.finished[0])


def sample_many(world: World, rng: np.random.Generator, worlds: int) -> Sample:
    """`worlds` independent sweeps at once; arrays begin with (W, K). Effects of sd 0 cost nothing."""
    w, s, i = world, world.seeds, world.episodes // world.episodes_per_scene
    t, b = world.trainings, world.decodings

    def settings(sd: float, *shape: int) -> Floats:
        return sd * rng.standard_normal((worlds, *shape)) if sd else np.zeros((1,) * (len(shape) + 1))

    def noise(sd: float, *shape: int) -> Floats:
        return sd * standardised(w.tails, rng, (worlds, *shape)) if sd else np.zeros((1,) * (len(shape) + 1))

    means = (
        w.mean
        + settings(w.config_sd, t, 1)
        + settings(w.decoding_sd, 1, b)
        + settings(w.config_by_decoding_sd, t, b)
        + w.curve
        + np.zeros((worlds, t, b))
    )
    unequal = np.exp(settings(w.seed_sd_varies, t, 1, 1) - w.seed_sd_varies**2)
    by_training = unequal * noise(w.seed_sd, t, 1, s)
    by_seed = noise(w.seed_common_sd, 1, 1, s) + by_training + noise(w.seed_by_decoding_sd, t, b, s)
    trained = means[..., None] + by_seed + np.zeros(s)
    by_scene = (
        noise(w.scene_sd, 1, 1, 1, i)
        + noise(w.cell_by_scene_sd, t, b, 1, i)
        + noise(w.training_by_scene_sd, t, 1, s, i)
        + np.zeros(i)
    )
    returns = noise(w.episode_sd, t, b, s, w.episodes) + trained[..., None] + np.zeros(w.episodes)
    returns += np.repeat(by_scene, w.episodes_per_scene, axis=-1)
    finished = np.ones((worlds, t, b, s), dtype=np.bool_)
    if w.failures or w.hopeless:
        finished &= rng.random((worlds, t, 1, s)) >= w.fails.reshape(1, t, b, 1)[:, :, :1]
        returns[~finished] = math.nan
    k = world.cells
    return Sample(
        returns=returns.reshape(worlds, k, s, w.episodes),
        means=means.reshape(worlds, k),
        checkpoint_means=trained.reshape(worlds, k, s),
        finished=finished.reshape(worlds, k, s),
    )


def tune_scores(world: World, drawn: Sample, rng: np.random.Generator) -> Floats:
    """The scores of a sample's trained models on as many other scenes, whose common effect favours no cell.

    Shape (W, K, S), or (K, S) of one sweep.
    """
    trained = drawn.checkpoint_means
    front, (cells, seeds) = trained.shape[:-2], trained.shape[-2:]
    scenes = world.episodes // world.episodes_per_scene

    def mean_of(sd: float, number: int, *shape: int) -> Floats:
        return sd / math.sqrt(number) * rng.standard_normal((*front, *shape)) if sd else np.zeros((1,) * trained.ndim)

    of_models = mean_of(world.training_by_scene_sd, scenes, world.trainings, seeds)
    scores: Floats = (
        trained
        + mean_of(world.cell_by_scene_sd, scenes, cells, 1)
        + (np.repeat(of_models, world.decodings, axis=-2) if world.training_by_scene_sd else 0.0)
        + mean_of(world.episode_sd, world.episodes, cells, seeds)
    )
    return scores


def standardised(tails: Tails, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Draws of mean 0 and variance 1: t₃ has variance 3, an exponential mean and variance 1, here skewness −2."""
    if tails == "t3":
        return rng.standard_t(3, shape) / math.sqrt(3)
    if tails == "skewed":
        return 1.0 - rng.standard_exponential(shape)
    return rng.standard_normal(shape)
