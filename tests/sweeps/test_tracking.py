"""The mirror in MLflow: complete, never doubled, and never the sweep's problem."""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from members import member
from mlflow import MlflowClient
from mlflow.entities import Run

from sweeps import patience
from sweeps.exhibits import Point, by_size, read_curve
from sweeps.mirror import Mirror, remirror
from sweeps.store import Store
from sweeps.tracking import EXPERIMENT

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow") / "mlflow.db"


@pytest.fixture
def uri(database: Path) -> str:
    return f"sqlite:///{database}"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", durable=False)


@pytest.fixture
def sweep(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)  # one database for the module: every test has a sweep of its own


@pytest.fixture(autouse=True)
def _environment_is_put_back() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def add(store: Store, sweep: str, trial_id: str, weights_id: str, **columns: Any) -> None:
    store.put("sweep", sweep, {"task": "bandit", "command": "sweeps run", "created_at": "2026-01-02T03:04:05Z"})
    store.put("member", f"{sweep}/{trial_id}", member(sweep, trial_id, weights_id, columns=columns))


def train(store: Store, weights_id: str, status: str = "finished", **more: Any) -> None:
    times: dict[str, Any] = {"started_at": "2026-01-02T03:04:05Z", "finished_at": "2026-01-02T03:05:05Z"}
    store.put("training", weights_id, times | {"status": status, "steps": 20, "train_seconds": 60.0} | more)


def evaluate(store: Store, trial_id: str, score: float | None, status: str = "finished", **more: Any) -> None:
    times: dict[str, Any] = {"started_at": "2026-01-02T03:06:00Z", "finished_at": "2026-01-02T03:06:30Z"}
    value: dict[str, Any] = {
        "status": status,
        "score": score,
        "score_sd": 0.5,
        "episodes": 4,
        "measures": {"turns": 9.0},
    }
    store.put("evaluation", trial_id, value | times | more)


def curve(store: Store, weights_id: str, *points: dict[str, float]) -> None:
    with (store.scratch("weights", weights_id) / "curve.jsonl").open("a") as file:
        file.writelines(json.dumps(point) + "\n" for point in points)


def found_runs(uri: str, sweep: str) -> list[Run]:
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], f"tags.`sweeps.sweep` = '{sweep}'"))


def runs(uri: str, sweep: str) -> dict[tuple[str, str], Run]:
    found = found_runs(uri, sweep)
    by_key = {(run.data.tags["sweeps.kind"], run.data.tags["sweeps.key"]): run for run in found}
    assert len(by_key) == len(found), "a run is doubled"
    return by_key


def history(uri: str, run: Run, name: str) -> list[tuple[int, float]]:
    points = MlflowClient(tracking_uri=uri).get_metric_history(run.info.run_id, name)
    return sorted((point.step, point.value) for point in points)


@pytest.fixture
def full(store: Store, sweep: str) -> Store:
    add(store, sweep, "a", "w", **{"decode.beta": 4.0})
    add(store, sweep, "b", "w", **{"decode.beta": math.inf})
    curve(store, "w", {"step": 10, "loss": 2.0, "lr": 0.1}, {"step": 20, "loss": 1.0})
    train(store, "w", metrics={"perplexity": 3.0})
    evaluate(store, "a", -2.5)
    evaluate(store, "b", None, "failed", reason="the answerer did not answer")
    return store


