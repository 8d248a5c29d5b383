"""The store: everything a sweep found out, in one folder, which is the only truth.

    store.json           the format's number, and what tells this store from all others
    journals/            records: append-only, one journal per writer (sweeps/journal.py)
    stages/, scratch/    folders by content key, whole or not at all, and partial work (sweeps/artefacts.py)
    leases/              who is at what just now (sweeps/leases.py)
    rows/, reports/      tables and pages written from the records for readers; never read back
    optuna/, tune/       a sweep's study, and Ray Tune's scratch while it runs; both made anew by every run
    nodes/               files by which a running sweep sees that a node sees the store (sweeps/machines.py)
    mlflow.db, mlflow-artifacts/    MLflow's copy, where it has no server of its own (sweeps/tracking.py)
    remote.json          where a copy is, by which machines that do not see the folder work on it (sweeps/replica.py)

Many processes, on many machines that share the folder, or have one each and a copy in an object store, may have it open
and write at once. Several sweeps live in one store and share its trainings and evaluations: a `member` record says that
a sweep wants one evaluation, and carries the columns that describe it; `evaluation` and `training` records say what
came out, under keys that depend on content only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ilql.files import FILE, NOTHING, kind_of, sync, user_path
from ilql.hyperparameters import unknown
from sweeps.artefacts import Stages, is_old
from sweeps.exact_json import JSON, Record
from sweeps.frames import episodes_frame, rows, runs_frame
from sweeps.journal import SUFFIX, StoreError, utc
from sweeps.leases import Holder, Lease, Leases
from sweeps.record_shapes import flaw
from sweeps.records import Records
from sweeps.replica import LINK, MARK, ROOM, Replica, adopt, link, read_link

__all__ = ["FORMAT", "MARK", "Store", "StoreError", "SweepInfo", "joined", "store_folder"]

FORMAT = 1
"""Raised when a store of ours could no longer be read by an older program."""

CURVE_FILE = "curve.jsonl"
"""The loss curve in a training's stage or scratch folder: one JSON object per logged step."""

DROPPED = "dropped"
"""The kind of the records that say when and by which rule a training's weights were dropped; the key is theirs."""

LONG_JOURNAL = 1 << 22
"""A journal of more bytes is followed by another where there is a copy, to which it is sent whole each time."""

_ID = re.compile("([0-9a-f]{16})?")


def store_folder(option: str | None) -> Path:
    """Where the store is: the option, else `$SWEEPS_STORE`, else `~/.sweeps/store`; absolute, not necessarily there."""
    chosen = option or os.environ.get("SWEEPS_STORE") or "~/.sweeps/store"
    return user_path(chosen).absolute()


@dataclass(frozen=True)
class SweepInfo:
    """One sweep of a store.

    Attributes:
        name: Its name.
        created_at: When it was first recorded, UTC.
        task: The task it is about, or "" if its record does not say.
        methods: The methods of its members, sorted.
        cells: Number of distinct cells among its members.
        wanted: Number of evaluations wanted on the report scenes, one per cell and training seed.
        done: Number of those that finished.
        failed: Number of those that failed.
        stopped: Number of those that were stopped.
    """

    name: str
    created_at: str
    task: str
    methods: tuple[str, ...]
    cells: int
    wanted: int
    done: int
    failed: int
    stopped: int


