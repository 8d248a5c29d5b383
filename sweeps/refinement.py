"""How a search goes on after the design: rounds of proposals, and who of a round is trained beyond the rung.

Each arm has rounds of its own, one at a time. With a rung, the proposals of a round are first trained to it; the better
half of them, by their score on the tune scenes, is trained on from there, and the others are stopped: an early stop is
a training that is not continued, never one that is killed. Nothing can leak or hang that way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from sweeps.cells import Cells
from sweeps.space import PlannedTraining, settings
from sweeps.spec import TrialSpec
from sweeps.stages import drop_trajectory
from sweeps.store import Store
from sweeps.study import Study
from sweeps.waiting import Step

Numbered: TypeAlias = tuple[int, PlannedTraining]
"""A training and the number of its trial in the study."""


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """What is proposed after the design.

    Attributes:
        bases: The trainings and decodings that proposals vary, one of each arm that is refined.
        proposals: How many for each.
        round_size: Proposals that are asked for, and compared at a rung, together.
        rung: Share of the steps after which the worse half of a round is stopped; 1 stops none.
    """

    bases: tuple[PlannedTraining, ...]
    proposals: int
    round_size: int = 2
    rung: float = 1.0

    def __post_init__(self) -> None:
        if self.proposals < 0:
            raise ValueError(f"--trials must be at least 0, got {self.proposals}")
        if self.round_size < 1:
            raise ValueError(f"a round must have at least 1 proposal, got {self.round_size}")
        if len({base.arm for base in self.bases}) < len(self.bases):
            raise ValueError(f"an arm is refined once, got {', '.join(base.arm for base in self.bases)}")
        if not 0 < self.rung <= 1:
            raise ValueError(f"a rung must be a share of the steps in (0, 1], got {self.rung}")

    @property
    def total(self) -> int:
        """Proposals for all arms together."""
        return self.proposals * len(self.bases)

    def to_rung(self, training: PlannedTraining) -> PlannedTraining:
        """The training cut to its first steps."""
        steps = max(1, round(training.train.steps * self.rung))
        return dataclasses.replace(training, train=dataclasses.replace(training.train, steps=steps))


@dataclass
class _Round:
    """The proposals of one arm that have not come to their end.

    Attributes:
        open: The numbers of those that are being trained.
        at_rung: Those that go to the rung, until all of them are there and the better half goes on.
        proposed: How many the arm has had, those of earlier rounds included.
    """

    open: set[int] = field(default_factory=set)
    at_rung: list[Numbered] = field(default_factory=list)
    proposed: int = 0


@dataclass(frozen=True)
class Stopped:
    """A proposal that is not trained beyond its rung.

    Attributes:
        number: Of its trial in the study.
        training: What it would have been, whole.
        score: On the tune scenes, at the rung.
        reason: Where it stood there, in words.
    """

    number: int
    training: PlannedTraining
    score: float
    reason: str


class Rounds:
    """The rounds of a refinement. Says what is to be trained; whoever trains it says when that has ended.

    Args:
        refinement: What is proposed.
        store: Where checkpoints at a rung lie.
        cells: The sweep's.
        study: Proposes, and is told what was stopped or failed at a rung.
    """

    def __init__(self, refinement: Refinement, store: Store, cells: Cells, study: Study) -> None:
        self._refinement, self._store, self._cells, self._study = refinement, store, cells, study
        self._of_arm = {base.arm: _Round() for base in refinement.bases}

    @property
    def have_rung(self) -> bool:
        """True if proposals are first trained to a rung, and else to their end at once."""
        return self._refinement.rung < 1

    @property
    def left(self) -> int:
        """Proposals still to be made."""
        return self._refinement.total - sum(each.proposed for each in self._of_arm.values())

    @property
    def undecided(self) -> bool:
        """True if it is still to be seen who of a round goes on from the rung."""
        return any(each.at_rung for each in self._of_arm.values())

    def to_open(self) -> list[PlannedTraining]:
        """The bases of the arms that have no proposal under way and are due another."""
        due = []
        for base in self._refinement.bases:
            each = self._of_arm[base.arm]
            if not each.open and each.proposed < self._refinement.proposals:
                due.append(base)
        return due

    def propose(self, base: PlannedTraining) -> list[Numbered]:
        """Open an arm's next round; gives its proposals."""
        each, plan = self._of_arm[base.arm], self._refinement
        made: list[Numbered] = []
        for _ in range(min(plan.round_size, plan.proposals - each.proposed)):
            number, columns = self._study.propose(base.method, base.arm)
            values = {f"train.{name}": v for name, v in dataclasses.asdict(base.train).items()} | columns
            train = settings(base.method, "train", values)
            made.append((number, dataclasses.replace(base, train=train, origin="refinement")))
            each.proposed += 1
            each.open.add(number)
        if self.have_rung:
            each.at_rung += made
        return made

    def steps_to_rung(self, proposals: Sequence[Numbered]) -> list[Step]:
        """What trains proposals to the rung, at the first seed, and plays them on the tune scenes alone."""
        steps = []
        for number, training in proposals:
            short = self._refinement.to_rung(training)
            trials = self._on_tune(short)
            whole = self._on_tune(training)[0]
            goes_on = trials[0].trajectory_id == whole.trajectory_id  # not if it learns from a shorter critic, too
            steps.append(Step(short, 0, trials, trial_number=number, at_rung=True, keep_trajectory=goes_on))
        return steps

    def ended(self, arm: str, number: int) -> bool:
        """A training of an arm has come to its rung or its end; True if that was the last of a round."""
        if arm not in self._of_arm:
            return False
        self._of_arm[arm].open.discard(number)
        return not self._of_arm[arm].open

    def divide(self, arm: str) -> tuple[list[Numbered], list[Stopped]]:
        """All proposals of a round stand at the rung: the better half, best first, which goes on, and the others.

        Those that have no score have failed, and are recorded so.
        """
        each = self._of_arm[arm]
        ranked: list[tuple[float, int, PlannedTraining]] = []
        for number, training in each.at_rung:
            trials = self._on_tune(self._refinement.to_rung(training))
            if scores := self._cells.tune_scores(trials):
                ranked.append((max(scores.values()), number, training))
                continue
            reason, at = self._cells.failure(trials)
            self._cells.put_unplayed(training, trials[0], status="failed", reason=reason, at=at)
            self._study.fail(number, reason)
            drop_trajectory(self._store, trials[0])
        each.at_rung = []
        ranked.sort(key=lambda item: (-item[0], item[1]))
        half = (len(ranked) + 1) // 2
        going = [(number, training) for _, number, training in ranked[:half]]
        each.open.update(number for number, _ in going)
        stopped = []
        for place, (score, number, training) in enumerate(ranked[half:], start=half + 1):
            steps = self._refinement.to_rung(training).train.steps
            reason = f"stopped at step {steps}: {score:.2f} on the tune scenes, place {place} of {len(ranked)}"
            stopped.append(Stopped(number, training, score, reason))
        return going, stopped

    def stop(self, proposal: Stopped) -> None:
        """Record that a proposal was stopped; nobody will train it on."""
        short = self._refinement.to_rung(proposal.training)
        reached = self._on_tune(short)[0]
        self._cells.put_unplayed(proposal.training, reached, status="stopped", reason=proposal.reason)
        self._study.stop(proposal.number, step=short.train.steps, score=proposal.score)
        drop_trajectory(self._store, self._on_tune(proposal.training)[0])

    def _on_tune(self, training: PlannedTraining) -> list[TrialSpec]:
        """A training's cells at the first seed, on the tune scenes."""
        shared = self._cells.shared
        return shared.trials(training, 0, shared.tune)
