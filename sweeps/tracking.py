"""A copy of the store's rows in MLflow, for looking at: it may be late, die or be deleted, and can be made again.

Runs are nested, sweep > training > evaluation (what is said of each: sweeps/exhibits.py), and found again by their tags
`sweeps.sweep`, `sweeps.kind` and `sweeps.key`, so nothing is ever logged twice: neither after a kill, nor by a second
mirror, nor when the database was deleted in between. What cannot be reached is reported in one line, once; the sweep
goes on, and the next `sync` that gets through sends what is missing.

MLflow has no infinities: metrics that are not finite are left out, their names stand in the tag `sweeps.not_finite`.
"""

from __future__ import annotations

import logging
import math
import os
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from cluster.redaction import without_secrets
from sweeps.exhibits import Exhibit, Point, by_size, evaluation, read_curve, telling_columns, text, training
from sweeps.leases import LeaseLostError, driver_key
from sweeps.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "ilql-ablations"
"""The MLflow experiment that holds the runs of all sweeps, so that runs of different sweeps can be compared."""

PATIENCE_SECONDS = 30.0
"""A tracker that takes longer than this for one call is given up on until the next `sync`."""

INTERVAL_SECONDS = 15.0
"""Between two updates while a sweep is carried out."""

STOPPED_SECONDS = 15.0
"""So long may a tracker take to hear that a sweep was stopped; a rerun tells it what it did not hear."""

_INODES: dict[Path, list[int | None]] = {}
"""The files that each SQLite database was to this process, one after the other."""

Status = Literal["finished", "failed", "stopped"]

_STATUS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
_KIND = {"mlflow.experimentKind": "custom_model_development"}  # else the page opens on traces, which we have none of
_PARENT = "mlflow.parentRunId"
_NOTE = "mlflow.note.content"
_METRICS, _PARAMS, _TAG_LENGTH = 900, 90, 8000  # MLflow takes 1,000 entities at once, 100 of them parameters

_log = logging.getLogger(__name__)


@dataclass
class _Mirrored:
    """What MLflow has of one run."""

    run_id: str
    started_ms: int
    status: str
    parent: str
    params: set[str]
    pushed: str = ""
    curve_step: int = -1
    not_finite: set[str] = field(default_factory=set)
    curve_file: tuple[Path, int] | None = None  # how far which file was read


