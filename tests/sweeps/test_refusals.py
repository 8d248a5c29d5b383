"""What commands say to bad input: one line on stderr, status 2, nothing stored is touched."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command_line import ask, contents, one_line, status_of

from cluster.nodes import Node
from cluster.shapes import Machine, Need, described, places
from ilql.task import TaskFault
from sweeps import cli, guard
from sweeps.store import Store

if TYPE_CHECKING:
    from conftest import BanditSweep, Commands

pytestmark = pytest.mark.timeout(1200)

ROOT = Path(__file__).resolve().parents[2]


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
        (("--set", "train.tau=0.5,0.6"), "error: --set gives a column one value, got train.tau=0.5,0.6; "),
        (("--vary", "train.tau=0.5,0.6"), "error: a column that the design varies may not be fixed beside it, got "),
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


def test_no_line_holds_a_secret(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("GITHUB_PAT", "ghp_secretsecret")

    def fail() -> int:
        raise ConnectionError("http://ann:pa/ss55@host must answer, got 401 for ghp_secretsecret")

    assert guard.guarded(fail) == 2
    assert one_line(capsys) == "error: http://***@host must answer, got 401 for ***"
    assert ask("--seeds", "http://ann:pa55@host") == 2
    assert "got 'http://***@host'" in one_line(capsys)


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
    (("--workers", "4", "--least-workers", "3"), "a job needs 3 CPUs, this machine has 2; --workers sets how many"),
    (("--workers", "2", "--least-workers", "3"), "least_workers must be between 1 and the number of workers, 2, got 3"),
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
    monkeypatch.setattr("sweeps.driving.this_machine", lambda: HERE)
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
    monkeypatch.setattr("sweeps.driving.connected", contextlib.nullcontext)
    monkeypatch.setattr("sweeps.driving.alive_nodes", lambda: nodes)
    monkeypatch.setattr("sweeps.driving.this_machine", lambda: pytest.fail("it runs elsewhere"))
    assert ask(*command, "--gpus-per-worker", "2", "--store", str(tmp_path / "store")) == 2
    assert "and a worker is all on one machine; the cluster has room for 0 of them" in one_line(capsys)
    assert not (tmp_path / "store").exists()


def test_a_plan_counts_as_many_jobs_at_a_time_as_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.driving.this_machine", lambda: Machine(cpus=6))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    plan = ("--store", str(tmp_path / "store"), "--plan", "--json")
    on_cluster = places(described("2x8"), Need())
    asked = [((), 6), (("--workers", "2"), 3), (("--concurrent", "4"), 4), (("--cluster", "2x8"), on_cluster)]
    assert on_cluster > 6
    for options, jobs in asked:
        assert ask(*plan, *options) == 0
        (sweep,) = json.loads(capsys.readouterr().out)["sweeps"]
        assert sweep["concurrent"] == jobs


@pytest.mark.parametrize(
    ("options", "groups"), [((), False), (("--ray-train",), True), (("--workers", "2"), True)], ids=str
)
def test_ray_is_told_whether_there_will_be_worker_groups(
    options: tuple[str, ...], groups: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []

    def connected(*, groups: bool) -> None:
        told.append(groups)
        raise ConnectionError("a test goes no further")

    monkeypatch.setattr("sweeps.driving.this_machine", lambda: HERE)
    monkeypatch.setattr("sweeps.experiment.connected", connected)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert ask("--store", str(tmp_path / "store"), *options) != 0
    assert told == [groups]


def test_more_gpus_than_there_are_to_play_with_is_refused_before_anything_is_begun(
    copied: BanditSweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.driving.this_machine", lambda: HERE)
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
