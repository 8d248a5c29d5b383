"""Kill whoever is at something in the middle of it, and say whether that was so."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass, replace
from typing import Any

from running import Sweep, opened
from services import Nodes, Tracker, cut, name_of, users_of
from underway import Ends, Work, step_of, who_does

STILL_SECONDS = 1.0
"""So long the curve of a training must have no new line to be known for one whose worker is gone: it is not begun again
before five seconds have passed."""

REPORT = "report"


@dataclass(frozen=True)
class Strike:
    """When whom to kill.

    Attributes:
        victim: `driver`, `worker`, `node` or `mlflow`.
        phase: `training`, `evaluation` or `report`.
        delay: Seconds after the phase began.
        depth: After those, the share of a training's steps that it has behind it, or of half a second of an evaluation.
        grouped: Whether the sweep trains in groups of Ray Train's.
    """

    victim: str
    phase: str
    delay: float
    depth: float
    grouped: bool

    def sooner(self, times: int) -> Strike:
        """The same in so many halvings of its time."""
        return replace(self, delay=self.delay / 2**times, depth=self.depth / 2**times)


@dataclass
class Scene:
    """A sweep that runs, what it stands on, and who of all that is to be killed when.

    Attributes:
        strike: Who and when.
        sweep: It.
        tracker: MLflow's server.
        nodes: The cluster, if it is not the sweep's own.
        ends: Where its trainings end.
    """

    strike: Strike
    sweep: Sweep
    tracker: Tracker
    nodes: Nodes | None
    ends: Ends

    def wait(self) -> bool:
        """Wait until it is time to strike; False if that time does not come any more."""
        time.sleep(self.strike.delay)
        if self.strike.phase == REPORT:
            return True
        while not self._at_it(self._work(deep=True)):
            if self._driver.poll() is not None or self.sweep.reports():
                return False
            time.sleep(0.01)
        if self.strike.phase == "evaluation":
            time.sleep(self.strike.depth / 2)
        return True

    def hit(self) -> dict[str, Any]:
        """Kill; what that was.

        `killed`: how many processes; `running`: whether the sweep ran; `held_before` and `held_after`: whether the
        victim, or the sweep where the victim does no such work, was in the middle of the phase just before the kill,
        and had not come to its end just after; `lost_steps`: the most that a training had made since its checkpoint.
        """
        running, trainings = self._driver.poll() is None, self.sweep.work("training", self.ends)
        work = self._work()
        at_it = self._at_it(work)
        before = self.sweep.reports() and not trainings if self.strike.phase == REPORT else bool(at_it)
        killed = self._kill(at_it)
        return {
            "killed": killed,
            "running": running,
            "held_before": running and before,
            "held_after": self._is_cut_off(work, at_it),
            "lost_steps": max((each.lost for each in trainings), default=0),
        }

    @property
    def _driver(self) -> subprocess.Popen[str]:
        assert self.sweep.process is not None
        return self.sweep.process

    def _work(self, *, deep: bool = False) -> list[Work]:
        """What of the phase is under way; if it is to be `deep`, trainings only that are far enough."""
        work = self.sweep.work(self.strike.phase, self.ends)
        return [each for each in work if not deep or each.step >= self.strike.depth * (each.step + each.left)]

    def _at_it(self, work: list[Work]) -> list[int]:
        """The processes at some work that may be killed for it; of victims that do none, all."""
        if not work or self.strike.victim in ("driver", "mlflow"):
            return [each.process for each in work]
        there = self.sweep.processes() if self.nodes is None else self.nodes.processes("second")
        if self.nodes is not None:
            there |= users_of(self.nodes.folder / "second")
        return who_does(work, self.strike.phase, there, grouped=self.strike.grouped)

    def _kill(self, at_it: list[int]) -> int:
        victim = self.strike.victim
        if victim == "driver":
            cut({self._driver.pid})
            return 1
        if victim == "node":
            assert self.nodes is not None
            there = len(self.nodes.processes("second"))
            self.nodes.kill_node("second")
            return there
        if victim == "mlflow":
            self.tracker.kill()
            return 1
        # In the report's time nobody works, and perhaps nobody is left.
        chosen = set(at_it[:1] if self.strike.phase != REPORT else self._idle()[:1])
        cut(chosen)
        return len(chosen)

    def _idle(self) -> list[int]:
        """The sweep's workers. Ray's own agents have such names, too: with one of them goes its node."""
        named = {process: name_of(process) for process in self.sweep.processes()}
        return sorted(process for process, name in named.items() if name.startswith("ray::") and "Agent" not in name)

    def _is_cut_off(self, work: list[Work], at_it: list[int]) -> bool:
        """Whether what was under way had not come to its end when the victim went."""
        if self.strike.victim == "driver":
            if self._driver.wait(timeout=30) >= 0:  # it had come to its own end
                return False
        elif self._driver.poll() is not None:
            return False
        if self.strike.phase == REPORT:
            return True
        hits = self.strike.victim in ("worker", "node")
        if hits and not self.strike.grouped:
            gone = set(at_it[:1] if self.strike.victim == "worker" else at_it)
            work = [each for each in work if each.process in gone]
        steps = [self._step(each) for each in work]
        if hits and self.strike.grouped and self.strike.phase == "training":  # who was at which is not known
            time.sleep(STILL_SECONDS)
            return any(step is not None and step == self._step(each) for each, step in zip(work, steps, strict=True))
        return any(step is not None for step in steps)

    def _step(self, work: Work) -> int | None:
        return step_of(opened(self.sweep.store), self.ends, work)