def address(store: Store, uri: str | None) -> str:
    """The tracking store or server: as named, else `$MLFLOW_TRACKING_URI`, else SQLite in the store's folder."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{store.folder / 'mlflow.db'}"


class Mirror:
    """Keeps MLflow up to date with one sweep of the store.

    No method raises what the tracker raises, and none waits for it without a bound.

    As a context it keeps MLflow up to date within the block. However the block ends, by whatever is raised, a signal
    among it, no run is left running that can be reached: what `finish` has not ended by then ends as stopped. Only
    where another process drives the sweep since are they left alone, for that one keeps them up to date.

    Args:
        store: Where the rows come from.
        sweep: The sweep's name.
        uri: The tracking store or server; else `$MLFLOW_TRACKING_URI`, else SQLite in the store's folder.
    """

    def __init__(self, store: Store, sweep: str, uri: str | None = None) -> None:
        self._store = store
        self._sweep = sweep
        self._uri = address(store, uri)
        self._session: _Session | None = None
        self._lock = threading.Lock()  # one push at a time
        self._ticker: threading.Thread | None = None
        self._stop = threading.Event()
        self._halt = threading.Event()  # that of the push that is under way
        self._progress = 0.0
        self._complained = False
        self._ended = False

    def __enter__(self) -> Self:
        self.start(INTERVAL_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, LeaseLostError):
            self._stop.set()
            self._halt.set()
        elif not self._ended:
            self.finish((), "stopped", timeout_seconds=STOPPED_SECONDS)

    @property
    def uri(self) -> str:
        """The tracking address, fit for showing: without a password."""
        return without_secrets(self._uri)

    @property
    def command(self) -> str:
        """What to type to see the runs: a command for this machine only, or the server's address."""
        if self._uri.startswith(("http://", "https://")):
            return f"open {shlex.quote(self.uri)}"
        beside = Path(sys.executable).with_name("mlflow")
        program = str(beside) if beside.exists() else "mlflow"
        return (
            f"{shlex.quote(program)} server --backend-store-uri {shlex.quote(self.uri)} "
            "--host 127.0.0.1 --port 5000 --workers 1"
        )

    def start(self, interval_seconds: float = 10.0) -> None:
        """Call `sync` now and then, in a background thread, until `finish`."""
        self._stop.clear()
        self._ended = False
        self._ticker = threading.Thread(target=self._tick, args=(interval_seconds,), name="mlflow-mirror", daemon=True)
        self._ticker.start()

    def sync(self) -> bool:
        """Send what MLflow lacks. True if it has everything now, False if it could not be reached."""
        return self._supervise(self._push, math.inf)

    def finish(self, artefacts: Sequence[Path], status: Status = "finished", *, timeout_seconds: float = 120.0) -> bool:
        """Send files and everything that is missing, and end the runs; True if MLflow has all of it.

        Args:
            artefacts: Files and folders to attach to the sweep's run: the table, the plots. The first Markdown file
                also becomes the run's description. Those that do not exist are left out.
            status: How the sweep ended. Trainings that are neither finished nor failed end as stopped.
            timeout_seconds: Return after this time, finished or not; a later mirror of the sweep catches up.
        """
        self._stop.set()
        self._halt.set()  # of the push that is under way: its end may be far, and what it lacks is sent now
        sent = self._supervise(lambda: self._end(artefacts, status), timeout_seconds)
        self._ended = True  # not where that was interrupted
        return sent

    def _tick(self, interval_seconds: float) -> None:
        while not self._stop.is_set():
            self._supervise(self._push_unless_over, math.inf)
            self._stop.wait(interval_seconds)

    def _push_unless_over(self) -> None:
        if not self._stop.is_set():  # one that waited for its turn would set what has ended running again
            self._push()

    def _supervise(self, work: Callable[[], None], limit_seconds: float) -> bool:
        """Do `work` in a thread that can be left behind: some of MLflow's retries go on for hours."""
        faults: list[str] = []
        halt = threading.Event()
        started = self._progress = time.monotonic()
        worker = threading.Thread(target=self._attempt, args=(work, faults, halt), daemon=True)
        worker.start()
        try:
            while worker.is_alive():
                worker.join(0.5)
                now = time.monotonic()
                if worker.is_alive() and (now - started > limit_seconds or now - self._progress > PATIENCE_SECONDS):
                    halt.set()
                    faults.append(f"it did not take everything within {now - started:.0f} s")
                    break
        except BaseException:  # a signal: what comes next must not wait for this
            halt.set()
            raise
        if faults:
            self._complain(faults[0])
            return False
        self._complained = False
        return True

    def _attempt(self, work: Callable[[], None], faults: list[str], halt: threading.Event) -> None:
        while not self._lock.acquire(timeout=1.0):  # an earlier push is at it, or hangs
            if halt.is_set():
                return
        try:
            self._halt = halt
            work()
        except Exception as fault:  # noqa: BLE001  whatever the tracker raises, the sweep goes on
            self._session = None
            if not halt.is_set():  # else it was ended from without, and whoever did that says why
                faults.append((str(fault).strip() or type(fault).__name__).splitlines()[0])
        finally:
            self._lock.release()

    def _complain(self, fault: str) -> None:
        if not self._complained:
            self._complained = True
            reason = without_secrets(fault)
            _log.warning("MLflow at %s is behind: %s; the sweep goes on, a later sync catches up", self.uri, reason)

    def _moved(self) -> None:
        self._progress = time.monotonic()
        if self._halt.is_set():
            raise TimeoutError("it was too slow")

    def _connected(self) -> _Session:
        database, uri = _sqlite_file(self._uri), self._uri
        inodes = [] if database is None else _INODES.setdefault(database, [])
        if database is not None and (not inodes or inodes[-1] != _inode(database)):
            self._session = None  # it was deleted: a connection to it would write into nothing
            inodes.append(None)
        if self._session is None:
            if database is not None:
                # MLflow keeps one connection per address for good, also to a database that is no more; another
                # timeout makes another address.
                uri += f"{'&' if '?' in uri else '?'}timeout={5 + len(inodes)}"
            self._session = _Session(uri, _artefact_location(self._uri, self._store), self._sweep, self._moved)
            if database is not None:
                inodes[-1] = _inode(database)
        return self._session

    def _push(self) -> None:
        session = self._connected()
        root = self._sweep_run(session)
        session.set_status(root, "RUNNING")
        self._push_rows(session, root)

    def _end(self, artefacts: Sequence[Path], status: Status) -> None:
        self._session = None  # look again: what another mirror made meanwhile must not be made twice
        session = self._connected()
        session.over = True
        root = self._sweep_run(session)
        if status == "stopped":  # at once: there may be no time for what follows
            session.stop_running()
        session.attach(root, [path for path in artefacts if path.exists()])
        self._push_rows(session, root)
        session.stop_running(but=root)
        session.set_status(root, _STATUS[status])

    def _sweep_run(self, session: _Session) -> _Mirrored:
        record = self._store.get("sweep", self._sweep) or {}
        root = session.ensure("sweep", self._sweep, name=self._sweep, parent="", started=record.get("created_at"))
        facts = {name: text(value) for name, value in record.items() if isinstance(value, str | int | float)}
        session.describe(root, {f"sweeps.{name}": value for name, value in facts.items()})
        return root

    def _push_rows(self, session: _Session, root: _Mirrored) -> None:
        """Send the trainings that have begun, then the evaluations that have ended."""
        members = self._store.members(self._sweep)
        rows = {row["trial_id"]: row for row in self._store.rows(self._sweep)}
        trainings = self._store.all("training")
        telling = telling_columns(members)
        parents: dict[str, _Mirrored] = {}
        for member in members:
            weights_id = member["weights_id"]
            if weights_id not in parents:
                record, curve = trainings.get(weights_id, {}), self._store.curve(weights_id)
                if record or curve or member["trial_id"] in rows:
                    parents[weights_id] = session.push(training(member, record, telling), root, curve)
        for member in members:
            row = rows.get(member["trial_id"])
            if row is not None:
                session.push(evaluation(member, row, telling), parents[member["weights_id"]], None)


