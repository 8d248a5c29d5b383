"""Claims and finishes of cells a second by eight processes that write at once, and whether one is ever lost or doubled.

To claim a cell is to take the lease on it and to look whether it is done already; to finish it is to append its
evaluation record under that lease, and to give the lease back. That is what a job of ours does. A look, which taking
the lease ends with, reads what all eight have appended meanwhile. The record is that of `benchmarks/cells.py`, as long
as a real one.

The other side is Optuna's journal storage, one file with its default lock, by the two calls that do the same with the
least: `create_new_trial`, a trial that runs, without parameters, and `set_trial_state_values`, complete with a value.
Each of them reads what all eight have appended, too. What our record says beyond a value, Optuna is not asked to keep.

The floor of our side is what no program leaves out that shares nothing but a folder: the calls of the file system
alone, with as many bytes (`Calls`).

"With fsync" our side waits for the disk at every finish, and Optuna at every call; "without", neither: our store is
opened with `durable=False`, and Optuna, which knows no such choice, is given an `os.fsync` that does nothing.

For these rates a number that the processes share deals the cells, as a driver does. Whether one is ever doubled is
asked where nobody deals: each process goes through all of them in an order of its own and claims what it can.

Each measurement starts eight processes. What counts is what they finish in some seconds from when all are ready.
"""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import itertools
import math
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial

from benchmarks.cells import fill
from benchmarks.measure import Benchmark, Line, alternately
from sweeps.exact_json import Record, dumps
from sweeps.journal_reader import JournalReader
from sweeps.store import Store

WRITERS = 8
GOAL = 5.0
MANY = 100_000

Cell = Callable[[int], bool]
"""Claims and finishes the cell of that number; False if somebody else has or had it."""


@dataclass(frozen=True)
class Ours:
    """Our store in a folder, and what a cell's record is made of.

    Attributes:
        folder: The store's.
        durable: Whether a record is on the disk when it is put.
        evaluation: The record.
    """

    folder: Path
    durable: bool
    evaluation: Record

    def cell(self) -> Cell:
        """As one of the writers has it."""
        store = Store(self.folder, durable=self.durable)

        def do(number: int) -> bool:
            trial_id = trial_id_of(number)
            lease = store.try_lease(trial_id)
            if lease is None:
                return False
            with lease:
                if store.some("evaluation", [trial_id], lease):
                    return False
                store.put("evaluation", trial_id, self.evaluation | {"score": score_of(number)}, lease)
            return True

        return do


@dataclass(frozen=True)
class Others:
    """Optuna's journal storage in a file."""

    file: Path
    durable: bool

    def cell(self) -> Cell:
        """As one of the writers has it."""
        if not self.durable:
            os.fsync = _no_fsync  # in this writer alone, which ends with its measurement
        storage = JournalStorage(JournalFileBackend(str(self.file)))
        (study,) = storage.get_all_studies()
        begun = create_trial(state=TrialState.RUNNING)

        def do(number: int) -> bool:
            trial = storage.create_new_trial(study._study_id, begun)
            return storage.set_trial_state_values(trial, TrialState.COMPLETE, [score_of(number)])

        return do


