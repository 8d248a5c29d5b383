"""The generated world: its language, its answerer and guesser, episodes in it, and what makes it worth learning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ilql.task import SPLITS
from ilql.tasks.visdial import KIND, load
from ilql.tasks.visdial.environment import VisdialTask
from ilql.tasks.visdial.generated import GeneratedAnswerer, GeneratedGuesser, answer_text, converse
from ilql.tasks.visdial.generated import load as load_world
from ilql.tasks.visdial.generated_language import Asked, read_answer, read_caption, read_question, word_question
from ilql.tasks.visdial.generated_questioners import BEST, QUESTIONERS
from ilql.tasks.visdial.generated_scenes import Fact, GeneratedScene, draw_scene
from ilql.tasks.visdial.generated_words import NOUNS, PLACES, TIMES, TOPICS, WEATHERS, values_of
from ilql.tasks.visdial.protocols import Exchange, RecordedDialogue, VisdialWorld, percentiles
from ilql.tasks.visdial.rules import exchanges_until_stop, is_penalised, to_dialogue
from ilql.tasks.visdial.settings import Settings

SMALL = Settings(train_scenes=400, tune_scenes=40, report_scenes=40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("generated")
    KIND.build(SMALL, {}, place)
    return place


@pytest.fixture(scope="module")
def task(folder: Path) -> VisdialTask:
    return load(folder)


@pytest.fixture(scope="module")
def world(folder: Path) -> VisdialWorld:
    return load_world(SMALL, folder)


def every_question() -> list[Asked]:
    asked = [Asked("object", noun) for noun in NOUNS]
    for noun in NOUNS.values():
        for topic in TOPICS[noun.family]:
            asked.append(Asked(topic, noun.word))
            if topic == "where":
                asked.append(Asked("where", noun.word, "next to " + ("cat" if noun.word == "dog" else "dog")))
            else:
                asked += [Asked(topic, noun.word, value) for value in values_of(topic, noun.word)]
    for topic, values in (("place", tuple(PLACES)), ("weather", WEATHERS), ("time", TIMES)):
        asked += [Asked(topic, ""), *(Asked(topic, "", value) for value in values)]
    return [a for a in asked if not (a.topic == "where" and a.value.endswith(f" {a.noun}"))]


def scene_of(scene_id: str, *facts: tuple[str, str, str], caption: str = "a dog and a car") -> GeneratedScene:
    return GeneratedScene(scene_id, caption, tuple(Fact(*fact) for fact in facts))


DOG = (("object", "dog", ""), ("count", "dog", "two"), ("colour", "dog", "brown"), ("where", "dog", "behind car"))


# --- the language ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("many", [False, True])
def test_every_question_of_the_grammar_is_read_as_it_was_meant(many: bool) -> None:
    for asked in every_question():
        assert read_question(word_question(asked, many=many and asked.noun != "")) == asked


def test_questions_are_short() -> None:
    assert max(len(word_question(asked, many=True).split()) for asked in every_question() if asked.noun) <= 9


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        ("the dog is what colour", Asked("colour", "dog")),
        ("What colour are the dogs?", Asked("colour", "dog")),
        ("dog colour what ?", Asked("colour", "dog")),
        ("do you see any cats ?", Asked("object", "cat")),
        ("is the dog behind the car ?", Asked("where", "dog", "behind car")),
        ("is the car behind the dog ?", Asked("where", "car", "behind dog")),
    ],
)
def test_other_words_and_orders_are_understood(question: str, asked: Asked) -> None:
    assert read_question(question) == asked


@pytest.mark.parametrize(
    "question",
    [
        "?",
        "dog",
        "what is the ?",
        "what colour is the zebra ?",
        "what colour is the dog dog ?",
        "what colour is the dog cat ?",
        "is the dog behind behind the car ?",
        "is the dog the cat ?",
        "is red brown ?",
        "is the dog brown white ?",
        "where the where ?",
        "what what what ?",
        "is is is the the the dog brown is is is ?",
    ],
)
def test_what_makes_no_sense_is_not_understood(question: str) -> None:
    assert read_question(question) is None


def test_an_answer_means_the_thing_too() -> None:
    brown, dog = Fact("colour", "dog", "brown"), Fact("object", "dog", "")
    assert set(read_answer("what colour is the dog ?", "maybe brown")) == {(brown, True), (dog, True)}
    assert set(read_answer("is the dog brown ?", "no")) == {(brown, False), (dog, True)}
    assert read_answer("what colour is the dog ?", "there is no dog") == ((dog, False),)
    assert read_answer("what colour is the dog ?", "can't tell") == ()


def test_where_a_thing_is_names_another_thing() -> None:
    assert read_answer("where is the dog ?", "behind the car") == (
        (Fact("object", "dog", ""), True),
        (Fact("where", "dog", "behind car"), True),
        (Fact("object", "car", ""), True),
    )


def test_every_caption_says_only_what_is_the_case_and_two_things() -> None:
    rng = np.random.default_rng(1)
    for number in range(200):
        scene = draw_scene(str(number), rng)
        told = read_caption(scene.caption)
        assert {fact for fact, holds in told if holds} <= set(scene.facts)
        assert sum(fact.topic == "object" for fact, _ in told) == 2
        assert len(scene.caption.split()) <= 12


def test_every_answer_says_only_what_is_the_case() -> None:
    rng = np.random.default_rng(2)
    said = 0
    for number in range(12):
        scene = draw_scene(str(number), rng)
        for asked in every_question():
            text = answer_text(scene, asked)
            assert text is not None
            for fact, holds in read_answer(word_question(asked), text):
                assert (fact in scene.facts) is holds, (scene, asked, text)
                said += 1
    assert said > 5000


def test_a_topic_that_fits_not_the_thing_is_not_understood() -> None:
    scene = scene_of("s", ("object", "car", ""))
    answers = GeneratedAnswerer([scene]).answer(["s"], [[]], ["what is the car wearing ?"])
    assert [(answer.text, answer.understood) for answer in answers] == [("i don't know", False)]


# --- the guesser ----------------------------------------------------------------------------------------------------


def test_the_rank_counts_better_scenes_and_half_of_the_equal_ones() -> None:
    # Every caption says dog and car; a and b have a brown dog, c a dog, d nothing.
    scenes = [
        scene_of("a", *DOG[:3]),
        scene_of("b", *DOG[:3]),
        scene_of("c", DOG[0]),
        scene_of("d"),
    ]
    guesser = GeneratedGuesser(scenes, np.array([0.0, 0.0, 0.1, 0.0]), fact_weight=0.23)
    # The caption gives a, b, c one fact (dog): .23 .23 .33 0. Behind c, a ties with b: 1 + 1 + 1/2.
    assert guesser.ranks(["a", "c", "d"], [(), (), ()]).tolist() == [2.5, 1.0, 4.0]
    # "brown": a and b have one more, .46 against .33.
    brown = (Exchange("what colour is the dog ?", "brown"),)
    assert guesser.ranks(["a", "c"], [brown, brown]).tolist() == [1.5, 3.0]
    # Denied, it counts against them: 0 0 .33 0, so a, b and d tie behind c: 1 + 1 + 2/2.
    denied = (Exchange("is the dog brown ?", "no"),)
    assert guesser.ranks(["a"], [denied]).tolist() == [3.0]
    assert guesser.pool == 4
    # Rank 2.5 among 4 leaves half of the way: 2.5 of 5.
    assert percentiles(guesser, ["a"], [()]).tolist() == [0.5]


def test_what_is_said_twice_counts_once() -> None:
    scenes = [scene_of("a", *DOG), scene_of("b")]
    guesser = GeneratedGuesser(scenes, np.array([0.0, 0.6]), fact_weight=0.23)
    brown = Exchange("what colour is the dog ?", "brown")
    # dog and brown: .46 < .6, however often.
    assert guesser.ranks(["a"] * 2, [(brown,), (brown, brown, brown)]).tolist() == [2.0, 2.0]


def test_impressions_of_another_number_of_scenes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"impressions must have shape \(1,\), got \(2,\)"):
        GeneratedGuesser([scene_of("a")], np.zeros(2))


# --- building -------------------------------------------------------------------------------------------------------


def test_equal_settings_build_equal_files_and_another_seed_others(tmp_path: Path) -> None:
    tiny = Settings(train_scenes=12, tune_scenes=5, report_scenes=5)
    contents = []
    for name, settings in (("a", tiny), ("b", tiny), ("c", replace(tiny, seed=1))):
        (tmp_path / name).mkdir()
        KIND.build(settings, {}, tmp_path / name)
        contents.append((tmp_path / name / "train_dialogues.jsonl").read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_the_size_of_one_split_does_not_change_another(tmp_path: Path) -> None:
    contents = []
    for name, size in (("a", 12), ("b", 30)):
        (tmp_path / name).mkdir()
        KIND.build(Settings(train_scenes=size, tune_scenes=5, report_scenes=5), {}, tmp_path / name)
        contents.append((tmp_path / name / "report_dialogues.jsonl").read_bytes())
    assert contents[0] == contents[1]


def test_a_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="takes no source, got 'somewhere'"):
        KIND.build(SMALL, {"data": "somewhere"}, tmp_path)
    assert KIND.source_digest(SMALL, {}) == ""


def test_the_recorded_percentiles_are_what_the_loaded_guesser_says(world: VisdialWorld) -> None:
    part = world.splits["train"]
    for recorded in part.recorded[:20]:
        prefixes = [recorded.exchanges[:count] for count in range(len(recorded.exchanges) + 1)]
        again = percentiles(part.guesser, [recorded.scene_id] * len(prefixes), prefixes)
        assert tuple(again.tolist()) == recorded.percentiles


def test_the_recorded_answers_are_what_the_loaded_answerer_says(world: VisdialWorld) -> None:
    part = world.splits["tune"]
    for recorded in part.recorded:
        questions = [exchange.question for exchange in recorded.exchanges]
        answers = part.answerer.answer([recorded.scene_id] * len(questions), [()] * len(questions), questions)
        assert [answer.text for answer in answers] == [exchange.answer for exchange in recorded.exchanges]
        assert all(answer.understood for answer in answers)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"world": "other"}, "world must be one of generated, recorded, remote, got 'other'"),
        ({"stop_fraction": 0.0}, r"stop_fraction must be in \(0, 1\], got 0.0"),
        ({"penalty": 1.0}, "penalty must be finite and not positive, got 1.0"),
        ({"seed": -1}, "seed must not be negative, got -1"),
        ({"train_scenes": 1}, "train_scenes must be at least 2, got 1"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        replace(SMALL, **changes)  # type: ignore[arg-type]


# --- episodes -------------------------------------------------------------------------------------------------------


def test_consecutive_seeds_go_through_all_scenes(task: VisdialTask) -> None:
    seen = [task.environment(seed, "tune").scene for seed in range(7, 7 + 40)]
    assert len(set(seen)) == 40
    assert task.environment(47, "tune").scene == seen[0]


def test_a_recorded_dialogue_played_again_earns_the_same(task: VisdialTask, world: VisdialWorld) -> None:
    place = {task.environment(seed, "report").scene: seed for seed in range(40)}
    dialogues = task.dialogues("report", "conservative")
    for recorded, dialogue in zip(world.splits["report"].recorded[:10], dialogues[:10], strict=True):
        environment = task.environment(place[recorded.scene_id], "report")
        assert environment.opening == dialogue.turns[0].text
        earned, ended = [], False
        for question, answer in zip(dialogue.turns[1::2], dialogue.turns[2::2], strict=True):
            assert not ended
            reply = task.step([environment], [f"  {question.text} "])[0]
            assert reply.text == answer.text
            earned.append(reply.rewards["conservative"])
            ended = reply.ended
        assert earned == [turn.reward for turn in dialogue.turns if turn.by_agent]
        assert ended is dialogue.ended is True


def test_a_reply_does_not_depend_on_its_neighbours(task: VisdialTask) -> None:
    def episode(seed: int, others: int) -> list[object]:
        environment = task.environment(seed, "report")
        crowd = [task.environment(100 + i, SPLITS[i % 3]) for i in range(others)]
        replies: list[object] = []
        for question in ("where is the man ?", "is there a dog", "nonsense"):
            live = [e for e in crowd if not e.ended]
            replies.append(task.step([*live, environment], [*["is it sunny ?"] * len(live), question])[-1])
            if environment.ended:
                break
        return [*replies, environment.measures()]

    for seed in range(5):
        assert episode(seed, 0) == episode(seed, 6)


@pytest.mark.parametrize("said", ["where is the man ?", "  where is the man ? ", "where is the man"])
def test_spaces_around_a_question_and_a_missing_mark_do_not_matter(task: VisdialTask, said: str) -> None:
    environment = task.environment(0, "tune")
    assert task.step([environment], [said])[0].understood
    assert environment.exchanges[0].question == "where is the man ?"


@pytest.mark.parametrize("said", ["", "   ", "?", " ? ?"])
def test_an_empty_question_costs_as_any_and_is_not_understood(task: VisdialTask, said: str) -> None:
    environment = task.environment(0, "tune")
    reply = task.step([environment], [said])[0]
    assert (reply.text, reply.understood, reply.ended) == ("i don't know", False, False)
    # "i don't know" holds "don't": -1 - 2 under the conservative reward.
    assert reply.rewards == {"yn": -1.0, "standard": -1.0, "conservative": -3.0}


def test_ten_questions_that_say_nothing_end_the_episode_at_the_bottom(task: VisdialTask) -> None:
    environment = task.environment(1, "tune")
    start = environment.measures()
    replies = [task.step([environment], ["hm"])[0] for _ in range(10)]
    assert [reply.ended for reply in replies] == [False] * 9 + [True]
    assert not any(reply.understood for reply in replies)
    assert sum(reply.rewards["standard"] for reply in replies) == -9.0 == task.score_range("standard")[0]
    assert sum(reply.rewards["conservative"] for reply in replies) == -29.0 == task.score_range("conservative")[0]
    assert environment.measures() == start
    with pytest.raises(ValueError, match="an episode that is over takes no more questions"):
        task.step([environment], ["hm"])


def test_the_measures_are_of_the_episode(task: VisdialTask, world: VisdialWorld) -> None:
    environment = task.environment(3, "tune")
    task.step([environment], ["is it day time ?"])
    answer = environment.exchanges[0].answer
    rank = world.splits["tune"].guesser.ranks([environment.scene], [environment.exchanges])[0]
    measures = environment.measures()
    assert measures["final_rank"] == pytest.approx(rank)
    assert measures["final_percentile"] == pytest.approx(1 - rank / 41)
    assert measures["penalised_share"] == float(answer in ("yes", "no"))


def test_what_cannot_be_played_is_refused(task: VisdialTask) -> None:
    environment = task.environment(0, "tune")
    with pytest.raises(ValueError, match="each environment must get one question, got 2 for 1"):
        task.step([environment], ["a", "b"])
    with pytest.raises(ValueError, match="must ask each environment once"):
        task.step([environment, environment], ["a", "b"])
    with pytest.raises(ValueError, match="split must be one of train, tune, report, got 'test'"):
        task.environment(0, "test")
    with pytest.raises(ValueError, match="reward must be one of yn, standard, conservative, got 'hard'"):
        task.dialogues("train", "hard")


# --- is there something to learn? -----------------------------------------------------------------------------------


def cut(recorded: RecordedDialogue) -> tuple[Exchange, ...]:
    return recorded.exchanges[: exchanges_until_stop(recorded.percentiles, stop_fraction=0.5)[0]]


def mean_return(recorded: list[RecordedDialogue], reward: str) -> float:
    earned = [
        to_dialogue(one, "", reward, stop_fraction=0.5, penalty=-2.0, free_last_step=True).total_reward
        for one in recorded
    ]
    return float(np.mean(earned))


def best_played(world: VisdialWorld, number: int) -> list[RecordedDialogue]:
    part = world.splits["train"]
    assert isinstance(part.answerer, GeneratedAnswerer)
    rng = np.random.default_rng(0)
    played = []
    for scene in part.scenes[:number]:
        exchanges = converse(BEST, part.answerer.scene(scene.id), part.answerer, rng)
        prefixes = [exchanges[:count] for count in range(11)]
        progress = percentiles(part.guesser, [scene.id] * 11, prefixes)
        played.append(RecordedDialogue(scene.id, exchanges, tuple(progress.tolist())))
    return played


def test_about_two_fifths_of_the_recorded_answers_are_bare_yes_or_no(world: VisdialWorld) -> None:
    answers = [exchange.answer for recorded in world.splits["train"].recorded for exchange in cut(recorded)]
    assert 0.35 <= np.mean([is_penalised(answer, "yn") for answer in answers]) <= 0.45


def test_nearly_every_dialogue_is_another(world: VisdialWorld) -> None:
    # The default size has 6,000 in the training split, so 95 % leaves more than the 5,000 that are wanted.
    recorded = world.splits["train"].recorded
    assert Settings().train_scenes * Settings().dialogues_per_scene * 0.95 > 5000
    assert len({cut(one) for one in recorded}) > 0.95 * len(recorded)


def test_the_shares_of_the_questioners_sum_to_one() -> None:
    assert sum(questioner.share for questioner in QUESTIONERS) == pytest.approx(1.0)


def test_the_best_questioner_is_far_above_the_recorded_mixture(world: VisdialWorld) -> None:
    best = mean_return(best_played(world, 150), "yn")
    mixture = mean_return(list(world.splits["train"].recorded), "yn")
    assert best - mixture > 1.5
    assert -7.0 < best < -2.5


def test_no_fixed_list_of_questions_comes_near_the_best_questioner(world: VisdialWorld) -> None:
    # The list is chosen greedily among all open and all "is there" questions, on the very scenes it is scored on,
    # which flatters it.
    number = 40
    best = mean_return(best_played(world, number), "yn")
    assert best - greedy_fixed_list(world, number) > 1.0


def greedy_fixed_list(world: VisdialWorld, number: int) -> float:
    """The mean `yn` return on the first scenes of the training split of the best list that grows greedily.

    Each question is the one with the highest sum of stopped episodes' savings and penalties, and of gained log rank.
    """
    part = world.splits["train"]
    ids = [scene.id for scene in part.scenes[:number]]
    pool = part.guesser.pool + 1
    start = percentiles(part.guesser, ids, [()] * number)
    now = start.copy()
    histories: list[tuple[Exchange, ...]] = [()] * number
    returns = np.zeros(number)
    alive = np.ones(number, dtype=bool)
    questions = [word_question(asked) for asked in every_question() if asked.value == ""]
    for turn in range(10):
        rows = np.flatnonzero(alive)
        if not len(rows):
            break
        trials = []
        for question in questions:
            answers = part.answerer.answer([ids[i] for i in rows], [histories[i] for i in rows], [question] * len(rows))
            longer = [(*histories[i], Exchange(question, answer.text)) for i, answer in zip(rows, answers, strict=True)]
            after = percentiles(part.guesser, [ids[i] for i in rows], longer)
            bare = np.array([is_penalised(answer.text, "yn") for answer in answers])
            done = after - start[rows] >= 0.5 * (1 - start[rows]) - 1e-12
            gained = np.log((1 - now[rows]) * pool) - np.log((1 - after) * pool)
            trials.append(
                (float((9 - turn) * done.sum() - 2 * bare.sum() + 2 * gained.sum()), longer, after, bare, done)
            )
        _, longer, after, bare, done = max(trials, key=lambda trial: trial[0])
        returns[rows] += np.where(done | (turn == 9), 0.0, -1.0) - 2.0 * bare
        now[rows] = after
        for i, history, stopped in zip(rows, longer, done, strict=True):
            histories[i] = history
            alive[i] = not stopped
    return float(returns.mean())


def test_the_language_is_small(task: VisdialTask) -> None:
    dialogues = task.dialogues("train", "yn")
    words = {word for dialogue in dialogues for turn in dialogue.turns for word in turn.text.split()}
    lengths = sorted(sum(len(turn.text.split()) for turn in dialogue.turns) for dialogue in dialogues)
    assert 150 <= len(words) <= 350
    assert lengths[int(0.95 * len(lengths))] <= 110


@pytest.mark.parametrize(("reward", "expected"), [("yn", -9.0), ("standard", -9.0), ("conservative", -29.0)])
def test_ten_empty_questions_cost_nine_and_are_played_beside_the_methods(
    task: VisdialTask, reward: str, expected: float
) -> None:
    # Nine cost 1, the last is free; "i don't know" is no bare yes or no, and holds "don't": ten penalties of 2.
    assert task.references("report", reward, range(5)) == {"empty_questions": [expected] * 5}


def test_ten_empty_questions_are_asked_of_known_rewards_and_splits(task: VisdialTask) -> None:
    assert task.references("tune", "yn", []) == {"empty_questions": []}
    with pytest.raises(ValueError, match="reward must be one of yn, standard, conservative, got 'hard'"):
        task.references("tune", "hard", [])
    with pytest.raises(ValueError, match="split must be one of"):
        task.references("test", "yn", [])
