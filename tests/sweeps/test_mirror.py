"""MLflow slow, failing, or gone for good: training goes on, the mirror catches up, one command makes it whole again."""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from members import member
from mlflow import MlflowClient

from sweeps import cli
from sweeps.driving import driving
from sweeps.mirror import Mirror
from sweeps.store import Store
from sweeps.tracking import EXPERIMENT
from sweeps.work import run_job

if TYPE_CHECKING:
    from conftest import Bench

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.fixture(autouse=True)
def _environment_is_put_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def fill(store: Store, sweep: str, trainings: int = 2) -> None:
    """A sweep with so many trainings of two evaluations each, all finished, and its report."""
    store.put("sweep", sweep, {"task": "bandit", "created_at": "2026-01-02T03:04:05Z"})
    times = {"started_at": "2026-01-02T03:04:05Z", "finished_at": "2026-01-02T03:05:05Z"}
    for number in range(trainings):
        weights_id = f"{sweep}-w{number}"
        with (store.scratch("weights", weights_id) / "curve.jsonl").open("w") as file:
            file.writelines(json.dumps({"step": step, "loss": 1 / step}) + "\n" for step in (1, 2, 3))
        store.put("training", weights_id, times | {"status": "finished", "steps": 3, "train_seconds": 60.0})
        for beta in (1.0, 4.0):
            trial_id = f"{weights_id}-{beta:g}"
            place = member(sweep, trial_id, weights_id, columns={"train.tau": number / 10, "decode.beta": beta})
            store.put("member", f"{sweep}/{trial_id}", place)
            result = {"status": "finished", "score": beta, "score_sd": 0.5, "episodes": 4, "measures": {"turns": 2.0}}
            store.put("evaluation", trial_id, result | times)
    report = store.folder / "reports" / sweep
    report.mkdir(parents=True)
    (report / "table.md").write_text(f"the table of {sweep}")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store", durable=False)
    fill(made, "one")
    fill(made, "two")
    return made


def mirrored(uri: str) -> dict[tuple[str, str], str]:
    """Status by sweep and key of every run; none is doubled."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    found = {(run.data.tags["sweeps.sweep"], run.data.tags["sweeps.key"]): run.info.status for run in runs}
    assert len(found) == len(runs), "a run is doubled"
    return found


def uri_of(store: Store, number: int = 1) -> str:
    """The store's own database; another number is another address of it, as MLflow keeps a deleted one's connection."""
    return f"sqlite:///{store.folder}/mlflow.db?timeout={100 + number}"


# Gone for good


def test_a_deleted_database_is_made_whole_by_one_command(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["mirror", str(store.folder)]) == 0
    before = mirrored(uri_of(store))
    assert len(before) == 2 * (1 + 2 + 4)  # sweep, trainings, evaluations
    (store.folder / "mlflow.db").unlink()
    assert cli.main(["mirror", str(store.folder)]) == 0
    assert mirrored(uri_of(store, 2)) == before
    assert set(before.values()) == {"FINISHED"}
    assert capsys.readouterr().out.splitlines()[-1] == f"store {store.folder}: MLflow has 2 sweeps whole"
    client = MlflowClient(tracking_uri=uri_of(store, 2))
    (run,) = client.search_runs(["1"], "tags.`sweeps.kind` = 'sweep' and tags.`sweeps.sweep` = 'one'")
    assert run.data.tags["mlflow.note.content"] == "the table of one"


def test_a_half_mirrored_one_is_completed_and_nothing_is_doubled(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    left = 9
    create = MlflowClient.create_run

    def dying(self: MlflowClient, *arguments: Any, **named: Any) -> Any:
        nonlocal left
        if (left := left - 1) < 0:
            raise ConnectionError("killed")
        return create(self, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_run", dying)
        assert cli.main(["mirror", str(store.folder)]) == 1
    assert "RUNNING" in mirrored(uri_of(store)).values()
    assert cli.main(["mirror", str(store.folder)]) == 0
    found = mirrored(uri_of(store))
    assert len(found) == 14
    assert set(found.values()) == {"FINISHED"}


def test_an_experiment_deleted_by_hand_comes_back(store: Store) -> None:
    assert cli.main(["mirror", str(store.folder)]) == 0
    client = MlflowClient(tracking_uri=uri_of(store))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    assert cli.main(["mirror", str(store.folder)]) == 0
    assert len(mirrored(uri_of(store))) == 14


def test_one_sweep_alone_can_be_mirrored(store: Store) -> None:
    assert cli.main(["mirror", "two", "--store", str(store.folder)]) == 0
    assert {sweep for sweep, _ in mirrored(uri_of(store))} == {"two"}


def test_a_sweep_that_is_not_there_is_one_line(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["mirror", "three", "--store", str(store.folder)]) == 2
    assert capsys.readouterr().err.startswith("error: 'three' is no sweep of this store; known: one, two")


def test_what_somebody_drives_goes_on_running(store: Store) -> None:
    with driving(store, "one", lambda line: None):
        assert cli.main(["mirror", str(store.folder)]) == 0
    found = mirrored(uri_of(store))
    assert (found["one", "one"], found["two", "two"]) == ("RUNNING", "FINISHED")


# Slow, or with errors


class Tracker(ThreadingHTTPServer):
    """As much of MLflow's server as a mirror speaks with, in memory, that can be made to wait or to fail.

    Attributes:
        delay_seconds: How long each answer takes.
        fails: Whether each answer is an error 500.
        asked: Requests so far.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.delay_seconds, self.fails, self.asked = 0.0, False, 0
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.lock = threading.Lock()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, call: str, given: dict[str, Any]) -> dict[str, Any]:
        """What one call of the REST interface gives."""
        if call == "experiments/get-by-name":
            return {"experiment": {"experiment_id": "1", "name": EXPERIMENT, "lifecycle_stage": "active"}}
        if call == "runs/create":
            run_id = uuid.uuid4().hex
            info = {
                "run_id": run_id, "run_uuid": run_id, "experiment_id": "1", "status": "RUNNING",
                "start_time": given["start_time"], "lifecycle_stage": "active", "run_name": given["run_name"],
            }  # fmt: skip
            self.runs[run_id] = {"info": info, "tags": {t["key"]: t["value"] for t in given["tags"]}, "metrics": set()}
            return {"run": _shown(self.runs[run_id])}
        if call == "runs/search":
            return {"runs": [_shown(run) for run in self.runs.values()]}
        run = self.runs[given["run_id"]]
        if call == "runs/log-batch":
            run["tags"] |= {tag["key"]: tag["value"] for tag in given.get("tags", [])}
            run["metrics"] |= {(m["key"], m.get("step", 0), m["value"]) for m in given.get("metrics", [])}
        elif call == "runs/update":
            run["info"]["status"] = given["status"]
            return {"run_info": run["info"]}
        elif call == "runs/set-tag":
            run["tags"][given["key"]] = given["value"]
        elif call != "runs/get":
            raise KeyError(call)
        return {"run": _shown(run)}


