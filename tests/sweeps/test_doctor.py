"""Each inconsistency that a store can have is found and named, and a sound store has none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sweeps import cli
from sweeps.cells import take_back_lost
from sweeps.doctor import findings, notes
from sweeps.exact_json import Record
from sweeps.journal import encode_line
from sweeps.leases import driver_key
from sweeps.spec import TrialSpec
from sweeps.store import Store
from sweeps.work import run_job

if TYPE_CHECKING:
    from conftest import Bench


@pytest.fixture
def done(bench: Bench) -> Store:
    """A store with a training and an evaluation."""
    trial = bench.trial()
    assert run_job(bench.job(trial, trial), lambda numbers: None) == "finished"
    assert findings(bench.store) == []
    return bench.store


def a_stage(store: Store, kind: str) -> Path:
    return next(store.folder.glob(f"stages/{kind}/*/*"))


def flip_a_bit(store: Store) -> str:
    file = a_stage(store, "weights") / "weights.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    return "weights.safetensors is not what was written"


def cut_a_file(store: Store) -> str:
    file = a_stage(store, "evaluation") / "episodes.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    return "is not whole and counts as missing"


def lose_a_stage(store: Store) -> str:
    folder = a_stage(store, "evaluation")
    folder.rename(store.folder / "away")
    return f"evaluation {folder.name}: finished, but its stage evaluation is gone"


def lose_a_record(store: Store) -> str:
    (key,) = store.all("evaluation")
    store.remove("evaluation", key)
    return f"stage evaluation/{key}: has no record"


def leave_a_lease(store: Store) -> str:
    code = f"""
import os
from pathlib import Path
from sweeps.store import Store
assert Store(Path({str(store.folder)!r})).try_lease("key")
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, env=os.environ).returncode == 9
    return "lease key, term 1: process"


def leave_a_wordless_lease(store: Store) -> str:
    (store.folder / "leases" / "ke").mkdir()
    (store.folder / "leases" / "ke" / "key.1").touch()
    return "lease key, term 1: does not say whose it is"


def add_a_file(store: Store) -> str:
    (a_stage(store, "weights") / "more.txt").write_text("mine")
    return "holds more.txt, which nobody put there"


def link_a_file(store: Store) -> str:
    (a_stage(store, "weights") / "more.txt").symlink_to(store.folder)
    return "more.txt"


def forget_a_sweep(store: Store) -> str:
    ids = {"trial_id": "1", "weights_id": "1", "cell_id": "1"}
    value = {"sweep": "gone", "method": "bc", "origin": "design", "seed": 0, "columns": {}}
    store.put("member", "gone/1", ids | value)
    return "member 1: belongs to gone, which has no record"


def damage_a_journal(store: Store) -> str:
    journal = next((store.folder / "journals").iterdir())
    journal.write_bytes(journal.read_bytes().replace(b'"kind"', b'"kund"', 1))
    return "damaged lines left out"


def swap_stages(store: Store) -> str:
    one, two = sorted(store.folder.glob("stages/weights/*/*"))[:2]
    one.rename(store.folder / "away")
    two.rename(one)
    (store.folder / "away").rename(two)
    return f"stage weights/{one.name}: is not whole and counts as missing: about.json is of weights/{two.name}"


def edit_an_about(store: Store) -> str:
    about = a_stage(store, "weights") / "about.json"
    about.write_text(about.read_text().replace('"seed":0', '"seed":4'))
    return "about.json was changed; the sweep's command, run again, makes it anew"


def exaggerate(store: Store) -> str:
    ((key, value),) = store.all("evaluation").items()
    store.put("evaluation", key, {**value, "score": 99.0})
    return f"evaluation {key}: its score is 99.0, and "


def count_wrongly(store: Store) -> str:
    ((key, value),) = store.all("evaluation").items()
    store.put("evaluation", key, {**value, "episodes": 9})
    return f"evaluation {key}: its score is "


