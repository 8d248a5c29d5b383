"""What decides a Wordle task besides its words and counts."""

from __future__ import annotations

from dataclasses import dataclass

from ilql.hyperparameters import AT_LEAST_ONE, NOT_NEGATIVE, Range, check, hyper

WORLDS = ("optimal", "branching", "branching_unmended", "human")
RULES = ("consistent", "real")
REWARD = "standard"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Which recorded games, under which rules.

    The worlds: `optimal`, games of the expert alone; `branching`, the games of section 5 of the paper; the same with
    the published generator's fault as `branching_unmended`; `human`, games whose number of tries follows what people
    reported (`data` and `human` say how each is made).

    The rules: `consistent`, the paper's Markov game, in which no word is hidden and letters are coloured one by one;
    `real`, the newspaper's game.

    Raises:
        ValueError: A field is outside its range, or the human world is to be played by the paper's rules.
    """

    world: str = hyper("branching", Range(choices=WORLDS), meaning="what the recorded games are")
    rules: str = hyper("consistent", Range(choices=RULES), meaning="how guesses are coloured and games won")
    seed: int = hyper(0, NOT_NEGATIVE, meaning="decides the recorded games and every episode's draws")
    train_games: int = hyper(
        2000,
        AT_LEAST_ONE,
        meaning="the expert's games of the training split; about 11 are recorded for each of a branching world's",
    )
    tune_games: int = hyper(200, AT_LEAST_ONE, meaning="the same for the split on which settings are chosen")
    report_games: int = hyper(200, AT_LEAST_ONE, meaning="the same for the split that tables score")

    def __post_init__(self) -> None:
        check(self)
        if self.world == "human" and self.rules != "real":
            raise ValueError(f"world 'human' must have rules 'real', as people played, got rules {self.rules!r}")

    def games(self, split: str) -> int:
        """How many games of the expert, or of people, `split` has."""
        return {"train": self.train_games, "tune": self.tune_games, "report": self.report_games}[split]