class Store:
    """The store in `folder`. Opening it writes nothing but a new store's mark; it may be pickled and opened anywhere.

    Whatever asks its copy, if it has one, raises `StoreError` where that does not answer.

    Args:
        folder: A new or empty folder, or a store.
        durable: True if what is put is on the disk when the call returns. False is for tests and throw-away stores.

    Attributes:
        folder: Where it is.
        replica: What it has in common with a copy in an object store; None where it has none.
        id: What tells it, and copies of it, from all other stores, wherever they lie: 16 digits, made with it. Empty
            for one of an earlier version, which had none.

    Raises:
        ValueError: The folder cannot be made or read, is a file, holds something else, or is of a newer format.
    """

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self.folder = user_path(folder).absolute()
        self._durable = durable
        self.id = _open(self.folder)
        copy = read_link(self.folder)
        self.replica = None if copy is None else Replica(self.folder, copy)
        self._records = Records(self.folder / "journals", durable=durable, flaw=flaw)
        self._stages = Stages(self.folder, durable=durable, replica=self.replica)
        self._leases = Leases(self.folder / "leases")

    def __reduce__(self) -> tuple[Callable[[], Store], tuple[()]]:
        return functools.partial(Store, self.folder, durable=self._durable), ()

    # Records

    def put(self, kind: str, key: str, value: Mapping[str, JSON], lease: Lease | None = None) -> None:
        """Append a record.

        Of several under one key the latest counts, but one whose `status` is `finished` is replaced only by another
        such; `sweeps.records.Records` has the whole rule.

        Args:
            kind: Its kind.
            key: Its key.
            value: What is recorded.
            lease: What it is written under, if its writer holds one.

        Raises:
            TypeError, ValueError: The value is no JSON object, or has a flaw (`sweeps.record_shapes`).
            StoreError: The disk did not take it; what was stored before is untouched.
            LeaseLostError: The lease is lost; nothing was written.
        """
        if lease is not None:
            self.check(lease)
        self._records.put(
            kind, {key: value}, None if lease is None else (_fenced(lease.key, lease.replica), lease.term)
        )

    def put_all(self, kind: str, values: Mapping[str, Mapping[str, JSON]]) -> None:
        """Append many records, by key, in one write: much faster than one by one. Raises as `put` does."""
        self._records.put(kind, values)

    def get(self, kind: str, key: str) -> Record | None:
        """The value that counts now, whoever put it, or None. Do not change it: it is shared."""
        return self._records.get(kind, key)

    def some(self, kind: str, keys: Iterable[str], lease: Lease | None = None) -> dict[str, Record]:
        """The values that count now of those of the keys that have one: one look at the disk for all of them.

        Args:
            kind: Their kind.
            keys: They.
            lease: One that this store took, and under which alone results are written there; it has been given to
                nobody since. Then no look is needed: taking it was one, and what this store wrote it knows. With a copy
                it looks all the same: other folders have leases of their own.
        """
        return self._records.some(kind, keys, look=lease is None or self.replica is not None)

    def all(self, kind: str) -> Mapping[str, Record]:
        """All values that count now, by key, as a snapshot. Reads only what was appended since the last look."""
        return self._records.all(kind)

    def remove(self, kind: str, key: str) -> None:
        """Append that the key is no more. What is put under it later counts again."""
        self._records.remove(kind, [key])

    # The copy

    def sync(self) -> None:
        """Send what this process, and those of this folder that live no more, have recorded; get what others have.

        Nothing to do where there is no copy. After a long journal another is begun.

        Raises:
            StoreError: The copy does not answer, or the disk does not take it.
        """
        if self.replica is None:
            return
        own = self._records.journal
        self.replica.sync(own)
        if own is not None and own.stat().st_size > LONG_JOURNAL:
            self._records.close()

    @contextlib.contextmanager
    def synced(self) -> Iterator[None]:
        """Synchronise behind the block; an error that ends it is what is told, not that the copy is away, too."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(StoreError):
                self.sync()
            raise
        self.sync()

    def pull(self) -> None:
        """Get what others have recorded. Raises as `sync` does."""
        if self.replica is not None:
            self.replica.pull()

    def send_all(self) -> int:
        """Send whatever is here and not in the copy; returns how many stages that were. Raises as `sync` does."""
        self.sync()
        return self._stages.send_all()

    def send(self, kind: str, key: str) -> None:
        """Send a stage that is here, unless the copy has one; see `Stages.send`. Raises as `sync` does."""
        self._stages.send(kind, key)

    def send_scratch(self, kind: str, key: str) -> None:
        """Send partial work as it is now, so that another machine can go on from it. Raises as `sync` does."""
        folder = self.scratch_path(kind, key)
        if self.replica is not None and folder.is_dir():
            self.replica.send_scratch(kind, key, folder)

    def fetch_scratch(self, kind: str, key: str) -> None:
        """Get partial work that another machine has sent, unless some is here. Raises as `sync` does."""
        folder = self.scratch_path(kind, key)
        if self.replica is None or (folder.is_dir() and any(folder.iterdir())):
            return
        with tempfile.TemporaryDirectory(prefix=ROOM, dir=self.folder) as room:
            if self.replica.fetch_scratch(kind, key, Path(room) / "work"):
                folder.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(OSError):  # somebody has begun here meanwhile
                    (Path(room) / "work").rename(folder)

    def drop_scratch(self, kind: str, key: str) -> None:
        """Remove partial work, here and from the copy."""
        shutil.rmtree(self.scratch_path(kind, key), ignore_errors=True)
        if self.replica is not None:
            self.replica.drop_scratch(kind, key)

    def is_flagged(self, file: Path | str) -> bool:
        """Whether a file of this folder's is there by the copy's account; not, where that does not answer."""
        if self.replica is None:
            return False
        with contextlib.suppress(StoreError):
            return self.replica.flag(Path(file).relative_to(self.folder).as_posix(), waits=()) is not None
        return False

    def is_of(self, lease: Lease) -> bool:
        """Whether a lease was taken in this folder."""
        return lease.replica == self._own

    # Leases

    def check(self, lease: Lease) -> None:
        """Do nothing if a lease is held still, or was taken in another folder, where this one cannot see.

        Raises:
            LeaseLostError: It is lost.
        """
        if self.is_of(lease):
            lease.check()

    def lease(self, key: str, each: Callable[[], None] = lambda: None) -> Lease:
        """The right to work on something, as soon as nobody who lives has it; `sweeps.leases` has the whole rule.

        Args:
            key: Of what: letters, digits, '_' and '-'.
            each: Called about once a second while somebody else has it.
        """
        lease = self._leases.wait(key, above=lambda: self._term(key), each=each)
        return self._claimed(lease)

    def try_lease(self, key: str) -> Lease | None:
        """The same, or None if somebody who lives, or may live, has it."""
        lease = self._leases.take(key, above=lambda: self._term(key))
        return None if lease is None else self._claimed(lease)

    def settle_lease(self, key: str, each: Callable[[], None] = lambda: None) -> Lease | None:
        """The same, where None means that somebody is known to live who has it: that may take a minute to know.

        Args:
            key: As for `lease`.
            each: Called about once a second until it is known.
        """
        lease = self._leases.settle(key, above=lambda: self._term(key), each=each)
        return None if lease is None else self._claimed(lease)

    def holder(self, key: str) -> Holder | None:
        """Who has a lease, or had it last without giving it back; None if nobody."""
        return self._leases.holder(key)

    def leases(self) -> Iterator[tuple[str, int, Holder | None]]:
        """Key, term and holder of every lease that was not given back."""
        return self._leases.all()

    def strangers(self) -> Iterator[str]:
        """What lies among the leases and the stages and is none, by its path in the store."""
        yield from (path.relative_to(self.folder).as_posix() for path in self._leases.strangers())
        yield from self._stages.strangers()

    def _term(self, key: str) -> int:
        return self._records.term(_fenced(key, self._own))

    def _claimed(self, lease: Lease) -> Lease:
        if lease.term > 1:
            try:
                self._records.claim(_fenced(lease.key, self._own), lease.term)
            except BaseException:
                lease.release()
                raise
        return lease if self.replica is None else dataclasses.replace(lease, replica=self._own)

    @property
    def _own(self) -> str:
        """The name under which this folder's leases go in records; empty where there is but one folder."""
        return "" if self.replica is None else self.replica.name

    # Stages

    def stage(self, kind: str, key: str) -> Path | None:
        """The folder of a complete stage, or None. It is got from the copy if need be: `has` only asks."""
        return self._stages.find(kind, key)

    def has(self, kind: str, key: str) -> bool:
        """Whether a stage is complete, here or in the copy."""
        return self._stages.has(kind, key)

    def fetch_all(self, kind: str, keys: Iterable[str]) -> int:
        """Get from the copy those of many stages of a kind that are not here; how many that were."""
        return self._stages.fetch_all(kind, keys)

    def lacking(self, kind: str, keys: Iterable[str]) -> list[str]:
        """Those of many stages of a kind that are complete neither here nor in the copy, in their order."""
        return self._stages.lacking(kind, keys)

    def about(self, kind: str, key: str) -> Record | None:
        """What decided a complete stage, who built it, and its files' digests; see `Stages.about`."""
        return self._stages.about(kind, key)

    def stages(self) -> Iterator[tuple[str, str]]:
        """Kind and key of every stage, and of every folder that has the name of one and is not whole."""
        return self._stages.named()

    def altered(self, kind: str, key: str) -> Iterator[str]:
        """One line for each file of a complete stage that is not what was written."""
        return self._stages.altered(kind, key)

    def stage_flaw(self, kind: str, key: str) -> str | None:
        """Why what has a stage's name is not complete, in a few words; None if it is."""
        return self._stages.flaw(kind, key)

    def build(
        self,
        kind: str,
        key: str,
        make: Callable[[Path], Mapping[str, JSON] | None],
        about: Mapping[str, JSON],
    ) -> Path:
        """The folder of a stage, made by `make(empty_folder)` unless it is complete already; see `Stages.build`."""
        return self._stages.build(kind, key, make, about)

    def scratch(self, kind: str, key: str) -> Path:
        """A folder for partial work on an unfinished stage; gone once `build` completes the stage."""
        return self._stages.scratch(kind, key)

    def scratch_path(self, kind: str, key: str) -> Path:
        """Where that folder is, or would be."""
        return self._stages.scratch_path(kind, key)

    def curve(self, weights_id: str) -> Path | None:
        """The training's loss curve, finished or still growing, or None."""
        places: tuple[Callable[[str, str], Path | None], ...]
        places = self._stages.here, self._stages.find, self._stages.scratch_path
        kinds = "weights", "curve", "weights"  # weights are large, and are not got for it
        folders = (place(kind, weights_id) for place, kind in zip(places, kinds, strict=True))
        paths = (folder / CURVE_FILE for folder in folders if folder is not None)
        return next((path for path in paths if path.is_file()), None)

    def send_curve(self, weights_id: str) -> None:
        """Send a finished training's loss curve by itself: who reads it need not get the weights."""
        curve = self.curve(weights_id)
        if self.replica is not None and curve is not None:
            self._keep_curve(weights_id, curve)

    def _keep_curve(self, weights_id: str, curve: Path) -> None:
        content = curve.read_bytes()
        self.build("curve", weights_id, lambda folder: _put_file(folder / CURVE_FILE, content), {})

    def drop(self, kind: str, key: str) -> None:
        """Remove a stage, whose reader finds it whole or not at all; it is made again where it is needed."""
        self._stages.drop(kind, key)

    def leftovers(self) -> Iterator[Path]:
        """What builders and writers left behind and nobody will use."""
        yield from self._stages.leftovers()
        yield from (path for path in self.begun() if is_old(path))

    def begun(self) -> Iterator[Path]:
        """Tables, marks, and what comes from a copy, that somebody is writing just now, or was killed in."""
        for beginning in (f".{MARK}.*", f".{LINK}.*", f"{ROOM}*", f"journals/.*{SUFFIX}.*"):
            yield from sorted(self.folder.glob(beginning))
        yield from sorted(_table(self.folder).parent.glob(f".{_table(self.folder).name}.*"))

    def table_flaw(self) -> str | None:
        """Why the table for other programs is none, in a few words; None if it is one, or there is none."""
        table = _table(self.folder)
        if kind_of(table) == NOTHING and not table.is_symlink():
            return None
        if kind_of(table) != FILE:
            return "is no file"
        try:
            pl.read_parquet(table, glob=False)
        except (OSError, pl.exceptions.PolarsError) as fault:
            return f"cannot be read ({str(fault).splitlines()[0][:80]})"
        return None

    def drop_weights(self, weights_id: str, rule: str) -> None:
        """Remove a training's weights, and record that it was done by this rule; rows and loss curve stay.

        Killed at any point, this leaves the weights as they were, or dropped and known to be.
        """
        curve = self.curve(weights_id)
        if curve is not None:
            self._keep_curve(weights_id, curve)
        self.put(DROPPED, weights_id, {"rule": rule, "at": utc()})
        self.drop("weights", weights_id)

    def dropped_weights(self, weights_id: str) -> Record | None:
        """By which `rule`, and when (`at`), the weights were dropped; None if they are there or are missing otherwise.

        Weights that were made again and then got lost are missing otherwise: their training's record is the later one.
        """
        record = self.get(DROPPED, weights_id)
        if record is None or self.has("weights", weights_id):
            return None
        trained, dropped = (self._records.time_ns(kind, weights_id) or 0 for kind in ("training", DROPPED))
        return record if dropped > trained else None

    # Tables

    def members(self, sweep: str | None = None) -> list[Record]:
        """The member records of a sweep, or of all, in the order of their keys."""
        members = self.all("member")
        return [members[key] for key in sorted(members) if sweep is None or members[key]["sweep"] == sweep]

    def rows(self, sweep: str | None = None) -> list[Record]:
        """The rows of `runs` as flat mappings without the columns that do not apply."""
        return list(rows(self.members(sweep), self.all("evaluation"), self.all("training")))

    def runs(self, sweep: str | None = None) -> pl.DataFrame:
        """One row per evaluation of a sweep, or of all sweeps, that finished, failed or was stopped."""
        return runs_frame(self.rows(sweep))

    def episodes(self, trial_ids: Sequence[str], columns: Sequence[str] | None = None) -> pl.DataFrame:
        """One row per episode of the evaluations, or only some `columns` of it (and `trial_id`).

        An evaluation that did not finish has no episodes and adds no rows.

        Raises:
            StoreError: An evaluation finished, but its episodes are gone or damaged.
            ValueError: A column is in none of them.
        """
        evaluations = self.all("evaluation")
        self._stages.fetch_all("evaluation", [trial for trial in trial_ids if trial in evaluations])
        found = {trial_id: self.stage("evaluation", trial_id) for trial_id in dict.fromkeys(trial_ids)}
        for trial_id, folder in found.items():
            if folder is None and evaluations.get(trial_id, {}).get("status") == "finished":
                raise StoreError(f"the evaluation {trial_id} finished, but its episodes are gone or damaged")
        return episodes_frame({trial_id: folder for trial_id, folder in found.items() if folder is not None}, columns)

    def compact(self) -> Path:
        """Write `runs` of all sweeps as `rows/runs.parquet` for other programs, and return its path."""
        path = _table(self.folder)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        frame = self.runs()
        try:
            path.parent.mkdir(exist_ok=True)
            try:
                frame.write_parquet(temporary)
                _replace(temporary, path, durable=self._durable)
            finally:
                temporary.unlink(missing_ok=True)
        except (OSError, pl.exceptions.PolarsError) as fault:
            raise StoreError(f"the table {path} could not be written: {str(fault).splitlines()[0]}") from fault
        return path

    def sweeps(self) -> list[SweepInfo]:
        """The sweeps of the store, the oldest first."""
        members: dict[str, list[Record]] = {name: [] for name in self.all("sweep")}
        for member in self.members():
            members.setdefault(member["sweep"], []).append(member)
        statuses: dict[str, list[str]] = {name: [] for name in members}
        for row in self.rows():
            statuses[row["sweep"]].append(row["status"])
        infos = [self._info(name, members[name], statuses[name]) for name in members]
        return sorted(infos, key=lambda info: (info.created_at, info.name))

    def check_sweep(self, name: str) -> None:
        """Do nothing if there is that sweep.

        Raises:
            ValueError: There is none; the message says which is nearest.
        """
        if self.get("sweep", name) is not None:
            return
        known = [info.name for info in self.sweeps()]  # also one whose own record is lost, and its rows are there
        if name not in known:
            raise ValueError(unknown(name, "sweep of this store", known))

    def remove_sweep(self, name: str) -> int:
        """Forget a sweep and its members, and return how many. Trainings, evaluations and stages stay.

        Raises:
            ValueError: There is no such sweep.
        """
        keys = [key for key, member in self.all("member").items() if member["sweep"] == name]
        if not keys and self.get("sweep", name) is None:
            known = ", ".join(info.name for info in self.sweeps()) or "none"
            raise ValueError(f"no sweep {name!r} in {self.folder}; known: {known}")
        self._records.remove("member", keys)
        self._records.remove("sweep", [name])  # last: what is interrupted can be asked for again
        return len(keys)

    def problems(self) -> list[str]:
        """What is wrong with the store, one line for each fault; empty if all is well. None of it stops a reader."""
        return [*self._records.problems(), *self._stages.problems()]

    def notes(self) -> list[str]:
        """What of the store looks wrong and is harmless, one line each."""
        return self._records.notes()

    def _info(self, name: str, members: list[Record], statuses: list[str]) -> SweepInfo:
        record = self.get("sweep", name) or {}
        put_ns = self._records.time_ns("sweep", name)
        tasks = {str(member["columns"].get("task", "")) for member in members}
        return SweepInfo(
            name=name,
            created_at=record.get("created_at") or utc(put_ns or 0),
            task=record.get("task") or ", ".join(sorted(tasks)),
            methods=tuple(sorted({member["method"] for member in members})),
            cells=len({member["cell_id"] for member in members}),
            wanted=len(members),
            done=statuses.count("finished"),
            failed=statuses.count("failed"),
            stopped=statuses.count("stopped"),
        )


