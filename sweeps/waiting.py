"""The steps of a sweep that wait, in order, each looked at again only when what it waits for may be there.

A rerun of a sweep finds all its steps done, and a worker that is free asks again and again while most steps wait for
one training: looking through all of them each time would cost each step in proportion to their number.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sweeps.space import PlannedTraining
from sweeps.spec import TrialSpec

Blocker: TypeAlias = tuple[str, str]
"""What a step waits for: a stage, by kind and key; the `end` of whatever job has some weights; or the time when the job
of a name is `due` to be begun again."""


@dataclass(frozen=True)
class Step:
    """What one job will do: train some weights, and play trials on them.

    Attributes:
        training: The setting.
        seed: The training seed.
        trials: All on the same weights. If the training decodes nothing, one trial that stands for the weights alone.
        trial_number: The study's number of the training; None where the study is not told.
        at_rung: Whether it ends at a rung.
        keep_trajectory: Whether its checkpoints are kept, to be trained on from.
    """

    training: PlannedTraining
    seed: int
    trials: Sequence[TrialSpec]
    trial_number: int | None = None
    at_rung: bool = False
    keep_trajectory: bool = False

    @property
    def spec(self) -> TrialSpec:
        """A trial of the weights."""
        return self.trials[0]

    @property
    def name(self) -> str:
        """What its job is called; two that run at a time have different names."""
        return f"{self.training.arm}-{self.spec.weights_id[:8]}-{self.seed}" + ("-rung" if self.at_rung else "")

    def makes(self) -> Iterator[Blocker]:
        """The stages its job may leave that others wait for."""
        yield "weights", self.spec.weights_id
        if self.spec.candidates_key is not None:
            yield "candidates", self.spec.candidates_key


Place: TypeAlias = tuple[int, int]
"""Where a step stands: whether it is a replicate, and a number."""


class Queue:
    """Steps that wait. One that waits for something is parked until that is said to be released."""

    def __init__(self) -> None:
        self._heap: list[tuple[Place, Step]] = []
        self._parked: dict[Blocker, list[tuple[Place, Step]]] = {}
        self._weights: Counter[str] = Counter()
        self._first, self._last, self._steps = 0, 0, 0

    def __len__(self) -> int:
        return self._steps

    def __contains__(self, weights_id: object) -> bool:
        """True if a step of these weights waits."""
        return weights_id in self._weights

    def append(self, step: Step) -> None:
        """Put a step behind those of its kind: replicates come after all first seeds."""
        self._last += 1
        self._add((min(step.seed, 1), self._last), step)

    def prepend(self, steps: Sequence[Step]) -> None:
        """Put steps, in their order, before everything."""
        self._first -= len(steps)
        for number, step in enumerate(steps, start=self._first):
            self._add((0, number), step)

    def pop(self) -> tuple[Place, Step] | None:
        """Take out the next step that is not parked, with its place; None if there is none."""
        if not self._heap:
            return None
        place, step = heapq.heappop(self._heap)
        self._count(step, -1)
        return place, step

    def park(self, place: Place, step: Step, blocker: Blocker) -> None:
        """Put a step back at its place, not to be looked at before `release` says that its blocker may be gone."""
        self._count(step, 1)
        self._parked.setdefault(blocker, []).append((place, step))

    def blocks(self, blocker: Blocker) -> bool:
        """True if a step is parked for this."""
        return blocker in self._parked

    def release(self, blocker: Blocker) -> None:
        """Let the steps that are parked for this be looked at again."""
        for parked in self._parked.pop(blocker, ()):
            heapq.heappush(self._heap, parked)

    def _add(self, place: Place, step: Step) -> None:
        self._count(step, 1)
        heapq.heappush(self._heap, (place, step))

    def _count(self, step: Step, change: int) -> None:
        self._steps += change
        self._weights[step.spec.weights_id] += change
        if not self._weights[step.spec.weights_id]:
            del self._weights[step.spec.weights_id]


class Running:
    """The steps whose jobs run, by name; a look at it takes as long with a thousand as with two."""

    def __init__(self) -> None:
        self._steps: dict[str, Step] = {}
        self._turns: deque[str] = deque()
        self._weights: Counter[str] = Counter()
        self._candidates: Counter[str | None] = Counter()

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def names(self) -> list[str]:
        """The names of all, in the order in which they began."""
        return list(self._steps)

    def add(self, step: Step) -> None:
        """A step's job begins."""
        self._steps[step.name] = step
        self._turns.append(step.name)
        self._weights[step.spec.weights_id] += 1
        self._candidates[step.spec.candidates_key] += 1

    def pop(self, name: str) -> Step:
        """The job of a name runs no more; its step."""
        step = self._steps.pop(name)
        self._turns.remove(name)
        self._weights[step.spec.weights_id] -= 1
        self._candidates[step.spec.candidates_key] -= 1
        return step

    def have(self, weights_id: str) -> bool:
        """Whether a job runs that has these weights."""
        return self._weights[weights_id] > 0

    def draw(self, candidates_key: str) -> bool:
        """Whether a job runs that needs these candidates."""
        return self._candidates[candidates_key] > 0

    def take_turns(self, count: int) -> list[Step]:
        """So many of them at most, others each time, until all had their turn."""
        taken = [self._steps[self._turns[number]] for number in range(min(count, len(self._turns)))]
        self._turns.rotate(-len(taken))
        return taken
