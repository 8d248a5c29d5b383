"""Wordle as it is played with words: what is a guess, what is said, and that a batch changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ilql.task import SPLITS, Reply
from ilql.tasks.bandit import Pull
from ilql.tasks.wordle import KIND, build, load
from ilql.tasks.wordle.environment import WordleEnvironment, WordleTask
from ilql.tasks.wordle.policies import EXPERT
from ilql.tasks.wordle.scripted import PLAYERS
from ilql.tasks.wordle.settings import Settings
from ilql.tokens import symbol_tokenizer

WORDS = ("crane", "eerie", "raise", "robot", "rotor", "slate", "stale", "trace")


def task_of(tmp_path: Path, **settings: object) -> WordleTask:
    words = tmp_path / "words.txt"
    words.write_text("\n".join(WORDS))
    folder = tmp_path / "world"
    folder.mkdir()
    build(Settings(train_games=3, tune_games=2, report_games=2, **settings), {"words": str(words)}, folder)  # type: ignore[arg-type]
    return load(folder)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> WordleTask:
    return task_of(tmp_path_factory.mktemp("consistent"))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> WordleTask:
    return task_of(tmp_path_factory.mktemp("real"), rules="real", world="optimal")


def say(task: WordleTask, environment: WordleEnvironment, text: str) -> Reply:
    return task.step([environment], [text])[0]


class TestWords:
    def test_the_agent_opens_and_the_world_answers_in_colours(self, real: WordleTask) -> None:
        environment = real.environment(0, "tune")
        hidden = WORDS[environment.games.targets[0]]
        assert environment.opening is None
        reply = say(real, environment, hidden)
        assert (reply.text, dict(reply.rewards), reply.ended) == ("<g><g><g><g><g>", {"standard": 0.0}, True)
        assert environment.measures() == {"won": 1.0, "invalid": 0.0, "words": 0.0}

    def test_five_letters_off_the_list_are_a_guess(self, real: WordleTask) -> None:
        environment = real.environment(0, "tune")
        reply = say(real, environment, "zzzzz")
        assert (reply.text, reply.rewards["standard"], reply.understood) == ("<b><b><b><b><b>", -1.0, True)
        assert environment.measures()["words"] == len(WORDS)

    def test_white_space_around_a_guess_does_not_count(self, real: WordleTask) -> None:
        replies = [say(real, real.environment(3, "tune"), text) for text in ("crane", "  crane\n")]
        assert replies[0] == replies[1]

    @pytest.mark.parametrize("text", ["", "cran", "cranes", "CRANE", "cr ne", "cran3", "<g><g><g><g><g>", "crâne"])
    def test_what_is_no_guess_costs_a_try_and_is_not_answered(self, task: WordleTask, text: str) -> None:
        environment = task.environment(0, "tune")
        reply = say(task, environment, text)
        assert reply == Reply(None, {"standard": -1.0}, ended=False, understood=False)
        assert environment.measures() == {"won": 0.0, "invalid": 1.0, "words": float(len(WORDS))}

    def test_six_that_are_no_guesses_end_the_game(self, task: WordleTask) -> None:
        environment = task.environment(0, "tune")
        replies = [say(task, environment, "") for _ in range(6)]
        assert [reply.ended for reply in replies] == [False] * 5 + [True]
        assert sum(reply.rewards["standard"] for reply in replies) == -6.0

    def test_every_symbol_of_a_game_is_one_token(self, task: WordleTask) -> None:
        tokenizer = symbol_tokenizer(KIND.symbols)
        for dialogue in task.dialogues("train", "standard"):
            assert all(len(tokenizer.encode(turn.text)) == 5 for turn in dialogue.turns)
            assert all(tokenizer.decode(tokenizer.encode(turn.text)) == turn.text for turn in dialogue.turns)


class TestEpisodes:
    def test_seeds_and_splits_decide_the_draws(self, task: WordleTask) -> None:
        draws = [tuple(task.draws(seed, split)) for seed in range(20) for split in SPLITS]
        assert len(set(draws)) == 60
        assert task.environment(5, "report").draws.tolist() == task.draws(5, "report").tolist()

    def test_seeds_are_scenes(self, task: WordleTask) -> None:
        assert task.environment(17, "tune").scene == "game-17"
        with pytest.raises(ValueError, match="not be negative, got -1"):
            task.environment(-1, "tune")

    def test_a_batch_of_games_at_different_tries_is_the_games_alone(self, task: WordleTask) -> None:
        dice = np.random.default_rng(0)
        texts = [*WORDS, "zzzzz", "oreos", "", "to long"]
        script = [[texts[int(k)] for k in dice.integers(len(texts), size=6)] for _ in range(30)]
        alone: list[list[Reply]] = []
        for seed, said in enumerate(script):
            environment, replies = task.environment(seed, "report"), []
            for text in said:
                replies.append(say(task, environment, text))
                if replies[-1].ended:
                    break
            alone.append(replies)
        together: list[list[Reply]] = [[] for _ in script]
        environments = [task.environment(seed, "report") for seed in range(30)]
        while going := [k for k in range(30) if not (together[k] and together[k][-1].ended)]:
            # Some wait, so that games meet that are at different tries.
            some = [k for k in going if dice.random() < 0.6]
            replies = task.step([environments[k] for k in some], [script[k][len(together[k])] for k in some])
            for k, reply in zip(some, replies, strict=True):
                together[k].append(reply)
        assert together == alone

    def test_steps_that_make_no_sense_are_refused(self, task: WordleTask) -> None:
        environment = task.environment(0, "tune")
        with pytest.raises(ValueError, match="twice"):
            task.step([environment, environment], ["crane", "crane"])
        with pytest.raises(ValueError, match="got 2 for 1"):
            task.step([environment], ["crane", "crane"])
        with pytest.raises(TypeError, match="got a Pull"):
            task.step([Pull(0)], ["crane"])
        assert task.step([], []) == []
        for _ in range(6):
            say(task, environment, "")
        with pytest.raises(ValueError, match="is over takes no more guesses, got 'game-0'"):
            say(task, environment, "crane")


class TestReferences:
    def test_the_expert_s_return_is_that_of_its_guesses_said_in_the_episode(self, task: WordleTask) -> None:
        seeds = [3, 1, 4, 15, 9]
        expected = task.references("report", "standard", seeds)["optimal"]
        for seed, value in zip(seeds, expected, strict=True):
            environment = task.environment(seed, "report")
            own = np.random.default_rng([seed, PLAYERS]).random((6, EXPERT.draws))
            earned, ended = 0.0, False
            while not ended:
                tries = int(environment.games.tries[0])
                guess = EXPERT.choose(task.game, environment.games, own[[tries]])[0]
                reply = say(task, environment, task.game.words[guess])
                earned, ended = earned + reply.rewards["standard"], reply.ended
            assert earned == value

    def test_an_episode_s_reference_does_not_depend_on_the_others(self, real: WordleTask) -> None:
        many = real.references("tune", "standard", range(30))["optimal"]
        assert [real.references("tune", "standard", [seed])["optimal"][0] for seed in range(30)] == list(many)
        assert len(set(many)) > 1
        assert real.references("tune", "standard", [])["optimal"] == []

    def test_an_unknown_split_or_reward_is_refused(self, task: WordleTask) -> None:
        with pytest.raises(ValueError, match="holiday"):
            task.references("holiday", "standard", [0])
        with pytest.raises(ValueError, match="holiday"):
            task.references("tune", "holiday", [0])
