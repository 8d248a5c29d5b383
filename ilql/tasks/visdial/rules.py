"""When an episode is over and what a question earns: the rules of the paper's public environment, as pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from ilql.dialogue import Dialogue, Turn
from ilql.tasks.visdial.protocols import RecordedDialogue

MAX_QUESTIONS = 10
"""The agent may ask this many questions."""

REWARDS = ("yn", "standard", "conservative")
"""The three rewards: all charge for questions; `yn` also for bare yes/no answers, `conservative` for more of them."""

CONSERVATIVE_KEYS = (
    "not",
    "don't",
    "can't",
    "don’t",
    "can’t",
    "cannot",
    "fairly",
    "could",
    "think so",
    "okay",
    "maybe",
    "yes",
    "no",
    "looks",
    "appears",
    "tell",
    "mostly just",
)
"""An answer that contains one of them is penalised under `conservative`. A substring counts: "snow" contains "no"."""


def is_penalised(answer: str, reward: str) -> bool:
    """Whether `answer` costs the penalty under `reward`; letter case and surrounding spaces do not matter.

    `standard` penalises nothing, `yn` the two answers "yes" and "no", `conservative` every answer that contains one of
    `CONSERVATIVE_KEYS`.

    Raises:
        ValueError: There is no such reward.
    """
    said = answer.strip().lower()
    if reward == "standard":
        return False
    if reward == "yn":
        return said in ("yes", "no")
    if reward == "conservative":
        return any(key in said for key in CONSERVATIVE_KEYS)
    raise ValueError(f"reward must be one of {', '.join(REWARDS)}, got {reward!r}")


def goal_reached(first_percentile: float, percentile: float, *, stop_fraction: float) -> bool:
    """Whether the share (p_t - p_0) / (1 - p_0) of the gap that the caption left is at least `stop_fraction`.

    Compared as p_t - p_0 >= stop_fraction · (1 - p_0), so a caption that says it all (p_0 = 1) is no division by zero.
    A hair of 1e-12 is forgiven, so that a percentile that is exact on paper is not missed by its rounding.
    """
    return percentile - first_percentile >= stop_fraction * (1.0 - first_percentile) - 1e-12


def question_reward(
    answer: str, reward: str, *, questions: int, reached: bool, penalty: float, free_last_step: bool
) -> float:
    """What the question that got `answer` earns: its price, and the penalty if the answer is a penalised one.

    Its price is -1, or 0 for the question that ends the episode: the one that reaches the goal and, if `free_last_step`
    (as published), also the last one allowed. The penalty is due on the ending question too.

    Args:
        answer: What the question was answered.
        reward: One of `REWARDS`.
        questions: How many questions the agent has asked, this one included; in [1, MAX_QUESTIONS].
        reached: Whether the goal is reached after this answer.
        penalty: Added for a penalised answer; not positive.
        free_last_step: Whether running out of questions makes the last one free.
    """
    free = reached or (free_last_step and questions == MAX_QUESTIONS)
    return (0.0 if free else -1.0) + (penalty if is_penalised(answer, reward) else 0.0)


def lowest_return(reward: str, *, penalty: float, free_last_step: bool) -> float:
    """The return of ten penalised answers and no goal; the highest return is always 0."""
    paid = MAX_QUESTIONS - 1 if free_last_step else MAX_QUESTIONS
    return -float(paid) + (0.0 if reward == "standard" else penalty * MAX_QUESTIONS)


def exchanges_until_stop(percentiles: Sequence[float], *, stop_fraction: float) -> tuple[int, bool]:
    """How many exchanges of a recorded dialogue count, and whether the world ended it there.

    Args:
        percentiles: After the caption and after each exchange.
        stop_fraction: See `goal_reached`.

    Returns:
        The number of exchanges up to the first that reaches the goal, at most `MAX_QUESTIONS`; and whether the episode
        is over there. It is not where the recording is shorter than an episode and never reached the goal.
    """
    recorded = min(len(percentiles) - 1, MAX_QUESTIONS)
    for count in range(1, recorded + 1):
        if goal_reached(percentiles[0], percentiles[count], stop_fraction=stop_fraction):
            return count, True
    return recorded, recorded == MAX_QUESTIONS


def to_dialogue(
    recorded: RecordedDialogue,
    caption: str,
    reward: str,
    *,
    stop_fraction: float,
    penalty: float,
    free_last_step: bool,
) -> Dialogue:
    """The recorded dialogue as the episode it would have been: cut where the stop rule holds, each question paid.

    Turns: the caption (the world's), then question (the agent's, with its reward) and answer (the world's) in turn.
    """
    count, ended = exchanges_until_stop(recorded.percentiles, stop_fraction=stop_fraction)
    turns = [Turn(text=caption, by_agent=False)]
    for number, exchange in enumerate(recorded.exchanges[:count], start=1):
        reached = goal_reached(recorded.percentiles[0], recorded.percentiles[number], stop_fraction=stop_fraction)
        earned = question_reward(
            exchange.answer,
            reward,
            questions=number,
            reached=reached,
            penalty=penalty,
            free_last_step=free_last_step,
        )
        turns.append(Turn(text=exchange.question, by_agent=True, reward=earned))
        turns.append(Turn(text=exchange.answer, by_agent=False))
    return Dialogue(turns=tuple(turns), ended=ended)
