"""The stop rule and the three rewards, by hand."""

from __future__ import annotations

import pytest

from ilql.tasks.visdial.protocols import Exchange, RecordedDialogue
from ilql.tasks.visdial.rules import (
    CONSERVATIVE_KEYS,
    MAX_QUESTIONS,
    exchanges_until_stop,
    goal_reached,
    is_penalised,
    lowest_return,
    question_reward,
    to_dialogue,
)


def recorded(answers: list[str], percentiles: list[float]) -> RecordedDialogue:
    exchanges = tuple(Exchange(question=f"question {i} ?", answer=answer) for i, answer in enumerate(answers))
    return RecordedDialogue(scene_id="s", exchanges=exchanges, percentiles=tuple(percentiles))


def rewards_of(dialogue: RecordedDialogue, reward: str, *, free_last_step: bool = True) -> list[float]:
    made = to_dialogue(dialogue, "a cat .", reward, stop_fraction=0.5, penalty=-2.0, free_last_step=free_last_step)
    return [turn.reward for turn in made.turns if turn.by_agent]


def test_the_worked_example_of_the_reference() -> None:
    # p_0 = .8, steps .05 and .06: (.85 - .8) / .2 = .25 goes on, (.91 - .8) / .2 = .55 ends; a third is cut off.
    dialogue = recorded(["yes", "no", "red"], [0.8, 0.85, 0.91, 0.92])
    assert exchanges_until_stop(dialogue.percentiles, stop_fraction=0.5) == (2, True)
    assert rewards_of(dialogue, "standard") == [-1.0, 0.0]
    assert rewards_of(dialogue, "yn") == [-3.0, -2.0]


def test_exactly_half_of_the_gap_is_enough() -> None:
    assert goal_reached(0.9, 0.95, stop_fraction=0.5)  # .05 of .1, although .95 - .9 < .05 in floating point
    assert not goal_reached(0.8, 0.8999, stop_fraction=0.5)


def test_a_caption_that_says_it_all_divides_by_nothing() -> None:
    assert goal_reached(1.0, 1.0, stop_fraction=0.5)


def test_progress_may_go_back_without_ending_anything() -> None:
    assert exchanges_until_stop([0.5, 0.2, 0.1], stop_fraction=0.5) == (2, False)


@pytest.mark.parametrize(
    ("answer", "yn", "conservative"),
    [
        ("yes", True, True),
        (" No ", True, True),
        ("yes, it is", False, True),
        ("red", False, False),
        ("there is snow", False, True),  # s-no-w
        ("I don't know", False, True),
        ("i don’t", False, True),  # curly
        ("i think so", False, True),
        ("2", False, False),
        ("", False, False),
        ("yes.", False, True),
    ],
)
def test_which_answers_are_penalised(answer: str, yn: bool, conservative: bool) -> None:
    assert is_penalised(answer, "yn") is yn
    assert is_penalised(answer, "conservative") is conservative
    assert is_penalised(answer, "standard") is False


def test_the_key_words_are_the_published_ones() -> None:
    published = (
        "not|don't|can't|don’t|can’t|cannot|fairly|could|think so|okay|maybe|yes|no|looks|appears|tell|mostly just"
    )
    assert "|".join(CONSERVATIVE_KEYS) == published


def test_an_unknown_reward_is_refused() -> None:
    with pytest.raises(ValueError, match="reward must be one of yn, standard, conservative, got 'hard'"):
        is_penalised("yes", "hard")


def test_the_last_question_is_free_only_as_an_option() -> None:
    # Ten answers, no progress: nine or ten questions are paid, and every "yes" is penalised, the last one too.
    dialogue = recorded(["yes"] * 10, [0.5] * 11)
    assert rewards_of(dialogue, "standard") == [-1.0] * 9 + [0.0]
    assert rewards_of(dialogue, "yn") == [-3.0] * 9 + [-2.0]
    assert rewards_of(dialogue, "standard", free_last_step=False) == [-1.0] * 10
    assert sum(rewards_of(dialogue, "yn")) == lowest_return("yn", penalty=-2.0, free_last_step=True) == -29.0
    assert lowest_return("standard", penalty=-2.0, free_last_step=True) == -9.0
    assert lowest_return("conservative", penalty=-2.0, free_last_step=False) == -30.0


def test_reaching_the_goal_with_the_last_question_is_free_either_way() -> None:
    assert [
        question_reward("red", "yn", questions=10, reached=True, penalty=-2.0, free_last_step=free)
        for free in (True, False)
    ] == [0.0, 0.0]


def test_a_short_recording_that_never_got_there_was_cut_off() -> None:
    dialogue = recorded(["red", "two"], [0.5, 0.5, 0.5])
    made = to_dialogue(dialogue, "a cat .", "yn", stop_fraction=0.5, penalty=-2.0, free_last_step=True)
    assert made.ended is False
    assert made.total_reward == -2.0


def test_the_turns_are_caption_then_questions_and_answers() -> None:
    dialogue = recorded(["red", "two"], [0.0, 0.1, 0.9])
    made = to_dialogue(dialogue, "a cat .", "yn", stop_fraction=0.5, penalty=-2.0, free_last_step=True)
    assert [(turn.text, turn.by_agent, turn.reward) for turn in made.turns] == [
        ("a cat .", False, 0.0),
        ("question 0 ?", True, -1.0),
        ("red", False, 0.0),
        ("question 1 ?", True, 0.0),
        ("two", False, 0.0),
    ]
    assert made.ended is True


def test_a_recording_longer_than_an_episode_is_cut_at_ten() -> None:
    assert exchanges_until_stop([0.5] * 13, stop_fraction=0.5) == (MAX_QUESTIONS, True)


@pytest.mark.parametrize(
    ("percentiles", "problem"),
    [([0.5], "must have 2 percentiles, got 1"), ([0.5, 1.5], r"must be in \[0, 1\], got 1.5")],
)
def test_a_recording_that_cannot_be_is_refused(percentiles: list[float], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        recorded(["red"], percentiles)
