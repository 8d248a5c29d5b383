"""The recorded world: who answers, who guesses, and that nobody is judged by what was fitted on them."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from ilql.task import SPLITS
from ilql.tasks.visdial import recorded
from ilql.tasks.visdial.__main__ import main
from ilql.tasks.visdial.calibration import PAPER_BC, people, strangers
from ilql.tasks.visdial.guesser import Regression, RidgeGuesser, fit_regression, latent_axes
from ilql.tasks.visdial.layouts import RecordedScene
from ilql.tasks.visdial.neighbours import Nearness, NeighbourAnswerer, collect_pairs
from ilql.tasks.visdial.protocols import (
    Answer,
    Exchange,
    RecordedDialogue,
    Scene,
    VisdialSplit,
    VisdialWorld,
    percentiles,
)
from ilql.tasks.visdial.settings import Settings
from ilql.tasks.visdial.terms import Terms, fit_terms, words, words_and_pairs

DATA = Path(__file__).parents[3] / "shared/data/visdial_val"
SETTINGS = Settings(world="recorded", seed=3)
PLACES = {
    "beach": ("sand", "sunny", "waves", "towel"),
    "street": ("cars", "cloudy", "signs", "bus"),
    "kitchen": ("pots", "indoors", "stove", "plates"),
    "forest": ("trees", "shady", "moss", "path"),
}
COLORS = ("red", "blue", "green", "white", "black")


def scene_line(number: int) -> dict[str, object]:
    place = list(PLACES)[number % 4]
    things, weather, second, third = PLACES[place]
    color = COLORS[number % 5]
    return {
        "image_id": number,
        "caption": f"a dog near some {things}",
        "human": [
            ["what color is the collar", color],
            ["is it sunny", "yes" if place == "beach" else "i can't tell"],
            [f"do you see the {second}", "yes, 1" if number % 3 else "no"],
        ],
        "blip2_answers": [f"a {color} collar", weather, f"a {second}"],
        "chatgpt_blip2": [["How many dogs are there?", "one dog"], [f"Where is the {third}?", f"by the {things}"]],
        "chatgpt_blind_blip2": [["What place is it?", f"a {place}"]],
        "flan_blip2": [],
        "plugir_description": f"A {color} dog at a {weather} {place} with {things}, a {second} and a {third}.",
    }


def write_source(folder: Path, *, scenes: int = 60, machine: bool = True) -> str:
    path = folder / "visdial.jsonl"
    rows = [scene_line(number) for number in range(scenes)]
    if not machine:
        rows = [{column: row[column] for column in ("image_id", "caption", "human")} for row in rows]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> VisdialWorld:
    folder = tmp_path_factory.mktemp("world")
    recorded.build(SETTINGS, write_source(tmp_path_factory.mktemp("source")), folder)
    return recorded.load(SETTINGS, folder)


def folder_digest(folder: Path) -> str:
    """Of the contents: an npz also stores the time at which it was written."""
    whole = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as numbers:
                for name in sorted(numbers):
                    whole.update(numbers[name].tobytes())
        else:
            whole.update(path.read_bytes())
    return whole.hexdigest()


# --- the splits ---


def plain_scene(name: str) -> RecordedScene:
    return RecordedScene(id=name, caption="a dog", human=(Exchange("is it day?", "yes"),))


def test_splits_are_68_10_22_percent_and_share_no_scene() -> None:
    splits = recorded.split_scenes([plain_scene(str(n)) for n in range(2064)], seed=0)
    assert {split: len(scenes) for split, scenes in splits.items()} == {"train": 1400, "tune": 200, "report": 464}
    assert len({scene.id for scenes in splits.values() for scene in scenes}) == 2064


def test_splits_do_not_follow_the_order_of_the_file_but_the_seed() -> None:
    scenes = [plain_scene(str(n)) for n in range(50)]
    assert recorded.split_scenes(scenes, seed=1) == recorded.split_scenes(scenes[::-1], seed=1)
    assert recorded.split_scenes(scenes, seed=1) != recorded.split_scenes(scenes, seed=2)


def test_at_most_so_many_scenes_are_used() -> None:
    splits = recorded.split_scenes([plain_scene(str(n)) for n in range(4100)], seed=0)
    assert sum(map(len, splits.values())) == recorded.DESIGN.most_scenes == 4000


# --- words ---


def test_words_lose_case_marks_and_endings() -> None:
    assert words("Are TREES standing? I can’t see.") == ["are", "tre", "stand", "i", "can't", "see"]
    assert words_and_pairs("is it") == ["is", "it", "< is", "is it", "it >"]


def test_a_vector_is_tf_idf_of_length_one_and_shorter_with_unknown_words() -> None:
    terms = Terms(names=("cat", "dog"), weights=(3.0, 4.0), unknown_weight=12.0, split=str.split)
    # "cat dog": (3, 4) / 5; "cat dog owl": (3, 4) / 13; "owl": nothing known
    assert terms.vectors(["cat dog", "cat dog owl", "owl"]).toarray() == pytest.approx(
        np.array([[0.6, 0.8], [3 / 13, 4 / 13], [0.0, 0.0]])
    )
    fitted = fit_terms(["cat dog", "cat"], split=str.split)  # idf = ln((1 + 2) / (1 + n)) + 1
    assert fitted.weights == pytest.approx((math.log(3 / 3) + 1, math.log(3 / 2) + 1))
    with pytest.raises(ValueError, match="must share words"):
        fit_terms(["cat", "dog"], split=str.split, least_texts=2)


# --- the answerer ---

NEARNESS = Nearness(own=0.8, human_bonus=0.1, borrowed=0.8, scene=0.5, scene_weight=0.3, sensible=0.3)


def small_answerer(likeness: Sequence[float] = (0.9, 0.6)) -> NeighbourAnswerer:
    """One scene with a person's and a machine's answers, and two lenders."""
    human = [Exchange("is it sunny?", "quite sunny")]
    machine = [Exchange("is it sunny?", "yes"), Exchange("how many dogs?", "two")]
    lent = [[Exchange("any people?", "nobody")], [Exchange("any people?", "a man"), Exchange("what time?", "noon")]]
    asked = [exchange.question for exchange in (*human, *machine, *lent[0], *lent[1])]
    terms = fit_terms(asked, split=words_and_pairs, count_unknown=True)
    return NeighbourAnswerer(
        scene_ids=("s",),
        own=collect_pairs(terms, [human], [machine]),
        lent=collect_pairs(terms, lent, [(), ()]),
        likeness=np.array([likeness]),
        nearness=NEARNESS,
        nothing_fits="can't tell",
        terms=terms,
    )


def ask(answerer: NeighbourAnswerer, question: str) -> Answer:
    return answerer.answer(["s"], [()], [question])[0]


def test_the_scenes_own_person_goes_before_the_machine_and_the_machine_before_strangers() -> None:
    assert ask(small_answerer(), "Is it sunny?") == Answer("quite sunny", understood=True)
    assert ask(small_answerer(), "how many dogs?") == Answer("two", understood=True)


def test_an_answer_is_borrowed_from_the_most_similar_scene() -> None:
    assert ask(small_answerer(likeness=(0.9, 0.6)), "any people?").text == "nobody"
    assert ask(small_answerer(likeness=(0.6, 0.9)), "any people?").text == "a man"


def test_nothing_is_borrowed_from_scenes_too_different_but_the_question_is_sensible() -> None:
    assert ask(small_answerer(likeness=(0.4, 0.4)), "any people?") == Answer("can't tell", understood=True)
    assert ask(small_answerer(likeness=(0.4, 0.4)), "what time is it?") == Answer("can't tell", understood=True)


def test_a_question_like_no_recorded_one_is_not_understood() -> None:
    assert ask(small_answerer(), "zorp blag frim?") == Answer("can't tell", understood=False)
    assert not ask(small_answerer(), "sunny zorp people frim dogs time?").understood
    # "many people?" shares a word and an end with "any people?": near enough to make sense, too far to be answered
    assert ask(small_answerer(), "many people?") == Answer("can't tell", understood=True)


def test_nearness_refuses_what_is_no_cosine() -> None:
    with pytest.raises(ValueError, match=r"own must be in \[0, 1\], got 1.5"):
        Nearness(own=1.5, human_bonus=0.1, borrowed=0.8, scene=0.5, scene_weight=0.3, sensible=0.3)
    with pytest.raises(ValueError, match="scene_weight must not be negative"):
        Nearness(own=0.5, human_bonus=0.1, borrowed=0.8, scene=0.5, scene_weight=-0.3, sensible=0.3)


def test_people_get_their_own_recorded_answers(world: VisdialWorld) -> None:
    for part in world.splits.values():
        for dialogue in part.recorded:
            questions = [exchange.question for exchange in dialogue.exchanges]
            answers = part.answerer.answer([dialogue.scene_id] * 3, [()] * 3, questions)
            assert [answer.text for answer in answers] == [exchange.answer for exchange in dialogue.exchanges]


def test_every_answer_is_one_that_somebody_gave(world: VisdialWorld) -> None:
    given = {"can't tell"}
    for number in range(60):
        row = json.loads(json.dumps(scene_line(number)))
        given |= {answer for _, answer in row["human"] + row["chatgpt_blip2"] + row["chatgpt_blind_blip2"]}
        given |= set(row["blip2_answers"])
    questions = ["is it sunny?", "where is the bus?", "any cats?", "do you see the stove?", "x y z?", "is the the dog?"]
    for part in world.splits.values():
        for scene in part.scenes:
            answers = part.answerer.answer([scene.id] * 6, [()] * 6, questions)
            assert {answer.text for answer in answers} <= given


def test_nothing_fits_is_what_people_say_most_often() -> None:
    def said(*answers: str) -> list[RecordedScene]:
        return [RecordedScene(id="1", caption="a", human=tuple(Exchange("is it?", answer) for answer in answers))]

    assert recorded.commonest_cannot_tell(said("no", "no", "no", "i can't tell", "can’t see", "can’t see")) == (
        "can’t see",
        True,
    )
    assert recorded.commonest_cannot_tell(said("no", "i can't tell her age")) == ("i can't tell", False)


# --- the guesser ---


def small_guesser(features: Sequence[float]) -> RidgeGuesser:
    """Predicts 1 for "cat", 0 for anything else, in one dimension."""
    count = len(features)
    return RidgeGuesser(
        scene_ids=tuple("abcdef"[:count]),
        captions=("",) * count,
        features=np.array(features)[:, None],
        fold=np.zeros(count, dtype=np.int64),
        regressions=(Regression(weights=np.array([[1.0]]), mean=np.zeros(1)),),
        terms=Terms(names=("cat",), weights=(1.0,), unknown_weight=0.0, split=words),
    )


CAT = (Exchange("a cat?", "yes"),)


def test_ranks_follow_the_distance_to_the_predicted_feature() -> None:
    guesser = small_guesser((0.0, 0.9, 1.3))  # "cat" predicts 1: distances 1, .1, .3; nothing predicts 0: 0, .9, 1.3
    assert guesser.ranks(["a", "b", "c"], [CAT] * 3).tolist() == [3.0, 1.0, 2.0]
    assert guesser.ranks(["a", "b", "c"], [()] * 3).tolist() == [1.0, 2.0, 3.0]


def test_ties_get_their_mean_rank() -> None:
    # all four equally far from 1: 1 + 3 / 2
    assert small_guesser((0.5, 1.5, 0.5, 1.5)).ranks(["a", "d"], [CAT] * 2).tolist() == [2.5, 2.5]


def test_the_percentile_counts_the_true_scene_once() -> None:
    assert percentiles(small_guesser((0.0, 0.9, 1.3)), ["b"], [CAT]).tolist() == [1 - 1 / 4]  # rank 1 of 3


def test_the_ridge_shrinks_towards_the_mean_target() -> None:
    vectors = sparse.csr_matrix(np.array([[1.0], [-1.0]]))
    fitted = fit_regression(vectors, np.array([[5.0], [1.0]]), ridge=2.0)
    # mean 3, centred targets 2 and -2: weight = (1·2 + 1·2) / (1 + 1 + 2) = 1
    assert fitted.mean.tolist() == [3.0]
    assert fitted.weights.tolist() == [[1.0]]


def test_latent_axes_come_strongest_first_with_fixed_signs() -> None:
    vectors = sparse.csr_matrix(np.array([[0.0, -2.0, 0.0], [5.0, 0.0, 0.0], [0.0, 0.0, 0.5], [0.0, 0.0, 0.0]]))
    assert latent_axes(vectors, features=2) == pytest.approx(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), abs=1e-9)
    with pytest.raises(ValueError, match="3 features need more"):
        latent_axes(vectors, features=3)


def test_a_training_scene_is_guessed_by_a_regression_that_never_saw_it(tmp_path: Path) -> None:
    source = write_source(tmp_path)
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    recorded.build(SETTINGS, source, first)
    one = recorded.load(SETTINGS, first).splits["train"].guesser
    assert isinstance(one, RidgeGuesser)
    assert len(one.regressions) == recorded.DESIGN.folds
    changed = int(one.scene_ids[0])
    rows = [scene_line(number) for number in range(60)]
    human = rows[changed]["human"]
    assert isinstance(human, list)
    rows[changed]["human"] = human[::-1]  # other prefixes of the same words: same vocabulary, other fit
    Path(source).write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    recorded.build(SETTINGS, source, second)
    two = recorded.load(SETTINGS, second).splits["train"].guesser
    assert isinstance(two, RidgeGuesser)
    equal = [
        np.array_equal(left.weights, right.weights)
        for left, right in zip(one.regressions, two.regressions, strict=True)
    ]
    assert equal == [fold == one.fold[0] for fold in range(len(equal))]


def test_features_hold_nothing_that_people_said() -> None:
    row = RecordedScene(
        id="1",
        caption="caption",
        human=(Exchange("asked?", "human"),),
        machine=(Exchange("asked?", "machine"),),
        description="described",
    )
    assert recorded.scene_text(row) == "described machine"


# --- the whole ---


def test_rows_of_a_batch_do_not_touch_one_another(world: VisdialWorld) -> None:
    for part in world.splits.values():
        ids = [dialogue.scene_id for dialogue in part.recorded]
        histories = [dialogue.exchanges[: place % 4] for place, dialogue in enumerate(part.recorded)]
        questions = [dialogue.exchanges[place % 3].question for place, dialogue in enumerate(part.recorded[::-1])]
        answers = part.answerer.answer(ids, histories, questions)
        ranks = part.guesser.ranks(ids, histories)
        for row in range(len(ids)):
            one = slice(row, row + 1)
            assert part.answerer.answer(ids[one], histories[one], questions[one]) == answers[one]
            assert part.guesser.ranks(ids[one], histories[one]).tobytes() == ranks[one].tobytes()
        assert part.answerer.answer([], [], []) == []
        assert part.guesser.ranks([], []).tolist() == []


def test_recorded_percentiles_are_the_loaded_guessers(world: VisdialWorld) -> None:
    for part in world.splits.values():
        assert part.guesser.pool == len(part.scenes)
        for dialogue in part.recorded:
            histories = [dialogue.exchanges[:asked] for asked in range(4)]
            assert tuple(percentiles(part.guesser, [dialogue.scene_id] * 4, histories)) == dialogue.percentiles


def test_two_builds_in_two_processes_are_the_same_to_the_last_bit(tmp_path: Path) -> None:
    source = write_source(tmp_path)
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    recorded.build(SETTINGS, source, here)
    program = (
        "import sys; from pathlib import Path; from ilql.tasks.visdial import recorded; "
        "from ilql.tasks.visdial.settings import Settings; "
        "recorded.build(Settings(world='recorded', seed=3), sys.argv[1], Path(sys.argv[2]))"
    )
    subprocess.run([sys.executable, "-c", program, source, str(there)], check=True)
    assert folder_digest(here) == folder_digest(there)


def test_people_alone_make_a_world_and_the_notes_say_so(tmp_path: Path) -> None:
    notes = recorded.build(SETTINGS, write_source(tmp_path, machine=False), tmp_path)
    assert any("no machine's text" in note for note in notes)
    part = recorded.load(SETTINGS, tmp_path).splits["report"]
    assert part.answerer.answer([part.scenes[0].id], [()], ["how many dogs are there?"])[0].text == "i can't tell"


def test_the_notes_count_what_was_skipped_and_show_the_first(tmp_path: Path) -> None:
    source = Path(write_source(tmp_path))
    bad = [json.dumps(scene_line(100 + number) | {"caption": ""}) for number in range(5)]
    source.write_text(source.read_text(encoding="utf-8") + "".join(f"{row}\n" for row in bad), encoding="utf-8")
    notes = recorded.build(SETTINGS, str(source), tmp_path)
    (skips,) = [note for note in notes if note.startswith("skipped")]
    assert skips.startswith("skipped 5 dialogues: line 61: caption is missing or empty; line 62:")
    assert "line 64" not in skips


def test_too_few_dialogues_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must hold at least 20 whole dialogues, got 19"):
        recorded.build(SETTINGS, write_source(tmp_path, scenes=19), tmp_path)
    recorded.build(SETTINGS, write_source(tmp_path, scenes=20), tmp_path)


def test_the_digest_needs_a_source(tmp_path: Path) -> None:
    source = write_source(tmp_path)
    assert recorded.source_digest(SETTINGS, source) == hashlib.sha256(Path(source).read_bytes()).hexdigest()
    with pytest.raises(ValueError, match="got none"):
        recorded.source_digest(SETTINGS, None)


# --- the calibration ---


class Parrot:
    """Answers every question with its own first word; says that nothing fits to "hm"."""

    nothing_fits = "hm"

    def answer(
        self, scene_ids: Sequence[str], histories: Sequence[Sequence[Exchange]], questions: Sequence[str]
    ) -> list[Answer]:
        return [Answer(question.split()[0], understood=question != "hm ?") for question in questions]


def small_split() -> VisdialSplit:
    """Two scenes; "cat" predicts 1, so scene b comes first once the cat was mentioned, and a before that."""
    cat, other = Exchange("yes a cat ?", "yes"), Exchange("hm ?", "no")
    return VisdialSplit(
        scenes=(Scene("a", ""), Scene("b", "")),
        recorded=(
            RecordedDialogue("a", (other, cat), percentiles=(2 / 3, 2 / 3, 1 / 3)),
            RecordedDialogue("b", (other, cat), percentiles=(1 / 3, 1 / 3, 2 / 3)),
        ),
        answerer=Parrot(),
        guesser=small_guesser((0.0, 1.0)),
    )


def test_people_are_summed_up_as_on_paper() -> None:
    episodes = people(small_split(), SETTINGS)
    # a never gets there: -1 -1 = -2, with two bare answers -6. b: 2/3 - 1/3 is half of 1 - 1/3: -1 + 0, and -5.
    assert episodes.returns["standard"].mean == -1.5
    assert episodes.returns["yn"].mean == -5.5
    assert episodes.returns["yn"].standard_error == pytest.approx(0.5)  # deviations .5: sqrt(.5) / sqrt(2)
    assert episodes.lengths == (0, 2, 0, 0, 0, 0, 0, 0, 0, 0)
    assert (episodes.reached, episodes.bare, episodes.nothing_fits, episodes.not_understood) == (0.5, 1.0, 0.0, 0.0)


def test_strangers_are_answered_by_the_world() -> None:
    episodes = strangers(small_split(), SETTINGS)
    # both ask "hm ?", answered "hm" and not understood, then "yes a cat ?", answered "yes"; b reaches the goal
    assert episodes.returns["standard"].mean == -1.5
    assert episodes.returns["yn"].mean == -3.5
    assert (episodes.reached, episodes.bare, episodes.nothing_fits, episodes.not_understood) == (0.5, 0.5, 0.5, 0.5)
    assert episodes.first_percentile == pytest.approx(0.5)
    assert episodes.last_percentile == pytest.approx((1 / 3 + 2 / 3) / 2)


def test_the_command_prints_the_calibration_or_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", write_source(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "people on report (14)" in printed
    assert "strangers on tune (6)" in printed
    assert main(["--data", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data/visdial_val, which is not in the repository")
def test_real_people_score_like_the_papers_behaviour_cloning(tmp_path: Path) -> None:
    settings = Settings(world="recorded")
    recorded.build(settings, str(DATA), tmp_path)
    splits = recorded.load(settings, tmp_path).splits
    asked = {split: people(splits[split], settings) for split in SPLITS}
    for reward, score in PAPER_BC.items():
        report, train = asked["report"].returns[reward], asked["train"].returns[reward]
        assert abs(report.mean - score) < 1.0
        assert abs(train.mean - report.mean) < 0.7  # out of fold, and among three times as many scenes
        held_out = (asked["tune"], asked["report"])
        mean = sum(part.number * part.returns[reward].mean for part in held_out) / sum(p.number for p in held_out)
        assert abs(mean - score) < 1.0
    assert 0.3 < strangers(splits["report"], settings).bare < 0.5
