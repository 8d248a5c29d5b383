"""What a comparison could find, before its runs are paid for: the smallest difference, and the cheapest split for it.

Axes: *S* training seeds, *E* episodes. Both of a cell; all cells play the same episodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.cells import Cell
from analysis.honest_table import FEWEST_SCENES, training_of
from analysis.paired import detectable
from analysis.variance import noise_of, strata

MOST_SEEDS, MOST_EPISODES = 30, 65_536
"""As far as splits are looked for."""


@dataclass(frozen=True)
class Components:
    """What moves the difference of two cells' mean returns, each as the variance of one cell.

    Attributes:
        seed: Between training seeds, σ_a².
        scene: What a scene is to one cell beyond what it is to all, σ_g²; more seeds do not lower it.
        episode: The rest of one episode, σ_ε².
        cells: Cells they were estimated from.
        seeds: Training seeds of these.
        episodes: Episodes of these.
    """

    seed: float
    scene: float
    episode: float
    cells: int
    seeds: int
    episodes: int

    def __post_init__(self) -> None:
        if min(self.seed, self.scene, self.episode) < 0 or not math.isfinite(self.seed + self.scene + self.episode):
            raise ValueError(f"variances must be finite and not negative, got {self}")


@dataclass(frozen=True)
class Cost:
    """Seconds of one training, with its play on the tune scenes, and of one episode on the report scenes.

    What training a behaviour policy or loading costs is not in them.
    """

    training: float
    episode: float

    def __post_init__(self) -> None:
        if self.training < 0 or self.episode < 0 or self.training + self.episode <= 0:
            raise ValueError(f"costs must not be negative, and not both 0, got {self.training}, {self.episode}")

    def of_cell(self, seeds: int, episodes: int) -> float:
        """S·(training + E·episode)."""
        return seeds * (self.training + episodes * self.episode)


@dataclass(frozen=True)
class Split:
    """Training seeds and episodes of a cell, what they could find between two such cells, and what one cell costs."""

    seeds: int
    episodes: int
    detectable: float
    seconds: float


def components_of(cells: Sequence[Cell]) -> Components | None:
    """The variance components of the first cells of a sweep; None while two cells with two common seeds are missing.

    From contrasts between cells of different trainings, with the mean squares of `analysis.variance`: σ_a² =
    max(0, M − R), σ_ε² = E·R, σ_g² = E·max(0, T − R/S). A contrast has one decoding of each training: what decodings
    share, the luck of one training and its scenes, would count as often as there are decodings in a contrast of their
    sums. Mean squares are averaged over which decoding that is. Cells with fewer seeds than most are left out; cells
    of a search count, being noise alike.
    """
    finished = [cell for cell in cells if len(cell.seeds) >= 2]
    if not finished:
        return None
    most = max(finished, key=lambda cell: len(cell.seeds))
    same = [
        cell for cell in finished if cell.seeds == most.seeds and np.array_equal(cell.episode_seeds, most.episode_seeds)
    ]
    trainings = np.array([f"{cell.method} {training_of(cell)}" for cell in same])
    if len(set(trainings.tolist())) < 2 or len(set(most.scenes.tolist())) < FEWEST_SCENES:
        return None
    returns = np.stack([cell.returns for cell in same])
    seeds, episodes = returns.shape[1:]
    picks = one_of_each(trainings)
    noises = [
        noise_of(deviations, most.scenes, rank=p)
        for pick in picks
        for deviations, p in strata(returns[pick], trainings[pick])  # one: no training is in a pick twice
    ]
    seed, common, rest = np.mean([(each.seed, each.common, each.rest * seeds) for each in noises], axis=0).tolist()
    return Components(
        seed=max(0.0, seed - rest),
        scene=max(0.0, common - rest / seeds) * episodes,
        episode=rest * episodes,
        cells=len(same),
        seeds=seeds,
        episodes=episodes,
    )


def one_of_each(trainings: NDArray[np.generic]) -> NDArray[np.int64]:
    """Cells by place, one of each training, as often as the training with the most decodings has some.

    Row d has decoding d of every training, from the first again where it has no more.

    Args:
        trainings: The training of each cell, shape (K,).

    Returns:
        Places in `trainings`, shape (D, T).
    """
    of_each = [np.flatnonzero(trainings == name) for name in np.unique(trainings)]
    most = max(own.size for own in of_each)
    return np.stack([np.resize(own, most) for own in of_each], axis=1)


def smallest_detectable(parts: Components, seeds: int, episodes: int) -> float:
    """The smallest difference of two cells that S seeds and E episodes each find, as in `analysis.paired.detectable`.

    V = 2·(σ_a²/S + σ_g²/E + σ_ε²/(S·E)), with Satterthwaite's degrees of freedom: 2(S − 1) of what seeds show,
    E − 1 of what common scenes do. Episodes are of different scenes.

    Raises:
        ValueError: There are fewer than two seeds or two episodes.
    """
    if seeds < 2 or episodes < 2:
        raise ValueError(f"a comparison needs at least two seeds and two episodes, got {seeds} and {episodes}")
    by_seed = 2 * (parts.seed + parts.episode / episodes) / seeds
    by_scene = 2 * parts.scene / episodes
    variance = by_seed + by_scene
    if variance == 0:
        return 0.0
    degrees = variance**2 / (by_seed**2 / (2 * (seeds - 1)) + by_scene**2 / (episodes - 1))
    return detectable(math.sqrt(variance), degrees)


def cheapest_for(parts: Components, cost: Cost, wanted: float) -> Split | None:
    """The cheapest split that finds a difference of `wanted`; None where none within the limits does.

    Raises:
        ValueError: `wanted` is not positive.
    """
    if not wanted > 0:
        raise ValueError(f"a wanted difference must be positive, got {wanted}")
    found = []
    for seeds in range(2, MOST_SEEDS + 1):
        if smallest_detectable(parts, seeds, MOST_EPISODES) > wanted:
            continue
        low, high = 1, MOST_EPISODES  # the difference falls as episodes grow
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if smallest_detectable(parts, seeds, middle) <= wanted else (middle, high)
        found.append(_split(parts, cost, seeds, max(2, high)))
    return min(found, key=lambda split: split.seconds, default=None)


def power_lines(parts: Components, cost: Cost | None, *, seeds: int, episodes: int) -> list[str]:
    """In words: what moves a difference, what the planned split finds, and what is cheapest for that and for half.

    Args:
        parts: Variance components.
        cost: None where no row says what a training or an episode takes.
        seeds: Planned training seeds.
        episodes: Planned episodes.
    """
    of = f"{parts.cells} cells, {parts.seeds} seeds and {parts.episodes:,} episodes"
    spreads = (math.sqrt(each) for each in (parts.seed, parts.scene, parts.episode))
    said = "sd between training seeds {:.3g}, of scenes to one cell {:.3g}, of the rest of an episode {:.3g}"
    lines = [f"noise of a difference, from {of}: {said.format(*spreads)}"]
    if seeds < 2:
        lines.append("with one training seed no difference between methods can be found; --seeds 3 is the least to ask")
        now = smallest_detectable(parts, 3, episodes)
        lines.append(f"with 3 it would have to be {now:.3g} (level 5 %, found four times in five)")
    else:
        now = smallest_detectable(parts, seeds, episodes)
        lines.append(
            f"two cells of {seeds} seeds and {episodes:,} episodes must differ by {now:.3g} to be told apart "
            "(level 5 %, found four times in five)"
        )
    if cost is None or now == 0:
        return lines
    for wanted, name in ((now, "the same"), (now / 2, "half of that")):
        split = cheapest_for(parts, cost, wanted)
        if split is None:
            lines.append(f"{name}, {wanted:.3g}, is out of reach of {MOST_SEEDS} seeds")
        else:
            lines.append(
                f"cheapest for {name}, {wanted:.3g}: --seeds {split.seeds} --episodes {split.episodes}, "
                f"about {split.seconds / 60:.1f} minutes a cell"
            )
    return lines


def _split(parts: Components, cost: Cost, seeds: int, episodes: int) -> Split:
    return Split(seeds, episodes, smallest_detectable(parts, seeds, episodes), cost.of_cell(seeds, episodes))
