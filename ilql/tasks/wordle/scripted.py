"""What scripted players score, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ilql.tasks.wordle.game import TRIES, Game
from ilql.tasks.wordle.policies import (
    EXPERT,
    MonteCarlo,
    Optimal,
    Policy,
    Repeat,
    Then,
    Wrong,
    deal,
    play,
    random_mixture,
)
from ilql.tasks.wordle.ragged import Numbers, Uniforms

EXPERT_TRIES = 2
"""After so many guesses of the expert the adversary takes over."""

SUBOPTIMAL = random_mixture(0.5)
"""The suboptimal player of the paper's section 5."""

ADVERSARIAL = Then(EXPERT_TRIES, EXPERT, Repeat(EXPERT_TRIES))
"""The adversarial player of the paper's section 5: two guesses of the expert, and then only one of those two again."""

POLICIES: Mapping[str, Policy] = {
    "optimal": EXPERT,
    "greedy": Optimal(),
    "adversarial": ADVERSARIAL,
    "suboptimal": SUBOPTIMAL,
    "wrong": Wrong(),
    "monte_carlo": MonteCarlo(10, SUBOPTIMAL),
}
"""`optimal` opens with a good opener and goes on by information gain; `greedy` goes by information gain from the
start; `monte_carlo` takes the best of 10 games of the suboptimal player."""

PLAYERS = 30
"""The number of the random streams of players in given episodes."""


def play_scripted(game: Game, policy: str, games: int, seed: int) -> Numbers:
    """Shape (games,): the returns of the player `policy`; the first games of a larger number are the same games.

    Raises:
        ValueError: There is no such player, or `games` is not positive.
    """
    if policy not in POLICIES:
        raise ValueError(f"policy must be one of {', '.join(POLICIES)}, got {policy!r}")
    if games < 1:
        raise ValueError(f"games must be at least 1, got {games}")
    dealt, uniforms = deal(game, POLICIES[policy], games, np.random.default_rng(seed))
    return play(game, POLICIES[policy], dealt, uniforms).returns


def returns_against(game: Game, policy: Policy, worlds: Uniforms, seeds: Sequence[int]) -> Numbers:
    """Shape (N,): the returns of a player in episodes whose world draws `worlds`, shape (N, 7): hidden word and tries.

    The player's own draws come from the episode's seed alone, so an episode's return does not depend on the others.
    """
    own = np.array([np.random.default_rng([seed, PLAYERS]).random(TRIES * policy.draws) for seed in seeds])
    uniforms = np.concatenate([worlds[:, 1:, None], own.reshape(len(seeds), TRIES, policy.draws)], axis=2)
    return play(game, policy, game.fresh(worlds[:, 0]), uniforms).returns
