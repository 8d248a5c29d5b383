"""What every task promises, whatever it is: a new file of `ilql.tasks` is held to this page by existing."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from tokenizers import Tokenizer as TextTokenizer
from tokenizers.normalizers import Replace

from ilql.batch import tokenize
from ilql.dialogue import Dialogue, Turn
from ilql.task import SPLITS, Environment, Reply, Task, TaskKind
from ilql.tasks import known_tasks, task_named
from ilql.tokens import STRUCTURE, Tokenizer, new_tokenizer

KINDS = known_tasks()


def test_one_task_is_found_without_what_the_others_stand_on() -> None:
    look = "import sys; from ilql.tasks import task_named; task_named('bandit'); print('sklearn' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, text=True).stdout
    assert said.split() == ["False"]


def test_a_task_that_is_not_there_is_named_beside_those_that_are() -> None:
    with pytest.raises(KeyError, match=r"'bandits' is no task; known: bandit, .*visdial"):
        task_named("bandits")


@pytest.fixture(params=KINDS, scope="module")
def kind(request: pytest.FixtureRequest) -> TaskKind:
    return KINDS[request.param]


@pytest.fixture(scope="module")
def folder(kind: TaskKind, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp(kind.name)
    kind.build(kind.example, {}, place)
    return place


@pytest.fixture(scope="module")
def task(kind: TaskKind, folder: Path) -> Task:
    return kind.load(folder)


@pytest.fixture(scope="module")
def script(task: Task) -> list[str]:
    """Give what an agent might say: recorded utterances, a repetition, nothing, and nonsense."""
    dialogues = task.dialogues("train", task.rewards[0])
    said = list(dict.fromkeys(turn.text for d in dialogues for turn in d.turns if turn.by_agent))
    first = said[: max(1, task.max_turns - 3)]
    return ([*first, first[0], "", "xyzzy 123"] * task.max_turns)[: task.max_turns]


def play(task: Task, seed: int, utterances: Sequence[str], split: str = "tune") -> tuple[Environment, list[Reply]]:
    """Say the utterances one after the other until the episode ends."""
    environment, replies = task.environment(seed, split), []
    for text in utterances:
        replies += task.step([environment], [text])
        if replies[-1].ended:
            break
    return environment, replies


class TestPresentation:
    def test_it_is_found_by_its_name(self, kind: TaskKind, task: Task) -> None:
        assert KINDS[kind.name] is kind
        assert task_named(kind.name) is kind  # so its module has its name
        assert task.name == kind.name

    def test_its_settings_are_frozen_and_survive_json(self, kind: TaskKind) -> None:
        assert isinstance(kind.example, kind.settings)
        field = dataclasses.fields(kind.example)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(kind.example, field, None)
        assert json.loads(json.dumps(dataclasses.asdict(kind.example)))

    def test_the_digest_of_its_source_is_the_same_twice(self, kind: TaskKind) -> None:
        first, second = (kind.source_digest(kind.example, {}) for _ in range(2))
        assert first == second

    def test_its_rewards_have_names_of_their_own(self, task: Task) -> None:
        assert task.rewards
        assert len(set(task.rewards)) == len(task.rewards)
        assert task.max_turns >= 1

    def test_every_reward_has_a_range(self, task: Task) -> None:
        for reward in task.rewards:
            low, high = task.score_range(reward)
            assert math.isfinite(low)
            assert low < high < math.inf


class TestDialogues:
    def test_there_are_some_in_every_split_and_an_agent_speaks_in_them(self, task: Task) -> None:
        for split in SPLITS:
            dialogues = task.dialogues(split, task.rewards[0])
            assert dialogues
            assert all(any(turn.by_agent for turn in dialogue.turns) for dialogue in dialogues)

    def test_they_differ_between_rewards_in_nothing_but_rewards(self, task: Task) -> None:
        def without_rewards(dialogues: tuple[Dialogue, ...]) -> list[object]:
            return [(d.ended, [(turn.text, turn.by_agent) for turn in d.turns]) for d in dialogues]

        for split in SPLITS:
            first, *others = (without_rewards(task.dialogues(split, reward)) for reward in task.rewards)
            assert all(other == first for other in others)

    def test_their_returns_lie_in_the_score_range(self, task: Task) -> None:
        for reward in task.rewards:
            low, high = task.score_range(reward)
            for dialogue in task.dialogues("train", reward):
                assert low - 1e-9 <= dialogue.total_reward <= high + 1e-9

    def test_loading_twice_gives_the_same(self, kind: TaskKind, folder: Path, task: Task) -> None:
        again = kind.load(folder)
        assert again.dialogues("train", task.rewards[0]) == task.dialogues("train", task.rewards[0])

    def test_building_twice_gives_the_same(self, kind: TaskKind, task: Task, tmp_path: Path) -> None:
        kind.build(kind.example, {}, tmp_path)
        assert kind.load(tmp_path).dialogues("tune", task.rewards[0]) == task.dialogues("tune", task.rewards[0])

    def test_an_unknown_split_or_reward_is_refused(self, task: Task) -> None:
        with pytest.raises((ValueError, KeyError), match="holiday"):
            task.dialogues("holiday", task.rewards[0])
        with pytest.raises((ValueError, KeyError), match="holiday"):
            task.dialogues("train", "holiday")
        with pytest.raises((ValueError, KeyError), match="holiday"):
            task.environment(0, "holiday")


@pytest.fixture(scope="module")
def own(kind: TaskKind, task: Task) -> Tokenizer:
    """Give the tokeniser that is made for the task."""
    texts = [turn.text for dialogue in task.dialogues("train", task.rewards[0]) for turn in dialogue.turns]
    return new_tokenizer(kind.symbols, texts, vocabulary=512)


def come_back(dialogue: Dialogue, tokenizer: Tokenizer) -> tuple[bool, list[tuple[str, bool]]]:
    """Whether a dialogue has ended and what was said by whom, as its tokens tell it."""
    structure = {tokenizer.structural(name): name for name in STRUCTURE}
    said, text, ended = list[tuple[str, bool]](), list[int](), False
    for token in tokenize(dialogue, tokenizer).tokens.tolist():
        name = structure.get(token)
        if name is None:
            text.append(token)
        elif name in ("eos", "eoa"):
            said.append((tokenizer.decode(text), name == "eoa"))
            text = []
        ended |= name == "eod"
    return ended, said


def written(dialogue: Dialogue) -> tuple[bool, list[tuple[str, bool]]]:
    """As `come_back`, of the dialogue itself."""
    return dialogue.ended, [(turn.text, turn.by_agent) for turn in dialogue.turns]


class TestTokens:
    """Text to tokens to text, by the tokeniser that is made for the task."""

    def test_every_dialogue_comes_back_from_its_tokens(self, task: Task, own: Tokenizer) -> None:
        for split in SPLITS:
            for dialogue in task.dialogues(split, task.rewards[0]):
                assert come_back(dialogue, own) == written(dialogue)

    def test_what_the_world_says_comes_back(self, task: Task, own: Tokenizer, script: list[str]) -> None:
        for seed in range(3):
            environment, replies = play(task, seed, script)
            for text in (environment.opening, *(reply.text for reply in replies)):
                assert text is None or own.decode(own.encode(text)) == text

    def test_a_tokeniser_that_loses_a_letter_would_be_found_out(self, task: Task, own: Tokenizer) -> None:
        dialogues = task.dialogues("train", task.rewards[0])
        (letter, _), *_ = Counter(
            "".join(turn.text for d in dialogues for turn in d.turns).replace(" ", "")
        ).most_common()
        lossy = TextTokenizer.from_str(own.text.to_str())
        lossy.normalizer = Replace(letter, "")
        assert any(come_back(dialogue, Tokenizer(lossy)) != written(dialogue) for dialogue in dialogues)


class TestEpisodes:
    def test_one_ends_within_the_largest_number_of_turns(self, task: Task, script: list[str]) -> None:
        for seed in range(5):
            _, replies = play(task, seed, script)
            assert replies[-1].ended
            assert not any(reply.ended for reply in replies[:-1])

    def test_saying_nothing_ends_too_and_is_not_understood(self, task: Task) -> None:
        _, replies = play(task, 0, [""] * task.max_turns)
        assert replies[-1].ended
        assert not replies[0].understood

    def test_returns_lie_in_the_score_range(self, task: Task, script: list[str]) -> None:
        for seed in range(5):
            for utterances in (script, [""] * task.max_turns):
                _, replies = play(task, seed, utterances)
                for reward in task.rewards:
                    low, high = task.score_range(reward)
                    assert low - 1e-9 <= math.fsum(reply.rewards[reward] for reply in replies) <= high + 1e-9

    def test_every_reply_pays_under_every_reward(self, task: Task, script: list[str]) -> None:
        for reply in play(task, 0, script)[1]:
            assert set(reply.rewards) == set(task.rewards)
            assert all(math.isfinite(value) for value in reply.rewards.values())

    def test_equal_seeds_give_equal_episodes(self, task: Task, script: list[str]) -> None:
        for seed in range(3):
            (one, first), (other, second) = (play(task, seed, script) for _ in range(2))
            assert first == second
            assert (one.opening, one.scene) == (other.opening, other.scene)
            assert dict(one.measures()) == dict(other.measures())

    def test_an_episode_in_a_batch_is_the_episode_alone(self, task: Task, script: list[str]) -> None:
        alone = [play(task, seed, script)[1] for seed in range(4)]
        environments = [task.environment(seed, "tune") for seed in range(4)]
        together: list[list[Reply]] = [[] for _ in range(4)]
        for text in script:
            going = [seed for seed in range(4) if not (together[seed] and together[seed][-1].ended)]
            for seed, reply in zip(
                going, task.step([environments[s] for s in going], [text] * len(going)), strict=True
            ):
                together[seed].append(reply)
            if not going:
                break
        assert together == alone

    def test_measures_are_finite_and_have_equal_keys_from_first_to_last(self, task: Task, script: list[str]) -> None:
        seen = [task.environment(0, "tune").measures()] + [play(task, seed, script)[0].measures() for seed in range(3)]
        assert all(set(measures) == set(seen[0]) for measures in seen)
        assert all(math.isfinite(value) for measures in seen for value in measures.values())

    def test_consecutive_seeds_are_about_different_scenes(self, task: Task) -> None:
        scenes = {task.environment(seed, "report").scene for seed in range(3)}
        assert len(scenes) == 3

    def test_what_is_said_is_text_that_a_dialogue_can_hold(self, task: Task, script: list[str]) -> None:
        environment, replies = play(task, 0, script)
        assert environment.opening is None or Turn(environment.opening, by_agent=False).text
        assert all(reply.text is None or Turn(reply.text, by_agent=False).text for reply in replies)
