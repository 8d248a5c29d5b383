"""The page on one's own dialogues: its lines are a file, its functions run, what it names is there."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from ilql.batch import tokenize
from ilql.dialogue import Dialogue, Turn
from ilql.tasks.dialogues import KIND, validate
from ilql.tasks.dialogues.schema import LINE_KEYS, MESSAGE_KEYS, TURN_KEYS
from ilql.tasks.dialogues.settings import Settings
from ilql.tasks.dialogues.world import DialoguesTask
from ilql.tokens import symbol_tokenizer

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "your_dialogues.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, str]:
    """Give the page's file, environment and reward function, saved as the page calls them."""
    (lines,) = blocks("jsonl")
    brief, repair = blocks("python")
    (tmp_path / "mine.jsonl").write_text(lines, encoding="utf-8")
    for name, text in (("brief.py", brief), ("repair.py", repair)):
        assert text.startswith(f'"""{name}: ')
        (tmp_path / name).write_text(text, encoding="utf-8")
    return {
        "data": str(tmp_path / "mine.jsonl"),
        "environment": f"{tmp_path / 'repair.py'}:factory",
        "reward": f"{tmp_path / 'brief.py'}:reward",
    }


@pytest.fixture
def task(sources: dict[str, str], tmp_path: Path) -> DialoguesTask:
    (tmp_path / "world").mkdir()
    KIND.build(Settings(max_turns=6), sources, tmp_path / "world")
    task = KIND.load(tmp_path / "world")
    assert isinstance(task, DialoguesTask)
    return task


def test_its_lines_have_no_problem_and_are_what_it_says_of_them(sources: dict[str, str]) -> None:
    problems, summary = validate(sources["data"], Settings())
    assert problems == ()
    assert (summary.dialogues, summary.named, summary.duplicates, summary.ignored) == (3, 3, 0, "")
    assert {name: reward.returns.quantiles[-1] for name, reward in summary.rewards.items()} == {
        "recorded": 4.0,  # −1 + 5
        "kindness": 0.5,
    }


def test_its_environment_can_be_played_and_pays_every_reward(task: DialoguesTask) -> None:
    assert (task.rewards, task.playable, task.max_turns) == (("recorded", "kindness", "custom"), True, 6)
    episode = task.environment(0, "report")
    assert episode.opening is not None
    assert re.fullmatch(r"my (lamp flickers|kettle leaks|bike squeaks)", episode.opening)
    first, second = (task.step([episode], [text])[0] for text in ("please wait", "it costs 1"))
    assert (first.text, first.ended) == ("what does it cost ?", False)
    assert first.rewards == pytest.approx({"recorded": -1.0, "kindness": 0.5, "custom": -0.2})  # two words
    assert (second.text, second.ended) == ("thank you", True)
    # Three words, and thanks at the end are worth ten.
    assert second.rewards == pytest.approx({"recorded": 5.0, "kindness": 0.0, "custom": 9.7})


def test_a_reward_function_and_an_environment_do_not_need_each_other(sources: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "world").mkdir()
    del sources["environment"]
    KIND.build(Settings(), sources, tmp_path / "world")
    task = KIND.load(tmp_path / "world")
    assert not getattr(task, "playable", True)
    returns = [d.total_reward for split in ("train", "tune", "report") for d in task.dialogues(split, "custom")]
    # Nobody says thanks in the recorded ones; the agent says 5 + 5, 5 and 5 words at 0.1 each.
    assert sorted(returns) == pytest.approx([-1.0, -0.5, -0.5])


def test_its_tables_name_every_key_and_every_setting_with_its_default() -> None:
    rows = {
        name: cells
        for line in PAGE.splitlines()
        if line.startswith("| `")
        for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
        for name in re.findall(r"`(\w+)`", cells[0])
    }
    assert {*LINE_KEYS, *TURN_KEYS, *MESSAGE_KEYS} - {"messages", "content"} <= set(rows)
    for field in dataclasses.fields(Settings):
        default = "" if field.default is None else str(field.default).removesuffix(".0")
        assert rows[field.name][1].lower() == default.lower(), field.name


def test_its_first_commands_split_fifty_dialogues_so_that_none_is_too_small(tmp_path: Path) -> None:
    commands = [line for line in PAGE.partition("```\n")[2].partition("```")[0].splitlines() if "mine.jsonl" in line]
    said = {tuple(re.findall(r"--set world\.(\w+)=([\d.]+)", command)) for command in commands}
    (pairs,) = said  # the same in every command: the split is part of the world
    shares = {name: float(value) for name, value in pairs}
    assert set(shares) == {"train_share", "tune_share"}
    turns = [{"role": "user", "text": "hello"}, {"role": "agent", "text": "good morning", "reward": 1}]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps({"id": f"d{n}", "turns": turns}) + "\n" for n in range(50)), encoding="utf-8")
    assert validate(str(file), Settings())[1].too_few is not None
    assert validate(str(file), Settings(**shares))[1].too_few is None  # type: ignore[arg-type]


def test_a_turns_reward_stands_on_the_token_that_ends_it_as_it_says() -> None:
    assert "puts a turn's reward on the token that ends it" in PAGE
    parts = (Turn("a b", by_agent=True, reward=1.0), Turn("c", by_agent=True, reward=2.0))  # one after the other
    sequence = tokenize(Dialogue(parts, ended=True), symbol_tokenizer("abc "))
    assert sequence.rewards[sequence.ends].tolist() == [1.0, 2.0]
    assert sequence.rewards.sum() == 3.0


def test_the_files_it_names_are_there() -> None:
    named = set(re.findall(r"\b((?:ilql|docs|sweeps)/[\w/]+\.(?:py|md))", PAGE))
    assert named == {"ilql/tasks/dialogues/booking.py", "sweeps/dialogue_ablation.py", "docs/adding.md"}
    assert all((ROOT / name).is_file() for name in named)


def test_every_command_that_trains_on_the_file_has_the_same_split() -> None:
    commands = re.findall(r"^python sweeps/dialogue_ablation.py --data (?:.*\\\n)*.*", PAGE, re.MULTILINE)
    assert len(commands) == 5
    for command in commands:
        assert "--set world.train_share=0.6 --set world.tune_share=0.2" in command
