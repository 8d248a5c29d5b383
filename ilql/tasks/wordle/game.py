"""The rules, for thousands of games at once; scripted policies, recorded games and episodes all go through `step`.

Axes: N games, W words, M members of several sets of words. A word is its number in alphabetical order.

A game's *set* holds the words that all its colours allow, in ascending order, as `starts` and `counts` into an address
space of two parts. The first, `Game.shared`, belongs to the word list: all words, then for each word as a first guess
all words ordered by its code, so that the set after a first guess is a slice of it that was there before. The second,
`Games.pool`, belongs to a batch.

By the rules `consistent` nothing is hidden: each try draws its target from the set, and the colours shrink the set.
That is the paper's Markov game without its knowledge of letters: a word agrees with all that is known of the letters
exactly if it would have given the same codes. By the rules `real` the target is drawn once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ilql.tasks.wordle.information import best_openers, spreads_of
from ilql.tasks.wordle.patterns import (
    ALL_GREEN,
    CODES,
    Codes,
    Letters,
    Occurrences,
    codes_against,
    letters_of,
    occurrences,
    pattern_table,
)
from ilql.tasks.wordle.ragged import Numbers, Uniforms, addresses, blocks, rank

Members = npt.NDArray[np.uint16]

TRIES = 6
OFF_LIST = -1
"""As a guess: five letters that are no word of the list."""
INVALID = -2
"""As a guess: not five letters."""
NOTHING = -3
"""As a guess: not made yet."""
NO_CODE = -1
"""As a code: the guess was invalid, or is not made yet."""
HIDES_NOTHING = -1
"""As a target: each try draws its own."""

FILTERED = 1 << 16
"""How many words of sets are compared with a code at a time, so that it is done in the processor's cache."""

SHARED_BYTES = 64 << 20
"""The most that the ordered first guesses may take, two bytes for each pair of words: up to 5,791 words. Longer lists
do without, and a first guess is coloured against every word."""


@dataclass(frozen=True, eq=False)
class Games:
    """N games in progress or over.

    Attributes:
        starts: Shape (N,), where each set starts in the address space.
        counts: Shape (N,), the sizes of the sets; at least 1, but 0 in a game that is over.
        pool: Shape (M,), the batch's part of the address space.
        targets: Shape (N,), the hidden words, or `HIDES_NOTHING`.
        tries: Shape (N,), how many guesses were made.
        guesses: Shape (N, 6), the guesses made: a word, `OFF_LIST`, `INVALID`, or `NOTHING`.
        codes: Shape (N, 6), how they were coloured, or `NO_CODE`.
        over: Shape (N,), true where the game was won or all tries are used.
    """

    starts: Numbers
    counts: Numbers
    pool: Members
    targets: Numbers
    tries: Numbers
    guesses: npt.NDArray[np.int16]
    codes: npt.NDArray[np.int16]
    over: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.tries)

    @property
    def won(self) -> npt.NDArray[np.bool_]:
        """Shape (N,): true where the last guess was the target."""
        return np.asarray(np.any(self.codes == ALL_GREEN, axis=1))

    @property
    def returns(self) -> Numbers:
        """Shape (N,), in [-6, 0]: the sum of rewards so far, -1 for each guess and 0 for the winning one."""
        return self.won - self.tries

    def take(self, rows: npt.NDArray[np.integer]) -> Games:
        """The games of some rows, in their order; a row may stand twice."""
        parts = {item.name: getattr(self, item.name)[rows] for item in dataclasses.fields(self) if item.name != "pool"}
        return Games(pool=self.pool, **parts)


