"""Pairs of guesses of which a good critic must value one more: the comparisons of the paper's section 5.

At the start, an expert's first guess against a suboptimal player's. At the branch, the expert's third guess against
the adversary's third after the same two guesses and colours. The value to compare is Q of the last guess's tokens,
position by position; what the world says afterwards plays no part.

The published evaluation could not run (it asserted a setting that its configuration contradicts), and its branches
were those of the unmended world: this is what it meant to do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ilql.dialogue import Dialogue
from ilql.tasks.wordle.data import Recorded
from ilql.tasks.wordle.environment import WordleTask
from ilql.tasks.wordle.ragged import Numbers, Uniforms, rank
from ilql.tasks.wordle.scripted import EXPERT_TRIES

PLACES = ("start", "branch")


@dataclass(frozen=True)
class Pair:
    """Two guesses in one place.

    Attributes:
        place: `start` or `branch`.
        better: The expert's game up to the guess compared, which is its last turn.
        worse: The other player's game up to its guess. All turns before are the same.

    Raises:
        ValueError: There is no such place, the turns before the last differ, or the last ones are not two guesses.
    """

    place: str
    better: Dialogue
    worse: Dialogue

    def __post_init__(self) -> None:
        if self.place not in PLACES:
            raise ValueError(f"place must be one of {', '.join(PLACES)}, got {self.place!r}")
        if self.better.turns[:-1] != self.worse.turns[:-1]:
            raise ValueError("a pair must share its turns up to the last, got different ones")
        last = (self.better.turns[-1], self.worse.turns[-1])
        if not all(turn.by_agent for turn in last) or last[0].text == last[1].text:
            raise ValueError(f"a pair must end with two different guesses, got {last[0].text!r} and {last[1].text!r}")


def pairs(task: WordleTask, count: int, seed: int, split: str = "report") -> list[Pair]:
    """Random comparisons from a branching world's recorded games: `count` at the start, then `count` at the branch.

    At the start an expert's game is drawn, then a suboptimal one among those that begin with another word: the same
    word twice compares nothing. At the branch an adversarial game is drawn, and with it its expert's.

    Raises:
        ValueError: The world is not `branching`, `count` is not positive, there is no such split, or the split has no
            game that branches or none that begins otherwise than its expert's.
    """
    if task.settings.world != "branching":
        raise ValueError(f"pairs are of a world 'branching', whose games share positions, got {task.settings.world!r}")
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if split not in task.recorded:
        raise ValueError(f"split must be one of {', '.join(task.recorded)}, got {split!r}")
    games, uniforms = task.recorded[split], np.random.default_rng(seed).random((count, 3))
    drawn = {"start": starts(games, uniforms[:, :2], split), "branch": branches(games, uniforms[:, 2], split)}
    guesses = {"start": 1, "branch": 1 + EXPERT_TRIES}
    return [
        Pair(place, task.dialogue(split, better, guesses[place]), task.dialogue(split, worse, guesses[place]))
        for place in PLACES
        for better, worse in drawn[place].tolist()
    ]


def starts(games: Recorded, uniforms: Uniforms, split: str) -> Numbers:
    """Shape (N, 2): rows of an expert's and of a suboptimal game that begin differently, by uniforms of that shape."""
    others = games.of("suboptimal")
    others = others[np.argsort(games.guesses[others, 0], kind="stable")]
    first = games.guesses[others, 0]
    experts = games.of("expert")
    # In order of their first words, the games that begin with a given one are a slice from `low` on; the draw skips it.
    low, high = (np.searchsorted(first, games.guesses[experts, 0], side=side) for side in ("left", "right"))
    useful = np.flatnonzero(high - low < len(others))
    if not len(useful):
        raise ValueError(f"pairs need suboptimal games that begin otherwise than the expert's, got none in {split!r}")
    chosen = useful[rank(uniforms[:, 0], np.full(len(uniforms), len(useful)))]
    alike = (high - low)[chosen]
    ranks = rank(uniforms[:, 1], len(others) - alike)
    return np.stack([experts[chosen], others[np.where(ranks < low[chosen], ranks, ranks + alike)]], axis=1)


def branches(games: Recorded, uniforms: Uniforms, split: str) -> Numbers:
    """Shape (N, 2): rows of an expert's game and of an adversarial one that branches from it, by uniforms, (N,)."""
    adversarial = games.of("adversarial")
    if not len(adversarial):
        raise ValueError(f"pairs need games of the expert with three guesses, got none in {split!r}")
    chosen = adversarial[rank(uniforms, np.full(len(uniforms), len(adversarial)))]
    return np.stack([games.experts[chosen].astype(np.int64), chosen], axis=1)
