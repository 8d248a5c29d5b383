"""Scripted players: each gives the next guess of many games from their states, their past guesses and uniforms.

Axes: N games, D uniforms that a decision of a player takes. A player is a frozen value; equal uniforms give equal
guesses, and the guess in one game never depends on the games beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ilql.tasks.wordle.gain import best_guesses
from ilql.tasks.wordle.game import TRIES, Game, Games
from ilql.tasks.wordle.ragged import Numbers, Uniforms, pick, rank, sums

BLOCK = 1 << 26
"""How many words the sets of the games that are played at a time may hold: bounds memory to some 500 MB."""


class Policy(Protocol):
    """A scripted player."""

    @property
    def draws(self) -> int:
        """D: how many uniforms a decision takes."""
        ...

    def choose(self, game: Game, games: Games, uniforms: Uniforms) -> Numbers:
        """Shape (N,): the word to guess in each of N games in progress, from uniforms in [0, 1), shape (N, D)."""
        ...


@dataclass(frozen=True)
class Anything:
    """Any word of the list, all equally likely."""

    draws: int = 1

    def choose(self, game: Game, games: Games, uniforms: Uniforms) -> Numbers:
        """See `Policy`."""
        return rank(uniforms[:, 0], np.full(len(games), len(game.words)))


@dataclass(frozen=True)
class Consistent:
    """Any word that can be the target still, all equally likely."""

    draws: int = 1

    def choose(self, game: Game, games: Games, uniforms: Uniforms) -> Numbers:
        """See `Policy`."""
        return game.member(games, rank(uniforms[:, 0], games.counts))


@dataclass(frozen=True)
class StartWord:
    """Any of the list's good openers that can be the target still; where none can, any word that can."""

    draws: int = 1

    def choose(self, game: Game, games: Games, uniforms: Uniforms) -> Numbers:
        """See `Policy`."""
        good, untouched = game.openers, game.untouched(games)
        guesses = good[rank(uniforms[:, 0], np.full(len(games), len(good)))].astype(np.int64)
        rows = np.flatnonzero(~untouched)
        if len(rows):
            later = games.take(rows)
            members = game.members(later)
            places, number = pick(np.isin(members, good), later.counts, uniforms[rows, 0])
            anything = Consistent().choose(game, later, uniforms[rows])
            guesses[rows] = np.where(number > 0, members[places], anything)
        return guesses


@dataclass(frozen=True)
class Optimal:
    """The paper's expert after its first word: a consistent word of the highest information gain, any of exact ties."""

    draws: int = 1

    def choose(self, game: Game, games: Games, uniforms: Uniforms) -> Numbers:
        """See `Policy`."""
        # Of one or two words, each tells as much.
        guesses = Consistent().choose(game, games, uniforms)
        rows = np.flatnonzero(games.counts > 2)
        if len(rows):
            best, starts, numbers = best_guesses(game, games.take(rows))
            guesses[rows] = best[starts + rank(uniforms[rows, 0], numbers)]
        return guesses


@dataclass(frozen=True)
class Wrong:
    """Any word of the list that cannot be the target any more; any word at all where every one can."""

    draws: int = 1

    def choose(self, game: Game, games: Games, uniforms: Uniforms) -> Numbers:
        """See `Policy`."""
        guesses = Anything().choose(game, games, uniforms)
        rows = np.flatnonzero(~game.untouched(games))
        if len(rows):
            later = games.take(rows)
            ranks = rank(uniforms[rows, 0], len(game.words) - later.counts)
            # The word of rank r outside an ascending set m_0, m_1, ... is r plus the number of j with m_j - j <= r.
            within = np.arange(int(later.counts.sum())) - np.repeat(
                np.cumsum(later.counts) - later.counts, later.counts
            )
            guesses[rows] = ranks + sums(game.members(later) - within <= np.repeat(ranks, later.counts), later.counts)
        return guesses


@dataclass(frozen=True)
class Repeat:
    """Any of the first `first_n` guesses of the game again, all equally likely; of all guesses if None.

    Its own first guess is any word of the list: put another player before it with `Then`. Guesses that are no words of
    the list cannot be repeated, and no scripted player makes any.
    """

    first_n: int | None = None
    draws: int = 1

    def __post_init__(self) -> None:
        if self.first_n is not None and self.first_n < 1:
            raise ValueError(f"first_n must be at least 1, got {self.first_n}")

    def choose(self, game: Game, games: Games, uniforms: Uniforms) -> Numbers:
        """See `Policy`."""
        among = np.minimum(games.tries, TRIES if self.first_n is None else self.first_n)
        again = games.guesses[np.arange(len(games)), rank(uniforms[:, 0], np.maximum(among, 1))]
        return np.where(among > 0, again, Anything().choose(game, games, uniforms))