@dataclass(frozen=True, eq=False)
class Game:
    """A list of words and its rules.

    Attributes:
        words: The W words, in alphabetical order.
        rules: `consistent` or `real`.
        table: Shape (W, W), the code of each word as a guess (rows) for each word as the target (columns).
        where: The words' letters, which colour guesses off the list.
        first_sizes: Shape (W, 243), the size of the set after each first guess and code.
        first_spreads: Shape (W,), the spread of each word as a first guess (`information`).
        openers: The words that the start policy opens with.
        shared: Shape (W,) or (W + W·W,), the list's part of the address space.
        best: What `gain` has found: the best guesses for sets of words, by the set's bytes. A memo: it decides no
            result.
    """

    words: tuple[str, ...]
    rules: str
    table: Codes
    where: Occurrences
    first_sizes: Members
    first_spreads: Numbers
    openers: Members
    shared: Members
    best: dict[bytes, Members] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def number(self) -> dict[str, int]:
        """Each word's number."""
        return {word: number for number, word in enumerate(self.words)}

    @cached_property
    def _first_starts(self) -> Numbers:
        """Shape (W, 243): where the set after each first guess and code starts in `shared`."""
        sizes = self.first_sizes.astype(np.int64)
        rows = len(self.words) * (1 + np.arange(len(self.words)))
        return np.cumsum(sizes, axis=1) - sizes + rows[:, None]

    def fresh(self, hidden: Uniforms) -> Games:
        """New games, whose words are hidden, where the rules hide any, by uniforms in [0, 1), shape (N,)."""
        size, words = len(hidden), len(self.words)
        counts = np.full(size, words)
        return Games(
            starts=np.zeros(size, dtype=np.int64),
            counts=counts,
            pool=np.empty(0, dtype=np.uint16),
            targets=rank(hidden, counts) if self.rules == "real" else np.full(size, HIDES_NOTHING),
            tries=np.zeros(size, dtype=np.int64),
            guesses=np.full((size, TRIES), NOTHING, dtype=np.int16),
            codes=np.full((size, TRIES), NO_CODE, dtype=np.int16),
            over=np.zeros(size, dtype=np.bool_),
        )

    def imagined(self, games: Games, hidden: Uniforms) -> Games:
        """The games as a player can imagine them: a hidden word is drawn anew, from those that can be."""
        if self.rules != "real":
            return games
        return dataclasses.replace(games, targets=self.member(games, rank(hidden, games.counts)))

    def untouched(self, games: Games) -> npt.NDArray[np.bool_]:
        """Shape (N,): true where every word is possible still, and the set is the whole list."""
        return np.asarray(games.counts == len(self.words))

    def at(self, games: Games, places: Numbers) -> Members:
        """The words at some addresses."""
        size = len(self.shared)
        own = places >= size
        if not own.any():
            return self.shared[places]
        if own.all():
            return games.pool[places - size]
        words = np.empty(len(places), dtype=np.uint16)
        words[own] = games.pool[places[own] - size]
        words[~own] = self.shared[places[~own]]
        return words

    def member(self, games: Games, ranks: Numbers) -> Numbers:
        """Shape (N,): the word with a rank, 0 to count - 1, in each game's set."""
        return self.at(games, games.starts + ranks).astype(np.int64)

    def members(self, games: Games) -> Members:
        """Shape (M,): all sets, one after the other."""
        return self.at(games, addresses(games.starts, games.counts))

    def step(self, games: Games, guesses: Numbers, uniforms: Uniforms, letters: Letters | None = None) -> Games:
        """Every game makes one guess. What becomes of one never depends on the others.

        Args:
            games: N games, none of them over.
            guesses: Shape (N,): words, `OFF_LIST` or `INVALID`.
            uniforms: Shape (N,), in [0, 1): they draw the targets, where the rules hide none.
            letters: Shape (N, 5), the guesses' letters; only those off the list are read.

        Raises:
            ValueError: A game is over.
        """
        if games.over.any():
            raise ValueError(f"only games in progress can be stepped, got {int(games.over.sum())} that are over")
        every = np.arange(len(games))
        drawn = self.rules != "real"
        targets = self.member(games, rank(uniforms, games.counts)) if drawn else games.targets
        listed, off = guesses >= 0, np.flatnonzero(guesses == OFF_LIST)
        made = np.full(len(games), NO_CODE, dtype=np.int16)
        made[listed] = self.table[guesses[listed], targets[listed]]
        rows_off, of_row = self._colour(letters, off)
        made[off] = rows_off[of_row, targets[off]]
        tries = games.tries + 1
        over = (made == ALL_GREEN) | (tries == TRIES)
        starts, counts = np.where(over, 0, games.starts), np.where(over, 0, games.counts)

        looked_up = ~over & listed & self.untouched(games) & (len(self.shared) > len(self.words))
        starts[looked_up] = self._first_starts[guesses[looked_up], made[looked_up]]
        counts[looked_up] = self.first_sizes[guesses[looked_up], made[looked_up]]

        # The sets that shrink, and those that an invalid guess leaves as they are but that lie in the old pool.
        shrunk = ~over & ~looked_up & ((made != NO_CODE) | (games.starts >= len(self.shared)))
        unlisted = guesses == OFF_LIST
        lines = guesses.copy()
        lines[off] = of_row
        rows = np.concatenate([np.flatnonzero(shrunk & ~unlisted), np.flatnonzero(shrunk & unlisted)])
        parts = []
        for table, group in ((self.table, rows[~unlisted[rows]]), (rows_off, rows[unlisted[rows]])):
            for first, last in blocks(games.counts[group], FILTERED):
                some = group[first:last]
                left, counts[some] = self._agreeing(games, some, table, lines, made)
                parts.append(left)
        starts[rows] = len(self.shared) + np.cumsum(counts[rows]) - counts[rows]
        pool = np.concatenate(parts) if parts else np.empty(0, dtype=np.uint16)

        told, coloured = games.guesses.copy(), games.codes.copy()
        told[every, games.tries] = guesses
        coloured[every, games.tries] = made
        return Games(starts, counts, pool, games.targets, tries, told, coloured, over)

    def _agreeing(
        self, games: Games, rows: Numbers, table: Codes, lines: Numbers, made: npt.NDArray[np.int16]
    ) -> tuple[Members, Numbers]:
        """What is left of the sets of some games, and how many words of each.

        Args:
            games: N games.
            rows: The games to look at.
            table: The codes of guesses, a line for each, for every word.
            lines: Shape (N,), each game's line of the table.
            made: Shape (N,), the code that its words must have; all of them stay where there is none.
        """
        sizes = games.counts[rows]
        words = self.at(games, addresses(games.starts[rows], sizes))
        places = np.repeat(np.maximum(lines[rows], 0) * len(self.words), sizes)
        places += words
        keep = table.ravel()[places] == np.repeat(made[rows].astype(np.uint8), sizes)
        invalid = made[rows] == NO_CODE
        if invalid.any():
            keep |= np.repeat(invalid, sizes)
        # Few are left: to count those is quicker than to sum over all.
        left = np.flatnonzero(keep)
        return words[left], np.diff(np.searchsorted(left, np.cumsum(sizes)), prepend=0)

    def _colour(self, letters: Letters | None, rows: Numbers) -> tuple[Codes, Numbers]:
        """The codes of the different guesses off the list for each word, and which of them each row made."""
        if not len(rows):
            return np.empty((0, len(self.words)), dtype=np.uint8), np.empty(0, dtype=np.int64)
        assert letters is not None
        different, of_row = np.unique(letters[rows], axis=0, return_inverse=True)
        return codes_against(different, self.where, rules=self.rules), of_row.reshape(-1)

    def join(self, batches: Sequence[Games]) -> Games:
        """Several batches as one, in their order."""
        before = np.cumsum([0, *(len(batch.pool) for batch in batches)])
        moved = [
            np.where(batch.starts >= len(self.shared), batch.starts + shift, batch.starts)
            for batch, shift in zip(batches, before, strict=False)
        ]
        others = [item.name for item in dataclasses.fields(Games) if item.name != "starts"]
        parts = {name: np.concatenate([getattr(batch, name) for batch in batches]) for name in others}
        return Games(starts=np.concatenate(moved), **parts)

    def alone(self, games: Games, row: int) -> Games:
        """One game as a batch of its own, which keeps nothing else alive."""
        start, count = int(games.starts[row]), int(games.counts[row])
        one = games.take(np.array([row]))
        if start < len(self.shared):
            return dataclasses.replace(one, pool=np.empty(0, dtype=np.uint16))
        first = start - len(self.shared)
        pool = games.pool[first : first + count].copy()
        return dataclasses.replace(one, pool=pool, starts=np.array([len(self.shared)]))


def make_game(words: Sequence[str], rules: str) -> Game:
    """The game of some different words in alphabetical order; the same words and rules give the same game."""
    letters = letters_of(words)
    table = pattern_table(letters, rules=rules)
    sizes = np.stack([np.bincount(row, minlength=CODES) for row in table]).astype(np.uint16)
    shared = np.arange(len(words), dtype=np.uint16)
    if 2 * len(words) ** 2 <= SHARED_BYTES:
        # A stable order keeps every set ascending, as filtering would.
        ordered = np.argsort(table, axis=1, kind="stable").astype(np.uint16)
        shared = np.concatenate([shared, ordered.ravel()])
    spreads = spreads_of(sizes)
    opening = best_openers(spreads).astype(np.uint16)
    return Game(tuple(words), rules, table, occurrences(letters), sizes, spreads, opening, shared)
