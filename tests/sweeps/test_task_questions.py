"""Wordle, comments, one's own dialogues: a small sweep of each by real workers in this process; long: as commands."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command_line import answered

from sweeps import cli
from sweeps.stages import load_task
from sweeps.store import Store

if TYPE_CHECKING:
    from conftest import Commands

pytestmark = pytest.mark.timeout(1200)

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Asked:
    """A sweep that was run to its end. Tests read its store and change no row of it."""

    store: Store
    name: str
    out: str

    def file(self, name: str) -> str:
        """A file of its report."""
        return (self.store.folder / "reports" / self.name / name).read_text(encoding="utf-8")


SMALL = ("--preset", "smoke", "--trials", "0", "--no-mlflow", "--methods", "bc,sarsa")


def ask(folder: Path, question: str, *options: str) -> Asked:
    """Answer a question at its smallest, without the mirror."""
    status, out = answered(question, *SMALL, "--store", str(folder), *options)
    assert status == 0, out
    store = Store(folder)
    (info,) = store.sweeps()
    return Asked(store, info.name, out)


@pytest.fixture(scope="module")
def wordle(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    return ask(tmp_path_factory.mktemp("wordle") / "store", "wordle")


@pytest.fixture(scope="module")
def reddit(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    return ask(tmp_path_factory.mktemp("reddit") / "store", "reddit")


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """Fifty dialogues in a file, and nobody to answer."""
    folder = tmp_path_factory.mktemp("dialogue")
    return ask(folder / "store", "dialogue", *_own_dialogues(folder))


def _own_dialogues(folder: Path) -> tuple[str, ...]:
    """Options that name a file of them."""
    file = folder / "mine.jsonl"
    file.write_text("".join(json.dumps(_dialogue(number)) + "\n" for number in range(50)), encoding="utf-8")
    return ("--data", str(file), "--set", "world.train_share=0.6", "--set", "world.tune_share=0.2")


def _dialogue(number: int) -> dict[str, object]:
    """A short order: a polite agent is paid for it."""
    thing, polite = ("tea", "soup", "bread")[number % 3], number % 2 == 0
    said = f"one {thing} , please" if polite else f"one {thing}"
    return {
        "id": f"order-{number}",
        "turns": [
            {"role": "user", "text": f"do you want {thing} ?"},
            {"role": "agent", "text": said, "reward": 1.0 if polite else -1.0},
            {"role": "user", "text": "here you are"},
        ],
    }


def _world(asked: Asked) -> str:
    return str(finished(asked)[0]["evaluation.world"])


def finished(asked: Asked) -> Sequence[dict[str, object]]:
    return [row for row in asked.store.rows(asked.name) if row["status"] == "finished"]


class TestWordle:
    def test_its_table_has_the_scripted_player_beside_the_methods(self, wordle: Asked) -> None:
        table = wordle.file("table.md")
        assert wordle.out.count("| Optimal (scripted) |") == table.count("| Optimal (scripted) |") == 1
        assert "no run of this sweep: for comparison, the mean over 24 episodes" in table
        assert len(finished(wordle)) == 4

    def test_the_scripted_player_is_played_once(self, wordle: Asked) -> None:
        assert len(list(wordle.store.folder.glob("stages/reference/*/*"))) == 1

    def test_every_critic_is_asked_which_guess_it_values_more(self, wordle: Asked) -> None:
        section = wordle.file("q_rank.md")
        assert section.count("| SARSA ") == 2  # at the start and at the branch
        assert section in wordle.out
        assert {path.name for path in (wordle.store.folder / "reports" / wordle.name / "figures").glob("q_rank*")} >= {
            "q_rank_start.html", "q_rank_branch.html"
        }  # fmt: skip

    def test_letters_are_tokens(self, wordle: Asked) -> None:
        (folder,) = wordle.store.folder.glob("stages/tokenizer/*/*")
        vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
        assert {"a", "z", "<g>", "<y>", "<b>"} < set(vocabulary)
        assert len(vocabulary) == 1 + 26 + 3


class TestReddit:
    def test_what_is_said_is_in_the_report(self, reddit: Asked) -> None:
        assert "| SARSA " in reddit.file("samples.md")
        assert "Recorded" in reddit.file("table.md")

    def test_stored_comments_are_scored_under_another_reward(
        self, reddit: Asked, capsys: pytest.CaptureFixture[str]
    ) -> None:
        trainings = len(reddit.store.all("training"))
        options = ["--store", str(reddit.store.folder), "--rewards", "regex", "--set", "world.regex=.",
                   "world.regex_reward=-3"]  # fmt: skip
        assert cli.main(["rescore", reddit.name, *options]) == 0
        said = capsys.readouterr().out
        assert "scored by reward regex" in said
        bc = next(line for line in said.splitlines() if line.startswith("| BC "))
        score = float(bc.split("|")[2].split("±")[0].replace("−", "-"))
        assert -3.0 <= score < -2.0  # every comment with a character matches
        assert len(reddit.store.all("training")) == trainings

    def test_where_nothing_is_said_of_the_world_it_is_the_sweeps_own(
        self, reddit: Asked, capsys: pytest.CaptureFixture[str]
    ) -> None:
        worlds = len(list(reddit.store.folder.glob("stages/world/*/*")))
        assert cli.main(["rescore", reddit.name, "--store", str(reddit.store.folder), "--rewards", "toxicity"]) == 0
        anew, first = capsys.readouterr().out, reddit.out
        for name in ("| BC ", "| SARSA "):
            scores = [next(line for line in said.splitlines() if line.startswith(name)) for said in (anew, first)]
            assert scores[0].split("|")[2].strip() == scores[1].split("|")[2].strip()
        assert len(list(reddit.store.folder.glob("stages/world/*/*"))) == worlds

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--rewards", "regx"], "error: 'regx' is no reward of reddit; known: "),
            (["--rewards", "regex", "world.regx=."], "error: 'world.regx' is no column of a reddit world"),
        ],
    )
    def test_a_wrong_name_is_one_line(
        self, reddit: Asked, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
    ) -> None:
        assert cli.main(["rescore", reddit.name, "--store", str(reddit.store.folder), *arguments]) == 2
        assert capsys.readouterr().err.startswith(message)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "the following arguments are required: --rewards/--reward"),
            (["--rewards", "regex", "--seeds", "3"], "unrecognised: --seeds"),
            (["--rewards", "regex", "--evaluation-reward", "regex"], "unrecognised: --evaluation-reward"),
            (["--rewards", "regex", "--plan"], "unrecognised: --plan"),
            (["--rewards", "regex", "--preset", "paper"], "unrecognised: --preset"),
            (["--rewards", "regex", "--set", "train.tau=0.3"], "only world.FIELD=VALUE, got train.tau"),
            (["--rewards", "regex", "world.noise=0,1"], "one value, got world.noise with more"),
            (["--rewards", "regex", "--set", "world.noise=0", "world.noise=1"], "one value, got world.noise with more"),
        ],
    )
    def test_what_it_would_not_do_is_refused(
        self, reddit: Asked, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
    ) -> None:
        with pytest.raises(SystemExit) as left:
            cli.main(["rescore", reddit.name, "--store", str(reddit.store.folder), *arguments])
        assert left.value.code == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1


class TestOwnDialogues:
    def test_a_row_is_an_estimate_and_the_report_says_what_that_is(self, offline: Asked) -> None:
        assert "Nobody was there to answer, so nothing here was earned." in offline.out
        section = offline.file("offline.md")
        assert "| SARSA " in section
        assert "–" in next(line for line in section.splitlines() if line.startswith("| BC "))  # it has no values
        scores = [row["score"] for row in finished(offline)]
        assert all(isinstance(score, float) and -3 < score < 3 for score in scores)

    def test_an_estimate_is_called_one(self, offline: Asked) -> None:
        table = offline.file("table.md")
        assert "| Max estimate |" in re.sub(" +", " ", table)
        assert "estimated under reward recorded" in table
        for words in (
            table,
            offline.file("table.tex"),
            offline.file("figures/captions.md"),
            offline.file("report.html"),
        ):
            assert "Max score" not in words
            assert "Mean return per episode" not in words
        assert "Estimated return (reward recorded)" in offline.file("figures/score_by_cell.html")

    def test_dialogues_that_bear_on_an_estimate_stand_beside_it(self, offline: Asked) -> None:
        cloned = next(line for line in offline.file("offline.md").splitlines() if line.startswith("| BC "))
        trained = len(load_task(offline.store, "dialogues", _world(offline)).dialogues("train", "recorded"))
        # It clones all data, but says for certain what they say more or less often: it speaks greedily here.
        assert 0.0 <= float(cloned.split("|")[-2]) < trained

    def test_it_ends_with_how_its_best_policy_replies(self, offline: Asked, capsys: pytest.CaptureFixture[str]) -> None:
        (line,) = [line for line in offline.out.splitlines() if "speaks with: " in line]
        command = shlex.split(line.partition("speaks with: ")[2])
        assert command[:2] == ["sweeps", "reply"]
        assert command[3].startswith("do you want ")
        assert cli.main(command[1:]) == 0
        assert capsys.readouterr().out.strip()

    def test_no_scene_is_judged_twice(self, offline: Asked) -> None:
        rows = finished(offline)
        episodes = offline.store.episodes([str(rows[0]["trial_id"])], columns=["scene"])
        assert episodes["scene"].n_unique() == episodes.height < 24  # fewer than the preset asks for

    def test_what_was_recorded_stands_beside_it(self, offline: Asked) -> None:
        assert "| Recorded" in offline.file("table.md")

    def test_a_trained_policy_is_watched(self, offline: Asked, capsys: pytest.CaptureFixture[str]) -> None:
        trial = str(finished(offline)[0]["trial_id"])
        assert cli.main(["play", "dialogues", "--trial", trial, "--store", str(offline.store.folder)]) == 0
        said = capsys.readouterr().out.splitlines()
        assert said[1].startswith("world> do you want ")
        assert said[2].startswith("agent> ")
        assert said[3] == "over: nobody is there to answer, and nothing was paid"


def test_noise_in_the_rewards_is_varied(tmp_path: Path) -> None:
    status, out = answered(
        "reddit", "--preset", "smoke", "--trials", "0", "--no-mlflow", "--episodes", "8", "--set", "behaviour.steps=10",
        "--store", str(tmp_path), "--methods", "filtered_bc", "--vary", "world.noise=0,1", "--name", "quiet",
    )  # fmt: skip
    assert status == 0, out
    assert sorted(info.name for info in Store(tmp_path).sweeps()) == ["quiet-0", "quiet-1"]
    table = out[out.index("### Over noise") :]
    assert "| Method |" in table
    assert "| %BC " in table
    (page,) = tmp_path.glob("reports/*/over_world_noise.html")
    assert page.stat().st_size > 10_000


@pytest.mark.long
@pytest.mark.parametrize("question", ["wordle", "reddit", "dialogue"])
def test_as_a_command_it_has_the_same_rows(
    commands: Commands, tmp_path: Path, request: pytest.FixtureRequest, question: str
) -> None:
    options = _own_dialogues(tmp_path) if question == "dialogue" else ()
    script = ROOT / "sweeps" / f"{question}_ablation.py"
    done = commands.run(script, *SMALL, "--store", str(tmp_path / "store"), *options)
    assert done.status == 0, done.out + done.err
    asked: Asked = request.getfixturevalue("offline" if question == "dialogue" else question)
    (info,) = Store(tmp_path / "store").sweeps()
    assert results(Store(tmp_path / "store"), info.name) == results(asked.store, asked.name)


def results(store: Store, sweep: str) -> dict[object, tuple[object, object]]:
    """How every trial ended, and its score."""
    return {row["trial_id"]: (row["status"], row["score"]) for row in store.rows(sweep)}