@dataclass(frozen=True)
class Mixture:
    """At each guess `first` with probability `share`, else `second`."""

    share: float
    first: Policy
    second: Policy

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0:
            raise ValueError(f"share must be in [0, 1], got {self.share}")

    @property
    def draws(self) -> int:
        """One to decide, and what the decision leads to."""
        return 1 + max(self.first.draws, self.second.draws)

    def choose(self, game: Game, games: Games, uniforms: Uniforms) -> Numbers:
        """See `Policy`."""
        return _either(uniforms[:, 0] < self.share, self.first, self.second, game, games, uniforms[:, 1:])


@dataclass(frozen=True)
class Then:
    """The first `tries` guesses by `first`, the others by `second`."""

    tries: int
    first: Policy
    second: Policy

    @property
    def draws(self) -> int:
        """What either takes."""
        return max(self.first.draws, self.second.draws)

    def choose(self, game: Game, games: Games, uniforms: Uniforms) -> Numbers:
        """See `Policy`."""
        return _either(games.tries < self.tries, self.first, self.second, game, games, uniforms)


@dataclass(frozen=True)
class MonteCarlo:
    """The first guess with the highest mean return among `rollouts` games that `base` plays to the end from here."""

    rollouts: int
    base: Policy

    def __post_init__(self) -> None:
        if self.rollouts < 1:
            raise ValueError(f"rollouts must be at least 1, got {self.rollouts}")

    @property
    def draws(self) -> int:
        """For each rollout its hidden word, and each try's target and decision."""
        return self.rollouts * (1 + TRIES * (1 + self.base.draws))

    def choose(self, game: Game, games: Games, uniforms: Uniforms) -> Numbers:
        """See `Policy`. Of equal means the guess that was rolled out first."""
        size, several = len(games), self.rollouts
        own = uniforms[:, : self.draws].reshape(size * several, -1)
        begun = game.imagined(games.take(np.repeat(np.arange(size), several)), own[:, 0])
        done = play(game, self.base, begun, own[:, 1:].reshape(size * several, TRIES, -1))
        guesses = done.guesses[np.arange(size * several), begun.tries].reshape(size, several)
        returns = done.returns.reshape(size, several)
        alike = guesses[:, :, None] == guesses[:, None, :]
        means = (alike * returns[:, None, :]).sum(axis=2) / alike.sum(axis=2)
        return np.asarray(guesses[np.arange(size), np.argmax(means, axis=1)].astype(np.int64))


EXPERT = Then(1, StartWord(), Optimal())
"""A good opener, then information gain."""


def random_mixture(prob_smart: float) -> Mixture:
    """A consistent word with probability `prob_smart`, else any word of the list."""
    return Mixture(prob_smart, Consistent(), Anything())


def deal(game: Game, policy: Policy, number: int, generator: np.random.Generator) -> tuple[Games, Uniforms]:
    """New games and the uniforms to play them with; the first games of a larger number are the same games."""
    drawn = generator.random((number, 1 + TRIES * (1 + policy.draws)))
    return game.fresh(drawn[:, 0]), drawn[:, 1:].reshape(number, TRIES, 1 + policy.draws)


def play(game: Game, policy: Policy, games: Games, uniforms: Uniforms, tries: int = TRIES) -> Games:
    """The games after `policy` played on until they are over or have `tries` tries.

    Args:
        game: Words and rules.
        policy: The player.
        games: N games, in progress or over.
        uniforms: Shape (N, 6, 1 + D or more): for each try, the one made before included, the world's draw and then the
            player's.
        tries: Where to stop.
    """
    rows = max(1, BLOCK // len(game.words))
    if len(games) > rows:
        parts = [slice(first, first + rows) for first in range(0, len(games), rows)]
        every = np.arange(len(games))
        return game.join([play(game, policy, games.take(every[part]), uniforms[part], tries) for part in parts])
    done: list[tuple[npt.NDArray[np.intp], Games]] = []
    rows_left = np.arange(len(games))
    while True:
        ended = games.over | (games.tries >= tries)
        if ended.any() or not len(games):
            done.append((rows_left[ended], games.take(np.flatnonzero(ended))))
            going = np.flatnonzero(~ended)
            rows_left, games = rows_left[going], games.take(going)
        if not len(games):
            break
        now = uniforms[rows_left, games.tries]
        games = game.step(games, policy.choose(game, games, now[:, 1:]), now[:, 0])
    order = np.argsort(np.concatenate([rows for rows, _ in done]))
    return game.join([part for _, part in done]).take(order)


def _either(
    where: npt.NDArray[np.bool_], first: Policy, second: Policy, game: Game, games: Games, uniforms: Uniforms
) -> Numbers:
    """The guesses of `first` where `where` is true, and of `second` elsewhere."""
    guesses = np.empty(len(games), dtype=np.int64)
    for rows, policy in ((np.flatnonzero(where), first), (np.flatnonzero(~where), second)):
        if len(rows) == len(games):
            return policy.choose(game, games, uniforms)
        if len(rows):
            guesses[rows] = policy.choose(game, games.take(rows), uniforms[rows])
    return guesses
