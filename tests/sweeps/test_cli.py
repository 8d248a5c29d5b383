"""The `sweeps` command, on a sweep that has finished."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from command_line import one_line, status_of

from sweeps import cli, guard
from sweeps.commands import known_commands
from sweeps.references import score_range

if TYPE_CHECKING:
    from conftest import BanditSweep, Commands

pytestmark = pytest.mark.timeout(1200)

ROOT = Path(__file__).resolve().parents[2]


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


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("sweeps doc", {"doctor"}),
        ("sweeps run vis", {"visdial"}),
        ("sweeps run visdial --adapter", {"--adapter-rank"}),
        ("sweeps plan bandit --clus", {"--cluster"}),
        ("sweeps eval a-sweep --gpus", {"--gpus-per-worker"}),
        ("sweeps rescore a-sweep --reward", {"--rewards", "--reward"}),
        ("sweeps play bandit --trial", {"--trial"}),
    ],
)
def test_bash_completes_commands_questions_and_options(words: str, found: set[str]) -> None:
    typed = words.split()
    ask = f'COMP_WORDS=({words}) COMP_CWORD={len(typed) - 1}; _shtab_sweeps 2>/dev/null; echo "${{COMPREPLY[@]}}"'
    script = f'eval "$({sys.executable} -c "from sweeps.cli import main; main()" completion bash)"; {ask}'
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert set(done.stdout.split()) == found


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
    files = [path for path in here if (own / path).is_file() and path.suffix != ".svg"]
    assert {Path("report.html"), Path("table.md"), Path("figures/heat_map.html")} <= set(files)
    assert [path for path in files if (out / path).read_bytes() != (own / path).read_bytes()] == []
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


def test_every_file_of_the_folder_is_the_command_of_its_name_and_the_page_names_it() -> None:
    files = {path.stem.rstrip("_") for path in (ROOT / "sweeps" / "commands").glob("[!_]*.py")}
    assert set(known_commands()) == files
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in files if f"sweeps {name} " not in readme] == []


def test_no_command_waits_for_what_another_needs() -> None:
    heavy = {"torch", "transformers", "sklearn", "scipy", "ray", "mlflow", "optuna", "plotly"}
    look = f"import sys; from sweeps.cli import make_parser; make_parser(); print(*{heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, text=True).stdout.split() == []


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


def test_a_plan_is_for_programs_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["plan", "bandit", "--preset", "smoke", "--store", str(tmp_path / "store"), "--cluster", "2x4:80GB"]
    assert cli.main([*asked, "--json"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)  # one line, and nothing beside it
    (sweep,) = document["sweeps"]
    assert (sweep["sweep"], sweep["for"]) == ("bandit-smoke-generated-standard", "standard")
    assert (sweep["cells"], sweep["trainings"], sweep["trained"], sweep["evaluations"]) == (11, 5, 0, 22)
    assert (sweep["seconds"], sweep["forecast"]["trainings"]) == (None, 5)
    assert "building the world" in captured.err
    assert cli.main(asked) == 0
    assert "11 cells need 5 trainings and 22 evaluations" in capsys.readouterr().out


def test_json_of_a_run_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["run", "bandit", "--json"])
    assert "--json is of a plan: `sweeps rows` has a sweep's rows" in capsys.readouterr().err