def joined(folder: Path, url: str, *, durable: bool = True, first: bool = False) -> Store:
    """The store in a folder, with a copy at an address: a new one, or the one that is there or in the copy.

    Args:
        folder: As for `Store`.
        url: The address; see `sweeps.replica`.
        durable: As for `Store`.
        first: Whether the address was just written by hand: one that does not answer is then said at once.

    Raises:
        ValueError: As `Store` does; or the address is none, or the two hold different stores.
        StoreError: The object store does not answer, or refuses.
    """
    place = user_path(folder).absolute()
    adopt(place, url, first=first)
    _open(place)
    link(place, url, first=first)
    return Store(place, durable=durable)


def _fenced(key: str, replica: str) -> str:
    """A lease's name in records: of folders that do not see each other's leases, each has its own terms."""
    return f"{key}-{replica}" if replica else key


def _table(folder: Path) -> Path:
    """Where the table for other programs is."""
    return folder / "rows" / "runs.parquet"


def _put_file(file: Path, content: bytes) -> None:
    file.write_bytes(content)


def _open(folder: Path) -> str:
    """Make the folder a store unless it is one; returns its id."""
    mark = folder / MARK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            return _read_mark(mark)
        strangers = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        if strangers and not mark.exists():  # another process may have made the store since we looked
            raise ValueError(
                f"the store must be a new or empty folder, or a store; {folder} holds {', '.join(strangers[:3])}"
            )
        _make_mark(mark)
        return _read_mark(mark)
    except FileExistsError:
        raise ValueError(f"the store must be a folder, got the file {folder}") from None
    except OSError as fault:
        raise ValueError(f"the store {folder} cannot be opened: {fault.strerror or fault}") from None