def test_sweep_training_and_evaluation_are_nested_with_all_that_is_known(
    full: Store, sweep: str, uri: str, tmp_path: Path
) -> None:
    (tmp_path / "table.md").write_text("| method | score |")
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "beta.html").write_text("<html>")
    artefacts = [tmp_path / "table.md", tmp_path / "plots", tmp_path / "not-made.pdf"]
    assert Mirror(full, sweep, uri).finish(artefacts)
    found = runs(uri, sweep)
    assert set(found) == {("sweep", sweep), ("training", "w"), ("evaluation", "a"), ("evaluation", "b")}
    root, training = found["sweep", sweep], found["training", "w"]
    a, b = found["evaluation", "a"], found["evaluation", "b"]
    parents = [run.data.tags.get("mlflow.parentRunId") for run in (root, training, a, b)]
    assert parents == [None, root.info.run_id, training.info.run_id, training.info.run_id]
    assert [run.info.status for run in (root, training, a, b)] == ["FINISHED", "FINISHED", "FINISHED", "FAILED"]

    assert root.data.tags["sweeps.command"] == "sweeps run"
    assert root.data.tags["mlflow.note.content"] == "| method | score |"
    files = MlflowClient(tracking_uri=uri).list_artifacts(root.info.run_id)
    assert [file.path for file in files] == ["plots", "table.md"]
    assert not str(root.info.artifact_uri).startswith(str(Path.cwd()))

    assert training.data.params == {
        "train.tau": "0.7",
        "data.reward": "win",
        "task": "bandit",
        "seed": "0",
        "weights_id": "w",
    }
    assert history(uri, training, "loss") == [(10, 2.0), (20, 1.0)]
    assert training.data.metrics["final.perplexity"] == 3.0
    assert training.data.metrics["train_seconds"] == 60.0
    assert training.info.end_time - training.info.start_time == 60_000

    assert (a.data.params["decode.beta"], b.data.params["decode.beta"]) == ("4.0", "inf")
    assert a.data.metrics == {
        "score": -2.5,
        "score_sd": 0.5,
        "episodes": 4.0,
        "measure.turns": 9.0,
        "train_seconds": 60.0,
    }
    assert (a.info.run_name, b.info.run_name) == ("ilql beta=4 seed=0 report", "ilql beta=inf seed=0 report")
    assert b.data.tags["sweeps.reason"] == "the answerer did not answer"
    assert "score" not in b.data.metrics


def test_mirroring_twice_doubles_neither_runs_nor_points(full: Store, sweep: str, uri: str) -> None:
    assert Mirror(full, sweep, uri).sync()
    first = runs(uri, sweep)
    again = Mirror(full, sweep, uri)  # a new process: it knows only what MLflow tells it
    assert again.sync()
    assert again.sync()
    assert again.finish(())
    second = runs(uri, sweep)
    assert {key: run.info.run_id for key, run in first.items()} == {key: run.info.run_id for key, run in second.items()}
    assert history(uri, second["training", "w"], "loss") == [(10, 2.0), (20, 1.0)]
    assert history(uri, second["evaluation", "a"], "score") == [(0, -2.5)]


