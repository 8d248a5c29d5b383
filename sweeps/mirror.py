"""A copy of the store's rows in MLflow, for looking at: it may be late, die or be deleted, and can be made again.

Runs are nested, sweep > training > evaluation (what is said of each: sweeps/exhibits.py), and found again by their tags
(sweeps/tracking.py), so nothing is ever logged twice: neither after a kill, nor by a second mirror, nor when the
database was deleted in between. What cannot be reached is reported in one line, once; the sweep goes on, and the next
`sync` that gets through sends what is missing.
"""

from __future__ import annotations

import logging
import math
import shlex
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from cluster.redaction import without_secrets
from sweeps.exhibits import evaluation, telling_columns, text, training
from sweeps.leases import LeaseLostError, driver_key
from sweeps.names import report_folder, stands_for_all
from sweeps.patience import Patience
from sweeps.store import Store
from sweeps.tracking import Connection, Mirrored, Session, Status

INTERVAL_SECONDS = 15.0
"""Between two updates while a sweep is carried out."""

STOPPED_SECONDS = 15.0
"""So long may a tracker take to hear that a sweep was stopped; a rerun tells it what it did not hear."""

_log = logging.getLogger(__name__)


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
        self._patience = Patience(self._complain)  # some of MLflow's retries go on for hours
        self._connection = Connection(store, sweep, uri, self._patience.moved)
        self._ticker: threading.Thread | None = None
        self._stop = threading.Event()
        self._ended = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, LeaseLostError):
            self._stop.set()
            self._patience.halt()
        elif not self._ended:
            self.finish((), "stopped", timeout_seconds=STOPPED_SECONDS)

    @property
    def uri(self) -> str:
        """The tracking address, fit for showing: without a password."""
        return without_secrets(self._connection.address)

    @property
    def command(self) -> str:
        """What to type to see the runs: a command for this machine only, or the server's address."""
        if self._connection.address.startswith(("http://", "https://")):
            return f"open {shlex.quote(self.uri)}"
        beside = Path(sys.executable).with_name("mlflow")
        program = str(beside) if beside.exists() else "mlflow"
        return (
            f"{shlex.quote(program)} server --backend-store-uri {shlex.quote(self.uri)} "
            "--host 127.0.0.1 --port 5000 --workers 1"
        )

    def start(self, interval_seconds: float = INTERVAL_SECONDS) -> None:
        """Call `sync` now and then, in a background thread, until `finish`."""
        self._stop.clear()
        self._ended = False
        self._ticker = threading.Thread(target=self._tick, args=(interval_seconds,), name="mlflow-mirror", daemon=True)
        self._ticker.start()

    def sync(self) -> bool:
        """Send what MLflow lacks. True if it has everything now, False if it could not be reached."""
        return self._patience.supervise(self._push, math.inf)

    def finish(self, artefacts: Sequence[Path], status: Status = "finished", *, timeout_seconds: float = 120.0) -> bool:
        """Send files and everything that is missing, and end the runs; True if MLflow has all of it.

        Args:
            artefacts: Files and folders to attach to the sweep's run: the table, the plots. The first Markdown file
                also becomes the run's description. Those that do not exist are left out.
            status: How the sweep ended. Trainings that are neither finished nor failed end as stopped.
            timeout_seconds: Return after this time, finished or not; a later mirror of the sweep catches up.
        """
        self._stop.set()
        self._patience.halt()  # the push that is under way: its end may be far, and what it lacks is sent now
        sent = self._patience.supervise(lambda: self._end(artefacts, status), timeout_seconds)
        self._ended = True  # not where that was interrupted
        return sent

    def _tick(self, interval_seconds: float) -> None:
        while not self._stop.is_set():
            self._patience.supervise(self._push_unless_over, math.inf)
            self._stop.wait(interval_seconds)

    def _push_unless_over(self) -> None:
        if not self._stop.is_set():  # one that waited for its turn would set what has ended running again
            self._push()

    def _complain(self, fault: str) -> None:
        reason = without_secrets(fault)
        _log.warning("MLflow at %s is behind: %s; the sweep goes on, a later sync catches up", self.uri, reason)

    def _push(self) -> None:
        with self._connection.session() as session:
            root = self._sweep_run(session)
            session.set_running(root)
            self._push_rows(session, root)

    def _end(self, artefacts: Sequence[Path], status: Status) -> None:
        with self._connection.session(anew=True) as session:
            session.over = True
            root = self._sweep_run(session)
            if status == "stopped":  # at once: there may be no time for what follows
                session.stop_running()
            session.attach(root, [path for path in artefacts if path.exists()])
            self._push_rows(session, root)
            session.stop_running(but=root)
            session.end(root, status)

    def _sweep_run(self, session: Session) -> Mirrored:
        record = self._store.get("sweep", self._sweep) or {}
        root = session.ensure("sweep", self._sweep, name=self._sweep, parent="", started=record.get("created_at"))
        facts = {name: text(value) for name, value in record.items() if isinstance(value, str | int | float)}
        session.describe(root, {f"sweeps.{name}": value for name, value in facts.items()})
        return root

    def _push_rows(self, session: Session, root: Mirrored) -> None:
        """Send the trainings that have begun, then the evaluations that have ended."""
        members = self._store.members(self._sweep)
        rows = {row["trial_id"]: row for row in self._store.rows(self._sweep)}
        trainings = self._store.all("training")
        telling = telling_columns(members)
        parents: dict[str, Mirrored] = {}
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
    """The files of a sweep's last report that stand for all of it."""
    found = sorted(report_folder(store.folder, sweep).rglob("*"))
    return [path for path in found if path.is_file() and stands_for_all(path)]
