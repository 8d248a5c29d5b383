"""Wordle as a task: recorded games, and episodes that go through the same rules."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from ilql.dialogue import Dialogue, Turn
from ilql.task import SPLITS, Environment, Reply
from ilql.tasks.wordle.data import EPISODES, Recorded
from ilql.tasks.wordle.game import HIDES_NOTHING, INVALID, NO_CODE, OFF_LIST, TRIES, Game, Games
from ilql.tasks.wordle.patterns import ALL_GREEN, COLOUR_TEXTS, LENGTH, letters_of
from ilql.tasks.wordle.policies import EXPERT
from ilql.tasks.wordle.ragged import Uniforms
from ilql.tasks.wordle.scripted import returns_against
from ilql.tasks.wordle.settings import REWARD, Settings

_GUESS = re.compile(rf"[a-z]{{{LENGTH}}}")


class WordleEnvironment:
    """One episode; stepped by `WordleTask.step`.

    Attributes:
        games: The game, alone in its batch.
        draws: Shape (7,): the uniforms of the hidden word and of every try.
    """

    opening: str | None = None

    def __init__(self, seed: int, games: Games, draws: Uniforms) -> None:
        self.games = games
        self.draws = draws
        self._seed = seed

    @property
    def scene(self) -> str:
        """The seed names it: each game is a scene of its own."""
        return f"game-{self._seed}"

    def measures(self) -> Mapping[str, float]:
        """`won`, 1 or 0; how many guesses were `invalid`; how many `words` can still be the target, 0 at the end."""
        return {
            "won": float(self.games.won[0]),
            "invalid": float((self.games.guesses[0] == INVALID).sum()),
            "words": float(self.games.counts[0]),
        }


class WordleTask:
    """A loaded world. Implements `ilql.task.Task`.

    Attributes:
        game: Its words and rules.
        settings: What decided it.
        recorded: The recorded games of each split.
        rule: What a person who plays is told first.
    """

    name = "wordle"
    rewards = (REWARD,)
    max_turns = TRIES
    playable = True
    rule = "a guess is five letters, a to z; anything else costs a try, too"

    def __init__(self, game: Game, settings: Settings, recorded: Mapping[str, Recorded]) -> None:
        self.game = game
        self.settings = settings
        self.recorded = recorded

    def score_range(self, reward: str) -> tuple[float, float]:
        """From six guesses in vain to the target at once.

        Raises:
            ValueError: There is no such reward.
        """
        _check_reward(reward)
        return -float(TRIES), 0.0

    def dialogues(self, split: str, reward: str) -> tuple[Dialogue, ...]:
        """The recorded games of `split`, all of them ended.

        Raises:
            ValueError: There is no such split or reward.
        """
        _check_reward(reward)
        _check_split(split)
        games = self.recorded[split]
        return tuple(self.dialogue(split, row) for row in range(len(games.guesses)))

    def dialogue(self, split: str, row: int, guesses: int | None = None) -> Dialogue:
        """One recorded game, or its first guesses: then the last of them is the last turn, and the game cut off there.

        Args:
            split: The split.
            row: The game's number in it.
            guesses: How many guesses to give; all, and the answer to the last, if None.
        """
        games = self.recorded[split]
        made = int((games.guesses[row] >= 0).sum())
        shown = made if guesses is None else guesses
        turns: list[Turn] = []
        for guess, code in zip(games.guesses[row, :shown].tolist(), games.codes[row, :shown].tolist(), strict=True):
            turns += (_guess_turn(self.game.words[guess], won=code == ALL_GREEN), _COLOUR_TURNS[code])
        return Dialogue(tuple(turns if guesses is None else turns[:-1]), ended=shown == made)

    def environment(self, seed: int, split: str) -> WordleEnvironment:
        """A fresh game, whose hidden word or draws the seed and the split decide.

        Raises:
            ValueError: There is no such split, or the seed is negative.
        """
        draws = self.draws(seed, split)
        return WordleEnvironment(seed, self.game.fresh(draws[:1]), draws)

    def step(self, environments: Sequence[Environment], utterances: Sequence[str]) -> list[Reply]:
        """Make one guess in each game, all in one batch; one never depends on the others.

        White space around a guess does not count. What is not five letters a-z is no guess: it costs a try, and the
        world says nothing.

        Raises:
            TypeError: An environment is of another task.
            ValueError: An episode is over, or stands in the list twice, or there is not one guess for each.
        """
        asked = [_checked(environment) for environment in environments]
        if len({id(environment) for environment in asked}) != len(asked):
            raise ValueError("one step must ask each environment once, got one of them twice")
        if len(asked) != len(utterances):
            raise ValueError(f"each environment must get one guess, got {len(utterances)} for {len(asked)}")
        if not asked:
            return []
        said = [text.strip() for text in utterances]
        valid = [_GUESS.fullmatch(text) is not None for text in said]
        number = self.game.number
        guesses = [number.get(text, OFF_LIST) if good else INVALID for text, good in zip(said, valid, strict=True)]
        games = self.game.join([environment.games for environment in asked])
        drawn = np.array([environment.draws[1:] for environment in asked])[np.arange(len(asked)), games.tries]
        letters = letters_of([text if good else "a" * LENGTH for text, good in zip(said, valid, strict=True)])
        after = self.game.step(games, np.array(guesses), drawn, letters)
        replies = []
        for row, environment in enumerate(asked):
            environment.games = self.game.alone(after, row)
            code = int(after.codes[row, games.tries[row]])
            replies.append(
                Reply(
                    text=None if code == NO_CODE else COLOUR_TEXTS[code],
                    rewards={REWARD: 0.0 if code == ALL_GREEN else -1.0},
                    ended=bool(after.over[row]),
                    understood=code != NO_CODE,
                )
            )
        return replies

    def typed(self, text: str) -> str:
        """The guess of a person who typed this: a policy writes small letters, and people write either."""
        return text.strip().lower()

    def afterwards(self, environment: Environment) -> str | None:
        """What a person who has lost wants to know: the word, where there was one. None for one who has won."""
        games = _of_wordle(environment).games
        if games.won[0]:
            return None
        if games.targets[0] == HIDES_NOTHING:
            return "no word was hidden: each try is coloured by one of those that all colours allow"
        return f"the word was {self.game.words[games.targets[0]]}"

    def references(self, split: str, reward: str, seeds: Sequence[int]) -> Mapping[str, Sequence[float]]:
        """What the expert gets in the episodes of some seeds, as `optimal`: a good opener, then information gain.

        Raises:
            ValueError: There is no such split or reward, or a seed is negative.
        """
        _check_reward(reward)
        _check_split(split)
        worlds = np.array([self.draws(seed, split) for seed in seeds]).reshape(len(seeds), 1 + TRIES)
        return {"optimal": [float(earned) for earned in returns_against(self.game, EXPERT, worlds, seeds)]}

    def draws(self, seed: int, split: str) -> Uniforms:
        """Shape (7,): the uniforms that decide an episode's hidden word, where the rules hide one, and every try.

        Raises:
            ValueError: There is no such split, or the seed is negative.
        """
        _check_split(split)
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed}")
        return np.random.default_rng([self.settings.seed, EPISODES + SPLITS.index(split), seed]).random(1 + TRIES)


_COLOUR_TURNS = tuple(Turn(text, by_agent=False) for text in COLOUR_TEXTS)


@lru_cache(maxsize=1 << 15)
def _guess_turn(word: str, *, won: bool) -> Turn:
    return Turn(word, by_agent=True, reward=0.0 if won else -1.0)


def _check_reward(reward: str) -> None:
    if reward != REWARD:
        raise ValueError(f"reward must be {REWARD!r}, got {reward!r}")


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")


def _of_wordle(environment: Environment) -> WordleEnvironment:
    if not isinstance(environment, WordleEnvironment):
        raise TypeError(f"a wordle task steps its own environments, got a {type(environment).__name__}")
    return environment


def _checked(environment: Environment) -> WordleEnvironment:
    own = _of_wordle(environment)
    if own.games.over[0]:
        raise ValueError(f"an episode that is over takes no more guesses, got {own.scene!r}")
    return own
