"""Claims and finishes of cells a second by eight processes that write at once, and whether one is ever lost or doubled.

What our store has of a claim. One driver plans a sweep and deals its jobs, from memory; no record says who is at one,
and two drivers at once would do the same cell twice, to the same result. What is on disk of a cell is its `member`
record, which the driver appends when it wants it, and the `evaluation` record, which the worker appends when it is
done. So here a number that the processes share deals the cells, and to

- claim one is to look whether it is done, which reads what all eight have appended meanwhile, as a worker does before
  it plays it, and to append its member record;
- finish one is to append its evaluation record.

The records are those of `benchmarks/cells.py`, as long as real ones. A driver appends the members of a whole design in
one go, which is cheaper than this.

The other side is Optuna's journal storage, one file with its default lock, by the calls that do the same with the
least: `create_new_trial` with a trial that runs and tells by an attribute what our member record does, and
`set_trial_state_values`, complete with a value. Each reads what all eight have appended, too. `study.ask` does more: it
looks for trials that wait, and every parameter it is asked for is one more record. What Optuna does with trials that
say nothing of themselves stands in the notes.

"With fsync" both sides wait for the disk at both records, without it at none: our store is opened with `durable=False`,
and Optuna, which knows no such choice, is given an `os.fsync` that does nothing.

Each measurement starts eight processes. What counts is what they finish in some seconds from when all are ready. The
floors in the notes are the same eight with our appends and no look, and with the same bytes written to a file each.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import multiprocessing
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial

from benchmarks.cells import SWEEP, fill
from benchmarks.measure import Benchmark, Line, alternately
from sweeps.exact_json import Record, dumps
from sweeps.journal import JournalReader
from sweeps.store import Store

WRITERS = 8
GOAL = 5.0
MANY = 100_000

Cell = Callable[[int], None]
"""Claims and finishes the cell of that number."""


@dataclass(frozen=True)
class Ours:
    """Our store in a folder, what a cell's two records are made of, and whether a claim looks what there is."""

    folder: Path
    durable: bool
    member: Record
    evaluation: Record
    looks: bool = True

    def cell(self) -> Cell:
        """As one of the writers has it."""
        store = Store(self.folder, durable=self.durable)

        def do(number: int) -> None:
            trial_id, score = trial_id_of(number), score_of(number)
            assert not self.looks or store.get("evaluation", trial_id) is None
            store.put("member", f"{SWEEP}/{trial_id}", self.member | {"trial_id": trial_id})
            store.put("evaluation", trial_id, self.evaluation | {"score": score})

        return do


@dataclass(frozen=True)
class Others:
    """Optuna's journal storage in a file, and what is told of a trial that begins."""

    file: Path
    durable: bool
    member: Record

    def cell(self) -> Cell:
        """As one of the writers has it."""
        if not self.durable:
            os.fsync = _no_fsync  # in this writer alone, which ends with its measurement
        storage = JournalStorage(JournalFileBackend(str(self.file)))
        (study,) = storage.get_all_studies()
        begun = create_trial(state=TrialState.RUNNING, user_attrs=self.member)

        def do(number: int) -> None:
            trial = storage.create_new_trial(study._study_id, begun)
            storage.set_trial_state_values(trial, TrialState.COMPLETE, [score_of(number)])

        return do


