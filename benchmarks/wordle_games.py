"""Games of Wordle a second: the engine of `ilql.tasks.wordle` against the same rules written plainly, side by side.

`python benchmarks/wordle_games.py --words FILE --out FILE.json` plays the random mixture and the optimal player both
ways, in turn, several times, and prints medians and spreads, in processor seconds of one thread: what else the machine
does counts less. The plain side plays one game at a time, keeps what is known of each letter, filters the list by it,
and memoises best guesses by it. It comes in two makes: `plain` is how one would write it first, with a state for each
of 26 letters and a filter of the whole list after every guess; `careful` has a state only for letters that were guessed
and filters only the words that were left.

All sides get the same uniforms, and every game that a plain side plays must be the engine's, guess by guess.

The optimal player is measured twice: from an empty memo, both sides playing the same few games; and with the memo
filled by them, when the plain side plays them again and the engine a large batch.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import numpy as np

from ilql.tasks.wordle.game import Game, Games, make_game
from ilql.tasks.wordle.patterns import ALPHABET, COLOUR_TEXTS, LENGTH
from ilql.tasks.wordle.policies import EXPERT, Policy, deal, play
from ilql.tasks.wordle.scripted import SUBOPTIMAL
from ilql.tasks.wordle.words import words_of

ROOT = Path(__file__).resolve().parents[1]

UNKNOWN, ABSENT, PRESENT = "?", "-", "+"
Knowledge = dict[str, list[str]]
Rows = Sequence[Sequence[float]]
PlainPolicy = Callable[[Knowledge, Sequence[str], Sequence[float]], str]
Result = TypeVar("Result")
MAKES = ("plain", "careful")


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
class Sides:
    """Games a second of both sides, one number for each repetition.

    Attributes:
        what: What was played.
        make: `plain` or `careful`.
        plain: The plain player.
        engine: The engine, measured right after it.
        plain_games: Games of each repetition of the plain player.
        engine_games: The same of the engine.
    """

    what: str
    make: str
    plain_games: int
    engine_games: int
    plain: list[float] = field(default_factory=list)
    engine: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """How many times faster the engine was, by repetition."""
        return [fast / slow for fast, slow in zip(self.engine, self.plain, strict=True)]


def timed(run: Callable[[], Result]) -> tuple[float, Result]:
    """The processor seconds that a call takes, and what it gives."""
    begun = time.process_time()
    result = run()
    return time.process_time() - begun, result


def measure(words: Sequence[str], *, repetitions: int, plain_games: int, cold_games: int, batch: int) -> list[Sides]:
    """Both sides in turn, for both makes of the plain one, by `repetitions` different seeds.

    Raises:
        ValueError: The two sides played different games.
    """
    game = make_game(words, "consistent")
    openers = [words[number] for number in game.openers.tolist()]
    measured = []
    for make in MAKES:
        mixture = Sides("random mixture", make, plain_games, batch)
        cold = Sides("optimal, memo empty", make, cold_games, cold_games)
        warm = Sides("optimal, memo filled", make, cold_games, batch)
        for seed in range(repetitions):
            player = PlainPlayer(words, openers, careful=make == "careful")
            compare(mixture, game, SUBOPTIMAL, player, player.mixture, seed)
            game.best.clear()
            compare(cold, game, EXPERT, player, player.optimal, seed)
            play(game, EXPERT, *deal(game, EXPERT, batch, np.random.default_rng(seed)))
            compare(warm, game, EXPERT, player, player.optimal, seed)
        measured += [mixture, cold, warm]
    return measured


def compare(sides: Sides, game: Game, policy: Policy, player: PlainPlayer, plain: PlainPolicy, seed: int) -> None:
    """Time both sides once and add their rates to `sides`.

    Raises:
        ValueError: The engine does not play what the plain side plays.
    """
    few = deal(game, policy, sides.plain_games, np.random.default_rng(seed))
    many = deal(game, policy, sides.engine_games, np.random.default_rng(seed))
    rows = few[1].tolist()
    slow, played = timed(lambda: [player.play(plain, each) for each in rows])
    fast, games = timed(lambda: play(game, policy, *many))
    sides.plain.append(sides.plain_games / slow)
    sides.engine.append(sides.engine_games / fast)
    engine = transcripts(game, games.take(np.arange(sides.plain_games)))
    for number, (own, other) in enumerate(zip(engine, played, strict=True)):
        if own != other:
            raise ValueError(f"both sides must play the same games, got {own} and {other} as game {number}")


def provenance() -> dict[str, str]:
    """The commit, the machine, the versions."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], check=False, cwd=ROOT, capture_output=True, text=True)  # nosec B607
        return done.stdout.strip()

    cpu = [
        line.split(":", 1)[1].strip()
        for line in (
            Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").is_file() else []
        )
        if line.startswith("model name")
    ]
    return {
        "commit": git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else ""),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{cpu[0] if cpu else platform.processor()}, {len(cpu)} cores, {platform.system()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write a JSON file if one is named."""
    parser = argparse.ArgumentParser(prog="python benchmarks/wordle_games.py", description=main.__doc__)
    parser.add_argument("--words", help="a file of words of five letters, one a line; those of wonderwords if left out")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--plain-games", type=int, default=200, help="the plain random mixture's games of a repetition")
    parser.add_argument("--cold-games", type=int, default=25, help="the plain optimal player's games of a repetition")
    parser.add_argument("--batch", type=int, default=20_000, help="the engine's games of a repetition")
    chosen = parser.parse_args(arguments)
    try:
        words, _ = words_of({} if chosen.words is None else {"words": chosen.words})
    except ValueError as fault:
        sys.stderr.write(f"{fault}\n")
        return 2
    measured = measure(
        words,
        repetitions=chosen.repetitions,
        plain_games=chosen.plain_games,
        cold_games=chosen.cold_games,
        batch=chosen.batch,
    )
    about = provenance()
    lines = [", ".join(f"{key} {value}" for key, value in about.items()), f"{len(words)} words"]
    for each in measured:
        ratios = each.ratios
        lines.append(
            f"{each.what:<21} {each.make:<7} {statistics.median(each.plain):>8.2f}/s   engine"
            f" {statistics.median(each.engine):>9.0f}/s   {statistics.median(ratios):>7.0f} times"
            f" ({min(ratios):.0f} to {max(ratios):.0f} over {len(ratios)})"
        )
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    if chosen.out is not None:
        rows = [{**dataclasses.asdict(each), "ratios": each.ratios} for each in measured]
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**about, "words": len(words), "games_a_second": rows}, indent=1)
        chosen.out.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
