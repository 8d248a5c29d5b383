"""Whole sweeps in seconds: their jobs come out of a table of what real workers gave once.

That the code still gives what the table says is tested at the end.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from command_line import ask
from record_bandit import BROKEN, DIVERGED, NO_START, WHOLE, record
from surrogate import TABLE, Counted, NotRecorded, Surrogate, in_this_process
from tabulated import Played, Table, Trained, Word

from analysis.ablation import AblationRow
from sweeps import cli, experiment
from sweeps.bandit_ablation import QUESTION
from sweeps.doctor import findings
from sweeps.exact_json import Record
from sweeps.guard import STOPPED
from sweeps.reporting import write_sweep_report
from sweeps.shares import shares_line
from sweeps.store import Store

if TYPE_CHECKING:
    from conftest import BanditSweep, Commands

ROOT = Path(__file__).resolve().parents[2]

ONE_SEED = ("--name", "whole")
"""Of `WHOLE`, what one training seed makes."""
JOBS, MOMENTS = 8, 16
"""Of `ONE_SEED`: five trainings of the design, two to the rung, one of these to its end. And of SARSA alone: a stage
and a record of two trainings and six evaluations; BC's training is no cell there, and is not played."""

GRID = ("--trials", "0")
SARSA = ("--name", "sarsa", "--methods", "sarsa", *GRID)


@dataclass(frozen=True)
class Desk:
    """Where commands are given, at a store of one's own."""

    folder: Path
    table: Table

    @property
    def store(self) -> Store:
        """As a reader opens it."""
        return Store(self.folder)

    def run(self, *options: str, kept: Counted = lambda number: None, **how: Any) -> tuple[int, Surrogate]:
        """Give a command that ends without a report; its exit status, and who did its jobs."""
        workers = Surrogate(self.table, kept=kept)
        with pytest.MonkeyPatch.context() as patch, in_this_process(**how), workers.at_work():
            patch.setattr(experiment, "present", lambda *_, **__: None)
            return ask("--store", str(self.folder), "--no-mlflow", *options), workers

    def rows(self, sweep: str = "whole") -> dict[str, Record]:
        """All rows of a sweep, whole, by trial."""
        return {row["trial_id"]: row for row in self.store.rows(sweep)}

    def report(self, sweep: str, to: Path) -> dict[str, AblationRow]:
        """Write the sweep's report; its table's rows by method."""
        report, _ = write_sweep_report(self.store, sweep, QUESTION.against, folder=to, static_formats=())
        return {row.method: row for row in report.table.rows}


@pytest.fixture(scope="session")
def table() -> Table:
    return Table.read(TABLE)


@pytest.fixture
def desk(tmp_path: Path, table: Table) -> Desk:
    return Desk(tmp_path / "store", table)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, table: Table) -> Desk:
    """A store in which `ONE_SEED` and `SARSA` ran without a pause."""
    desk = Desk(tmp_path_factory.mktemp("undisturbed") / "store", table)
    for options in (ONE_SEED, SARSA):
        assert desk.run(*options)[0] == 0
    return desk


def at(number: int) -> Counted:
    """Ctrl-C at the event of that number."""

    def interrupt(now: int) -> None:
        if now == number:
            raise KeyboardInterrupt

    return interrupt


# A plan says what a run then does


