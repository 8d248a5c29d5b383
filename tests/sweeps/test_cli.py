"""The `sweeps` command and what it says to bad input: one line on stderr, status 2, nothing stored is touched."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cluster.nodes import Node
from cluster.shapes import Machine
from ilql.task import TaskFault
from sweeps import bandit_ablation, cli, guard, questions
from sweeps.commands import known_commands
from sweeps.commands.run import run_command
from sweeps.references import score_range
from sweeps.store import Store

if TYPE_CHECKING:
    from conftest import BanditSweep, Commands

pytestmark = pytest.mark.timeout(1200)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def copied(bandit_sweep: BanditSweep, tmp_path: Path) -> BanditSweep:
    """The finished sweep's store, to change."""
    folder = tmp_path / "store"
    shutil.copytree(bandit_sweep.store.folder, folder, ignore=shutil.ignore_patterns("tune", "mlflow*"))
    return type(bandit_sweep)(Store(folder), bandit_sweep.name, bandit_sweep.out)


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The only line that was said on stderr."""
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert err.endswith("\n")
    assert "Traceback" not in err
    return err.rstrip("\n")


def ask(*arguments: str) -> int:
    """Run the bandit's question in this process; wrong input never gets as far as Ray."""
    options = ["--preset", "smoke", *arguments]
    return status_of(lambda: run_command(bandit_ablation.QUESTION, "sweeps/bandit_ablation.py", options))


def status_of(run: Callable[[], int]) -> int:
    """The exit status, whether it is returned or left with."""
    try:
        return run()
    except SystemExit as left:
        return int(str(left.code))


# Looking at a store


def test_list_names_the_sweeps(bandit_sweep: BanditSweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "--store", str(bandit_sweep.store.folder)]) == 0
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if f"  {bandit_sweep.name} " in line]
    assert "14 of 17 evaluations, 0 failed" in line
    assert "(bc, filtered_bc, ilql, sarsa)" in line


def test_programs_read_json(bandit_sweep: BanditSweep, capsys: pytest.CaptureFixture[str]) -> None:
    store, found = str(bandit_sweep.store.folder), dict[str, Any]()
    for command in ("list", "status", "doctor"):
        cli.main([command, "--json", "--store", store])
        found[command] = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    (listed,) = found["list"]["sweeps"]
    assert (listed["name"], listed["wanted"], listed["done"]) == (bandit_sweep.name, 17, 14)
    assert found["list"]["store"] == found["status"]["store"] == found["doctor"]["store"] == store
    assert found["doctor"]["problems"] == []
    rows = {row["trial_id"]: row for row in found["status"]["rows"]}
    assert len(rows) == 17
    for row in bandit_sweep.store.rows(bandit_sweep.name):
        assert rows[row["trial_id"]].get("score") == row.get("score")
    assert any(
        value == "inf" for row in rows.values() for value in row.values()
    )  # decode's, which JSON has no word for


def test_watching_ends_when_all_is_done(bandit_sweep: BanditSweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--watch", "0.1", "--store", str(bandit_sweep.store.folder)]) == 0
    assert capsys.readouterr().out.count("evaluations done") == 1


def test_watching_goes_on_until_then(
    copied: BanditSweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = next(row for row in copied.store.rows(copied.name) if row["status"] == "finished")
    record = copied.store.get("evaluation", row["trial_id"])
    assert record is not None
    copied.store.remove("evaluation", row["trial_id"])
    monkeypatch.setattr(
        "sweeps.commands.status.time.sleep", lambda seconds: copied.store.put("evaluation", row["trial_id"], record)
    )
    assert cli.main(["status", copied.name, "--watch", "5", "--store", str(copied.store.folder)]) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if "evaluations done" in line] == [
        f"{copied.name}: {done} of 17 evaluations done, 0 failed" for done in (13, 14)
    ]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "tcsh"])
