"""Games of Wordle a second: the engine of `ilql.tasks.wordle` against the same rules written plainly, side by side.

The other side plays one game at a time, keeps what is known of each letter, filters the list by it, and memoises best
guesses by it. It comes in two makes: the plain one is how one would write it first, with a state for each of 26 letters
and a filter of the whole list after every guess; the careful one has a state only for letters that were guessed and
filters only the words that were left. The ratio is over the plain one; the note has the one over the careful.

All get the same uniforms, and every game that another side plays must be the engine's, guess by guess. Numbers are
processor seconds of one thread: what else the machine does counts less.

The optimal player is measured twice: from an empty memo, all sides playing the same few games; and with the memo filled
by them, when the other sides play them again and the engine a large batch.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from benchmarks.measure import Benchmark, Line
from ilql.tasks.wordle.game import Game, Games, make_game
from ilql.tasks.wordle.patterns import ALPHABET, COLOUR_TEXTS, LENGTH
from ilql.tasks.wordle.policies import EXPERT, Policy, deal, play
from ilql.tasks.wordle.scripted import SUBOPTIMAL
from ilql.tasks.wordle.words import words_of

GOAL = 1000.0

UNKNOWN, ABSENT, PRESENT = "?", "-", "+"
Knowledge = dict[str, list[str]]
Rows = Sequence[Sequence[float]]
PlainPolicy = Callable[[Knowledge, Sequence[str], Sequence[float]], str]
Result = TypeVar("Result")


def learn(known: Knowledge, guess: str, target: str) -> Knowledge:
    """What is known of every letter after a guess: for each place, whether it stands there."""
    after = {letter: list(places) for letter, places in known.items()}
    for place, letter in enumerate(guess):
        places = after.setdefault(letter, [UNKNOWN] * len(guess))
        if target[place] == letter:
            places[place] = PRESENT
        elif letter in target:
            places[place] = ABSENT
        else:
            after[letter] = [ABSENT] * len(guess)
    return after


def allows(known: Knowledge, word: str) -> bool:
    """True if a word agrees with what is known of every letter."""
    for letter, places in known.items():
        if places.count(UNKNOWN) == len(places):
            continue
        if places.count(ABSENT) == len(places):
            if letter in word:
                return False
            continue
        if letter not in word:
            return False
        for place, mark in enumerate(places):
            if (mark == PRESENT and word[place] != letter) or (mark == ABSENT and word[place] == letter):
                return False
    return True


def colours(known: Knowledge, guess: str) -> str:
    """The colours of a guess, from what is known after it."""
    said = []
    for place, letter in enumerate(guess):
        places = known[letter]
        if places[place] == PRESENT:
            said.append("<g>")
        else:
            said.append("<b>" if places.count(ABSENT) == len(places) else "<y>")
    return "".join(said)


@dataclass
class PlainPlayer:
    """Plays one game after the other.

    Attributes:
        words: The list.
        openers: What the optimal player opens with.
        careful: Whether it skips letters of which nothing is known, and words that it has ruled out.
        best: Its best guesses by what is known.
    """

    words: Sequence[str]
    openers: Sequence[str]
    careful: bool
    best: dict[str, list[str]] = field(default_factory=dict)

    def mixture(self, known: Knowledge, words: Sequence[str], uniforms: Sequence[float]) -> str:
        """A word that is allowed, or any word, each half of the time."""
        among = words if uniforms[0] < 0.5 else self.words
        return among[int(uniforms[1] * len(among))]

    def optimal(self, known: Knowledge, words: Sequence[str], uniforms: Sequence[float]) -> str:
        """A good opener, then an allowed word of the highest information gain."""
        if len(words) == len(self.words):
            return self.openers[int(uniforms[0] * len(self.openers))]
        key = json.dumps(known, sort_keys=True)
        if key not in self.best:
            gains = [self.gain(known, words, guess) for guess in words]
            self.best[key] = [word for word, gain in zip(words, gains, strict=True) if gain > max(gains) - 1e-9]
        best = self.best[key]
        return best[int(uniforms[0] * len(best))]

    def gain(self, known: Knowledge, words: Sequence[str], guess: str) -> float:
        """The logarithm of how many words are allowed, less what it will be after the guess on average."""
        sizes: dict[str, int] = {}
        left = 0.0
        for target in words:
            after = learn(known, guess, target)
            key = colours(after, guess)
            if key not in sizes:
                sizes[key] = sum(allows(after, word) for word in words)
            left += math.log(sizes[key])
        return math.log(len(words)) - left / len(words)

    def play(self, policy: PlainPolicy, uniforms: Rows) -> list[tuple[str, str]]:
        """The guesses and colours of one game; the first uniform of each try draws the target."""
        known: Knowledge = {} if self.careful else {letter: [UNKNOWN] * LENGTH for letter in ALPHABET}
        words = self.words
        played: list[tuple[str, str]] = []
        for draw, *own in uniforms:
            guess = policy(known, words, own)
            target = words[int(draw * len(words))]
            known = learn(known, guess, target)
            words = [word for word in (words if self.careful else self.words) if allows(known, word)]
            played.append((guess, colours(known, guess)))
            if guess == target:
                break
        return played


def transcripts(game: Game, games: Games) -> list[list[tuple[str, str]]]:
    """The engine's games as the plain player writes them."""
    return [
        [(game.words[guess], COLOUR_TEXTS[code]) for guess, code in zip(guesses, codes, strict=True) if guess >= 0]
        for guesses, codes in zip(games.guesses.tolist(), games.codes.tolist(), strict=True)
    ]


