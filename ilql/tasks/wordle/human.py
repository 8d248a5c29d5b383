"""Games as people may have played them: for every puzzle as many tries as they reported, with guesses like theirs.

What people report is how many tries a puzzle took them, n1 to n6, or nX for those who failed. Their guesses are not
known. So a model of a person plays, under the rules `real`: the first word is a good opener half of the time, else any
word; a later one is consistent with all colours with probability `SKILL`, else any word of the list. A recorded game
is a draw from how this player plays *given* the puzzle's answer and the number of tries: candidates are played that
avoid the answer until the last try, each weighs as much as its avoiding and its last guess are likely, and one is
drawn by weight. So a puzzle that took few tries has openers that told much, and nobody who knows the answer goes on
guessing, unless the tries demand it.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ilql.tasks.wordle.data import Recorded, generator_of, record
from ilql.tasks.wordle.game import TRIES, Game, Games
from ilql.tasks.wordle.ragged import Numbers, Uniforms, rank, sums
from ilql.tasks.wordle.settings import Settings
from ilql.tasks.wordle.words import read_text

COLUMNS = ("puzzle", "word", "n1", "n2", "n3", "n4", "n5", "n6", "nX")
FAILED = TRIES + 1
"""As a number of tries: six in vain."""

SKILL = 0.9
"""How often a person's later guess is consistent with all colours."""

OPENING = 0.5
"""How often a person's first guess is one of the list's good openers."""

CANDIDATES = 32
"""Games played for each game recorded."""

BLOCK = 1 << 23
"""How many words the sets of the candidates played at a time may hold."""


@dataclass(frozen=True, eq=False)
class Counts:
    """What people reported about P puzzles.

    Attributes:
        answers: Shape (P,), the answers, as numbers of words.
        tries: Shape (P, 7), how many people took 1 to 6 tries, or failed; at least one for each puzzle.
        skipped: How many puzzles of the file nobody reported on.
    """

    answers: Numbers
    tries: Numbers
    skipped: int

    @property
    def shares(self) -> npt.NDArray[np.float64]:
        """Shape (P, 7): the counts of each puzzle, divided by their sum."""
        return np.asarray(self.tries / self.tries.sum(axis=1, keepdims=True))


def read_counts(path: Path, number: dict[str, int]) -> Counts:
    """The counts of a CSV file with the header `puzzle,word,n1,n2,n3,n4,n5,n6,nX`; words are numbered by `number`.

    Raises:
        ValueError: The file cannot be read, lacks a column, or a line holds no counts, a word that is not on the list,
            or a puzzle for the second time.
    """
    reader = csv.reader(io.StringIO(read_text(path, "counts")))
    try:
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise ValueError(f"counts must be a CSV file, got {path}: {error} in line {reader.line_num}") from None
    header = tuple(name.strip() for name in rows[0][1]) if rows else ()
    if header != COLUMNS:
        lacking = [name for name in COLUMNS if name not in header]
        fault = f"lacks {', '.join(lacking)}" if lacking else f"has {','.join(header)}"
        raise ValueError(f"counts must have the columns {','.join(COLUMNS)}, got {path}, which {fault}")
    answers: list[int] = []
    tries: list[list[int]] = []
    seen: set[int] = set()
    skipped = 0
    for line, row in rows[1:]:
        if not any(cell.strip() for cell in row):
            continue
        place = f"in line {line} of {path}"
        if len(row) != len(COLUMNS):
            raise ValueError(f"counts must have {len(COLUMNS)} values a line, got {len(row)} {place}")
        puzzle, *numbers = (
            _count(cell, name, place) for cell, name in zip(row, COLUMNS, strict=True) if name != "word"
        )
        word = row[1].strip().lower()
        if word not in number:
            raise ValueError(
                f"a puzzle's word must be one of the {len(number)} words, got {word!r} {place}; --words names others"
            )
        if puzzle in seen:
            raise ValueError(f"each puzzle must have one line, got puzzle {puzzle} again {place}")
        seen.add(puzzle)
        if not sum(numbers):
            skipped += 1
            continue
        answers.append(number[word])
        tries.append(numbers)
    if not answers:
        raise ValueError(f"counts must tell of one puzzle at least, got none in {path}")
    return Counts(np.array(answers), np.array(tries), skipped)


def _count(cell: str, name: str, place: str) -> int:
    text = cell.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise ValueError(f"{name} must be a whole number that is not negative, got {text!r} {place}")
    return int(text)


def human_games(game: Game, settings: Settings, counts: Counts, split: str) -> tuple[Recorded, list[str]]:
    """The games of a split, and notes on how far their tries are from those reported.

    The puzzles share the games as evenly as can be. A puzzle's numbers of tries are drawn from its counts by one
    uniform and equal steps, so that its m games differ from m times its shares by less than 1 for each number.
    """
    generator = generator_of(settings, split)
    size, puzzles = settings.games(split), len(counts.answers)
    order = generator.permutation(puzzles)
    drawn = np.bincount(order[np.arange(size) % puzzles], minlength=puzzles)
    of_game = np.repeat(np.arange(puzzles), drawn)
    within = np.arange(size) - np.repeat(np.cumsum(drawn) - drawn, drawn)
    level = (within + np.repeat(generator.random(puzzles), drawn)) / drawn[of_game]
    tries = tries_at(counts, of_game, level)
    mixed = generator.permutation(size)
    games = games_given(game, counts.answers[of_game][mixed], tries[mixed], generator)
    table = np.zeros((puzzles, FAILED), dtype=np.int64)
    np.add.at(table, (of_game, tries - 1), 1)
    return record([("human", games, np.arange(size))]), distances(table, counts, split)


