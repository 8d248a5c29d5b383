"""Recorded games: what the expert, the adversary and the suboptimal player did, or what people may have done.

- `optimal`: games of the expert (a good opener, then information gain).
- `branching`, section 5 of the paper: for every game of the expert, that game; if it has at least three guesses, five
  adversarial games, which share the expert's first two guesses and their colours and from there only repeat one of
  those two; and always five suboptimal games from scratch.
- `branching_unmended`: the same as the published generator made it. It gives the adversary the expert's position for
  its first choice, but never moves the game there. So the game recorded is a fresh one: one of the expert's two
  guesses, and since that is now all there is to repeat, the same again to the end.
- `human`: see `human`.

A split's games, and its episodes, come from random streams of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ilql.task import SPLITS
from ilql.tasks.wordle.game import TRIES, Game, Games
from ilql.tasks.wordle.patterns import ALL_GREEN
from ilql.tasks.wordle.policies import EXPERT, Repeat, deal, play
from ilql.tasks.wordle.ragged import Numbers
from ilql.tasks.wordle.scripted import EXPERT_TRIES, SUBOPTIMAL
from ilql.tasks.wordle.settings import Settings

GAMES = 10
EPISODES = 20
"""The first numbers of the random streams of the splits: recorded games, and episodes."""

BRANCHES = 5
"""Adversarial games for every game of the expert that is long enough."""

SUBOPTIMALS = 5
"""Suboptimal games for every game of the expert."""

KINDS = ("expert", "adversarial", "suboptimal", "human")


@dataclass(frozen=True, eq=False)
class Recorded:
    """D finished games of a split.

    Attributes:
        guesses: Shape (D, 6): the words guessed, below 0 after the last.
        codes: Shape (D, 6): how they were coloured, below 0 after the last.
        kinds: Shape (D,): whose game it is, an index into `KINDS`.
        experts: Shape (D,): the row of the game of the expert that it belongs to; its own for an expert's.
    """

    guesses: npt.NDArray[np.int16]
    codes: npt.NDArray[np.int16]
    kinds: npt.NDArray[np.uint8]
    experts: npt.NDArray[np.int32]

    def of(self, kind: str) -> Numbers:
        """The rows of one kind."""
        return np.flatnonzero(self.kinds == KINDS.index(kind))

    def tries(self) -> Numbers:
        """Shape (D,): how many guesses each game has."""
        return np.asarray((self.guesses >= 0).sum(axis=1))


def generator_of(settings: Settings, split: str) -> np.random.Generator:
    """The random stream of a split's recorded games."""
    return np.random.default_rng([settings.seed, GAMES + SPLITS.index(split)])


def scripted_games(game: Game, settings: Settings, split: str) -> Recorded:
    """The games of a split of any world but the human one."""
    generator = generator_of(settings, split)
    expert, uniforms = deal(game, EXPERT, settings.games(split), generator)
    finished = play(game, EXPERT, expert, uniforms)
    own = np.arange(len(finished))
    if settings.world == "optimal":
        return record([("expert", finished, own)])
    # Two guesses of the same draws are the first two of the same games.
    begun = play(game, EXPERT, expert, uniforms, tries=EXPERT_TRIES)
    rows = np.repeat(own[finished.tries > EXPERT_TRIES], BRANCHES)
    adversary = Repeat(EXPERT_TRIES)
    branches = begun.take(rows)
    _, draws = deal(game, adversary, len(rows), generator)
    if settings.world == "branching_unmended":
        first = adversary.choose(game, branches, generator.random((len(rows), adversary.draws)))
        fresh = game.fresh(generator.random(len(rows)))
        branches = game.step(fresh, first, draws[:, 0, 0])
    dealt, chances = deal(game, SUBOPTIMAL, len(own) * SUBOPTIMALS, generator)
    return record(
        [
            ("expert", finished, own),
            ("adversarial", play(game, adversary, branches, draws), rows),
            ("suboptimal", play(game, SUBOPTIMAL, dealt, chances), np.repeat(own, SUBOPTIMALS)),
        ]
    )


def record(parts: list[tuple[str, Games, Numbers]]) -> Recorded:
    """Finished games of some kinds, each with the rows of the games of the expert that they belong to."""
    return Recorded(
        guesses=np.concatenate([games.guesses for _, games, _ in parts]),
        codes=np.concatenate([games.codes for _, games, _ in parts]),
        kinds=np.repeat(
            np.array([KINDS.index(kind) for kind, _, _ in parts], dtype=np.uint8), [len(games) for _, games, _ in parts]
        ),
        experts=np.concatenate([rows for _, _, rows in parts]).astype(np.int32),
    )


def describe(games: Recorded, split: str) -> str:
    """One line on the games of a split: how many of each kind, and what they earn on average."""
    won = (games.codes == ALL_GREEN).any(axis=1)
    earned = won - games.tries()
    parts = [
        f"{len(rows)} {kind} ({len(rows) / len(games.kinds):.1%}, mean return {earned[rows].mean():.3f})"
        for kind in KINDS
        if len(rows := games.of(kind))
    ]
    return f"{split}: {len(games.kinds)} games: {', '.join(parts)}"


def save(games: Recorded, path: Path) -> None:
    """Write a split's games."""
    np.savez_compressed(
        path, guesses=games.guesses, codes=games.codes, kinds=games.kinds, experts=games.experts, allow_pickle=False
    )


def load_recorded(path: Path) -> Recorded:
    """The games of a file of `save`."""
    with np.load(path, allow_pickle=False) as arrays:
        games = Recorded(arrays["guesses"], arrays["codes"], arrays["kinds"], arrays["experts"])
    assert games.guesses.shape == games.codes.shape == (len(games.kinds), TRIES)
    return games
