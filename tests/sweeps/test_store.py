"""The store as a sweep uses it: stages, tables, several sweeps, faults."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import multiprocessing
import os
import pickle
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from members import member

from sweeps import cli
from sweeps.artefacts import Stages
from sweeps.commands.reply import _turns
from sweeps.exact_json import JSON, dumps
from sweeps.journal import encode_line, process_name
from sweeps.leases import Lease, Leases
from sweeps.policy import wanted_trial
from sweeps.shares import shares_line
from sweeps.store import Store, StoreError, store_folder

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", durable=False)


def finished(score: float, **more: Any) -> dict[str, Any]:
    return {"status": "finished", "reason": None, "score": score, "score_sd": 0.5, "episodes": 4} | more


def fill(store: Store, sweep: str, **trials: dict[str, Any]) -> None:
    store.put("sweep", sweep, {"task": "bandit", "created_at": "2026-01-02T03:04:05Z"})
    for trial_id, value in trials.items():
        store.put("member", f"{sweep}/{trial_id}", value)


# Where it is, and opening it


def test_the_store_is_at_the_option_else_the_variable_else_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SWEEPS_STORE", raising=False)
    assert store_folder(None) == tmp_path / ".sweeps" / "store"
    monkeypatch.setenv("SWEEPS_STORE", "elsewhere")
    assert store_folder(None) == Path.cwd() / "elsewhere"
    assert store_folder("~/mine") == tmp_path / "mine"
    assert store_folder("~nobody99/x") == Path.cwd() / "~nobody99" / "x"


def test_opening_again_finds_what_was_put(store: Store) -> None:
    store.put("sweep", "a", {"decode.beta": math.inf})
    assert Store(store.folder).get("sweep", "a") == {"decode.beta": math.inf}
    assert pickle.loads(pickle.dumps(store)).get("sweep", "a") == {"decode.beta": math.inf}  # noqa: S301


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: folder.write_text("x"), "must be a folder, got the file"),
        (lambda folder: (folder / "thesis.tex").mkdir(parents=True), "holds thesis.tex"),
        (lambda folder: _mark(folder, '{"format": 99}'), "must be of format 1, got 99"),
        (lambda folder: _mark(folder, "{"), "is damaged"),
    ],
)
def test_what_is_no_store_of_ours_is_refused_in_one_line(tmp_path: Path, prepare: Any, message: str) -> None:
    prepare(tmp_path / "store")
    with pytest.raises(ValueError, match=message) as caught:
        Store(tmp_path / "store")
    assert "\n" not in str(caught.value)


def test_a_folder_under_a_file_cannot_become_a_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="cannot be opened: Not a directory"):
        Store(tmp_path / "file" / "store")


def test_a_store_has_an_id_that_stays_and_no_other_store_has(tmp_path: Path) -> None:
    one, other = Store(tmp_path / "one"), Store(tmp_path / "other")
    assert re.fullmatch("[0-9a-f]{16}", one.id)
    assert one.id != other.id
    assert Store(tmp_path / "one").id == pickle.loads(pickle.dumps(one)).id == one.id  # noqa: S301


def test_processes_that_make_one_store_at_once_agree_on_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = os.link, []

    def after_another(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "link", real)
        seen.append(Store(tmp_path / "store").id)  # another process, between our looking and our writing
        real(source, target)

    monkeypatch.setattr(os, "link", after_another)
    assert [Store(tmp_path / "store").id] == seen == [Store(tmp_path / "store").id]
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["store.json"]


def test_a_store_is_made_also_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(source: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    assert Store(tmp_path / "store").id == Store(tmp_path / "store").id != ""


def test_a_store_of_an_earlier_version_has_no_id(tmp_path: Path) -> None:
    _mark(tmp_path / "store", '{"format": 1, "made_at": "2026-01-01T00:00:00Z"}')
    assert Store(tmp_path / "store").id == ""


def _mark(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "store.json").write_text(text)


def test_importing_the_store_loads_no_tracker_and_no_learner() -> None:
    code = "import sys, sweeps.store, sweeps.mirror; print(*({'mlflow', 'torch', 'ray', 'optuna'} & set(sys.modules)))"
    root = Path(__file__).parents[2]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""


# Stages


def test_a_stage_is_there_only_when_complete_and_says_what_made_it(store: Store) -> None:
    seen: list[Path | None] = []

    def make(folder: Path) -> Mapping[str, JSON]:
        seen.append(store.stage("weights", "ab12"))
        (folder / "deep").mkdir()
        (folder / "deep" / "w.bin").write_bytes(b"abc")
        return {"skipped": 3}

    assert store.stage("weights", "ab12") is None
    folder = store.build("weights", "ab12", make, {"tau": 0.7, "beta": math.inf})
    assert seen == [None]
    assert folder == store.stage("weights", "ab12") == store.folder / "stages" / "weights" / "ab" / "ab12"
    about = store.about("weights", "ab12")
    assert about is not None
    assert (about["kind"], about["key"], about["about"]) == ("weights", "ab12", {"tau": 0.7, "beta": math.inf})
    assert about["notes"] == {"skipped": 3}
    assert about["files"] == {"deep/w.bin": {"bytes": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}}
    assert about["seconds"] >= 0
    assert store.build("weights", "ab12", lambda _: pytest.fail("made twice"), {}) == folder
    assert store.problems() == []


def test_a_builder_that_raises_leaves_nothing_and_can_try_again(store: Store) -> None:
    def raising(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise RuntimeError("diverged")

    with pytest.raises(RuntimeError, match="diverged"):
        store.build("weights", "ab12", raising, {})
    assert list((store.folder / "stages" / "weights" / "ab").iterdir()) == []
    assert store.build("weights", "ab12", _make_one, {}).is_dir()


def test_a_disk_that_fills_while_building_is_one_line(store: Store) -> None:
    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StoreError, match="stage weights/ab12 could not be written: No space left on device"):
        store.build("weights", "ab12", full, {})
    assert store.stage("weights", "ab12") is None


def test_only_plain_files_make_a_stage(store: Store) -> None:
    with pytest.raises(ValueError, match="plain files only, got out"):
        store.build("weights", "ab12", lambda folder: (folder / "out").symlink_to("/etc"), {})
    with pytest.raises(ValueError, match=r"about\.json is written by the store"):
        store.build("weights", "ab12", lambda folder: (folder / "about.json").mkdir(), {})
    with pytest.raises(ValueError, match="key must be made of letters"):
        store.stage("weights", "../../etc")


def test_a_durable_stage_is_synced_file_by_file_before_it_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    durable = Store(tmp_path / "store", durable=True)
    fsync, synced, done = os.fsync, [], []

    def watch(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name.split("@")[0])
        done.append(durable.stage("weights", "ab12") is not None)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    durable.build("weights", "ab12", _make_one, {})
    assert sorted(synced[:-1]) == [".building", "about.json", "w.bin"]
    assert (synced[-1], done) == ("ab", [False, False, False, True])


def test_a_stage_that_lost_a_file_is_not_complete_and_is_built_anew(store: Store) -> None:
    folder = store.build("weights", "ab12", _make_one, {})
    (folder / "w.bin").write_bytes(b"")
    assert store.stage("weights", "ab12") is None
    assert (store.build("weights", "ab12", _make_one, {}) / "w.bin").read_bytes() == b"abc"
    (problem,) = store.problems()
    assert problem.startswith("stage weights/ab12: a copy was damaged: ")


def test_of_two_who_find_a_stage_damaged_neither_minds_that_the_other_set_it_aside(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store.build("weights", "ab12", _make_one, {})
    (folder / "w.bin").write_bytes(b"")
    rename = Path.rename

    def after_the_other(path: Path, target: Path) -> Path:
        if ".damaged" in target.name:
            monkeypatch.setattr(Path, "rename", rename)
            rename(path, target.with_name(f"{target.name}0"))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", after_the_other)
    assert (store.build("weights", "ab12", _make_one, {}) / "w.bin").read_bytes() == b"abc"


def test_scratch_lasts_until_its_stage_is_complete(store: Store) -> None:
    scratch = store.scratch("weights", "ab12")
    (scratch / "curve.jsonl").write_text('{"step": 1}\n')
    assert store.curve("ab12") == scratch / "curve.jsonl"
    assert store.stage("weights", "ab12") is None

    def make(folder: Path) -> None:
        (folder / "curve.jsonl").write_text((store.scratch("weights", "ab12") / "curve.jsonl").read_text())

    folder = store.build("weights", "ab12", make, {})
    assert not scratch.exists()
    assert store.curve("ab12") == folder / "curve.jsonl"
    assert store.curve("cd34") is None
    assert not list((store.folder / "scratch").rglob("*@*"))


def _make_one(folder: Path) -> None:
    (folder / "w.bin").write_bytes(b"abc")


def _build_slowly(folder: str, name: str) -> None:
    def make(into: Path) -> None:
        (into / "who").write_text(name)
        (Path(folder) / f"{name}-is-building").touch()
        while len(list(Path(folder).glob("*-is-building"))) < 2:  # both are in here before either is done
            time.sleep(0.01)

    built = Store(Path(folder) / "store", durable=False).build("weights", "ab12", make, {})
    (Path(folder) / f"{name}-got").write_text((built / "who").read_text())


def test_of_two_builders_one_wins_and_both_use_it(tmp_path: Path) -> None:
    builders = [SPAWN.Process(target=_build_slowly, args=(str(tmp_path), name)) for name in ("one", "two")]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
        assert builder.exitcode == 0
    assert (tmp_path / "one-got").read_text() == (tmp_path / "two-got").read_text()
    assert [path.name for path in (tmp_path / "store" / "stages" / "weights" / "ab").iterdir()] == ["ab12"]


def test_what_a_killed_builder_left_is_named_and_swept_when_old_by_the_next(store: Store) -> None:
    host = process_name().rsplit("-", 2)[0]
    shelf = store.folder / "stages" / "weights" / "ab"
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = {
        f"{host}-{dead.pid}-00000000": True,  # dead for hours: swept
        f"{host}-{os.getpid()}-00000000": False,  # lives
        f"otherhost-{dead.pid}-00000000": False,  # nobody here can know
    }
    for builder in left:
        (shelf / f".building@ab12@{builder}").mkdir(parents=True)
        os.utime(shelf / f".building@ab12@{builder}", (time.time() - 7200,) * 2)
    (shelf / f".building@ab12@{host}-{dead.pid}-11111111").mkdir()  # dead, but only just
    assert len(store.problems()) == 4
    assert "was not completed" in store.problems()[0]
    store.build("weights", "ab12", _make_one, {})
    swept = {builder: not (shelf / f".building@ab12@{builder}").exists() for builder in left}
    assert swept == left
    assert len(store.problems()) == 3


def test_a_stage_found_by_another_process_is_whole_at_any_time(tmp_path: Path) -> None:
    # `find` on a folder that has its files but no about.json yet, as a crash between two renames would leave it.
    stages = Stages(tmp_path, durable=False)
    (tmp_path / "stages" / "weights" / "ab" / "ab12").mkdir(parents=True)
    (tmp_path / "stages" / "weights" / "ab" / "ab12" / "w.bin").write_bytes(b"a")
    assert stages.find("weights", "ab12") is None


def _edit_about(folder: Path, **changes: object) -> None:
    """An about.json of an earlier version, which has no digest, with other fields; None takes one away."""
    about = json.loads((folder / "about.json").read_text()) | changes
    del about["digest"]
    (folder / "about.json").write_text(json.dumps({name: value for name, value in about.items() if value is not None}))


def test_a_stage_of_an_earlier_version_says_no_digest_and_is_whole(store: Store) -> None:
    folder = store.build("weights", "ab12", _make_one, {"tau": 0.7})
    _edit_about(folder)
    assert store.stage("weights", "ab12") == folder
    assert (store.about("weights", "ab12") or {})["about"] == {"tau": 0.7}


def test_a_stage_that_is_anothers_is_never_used(store: Store) -> None:
    one, two = (store.build("weights", key, _make_one, {}) for key in ("ab12", "ab34"))
    one.rename(one.with_name("away"))
    two.rename(one)
    one.with_name("away").rename(two)
    for key, other in (("ab12", "ab34"), ("ab34", "ab12")):
        assert store.stage("weights", key) is store.about("weights", key) is None
        assert f"about.json is of weights/{other}" in (store.stage_flaw("weights", key) or "")
    shutil.copytree(one, store.folder / "stages" / "evaluation" / "ab" / "ab34")
    assert store.stage("evaluation", "ab34") is None


def test_an_about_that_was_changed_is_that_of_no_stage(store: Store) -> None:
    folder = store.build("weights", "ab12", _make_one, {"tau": 0.7})
    text = (folder / "about.json").read_text()
    for changed in (text.replace("0.7", "0.8"), text.replace('"tau"', '"tua"'), json.dumps(json.loads(text))):
        (folder / "about.json").write_text(changed)
        assert (store.stage("weights", "ab12"), store.stage_flaw("weights", "ab12")) == (None, "about.json was changed")
    (folder / "about.json").write_text(text)
    assert store.stage("weights", "ab12") == folder


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "evaluation"}, {"key": None}, {"about": "x"}, {"about": None}, {"notes": "x"}, {"seconds": "x"},
        {"seconds": None}, {"files": ["w.bin"]}, {"files": {"w.bin": 3}}, {"files": {"w.bin": {"bytes": 3.0}}},
        {"files": {"a\0b": {"bytes": 3, "sha256": ""}}}, {"files": {"x" * 300: {"bytes": 3, "sha256": ""}}},
    ],
)  # fmt: skip
def test_an_about_that_says_something_else_than_ours_is_that_of_no_stage(store: Store, change: dict[str, Any]) -> None:
    folder = store.build("weights", "ab12", _make_one, {})
    _edit_about(folder, **change)
    assert store.stage("weights", "ab12") is store.about("weights", "ab12") is None
    assert store.stage_flaw("weights", "ab12")


@pytest.mark.parametrize("name", ["about.json", "w.bin"])
@pytest.mark.timeout(20)
def test_a_pipe_in_a_stage_is_not_waited_for(store: Store, name: str) -> None:
    folder = store.build("weights", "ab12", lambda folder: (folder / "w.bin").touch(), {})
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert store.stage("weights", "ab12") is store.about("weights", "ab12") is None


def test_an_about_without_an_end_is_not_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweeps.artefacts._LONGEST_ABOUT", 2**16)
    folder = store.build("weights", "ab12", _make_one, {})
    with (folder / "about.json").open("a") as end:
        end.write(" " * 2**16)
    assert store.stage_flaw("weights", "ab12") == "about.json cannot be read (more than 65536 bytes)"


def test_a_file_in_a_stages_place_is_set_aside(store: Store) -> None:
    place = store.folder / "stages" / "weights" / "ab" / "ab12"
    place.parent.mkdir(parents=True)
    place.write_text("mine")
    assert store.stage("weights", "ab12") is None
    assert store.build("weights", "ab12", _make_one, {}) == store.stage("weights", "ab12") == place
    (left,) = store.leftovers()
    assert left.read_text() == "mine"


def test_a_file_in_place_of_the_stages_folder_is_one_line(store: Store) -> None:
    (store.folder / "stages").write_text("")
    assert store.stage("weights", "ab12") is None
    with pytest.raises(StoreError, match="could not be made"):
        store.build("weights", "ab12", _make_one, {})


# Tables


def test_runs_join_member_evaluation_and_training(store: Store) -> None:
    fill(store, "s", a=member("s", "a", "w", arm="mine", tune_trial_id="a-tune", columns={"decode.beta": math.inf}))
    store.put("training", "w", {"status": "finished", "train_seconds": 7.5, "code_digest": "old"})
    store.put("evaluation", "a-tune", finished(-1.0))
    store.put(
        "evaluation",
        "a",
        finished(
            -2.5, measures={"turns": 9.0}, evaluate_seconds=3, code_digest="new", started_at="t0", finished_at="t1"
        ),
    )
    frame = store.runs("s")
    assert frame.rows(named=True) == [
        {
            "sweep": "s",
            "origin": "design",
            "arm": "mine",
            "method": "ilql",
            "cell_id": "cell-a",
            "trial_id": "a",
            "weights_id": "w",
            "seed": 0,
            "status": "finished",
            "reason": None,
            "task": "bandit",
            "data.reward": "win",
            "evaluation.reward": "win",
            "evaluation.split": "report",
            "evaluation.episodes": 4,
            "score": -2.5,
            "score_sd": 0.5,
            "tune_score": -1.0,
            "episodes": 4,
            "train_seconds": 7.5,
            "evaluate_seconds": 3.0,
            "tune_seconds": None,
            "code_digest": "new",
            "started_at": "t0",
            "finished_at": "t1",
            "train.tau": 0.7,
            "decode.beta": math.inf,
            "measure.turns": 9.0,
        }
    ]
    assert frame.schema["seed"] == pl.Int64
    assert frame.schema["evaluate_seconds"] == pl.Float64


def test_a_member_that_names_no_arm_is_its_methods(store: Store) -> None:
    fill(store, "s", a=member("s", "a", "w"))
    store.put("evaluation", "a", finished(-1.0))
    assert store.runs("s")["arm"].to_list() == ["ilql"]


def test_what_failed_is_a_row_and_what_is_still_to_come_is_none(store: Store) -> None:
    fill(
        store,
        "s",
        diverged=member("s", "diverged", "w1"),
        broken=member("s", "broken", "w2"),
        pruned=member("s", "pruned", "w1", status="stopped", reason="at rung 1"),
        waiting=member("s", "waiting", "w2"),
    )
    store.put("training", "w1", {"status": "failed", "reason": "loss is NaN", "train_seconds": 2.0})
    store.put("training", "w2", {"status": "finished", "train_seconds": 1.0})
    store.put("evaluation", "broken", {"status": "failed", "reason": "server gone", "score": -9.0})
    frame = store.runs("s").select("trial_id", "status", "reason", "score", "train_seconds")
    assert frame.rows() == [
        ("broken", "failed", "server gone", None, 1.0),
        ("diverged", "failed", "loss is NaN", None, 2.0),
        ("pruned", "stopped", "at rung 1", None, 2.0),  # its own reason before its training's
    ]


def test_a_tune_score_needs_a_finished_tune_evaluation(store: Store) -> None:
    fill(store, "s", a=member("s", "a", "w", tune_trial_id="t"), b=member("s", "b", "w", tune_trial_id="gone"))
    for key in ("a", "b"):
        store.put("evaluation", key, finished(1.0))
    store.put("evaluation", "t", {"status": "failed", "score": 3.0})
    assert store.runs()["tune_score"].to_list() == [None, None]


def test_columns_of_methods_that_differ_stand_side_by_side(store: Store) -> None:
    fill(
        store,
        "s",
        a=member("s", "a", "w", columns={"train.keep": 1, "backbone.model": "gpt2", "train.heads": [1, 2]}),
        b=member("s", "b", "w", columns={"train.keep": 0.2, "train.polyak": None, "train.double": True}),
        c=member("s", "c", "w", columns={"decode.top_k": 5, "train.heads": 3}),
    )
    for key in ("a", "b", "c"):
        store.put("evaluation", key, finished(1.0))
    frame = store.runs("s")
    assert frame["train.keep"].to_list() == [1.0, 0.2, None]  # whole and broken numbers: floats
    assert frame["decode.top_k"].to_list() == [None, None, 5]
    assert frame["train.double"].to_list() == [None, True, None]
    assert frame["train.heads"].to_list() == ["[1,2]", None, "3"]
    names = [name for name in frame.columns if name.startswith(("train.", "decode.", "backbone."))]
    assert names == [
        "train.double",
        "train.heads",
        "train.keep",
        "train.polyak",
        "train.tau",
        "decode.beta",
        "decode.top_k",
        "backbone.model",
    ]


def test_an_empty_store_has_empty_tables_with_all_columns(store: Store) -> None:
    assert store.runs().shape[0] == 0
    assert {"score", "tune_score", "evaluation.split"} <= set(store.runs().columns)
    assert store.episodes([]).columns[:2] == ["trial_id", "episode_seed"]


def test_a_record_of_the_wrong_type_is_refused_and_where_it_is_there_left_out_and_named(store: Store) -> None:
    fill(store, "s", a=member("s", "a", "w"), b=member("s", "b", "w"))
    odd = finished(1.0) | {"score": "high"}
    with pytest.raises(ValueError, match="the evaluation a must have a number as 'score', got str 'high'"):
        store.put("evaluation", "a", odd)
    store.put_all("evaluation", {"a": finished(1.0), "b": finished(2.0)})
    line = encode_line(0, 2**62, "evaluation", "a", dumps(odd))
    (store.folder / "journals" / "other-1-00000000.jsonl").write_bytes(line)
    assert sorted(store.runs()["score"]) == [1.0, 2.0]  # what it had before counts
    (problem,) = Store(store.folder).problems()
    assert problem == (
        "record evaluation a must have a number as 'score', got str 'high'; left out (line 1 of other-1-00000000.jsonl)"
    )


def _episodes(returns: list[float], **more: list[Any]) -> Any:
    columns = {"episode_seed": list(range(len(returns))), "return": returns, "transcript": ["[]"] * len(returns)}

    def make(folder: Path) -> None:
        pl.DataFrame(columns | more).write_parquet(folder / "episodes.parquet")

    return make


def test_episodes_come_from_the_stages_in_the_order_asked_for(store: Store) -> None:
    store.build("evaluation", "aa", _episodes([1.0, 2.0]), {})
    store.build("evaluation", "bb", _episodes([3.0], **{"return.win": [0.5]}), {})
    frame = store.episodes(["bb", "aa", "failed"])
    assert frame.select("trial_id", "episode_seed", "return", "return.win").rows() == [
        ("bb", 0, 3.0, 0.5),
        ("aa", 0, 1.0, None),
        ("aa", 1, 2.0, None),
    ]
    assert store.episodes(["bb", "aa"], ["return"]).columns == ["trial_id", "return"]
    with pytest.raises(ValueError, match="no episode has a column 'retrun'"):
        store.episodes(["aa"], ["retrun"])


def test_episodes_of_stages_alike_are_those_of_each(store: Store) -> None:
    store.build("evaluation", "aa", _episodes([1.0, 2.0]), {})
    store.build("evaluation", "bb", _episodes([3.0]), {})
    frame = store.episodes(["bb", "aa"], ["return"])
    assert frame.rows() == [("bb", 3.0), ("aa", 1.0), ("aa", 2.0)]


def test_episodes_of_a_finished_evaluation_that_are_gone_or_unreadable_are_an_error(store: Store) -> None:
    store.put("evaluation", "aa", finished(1.0))
    with pytest.raises(StoreError, match="aa finished, but its episodes are gone"):
        store.episodes(["aa"])
    store.build("evaluation", "aa", lambda folder: (folder / "episodes.parquet").mkdir(), {})
    with pytest.raises(StoreError, match="could not be read"):
        store.episodes(["aa"])


def test_compacting_writes_the_rows_for_others_and_keeps_the_truth(store: Store) -> None:
    fill(store, "s", a=member("s", "a", "w"))
    store.put("evaluation", "a", finished(1.0))
    before = sorted((store.folder / "journals").iterdir())
    path = store.compact()
    assert path == store.folder / "rows" / "runs.parquet"
    assert pl.read_parquet(path).equals(store.runs())
    assert sorted((store.folder / "journals").iterdir()) == before
    assert [each.name for each in path.parent.iterdir()] == ["runs.parquet"]


# Several sweeps


def test_sweeps_are_listed_with_what_they_have(store: Store) -> None:
    fill(
        store,
        "s",
        a=member("s", "a", "w"),
        b=member("s", "b", "w", cell_id="cell-a"),
        c=member("s", "c", "w", method="bc"),
        d=member("s", "d", "w"),
    )
    store.put("evaluation", "a", finished(1.0))
    store.put("evaluation", "b", {"status": "failed", "reason": "x"})
    store.put("evaluation", "c", {"status": "stopped", "reason": "x"})
    (info,) = store.sweeps()
    assert (info.name, info.created_at, info.task) == ("s", "2026-01-02T03:04:05Z", "bandit")
    assert info.methods == ("bc", "ilql")
    assert (info.cells, info.wanted, info.done, info.failed, info.stopped) == (3, 4, 1, 1, 1)


def test_removing_a_sweep_leaves_what_others_share(store: Store) -> None:
    fill(store, "one", a=member("one", "a", "w"), b=member("one", "b", "w"))
    fill(store, "two", a=member("two", "a", "w"))
    store.put("evaluation", "a", finished(1.0))
    assert store.remove_sweep("one") == 2
    assert [info.name for info in Store(store.folder).sweeps()] == ["two"]
    assert store.runs()["sweep"].to_list() == ["two"]
    with pytest.raises(ValueError, match=r"no sweep 'one' in .*; known: two"):
        store.remove_sweep("one")
    fill(store, "one", a=member("one", "a", "w"))
    assert store.runs("one")["score"].to_list() == [1.0]


# Faults and size


def test_a_store_that_may_not_be_written_is_read_all_the_same(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("evaluation", "a", finished(1.0))
    opened = os.open

    def read_only(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return opened(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", read_only)
    again = Store(store.folder)
    with pytest.raises(StoreError, match="could not be written: Read-only file system"):
        again.put("evaluation", "b", finished(2.0))
    assert set(again.all("evaluation")) == {"a"}


def test_a_look_at_no_change_reads_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(1_000):
        store.put("evaluation", f"k{i}", finished(float(i), measures={"turns": 9.0}))
    other = Store(store.folder)
    other.put("evaluation", "another", finished(0.0))
    assert len(other.all("evaluation")) == len(store.all("evaluation")) == 1_001
    opened: list[str] = []
    open_file = os.open

    def watch(path: str, *how: Any, **named: Any) -> int:
        opened.append(path)
        return open_file(path, *how, **named)

    monkeypatch.setattr(os, "open", watch)
    store.all("evaluation")
    store.put("evaluation", "what it knows", finished(0.0))
    assert len(store.all("evaluation")) == 1_002
    assert opened == []
    other.put("evaluation", "one more", finished(0.0))
    assert len(store.all("evaluation")) == 1_003
    assert len(opened) == 1


def test_under_a_lease_all_is_known_without_another_look(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def score(key: str, lease: Lease | None) -> float | None:
        return store.some("evaluation", [key], lease).get(key, {}).get("score")

    other = Store(store.folder)
    other.put("evaluation", "b", finished(1.0))
    lease = store.try_lease("a")
    assert lease is not None
    other.put("evaluation", "c", finished(1.0))
    monkeypatch.setattr(os, "scandir", lambda *_: pytest.fail("it looked"))
    assert (score("a", lease), score("b", lease)) == (None, 1.0)
    store.put("evaluation", "a", finished(2.0), lease)
    assert score("a", lease) == 2.0
    monkeypatch.undo()
    assert score("c", None) == 1.0
    lease.release()


def test_who_cannot_say_that_it_follows_holds_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StoreError("the store could not be written: No space left on device")

    held = store.try_lease("a")
    follower = Store(store.folder)
    follower._leases = Leases(store.folder / "leases", patience=-1.0)
    with monkeypatch.context() as patch:
        patch.setattr(follower._records, "claim", full)
        with pytest.raises(StoreError, match="No space left"):
            follower.try_lease("a")
    assert held is not None
    assert list(store.leases()) == []
    lease = store.try_lease("a")
    assert lease is not None
    lease.release()


def test_who_takes_a_lease_sees_what_was_written_before_it_could(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its earlier holder records and gives it back while another is about to take it."""
    earlier = Store(store.folder)
    held = earlier.try_lease("a")
    assert held is not None
    link = os.link

    def wait(*given: Any) -> None:
        monkeypatch.undo()
        earlier.put("evaluation", "a", finished(2.0), held)
        held.release()
        link(*given)

    monkeypatch.setattr(os, "link", wait)
    lease = store.try_lease("a")
    assert lease is not None
    assert store.some("evaluation", ["a"], lease)["a"]["score"] == 2.0
    lease.release()


