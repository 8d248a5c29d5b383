"""MLflow as the mirror speaks with it: one connection, and what is known of one sweep's runs there.

Runs are found again by their tags `sweeps.store`, `sweeps.sweep`, `sweeps.kind` and `sweeps.key`, and each is asked for
before it is made. Another store's runs are let alone, however its sweeps are called: many may share a server. Stores of
earlier versions have no id, and their runs no such tag.

MLflow has no infinities: metrics that are not finite are left out, their names stand in `sweeps.not_finite`.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sweeps.exhibits import Exhibit, Point, by_size, read_curve
from sweeps.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "ilql-ablations"
"""The MLflow experiment that holds the runs of all sweeps, so that runs of different sweeps can be compared."""

_INODES: dict[Path, list[int | None]] = {}
"""The files that each SQLite database was to this process, one after the other."""

Status = Literal["finished", "failed", "stopped"]

_STATUS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
_KIND = {"mlflow.experimentKind": "custom_model_development"}  # else the page opens on traces, which we have none of
_PARENT = "mlflow.parentRunId"
_NOTE = "mlflow.note.content"
_METRICS, _PARAMS, _TAG_LENGTH = 900, 90, 8000  # MLflow takes 1,000 entities at once, 100 of them parameters


@dataclass
class Mirrored:
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


class Connection:
    """MLflow at one address, and the session with it while there is one.

    Args:
        store: Whose runs they are, and whose folder keeps the files of a new experiment, unless a server keeps them.
        sweep: The sweep that sessions are about.
        uri: As for `address`.
        moved: As for `Session`.

    Attributes:
        address: Where it is.
    """

    def __init__(self, store: Store, sweep: str, uri: str | None, moved: Callable[[], None]) -> None:
        self.address = address(store, uri)
        self._artefacts = _artefact_location(self.address, store)
        self._store = store
        self._sweep = sweep
        self._moved = moved
        self._session: Session | None = None

    @contextmanager
    def session(self, *, anew: bool = False) -> Iterator[Session]:
        """The session, begun now if there is none; whatever is raised while it is used ends it.

        Args:
            anew: Begin another, which looks again at what is there: another mirror may have made it meanwhile.
        """
        if anew:
            self._session = None
        try:
            yield self._connected()
        except Exception:
            self._session = None
            raise

    def _connected(self) -> Session:
        database, uri = _sqlite_file(self.address), self.address
        inodes = [] if database is None else _INODES.setdefault(database, [])
        if database is not None and (not inodes or inodes[-1] != _inode(database)):
            self._session = None  # it was deleted: a connection to it would write into nothing
            inodes.append(None)
        if self._session is None:
            if database is not None:
                # MLflow keeps one connection per address for good, also to a database that is no more; another
                # timeout makes another address.
                uri += f"{'&' if '?' in uri else '?'}timeout={5 + len(inodes)}"
            self._session = Session(uri, self._artefacts, self._store.id, self._sweep, self._moved)
            if database is not None:
                inodes[-1] = _inode(database)
        return self._session


class Session:
    """A connection to MLflow that knows what it has of one sweep.

    Args:
        uri: The tracking address.
        artefacts: Where a new experiment keeps its files, or None for the server to choose.
        store: The store's id.
        sweep: The sweep's name.
        moved: Called after each of MLflow's answers; may raise to end the session.

    Attributes:
        over: True once the sweep has ended: nothing is set running then.
    """

    def __init__(self, uri: str, artefacts: str | None, store: str, sweep: str, moved: Callable[[], None]) -> None:
        self.over = False
        self._client = _client(uri)
        self._store = store
        self._sweep = sweep
        self._moved = moved
        self._experiment = _find_experiment(self._client, artefacts)
        self._runs: dict[tuple[str, str], Mirrored] = {}
        for run in sorted(self._search(), key=lambda run: (run.info.start_time, run.info.run_id)):
            identity = (run.data.tags.get("sweeps.kind", ""), run.data.tags.get("sweeps.key", ""))
            if identity in self._runs:  # two mirrors made it at the same moment: keep the one that all keep
                self._client.delete_run(run.info.run_id)
            else:
                self._runs[identity] = _mirrored(run)
            moved()

    def ensure(self, kind: str, key: str, *, name: str, parent: str, started: str | None) -> Mirrored:
        """The run of this kind and key, made now if there is none, and under its parent."""
        run = self._runs.get((kind, key))
        if run is None:
            tags = {"sweeps.sweep": self._sweep, "sweeps.kind": kind, "sweeps.key": key, _PARENT: parent}
            tags |= {"sweeps.store": self._store}
            tags = {tag: value for tag, value in tags.items() if value}
            made = self._client.create_run(self._experiment, start_time=_ms(started), tags=tags, run_name=name)
            run = self._runs[kind, key] = _mirrored(made)
        elif run.parent != parent:  # its parent was one of two
            self._client.set_tag(run.run_id, _PARENT, parent)
            run.parent = parent
        self._moved()
        return run

    def push(self, exhibit: Exhibit, parent: Mirrored, curve: Path | None) -> Mirrored:
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
            self._set_status(run, final, exhibit.finished_at)
            run.pushed = exhibit.version
        return run

    def describe(self, run: Mirrored, tags: Mapping[str, str], params: Mapping[str, str] | None = None) -> None:
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

    def log(self, run: Mirrored, points: Sequence[Point], tags: Mapping[str, str], at_ms: int | None = None) -> None:
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

    def set_running(self, run: Mirrored) -> None:
        """Let the run be running, also again."""
        self._set_status(run, "RUNNING")

    def end(self, run: Mirrored, status: Status) -> None:
        """Let the run have ended."""
        self._set_status(run, _STATUS[status])

    def stop_running(self, *, but: Mirrored | None = None) -> None:
        """End as stopped whatever is running, also what no row speaks of any more: it was half sent when one did."""
        for run in self._runs.values():
            if run.status == "RUNNING" and run is not but:
                self.end(run, "stopped")

    def attach(self, run: Mirrored, paths: Sequence[Path]) -> None:
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

    def _set_status(self, run: Mirrored, status: str, ended: str | None = None) -> None:
        if run.status != status:
            if status == "RUNNING":
                self._client.update_run(run.run_id, status=status)
            else:
                self._client.set_terminated(run.run_id, status, _ms(ended))
            run.status = status
            self._moved()

    def _push_curve(self, run: Mirrored, curve: Path, *, running: bool) -> None:
        offset = run.curve_file[1] if run.curve_file and run.curve_file[0] == curve else 0
        points, offset = read_curve(curve, offset, run.curve_step)
        if points and running and not self.over:
            self.set_running(run)
        for some in by_size(points, _METRICS):
            self.log(run, some, {"sweeps.curve_step": str(some[-1].step)})
            run.curve_step = some[-1].step
        run.curve_file = (curve, offset)

    def _search(self) -> Iterator[Run]:
        quote = '"' if "'" in self._sweep else "'"
        of_store = f" and tags.`sweeps.store` = '{self._store}'" if self._store else ""
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment],
                f"tags.`sweeps.sweep` = {quote}{self._sweep}{quote}{of_store}",
                max_results=1000,
                page_token=token,
            )
            self._moved()
            yield from (run for run in page if run.data.tags.get("sweeps.store", "") == self._store)
            token = page.token
            if not token:
                return


def _mirrored(run: Run) -> Mirrored:
    tags = run.data.tags
    return Mirrored(
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
