"""The store against plain dicts: whatever writers do, at whatever byte they die, all readers see what the dicts hold.

Nothing of the store is replaced. Who is to die is a process of its own that may write so many bytes into a file and no
more (RLIMIT_FSIZE): the kernel takes what fits and ends it with SIGXFSZ, which no handler of Python's sees. A writer
that lives and is refused is this process under the same limit, which Python gets to know as an OSError. Who counts as
silent is whoever is asked about by a store without patience.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sweeps.exact_json import Record
from sweeps.leases import Lease, LeaseLostError, Leases
from sweeps.records import UNDER
from sweeps.store import Store, StoreError

KEYS, WRITERS = ("aa1", "aa2"), 3
"""Both share a folder of leases and of stages."""

WRITER, KEY = st.integers(0, WRITERS - 1), st.sampled_from(KEYS)
LINE_BYTES = st.integers(0, 700)
"""Where a line of a journal or a file of a stage is cut: they have 200 to 500 bytes."""
TABLE_BYTES = st.integers(0, 12_000)
"""Where the table is cut: it has about 9,000."""

CONDEMNED = """
import errno, json, os, resource, signal, sys
from pathlib import Path
from sweeps.leases import Leases
from sweeps.store import Store

def act(order, tell):
    store = Store(Path(order["store"]), durable=False)
    if not order["links"]:
        def link(*_):
            raise PermissionError(errno.EPERM, "a file system without hard links")
        os.link = link
    if order["impatient"]:
        store._leases = Leases(store.folder / "leases", patience=-1.0)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (order["bytes"], order["bytes"]))
    if order["what"] == "put":
        store.put_all("evaluation", order["values"])
    elif order["what"] == "compact":
        store.compact()
    else:
        ((key, value),) = order["values"].items()
        lease = store.try_lease(key)
        if lease is None:
            return tell("refused")
        tell("claimed")
        def make(folder):
            (folder / "some").mkdir()
            (folder / "some" / "episodes").write_text(order["content"])
            (folder / "note").write_text("x" * 100)
        store.build("evaluation", key, make, {})
        tell("built")
        store.put("evaluation", key, value, lease)
    tell("done")

for line in sys.stdin:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            act(json.loads(line), lambda word: os.write(write, word.encode() + b" "))
        except BaseException as error:
            os.write(write, f"raised-{type(error).__name__} ".encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as said:
        words = said.read().split()
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXFSZ
    print(json.dumps({"words": words, "killed": killed, "process": child}), flush=True)
"""


@dataclass(frozen=True)
class Death:
    """What became of a process that could write so many bytes.

    Attributes:
        words: What it told of before: `claimed`, `built`, `done`, or `refused`.
        killed: Whether it was killed; else it came to its end.
        process: Its id.
    """

    words: tuple[str, ...]
    killed: bool
    process: int


class Condemned:
    """Forks processes that may write so many bytes into a file; it has no threads of its own that a fork would lose."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", CONDEMNED],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )

    def send(self, store: Path, what: str, number_of_bytes: int, **more: Any) -> Death:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"store": str(store), "what": what, "bytes": number_of_bytes, "impatient": False, "links": True} | more
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        words = tuple(answer["words"])
        assert not [word for word in words if word.startswith("raised")], words
        return Death(words, answer["killed"], answer["process"])

    def close(self) -> None:
        self._process.communicate(timeout=60)