def remirror(store: Store, uri: str | None = None, asked: Sequence[str] | None = None) -> list[str]:
    """Bring MLflow up to date from the store alone; returns the names of the sweeps that could not be sent.

    A sweep that somebody drives goes on running there; others end, as stopped where results are still missing.

    Args:
        store: Where everything is.
        uri: As for `Mirror`.
        asked: Which sweeps; all by default.
    """
    behind = []
    for info in store.sweeps():
        if asked is not None and info.name not in asked:
            continue
        mirror = Mirror(store, info.name, uri)
        driving = store.settle_lease(driver_key(info.name))
        if driving is None:
            sent = mirror.sync()
        else:
            status: Status = "finished" if info.done + info.failed + info.stopped == info.wanted else "stopped"
            with driving:
                sent = mirror.finish(_report_files(store, info.name), status, timeout_seconds=math.inf)
        if not sent:
            behind.append(info.name)
    return behind


def _report_files(store: Store, sweep: str) -> list[Path]:
    """The files of a sweep's last report that stand for all of it, as `sweeps.reporting` chooses them."""
    files = (path for path in sorted((store.folder / "reports" / sweep).rglob("*")) if path.is_file())
    return [path for path in files if path.parent.name != "figures" or path.suffix == ".svg"]


class _Session:
    """A connection to MLflow that knows what it has of one sweep.

    Args:
        uri: The tracking address.
        artefacts: Where a new experiment keeps its files, or None for the server to choose.
        sweep: The sweep's name.
        moved: Called after each of MLflow's answers; may raise to end the session.

    Attributes:
        over: True once the sweep has ended: nothing is set running then.
    """

    def __init__(self, uri: str, artefacts: str | None, sweep: str, moved: Callable[[], None]) -> None:
        self.over = False
        self._client = _client(uri)
        self._sweep = sweep
        self._moved = moved
        self._experiment = _find_experiment(self._client, artefacts)
        self._runs: dict[tuple[str, str], _Mirrored] = {}
        for run in sorted(self._search(), key=lambda run: (run.info.start_time, run.info.run_id)):
            identity = (run.data.tags.get("sweeps.kind", ""), run.data.tags.get("sweeps.key", ""))
            if identity in self._runs:  # two mirrors made it at the same moment: keep the one that all keep
                self._client.delete_run(run.info.run_id)
            else:
                self._runs[identity] = _mirrored(run)
            moved()

    def ensure(self, kind: str, key: str, *, name: str, parent: str, started: str | None) -> _Mirrored:
        """The run of this kind and key, made now if there is none, and under its parent."""
        run = self._runs.get((kind, key))
        if run is None:
            tags = {"sweeps.sweep": self._sweep, "sweeps.kind": kind, "sweeps.key": key, _PARENT: parent}
            tags = {tag: value for tag, value in tags.items() if value}
            made = self._client.create_run(self._experiment, start_time=_ms(started), tags=tags, run_name=name)
            run = self._runs[kind, key] = _mirrored(made)
        elif run.parent != parent:  # its parent was one of two
            self._client.set_tag(run.run_id, _PARENT, parent)
            run.parent = parent
        self._moved()
        return run

    def push(self, exhibit: Exhibit, parent: _Mirrored, curve: Path | None) -> _Mirrored:
        """Send what MLflow lacks of the run, in an order that a kill at any point leaves to be completed."""
        run = self.ensure(
            exhibit.kind, exhibit.key, name=exhibit.name, parent=parent.run_id, started=exhibit.started_at
        )
        final = _STATUS.get(exhibit.status or "")
        if final and (run.status, run.pushed) == (final, exhibit.version):
            return run
        self.describe(run, {}, exhibit.params)
        if curve is not None:
            self._push_curve(run, curve, running=final is None)
        if final:
            ended = _ms(exhibit.finished_at) or run.started_ms
            tags = {**exhibit.tags, "sweeps.pushed": exhibit.version}
            self.log(run, [Point(max(run.curve_step, 0), exhibit.results)], tags, ended)
            self.set_status(run, final, exhibit.finished_at)
            run.pushed = exhibit.version
        return run

    def describe(self, run: _Mirrored, tags: Mapping[str, str], params: Mapping[str, str] | None = None) -> None:
        """Set tags, and the parameters that the run does not have yet (MLflow lets none be changed)."""
        from mlflow.entities import Param, RunTag  # noqa: PLC0415

        new = [(name, value) for name, value in (params or {}).items() if name not in run.params]
        for start in range(0, len(new), _PARAMS):
            some = new[start : start + _PARAMS]
            self._client.log_batch(run.run_id, params=[Param(name, value) for name, value in some])
            run.params.update(name for name, _ in some)
            self._moved()
        if tags:
            labels = [RunTag(name, value[:_TAG_LENGTH]) for name, value in tags.items()]
            self._client.log_batch(run.run_id, tags=labels)
            self._moved()

    def log(self, run: _Mirrored, points: Sequence[Point], tags: Mapping[str, str], at_ms: int | None = None) -> None:
        """Log the points' metrics, and with the last of them the tags.

        Without a time a point's own is made of its step: logged a second time it is then equal, and MLflow keeps one.
        """
        from mlflow.entities import Metric, RunTag  # noqa: PLC0415

        metrics = []
        for point in points:
            time_ms = run.started_ms + point.step if at_ms is None else at_ms
            run.not_finite.update(name for name, value in point.values.items() if not math.isfinite(value))
            finite = ((name, value) for name, value in point.values.items() if math.isfinite(value))
            metrics += [Metric(name, value, time_ms, point.step) for name, value in finite]
        labels = [RunTag(name, value[:_TAG_LENGTH]) for name, value in tags.items()]
        if run.not_finite:
            labels.append(RunTag("sweeps.not_finite", ", ".join(sorted(run.not_finite))))
        for start in range(0, len(metrics) or 1, _METRICS):
            last = start + _METRICS >= len(metrics)
            some = metrics[start : start + _METRICS]
            self._client.log_batch(run.run_id, metrics=some, tags=labels if last else [])
            self._moved()

    def set_status(self, run: _Mirrored, status: str, ended: str | None = None) -> None:
        """Let the run be running again, or end it."""
        if run.status != status:
            if status == "RUNNING":
                self._client.update_run(run.run_id, status=status)
            else:
                self._client.set_terminated(run.run_id, status, _ms(ended))
            run.status = status
            self._moved()

    def stop_running(self, *, but: _Mirrored | None = None) -> None:
        """End as stopped whatever is running, also what no row speaks of any more: it was half sent when one did."""
        for run in self._runs.values():
            if run.status == "RUNNING" and run is not but:
                self.set_status(run, _STATUS["stopped"])

    def attach(self, run: _Mirrored, paths: Sequence[Path]) -> None:
        """Upload files and folders; the first Markdown file also becomes the run's description."""
        for path in paths:
            if path.is_dir():
                self._client.log_artifacts(run.run_id, str(path), path.name)
            else:
                self._client.log_artifact(run.run_id, str(path))
            self._moved()
        notes = [path.read_text() for path in paths if path.suffix == ".md"]
        if notes:
            self.describe(run, {_NOTE: notes[0]})

    def _push_curve(self, run: _Mirrored, curve: Path, *, running: bool) -> None:
        offset = run.curve_file[1] if run.curve_file and run.curve_file[0] == curve else 0
        points, offset = read_curve(curve, offset, run.curve_step)
        if points and running and not self.over:
            self.set_status(run, "RUNNING")
        for some in by_size(points, _METRICS):
            self.log(run, some, {"sweeps.curve_step": str(some[-1].step)})
            run.curve_step = some[-1].step
        run.curve_file = (curve, offset)

    def _search(self) -> Iterator[Run]:
        quote = '"' if "'" in self._sweep else "'"
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment],
                f"tags.`sweeps.sweep` = {quote}{self._sweep}{quote}",
                max_results=1000,
                page_token=token,
            )
            self._moved()
            yield from page
            token = page.token
            if not token:
                return