@dataclass(frozen=True)
class Size:
    """How much is played.

    Attributes:
        rounds: How often, with another seed each time.
        mixture: Games of the other sides' random mixture.
        optimal: Games of their optimal player.
        batch: Games of the engine, where it plays more than they do.
    """

    rounds: int
    mixture: int
    optimal: int
    batch: int


FULL = Size(rounds=5, mixture=200, optimal=25, batch=20_000)
QUICK = Size(rounds=1, mixture=4, optimal=1, batch=64)


@dataclass(frozen=True)
class Rates:
    """Games a second, a number for each round."""

    engine: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    careful: list[float] = field(default_factory=list)


def timed(run: Callable[[], Result]) -> tuple[float, Result]:
    """The processor seconds that a call takes, and what it gives."""
    begun = time.process_time()
    result = run()
    return time.process_time() - begun, result


def measure(words: Sequence[str], size: Size) -> Mapping[str, Rates]:
    """All sides in turn, by what is played.

    Raises:
        ValueError: They played different games.
    """
    game = make_game(words, "consistent")
    openers = [words[number] for number in game.openers.tolist()]
    mixture, cold, warm = Rates(), Rates(), Rates()
    for seed in range(size.rounds):
        plain, careful = (PlainPlayer(words, openers, careful=each) for each in (False, True))
        mixing = (plain, plain.mixture), (careful, careful.mixture)
        compare(mixture, game, SUBOPTIMAL, *mixing, seed=seed, games=size.mixture, batch=size.batch)
        gaining = (plain, plain.optimal), (careful, careful.optimal)
        game.best.clear()
        compare(cold, game, EXPERT, *gaining, seed=seed, games=size.optimal, batch=size.optimal)
        play(game, EXPERT, *deal(game, EXPERT, size.batch, np.random.default_rng(seed)))
        compare(warm, game, EXPERT, *gaining, seed=seed, games=size.optimal, batch=size.batch)
    return {"random mixture": mixture, "optimal player, memo empty": cold, "optimal player, memo filled": warm}


def compare(
    rates: Rates,
    game: Game,
    policy: Policy,
    plain: tuple[PlainPlayer, PlainPolicy],
    careful: tuple[PlainPlayer, PlainPolicy],
    *,
    seed: int,
    games: int,
    batch: int,
) -> None:
    """Time each side once.

    Args:
        rates: Where each side's rate is added.
        game: The engine's words and rules.
        policy: Who plays, as the engine knows it.
        plain: The same as the plain side knows it, and its player.
        careful: The same of the careful side.
        seed: Of the uniforms.
        games: How many the other sides play.
        batch: How many the engine plays, those among them.

    Raises:
        ValueError: Another side does not play what the engine plays.
    """
    rows = deal(game, policy, games, np.random.default_rng(seed))[1].tolist()
    dealt = deal(game, policy, batch, np.random.default_rng(seed))
    took, all_games = timed(lambda: play(game, policy, *dealt))
    rates.engine.append(batch / took)
    engine = transcripts(game, all_games.take(np.arange(games)))
    for kept, (player, follow) in ((rates.plain, plain), (rates.careful, careful)):
        took, played = timed(lambda: [player.play(follow, each) for each in rows])  # noqa: B023
        kept.append(games / took)
        for number, (own, other) in enumerate(zip(engine, played, strict=True)):
            if own != other:
                raise ValueError(f"all sides must play the same games, got {own} and {other} as game {number}")


def run(quick: bool) -> list[Line]:
    """A line for each player, on the words of an installed package."""
    words, _ = words_of({})
    size = QUICK if quick else FULL
    return [_line(what, len(words), rates) for what, rates in measure(words, size).items()]


def _line(what: str, words: int, rates: Rates) -> Line:
    careful = [fast / slow for fast, slow in zip(rates.engine, rates.careful, strict=True)]
    return Line(
        name=f"Wordle, {what}, {words:,} words",
        unit="games/s",
        ours=tuple(rates.engine),
        other=tuple(rates.plain),
        other_is="one game at a time, a state for each letter, the whole list filtered after every guess",
        goal=GOAL,
        note="over one that keeps only letters that were guessed and filters only words that were left: "
        f"{statistics.median(careful):,.0f} ({min(careful):,.0f} to {max(careful):,.0f})",
        details={"careful": rates.careful},
    )


BENCHMARK = Benchmark(
    name="wordle_games",
    question="How many games of Wordle a second does the engine play, beside the same rules written plainly?",
    run=run,
)