def break_a_checkpoint(store: Store) -> str:
    folder = store.scratch("trajectory", "abc") / "checkpoints" / "step-00000050"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text("{")
    return "checkpoint scratch/trajectory/ab/abc/checkpoints/step-00000050: is passed over for the one before it"


def forget_a_status(store: Store) -> str:
    (key,) = store.all("evaluation")
    line = encode_line(0, 2**62, "evaluation", key, "{}")
    (store.folder / "journals" / "other-1-00000000.jsonl").write_bytes(line)
    return f"record evaluation {key} lacks 'status'; left out (line 1 of other-1-00000000.jsonl)"


def halve_the_table(store: Store) -> str:
    table = store.compact()
    table.write_bytes(table.read_bytes()[:-9])
    return "rows/runs.parquet: cannot be read"


def leave_a_table(store: Store) -> str:
    (store.folder / "rows").mkdir()
    (store.folder / "rows" / ".runs.parquet.0123abcd").write_text("x")
    return "rows/.runs.parquet.0123abcd: was not completed"


def leave_a_mark(store: Store) -> str:
    (store.folder / ".store.json.0123abcd").write_text("x")
    return ".store.json.0123abcd: was not completed"


def break_a_study(store: Store) -> str:
    (store.folder / "optuna").mkdir()
    (store.folder / "optuna" / "mine.log").write_text('{"op_code": 0}\n{')
    return "optuna/mine.log: line 2 is none of a study's; the sweep's command, run again, writes it anew"


def leave_a_stranger(store: Store) -> str:
    (store.folder / "stages" / "weights" / "my notes").write_text("x")
    return "stages/weights/my notes: is none of ours, and is not read; remove it"


def leave_a_strange_lease(store: Store) -> str:
    (store.folder / "leases" / "ke").mkdir(exist_ok=True)
    (store.folder / "leases" / "ke" / "other.1").write_text("x")
    return "leases/ke/other.1: is none of ours, and is not read; remove it"


def leave_a_strange_journal(store: Store) -> str:
    (store.folder / "journals" / "x.txt").write_text("x")
    return "journals/x.txt: is no journal, and is not read; remove it"


def lie_a_pipe_in_a_lease(store: Store) -> str:
    (store.folder / "leases" / "ke").mkdir(exist_ok=True)
    os.mkfifo(store.folder / "leases" / "ke" / "key.1")
    return "lease key, term 1: does not say whose it is"


@pytest.mark.parametrize(
    "fault",
    [
        swap_stages, edit_an_about, exaggerate, count_wrongly, break_a_checkpoint, forget_a_status, halve_the_table,
        leave_a_table, leave_a_mark, break_a_study, leave_a_stranger, leave_a_strange_lease, leave_a_strange_journal,
        lie_a_pipe_in_a_lease,
        flip_a_bit, cut_a_file, lose_a_stage, lose_a_record, leave_a_lease, leave_a_wordless_lease, add_a_file,
        link_a_file, forget_a_sweep, damage_a_journal,
    ],
)  # fmt: skip
def test_each_fault_is_named(done: Store, fault: Callable[[Store], str]) -> None:
    said = fault(done)
    assert [line for line in findings(Store(done.folder)) if said in line] != []


@pytest.fixture
def swept(bench: Bench) -> tuple[Bench, TrialSpec, Record]:
    """A sweep of one trial, done, and what its evaluation came to."""
    trial, tune = bench.trial(), bench.trial(evaluation={"split": "tune"})
    bench.store.put("sweep", "mine", {"task": "bandit"})
    bench.store.put("member", f"mine/{trial.trial_id}", bench.member(trial, "mine", tune_trial_id=tune.trial_id))
    assert run_job(bench.job(trial, trial, tune), lambda numbers: None) == "finished"
    return bench, trial, bench.store.all("evaluation")[trial.trial_id]


