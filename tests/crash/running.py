"""The command of a sweep as a process, and what of its work is under way."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from services import Broken, cut, demand, environment, marked, users_of
from underway import Ends, Work, evaluations, trainings

from sweeps.store import Store

ROOT = Path(__file__).resolve().parents[2]

PATIENCE = 420.0
"""Seconds after which a command counts as hung, unless a busy machine took long for an undisturbed one."""


@dataclass
class Sweep:
    """The command on a store, as a process."""

    store: Path
    arguments: tuple[str, ...]
    rows: int
    mark: str
    tracking: str
    address: str | None = None
    patience: float = PATIENCE
    process: subprocess.Popen[str] | None = None
    ray: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="r", dir="/tmp")))  # short, for sockets

    @property
    def output(self) -> Path:
        """Where what it prints goes."""
        return self.store.with_suffix(".out")

    def processes(self) -> set[int]:
        """All it has started that are there, itself among them, but for what its jobs run in on others' clusters."""
        return marked(self.mark) | users_of(self.ray)

    def clean(self) -> None:
        """Leave nothing of it: no process, and no folder but its store."""
        cut(self.processes())
        shutil.rmtree(self.ray, ignore_errors=True)

    def start(self) -> None:
        """Start it."""
        more = {"MLFLOW_TRACKING_URI": self.tracking, "RAY_TMPDIR": str(self.ray)}
        more |= {"RAY_ADDRESS": self.address} if self.address else {}
        with self.output.open("a") as out:
            self.process = subprocess.Popen(
                [sys.executable, ROOT / "sweeps" / "bandit_ablation.py", *self.arguments, "--store", self.store],
                env=environment(self.mark) | more, stdout=out, stderr=out, text=True, start_new_session=True,
            )  # fmt: skip

    def wait(self) -> int:
        """Its exit status."""
        assert self.process is not None
        try:
            return self.process.wait(timeout=self.patience)
        except subprocess.TimeoutExpired:
            raise Broken(f"the command ended within {self.patience:.0f} s; it hangs, see {self.output}") from None

    def has_begun(self, phase: str, ends: Ends) -> bool:
        """Whether it is in the middle of a phase."""
        assert self.process is not None
        demand(self.process.poll() is None, f"it was still running when {phase} was waited for: see {self.output}")
        return self.reports() if phase == "report" else bool(self.work(phase, ends))

    def work(self, phase: str, ends: Ends) -> list[Work]:
        """What of a phase it is in the middle of."""
        if not (self.store / "store.json").is_file():
            return []
        store = opened(self.store)  # what it prints comes every ten seconds, and these last one
        return trainings(store, ends) if phase == "training" else evaluations(store) if phase == "evaluation" else []

    def reports(self) -> bool:
        """Whether the last score is there: a moment later the workers have nothing to do, and leave."""
        if not (self.store / "store.json").is_file():
            return False
        statuses = [row["status"] for row in opened(self.store).rows("crash")]  # only of those that have come to an end
        return len(statuses) == self.rows and all(status in ("finished", "stopped") for status in statuses)


@functools.lru_cache(maxsize=2)
def opened(store: Path) -> Store:
    """The store, opened once: each look at it reads what is new."""
    return Store(store)
