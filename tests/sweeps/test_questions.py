"""Questions: what their presets, plans and columns say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command_line import ask, contents, one_line

from sweeps import cli, questions

if TYPE_CHECKING:
    from conftest import BanditSweep

pytestmark = pytest.mark.timeout(1200)

ROOT = Path(__file__).resolve().parents[2]


def test_plan_prints_and_does_nothing(copied: BanditSweep, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(copied.store.folder)
    assert cli.main(["plan", "bandit", "--preset", "smoke", "--seeds", "2", "--store", str(copied.store.folder)]) == 0
    out = capsys.readouterr().out
    assert "11 cells need 10 trainings and 44 evaluations; 5 and 22 are in the store" in out
    assert "the design takes about " in out
    assert contents(copied.store.folder) == before


def test_show_prints_the_preset_as_it_would_be_used(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options = ("--set", "train.steps=77", "--set", "behaviour.steps=5", "--seeds", "4", "--store", str(tmp_path / "no"))
    assert ask("--show", *options) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["base"]["train.steps"], shown["behaviour"]["steps"], shown["seeds"]) == (77, 5, 4)
    assert not (tmp_path / "no").exists()


def test_show_prints_the_design_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("train.tau=0.6,0.8", "sarsa.decode.beta=3", "--set", "train.keep=0.5", "--methods", "all")
    assert ask("--show", *asked) == 0
    plainly = json.loads(capsys.readouterr().out)["design"]
    betas = plainly["ilql"].pop("decode.beta")
    assert len(betas) > 1
    assert plainly == {
        "bc": {}, "filtered_bc": {"train.keep": [0.5]}, "ilql": {"train.tau": [0.6, 0.8]},
        "sarsa": {"decode.beta": [3]},
    }  # fmt: skip
    assert ask("--show", "--vary", "world.dialogues=4,8", "--methods", "ilql", "decode.beta=1,inf") == 0
    shown = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)  # Infinity is no JSON
    assert (shown["design"]["ilql"]["decode.beta"], shown["vary"]) == ([1, "inf"], {"world.dialogues": [4, 8]})


def test_a_design_that_cannot_be_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert ask("--show", "train.tau=0.6,7") == 2
    assert one_line(capsys) == "error: train.tau must be in (0, 1), got 7.0"


def test_who_does_not_take_a_column_that_is_set_is_said(
    copied: BanditSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--plan", "--methods", "bc,ilql", "--set", "train.weight_decay=0.5", "--set", "train.polyak=0.5")
    assert ask("--store", str(copied.store.folder), *asked) == 0
    said = capsys.readouterr().out.splitlines()
    line = "train.weight_decay is the behaviour policy's for bc: --set behaviour.weight_decay sets it there"
    assert said.count(line) == 1
    assert not any("polyak is" in each for each in said)  # cloning has none


def test_recorded_dialogues_have_sizes_of_their_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shown = {}
    for name, more in (
        ("without", ()),
        ("with", ("--data", "any")),
        ("set", ("--data", "any", "--set", "train.steps=7")),
    ):
        assert cli.main(["run", "visdial", "--preset", "laptop", "--show", "--store", str(tmp_path / "no"), *more]) == 0
        preset = json.loads(capsys.readouterr().out)
        shown[name] = preset["vocabulary"], preset["base"]["train.steps"]
    assert shown == {"without": (512, 400), "with": (2048, 400), "set": (2048, 7)}


def test_settings_of_the_world_are_columns_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    sizes = []
    for number, said in enumerate(([], ["--set", "world.dialogues=8"])):
        store = tmp_path / str(number)
        assert ask("--plan", "--store", str(store), *said) == 0
        (about,) = store.glob("stages/world/*/*/about.json")
        sizes.append(json.loads(about.read_text(encoding="utf-8"))["about"]["settings"]["dialogues"])
    capsys.readouterr()
    assert sizes == [64, 8]


def test_every_ablation_of_the_folder_is_a_question() -> None:
    files = {path.name.removesuffix("_ablation.py") for path in (ROOT / "sweeps").glob("*_ablation.py")}
    assert (
        set(questions.question_names()) == files >= {"bandit", "visdial", "component", "wordle", "reddit", "dialogue"}
    )


def test_the_pages_say_which_methods_a_question_has() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "your_dialogues.md").read_text(encoding="utf-8")
    arms = {name: questions.question_named(name).arms for name in questions.question_names()}
    four = ["bc", "filtered_bc", "sarsa", "ilql"]
    assert "`wordle`, `reddit` and `bandit` are `bc`, `filtered_bc`, `sarsa`, `ilql`;" in readme
    assert sorted(name for name in arms if sorted(arms[name]) == sorted(four)) == ["bandit", "reddit", "wordle"]
    assert "runs `bc`, `filtered_bc`, `sarsa` and `ilql`" in page
    assert questions.question_named("dialogue").main == tuple(four)
    assert arms["dialogue"] == arms["visdial"]
    (rows,) = re.findall(r"^\| method \|.*\n((?:\|.*\n)+)", page, re.MULTILINE)
    of_page = re.findall(r"`(\w+)`", " ".join(row.split("|")[1] for row in rows.splitlines()))
    assert sorted(of_page) == sorted(set(arms["dialogue"]) - set(four))
    listed = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", readme, re.MULTILINE))))
    assert set(arms["visdial"]) <= listed
    assert len(questions.question_named("visdial").main) == 8


class TestDialogueRemarks:
    """What is said where a grid may not suit the scale of one's own returns."""

    def said(self, *returns: float, arms: tuple[str, ...]) -> list[str]:
        question = questions.question_named("dialogue")
        design = [training for arm in arms for training in question.grid(arm).trainings({})]
        return list(question.remarks(design, returns))

    def test_what_a_decision_transformer_is_asked_for_is_said_beside_what_there_was(self) -> None:
        (line,) = self.said(-1.0, 0.5, arms=("bc", "decision_transformer"))
        assert line.startswith("decision_transformer is asked for a return of 0, 2, 4, and dialogues return -1 to 0.5;")

    @pytest.mark.parametrize(("returns", "lines"), [((-3.0, 0.0), 0), ((-3.0, 0.5), 1), ((-31.0, -1.0), 1)])
    def test_returns_outside_of_qsfts_range_are_said(self, returns: tuple[float, ...], lines: int) -> None:
        assert len(self.said(*returns, arms=("qsft",))) == lines

    def test_of_the_others_nothing_is_said(self) -> None:
        assert self.said(-100.0, 100.0, arms=("bc", "ilql", "cql", "chai")) == []
