"""Splits, templates and runs of turns: what becomes of a dialogue between the file and the learner."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from ilql.tasks.dialogues.paid import PaidTurn, join_world
from ilql.tasks.dialogues.read import read_lines
from ilql.tasks.dialogues.schema import RecordedDialogue
from ilql.tasks.dialogues.settings import Settings
from ilql.tasks.dialogues.splits import assign
from ilql.tasks.dialogues.template import unwrap, wrap


def said(text: str, reward: float | None = None) -> PaidTurn:
    return PaidTurn(text, reward is not None, (reward or 0.0,))


def test_a_run_of_the_worlds_turns_becomes_one_with_a_line_each() -> None:
    turns = (said("s"), said("u"), said("a", 1.0), said("b", 2.0), said("v"))
    assert [(t.text, t.rewards[0]) for t in join_world(turns)] == [("s\nu", 0), ("a", 1), ("b", 2), ("v", 0)]


def recorded(*lines: dict[str, object]) -> tuple[RecordedDialogue, ...]:
    data = "\n".join(json.dumps(line) for line in lines)
    recordings = read_lines(data.encode(), Settings())
    assert recordings.problems == ()
    return recordings.dialogues


def numbered(count: int, **keys: object) -> list[dict[str, object]]:
    return [{"turns": [{"role": "agent", "text": str(number)}], "id": f"d{number}", **keys} for number in range(count)]


class TestSplits:
    def test_they_have_about_their_shares(self) -> None:
        counts = Counter(assign(recorded(*numbered(2000)), Settings()))
        # Binomial: three standard deviations are 54 of 1600 and 40 of 200.
        assert abs(counts["train"] - 1600) < 54
        assert abs(counts["tune"] - 200) < 40

    def test_the_order_of_the_lines_plays_no_part(self) -> None:
        dialogues = recorded(*numbered(50))
        backwards = recorded(*reversed(numbered(50)))
        assert assign(dialogues, Settings()) == assign(backwards, Settings())[::-1]

    def test_another_dialogue_moves_no_other(self) -> None:
        assert assign(recorded(*numbered(200)), Settings())[:150] == assign(recorded(*numbered(150)), Settings())

    def test_the_seed_decides_them(self) -> None:
        dialogues = recorded(*numbered(50))
        assert assign(dialogues, Settings(seed=1)) != assign(dialogues, Settings(seed=2))
        assert assign(dialogues, Settings(seed=1)) == assign(dialogues, Settings(seed=1))

    @pytest.mark.parametrize("seed", range(20))
    def test_three_dialogues_are_one_for_each(self, seed: int) -> None:
        assert sorted(assign(recorded(*numbered(3)), Settings(seed=seed))) == ["report", "train", "tune"]

    def test_equal_dialogues_without_an_id_stay_together(self) -> None:
        lines = [{"turns": [{"role": "agent", "text": str(number % 20)}]} for number in range(60)]
        splits = assign(recorded(*lines), Settings())
        assert splits[:20] == splits[20:40] == splits[40:]

    def test_a_dialogue_goes_where_it_asks_to(self) -> None:
        lines = [*numbered(30), *({**line, "id": f"r{n}"} for n, line in enumerate(numbered(5, split="report")))]
        assert assign(recorded(*lines), Settings())[30:] == ["report"] * 5

    def test_one_that_asks_goes_there_though_an_equal_one_does_not(self) -> None:
        lines = [*numbered(9), {"turns": [{"role": "agent", "text": "a"}]}]
        (free,) = assign(recorded(*lines), Settings())[9:]
        other = next(split for split in ("train", "report") if split != free)
        assert assign(recorded(*lines, {**lines[9], "split": other}), Settings())[9:] == [free, other]

    def test_an_empty_split_gets_the_dialogue_nearest_to_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        places = iter([0.1, 0.75, 0.5, 0.98, 0.99])  # train ends at .8 and report begins at .9: .05 below, .08 above
        monkeypatch.setattr("ilql.tasks.dialogues.splits._place", lambda key, seed: next(places))
        assert assign(recorded(*numbered(5)), Settings()) == ["train", "tune", "train", "report", "report"]

    def test_fewer_than_three_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"at least 3 different dialogues.*got 2"):
            assign(recorded(*numbered(2)), Settings())
        same = {"turns": [{"role": "agent", "text": "a"}]}
        with pytest.raises(ValueError, match="got 1"):
            assign(recorded(same, same, same), Settings())

    def test_a_split_that_nothing_may_go_to_is_refused(self) -> None:
        with pytest.raises(ValueError, match="none for 'tune'"):
            assign(recorded(*numbered(9, split="train")), Settings())


class TestTemplates:
    def test_none_leaves_the_text_alone(self) -> None:
        assert wrap("", "user", "hello") == "hello"
        assert unwrap("", ["agent"], " hello") == " hello"

    def test_it_is_taken_off_what_the_agent_wrote(self) -> None:
        template = "<{role}>\n{text}</{role}>\n"
        written = wrap(template, "agent", "good {morning}")
        assert written == "<agent>\ngood {morning}</agent>\n"
        assert unwrap(template, ["bot", "agent"], written.strip()) == "good {morning}"

    def test_what_is_not_written_in_it_is_none(self) -> None:
        assert unwrap("{role}: {text}", ["agent"], "good morning") is None
        assert unwrap("|{text}|", ["agent"], "|") is None  # the opening mark is not the closing one, too

    @pytest.mark.parametrize("template", ["{role}", "{text} {text}", "{text} {name}", "{text!r}", "{text:>9}", "{text"])
    def test_a_template_without_exactly_one_text_is_refused(self, template: str) -> None:
        with pytest.raises(ValueError, match="template must"):
            Settings(template=template)


class TestSettings:
    def test_a_role_is_on_one_side(self) -> None:
        with pytest.raises(ValueError, match="got user among both"):
            Settings(agent_roles="agent,User")

    def test_shares_leave_something_to_report_on(self) -> None:
        with pytest.raises(ValueError, match="must leave a share to report on"):
            Settings(train_share=0.8, tune_share=0.2)

    def test_bounds_are_in_order(self) -> None:
        with pytest.raises(ValueError, match="lowest_reward must not be above"):
            Settings(lowest_reward=1.0, highest_reward=0.0)
        with pytest.raises(ValueError, match="agent_roles must name"):
            Settings(agent_roles=" , ")