@dataclass(frozen=True)
class Writes:
    """What the disk takes: the bytes of both records, appended to a file of each writer's own."""

    folder: Path
    durable: bool
    sizes: tuple[int, int]

    def cell(self) -> Cell:
        """As one of the writers has it."""
        file = os.open(self.folder / str(os.getpid()), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        records = [b"x" * size for size in self.sizes]

        def do(number: int) -> None:
            for record in records:
                os.write(file, record)
                if self.durable:
                    os.fsync(file)

        return do


Side = Ours | Others | Writes


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
        dealt: How many have been.
        ready: Passed when all writers are.
        done: Each writer's count of cells that it finished in time, and when it began and ended.
    """

    side: Side
    cells: float
    seconds: float
    dealt: Any
    ready: Any
    done: Any


def write(work: Work) -> None:
    """Claim and finish cells as one of the writers."""
    do, finished = work.side.cell(), 0
    work.ready.wait()
    began = now = time.monotonic()
    while now < began + work.seconds:
        with work.dealt.get_lock():
            number = work.dealt.value
            work.dealt.value += 1
        if number >= work.cells:
            break
        do(number)
        now = time.monotonic()
        finished += now < began + work.seconds
    work.done.put((finished, began, now))


def together(side: Side, *, cells: float = math.inf, seconds: float = math.inf) -> tuple[int, float]:
    """Cells that eight processes finish, and the seconds that it takes them, or that they are given."""
    context = _context()
    work = Work(side, cells, seconds, context.Value("q", 0), context.Barrier(WRITERS), context.Queue())
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


def templates(folder: Path) -> tuple[Record, Record]:
    """A member and an evaluation record as the driver and a worker write them."""
    store = Store(fill(folder, 4).folder)
    return store.members()[0], next(iter(store.all("evaluation").values()))


def rate(side: Side, seconds: float) -> float:
    """Cells claimed and finished a second."""
    finished, took = together(side, seconds=seconds)
    return finished / took


def compare(folder: Path, records: tuple[Record, Record], *, durable: bool, seconds: float, rounds: int) -> Line:
    """The line with fsync, or the one without."""
    folder.mkdir()
    member, evaluation = records
    sizes = len(dumps(member)), len(dumps(evaluation))
    turns = iter(range(1_000))
    bare: list[float] = []
    blind: list[float] = []
    floor: list[float] = []

    def ours() -> float:
        floor.append(rate(Writes(folder, durable, sizes), seconds / 2))
        blind.append(rate(Ours(folder / f"blind-{next(turns)}", durable, member, evaluation, looks=False), seconds / 2))
        return rate(Ours(folder / f"ours-{next(turns)}", durable, member, evaluation), seconds)

    def optuna_told(of_a_trial: Record) -> float:
        file = folder / f"optuna-{next(turns)}.log"
        optuna.create_study(storage=JournalStorage(JournalFileBackend(str(file))))
        return rate(Others(file, durable, of_a_trial), seconds)

    def other() -> float:
        bare.append(optuna_told({}))
        return optuna_told(member)

    mine, theirs = alternately(ours, other, rounds=rounds, warm_up=False)
    without, most = statistics.median(bare), statistics.median(floor)
    return Line(
        name=f"claims and finishes a second by {WRITERS} writers, {'with fsync' if durable else 'without fsync'}",
        unit="cells/s",
        ours=mine,
        other=theirs,
        other_is="Optuna's journal storage, one file" + ("" if durable else ", its fsync left out"),
        goal=GOAL,
        note=f"records of {sizes[0]:,} and {sizes[1]:,} bytes; Optuna makes {without:,.0f} cells/s of trials that say "
        f"nothing of themselves, {statistics.median(mine) / without:.1f} times fewer than ours; writing the bytes "
        f"alone makes {most:,.0f} cells/s, and our two appends without the look, for which all eight read what all "
        f"have written, {statistics.median(blind):,.0f}",
        details={"other_bare": bare, "writes_alone": floor, "ours_without_look": blind, "record_bytes": sizes},
    )


def check_none_lost_or_doubled(folder: Path, records: tuple[Record, Record], cells: int) -> Mapping[str, float]:
    """Let the writers do so many cells, and read the store as a fresh process does; returns what was found.

    Raises:
        RuntimeError: A record is lost, doubled, damaged or another than was written.
    """
    finished, took = together(Ours(folder, False, *records), cells=cells)
    scores = {trial_id_of(number): score_of(number) for number in range(cells)}
    members = {f"{SWEEP}/{trial_id}" for trial_id in scores}
    reader = JournalReader(folder / "journals")
    written = Counter((entry.kind, entry.key) for entry in reader.read())
    store = Store(folder)
    found = {trial_id: record["score"] for trial_id, record in store.all("evaluation").items()}
    faults = {
        "writers": len(list((folder / "journals").iterdir())) - WRITERS,
        "finished": finished - cells,
        "doubled": written.total() - len(written),
        "lost": len(({("member", key) for key in members} | {("evaluation", key) for key in scores}) - set(written)),
        "more": len(written) - 2 * cells,
        "another": len(set(scores.items()) ^ set(found.items())),
        "problems": len(store.problems()),
    }
    if any(faults.values()):
        raise RuntimeError(f"every record must be there once, got faults {faults}")
    return {"cells": cells, "seconds": took, "cells_a_second": cells / took, **faults}


def run(quick: bool) -> list[Line]:
    """With fsync, and without; then many at once, which are counted."""
    seconds, rounds, many = (0.5, 2, 1_000) if quick else (3.0, 4, MANY)
    with tempfile.TemporaryDirectory() as folder:
        records = templates(Path(folder) / "templates")
        lines = [
            compare(Path(folder) / name, records, durable=durable, seconds=seconds, rounds=rounds)
            for name, durable in (("with", True), ("without", False))
        ]
        found = check_none_lost_or_doubled(Path(folder) / "many", records, many)
    counted = f"; of {many:,} cells none was lost and none doubled"
    lines[-1] = dataclasses.replace(
        lines[-1], note=lines[-1].note + counted, details={**lines[-1].details, "many": found}
    )
    return lines


BENCHMARK = Benchmark(
    name="store",
    question="How many cells do eight writers claim and finish a second, beside Optuna's journal storage?",
    run=run,
)