def _shown(run: dict[str, Any]) -> dict[str, Any]:
    return {"info": run["info"], "data": {"tags": [{"key": k, "value": v} for k, v in run["tags"].items()]}}


class _Answers(BaseHTTPRequestHandler):
    server: Tracker

    def do_GET(self) -> None:
        self._answer(dict(parse_qsl(urlsplit(self.path).query)))

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    do_PATCH = do_POST  # noqa: N815

    def _answer(self, given: dict[str, Any]) -> None:
        self.server.asked += 1
        time.sleep(self.server.delay_seconds)
        _, _, call = urlsplit(self.path).path.partition("/mlflow/")
        with self.server.lock:
            status, body = (500, {}) if self.server.fails else (200, self.server.answer(call, given))
        text = json.dumps(body).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
        except OSError:
            pass  # the client has given up

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def tracker() -> Iterator[Tracker]:
    server = Tracker()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.delay_seconds = 0.0
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("trouble", ["slow", "failing"])
def test_training_is_not_held_up_and_the_mirror_catches_up(bench: Bench, tracker: Tracker, trouble: str) -> None:
    """The server takes ten minutes for an answer, or fails, until the training is over; a training takes seconds.

    Whoever waited for one answer would not be done by then. When the server is well again, a mirror that begins anew
    sends what is missing: the sweep, its training with each point of the curve once, its evaluation.
    """
    trial = bench.trial()
    bench.store.put("sweep", "mine", {"task": "bandit"})
    place = {
        "sweep": "mine", "trial_id": trial.trial_id, "weights_id": trial.weights_id, "cell_id": trial.cell_id,
        "method": "ilql", "origin": "design", "seed": 0, "columns": trial.columns(), "tune_trial_id": None,
    }  # fmt: skip
    bench.store.put("member", f"mine/{trial.trial_id}", place)
    tracker.delay_seconds, tracker.fails = (600.0, False) if trouble == "slow" else (0.0, True)
    mirror = Mirror(bench.store, "mine", tracker.uri)
    mirror.start(0.1)
    begin = time.monotonic()
    assert run_job(bench.job(trial, trial), lambda numbers: time.sleep(0.05)) == "finished"
    assert not mirror.finish((), timeout_seconds=2.0)
    assert time.monotonic() - begin < 200
    assert tracker.asked > 0
    assert tracker.runs == {}
    tracker.delay_seconds, tracker.fails = 0.0, False
    assert Mirror(bench.store, "mine", tracker.uri).finish(())
    kinds = sorted((run["tags"]["sweeps.kind"], run["info"]["status"]) for run in tracker.runs.values())
    assert kinds == [("evaluation", "FINISHED"), ("sweep", "FINISHED"), ("training", "FINISHED")]
    (training,) = [run for run in tracker.runs.values() if run["tags"]["sweeps.kind"] == "training"]
    curve = bench.store.curve(trial.weights_id)
    assert curve is not None
    steps = [json.loads(line)["step"] for line in curve.read_text().splitlines()]
    assert sorted(step for name, step, _ in training["metrics"] if name == "loss") == steps


def test_what_was_half_sent_of_a_row_that_is_gone_ends_with_its_sweep(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = Mirror(store, "one")

    def gone(*_: object) -> None:
        raise ConnectionError("the server is gone")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_terminated", gone)
        assert not mirror.sync()
    assert "RUNNING" in mirrored(uri_of(store)).values()
    for each in list(store.members("one")):
        store.remove("member", f"one/{each['trial_id']}")
    assert mirror.finish((), "stopped")
    assert set(mirrored(uri_of(store)).values()) == {"KILLED"}


def test_a_push_that_waited_for_its_turn_sets_nothing_running_again(store: Store) -> None:
    mirror = Mirror(store, "one")
    assert mirror.finish(())
    mirror._push_unless_over()  # as the background thread would
    assert set(mirrored(uri_of(store)).values()) == {"FINISHED"}