def test_shells_are_told_of_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert [name for name in known_commands() if name not in script] == []
    assert "quick" in script or shell == "tcsh"  # which completes words, and no options of theirs


def test_bash_completes_a_command() -> None:
    words = 'COMP_WORDS=(sweeps doc) COMP_CWORD=1; _shtab_sweeps 2>/dev/null; echo "${COMPREPLY[@]}"'
    script = f'eval "$({sys.executable} -c "from sweeps.cli import main; main()" completion bash)"; {words}'
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["doctor"]


def test_the_store_is_found_by_its_variable(
    bandit_sweep: BanditSweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEPS_STORE", str(bandit_sweep.store.folder))
    assert cli.main(["list"]) == 0
    assert bandit_sweep.name in capsys.readouterr().out


def test_status_has_a_line_for_every_row(bandit_sweep: BanditSweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", bandit_sweep.name, "--store", str(bandit_sweep.store.folder)]) == 0
    first, header, *lines = capsys.readouterr().out.splitlines()
    assert first == f"{bandit_sweep.name}: 14 of 17 evaluations done, 0 failed"
    assert header.split() == ["trial", "method", "seed", "status", "score", "settings", "reason"]
    rows = bandit_sweep.store.rows(bandit_sweep.name)
    assert len(lines) == len(rows) == 17
    for row in rows:
        (line,) = [line for line in lines if row["trial_id"] in line]
        assert row["status"] in line
        assert (row["reason"] or "") in line
        if row["arm"] == "ilql":  # the design varies both, and nothing else of it
            assert re.search(r"  τ [\d.]+, β \d+(  |$)", line)
        if row["arm"] == "bc":
            assert line.endswith(f"{row['score']:.3f}")


def test_a_sweep_ends_with_how_its_best_policy_speaks(bandit_sweep: BanditSweep) -> None:
    best = max((row for row in bandit_sweep.store.rows() if row["status"] == "finished"), key=lambda row: row["score"])
    (line,) = [line for line in bandit_sweep.out.splitlines() if "speaks with: " in line]
    command = line.partition("speaks with: ")[2].split()
    assert command[:4] == ["sweeps", "play", "bandit", "--trial"]
    assert best["trial_id"].startswith(command[4])
    assert command[5:] == ["--store", str(bandit_sweep.store.folder)]
    assert cli.main(command[1:]) == 0


def test_report_writes_the_same_table_again(copied: BanditSweep, capsys: pytest.CaptureFixture[str]) -> None:
    table = copied.store.folder / "reports" / copied.name / "table.md"
    before = table.read_text(encoding="utf-8")
    table.unlink()
    assert cli.main(["report", copied.name, "--store", str(copied.store.folder)]) == 0
    assert table.read_text(encoding="utf-8") == before
    assert "Ablation on bandit" in capsys.readouterr().out


def test_a_report_may_be_written_elsewhere_with_all_that_was_said(
    bandit_sweep: BanditSweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "paper" / "report"
    assert cli.main(["report", str(bandit_sweep.store.folder), "-o", str(out), "--transcripts"]) == 0
    own = bandit_sweep.store.folder / "reports" / bandit_sweep.name
    there, here = ({path.relative_to(place) for path in place.rglob("*")} for place in (out, own))
    assert here <= there
    more = {path for path in there - here if path.suffix not in (".png", ".pdf")}  # a run ends with SVG alone
    assert more == {Path("transcripts.parquet")}
    # The page differs in its links to what a run does not write.
    for name in ("table.md", "table.tex", "table.csv", "table.json", "transcripts.html"):
        assert (out / name).read_bytes() == (own / name).read_bytes()
    assert str(out / "transcripts.parquet") in capsys.readouterr().out
    assert cli.main(["report", str(bandit_sweep.store.folder), "-o", str(out / "table.md")]) == 2
    assert "-o must name a folder" in one_line(capsys)


def test_a_report_counts_as_the_paper_where_it_is_asked_to(bandit_sweep: BanditSweep, tmp_path: Path) -> None:
    store = str(bandit_sweep.store.folder)
    assert cli.main(["report", store, "-o", str(tmp_path), "--style", "paper", "--failed", "floor"]) == 0
    whole = json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))
    own = json.loads((bandit_sweep.store.folder / "reports" / bandit_sweep.name / "table.json").read_text("utf-8"))
    assert (own["style"], whole["style"]) == ("honest", "paper")
    cells = [{row["method"]: row["design_cells"] for row in table["rows"]} for table in (own, whole)]
    assert cells[1]["ilql"] == cells[0]["ilql"] + cells[0]["sarsa"]


def test_the_range_of_scores_is_the_tasks(bandit_sweep: BanditSweep) -> None:
    assert score_range(bandit_sweep.store, bandit_sweep.name) == (0.0, 1.0)  # the bad arm and the good one
    with pytest.raises(ValueError, match="must have trials"):
        score_range(bandit_sweep.store, "no such sweep")


@pytest.mark.parametrize("option", [["--style", "paper"], ["--failed", "worst"], ["--transcripts"]])
def test_what_one_sweeps_report_can_have_is_refused_of_several(
    bandit_sweep: BanditSweep, capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    name = bandit_sweep.name
    assert cli.main(["report", name, name, *option, "--store", str(bandit_sweep.store.folder)]) == 2
    assert f"{option[0]} must be of one sweep, got 2" in one_line(capsys)


def test_a_removed_sweep_is_gone_and_its_results_stay(copied: BanditSweep, capsys: pytest.CaptureFixture[str]) -> None:
    stages = list((copied.store.folder / "stages").glob("*/*/*"))
    evaluations = len(copied.store.all("evaluation"))
    assert cli.main(["remove", copied.name, "--store", str(copied.store.folder)]) == 0
    assert "with 17 rows" in capsys.readouterr().out
    assert copied.store.sweeps() == []
    assert len(copied.store.all("evaluation")) == evaluations
    assert list((copied.store.folder / "stages").glob("*/*/*")) == stages
    assert cli.main(["remove", copied.name, "--store", str(copied.store.folder)]) == 2
    assert f"'{copied.name}' is no sweep of this store" in one_line(capsys)


def test_reply_lets_a_policy_speak(bandit_sweep: BanditSweep, capsys: pytest.CaptureFixture[str]) -> None:
    rows = bandit_sweep.store.rows(bandit_sweep.name)
    trial = next(row["trial_id"] for row in rows if row["method"] == "filtered_bc")
    assert cli.main(["reply", trial, "pull", "--store", str(bandit_sweep.store.folder)]) == 0
    assert capsys.readouterr().out == "b\n"


def test_advantages_show_recorded_dialogues_as_a_trials_values_see_them(
    bandit_sweep: BanditSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = bandit_sweep.store.rows(bandit_sweep.name)
    trial = next(row["trial_id"] for row in rows if row["method"] == "sarsa" and row["status"] == "finished")
    assert cli.main(["advantages", trial[:12], "--dialogues", "8", "--store", str(bandit_sweep.store.folder)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("a ")
    good, bad = (next(line for line in said.splitlines() if line.startswith(f"| {arm} ")) for arm in "ba")
    assert float(good.split("|")[2].replace("−", "-")) > 0 > float(bad.split("|")[2].replace("−", "-"))
    assert good.split("|")[3].strip() == "4"


def test_a_method_without_values_has_no_advantages(
    bandit_sweep: BanditSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = next(row["trial_id"] for row in bandit_sweep.store.rows(bandit_sweep.name) if row["method"] == "bc")
    assert cli.main(["advantages", trial, "--store", str(bandit_sweep.store.folder)]) == 2
    assert one_line(capsys).startswith("error: advantages need a method with values for tokens (")


def test_a_person_plays_an_episode(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("builtins.input", lambda prompt: "b")
    assert cli.main(["play", "bandit", "--seed", "3", "--split", "tune", "--store", str(tmp_path)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "building the world of bandit",
        "bandit, tune scenes, episode 3 (pull-3); at most 1 turn; Ctrl-C leaves",
        "world> pull",
        "  standard +1",
        "over: standard +1",
    ]


def test_an_empty_line_is_asked_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    typed = iter(["", "  ", "b"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    assert cli.main(["play", "bandit", "--store", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == ["world> pull", "  standard +1", "over: standard +1"]


@pytest.mark.parametrize("left", [EOFError, KeyboardInterrupt])
def test_a_person_may_leave(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, left: type[BaseException]
) -> None:
    def gone(prompt: str) -> str:
        raise left

    monkeypatch.setattr("builtins.input", gone)
    assert cli.main(["play", "bandit", "--store", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "left: standard +0 so far"


def test_ctrl_c_leaves_without_enter(commands: Commands, tmp_path: Path) -> None:
    command = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from sweeps.cli import main; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-c", command, "play", "bandit", "--store", str(tmp_path / "store")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=commands.environment,
        # What a shell starts in the background ignores Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    ) as process:
        assert process.stdout is not None
        said = b""
        while not said.endswith(b"agent> "):
            said += os.read(process.stdout.fileno(), 4096)
        time.sleep(1.0)  # a signal between the prompt and the reading would not be noticed, and no person is so fast
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(timeout=60) == 0  # nobody has typed anything
        finally:
            process.kill()
        assert process.stdout.read().decode().splitlines() == ["", "left: standard +0 so far"]


def test_every_file_of_the_folder_is_the_command_of_its_name_and_the_page_names_it() -> None:
    files = {path.stem.rstrip("_") for path in (ROOT / "sweeps" / "commands").glob("[!_]*.py")}
    assert set(known_commands()) == files
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in files if f"sweeps {name} " not in readme] == []


@pytest.mark.parametrize("command", [["play"], ["run"], ["plan"], ["rescore"], ["play", "dialogues"]])
def test_help_is_there_with_and_without_what_it_depends_on(
    capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    assert status_of(lambda: cli.main([*command, "--help"])) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: sweeps {' '.join(command)} ")
    if command[0] == "play":
        assert "--trial TRIAL" in said
        assert "--seed SEED" in said
        assert "--methods" not in said
    assert ("--environment FILE" in said) == (command == ["play", "dialogues"])


def test_a_reader_who_has_gone_is_no_fault(commands: Commands, bandit_sweep: BanditSweep) -> None:
    read, write = os.pipe()
    os.close(read)
    command = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from sweeps.cli import main; sys.exit(main())"
    arguments = ["status", bandit_sweep.name, "--store", str(bandit_sweep.store.folder)]
    done = subprocess.run(
        [sys.executable, "-c", command, *arguments],
        stdout=write,
        stderr=subprocess.PIPE,
        env=commands.environment,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (guard.PIPE_CLOSED, b"")


def test_a_connection_that_breaks_is_one(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise BrokenPipeError("the cluster has gone")

    assert guard.guarded(fail) == 2
    assert capfd.readouterr().err == "error: the cluster has gone\n"


def test_a_policy_is_watched(bandit_sweep: BanditSweep, capsys: pytest.CaptureFixture[str]) -> None:
    rows = bandit_sweep.store.rows(bandit_sweep.name)
    trial = next(row["trial_id"] for row in rows if row["method"] == "filtered_bc")
    assert cli.main(["play", "bandit", "--trial", trial, "--store", str(bandit_sweep.store.folder)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"filtered_bc {trial[:8]} on bandit, report scenes, episode 0 (pull-0)"
    assert said[1:] == ["world> pull", "agent> b", "over: standard +1"]


def test_a_file_of_dialogues_is_validated(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    line = {"turns": [{"role": "buyer", "text": "hello"}, {"role": "agent", "text": "hello", "reward": 1}]}
    file.write_text(json.dumps(line) + "\n", encoding="utf-8")
    assert cli.main(["validate", str(file)]) == 2
    assert "line 1" in capsys.readouterr().out
    assert cli.main(["validate", str(file), "--set", "world.world_roles=buyer"]) == 2
    assert "there must be at least 3 different dialogues" in capsys.readouterr().out
    more = [{**line, "id": str(number)} for number in range(3)]
    file.write_text("".join(json.dumps(each) + "\n" for each in more), encoding="utf-8")
    assert cli.main(["validate", str(file), "--set", "world.world_roles=buyer"]) == 0
    assert cli.main(["validate", str(file), "--set", "world.world_rules=buyer"]) == 2
    assert one_line(capsys).startswith("error: 'world.world_rules' is no column of a dialogues world; known: world.")


def test_bad_lines_that_are_skipped_are_told_and_no_fault(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    good = [{"id": str(n), "turns": [{"role": "agent", "text": "hello", "reward": n}]} for n in range(3)]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in [*good, {}]), encoding="utf-8")
    assert cli.main(["validate", str(file)]) == 2
    capsys.readouterr()
    assert cli.main(["validate", str(file), "--set", "world.skip_bad_lines=true"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("line 4: a line must have the key 'turns'")
    assert said[1].startswith("3 dialogues on 4 lines, and 1 line with problems, not counted")
    file.write_text("".join(json.dumps(each) + "\n" for each in [*good[:2], {}]), encoding="utf-8")
    assert cli.main(["validate", str(file), "--set", "world.skip_bad_lines=true"]) == 2  # two are no three splits


def test_doctor_finds_nothing_in_a_sound_store(bandit_sweep: BanditSweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--store", str(bandit_sweep.store.folder)]) == 0
    assert capsys.readouterr().out.rstrip().endswith("0 problems")


def test_doctor_finds_a_damaged_journal(copied: BanditSweep, capsys: pytest.CaptureFixture[str]) -> None:
    word = b'"status":"finished"'
    journal = next(path for path in (copied.store.folder / "journals").iterdir() if word in path.read_bytes())
    journal.write_bytes(journal.read_bytes().replace(word, b'"status":"finishde"', 1))
    assert cli.main(["doctor", "--store", str(copied.store.folder)]) == 1
    assert f"journal {journal.name}: 1 damaged lines left out" in capsys.readouterr().out


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
    assert "`wordle`, `reddit`, `dialogue` and `bandit` are `bc`, `filtered_bc`, `sarsa`, `ilql`;" in readme
    assert "`bc`, `filtered_bc`, `sarsa` and `ilql`, and `--methods` chooses among those" in page
    assert sorted(name for name in arms if sorted(arms[name]) == sorted(four)) == [
        "bandit", "dialogue", "reddit", "wordle"
    ]  # fmt: skip
    listed = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", readme, re.MULTILINE))))
    assert set(arms["visdial"]) <= listed
    assert len(questions.question_named("visdial").main) == 8


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "iqll"), "error: 'iqll' is no method of a bandit sweep; known: ilql, "),
        (("--refine", "iqll"), "error: 'iqll' is no method of a bandit sweep; known: ilql, "),
        (("--refine", "sarsa", "--methods", "ilql"), "error: --refine must name arms that are run, got 'sarsa'; "),
        (("--refine", "bc"), "error: a method that is refined must declare where to search, 'bc' declares nothing"),
        (
            ("--trials", "4", "--methods", "bc"),
            "error: proposals must have a method to search, got bc; --refine ",
        ),
        (("--refine", "all", "--methods", "bc"), "error: proposals must have a method to search, got bc; --refine "),
        (
            ("--convention", "trlx", "--methods", "bc"),
            "error: --convention is about ilql, sarsa, mc_returns, cql, got",
        ),
        (("--convention", "trxl"), "error: 'trxl' is no convention; known: trlx, "),
        (("--rewards", "standard,yn"), "error: 'yn' is no reward of bandit; known: standard"),
        (("--reward", "stndard"), "error: 'stndard' is no reward of bandit; known: standard"),
        (("--evaluation-reward", "yn"), "error: 'yn' is no reward of bandit; known: standard"),
        (
            ("--set", "world.dialogue=8"),
            "error: 'world.dialogue' is no column of a bandit world; known: world.dialogues",
        ),
        (("--set", "world.dialogues=0"), "error: world.dialogues must be at least 1, got 0"),
        (("--set", "train.tua=0.5"), "error: 'train.tua' is no column of a bandit sweep; known: train.tau, "),
        (("--set", "evaluation.split=tune"), "error: 'evaluation.split' is no column of a bandit sweep; known: "),
        (("--set", "train.tau=0.5"), "error: --set may not fix a column that the design varies, got train.tau"),
        (("--set", "train.steps=0"), "error: train.steps must be at least 1, got 0"),
        (("--set", "train.steps=many"), "error: train.steps must be int, got 'many'"),
        (("--set", "train.gamma=1.5"), "error: train.gamma must be in [0, 1], got 1.5"),
        (("--set", "behaviour.steps=0"), "error: behaviour.steps must be at least 1, got 0"),
        (("--set", "behaviour.stps=1"), "error: 'behaviour.stps' is no column of a bandit sweep; known: behaviour.s"),
        (("--set", "decode.top_p=2"), "error: decode.top_p must be in "),
        (("--data", "/no/such/folder"), "error: a bandit has one world and reads no data, got --data"),
        (("--world", "recorded"), "error: a bandit has one world and reads no data, got --world recorded"),
        (("--model", "/no/such/model"), "error: --model must be a folder or a name on the Hugging Face hub, got "),
        (("--preset", "smok"), "error: 'smok' is no preset; known: smoke, laptop"),
        (("--seeds", "0"), "sweeps/bandit_ablation.py: argument --seeds: must be a whole number of at least 1"),
        (
            ("--model", "nosuch_dir"),
            "error: --model must be a folder or a name on the Hugging Face hub, got 'nosuch_dir', which is neither a "
            "folder here nor reachable on the hub",
        ),
        (("--nosuch",), "sweeps/bandit_ablation.py: unrecognised: --nosuch; --help lists the options"),
        (("--sett", "train.steps=5"), "sweeps/bandit_ablation.py: unrecognised: --sett; the nearest is --set; --help"),
    ],
)
def test_a_wrong_question_is_one_line_and_touches_nothing(
    copied: BanditSweep, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    before = contents(copied.store.folder)
    assert ask("--store", str(copied.store.folder), *arguments) == 2
    assert one_line(capsys).startswith(message)
    assert contents(copied.store.folder) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("play", "bandti"), "error: 'bandti' is no task; known: bandit, "),
        (("play", "visdial", "--trial", "z"), "error: 'z' is no trial of the store "),
        (("run", "bandti"), "error: 'bandti' is no question; known: bandit, "),
        (("plan", "nosuch"), "error: 'nosuch' is no question; known: "),
        (("status", "nosuch"), "error: 'nosuch' is no sweep of this store; known: bandit-smoke"),
        (("report", "nosuch"), "error: 'nosuch' is no sweep of this store; known: bandit-smoke"),
        (("remove", "nosuch"), "error: 'nosuch' is no sweep of this store; known: bandit-smoke"),
        (("reply", "zzzz", "pull"), "error: 'zzzz' is no trial of the store "),
        (("frobnicate",), "sweeps: argument command: invalid choice: 'frobnicate'"),
        ((), "sweeps: the following arguments are required: command"),
        (("list", "--nosuch", "value"), "sweeps list: unrecognised: --nosuch; --help lists the options"),
        (("validate", "f", "--sett", "x=1"), "sweeps validate: unrecognised: --sett; the nearest is --set; --help"),
        (
            ("play", "bandit", "--methods", "bc"),
            "sweeps play bandit: unrecognised: --methods; --help lists the options",
        ),
        (("play",), "sweeps play: the following arguments are required: task"),
        (("remove",), "sweeps remove: the following arguments are required: sweep"),
    ],
)
def test_a_wrong_command_is_one_line_and_touches_nothing(
    copied: BanditSweep,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.setenv("SWEEPS_STORE", str(copied.store.folder))
    before = contents(copied.store.folder)
    assert status_of(lambda: cli.main(list(arguments))) == 2
    assert one_line(capsys).startswith(message)
    assert contents(copied.store.folder) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "/no/such/folder"), "/no/such/folder"),
        (("--reward", "yno"), "error: 'yno' is no reward of visdial; known: yn, "),
        (("--world", "generted"), "generted"),
        (("--methods", "sarsaa"), "error: 'sarsaa' is no method of a visdial sweep; known: sarsa, "),
        (("--methods", "qsftt,bc"), "error: 'qsftt' is no method of a visdial sweep; known: qsft, "),
        (("--refine", "cql", "--methods", "bc"), "error: --refine must name arms that are run, got 'cql'; "),
        (("--refine", "bc"), "error: a method that is refined must declare where to search, 'bc' declares nothing"),
        (("--rewards", "yn,yno"), "error: 'yno' is no reward of visdial; known: yn, "),
        (("--set", "train.polyack=1"), "error: 'train.polyack' is no column of a visdial sweep; known: train.polyak, "),
    ],
)
def test_a_wrong_question_about_visual_dialogue_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    store = str(tmp_path / "store")
    assert status_of(lambda: cli.main(["run", "visdial", "--preset", "smoke", "--store", store, *arguments])) == 2
    line = one_line(capsys)
    assert line.startswith("error: ")
    assert message in line
    assert Store(tmp_path / "store").sweeps() == []


def test_what_is_no_store_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("x", encoding="utf-8")
    assert ask("--store", str(tmp_path)) == 2
    assert "the store must be a new or empty folder, or a store" in one_line(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_store_under_a_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    assert ask("--store", str(tmp_path / "file" / "store")) == 2
    assert "cannot be opened: Not a directory" in one_line(capsys)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    assert ask("--store", str(tmp_path / "locked" / "store")) == 2
    assert "cannot be opened: Permission denied" in one_line(capsys)


def test_a_worlds_fault_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise TaskFault("the environment failed: step raised ValueError: no")

    assert guard.guarded(fail) == 2
    assert one_line(capsys) == "error: the environment failed: step raised ValueError: no"


def test_a_full_disk_is_one_line(
    copied: BanditSweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(copied.store.folder)
    monkeypatch.setattr("sweeps.schedule.LEAST_FREE_BYTES", 2**80)
    assert ask("--store", str(copied.store.folder)) == 2
    assert "the store's disk must have" in one_line(capsys)
    assert contents(copied.store.folder) == before


HERE = Machine(cpus=2, gpus=1)

SHAPES = [
    (("--gpus-per-worker", "64"), "a job needs 64 GPUs, this machine has 1; --gpus-per-worker 0 trains on CPUs"),
    (("--workers", "3"), "a job needs 3 CPUs, this machine has 2; --workers sets how many it uses"),
    (("--workers", "2", "--gpus-per-worker", "0.6"), "a job needs 1.2 GPUs (2 workers × 0.6), this machine has 1;"),
    (("--gpus-per-worker", "1.5"), "a worker's GPUs must be a share of one or a whole number, got 1.5"),
    (("--gpus-per-worker", "0.00001"), "a worker's share of a GPU must be at least 0.0001, got 1e-05"),
    (("--cluster", "4x8:80GB", "--gpus-per-worker", "9"), "a cluster 4x8:80GB has room for 0 of them"),
    (("--cluster", "4x8:80GB", "--workers", "33", "--gpus-per-worker", "1"), "a job needs 33 GPUs (33 workers × 1)"),
    (("--cluster", "2x2:80GB", "--workers", "5", "--gpus-per-worker", "0.6"), "a cluster 2x2:80GB has room for 4"),
    (("--cluster", "2x3:80GB", "--workers", "3", "--gpus-per-worker", "2"), "a cluster 2x3:80GB has room for 2"),
    (("--cluster", "10x0:2cpu", "--workers", "21"), "a job needs 21 CPUs, a cluster 10x0:2cpu has 20"),
    (("--shard",), "sharding needs at least 2 workers, got 1"),
    (("--shard", "--workers", "2", "--gpus-per-worker", "0.5"), "sharding needs a whole GPU for each worker, got 0.5"),
    (("--shard", "--workers", "2", "--adapter-rank", "4"), "--shard needs networks without adapters"),
]  # the sum would fit in two of the lines with a cluster: no share reaches over two GPUs, no worker over two machines


@pytest.mark.parametrize("command", [(), ("--plan",)])
@pytest.mark.parametrize(("shape", "line"), SHAPES)
def test_a_job_that_fits_no_machine_is_refused_before_anything_is_made(
    command: tuple[str, ...], shape: tuple[str, ...], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("sweeps.experiment.this_machine", lambda: HERE)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert ask(*command, *shape, "--store", str(tmp_path / "store")) == 2
    assert line in one_line(capsys)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("command", [(), ("--plan",)])
def test_on_a_cluster_that_is_there_its_nodes_decide(
    command: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [Node(id_ * 28, "host", "192.0.2.1", Machine(cpus=8, gpus=1)) for id_ in "ab"]
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr("sweeps.experiment.connected", contextlib.nullcontext)
    monkeypatch.setattr("sweeps.experiment.alive_nodes", lambda: nodes)
    monkeypatch.setattr("sweeps.experiment.this_machine", lambda: pytest.fail("it runs elsewhere"))
    assert ask(*command, "--gpus-per-worker", "2", "--store", str(tmp_path / "store")) == 2
    assert "and a worker is all on one machine; the cluster has room for 0 of them" in one_line(capsys)
    assert not (tmp_path / "store").exists()


def test_more_gpus_than_there_are_to_play_with_is_refused_before_anything_is_begun(
    copied: BanditSweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.experiment.this_machine", lambda: HERE)
    before = contents(copied.store.folder)
    asked = ["eval", copied.name, "--store", str(copied.store.folder), "decode.beta=77", "--gpus-per-worker", "2"]
    assert cli.main(asked) == 2
    assert "a job needs 2 GPUs, this machine has 1" in one_line(capsys)
    assert contents(copied.store.folder) == before


def test_no_cluster_at_the_address_is_one_line(commands: Commands, tmp_path: Path) -> None:
    process = commands.start(
        ROOT / "sweeps" / "bandit_ablation.py", "--preset", "smoke", "--store", str(tmp_path / "store"),
        RAY_ADDRESS="127.0.0.1:1",
    )  # fmt: skip
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2
    assert err.count("\n") == 1
    assert err.startswith("error: a Ray cluster must answer at 127.0.0.1:1")
    assert not (tmp_path / "store").exists()


# As programs


def test_the_command_works_from_anywhere(commands: Commands, bandit_sweep: BanditSweep) -> None:
    done = commands.sweeps("list", "--store", str(bandit_sweep.store.folder))
    assert (done.status, done.err) == (0, "")
    assert bandit_sweep.name in done.out


def test_a_traceback_is_shown_to_those_who_ask_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SWEEPS_TRACEBACK", "1")
    with pytest.raises(KeyError):
        ask("--store", str(tmp_path / "store"), "--preset", "smok")
    assert capsys.readouterr().err == ""
