"""The comments task whole: what a build says and keeps apart, and what an episode pays."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from ilql.dialogue import Dialogue
from ilql.task import SPLITS, TaskFault
from ilql.tasks.reddit import KIND, build, source_digest
from ilql.tasks.reddit.__main__ import main
from ilql.tasks.reddit.auc import measure_auc
from ilql.tasks.reddit.building import generated_corpus
from ilql.tasks.reddit.environment import RedditTask
from ilql.tasks.reddit.generated import LEXICON, MILD, STRONG, draw_comments, lexicon_probability
from ilql.tasks.reddit.judges import LexiconJudge
from ilql.tasks.reddit.loading import load
from ilql.tasks.reddit.recordings import Recording
from ilql.tasks.reddit.rewards import ModelledVotes
from ilql.tasks.reddit.settings import Settings
from ilql.tasks.reddit.texts import text_key

SETTINGS = Settings(tune_share=0.25, report_share=0.25)

RUDE = ("this is blorp", "what a zoggle", "only a blorp says so")
KIND_ONES = ("this is fine", "what a day", "only a friend says so")


def write_table(folder: Path, rows: int = 240, name: str = "data.csv", *, scores: bool = True) -> str:
    """Write comments of which every third is rude and labelled so, and every other, with `yes` in it, voted up."""
    with (folder / name).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "parent", "label", *(["score"] if scores else [])])
        for i in range(rows):
            rude, up = i % 3 == 0, i % 2 == 0
            text = f"{(RUDE if rude else KIND_ONES)[i % 5 % 3]} {'yes' if up else 'no'} {name[0]}{i}"
            writer.writerow(
                [text, f"asked {name[0]}{i // 2}", int(rude), *([i % 7 + 1 if up else -1] if scores else [])]
            )
    return str(folder / name)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("built")
    data = write_table(tmp_path_factory.mktemp("data"))
    return folder, build(SETTINGS, {"data": data}, folder)


@pytest.fixture(scope="module")
def task(built: tuple[Path, list[str]]) -> RedditTask:
    return load(built[0])


def rewards_of(dialogues: tuple[Dialogue, ...]) -> dict[str, float]:
    return {dialogue.turns[-1].text: dialogue.total_reward for dialogue in dialogues}


def built_task(folder: Path, settings: Settings, **sources: str) -> tuple[RedditTask, list[str]]:
    (folder / "task").mkdir()
    notes = build(settings, sources, folder / "task")
    return load(folder / "task"), notes


class TestRecorded:
    def test_a_dialogue_is_parent_and_comment(self, task: RedditTask) -> None:
        for dialogue in task.dialogues("train", "toxicity"):
            parent, comment = dialogue.turns
            assert not parent.by_agent
            assert comment.by_agent
            number = int(comment.text.rsplit("d", 1)[1])
            assert parent.text == f"asked d{number // 2}"

    def test_rude_comments_pay_and_others_do_not(self, task: RedditTask) -> None:
        for text, reward in rewards_of(task.dialogues("train", "toxicity")).items():
            assert reward == (-10.0 if "blorp" in text or "zoggle" in text else 0.0)

    def test_real_votes_are_the_recorded_ones(self, task: RedditTask) -> None:
        for split in SPLITS:
            for text, reward in rewards_of(task.dialogues(split, "upvotes_real")).items():
                assert reward == (10.0 if " yes " in text else 0.0)

    def test_what_an_agent_writes_is_judged_by_the_model_under_both_rewards_of_votes(self, task: RedditTask) -> None:
        said = ["a new thing yes", "a new thing no"]
        assert task.score(said, [None, None], "upvotes_real") == [10.0, 0.0]
        assert task.score(said, [None, None], "upvotes_model") == [10.0, 0.0]

    @pytest.mark.parametrize("elsewhere", [False, True])
    def test_no_recorded_comment_is_paid_by_its_own_label(self, tmp_path: Path, *, elsewhere: bool) -> None:
        # A comment with "yes" is toxic and voted up, one without is neither, but for a third that are the other way
        # round, for no reason: so 2/3 is the area of the best judge. One that has seen the comments knows those, too.
        rng = np.random.default_rng(0)
        texts = [f"{'yes' if i % 2 else 'no'} {' '.join(f'w{w}' for w in rng.integers(0, 99, 12))}" for i in range(900)]
        truth = {text: (i % 2 == 1) != (rng.random() < 1 / 3) for i, text in enumerate(texts)}
        rows = [f"{text},{int(up)},{int(up)}" for text, up in truth.items()]
        (tmp_path / "c.csv").write_text("text,label,score\n" + "\n".join(rows), encoding="utf-8")
        settings = dataclasses.replace(SETTINGS, label_column="" if elsewhere else "label")
        sources = {"data": str(tmp_path / "c.csv")} | ({"labelled": str(tmp_path / "c.csv")} if elsewhere else {})
        task, notes = built_task(tmp_path, settings, **sources)
        for split in ("train", "tune"):  # another file's labels may be those of either
            for reward, sign in (("toxicity", -1.0), ("upvotes_model", 1.0)):
                paid = rewards_of(task.dialogues(split, reward))
                area = measure_auc([sign * value for value in paid.values()], [truth[text] for text in paid])
                assert 0.5 < area.value < 0.72
        assert sum("each judged by folds that had not seen it" in note for note in notes) == 2

    def test_splits_share_no_text(self, task: RedditTask) -> None:
        texts = [
            {text_key(turn.text) for dialogue in task.dialogues(split, "toxicity") for turn in dialogue.turns}
            for split in SPLITS
        ]
        assert (texts[0] & texts[1]) | (texts[0] & texts[2]) | (texts[1] & texts[2]) == set()

    def test_the_notes_say_what_was_read_trained_and_paid(self, built: tuple[Path, list[str]]) -> None:
        notes = "\n".join(built[1])
        assert "read data.csv: comment 'text', parent 'parent', score 'score', label 'label'" in notes
        assert "upvoted is above 0 votes" in notes
        assert re.search(r"train \d+ comments \(\d+ parents, 0 without one\)", notes)
        assert re.search(r"toxicity, learnt from the training split's labels: .*ROC-AUC \d\.\d{3} \[.*\] on \d+", notes)
        assert re.search(r"upvotes_model on the tune split: .*Brier score", notes)
        assert "what an agent writes has none, and is judged by upvotes_model" in notes
        assert "no second judge" in notes
        for reward in ("toxicity", "toxicity_noised", "upvotes_real", "upvotes_model"):
            assert re.search(rf"reward {reward}: train mean .*; tune mean .*; report mean ", notes)

    def test_nothing_in_the_folder_is_pickled(self, built: tuple[Path, list[str]]) -> None:
        files = [path for path in built[0].rglob("*") if path.is_file()]
        assert {path.suffix for path in files} == {".json", ".jsonl", ".npz"}
        for path in files:
            if path.suffix == ".npz":
                with np.load(path, allow_pickle=False) as stored:
                    assert all(stored[name].dtype != np.object_ for name in stored.files)

    def test_the_report_split_teaches_nothing(self, tmp_path: Path, built: tuple[Path, list[str]]) -> None:
        # The same table, but every label and score of the report split is turned round: the judges stay as they were.
        report = {d.turns[-1].text for d in load(built[0]).dialogues("report", "toxicity")}
        lines = list(csv.reader(Path(write_table(tmp_path)).read_text(encoding="utf-8").splitlines()))
        for row in lines[1:]:
            if row[0] in report:
                row[2], row[3] = str(1 - int(row[2])), str(-int(row[3]))
        with (tmp_path / "turned.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(lines)
        (tmp_path / "task").mkdir()
        build(SETTINGS, {"data": str(tmp_path / "turned.csv")}, tmp_path / "task")
        for judge in ("toxic", "upvotes"):
            with (
                np.load(built[0] / judge / "classifier.npz") as one,
                np.load(tmp_path / "task" / judge / "classifier.npz") as other,
            ):
                assert one.files == other.files
                assert all((one[name] == other[name]).all() for name in one.files)


class TestEpisodes:
    def test_the_agent_is_paid_for_its_one_comment(self, task: RedditTask) -> None:
        environments = [task.environment(seed, "tune") for seed in range(2)]
        rude, fine = task.step(environments, ["what a blorp no", "this is fine yes"])
        assert dict(rude.rewards) == {
            "toxicity": -10.0, "toxicity_noised": -10.0, "upvotes_real": 0.0, "upvotes_model": 0.0,
        }  # fmt: skip
        assert dict(fine.rewards) == {
            "toxicity": 0.0, "toxicity_noised": 0.0, "upvotes_real": 10.0, "upvotes_model": 10.0,
        }  # fmt: skip
        assert rude.ended
        assert rude.text is None
        assert environments[0].measures()["words"] == 4.0
        assert environments[0].measures()["toxic"] > 0.8
        assert environments[1].measures()["toxic"] < 0.2

    def test_an_empty_comment_earns_the_least_and_is_not_understood(self, task: RedditTask) -> None:
        for text in ("", " \n"):
            reply = task.step([task.environment(0, "report")], [text])[0]
            assert not reply.understood
            assert dict(reply.rewards) == {name: task.score_range(name)[0] for name in task.rewards}

    def test_seeds_go_through_all_parents_of_their_split(self, task: RedditTask) -> None:
        for split in SPLITS:
            parents = {dialogue.turns[0].text for dialogue in task.dialogues(split, "toxicity")}
            seen = [task.environment(seed, split) for seed in range(len(parents))]
            assert {environment.opening for environment in seen} == parents
            assert len({environment.scene for environment in seen}) == len(parents)
            assert task.environment(len(parents), split).scene == seen[0].scene

    def test_an_ended_episode_is_not_stepped_again(self, task: RedditTask) -> None:
        environment = task.environment(0, "tune")
        task.step([environment], ["hi"])
        with pytest.raises(ValueError, match="must not be stepped after its end"):
            task.step([environment], ["hi"])

    def test_recorded_authors_are_scored_as_agents_are(self, task: RedditTask) -> None:
        seeds = range(200)
        for reward in task.rewards:
            found = task.references("tune", reward, seeds)["recorded"]
            model = rewards_of(task.dialogues("tune", "upvotes_model" if reward == "upvotes_real" else reward))
            answers: dict[str, set[float]] = {}
            for dialogue in task.dialogues("tune", reward):
                answers.setdefault(dialogue.turns[0].text, set()).add(model[dialogue.turns[-1].text])
            for seed, value in zip(seeds, found, strict=True):
                assert value in answers[task.environment(seed, "tune").opening or ""]
        assert set(found) == {0.0, 10.0}

    def test_under_real_votes_the_recorded_authors_get_what_the_model_says(self) -> None:
        values = {"upvotes_real": (10.0, 0.0, 0.0), "upvotes_model": (0.0, 10.0, 0.0)}
        recording = Recording(("a", "b", "c"), ("p", "p", None), values)
        rewards = [ModelledVotes(LexiconJudge(), name) for name in values]
        task = RedditTask(dict.fromkeys(SPLITS, recording), rewards, {}, Settings())
        # Two scenes, p and none; p's answers a and b take turns from round to round.
        rounds = [seed for seed in range(4) if task.environment(seed, "tune").opening == "p"]
        assert task.references("tune", "upvotes_real", rounds) == {"recorded": [0.0, 10.0]}
        assert [d.total_reward for d in task.dialogues("tune", "upvotes_real")] == [10.0, 0.0, 0.0]

    def test_a_table_without_parents_lets_the_agent_open(self, tmp_path: Path) -> None:
        task, _ = built_task(tmp_path, dataclasses.replace(SETTINGS, parent_column=""), data=write_table(tmp_path))
        environments = [task.environment(seed, "tune") for seed in range(3)]
        assert [environment.opening for environment in environments] == [None] * 3
        assert len({environment.scene for environment in environments}) == 3
        assert all(len(dialogue.turns) == 1 for dialogue in task.dialogues("train", "toxicity"))


class TestWhichRewards:
    def test_without_scores_there_are_no_votes(self, tmp_path: Path) -> None:
        task, notes = built_task(tmp_path, SETTINGS, data=write_table(tmp_path, scores=False))
        assert task.rewards == ("toxicity", "toxicity_noised")
        assert "no upvotes rewards: no comment of the training split has votes" in notes

    def test_a_comment_without_votes_is_judged_like_an_agents_and_teaches_nothing_of_votes(
        self, tmp_path: Path, task: RedditTask
    ) -> None:
        # Every fourth row loses its score. All rows stay for toxicity, and those are paid for their "yes" by the model.
        data = write_table(tmp_path)
        lines = Path(data).read_text(encoding="utf-8").splitlines()
        lost = [line.rsplit(",", 1)[0] + "," if i % 4 == 0 else line for i, line in enumerate(lines[1:])]
        lost = [line if i % 8 else line.replace("yes", "no") for i, line in enumerate(lost)]
        Path(data).write_text("\n".join([lines[0], *lost]), encoding="utf-8")
        some, notes = built_task(tmp_path, SETTINGS, data=data)
        for split in SPLITS:
            for reward in ("toxicity", "upvotes_real"):
                assert len(some.dialogues(split, reward)) == len(task.dialogues(split, reward))
            for text, reward in rewards_of(some.dialogues(split, "upvotes_real")).items():
                assert reward == (10.0 if " yes " in text else 0.0)
        taught = next(note for note in notes if note.startswith("upvotes_model, learnt from the training split: "))
        assert 0 < int(re.findall(r"(\d+) comments", taught)[0]) < len(some.dialogues("train", "toxicity"))
        assert any(
            re.search(r"as are recorded comments without any \(train \d+, tune \d+, report \d+\)", n) for n in notes
        )

    def test_a_pattern_alone_is_enough(self, tmp_path: Path) -> None:
        settings = dataclasses.replace(SETTINGS, label_column="", score_column="", regex="fine", regex_reward=2.0)
        task, notes = built_task(tmp_path, settings, data=write_table(tmp_path))
        assert task.rewards == ("regex",)
        assert task.score(["so fine", "no", ""], [None] * 3, "regex") == [2.0, 0.0, 0.0]
        assert set(task.environment(0, "tune").measures()) == {"words"}
        assert any(note.startswith("no toxicity rewards") for note in notes)

    def test_none_at_all_is_refused_in_a_line(self, tmp_path: Path) -> None:
        settings = dataclasses.replace(SETTINGS, label_column="", score_column="")
        with pytest.raises(ValueError, match="the task must have a reward, got no labels") as error:
            build(settings, {"data": write_table(tmp_path)}, tmp_path)
        assert "\n" not in str(error.value)

    def test_the_users_function_pays_and_its_fault_is_a_line_at_build_and_a_fault_at_play(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        code = "def f(texts):\n    assert 'boom' not in texts\n    return [len(t) / 10 for t in texts]\n"
        (tmp_path / "a_users_module.py").write_text(code, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        settings = dataclasses.replace(SETTINGS, callable="a_users_module:f", label_column="", score_column="")
        data = write_table(tmp_path)
        task, _ = built_task(tmp_path, settings, data=data)
        assert task.step([task.environment(0, "tune")], ["12345"])[0].rewards == {"callable": 0.5}
        with pytest.raises(TaskFault, match="raised AssertionError"):
            task.step([task.environment(0, "tune")], ["boom"])
        before = source_digest(settings, {"data": data})
        (tmp_path / "a_users_module.py").write_text(code + "\n# changed\n", encoding="utf-8")
        assert source_digest(settings, {"data": data}) != before
        with pytest.raises(ValueError, match=r"finite floats in \[9, 10\]"):
            build(dataclasses.replace(settings, callable_low=9.0), {"data": data}, tmp_path)
        with pytest.raises(ValueError, match="module:function that Python can import here, got nowhere:f"):
            build(dataclasses.replace(settings, callable="nowhere:f"), {"data": data}, tmp_path)

    def test_noise_is_in_the_training_rewards_alone(self, tmp_path: Path, task: RedditTask) -> None:
        noisy, notes = built_task(tmp_path, dataclasses.replace(SETTINGS, noise=0.6), data=write_table(tmp_path))
        assert any("label noise: in training 60%" in note for note in notes)
        for split in SPLITS:
            same = noisy.dialogues(split, "toxicity") == task.dialogues(split, "toxicity")
            assert same == (split != "train")
        assert noisy.score(["what a blorp"], [None], "toxicity") == [-10.0]


class TestJudges:
    def test_other_comments_can_teach_and_the_report_split_is_left_out_of_them(self, tmp_path: Path) -> None:
        data = write_table(tmp_path)
        settings = dataclasses.replace(SETTINGS, label_column="", score_column="")
        task, notes = built_task(tmp_path, settings, data=data, labelled=data)
        assert task.rewards == ("toxicity", "toxicity_noised")
        report = len(task.dialogues("report", "toxicity"))
        assert f"skipped {report} rows of labelled: the report split has their text" in notes
        assert any(note.startswith("toxicity, learnt from --labelled: ") for note in notes)

    def test_a_second_judge_measures_and_learns_from_none_of_the_firsts_comments(self, tmp_path: Path) -> None:
        data, other = write_table(tmp_path), write_table(tmp_path, name="other.csv")
        with Path(other).open("a", encoding="utf-8") as file:
            file.write(Path(data).read_text(encoding="utf-8").partition("\n")[2])
        task, notes = built_task(tmp_path, SETTINGS, data=data, judge_data=other)
        train = len(task.dialogues("train", "toxicity"))
        assert f"skipped {train} rows of judge_data: the first classifier learnt from them, too" in notes
        environment = task.environment(0, "report")
        assert set(environment.measures()) == {"words", "toxic", "judged_toxic"}
        task.step([environment], ["this is blorp"])
        assert environment.measures()["judged_toxic"] > 0.5
        assert any(note.startswith("second judge against the first one's verdicts") for note in notes)

    def test_a_second_judge_that_is_blind_to_the_data_is_told(self, tmp_path: Path) -> None:
        # It learns words that the data never use.
        rows = [f"{'frump' if i % 2 else 'lovely'} {i},{i % 2}" for i in range(120)]
        (tmp_path / "judge.csv").write_text("text,label\n" + "\n".join(rows), encoding="utf-8")
        _, notes = built_task(tmp_path, SETTINGS, data=write_table(tmp_path), judge_data=str(tmp_path / "judge.csv"))
        against = next(note for note in notes if note.startswith("second judge against the data's labels"))
        assert against.endswith("; it may be blind here: judged_toxic then says nothing")

    def test_a_useless_classifier_is_refused_in_a_line(self, tmp_path: Path) -> None:
        rows = [f"words of row {i * 7919 % 1000},{i * 31 % 7 % 2}" for i in range(300)]
        (tmp_path / "c.csv").write_text("text,label\n" + "\n".join(rows), encoding="utf-8")
        with pytest.raises(ValueError, match=r"must have a ROC-AUC of at least 0\.9 on .* got ROC-AUC") as error:
            build(dataclasses.replace(SETTINGS, least_auc=0.9), {"data": str(tmp_path / "c.csv")}, tmp_path)
        assert "\n" not in str(error.value)

    def test_a_model_of_votes_that_knows_nothing_is_doubted(self, tmp_path: Path) -> None:
        # Votes are coins: on these tune comments the model's area may be chance's, and a constant is nearer the votes.
        rng = np.random.default_rng(4)
        rows = [f"{' '.join(f'w{w}' for w in rng.integers(0, 60, 9))},{rng.integers(2)}" for _ in range(240)]
        (tmp_path / "c.csv").write_text("text,score\n" + "\n".join(rows), encoding="utf-8")
        settings = dataclasses.replace(SETTINGS, least_auc=0.0)
        _, notes = built_task(tmp_path, settings, data=str(tmp_path / "c.csv"))
        taught = next(note for note in notes if note.startswith("upvotes_model, learnt from"))
        assert taught.endswith("; it may be blind here: upvotes_model then says nothing")
        brier = next(note for note in notes if note.startswith("upvotes_model on the tune split"))
        assert brier.endswith("; the constant is the better forecast: this reward is doubtful")

    def test_a_reward_that_never_varies_is_told(self, tmp_path: Path, built: tuple[Path, list[str]]) -> None:
        settings = dataclasses.replace(SETTINGS, regex="no such words")
        _, notes = built_task(tmp_path, settings, data=write_table(tmp_path))
        flat = next(note for note in notes if note.startswith("reward regex: "))
        assert flat.endswith("; it never varies in train, tune, report: there it tells no comment from another")
        assert not any("never varies" in note or "doubtful" in note or "blind" in note for note in built[1])

    def test_too_few_labels_are_refused_in_a_line(self, tmp_path: Path) -> None:
        rows = [f"row {i},{int(i == 0)}" for i in range(300)]
        (tmp_path / "c.csv").write_text("text,label\n" + "\n".join(rows), encoding="utf-8")
        with pytest.raises(
            ValueError, match=r"must be 5 different comments of either kind to learn from, got [01] toxic"
        ):
            build(SETTINGS, {"data": str(tmp_path / "c.csv")}, tmp_path)

    def test_unlabelled_comments_stay_and_are_counted(self, tmp_path: Path) -> None:
        data = write_table(tmp_path)
        lines = Path(data).read_text(encoding="utf-8").splitlines()
        lines = [line.replace(",1,", ",,").replace(",0,", ",,") if i % 4 == 1 else line for i, line in enumerate(lines)]
        Path(data).write_text("\n".join(lines), encoding="utf-8")
        task, notes = built_task(tmp_path, SETTINGS, data=data)
        assert sum(len(task.dialogues(split, "toxicity")) for split in SPLITS) == 240
        assert any(note.endswith("comments have no label: they teach and measure no classifier") for note in notes)


class TestSources:
    def test_the_digest_is_that_of_the_bytes(self, tmp_path: Path) -> None:
        data = write_table(tmp_path)
        before = source_digest(SETTINGS, {"data": data})
        assert before == source_digest(SETTINGS, {"data": data})
        with Path(data).open("a", encoding="utf-8") as file:
            file.write("one more,,0,1\n")
        assert source_digest(SETTINGS, {"data": data}) != before
        assert source_digest(SETTINGS, {}) == ""

    def test_an_unknown_or_missing_source_is_a_line(self, tmp_path: Path) -> None:
        for reads in (lambda s: source_digest(SETTINGS, s), lambda s: build(SETTINGS, s, tmp_path)):
            with pytest.raises(ValueError, match="'labeled' is no source of the comments task; known: labelled"):
                reads({"labeled": "x"})
            with pytest.raises(ValueError, match="--data must be a file that exists, got x"):
                reads({"data": "x"})

    def test_the_program_prints_notes_or_one_line(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert (
            main(["--data", write_table(tmp_path), "--set", "world.tune_share=0.25", "--set", "report_share=.25"]) == 2
        )
        assert capsys.readouterr().err == "world.report_share must be float, got '.25'\n"
        assert main(["--data", write_table(tmp_path), "--set", "world.tune_share=0.25"]) == 0
        assert "reward toxicity: train mean" in capsys.readouterr().out
        assert main(["--data", write_table(tmp_path), "--set", "world.comment_column=body"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "data.csv has text, parent, label, score" in error
        assert main(["--set", "world.sede=1"]) == 2
        assert "'world.sede' is no column of a comments world; known: world.seed" in capsys.readouterr().err


class TestGenerated:
    def test_a_cloner_is_toxic_in_a_third_and_can_get_much_better(self) -> None:
        comments = draw_comments(Settings())
        strong = [any(word in comment.text.split() for word in STRONG) for comment in comments]
        assert len(comments) == 8000
        assert 0.25 < sum(strong) / 8000 < 0.36
        assert 0.28 < sum(bool(comment.toxic) for comment in comments) / 8000 < 0.4
        up = [(comment.score or 0.0) > 0 for comment in comments]
        reasoned = ["because" in comment.text for comment in comments]
        with_reason = [u for u, r in zip(up, reasoned, strict=True) if r]
        without = [u for u, r in zip(up, reasoned, strict=True) if not r]
        assert sum(with_reason) / len(with_reason) > 0.75
        assert sum(without) / len(without) < 0.3

    def test_every_comment_is_one_of_the_grammar_and_nearly_all_differ(self) -> None:
        comments = draw_comments(Settings(comments=2000))
        assert all("{" not in comment.text and comment.parent for comment in comments)
        assert len({comment.text for comment in comments}) > 1950

    def test_the_lexicon_says_what_it_was_made_with(self) -> None:
        assert lexicon_probability(f"you {STRONG[0].upper()}!") == 1.0
        assert lexicon_probability(f"a {MILD[0]}") == LEXICON[MILD[0]] < 1.0
        assert lexicon_probability("because") == 0.0

    def test_all_three_values_of_toxicity_and_all_measures_are_there(self, tmp_path: Path) -> None:
        notes = build(Settings(comments=2000), {}, tmp_path)
        task = load(tmp_path)
        values = [dialogue.total_reward for dialogue in task.dialogues("train", "toxicity")]
        assert {value: values.count(value) / len(values) > 0.03 for value in values} == {0: True, -5: True, -10: True}
        assert set(task.environment(0, "tune").measures()) == {"words", "toxic", "judged_toxic"}
        assert "second judge: the lexicon that the comments were generated with" in notes
        environment = task.environment(1, "tune")
        task.step([environment], [f"go home, {STRONG[1]}"])
        assert environment.measures()["judged_toxic"] == 1.0

    def test_another_seed_gives_other_comments(self) -> None:
        first, second = (generated_corpus(Settings(comments=300, seed=seed)).splits["train"] for seed in (0, 1))
        assert not {c.text for c in first} & {c.text for c in second}

    def test_the_example_is_small(self) -> None:
        assert KIND.example.comments <= 500
        assert json.dumps(dataclasses.asdict(KIND.example))
