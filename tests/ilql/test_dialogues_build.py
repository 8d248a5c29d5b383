"""From a file to a task and back: what is learnt from, what is refused, what building says."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from ilql.task import SPLITS, Reply
from ilql.tasks.dialogues import KIND, booking
from ilql.tasks.dialogues.__main__ import main
from ilql.tasks.dialogues.settings import Settings
from ilql.tasks.dialogues.world import DialoguesTask


def user(text: str) -> dict[str, object]:
    return {"role": "user", "text": text}


def agent(text: str, **keys: object) -> dict[str, object]:
    return {"role": "agent", "text": text, **keys}


def some(count: int = 12) -> list[dict[str, object]]:
    return [{"id": f"d{n}", "turns": [user(f"u{n}"), agent(f"a{n}", reward=n)]} for n in range(count)]


def write(file: Path, lines: list[dict[str, object]]) -> str:
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return str(file)


def build(tmp_path: Path, settings: Settings, sources: Mapping[str, str]) -> tuple[DialoguesTask, list[str]]:
    folder = tmp_path / "world"
    folder.mkdir(exist_ok=True)
    notes = KIND.build(settings, sources, folder)
    task = KIND.load(folder)
    assert isinstance(task, DialoguesTask)
    return task, notes


def built(tmp_path: Path, lines: list[dict[str, object]], **settings: object) -> tuple[DialoguesTask, list[str]]:
    return build(tmp_path, Settings(**settings), {"data": write(tmp_path / "mine.jsonl", lines)})  # type: ignore[arg-type]


def everything(task: DialoguesTask, reward: str = "recorded") -> list[tuple[bool, list[tuple[str, bool, float]]]]:
    return sorted(
        (d.ended, [(t.text, t.by_agent, t.reward) for t in d.turns])
        for split in SPLITS
        for d in task.dialogues(split, reward)
    )


class TestRoundTrip:
    def test_every_dialogue_is_in_one_split_as_it_was_written(self, tmp_path: Path) -> None:
        task, _ = built(tmp_path, some())
        written = [(True, [(f"u{n}", False, 0.0), (f"a{n}", True, float(n))]) for n in range(12)]
        assert everything(task) == sorted(written)

    def test_several_rewards_are_kept_apart_and_a_missing_one_is_0_and_counted(self, tmp_path: Path) -> None:
        lines = some()
        lines[0] = {"turns": [agent("x", rewards={"kind": 2}), agent("y", reward=1), user("z")], "ended": False}
        task, notes = built(tmp_path, lines)
        assert task.rewards == ("recorded", "kind")
        assert (False, [("x", True, 2.0), ("y", True, 0.0), ("z", False, 0.0)]) in everything(task, "kind")
        assert (False, [("x", True, 0.0), ("y", True, 1.0), ("z", False, 0.0)]) in everything(task)
        assert "kind: 12 of 13 turns of the agent have no number, and count as 0" in notes
        assert "recorded: 1 of 13 turns of the agent have no number, and count as 0" in notes

    def test_equal_builds_are_equal_files(self, tmp_path: Path) -> None:
        built(tmp_path, some(), seed=3)
        first = {path.name: path.read_bytes() for path in (tmp_path / "world").iterdir()}
        built(tmp_path, some(), seed=3)
        assert {path.name: path.read_bytes() for path in (tmp_path / "world").iterdir()} == first

    def test_packing_a_file_changes_neither_its_digest_nor_its_dialogues(self, tmp_path: Path) -> None:
        plain = write(tmp_path / "mine.jsonl", some())
        packed = tmp_path / "mine.jsonl.gz"
        packed.write_bytes(gzip.compress(Path(plain).read_bytes(), mtime=5))
        digests = {KIND.source_digest(Settings(), {"data": path}) for path in (plain, str(packed))}
        assert len(digests) == 1
        one, other = (build(tmp_path, Settings(), {"data": path})[0] for path in (plain, str(packed)))
        assert everything(one) == everything(other)

    def test_the_worlds_runs_become_one_turn_and_the_agents_do_not(self, tmp_path: Path) -> None:
        lines = some()
        turns = [{"role": "system", "text": "be kind"}, user("hi"), agent("a"), agent("b", reward=1)]
        lines[0] = {"turns": turns}
        task, _ = built(tmp_path, lines)
        assert (True, [("be kind\nhi", False, 0.0), ("a", True, 0.0), ("b", True, 1.0)]) in everything(task)

    def test_a_template_is_in_every_turn(self, tmp_path: Path) -> None:
        task, _ = built(tmp_path, some(), template="[{role}] {text}")
        assert (True, [("[user] u3", False, 0.0), ("[agent] a3", True, 3.0)]) in everything(task)

    def test_explicit_splits_are_kept(self, tmp_path: Path) -> None:
        lines = [{**line, "split": SPLITS[number % 3]} for number, line in enumerate(some())]
        task, _ = built(tmp_path, lines)
        assert [d.turns[1].text for d in task.dialogues("tune", "recorded")] == ["a1", "a4", "a7", "a10"]


class TestEarlierVersions:
    def rewritten(self, folder: Path, words: int) -> None:
        """Rewrite a world as it was when windows were cut while it was built, by words."""
        world = json.loads((folder / "world.json").read_text(encoding="utf-8"))
        world["settings"]["window_words"] = words
        (folder / "world.json").write_text(json.dumps(world), encoding="utf-8")
        held = json.loads((folder / "dialogues.json").read_text(encoding="utf-8"))
        held = {split: [[scene, True, *rest] for scene, *rest in rows] for split, rows in held.items()}
        (folder / "dialogues.json").write_text(json.dumps(held), encoding="utf-8")

    def test_a_world_of_whole_dialogues_is_read(self, tmp_path: Path) -> None:
        task, _ = built(tmp_path, some())
        self.rewritten(tmp_path / "world", 0)
        again = KIND.load(tmp_path / "world")
        assert isinstance(again, DialoguesTask)
        assert everything(again) == everything(task)

    def test_one_of_windows_is_refused(self, tmp_path: Path) -> None:
        built(tmp_path, some())
        self.rewritten(tmp_path / "world", 300)
        with pytest.raises(
            ValueError, match=r"must hold whole dialogues, got one .* cut after 300 words: run"
        ) as fault:
            KIND.load(tmp_path / "world")
        assert "\n" not in str(fault.value)


class TestRefusals:
    def test_a_file_with_problems_is_refused_with_the_first_and_their_number(self, tmp_path: Path) -> None:
        lines = [*some(2), {"turns": []}, *some(1), {}]
        with pytest.raises(
            ValueError, match=r"line 3: turns must not be empty.*of 3 problems on 3 of 5 lines"
        ) as caught:
            built(tmp_path, lines)
        assert "\n" not in str(caught.value)

    def test_bad_lines_are_skipped_and_counted_if_wanted(self, tmp_path: Path) -> None:
        lines = some()
        lines[3] = {"turns": [{"role": "usr", "text": 1}]}
        task, notes = built(tmp_path, lines, skip_bad_lines=True)
        assert len(everything(task)) == 11
        assert any(note.startswith("skipped 1 of 12 lines for 2 problems, the first: line 4: ") for note in notes)

    def test_a_file_that_is_none_cannot_be_skipped(self, tmp_path: Path) -> None:
        (tmp_path / "mine.jsonl").write_text("[{}]", encoding="utf-8")
        with pytest.raises(
            ValueError, match=r"mine.jsonl: the file must have one JSON object a line, got a JSON array"
        ):
            build(tmp_path, Settings(skip_bad_lines=True), {"data": str(tmp_path / "mine.jsonl")})

    def test_too_few_dialogues_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="at least 3 different dialogues"):
            built(tmp_path, some(2))

    def test_unknown_sources_and_an_environment_without_dialogues_are_refused(self) -> None:
        with pytest.raises(ValueError, match="one of data, environment, reward, got 'words'"):
            KIND.source_digest(Settings(), {"words": "x"})
        with pytest.raises(ValueError, match="an environment must come with dialogues"):
            KIND.source_digest(Settings(), {"environment": "x:y"})

    @pytest.mark.parametrize("source", ["", "none.jsonl"])
    def test_a_source_that_cannot_be_read_is_refused_before_building(self, tmp_path: Path, source: str) -> None:
        with pytest.raises(ValueError, match="the data must be a file"):
            KIND.source_digest(Settings(), {"data": str(tmp_path / source)})


class TestNotes:
    def test_the_same_words_in_train_and_report_are_told(self, tmp_path: Path) -> None:
        lines = some()
        lines[0] = {**lines[0], "split": "train"}
        lines.append({**lines[0], "id": "again", "split": "report"})
        _, notes = built(tmp_path, lines)
        assert any("1 of" in note and "of report stands word for word in train, too" in note for note in notes)

    def test_a_reward_that_is_always_0_is_told(self, tmp_path: Path) -> None:
        task, notes = built(tmp_path, [{"turns": [user("u"), agent(f"a{n}")]} for n in range(9)])
        assert any("recorded: no turn has a reward other than 0" in note for note in notes)
        assert task.score_range("recorded") == (0.0, 1.0)


class TestOffline:
    def test_an_episode_is_the_beginning_of_a_held_out_dialogue_and_one_utterance(self, tmp_path: Path) -> None:
        lines = [{**line, "split": SPLITS[number % 3]} for number, line in enumerate(some())]
        lines[2]["turns"] = [user("u2"), agent("a2"), user("more"), agent("b2")]
        task, notes = built(tmp_path, lines)
        assert (task.playable, task.max_turns) == (False, 1)
        assert any("no environment" in note for note in notes)
        episodes = [task.environment(seed, "report") for seed in range(4)]
        assert sorted((e.scene, e.opening) for e in episodes) == [(f"d{n}", f"u{n}") for n in (11, 2, 5, 8)]
        assert task.step(episodes[:1], ["anything"]) == [Reply(None, {"recorded": 0.0}, ended=True)]
        with pytest.raises(ValueError, match="an episode that is over"):
            task.step(episodes[:1], ["more"])

    def test_the_range_is_that_of_the_data_and_of_the_0_of_an_episode(self, tmp_path: Path) -> None:
        lines = [{"turns": [agent(f"a{n}", reward=-1), agent("b", reward=-n)]} for n in range(9)]
        task, _ = built(tmp_path, lines)
        assert task.score_range("recorded") == (-9.0, 0.0)  # the worst is −1 − 8

    def test_strangers_and_twins_are_refused(self, tmp_path: Path) -> None:
        task, _ = built(tmp_path, some())
        episode = task.environment(0, "tune")
        with pytest.raises(ValueError, match="got one of them twice"):
            task.step([episode, episode], ["a", "b"])
        with pytest.raises(ValueError, match="got 0 for 1"):
            task.step([episode], [])
        with pytest.raises(ValueError, match="seed must not be negative"):
            task.environment(-1, "tune")


class TestSmallSplits:
    def test_they_are_told_with_the_shares_that_mend_them(self, tmp_path: Path) -> None:
        _, notes = built(tmp_path, some(50))
        assert (
            "without an environment tables rest on the dialogues of tune and report, which should be 5 at least, "
            "got tune 7, report 3; --set world.train_share=0.6 --set world.tune_share=0.2 makes it tune 7, report 10"
        ) in notes

    def test_the_shares_they_name_mend_them(self, tmp_path: Path) -> None:
        task, notes = built(tmp_path, some(50), train_share=0.6, tune_share=0.2)
        assert [len(task.dialogues(split, "recorded")) for split in SPLITS] == [33, 7, 10]
        assert not any("tables rest on" in note for note in notes)

    def test_shares_that_mend_nothing_are_not_named(self, tmp_path: Path) -> None:
        _, notes = built(tmp_path, some(8))
        (told,) = [note for note in notes if "tables rest on" in note]
        assert told.endswith("; more dialogues mend it")

    def test_validating_tells_them_too(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([write(tmp_path / "mine.jsonl", some(8))]) == 0
        *_, split, told = capsys.readouterr().out.splitlines()
        assert split.startswith("split: train ")
        assert told.startswith("without an environment tables rest on the dialogues of tune and report, which should")

    def test_nothing_is_told_where_policies_are_played(self, tmp_path: Path) -> None:
        _, notes = build(tmp_path, Settings(made_up_dialogues=8), {})
        assert not any("tables rest on" in note for note in notes)


class TestBookingDesk:
    def test_it_is_what_there_is_without_data(self, tmp_path: Path) -> None:
        task, notes = build(tmp_path, Settings(made_up_dialogues=20), {})
        assert KIND.source_digest(Settings(), {}) == ""
        assert notes[0].startswith("20 made-up calls of a booking desk: ")
        assert (task.rewards, task.playable) == (("recorded", "courtesy"), True)
        # 20 turns, each between −1 and −1 + 5, and of courtesy between 0 and 1.
        assert (task.score_range("recorded"), task.score_range("courtesy")) == ((-20.0, 80.0), (0.0, 20.0))

    def test_the_right_offer_ends_the_call_and_pays(self) -> None:
        desk = booking.make_desk(3, "tune")
        wrong = desk.wanted | {"day": next(day for day in booking.DAYS if day != desk.wanted["day"])}
        assert desk.step("please , on which day ?") == (
            f"on {desk.wanted['day']}", {"recorded": -1.0, "courtesy": 1.0}, False,
        )  # fmt: skip
        assert desk.step(booking.offer(wrong)) == (
            f"no , on {desk.wanted['day']}", {"recorded": -1.0, "courtesy": 0.0}, False,
        )  # fmt: skip
        assert desk.step(booking.offer(desk.wanted)) == ("yes thank you", {"recorded": 4.0, "courtesy": 0.0}, True)
        assert desk.step("well")[0] == booking.LOST

    def test_an_hour_inside_another_is_not_heard(self) -> None:
        assert booking.mentioned("at half past seven") == {"hour": "half past seven"}
        assert booking.mentioned("for two on friday at seven") == {"people": "two", "day": "friday", "hour": "seven"}

    def test_calls_are_good_and_bad(self) -> None:
        lines = [json.loads(line) for line in booking.recorded_calls(0, 200).splitlines()]
        returns = [sum(turn.get("reward", 0) for turn in line["turns"]) for line in lines]
        assert min(returns) < 0 < max(returns)
        assert max(returns) == 4.0  # nothing to ask: one turn, −1 + 5
        assert {line["ended"] for line in lines} == {True, False}


class TestCommand:
    def test_a_good_file_is_summarised_and_leaves_with_0(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([write(tmp_path / "mine.jsonl", some())]) == 0
        assert capsys.readouterr().out.startswith(
            "12 dialogues on 12 lines; 12 with an id\n24 turns, 12 of the agent\n"
        )

    def test_a_bad_one_leaves_with_2_and_its_problems(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([write(tmp_path / "mine.jsonl", [*some(3), {}])]) == 2
        out = capsys.readouterr().out.splitlines()
        assert out[0].startswith("line 4: a line must have the key 'turns'")
        assert out[1].startswith("3 dialogues on 4 lines, and 1 line with problems")

    def test_what_training_would_not_take_leaves_with_2(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([write(tmp_path / "mine.jsonl", some(2))]) == 2
        assert "there must be at least 3 different dialogues" in capsys.readouterr().out.splitlines()[-1]

    def test_what_is_no_file_leaves_with_2_and_one_line(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([str(tmp_path)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.splitlines() == [
            f"the data must be a file of one dialogue a line, got the directory {tmp_path}"
        ]

    def test_roles_can_be_named(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = write(tmp_path / "mine.jsonl", some())
        assert main([file, "--agent-roles", "seller"]) == 2
        assert main([file, "--agent-roles", "user,agent"]) == 2
        assert "got user among both" in capsys.readouterr().err


class TestReferences:
    def test_offline_they_are_what_was_recorded_where_the_episodes_begin(self, tmp_path: Path) -> None:
        task, _ = built(tmp_path, some(30))
        seeds = range(len(task.dialogues("tune", "recorded")))
        expected = [float(str(task.environment(seed, "tune").scene).removeprefix("d")) for seed in seeds]
        assert task.references("tune", "recorded", seeds) == {"recorded": expected}  # dialogue d7 is paid 7

    def test_with_an_environment_there_are_none(self, tmp_path: Path) -> None:
        task, _ = build(tmp_path, KIND.example, {})
        assert task.playable
        assert task.references("report", "recorded", [0, 1]) == {}