def _make_mark(mark: Path) -> None:
    """Put the mark there, whole, unless another process was faster: then that one's id is the store's."""
    temporary = mark.with_name(f".{MARK}.{secrets.token_hex(4)}")
    temporary.write_text(json.dumps({"format": FORMAT, "id": secrets.token_hex(8), "made_at": utc()}) + "\n")
    try:
        sync(temporary)
        os.link(temporary, mark)  # a rename would take the place of what is there
        sync(mark.parent)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        _replace(temporary, mark, durable=True)
    finally:
        temporary.unlink(missing_ok=True)


def _read_mark(mark: Path) -> str:
    if kind_of(mark) not in (FILE, NOTHING):
        raise ValueError(f"the store's mark must be a file, got {kind_of(mark)}: {mark}")
    try:
        found = json.loads(mark.read_bytes())
        number, name = found["format"], found.get("id", "")
    except (ValueError, KeyError, TypeError, RecursionError, AttributeError):
        raise ValueError(f"the store's mark {mark} is damaged; it should be {json.dumps({'format': FORMAT})}") from None
    if number != FORMAT:
        raise ValueError(f"the store {mark.parent} must be of format {FORMAT}, got {number}; use a newer program")
    if not isinstance(name, str) or not _ID.fullmatch(name):
        raise ValueError(f"a store's id must be 16 digits 0-f, or missing, got {str(name)[:40]!r} in {mark}")
    return name


def _replace(temporary: Path, path: Path, *, durable: bool) -> None:
    if durable:
        sync(temporary)
    temporary.replace(path)
    if durable:
        sync(path.parent)