@pytest.mark.parametrize("fault", [cut_a_file, lose_a_stage])
@pytest.mark.parametrize("split", ["report", "tune"])
def test_episodes_that_are_gone_are_made_anew_as_it_says(
    swept: tuple[Bench, TrialSpec, Record], fault: Callable[[Store], str], split: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, trial, before = swept
    tune = bench.trial(evaluation={"split": "tune"})
    hit = tune if split == "tune" else trial
    (folder,) = bench.store.folder.glob(f"stages/evaluation/*/{hit.trial_id}")
    monkeypatch.setattr(sys.modules[__name__], "a_stage", lambda *_: folder)
    fault(bench.store)
    assert take_back_lost(bench.store, "mine") == [hit.trial_id]
    assert take_back_lost(bench.store, "mine") == []
    assert run_job(bench.job(trial, trial, tune), lambda numbers: None) == "finished"
    after = bench.store.all("evaluation")[trial.trial_id]
    assert {name: after[name] for name in ("status", "score", "measures")} == {
        name: before[name] for name in ("status", "score", "measures")
    }
    assert [line for line in findings(bench.store) if "a copy was damaged" not in line] == []


def test_a_record_that_is_gone_is_made_anew_as_it_says(swept: tuple[Bench, TrialSpec, Record]) -> None:
    bench, trial, before = swept
    bench.store.remove("evaluation", trial.trial_id)
    bench.store.remove("training", trial.weights_id)
    assert sum("has no record" in line for line in findings(bench.store)) == 2
    assert run_job(bench.job(trial, trial), lambda numbers: None) == "finished"
    assert findings(bench.store) == []
    assert bench.store.all("evaluation")[trial.trial_id]["score"] == before["score"]


@pytest.mark.parametrize("kind", ["world", "tokenizer", "backbone"])
def test_what_a_rows_trial_starts_from_is_missed(swept: tuple[Bench, TrialSpec, Record], kind: str) -> None:
    bench, _, _ = swept
    assert findings(bench.store) == []
    folder = a_stage(bench.store, kind)
    shutil.rmtree(folder)
    (said,) = findings(Store(bench.store.folder))
    assert said == (
        f"stage {kind}/{folder.name}: is gone, and 1 of the rows start from it; the sweep's command, run again, "
        "makes it anew"
    )


def test_a_row_whose_trial_cannot_be_read_is_named(swept: tuple[Bench, TrialSpec, Record]) -> None:
    bench, trial, _ = swept
    bench.store.put("member", "mine/z", bench.member(trial, "mine", trial_id="z", spec='{"method": "bcc"}'))
    (said,) = findings(bench.store)
    assert said.startswith("member z of mine: its trial cannot be read by this version ")


def test_a_score_that_is_not_its_episodes_is_made_anew_as_it_says(swept: tuple[Bench, TrialSpec, Record]) -> None:
    bench, trial, before = swept
    bench.store.put("evaluation", trial.trial_id, {**before, "score": 99.0})
    (said,) = findings(bench.store)
    (folder,) = bench.store.folder.glob(f"stages/evaluation/*/{trial.trial_id}")
    assert f"remove {folder}, and the sweep's command makes both anew" in said
    shutil.rmtree(folder)
    assert take_back_lost(bench.store, "mine") == [trial.trial_id]
    assert run_job(bench.job(trial, trial), lambda numbers: None) == "finished"
    assert findings(bench.store) == []
    assert bench.store.all("evaluation")[trial.trial_id]["score"] == before["score"]


def test_a_torn_tail_is_told_and_is_no_fault(done: Store, capsys: pytest.CaptureFixture[str]) -> None:
    (done.folder / "journals" / "other-1-00000000.jsonl").write_bytes(b'{"sum":"')
    assert cli.main(["doctor", str(done.folder)]) == 0
    out = capsys.readouterr().out
    assert "0 problems" in out
    assert "no problem: journal other-1-00000000.jsonl: ends in 8 bytes of an unfinished line" in out


def leave_what_ray_train_noted(store: Store) -> tuple[str, str]:
    store.scratch("group", "abc")
    return (
        "scratch/group/ab/abc",
        "is left over, what Ray Train noted of a training that was killed; `sweeps gc`",
    )


def leave_what_ray_tune_noted(store: Store) -> tuple[str, str]:
    (store.folder / "tune" / "mine").mkdir(parents=True)
    return "tune/mine", "is left over, what Ray Tune noted for a driver that was killed, pickles among it; `sweeps gc`"


def leave_a_question_to_nodes(store: Store) -> tuple[str, str]:
    (store.folder / "nodes").mkdir()
    (store.folder / "nodes" / "0123").write_text("x")
    os.utime(store.folder / "nodes" / "0123", (time.time() - 7200,) * 2)
    return (
        "nodes/0123",
        "is left over, by which a driver that was killed asked nodes whether they see the store;",
    )


def leave_a_stranger_in_the_root(store: Store) -> tuple[str, str]:
    (store.folder / "my notes.txt").write_text("x")
    return "my notes.txt", "is none of ours, and is not read; `sweeps gc` leaves it alone, and you may remove it"


def leave_a_stranger_in_scratch(store: Store) -> tuple[str, str]:
    (store.folder / "scratch" / "mine" / "ab").mkdir(parents=True)
    return "scratch/mine", "is none of ours, and is not read; `sweeps gc` leaves it alone"


def leave_a_stranger_among_trajectories(store: Store) -> tuple[str, str]:
    (store.scratch("trajectory", "abc").parent / "my notes").mkdir()
    return "scratch/trajectory/ab/my notes", "is none of ours, and is not read; `sweeps gc` leaves it alone"


LEFT = (
    leave_what_ray_train_noted, leave_what_ray_tune_noted, leave_a_question_to_nodes, leave_a_stranger_in_the_root,
    leave_a_stranger_in_scratch, leave_a_stranger_among_trajectories,
)  # fmt: skip


@pytest.mark.parametrize("leave", LEFT)
def test_what_is_left_over_is_told_with_what_removes_it_and_is_no_fault(
    done: Store, leave: Callable[[Store], tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    where, said = leave(done)
    assert cli.main(["doctor", str(done.folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines[1:] if not line.startswith(f"  no problem: {where}: {said}")] == []
    assert len(lines) == 2


def test_what_somebody_uses_who_lives_is_not_left_over(done: Store) -> None:
    leave_what_ray_train_noted(done)
    leave_what_ray_tune_noted(done)
    (done.folder / "nodes").mkdir()
    (done.folder / "nodes" / "0123").write_text("of a driver that asks just now")
    with done.lease("abc"), done.lease(driver_key("mine")):
        assert notes(done) == []
    assert len(notes(done)) == 2


@pytest.mark.parametrize("name", ["mlflow.db", "mlflow.db-wal", "reports", "tune", "optuna"])
def test_what_a_sweep_leaves_beside_its_rows_is_no_stranger(done: Store, name: str) -> None:
    (done.folder / name).mkdir()
    assert notes(done) == []


@pytest.mark.parametrize("name", ["leases", "stages"])
def test_a_file_in_place_of_a_folder_is_named(done: Store, name: str) -> None:
    shutil.rmtree(done.folder / name, ignore_errors=True)
    (done.folder / name).write_text("")
    assert f"{name}: must be a folder, and nothing new can be made; move it away" in findings(Store(done.folder))


def test_digests_are_compared_unless_it_is_to_be_quick(done: Store) -> None:
    flip_a_bit(done)
    assert findings(Store(done.folder), deep=False) == []


def test_who_works_just_now_is_no_fault(done: Store) -> None:
    with done.lease("key"):
        assert findings(done) == []


def test_the_command_takes_the_store_in_either_way(done: Store, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(done.folder)
    assert cli.main(["doctor", folder]) == 0
    flip_a_bit(done)
    assert cli.main(["doctor", folder]) == cli.main(["doctor", "--store", folder]) == 1
    assert cli.main(["doctor", folder, "--quick"]) == 0
    assert "is not what was written" in capsys.readouterr().out


def test_a_folder_that_is_no_store_is_not_made_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", str(tmp_path / "mistyped")]) == 2
    assert capsys.readouterr().err.startswith("error: a store's folder must hold a store.json, got ")
    assert list(tmp_path.iterdir()) == []
