"""Record `bandit.jsonl`, the table of the surrogate: `make surrogate`.

Tiny sweeps of the bandit are run for real, without Ray, in a store that is thrown away.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from command_line import ask
from surrogate import TABLE, in_this_process
from tabulated import Table

from ilql.task import Environment, Reply, TaskFault
from ilql.tasks.bandit import Bandit
from sweeps import experiment, provenance
from sweeps.store import Store

WHOLE = ("--name", "whole", "--seeds", "2")
"""All arms, and a search with rungs: what the other tests of the bandit run, and a second training seed."""

DIVERGED = (
    "--name", "diverged", "--methods", "bc,ilql", "--trials", "0", "--seeds", "2", "ilql.train.learning_rate=0.005,1e30"
)  # fmt: skip
"""Half of ILQL's cells diverge; the others are those of `WHOLE`."""

NO_START = ("--name", "no-start", "--trials", "0", "--set", "behaviour.learning_rate=1e30")
"""The behaviour policy diverges, and what starts from it cannot."""

SOUND = ("--name", "broken", "--methods", "bc", "--trials", "0", "--episodes", "64")
BROKEN = ("--name", "broken", "--methods", "bc,sarsa", "--trials", "0", "--episodes", "64")
"""The world breaks where SARSA plays on the report scenes: all else is recorded by then."""


@contextmanager
def a_world_that_breaks() -> Iterator[None]:
    """No bandit answers."""

    def step(self: Bandit, environments: Sequence[Environment], utterances: Sequence[str]) -> list[Reply]:
        raise TaskFault("the bandit's arm is stuck")

    with patch.object(Bandit, "step", step):
        yield


def record(folder: Path) -> Table:
    """Run them in a new store, and give the table of it."""

    def run(*options: str) -> None:
        ask("--store", str(folder), "--no-mlflow", *options)

    # Of a report nothing is kept, and the machine's name says nothing.
    with in_this_process(), patch.object(experiment, "present"), patch.object(provenance, "host", lambda: "a machine"):
        for options in (WHOLE, DIVERGED, NO_START, SOUND):
            run(*options)
        with a_world_that_breaks():
            run(*BROKEN)
    return Table.of(Store(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=TABLE, help="default: %(default)s")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = record(Path(folder) / "store")
    table.write(given.out)
    size = given.out.stat().st_size
    print(f"{len(table.trainings)} trainings, {len(table.evaluations)} evaluations, {size:,} bytes in {given.out}")


if __name__ == "__main__":
    main()