def tries_at(counts: Counts, puzzles: Numbers, levels: Uniforms) -> Numbers:
    """Shape (N,), 1 to 7: the numbers of tries at some levels, in [0, 1), of the cumulative shares of some puzzles."""
    ends = np.cumsum(counts.tries, axis=1)[puzzles]
    return 1 + np.asarray((ends <= (levels * ends[:, -1])[:, None]).sum(axis=1).clip(max=TRIES))


def distances(sampled: Numbers, counts: Counts, split: str) -> list[str]:
    """Notes on the total variation, half the sum of absolute differences, between sampled and reported shares.

    Args:
        sampled: Shape (P, 7), how many games of each puzzle took each number of tries.
        counts: What people reported.
        split: The games' split, for the note.
    """
    games = sampled.sum(axis=1)
    some = games > 0
    apart = np.abs(sampled[some] / games[some, None] - counts.shares[some]).sum(axis=1) / 2
    expected = (counts.shares * games[:, None]).sum(axis=0) / games.sum()
    overall = float(np.abs(sampled.sum(axis=0) / games.sum() - expected).sum() / 2)
    return [
        f"{split}: {games.sum()} games of {some.sum()} of {len(games)} puzzles, {games[some].mean():.1f} each;"
        f" their tries differ from the reported ones by a total variation of {apart.mean():.4f} in a puzzle on average,"
        f" {overall:.4f} over all"
    ]


def games_given(game: Game, answers: Numbers, tries: Numbers, generator: np.random.Generator) -> Games:
    """N finished games with given answers and numbers of tries, 7 for a failure; see the module for the guesses."""
    rows = max(1, BLOCK // (len(game.words) * CANDIDATES))
    every = np.arange(len(answers))
    parts = []
    for first in range(0, len(answers), rows):
        part = every[first : first + rows]
        played, weights = _candidates(
            game, np.repeat(answers[part], CANDIDATES), np.repeat(tries[part], CANDIDATES), generator
        )
        levels = np.cumsum(weights.reshape(len(part), CANDIDATES), axis=1)
        chosen = (levels <= (generator.random(len(part)) * levels[:, -1])[:, None]).sum(axis=1).clip(max=CANDIDATES - 1)
        parts.append(played.take(np.arange(len(part)) * CANDIDATES + chosen))
    return game.join(parts)


def _candidates(
    game: Game, answers: Numbers, tries: Numbers, generator: np.random.Generator
) -> tuple[Games, npt.NDArray[np.float64]]:
    """Games that avoid the answer until the last try, and how likely their avoiding and their last guess are."""
    games = dataclasses.replace(game.fresh(np.zeros(len(answers))), targets=answers)
    weights = np.ones(len(answers))
    done: list[tuple[Numbers, Games]] = []
    rows = np.arange(len(answers))
    for made in range(TRIES):
        hit = answer_chance(game, games)
        last = tries[rows] == made + 1
        uniforms = generator.random((len(rows), 2))
        guesses = np.where(last, games.targets, avoiding(game, games, uniforms))
        weights[rows] *= np.where(last, hit, 1.0 - hit)
        games = game.step(games, guesses, uniforms[:, 0])
        done.append((rows[games.over], games.take(np.flatnonzero(games.over))))
        rows, games = rows[~games.over], games.take(np.flatnonzero(~games.over))
        if not len(rows):
            break
    order = np.argsort(np.concatenate([part for part, _ in done]))
    return game.join([part for _, part in done]).take(order), weights


def answer_chance(game: Game, games: Games) -> npt.NDArray[np.float64]:
    """Shape (N,): the probability that a person's next guess is the hidden word."""
    first = games.tries == 0
    smart = np.where(first, OPENING, SKILL)
    among = np.where(first, np.isin(games.targets, game.openers) / len(game.openers), 1.0 / games.counts)
    return np.asarray(smart * among + (1.0 - smart) / len(game.words))


def avoiding(game: Game, games: Games, uniforms: Uniforms) -> Numbers:
    """Shape (N,): a person's next guess given that it is not the hidden word; uniforms have shape (N, 2).

    Of a set or list of words with the answer at place a, the word of rank r among the others is r, or r + 1 from a on.
    """
    first, words = games.tries == 0, len(game.words)
    hidden = games.targets
    opener = np.isin(hidden, game.openers)
    place = np.where(opener, np.searchsorted(game.openers, hidden), words)
    rows = np.flatnonzero(~first)
    if len(rows):
        later = games.take(rows)
        place[rows] = sums(game.members(later) < np.repeat(hidden[rows], later.counts), later.counts)
    others = np.where(first, len(game.openers) - opener, games.counts - 1)
    smart = np.where(first, OPENING, SKILL)
    # Given that the answer is avoided, each way of guessing counts by how much of it avoids the answer.
    size = np.where(first, len(game.openers), games.counts)
    share_smart, share_any = smart * others / size, (1.0 - smart) * (words - 1) / words
    clever = uniforms[:, 0] < share_smart / (share_smart + share_any)
    ranks = rank(uniforms[:, 1], np.maximum(others, 1))
    ranks = np.minimum(ranks + (ranks >= place), size - 1)
    consistent = np.where(first, game.openers[np.where(first, ranks, 0)], game.member(games, np.where(first, 0, ranks)))
    anything = rank(uniforms[:, 1], np.full(len(games), words - 1))
    return np.where(clever, consistent, anything + (anything >= hidden))