def planned(desk: Desk, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    """What `--plan --json` says of the one sweep."""
    capsys.readouterr()
    assert ask("--store", str(desk.folder), *options, "--plan", "--json") == 0
    (sweep,) = json.loads(capsys.readouterr().out)["sweeps"]
    return dict(sweep)


@pytest.mark.parametrize(
    "options",
    [
        GRID,
        (*GRID, "--seeds", "2"),
        SARSA,
        ("--methods", "sarsa,ilql", *GRID, "--seeds", "2"),
        ("--methods", "ilql", *GRID, "decode.beta=0,2"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("before", [(), ("--methods", "bc", *GRID), SARSA], ids=["nothing", "BC", "SARSA"])
def test_a_run_does_what_its_plan_says(
    desk: Desk, capsys: pytest.CaptureFixture[str], before: tuple[str, ...], options: tuple[str, ...]
) -> None:
    if before:
        desk.run(*before)
    plan = planned(desk, capsys, *options)
    status, workers = desk.run(*options)
    assert status == 0
    assert workers.count("training") == plan["trainings"] - plan["trained"]
    assert workers.count("evaluation") == plan["evaluations"] - plan["evaluated"]
    after = planned(desk, capsys, *options)
    assert (after["trained"], after["evaluated"], after["seconds"]) == (plan["trainings"], plan["evaluations"], 0)


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_search_trains_the_proposals_that_were_planned(
    desk: Desk, capsys: pytest.CaptureFixture[str], seeds: int
) -> None:
    options = ("--name", "whole", "--seeds", str(seeds))
    plan = planned(desk, capsys, *options)
    _, workers = desk.run(*options)
    assert plan["proposals"] == 2
    # To the rung both are trained at the first seed, from there one goes on, at all seeds.
    assert workers.count("training") == plan["trainings"] + 2 + seeds
    rows = desk.rows().values()
    proposed = {row["weights_id"] for row in rows if row["origin"] == "refinement" and row["seed"] == 0}
    assert len(proposed) == plan["proposals"]
    # Three decodings each: the two rungs and the end on the tune scenes, the end on the report scenes.
    assert workers.count("evaluation") == plan["evaluations"] + 3 * (2 + 2 * seeds)


@pytest.mark.parametrize(("seeds", "trainings", "alone"), [(1, 5, 20), (2, 10, 40)])
def test_what_was_shared_is_what_the_plan_did_not_train(
    desk: Desk, capsys: pytest.CaptureFixture[str], seeds: int, trainings: int, alone: int
) -> None:
    plan = planned(desk, capsys, "--name", "whole", *GRID, "--seeds", str(seeds))
    _, workers = desk.run("--name", "whole", *GRID, "--seeds", str(seeds))
    assert trainings == plan["trainings"] == workers.count("training")
    # Alone, BC's cell and %BC's would train once a seed, each of SARSA's three and ILQL's six also a behaviour policy.
    said = shares_line(desk.store, "whole")
    assert said is not None
    assert f"{11 * seeds} evaluations stand on {trainings} trainings" in said
    assert f"would have been {alone} trainings" in said


def test_policies_of_their_own_cost_no_training_where_cloning_is_a_row(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    def trainings(*options: str) -> int:
        return int(planned(desk, capsys, *GRID, "--seeds", "2", *options)["trainings"])

    assert trainings("--behaviour-per-seed") == trainings()
    assert trainings("--methods", "ilql", "--behaviour-per-seed") == trainings("--methods", "ilql") + 1


# Interrupted and run again


def test_the_sweep_that_is_interrupted_below_has_so_many_jobs(desk: Desk) -> None:
    jobs, moments = list[int](), list[int]()
    desk.run(*ONE_SEED, ended=jobs.append)
    Desk(desk.folder.with_name("other"), desk.table).run(*SARSA, kept=moments.append)
    assert (jobs[-1], moments[-1]) == (JOBS, MOMENTS)


@pytest.mark.parametrize("job", range(1, JOBS))
def test_interrupted_after_any_job_it_does_the_rest_and_nothing_twice(
    desk: Desk, undisturbed: Desk, capsys: pytest.CaptureFixture[str], job: int
) -> None:
    status, first = desk.run(*ONE_SEED, ended=at(job))
    assert status == STOPPED
    plan = planned(desk, capsys, *ONE_SEED)
    status, second = desk.run(*ONE_SEED)
    assert status == 0
    assert max(Counter(first.done + second.done).values()) == 1
    assert desk.rows() == undisturbed.rows()
    if job <= 5:  # within the design, the plan in between knew what was left
        left = 5 - job
        assert plan["trainings"] - plan["trained"] == left
    assert findings(desk.store) == []


@pytest.mark.parametrize("moment", range(1, MOMENTS))
def test_interrupted_between_any_two_files_it_ends_in_the_same_rows(desk: Desk, undisturbed: Desk, moment: int) -> None:
    status, first = desk.run(*SARSA, kept=at(moment))
    assert status == STOPPED
    status, second = desk.run(*SARSA)
    assert status == 0
    assert desk.rows("sarsa") == undisturbed.rows("sarsa")
    twice = [each for each, times in Counter(first.done + second.done).items() if times > 1]
    # Episodes without their record are played again; weights without theirs are not trained again.
    assert {kind for kind, _ in twice} <= {"evaluation"}
    assert len(twice) <= 1


def test_interrupted_again_and_again_it_comes_to_its_end(desk: Desk, undisturbed: Desk) -> None:
    done: list[tuple[str, str]] = []
    for _ in range(JOBS):
        status, workers = desk.run(*ONE_SEED, ended=at(1))
        assert status == STOPPED
        done += workers.done
    status, workers = desk.run(*ONE_SEED)
    assert (status, workers.done) == (0, [])
    assert max(Counter(done).values()) == 1
    assert desk.rows() == undisturbed.rows()


@pytest.mark.parametrize(("places", "pick"), [(2, 0), (2, -1), (5, 0), (5, -1)])
def test_however_many_jobs_run_at_a_time_the_rows_are_the_same(
    desk: Desk, undisturbed: Desk, places: int, pick: int
) -> None:
    desk.run(*ONE_SEED, places=places, pick=pick, ended=at(3))
    assert desk.run(*ONE_SEED, places=places, pick=pick)[0] == 0
    assert desk.rows() == undisturbed.rows()


def test_more_seeds_later_are_what_they_had_been_at_once(desk: Desk, undisturbed: Desk) -> None:
    _, first = desk.run(*ONE_SEED)
    before = desk.rows()
    _, more = desk.run(*WHOLE)
    assert before == undisturbed.rows()
    after = desk.rows()
    assert {trial: after[trial] for trial in before} == before
    assert {row["seed"] for trial, row in after.items() if trial not in before} == {1}
    assert max(Counter(first.done + more.done).values()) == 1
    at_once = Desk(desk.folder.with_name("at once"), desk.table)
    at_once.run(*WHOLE)
    assert after == at_once.rows()


# Two drivers


@pytest.mark.parametrize("job", range(JOBS))
def test_a_second_sweep_in_the_middle_of_the_first_does_nothing_that_is_done(
    desk: Desk, undisturbed: Desk, job: int
) -> None:
    others: list[Surrogate] = []

    def meanwhile(now: int) -> None:
        if now == job:
            status, other = desk.run("--name", "other", "--methods", "bc,sarsa,ilql")
            assert status == 0
            others.append(other)

    if job == 0:
        meanwhile(0)
    status, own = desk.run(*ONE_SEED, ended=meanwhile)
    assert status == 0
    assert max(Counter(own.done + others[0].done).values()) == 1
    assert desk.rows() == undisturbed.rows()
    wanted = {trial: row for trial, row in undisturbed.rows().items() if row["arm"] != "filtered_bc"}
    assert desk.rows("other") == {trial: {**row, "sweep": "other"} for trial, row in wanted.items()}


DRIVER = """
import json, sys, time
from pathlib import Path
from unittest.mock import patch
from command_line import ask
from surrogate import TABLE, Surrogate, in_this_process
from tabulated import Table
from sweeps import cli, experiment

ready, other, *options = sys.argv[1:]
workers = Surrogate(Table.read(TABLE), kept=lambda number: time.sleep(0.02))
Path(ready).touch()
while not Path(other).exists():
    time.sleep(0.01)
with in_this_process(), workers.at_work(), patch.object(experiment, "present"):
    status = ask(*options)
print(json.dumps(workers.done))
sys.exit(status)
"""
"""Gives a command, as soon as another one is about to; its last line is what its workers looked up."""


def test_two_drivers_at_once_share_the_work(desk: Desk, undisturbed: Desk, commands: Commands, tmp_path: Path) -> None:
    places = os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "surrogate", ROOT / "tests" / "asking")))
    marks = [str(tmp_path / name) for name in ("first", "second")]
    processes = [
        commands.start(
            "-c", DRIVER, *each, "--store", str(desk.folder), "--no-mlflow", "--name", name, PYTHONPATH=places
        )
        for name, each in (("whole", marks), ("second", marks[::-1]))
    ]
    done: list[tuple[str, str]] = []
    try:
        for process in processes:
            out, err = process.communicate(timeout=240)
            assert process.returncode == 0, out + err
            done += map(tuple, json.loads(out.splitlines()[-1]))
    finally:
        for process in processes:
            process.kill()
    assert max(Counter(done).values()) == 1
    assert desk.rows() == undisturbed.rows()
    assert desk.rows("second") == {t: {**row, "sweep": "second"} for t, row in undisturbed.rows().items()}


# What fails becomes rows, and counts


def test_what_diverged_is_a_row_with_its_reason_and_is_counted(desk: Desk, tmp_path: Path) -> None:
    status, workers = desk.run(*DIVERGED)
    assert status == 0
    rows = desk.rows("diverged").values()
    failed = [row for row in rows if row["status"] == "failed"]
    assert {row["train.learning_rate"] for row in failed} == {1e30}
    assert all("the training has diverged" in row["reason"] for row in failed)
    # Two expectiles, three betas, two seeds; of each training that diverged nothing was played.
    assert len(failed) == 2 * 3 * 2
    assert workers.count("evaluation") == 2 * (2 * 1 + 2 * 3 * 2)
    of = desk.report("diverged", tmp_path / "report")
    assert {name: (row.failed, row.design_cells, row.design_cells_wanted) for name, row in of.items()} == {
        "bc": (0, 1, 1),
        "ilql": (12, 6, 12),
    }
    assert "the training has diverged" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def test_what_a_world_broke_is_a_row_with_its_reason_and_is_counted(desk: Desk, tmp_path: Path) -> None:
    status, _ = desk.run(*BROKEN)
    assert status == 0  # BC's cell has finished
    rows = desk.rows("broken").values()
    reasons = Counter((row["arm"], row["status"], row["reason"]) for row in rows)
    fault = "TaskFault: the bandit's arm is stuck"
    assert reasons == {("bc", "finished", None): 1, ("sarsa", "failed", fault): 3}
    assert all(row["tune_score"] is not None for row in rows)  # the tune scenes had been played
    of = desk.report("broken", tmp_path / "report")
    assert {name: (row.failed, row.design_cells) for name, row in of.items()} == {"bc": (0, 1), "sarsa": (3, 0)}


def test_what_could_not_begin_is_a_row_with_the_reason_of_its_start(desk: Desk, tmp_path: Path) -> None:
    status, workers = desk.run(*NO_START)
    assert status == 1  # nothing has finished
    rows = desk.rows("no-start").values()
    assert Counter((row["arm"], row["status"]) for row in rows) == {
        ("bc", "failed"): 1, ("filtered_bc", "failed"): 1, ("sarsa", "failed"): 3, ("ilql", "failed"): 6
    }  # fmt: skip
    whose = "its behaviour policy failed: "
    assert {row["arm"] for row in rows if row["reason"].startswith(whose)} == {"sarsa", "ilql"}
    assert [kind for kind, _ in workers.done] == ["training"] * 2  # BC's and %BC's: the others have no start
    assert {name: row.failed for name, row in desk.report("no-start", tmp_path / "report").items()} == {
        "bc": 1, "filtered_bc": 1, "sarsa": 3, "ilql": 6
    }  # fmt: skip


def test_what_failed_is_tried_once_more_by_each_run_and_what_finished_is_not(desk: Desk) -> None:
    desk.run(*DIVERGED)
    before = desk.rows("diverged")
    status, again = desk.run(*DIVERGED)
    assert status == 0
    assert (again.count("training"), again.count("evaluation")) == (4, 0)  # two expectiles at two seeds
    assert desk.rows("diverged") == before


def test_what_the_table_lacks_is_no_row_and_says_what_to_do(desk: Desk) -> None:
    with pytest.raises(NotRecorded, match=r"must be in its table, got sarsa at seed 0, .*`make surrogate`"):
        desk.run(*SARSA, "decode.beta=7")
    assert desk.rows("sarsa") == {}


# Reports


def pages(folder: Path) -> dict[str, bytes]:
    """A report's files."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_report_from_a_table_is_the_real_runs_to_the_byte(bandit_sweep: BanditSweep, tmp_path: Path) -> None:
    """Times as they were recorded: what the table is made of is what a report is made of."""
    real = Desk(bandit_sweep.store.folder, Table.of(bandit_sweep.store))
    real.table.write(tmp_path / "table.jsonl")
    replayed = Desk(tmp_path / "store", Table.read(tmp_path / "table.jsonl"))
    assert replayed.run(places=2, pick=-1)[0] == 0
    for desk, name in ((real, "real"), (replayed, "replayed")):
        desk.report(bandit_sweep.name, tmp_path / name)
    found, expected = pages(tmp_path / "replayed"), pages(tmp_path / "real")
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
    assert len(expected) > 20


def test_a_report_of_several_seeds_is_the_same_in_whatever_order_its_jobs_were_done(desk: Desk, tmp_path: Path) -> None:
    other = Desk(tmp_path / "other", desk.table)
    desk.run(*WHOLE, ended=at(5))
    desk.run(*WHOLE)
    other.run(*WHOLE, places=4, pick=-1)
    for each, name in ((desk, "first"), (other, "second")):
        each.report("whole", tmp_path / name)
    first, second = pages(tmp_path / "first"), pages(tmp_path / "second")
    assert "honest.md" in first
    assert first == second


def test_a_report_of_several_sweeps_says_what_holds_across_them(
    desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options in (WHOLE, DIVERGED):
        desk.run(*options)
    capsys.readouterr()
    command = ["report", "whole", "diverged", "--store", str(desk.folder), "-o", str(tmp_path / "both")]
    assert cli.main(command) == 0
    said, names = capsys.readouterr().out, {path.name for path in (tmp_path / "both").iterdir()}
    assert {"across.html", "across.md", "across.json", "across_across_tasks.csv"} <= names
    assert (tmp_path / "both" / "across.md").read_text(encoding="utf-8") in said
    assert "2 tasks: whole, diverged" in (tmp_path / "both" / "across.html").read_text(encoding="utf-8")
    assert "(too few seeds for an interval)" in said  # two of each


AS_HERE = {"PYTHONHASHSEED": "0", "TZ": "UTC", "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "LC_ALL": "C.UTF-8"}
IN_THE_EAST = {"PYTHONHASHSEED": "4242", "TZ": "EAST-13:45", "OMP_NUM_THREADS": "2", "POLARS_MAX_THREADS": "3"}
PLACES: Mapping[str, Mapping[str, str]] = {
    "here": AS_HERE,
    "turkish": {**IN_THE_EAST, "LANG": "tr_TR.UTF-8", "LC_ALL": "tr_TR.UTF-8"},  # a decimal comma, and I is no large i
    "posix": {**IN_THE_EAST, "PYTHONHASHSEED": "7", "LANG": "POSIX", "LC_ALL": "POSIX"},
}
"""What processes may find around them."""


def turkish_in(folder: Path) -> dict[str, str]:
    """What lets programs find a Turkish locale, which is made in a new folder; another one where it cannot be made."""
    folder.mkdir()
    make = [shutil.which("localedef") or "false", "-i", "tr_TR", "-f", "UTF-8", str(folder / "tr_TR.UTF-8")]
    made = subprocess.run(make, check=False, capture_output=True).returncode == 0
    return {"LOCPATH": str(folder)} if made else {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}


def test_a_report_is_the_same_bytes_in_another_process_and_place(desk: Desk, tmp_path: Path) -> None:
    """Another order of sets, zone, number of threads, language, home, store and folder; no browser."""
    desk.run(*WHOLE)
    own = {"turkish": turkish_in(tmp_path / "locales")}
    writing = {}
    for name, around in PLACES.items():
        home, store = tmp_path / name / "home", tmp_path / name / "store"
        home.mkdir(parents=True)
        shutil.copytree(desk.folder, store)
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "BROWSER_PATH": str(home / "none")}
        command = ["-m", "sweeps", "report", "whole", "--store", str(store), "-o", str(tmp_path / name / "report")]
        writing[name] = subprocess.Popen(
            [sys.executable, *command],
            env={**environment, "HOME": str(home), **around, **own.get(name, {})},
            cwd=home,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    said = {name: process.communicate()[0].decode() for name, process in writing.items()}
    assert [process.returncode for process in writing.values()] == [0, 0, 0], said
    here, *elsewhere = (pages(tmp_path / name / "report") for name in PLACES)
    assert {"report.html", "honest.md", "table.tex", "table.csv", "comparisons.json", "sensitivity.md"} <= here.keys()
    for there in elsewhere:
        assert here.keys() == there.keys()
        assert [name for name in here if here[name] != there[name]] == []
    assert len({text.replace(str(tmp_path / name), "") for name, text in said.items()}) == 1


# The table is true


EARLY = 50
"""Steps in which rounding has not grown yet: an Intel's and an AMD's curves differ by up to 3e-3 from 80 on."""


def close(found: Mapping[str, float], expected: Mapping[str, float]) -> bool:
    """Whether a step's metrics are equal but for rounding, which differs between machines and grows in training."""
    early = expected["step"] <= EARLY
    return found == pytest.approx(expected, rel=1e-3 if early else 1e-2, abs=1e-5 if early else 1e-4)


def same_training(found: Trained, expected: Trained) -> bool:
    names = ("status", "steps", "method", "seed")
    return (
        [found.record[name] for name in names] == [expected.record[name] for name in names]
        and [point["step"] for point in found.curve] == [point["step"] for point in expected.curve]
        and all(close(one, other) for one, other in zip(found.curve, expected.curve, strict=True))
    )


def same_evaluation(found: Played, expected: Played) -> bool:
    """On another machine a draw in a thousand may fall on the other side."""
    names = ("status", "reason", "episodes")
    if [found.record.get(name) for name in names] != [expected.record.get(name) for name in names]:
        return False
    (own, said), (others, theirs) = ((_returns(each.episodes), _tokens(each.spoken)) for each in (found, expected))
    differing = sum(one != other for one, other in zip(own, others, strict=True))
    return differing <= len(own) // 500 and (differing > 0 or said == theirs)


def _returns(word: Word) -> list[tuple[float, str]]:
    return [(each["return"], each["transcript"]) for each in word.things]


def _tokens(word: Word) -> list[list[str]]:
    return [each["tokens"] for each in word.things]


def differences(found: Table, table: Table, keys: set[str]) -> list[str]:
    """The keys whose entries are not the same in both."""
    trained, played = keys & found.trainings.keys(), keys & found.evaluations.keys()
    return [
        *(key for key in trained if not same_training(found.trainings[key], table.trainings[key])),
        *(key for key in played if not same_evaluation(found.evaluations[key], table.evaluations[key])),
    ]


def test_the_real_code_gives_what_the_table_says(bandit_sweep: BanditSweep, table: Table) -> None:
    """Whoever changes what is computed, and raises no version, finds out here; `make surrogate` records it anew."""
    real = Table.of(bandit_sweep.store)
    members = [member for member in bandit_sweep.store.members(bandit_sweep.name) if member["origin"] == "design"]
    keys = {member[name] for member in members for name in ("trial_id", "tune_trial_id", "weights_id")}
    assert len(keys) == 11 + 11 + 5
    assert keys <= table.trainings.keys() | table.evaluations.keys()
    assert differences(real, table, keys) == []


def test_a_table_that_is_not_true_any_more_is_found_out(table: Table) -> None:
    key, played = next((key, each) for key, each in table.evaluations.items() if len(each.episodes.signs) == 1000)
    # A hundredth of the episodes: as if the policy took the good arm one per cent less often.
    turned = "".join("10"[int(sign)] if place % 100 == 0 else sign for place, sign in enumerate(played.episodes.signs))
    other = replace(played, episodes=replace(played.episodes, signs=turned))
    stale = Table(table.trainings, {**table.evaluations, key: other})
    assert differences(stale, table, {*table.trainings, *table.evaluations}) == [key]


@pytest.mark.parametrize(("step", "factor"), [(40, 1.005), (100, 1.03)])
def test_a_curve_that_is_not_true_any_more_is_found_out(table: Table, step: int, factor: float) -> None:
    key = next(key for key, each in table.trainings.items() if each.curve and each.curve[0].get("loss", 0.0) > 0.5)
    trained = table.trainings[key]
    curve = [{**point, "loss": point["loss"] * (factor if point["step"] == step else 1.0)} for point in trained.curve]
    stale = Table({**table.trainings, key: replace(trained, curve=curve)}, table.evaluations)
    assert [point["step"] for point in curve].count(step) == 1
    assert differences(stale, table, {*table.trainings, *table.evaluations}) == [key]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_table_is_what_would_be_recorded_now(table: Table, tmp_path: Path) -> None:
    now = record(tmp_path / "store")
    keys = now.trainings.keys() | now.evaluations.keys()
    assert keys == table.trainings.keys() | table.evaluations.keys()
    assert differences(now, table, set(keys)) == []


def test_a_table_is_small_and_reads_as_it_was_written(table: Table, tmp_path: Path) -> None:
    table.write(tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == TABLE.read_bytes()
    assert TABLE.stat().st_size < 200_000
