"""The guesses that tell most: greedy information gain, for many sets of words at once.

Axes: K sets, M members of all of them. For a guess g of a set S the colours leave S'(g, w) if w is the target, and

    gain(g) = log|S| − (1/|S|) Σ_w log|S'(g, w)| = log|S| − (1/|S|) Σ_c n_c log n_c,

with n_c the number of words that give code c. A set's best guesses are all its members of the highest gain, with ties
as exact as `information` makes them.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from ilql.tasks.wordle.game import Game, Games, Members
from ilql.tasks.wordle.information import SCALE, fixed_logs
from ilql.tasks.wordle.ragged import Numbers, addresses, blocks
from ilql.tasks.wordle.words import MOST

PAIRS = 1 << 21
"""How many pairs of a guess and a target are compared at a time: some 50 MB."""

KEPT_SETS = 1 << 19
"""A game's memo of best guesses is emptied when it holds more sets."""


def spreads(game: Game, members: Members, counts: Numbers) -> Numbers:
    """Shape (M,): Σ_c n_c L(n_c) for each member of K sets, shapes (M,) and (K,), as the guess within its set."""
    logs = fixed_logs(int(counts.max()))
    sizes = np.repeat(counts, counts)
    firsts = np.repeat(np.cumsum(counts) - counts, counts)
    spread = np.empty(len(members), dtype=np.int64)
    for first, last in blocks(sizes, PAIRS):
        targets = members[addresses(firsts[first:last], sizes[first:last])]
        guesses = np.repeat(members[first:last].astype(np.int64) * len(game.words), sizes[first:last])
        owners = np.repeat(np.arange(last - first, dtype=np.int32) << 8, sizes[first:last])
        keys = np.sort(owners + game.table.ravel()[guesses + targets])
        edges = np.concatenate([[0], np.flatnonzero(keys[1:] != keys[:-1]) + 1])
        alike = np.diff(edges, append=len(keys))
        of_guess = np.searchsorted(keys[edges] >> 8, np.arange(last - first))
        spread[first:last] = np.add.reduceat(alike * logs[alike], of_guess)
    return spread


def information_gain(game: Game, members: Members) -> npt.NDArray[np.float64]:
    """Shape (M,), in nats: the gain of each member of one set as the guess, to about 1e-11."""
    size = len(members)
    return np.asarray(np.log(size) - spreads(game, members, np.array([size])) / (SCALE * size))


def best_guesses(game: Game, games: Games) -> tuple[Members, Numbers, Numbers]:
    """The best guesses of every game's set.

    Returns:
        A flat array of words, and where in it each game's best guesses start and how many there are, shapes (N,).
    """
    # Games with one address have one set; so have games whose sets hash alike and then turn out equal.
    _, where, of_game = np.unique(games.starts * (MOST + 1) + games.counts, return_index=True, return_inverse=True)
    sets = games.take(where)
    members = game.members(sets)
    of_address = _equal_sets(members, sets.counts)
    firsts = np.unique(of_address)
    ends = np.cumsum(sets.counts)
    keys = [members[end - count : end].tobytes() for end, count in zip(ends[firsts], sets.counts[firsts], strict=True)]
    _remember(game, keys)
    found = [game.best[key] for key in keys]
    numbers = np.array([len(best) for best in found])
    row = np.searchsorted(firsts, of_address)[of_game]
    return np.concatenate(found), (np.cumsum(numbers) - numbers)[row], numbers[row]


def _equal_sets(members: Members, counts: Numbers) -> Numbers:
    """Shape (K,): the first of the sets that equals each, by a hash of 64 bits and then member by member."""
    hashes = np.add.reduceat(_hash_keys()[members], np.cumsum(counts) - counts)
    _, first, of_set = np.unique(hashes, return_index=True, return_inverse=True)
    same = first[of_set]
    starts = np.cumsum(counts) - counts
    if (counts[same] == counts).all() and (members == members[addresses(starts[same], counts)]).all():
        return same
    seen: dict[bytes, int] = {}
    ends = np.cumsum(counts)
    exact = [seen.setdefault(members[ends[k] - counts[k] : ends[k]].tobytes(), k) for k in range(len(counts))]
    return np.array(exact, dtype=np.int64)


@cache
def _hash_keys() -> npt.NDArray[np.uint64]:
    return np.random.default_rng(0).integers(0, 2**64, size=MOST, dtype=np.uint64)


def _remember(game: Game, keys: list[bytes]) -> None:
    """Put the best guesses of some sets, by their bytes, into the game's memo."""
    if len(game.best) > KEPT_SETS:
        game.best.clear()
    new = [key for key in dict.fromkeys(keys) if key not in game.best]
    whole = [key for key in new if len(key) == 2 * len(game.words)]
    for key in whole:
        game.best[key] = np.flatnonzero(game.first_spreads == game.first_spreads.min()).astype(np.uint16)
    others = [key for key in new if len(key) != 2 * len(game.words)]
    if not others:
        return
    members = np.frombuffer(b"".join(others), dtype=np.uint16)
    counts = np.array([len(key) // 2 for key in others])
    spread = spreads(game, members, counts)
    starts = np.cumsum(counts) - counts
    best = spread == np.repeat(np.minimum.reduceat(spread, starts), counts)
    for key, start, count in zip(others, starts, counts, strict=True):
        game.best[key] = members[start : start + count][best[start : start + count]]