def test_a_growing_curve_is_sent_as_it_grows_and_once(store: Store, sweep: str, uri: str) -> None:
    add(store, sweep, "a", "w")
    mirror = Mirror(store, sweep, uri)
    assert mirror.sync()
    assert set(runs(uri, sweep)) == {("sweep", sweep)}  # nothing has begun
    curve(store, "w", {"step": 1, "loss": 3.0})
    assert mirror.sync()
    assert runs(uri, sweep)["training", "w"].info.status == "RUNNING"
    # A kill; the resumed training writes step 2 and, from its checkpoint, step 1 again.
    curve(store, "w", {"step": 2, "loss": 2.0})
    assert mirror.sync()
    curve(store, "w", {"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 3, "loss": 1.0})
    with (store.scratch("weights", "w") / "curve.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # is being written
    assert Mirror(store, sweep, uri).sync()
    assert history(uri, runs(uri, sweep)["training", "w"], "loss") == [(1, 3.0), (2, 2.0), (3, 1.0)]


def test_what_a_kill_between_two_calls_left_is_completed(
    full: Store, sweep: str, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The process dies after each of its calls in turn, and a new one goes on.
    calls = ("create_run", "log_batch", "set_terminated", "update_run", "set_tag")
    originals = {name: getattr(MlflowClient, name) for name in calls}
    left = 0

    def dying(name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            if left == 0:
                raise ConnectionError("killed")
            left -= 1
            return originals[name](*arguments, **named)

        return call

    for name in calls:
        monkeypatch.setattr(MlflowClient, name, dying(name))
    for survived in (1, 2, 1, 3, 1, 2, 4, 1, 2, 3):
        left = survived
        Mirror(full, sweep, uri).sync()
    left = 1000
    assert Mirror(full, sweep, uri).finish(())
    found = runs(uri, sweep)
    assert len(found) == 4
    assert history(uri, found["training", "w"], "loss") == [(10, 2.0), (20, 1.0)]
    assert history(uri, found["evaluation", "a"], "score") == [(0, -2.5)]
    assert "RUNNING" not in {run.info.status for run in found.values()}


def test_a_deleted_database_is_filled_again_also_by_the_mirror_that_had_it_open(full: Store, sweep: str) -> None:
    mirror = Mirror(full, sweep)
    assert mirror.uri == f"sqlite:///{full.folder}/mlflow.db"
    assert mirror.sync()
    (full.folder / "mlflow.db").unlink()
    assert mirror.sync()
    assert len(runs(f"sqlite:///{full.folder}/mlflow.db?timeout=7", sweep)) == 4
    assert (full.folder / "mlflow.db").exists()


def test_runs_that_two_mirrors_made_at_once_become_one(full: Store, sweep: str, uri: str) -> None:
    mirror = Mirror(full, sweep, uri)
    assert mirror.sync()
    client = MlflowClient(tracking_uri=uri)
    found = runs(uri, sweep)
    old = found["training", "w"]
    twin = client.create_run(old.info.experiment_id, start_time=1, tags=dict(old.data.tags))  # began earlier: it stays
    assert mirror.finish(())  # looks again
    after = runs(uri, sweep)  # fails on doubles
    assert after["training", "w"].info.run_id == twin.info.run_id
    assert after["evaluation", "a"].data.tags["mlflow.parentRunId"] == twin.info.run_id
    assert history(uri, after["training", "w"], "final.perplexity")[0][1] == 3.0


@pytest.mark.parametrize("earlier", [False, True], ids=["with ids", "one of an earlier version"])
def test_equal_names_in_two_stores_are_two_sweeps_on_one_server(
    tmp_path: Path, sweep: str, uri: str, earlier: bool
) -> None:
    if earlier:
        (tmp_path / "store0").mkdir()
        (tmp_path / "store0" / "store.json").write_text('{"format": 1}')
    stores = [Store(tmp_path / f"store{number}", durable=False) for number in range(2)]
    for store in stores:
        add(store, sweep, "a", "w")
        curve(store, "w", {"step": 1, "loss": 3.0})
    mine, theirs = (Mirror(store, sweep, uri) for store in stores)
    assert mine.sync()
    assert theirs.sync()
    assert theirs.finish((), "stopped")
    assert mine.sync()
    statuses: dict[str, list[str]] = {}
    for run in found_runs(uri, sweep):
        statuses.setdefault(run.data.tags.get("sweeps.store", ""), []).append(run.info.status)
    assert statuses == {stores[0].id: ["RUNNING"] * 2, stores[1].id: ["KILLED"] * 2}
    assert mine.finish((), "stopped")


def test_a_stopped_sweep_leaves_nothing_running_and_runs_on_when_resumed(store: Store, sweep: str, uri: str) -> None:
    add(store, sweep, "a", "w1")
    add(store, sweep, "b", "w2")
    curve(store, "w1", {"step": 1, "loss": 3.0})
    train(store, "w2", "stopped", reason="at rung 1")
    assert Mirror(store, sweep, uri).finish((), "stopped")
    found = runs(uri, sweep)
    assert {key: run.info.status for key, run in found.items()} == {
        ("sweep", sweep): "KILLED",
        ("training", "w1"): "KILLED",
        ("training", "w2"): "KILLED",
        ("evaluation", "b"): "KILLED",
    }
    assert found["training", "w2"].data.tags["sweeps.reason"] == "at rung 1"
    curve(store, "w1", {"step": 2, "loss": 2.0})
    resumed = Mirror(store, sweep, uri)
    assert resumed.sync()
    found = runs(uri, sweep)
    assert found["sweep", sweep].info.status == found["training", "w1"].info.status == "RUNNING"
    train(store, "w1")
    evaluate(store, "a", 1.0)
    assert resumed.finish(())
    found = runs(uri, sweep)
    assert found["sweep", sweep].info.status == found["training", "w1"].info.status == "FINISHED"


def test_a_failed_training_that_later_finishes_is_shown_as_finished(store: Store, sweep: str, uri: str) -> None:
    add(store, sweep, "a", "w")
    train(store, "w", "failed", reason="worker lost")
    mirror = Mirror(store, sweep, uri)
    assert mirror.sync()
    assert {run.info.status for key, run in runs(uri, sweep).items() if key[0] != "sweep"} == {"FAILED"}
    train(store, "w")
    evaluate(store, "a", 1.0)
    assert mirror.sync()
    assert {run.info.status for key, run in runs(uri, sweep).items() if key[0] != "sweep"} == {"FINISHED"}


def test_numbers_that_mlflow_cannot_hold_are_named_instead(store: Store, sweep: str, uri: str) -> None:
    add(store, sweep, "a", "w")
    curve(store, "w", {"step": 1, "loss": math.nan, "lr": 0.1})
    train(store, "w", "failed", reason="loss is NaN")
    evaluate(store, "a", 1.0, measures={"log_ratio": -math.inf, "turns": 2.0})
    assert Mirror(store, sweep, uri).sync()
    found = runs(uri, sweep)
    assert found["training", "w"].data.tags["sweeps.not_finite"] == "loss"
    assert found["evaluation", "a"].data.tags["sweeps.not_finite"] == "measure.log_ratio"
    assert found["evaluation", "a"].data.metrics["measure.turns"] == 2.0
    assert "measure.log_ratio" not in found["evaluation", "a"].data.metrics


def test_methods_that_share_weights_share_one_training_run(store: Store, sweep: str, uri: str) -> None:
    add(store, sweep, "a", "w")
    add(store, sweep, "b", "w")
    sarsa = dict(store.all("member")[f"{sweep}/a"]) | {"method": "sarsa"}
    store.put("member", f"{sweep}/a", sarsa)
    train(store, "w")
    evaluate(store, "a", 1.0)
    evaluate(store, "b", 2.0)
    assert Mirror(store, sweep, uri).sync()
    found = runs(uri, sweep)
    assert [key for key in found if key[0] == "training"] == [("training", "w")]
    assert {found["evaluation", key].data.params["method"] for key in "ab"} == {"ilql", "sarsa"}


def test_all_sweeps_of_a_store_can_be_mirrored_anew(store: Store, sweep: str, uri: str) -> None:
    for name in (f"{sweep}-1", f"{sweep}-2"):
        add(store, name, "a", "w")
    add(store, f"{sweep}-2", "b", "w")
    train(store, "w")
    evaluate(store, "a", 1.0)
    assert remirror(store, uri) == []
    statuses = [runs(uri, name)["sweep", name].info.status for name in (f"{sweep}-1", f"{sweep}-2")]
    assert statuses == ["FINISHED", "KILLED"]  # the second still wants b


def test_the_background_thread_keeps_up_and_ends_with_finish(full: Store, sweep: str, uri: str) -> None:
    mirror = Mirror(full, sweep, uri)
    mirror.start(interval_seconds=0.05)
    enough = time.monotonic() + 30
    experiment_made = False
    while not experiment_made or len(runs(uri, sweep)) < 4:
        assert time.monotonic() < enough
        time.sleep(0.05)
        experiment_made = MlflowClient(tracking_uri=uri).get_experiment_by_name(EXPERIMENT) is not None
    assert mirror.finish(())
    ends = time.monotonic() + 10
    while any(thread.name == "mlflow-mirror" for thread in threading.enumerate()):
        assert time.monotonic() < ends
        time.sleep(0.05)
    assert {run.info.status for run in runs(uri, sweep).values()} == {"FINISHED", "FAILED"}


@pytest.mark.parametrize(
    "wrong", ["http://user:hunter2@127.0.0.1:9", "gopher://x", f"sqlite:///{__file__}/no-folder.db"]
)
def test_a_wrong_address_is_one_warning_and_no_error(
    full: Store, wrong: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 3.0)
    started = time.monotonic()
    mirror = Mirror(full, "s", wrong)
    with caplog.at_level(logging.WARNING):
        assert not mirror.sync()
        assert not mirror.sync()
        assert not mirror.finish([], timeout_seconds=5)
    assert time.monotonic() - started < 30
    (message,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert message.startswith("MLflow at ")
    assert "\n" not in message
    assert "hunter2" not in message + mirror.uri + mirror.command


def test_a_server_that_never_answers_is_given_up_on(
    full: Store, sweep: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and says nothing
        started = time.monotonic()
        assert not Mirror(full, sweep, f"http://127.0.0.1:{silent.getsockname()[1]}").finish([])
        assert time.monotonic() - started < 5
    assert "did not take everything" in caplog.text


def test_a_tracker_that_comes_back_gets_everything(
    full: Store, sweep: str, uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mirror = Mirror(full, sweep, uri)
    with monkeypatch.context() as broken:

        def gone(*_: Any, **__: Any) -> None:
            raise ConnectionError("it is gone\nand here is why")

        broken.setattr(MlflowClient, "log_batch", gone)
        assert not mirror.sync()
    assert "it is gone; the sweep goes on" in caplog.text
    assert mirror.sync()
    assert len(runs(uri, sweep)) == 4
    assert history(uri, runs(uri, sweep)["training", "w"], "loss") == [(10, 2.0), (20, 1.0)]


def test_the_address_is_the_argument_else_the_variable_and_the_command_listens_here_only(
    store: Store, sweep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000")
    assert Mirror(store, sweep).uri == "http://tracker:5000"
    assert Mirror(store, sweep).command == "open http://tracker:5000"
    assert Mirror(store, sweep, "sqlite:////x.db").uri == "sqlite:////x.db"
    command = Mirror(store, sweep, "sqlite:////my store/x.db").command
    assert "--backend-store-uri 'sqlite:////my store/x.db' --host 127.0.0.1" in command


def test_a_curve_is_read_from_where_it_was_left_and_bad_lines_cost_only_themselves(tmp_path: Path) -> None:
    path = tmp_path / "curve.jsonl"
    path.write_text('{"step": 1, "loss": 2}\nnonsense\n[1]\n{"loss": 1}\n{"step": 2, "loss": 1.5, "note": "x"}\n{"st')
    points, offset = read_curve(path, 0, -1)
    assert points == [Point(1, {"loss": 2.0}), Point(2, {"loss": 1.5})]
    with path.open("a") as file:
        file.write('ep": 3}\n{"step": 2, "loss": 9}\n')  # step 2 once more, after a resume
    assert read_curve(path, offset, 2)[0] == [Point(3, {})]
    assert read_curve(tmp_path / "gone", 7, 2) == ([], 7)


def test_points_are_sent_in_groups_that_split_none() -> None:
    points = [Point(step, {"a": 1.0, "b": 2.0}) for step in range(5)]
    assert [[point.step for point in group] for group in by_size(points, 5)] == [[0, 1], [2, 3], [4]]
    assert [len(group) for group in by_size(points, 1)] == [1] * 5


@pytest.mark.timeout(30)
def test_lines_that_are_no_points_are_skipped_and_nothing_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.exhibits._LONGEST_POINT", 2**12)
    odd = [
        "[1]",
        '{"step": "a"}',
        '{"loss": 1}',
        '{"step": 1e999}',
        "[" * 3000,
        "x",
        '{"step": 1, "loss": 1%s}' % ("0" * 400),
    ]
    path = tmp_path / "curve.jsonl"
    path.write_text("".join(line + "\n" for line in [*odd, '{"step": 2, "loss": 0.5}']) + "[" * 2**20)
    points, offset = read_curve(path, 0, -1)
    assert points == [Point(2, {"loss": 0.5})]
    assert read_curve(path, offset, 2) == ([], offset)
    path.unlink()
    os.mkfifo(path)
    assert read_curve(path, 0, -1) == ([], 0)