@dataclass(frozen=True)
class Calls:
    """The calls of the file system that a claim and a finish cannot do without, and not a line of Python more.

    Who claims gives a file of its own a name that only one can give, with a word in it that says whose it is, and sees
    who else gave one; looks which journals there are, and reads what each has got. Who finishes sees that the name is
    its own still, appends, and takes it away.

    Attributes:
        folder: Where the files lie.
        durable: Whether the disk is waited for.
        size: A record's bytes.
    """

    folder: Path
    durable: bool
    size: int

    def cell(self) -> Cell:
        """As one of the writers has it."""
        journals, claims = self.folder / "journals", self.folder / "claims"
        for folder in (journals, *(claims / f"{number:02x}" for number in range(256))):
            folder.mkdir(parents=True, exist_ok=True)
        own = os.open(journals / str(os.getpid()), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        record, word, slip = b"x" * self.size, b"x" * 250, f"{claims}/{os.getpid()}"
        slip_file = os.open(slip, os.O_WRONLY | os.O_CREAT, 0o644)
        others: dict[str, tuple[int, int]] = {}  # descriptor, how far it was read

        def look() -> None:
            with os.scandir(journals) as found:
                for file in found:
                    if file.name not in others:
                        others[file.name] = os.open(file.path, os.O_RDONLY), 0
                    descriptor, read = others[file.name]
                    others[file.name] = descriptor, read + len(os.pread(descriptor, 1 << 16, read))

        def do(number: int) -> bool:
            key = trial_id_of(number)
            folder = f"{claims}/{key[:2]}"
            file = f"{folder}/{key}"
            os.pwrite(slip_file, word, 0)
            os.link(slip, file)
            os.listdir(folder)
            look()
            claim = os.open(file, os.O_RDONLY)
            os.read(claim, 1 << 14)
            os.close(claim)
            os.write(own, record)
            if self.durable:
                os.fsync(own)
            os.unlink(file)
            return True

        return do


Side = Ours | Others | Calls


def _no_fsync(fd: object) -> None:
    """Nothing."""


def trial_id_of(number: int) -> str:
    """An id as long as a trial's."""
    return hashlib.sha256(str(number).encode()).hexdigest()[:20]


def score_of(number: int) -> float:
    """A score that tells what cell it is of."""
    return -number / 7


@dataclass(frozen=True)
class Work:
    """What the writers of a measurement share.

    Attributes:
        side: How a cell is claimed and finished.
        cells: How many there are.
        seconds: For how long they are dealt.
        dealt: How many have been; None where nobody deals.
        ready: Passed when all writers are.
        done: Each writer's count of cells that it finished in time, and when it began and ended.
    """

    side: Side
    cells: float
    seconds: float
    dealt: Any
    ready: Any
    done: Any

    def numbers(self) -> Iterator[int]:
        """The cells that one writer tries, in its order."""
        if self.dealt is None:
            order = list(range(int(self.cells)))
            random.Random(os.getpid()).shuffle(order)
            yield from order
            return
        while True:
            with self.dealt.get_lock():
                number = self.dealt.value
                self.dealt.value += 1
            if number >= self.cells:
                return
            yield number


def write(work: Work) -> None:
    """Claim and finish cells as one of the writers."""
    do, finished = work.side.cell(), 0
    gc.collect()
    gc.freeze()  # of what is loaded a process collects once, early: here that would fall into the seconds that count
    work.ready.wait()
    began = now = time.monotonic()
    for number in work.numbers():
        done = do(number)
        now = time.monotonic()
        if now >= began + work.seconds:
            break
        finished += done
    work.done.put((finished, began, now))


def together(side: Side, *, cells: float = math.inf, seconds: float = math.inf, deal: bool = True) -> tuple[int, float]:
    """Cells that eight processes finish, and the seconds that it takes them, or that they are given."""
    context = _context()
    dealt = context.Value("q", 0) if deal else None
    work = Work(side, cells, seconds, dealt, context.Barrier(WRITERS), context.Queue())
    writers = [context.Process(target=write, args=(work,)) for _ in range(WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    if any(writer.exitcode for writer in writers):
        raise RuntimeError(f"every writer must end well, got {[writer.exitcode for writer in writers]}")
    finished, began, ended = zip(*(work.done.get() for _ in writers), strict=True)
    return sum(finished), min(seconds, max(ended) - min(began))


def _context() -> ForkServerContext:
    """Processes that begin with this module loaded, and nothing opened."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def template(folder: Path) -> Record:
    """An evaluation record as a worker writes it."""
    return next(iter(Store(fill(folder, 4).folder).all("evaluation").values()))


def rate(side: Side, seconds: float) -> float:
    """Cells claimed and finished a second."""
    finished, took = together(side, seconds=seconds)
    return finished / took


def compare(folder: Path, record: Record, *, durable: bool, seconds: float, rounds: int) -> Line:
    """The line with fsync, or the one without."""
    folder.mkdir()
    size = len(dumps(record))
    turns = iter(range(1_000))
    floor: list[float] = []

    def ours() -> float:
        made = rate(Ours(folder / f"ours-{next(turns)}", durable, record), seconds)
        floor.append(rate(Calls(folder / f"calls-{next(turns)}", durable, size), seconds))
        return made

    def other() -> float:
        file = folder / f"optuna-{next(turns)}.log"
        optuna.create_study(storage=JournalStorage(JournalFileBackend(str(file))))
        return rate(Others(file, durable), seconds)

    mine, theirs = alternately(ours, other, rounds=rounds, warm_up=False)
    reached = statistics.median(made / calls for made, calls in zip(mine, floor, strict=True))
    return Line(
        name=f"claims and finishes a second by {WRITERS} writers, {'with fsync' if durable else 'without fsync'}",
        unit="cells/s",
        ours=mine,
        other=theirs,
        other_is="Optuna's journal storage, one file" + ("" if durable else ", its fsync left out"),
        goal=GOAL,
        note=f"a record has {size:,} bytes; the calls of the file system alone make {statistics.median(floor):,.0f} "
        f"cells/s, of which ours is {reached:.0%}",
        details={"calls_alone": floor, "record_bytes": size},
    )


def check_none_lost_or_doubled(folder: Path, record: Record, cells: int) -> Mapping[str, float]:
    """Let the writers vie for so many cells, and read the store as a fresh process does; returns what was found.

    Raises:
        RuntimeError: A record is lost, doubled, damaged or another than was written.
    """
    finished, took = together(Ours(folder, False, record), cells=cells, deal=False)
    scores = {trial_id_of(number): score_of(number) for number in range(cells)}
    read = itertools.chain.from_iterable(JournalReader(folder / "journals").read())
    written = Counter((entry.kind, entry.key) for entry in read)
    store = Store(folder)
    found = {trial_id: value["score"] for trial_id, value in store.all("evaluation").items()}
    faults = {
        "finished": finished - cells,
        "doubled": written.total() - len(written),
        "lost": len({("evaluation", key) for key in scores} - set(written)),
        "more": len(written) - cells,
        "another": len(set(scores.items()) ^ set(found.items())),
        "leases": len(list(store.leases())),
        "problems": len(store.problems()),
    }
    if any(faults.values()):
        raise RuntimeError(f"every record must be there once, got faults {faults}")
    return {"cells": cells, "seconds": took, "cells_a_second": cells / took, **faults}


def run(quick: bool) -> list[Line]:
    """With fsync, and without; then many at once, which are counted."""
    seconds, rounds, many = (0.5, 2, 1_000) if quick else (3.0, 4, MANY)
    with tempfile.TemporaryDirectory() as folder:
        record = template(Path(folder) / "template")
        lines = [
            compare(Path(folder) / name, record, durable=durable, seconds=seconds, rounds=rounds)
            for name, durable in (("with", True), ("without", False))
        ]
        found = check_none_lost_or_doubled(Path(folder) / "many", record, many)
    counted = f"; of {many:,} cells for which all vied none was lost and none doubled"
    lines[-1] = dataclasses.replace(
        lines[-1], note=lines[-1].note + counted, details={**lines[-1].details, "many": found}
    )
    return lines


BENCHMARK = Benchmark(
    name="store",
    question="How many cells do eight writers claim and finish a second, beside Optuna's journal storage?",
    run=run,
)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        record = template(Path(scratch) / "template")
        print(dumps(dict(check_none_lost_or_doubled(Path(scratch) / "many", record, MANY))))