def _mirrored(run: Run) -> _Mirrored:
    tags = run.data.tags
    return _Mirrored(
        run_id=run.info.run_id,
        started_ms=run.info.start_time,
        status=run.info.status,
        parent=tags.get(_PARENT, ""),
        params=set(run.data.params),
        pushed=tags.get("sweeps.pushed", ""),
        curve_step=int(tags.get("sweeps.curve_step", -1)),
        not_finite={name for name in tags.get("sweeps.not_finite", "").split(", ") if name},
    )


def _client(uri: str) -> MlflowClient:
    # MLflow reads these once, at import or at a call; what the user has set stands.
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # two lines for every run
    }.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient  # noqa: PLC0415  loading it takes seconds, which only those who mirror should pay

    for name in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what goes wrong is raised too, and told in one line
    return MlflowClient(tracking_uri=uri)


def open_experiment(store: Store, uri: str | None) -> tuple[str, str]:
    """The tracking address, and the id of the experiment of all sweeps there, made unless it is there.

    Args:
        store: Whose folder keeps the files of an experiment that is new, unless a server keeps them.
        uri: As for `address`.
    """
    at = address(store, uri)
    return at, _find_experiment(_client(at), _artefact_location(at, store))


def _find_experiment(client: MlflowClient, artefacts: str | None) -> str:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None and found.lifecycle_stage == "deleted":  # by hand; its name stays taken
        client.restore_experiment(found.experiment_id)
    if found is None:
        try:
            return str(client.create_experiment(EXPERIMENT, artifact_location=artefacts, tags=_KIND))
        except MlflowException:  # another mirror may have made it since we looked
            found = client.get_experiment_by_name(EXPERIMENT)
            if found is None:
                raise
    return str(found.experiment_id)


def _sqlite_file(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///").split("?")[0]) if uri.startswith("sqlite:///") else None


def _inode(file: Path) -> int | None:
    try:
        return file.stat().st_ino
    except OSError:
        return None


def _artefact_location(uri: str, store: Store) -> str | None:
    return None if uri.startswith(("http://", "https://")) else str(store.folder / "mlflow-artifacts")


def _ms(time_utc: str | None) -> int | None:
    try:
        return int(datetime.fromisoformat(time_utc).timestamp() * 1000) if time_utc else None
    except ValueError:
        return None
