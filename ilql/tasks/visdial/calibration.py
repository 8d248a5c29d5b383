"""How hard a visual-dialogue world is, before anything is trained on it.

`python -m ilql.tasks.visdial --data DIR` prints it for the recorded world in a few lines.
Two kinds of questioner are measured in each split: the people who were recorded, with the answers they got, and
*strangers*: the questions recorded about one scene, asked about another and answered by the world, which is more like
what a trained policy meets.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ilql.task import SPLITS
from ilql.tasks.visdial.protocols import Exchange, RecordedDialogue, VisdialSplit, VisdialWorld, percentiles
from ilql.tasks.visdial.rules import (
    MAX_QUESTIONS,
    REWARDS,
    exchanges_until_stop,
    goal_reached,
    is_penalised,
    question_reward,
)
from ilql.tasks.visdial.settings import Settings

PAPER_BC = {"standard": -5.25, "yn": -10.85, "conservative": -15.16}
"""What the paper's behaviour cloning scores, which imitates people: arXiv 2206.11871, visual dialogue by reward."""


@dataclass(frozen=True)
class Estimate:
    """A mean over episodes and its standard error; the error is nan where there is one episode only."""

    mean: float
    standard_error: float


@dataclass(frozen=True)
class Episodes:
    """What episodes of one questioner come to in one split.

    Attributes:
        number: How many there are.
        returns: The undiscounted return under each reward.
        lengths: How many episodes end after 1, 2, ... `MAX_QUESTIONS` questions.
        reached: The share that reaches the goal.
        first_percentile: The mean percentile after the caption.
        last_percentile: The mean percentile when the episode ends.
        bare: The share of answers that are exactly yes or no.
        nothing_fits: The share of answers by which the world says that nothing fits.
        not_understood: The share of questions that make no sense to the world; 0 for people, whom nobody asked that.
    """

    number: int
    returns: Mapping[str, Estimate]
    lengths: tuple[int, ...]
    reached: float
    first_percentile: float
    last_percentile: float
    bare: float
    nothing_fits: float
    not_understood: float


@dataclass(frozen=True)
class Calibration:
    """Both questioners in every split."""

    people: Mapping[str, Episodes]
    strangers: Mapping[str, Episodes]


def calibrate(world: VisdialWorld, settings: Settings) -> Calibration:
    """What people and strangers come to in every split; of `settings` only the rules of the game matter."""
    return Calibration(
        people={split: people(part, settings) for split, part in world.splits.items()},
        strangers={split: strangers(part, settings) for split, part in world.splits.items()},
    )


def people(part: VisdialSplit, settings: Settings) -> Episodes:
    """The recorded dialogues, cut where the rules end them."""
    return _summary(part.recorded, [0.0] * len(part.recorded), part.answerer.nothing_fits, settings)


def strangers(part: VisdialSplit, settings: Settings) -> Episodes:
    """The questions of each recorded dialogue asked about the scene of the dialogue half the list further on."""
    number = len(part.recorded)
    pairs = [
        (asker, part.recorded[(place + number // 2) % number].scene_id) for place, asker in enumerate(part.recorded)
    ]
    pairs = [(asker, scene) for asker, scene in pairs if asker.scene_id != scene]
    histories: list[list[Exchange]] = [[] for _ in pairs]
    progress = [[float(value)] for value in percentiles(part.guesser, [scene for _, scene in pairs], histories)]
    puzzled = [0] * len(pairs)
    for turn in range(MAX_QUESTIONS):
        rows = [row for row, (asker, _) in enumerate(pairs) if turn < len(asker.exchanges)]
        scenes = [pairs[row][1] for row in rows]
        questions = [pairs[row][0].exchanges[turn].question for row in rows]
        answers = part.answerer.answer(scenes, [histories[row] for row in rows], questions)
        for row, question, answer in zip(rows, questions, answers, strict=True):
            histories[row].append(Exchange(question=question, answer=answer.text))
            puzzled[row] += not answer.understood
        reached = percentiles(part.guesser, scenes, [histories[row] for row in rows])
        for row, value in zip(rows, reached, strict=True):
            progress[row].append(float(value))
    played = [
        RecordedDialogue(scene_id=scene, exchanges=tuple(history), percentiles=tuple(values))
        for (_, scene), history, values in zip(pairs, histories, progress, strict=True)
    ]
    shares = [count / len(history) for count, history in zip(puzzled, histories, strict=True)]
    return _summary(played, shares, part.answerer.nothing_fits, settings)


def _summary(
    played: Sequence[RecordedDialogue], not_understood: Sequence[float], nothing_fits: str, settings: Settings
) -> Episodes:
    returns: dict[str, list[float]] = {reward: [] for reward in REWARDS}
    lengths: Counter[int] = Counter()
    answers: list[str] = []
    first, last, reached = [], [], 0
    for dialogue in played:
        start = dialogue.percentiles[0]
        length, _ = exchanges_until_stop(dialogue.percentiles, stop_fraction=settings.stop_fraction)
        success = goal_reached(start, dialogue.percentiles[length], stop_fraction=settings.stop_fraction)
        said = [exchange.answer for exchange in dialogue.exchanges[:length]]
        for reward in REWARDS:
            returns[reward].append(
                math.fsum(
                    question_reward(
                        answer,
                        reward,
                        questions=number,
                        reached=success and number == length,
                        penalty=settings.penalty,
                        free_last_step=settings.free_last_step,
                    )
                    for number, answer in enumerate(said, start=1)
                )
            )
        lengths[length] += 1
        answers += said
        first.append(start)
        last.append(dialogue.percentiles[length])
        reached += success
    return Episodes(
        number=len(played),
        returns={reward: _estimate(values) for reward, values in returns.items()},
        lengths=tuple(lengths[length] for length in range(1, MAX_QUESTIONS + 1)),
        reached=reached / len(played),
        first_percentile=float(np.mean(first)),
        last_percentile=float(np.mean(last)),
        bare=sum(is_penalised(answer, "yn") for answer in answers) / len(answers),
        nothing_fits=answers.count(nothing_fits) / len(answers),
        not_understood=float(np.mean(not_understood)),
    )


def _estimate(values: Sequence[float]) -> Estimate:
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Estimate(mean=float(np.mean(values)), standard_error=error)


def describe(calibration: Calibration) -> list[str]:
    """`calibration` in one line for each questioner and split, after one with the paper's behaviour cloning."""
    paper = " ".join(f"{reward} {PAPER_BC[reward]:.2f}" for reward in REWARDS)
    lines = [f"calibration; the paper's behaviour cloning, for comparison: {paper}"]
    for name, questioner in (("people", calibration.people), ("strangers", calibration.strangers)):
        for split in SPLITS:
            episodes = questioner[split]
            scores = " ".join(
                f"{reward} {episodes.returns[reward].mean:.2f} ± {episodes.returns[reward].standard_error:.2f}"
                for reward in REWARDS
            )
            lines.append(
                f"{name} on {split} ({episodes.number}): {scores}; goal {episodes.reached:.0%}, "
                f"percentile {episodes.first_percentile:.3f} to {episodes.last_percentile:.3f}; "
                f"bare yes/no {episodes.bare:.0%}, nothing fits {episodes.nothing_fits:.1%}, "
                f"not understood {episodes.not_understood:.1%}; "
                f"lengths 1-{MAX_QUESTIONS}: {' '.join(map(str, episodes.lengths))}"
            )
    return lines