@contextlib.contextmanager
def at_most(number_of_bytes: int) -> Iterator[None]:
    """No file of this process grows beyond so many bytes: a write takes what fits, the next one is an error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN  # as Python begins
    resource.setrlimit(resource.RLIMIT_FSIZE, (number_of_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@dataclass
class Hold:
    """Who has a lease, as the model knows it.

    Attributes:
        term: Its number.
        lease: The holder's own, where it lives.
    """

    term: int
    lease: Lease | None = None


@dataclass
class Model:
    """What a store must hold.

    Attributes:
        records: The value that counts, by key.
        stages: What is in a stage, by key.
        holds: Who has a lease, by key.
        claimed: The highest term that is recorded, by key.
        lost: Leases that were taken over while their holders lived.
        table: Status and score by key when the table was last written; None before.
    """

    records: dict[str, Record] = field(default_factory=dict)
    stages: dict[str, str] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)
    claimed: dict[str, int] = field(default_factory=dict)
    lost: list[Lease] = field(default_factory=list)
    table: dict[str, tuple[str, float | None]] | None = None

    def put(self, key: str, value: Record) -> None:
        """A result is replaced by another result alone."""
        if value["status"] == "finished" or self.records.get(key, {}).get("status") != "finished":
            self.records[key] = value

    def written(self) -> dict[str, tuple[str, float | None]]:
        """Status and score of what there is."""
        return {key: (value["status"], value.get("score")) for key, value in self.records.items()}


class StoreMachine(RuleBasedStateMachine):
    """Several writers on one store, some of whom die."""

    condemned: Condemned

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="store-model-"))
        self.model, self.number = Model(), 0
        self.writers = [self.open() for _ in range(WRITERS)]
        self.reader = self.open()

    def teardown(self) -> None:
        for hold in self.model.holds.values():
            if hold.lease is not None:
                hold.lease.release()
        for lease in self.model.lost:
            lease.release()
        for store in self.writers:
            store._records._writer.close()
        shutil.rmtree(self.folder)

    def open(self) -> Store:
        return Store(self.folder / "store", durable=False)

    def value(self, status: str) -> Record:
        """A record like no other."""
        self.number += 1
        if status == "finished":
            result = {"score": float(self.number), "score_sd": 1.0, "episodes": 4}
            return {"status": status, "reason": None, **result}
        return {"status": status, "reason": f"for reason {self.number}"}

    @initialize()
    def want_all(self) -> None:
        self.writers[0].put_all(
            "member",
            {
                f"sweep/{key}": {
                    "sweep": "sweep", "trial_id": key, "weights_id": "w", "cell_id": key, "method": "ilql",
                    "origin": "design", "seed": 0, "columns": {"train.tau": 0.5}, "tune_trial_id": None,
                }
                for key in KEYS
            },
        )  # fmt: skip

    # What writers do

    @rule(writer=WRITER, key=KEY)
    def claim(self, writer: int, key: str) -> None:
        """Who lives is waited for; who is dead is followed."""
        self.take(self.writers[writer], key, may=self.is_free(key))

    @rule(writer=WRITER, key=KEY)
    def follow(self, writer: int, key: str) -> None:
        """Who has had no word from the holder for too long follows it, though it may live."""
        self.take(self.writers[writer], key, may=self.is_free(key))
        impatient = self.open()
        impatient._leases = Leases(impatient.folder / "leases", patience=-1.0)
        self.take(impatient, key, may=True)
        impatient._records._writer.close()

    def is_free(self, key: str) -> bool:
        hold = self.model.holds.get(key)
        return hold is None or hold.lease is None

    def take(self, store: Store, key: str, *, may: bool) -> None:
        lease = store.try_lease(key)
        assert (lease is not None) == may
        if lease is not None:
            assert lease.term == self.next_term(key)
            self.followed(key)
            self.model.holds[key] = Hold(lease.term, lease)
            if lease.term > 1:
                self.model.claimed[key] = lease.term

    def next_term(self, key: str) -> int:
        hold = self.model.holds.get(key)
        return max(self.model.claimed.get(key, 0), 0 if hold is None else hold.term) + 1

    def followed(self, key: str) -> None:
        hold = self.model.holds.pop(key, None)
        if hold is not None and hold.lease is not None:
            self.model.lost.append(hold.lease)

    @rule(writer=WRITER, key=KEY, finished=st.booleans(), give=st.booleans())
    def end(self, writer: int, key: str, finished: bool, give: bool) -> None:
        """The holder builds and records a result, or records that it failed."""
        hold = self.model.holds.get(key)
        if hold is None or hold.lease is None:
            return
        store, value = self.writers[writer], self.value("finished" if finished else "failed")
        if finished:
            self.build(store, key)
        store.put("evaluation", key, value, hold.lease)
        self.model.put(key, value)
        if give:
            hold.lease.release()
            del self.model.holds[key]

    def build(self, store: Store, key: str) -> None:
        content = f"by {self.number}" * 40

        def make(folder: Path) -> None:
            (folder / "some").mkdir()
            (folder / "some" / "episodes").write_text(content)
            (folder / "note").write_text("x" * 100)

        store.build("evaluation", key, make, {})
        self.model.stages.setdefault(key, content)

    @rule(
        writer=WRITER,
        keys=st.permutations(KEYS),
        status=st.sampled_from(("finished", "failed", "stopped")),
        ends=st.sampled_from(("well", "refused", "killed")),
        taken=LINE_BYTES,
    )
    def record(self, writer: int, keys: list[str], status: str, ends: str, taken: int) -> None:
        """Somebody without a lease, as a driver is, records what came of several, in one append.

        Of one that the disk refuses, or that its writer is killed in, the lines count that the disk has whole.
        """
        values, whole = {key: self.value(status) for key in keys}, len(keys)
        if ends == "well":
            self.writers[writer].put_all("evaluation", values)
        elif ends == "refused":
            whole = self.refuse(self.writers[writer], values, taken)
        else:
            death = self.condemned.send(self.folder / "store", "put", taken, values=values)
            (journal,) = (self.folder / "store" / "journals").glob(f"*-{death.process}-*")
            whole = journal.read_bytes().count(b"\n")
            assert death.killed == (whole < len(keys))
        for key in keys[:whole]:
            self.model.put(key, values[key])

    def refuse(self, store: Store, values: Mapping[str, Record], taken: int) -> int:
        """How many whole lines a disk has of an append of which it takes so many bytes; its writer goes on."""
        before = self.journal_of(store)
        with at_most(len(before) + taken):
            try:
                store.put_all("evaluation", values)
                refused = False
            except StoreError:
                refused = True
        whole = self.journal_of(store).count(b"\n") - before.count(b"\n")
        assert refused == (whole < len(values))
        return whole

    def journal_of(self, store: Store) -> bytes:
        writer = store._records._writer
        path = self.folder / "store" / "journals" / f"{writer._name}.jsonl"
        return b"" if writer._descriptor is None else path.read_bytes()

    @rule(writer=WRITER, key=KEY, reopens=st.booleans())
    def remove(self, writer: int, key: str, reopens: bool) -> None:
        """Somebody removes what is recorded, and perhaps begins a journal anew."""
        self.writers[writer].remove("evaluation", key)
        self.model.records.pop(key, None)
        if reopens:
            self.writers[writer]._records._writer.close()
            self.writers[writer] = self.open()

    @precondition(lambda self: self.model.lost)
    @rule(writer=WRITER, which=st.integers(0, 5), status=st.sampled_from(("finished", "failed")))
    def come_back(self, writer: int, which: int, status: str) -> None:
        """Who was followed is refused; and if it had looked a moment before it was, what it appends counts no more.

        It does where its follower died before it could record its claim: until somebody does, there is but one.
        """
        lease, store = self.model.lost[which % len(self.model.lost)], self.writers[writer]
        value = self.value(status)
        with pytest.raises(LeaseLostError):
            store.put("evaluation", lease.key, value, lease)
        store._records.put("evaluation", {lease.key: value}, (lease.key, lease.term))
        if self.model.claimed.get(lease.key, 0) <= lease.term:
            self.model.put(lease.key, value)

    @rule(writer=WRITER, taken=st.none() | TABLE_BYTES)
    def compact(self, writer: int, taken: int | None) -> None:
        """Somebody writes the table; of one that is killed in it the table before stays."""
        if taken is None:
            self.writers[writer].compact()
        else:
            death = self.condemned.send(self.folder / "store", "compact", taken)
            assert death.killed == ("done" not in death.words)
            if death.killed:
                return
        self.model.table = self.model.written()

    @rule(key=KEY, taken=LINE_BYTES, impatient=st.booleans(), links=st.booleans())
    def die_working(self, key: str, taken: int, impatient: bool, links: bool) -> None:
        """A worker may write so many bytes: it is killed in its lease, its claim, a file of its stage or its record.

        No lease is there before it says whose it is.
        """
        may = impatient or self.is_free(key)
        term, value = self.next_term(key), self.value("finished")
        content = f"by {self.number}" * 40
        how = {"impatient": impatient, "links": links}
        death = self.condemned.send(self.folder / "store", "finish", taken, values={key: value}, content=content, **how)
        if not death.words:  # it is killed in what would have become its lease
            assert death.killed
            if not may or not (self.folder / "store" / "leases" / key[:2] / f"{key}.{term}").exists():
                return
        assert ("refused" in death.words) == (not may)
        if not may:
            return
        self.followed(key)
        self.model.holds[key] = Hold(term)
        if "claimed" in death.words and term > 1:
            self.model.claimed[key] = term
        if "built" in death.words:
            self.model.stages.setdefault(key, content)
        if "done" in death.words:
            self.model.put(key, value)
        assert death.killed == ("done" not in death.words)

    @rule(key=KEY, file=st.sampled_from(("note", "some/episodes", "about.json")), kept=st.floats(0, 1))
    def cut_stage(self, key: str, file: str, kept: float) -> None:
        """A disk loses the end of a file of a stage: that is missing then, and can be built again."""
        path = self.folder / "store" / "stages" / "evaluation" / key[:2] / key / file
        if not path.is_file():
            return
        length = path.stat().st_size
        os.truncate(path, max(0, min(int(kept * length), length - 2)))
        self.model.stages.pop(key, None)

    # What readers see

    @invariant()
    def all_readers_see_the_model(self) -> None:
        fresh = self.open()
        for store in (self.reader, fresh, *self.writers):
            assert {key: plain(value) for key, value in store.all("evaluation").items()} == self.model.records
        rows = [(row["trial_id"], (row["status"], row.get("score"))) for row in fresh.rows("sweep")]
        assert sorted(rows) == sorted(self.model.written().items())  # each once

    @invariant()
    def stages_are_whole_or_missing(self) -> None:
        found = {key: self.reader.stage("evaluation", key) for key in KEYS}
        read = {key: (path / "some" / "episodes").read_text() for key, path in found.items() if path is not None}
        assert read == self.model.stages

    @invariant()
    def leases_are_held_by_whom_the_model_says(self) -> None:
        found = sorted(self.reader.leases(), key=lambda each: each[1])  # who died at once left its predecessor's, too
        held = {key: (term, holder is not None) for key, term, holder in found}
        assert held == {key: (hold.term, True) for key, hold in self.model.holds.items()}

    @invariant()
    def the_table_is_that_of_the_last_compaction(self) -> None:
        path = self.folder / "store" / "rows" / "runs.parquet"
        if self.model.table is None:
            assert not path.exists()
            return
        frame = pl.read_parquet(path, columns=["trial_id", "status", "score"])
        assert {key: (status, score) for key, status, score in frame.iter_rows()} == self.model.table

    @invariant()
    def nothing_but_torn_ends_is_wrong_with_the_journals(self) -> None:
        journals = (self.folder / "store" / "journals").glob("*.jsonl")
        torn = [path for path in journals if not path.read_bytes().endswith(b"\n") and path.stat().st_size]
        for store in (self.reader, self.open()):
            assert [line for line in store.problems() if not line.startswith("stage")] == []
            said = store.notes()
            assert len(said) == len(torn)
            assert all("bytes of an unfinished line" in line for line in said)


def plain(record: Mapping[str, Any]) -> Record:
    """A record without the lease it was written under."""
    return {name: value for name, value in record.items() if name != UNDER}


@pytest.fixture(scope="module", autouse=True)
def _condemned() -> Iterator[None]:
    StoreMachine.condemned = Condemned()
    yield
    StoreMachine.condemned.close()


StoreMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestStoreAgainstTheModel = StoreMachine.TestCase