def test_journals_are_lines_of_json(store: Store) -> None:
    store.put("evaluation", "a", finished(1.0))
    (journal,) = (store.folder / "journals").iterdir()
    assert json.loads(journal.read_text())["record"]["value"]["score"] == 1.0


def test_where_no_trial_has_an_id_it_says_how_many_there_are(store: Store) -> None:
    with pytest.raises(ValueError, match=r"'zzz' is no trial of the store .*; known: none$"):
        wanted_trial("zzz", store)
    fill(store, "s", **{f"t{number:02}": member("s", f"t{number:02}", "w") for number in range(12)})
    with pytest.raises(ValueError, match=r"known: t00, .*, t09 and 2 more, which `sweeps status` lists$"):
        wanted_trial("zzz", store)


def test_a_sweep_is_named_by_the_beginning_of_its_name(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("dialogue-laptop-0a", "dialogue-smoke-0a", "dialogue-smoke-0ab"):
        fill(store, name, **{f"t-{name}": member(name, f"t-{name}", "w")})
    where = ["--store", str(store.folder)]
    assert cli.main(["status", "dialogue-l", *where]) == 0
    assert capsys.readouterr().out.startswith("dialogue-laptop-0a: ")
    assert cli.main(["status", "dialogue-smoke-0a", *where]) == 0  # a whole name, and the beginning of another's
    assert capsys.readouterr().out.startswith("dialogue-smoke-0a: ")
    assert cli.main(["status", "dialogue-s", *where]) == 2
    assert "'dialogue-s' begins dialogue-smoke-0a, dialogue-smoke-0ab" in capsys.readouterr().err


def test_an_empty_first_text_lets_the_agent_begin() -> None:
    assert _turns(["hello", "good morning"]) == [("hello", False), ("good morning", True)]
    assert _turns(["", "good morning", "hello"]) == [("good morning", True), ("hello", False)]
    assert _turns([""]) == []


def test_nothing_is_said_of_what_was_shared_where_nothing_has_finished(store: Store) -> None:
    fill(store, "s", a=member("s", "a", "w"))
    assert shares_line(store, "s") is None
