"""What a sweep does next: pure bookkeeping between a plan, the store and the study, with no cluster in it.

A sweep is first its design, then the refinement, each arm's in rounds of its own (`sweeps.refinement`). The first
training seed of everything comes first: its scores on the tune scenes are what the study is told. Further seeds are
replicates, done whenever a worker is free. A proposal is asked for when the design and all earlier rounds of its arm
have ended, so it depends on the store's scores alone and not on who finished first. Nothing is started before what it
starts from is there (`sweeps.waiting`). Weights that were dropped (`sweeps.gc`) are made again only for a step that has
something left to do. A job that its machine failed waits, longer each time, before it is begun again.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.faults import back_off_seconds
from ilql.methods import method_named
from sweeps.cells import Cells, Shared
from sweeps.evaluate_cells import unevaluated
from sweeps.exact_json import Record
from sweeps.job import Job, Resources
from sweeps.journal import utc
from sweeps.leases import Lease
from sweeps.refinement import Numbered, Refinement, Rounds
from sweeps.space import PlannedTraining
from sweeps.stages import drop_group_notes, drop_trajectory
from sweeps.store import Store
from sweeps.study import Study
from sweeps.waiting import Blocker, Queue, Running, Step

LEAST_FREE_BYTES = 32 * 2**20
"""With less room than this no job is started: a disk that fills up while a job runs costs that job."""

TRIES = 5
"""How often a job is tried that its machines fail. Between the tries it waits for seven minutes in all: longer than a
file server takes to start anew, and than a cluster takes to notice that a node is gone: no job fails for one node."""

SENT_SECONDS = 60.0
"""How often a sweep's own records are sent where machines share no folder."""

LOOKS = 32
"""Of the running jobs so many are looked at each time a job is asked for, in turn, whether they have made what others
wait for: with a thousand, all of them would cost each job ten milliseconds."""


class Schedule:
    """The jobs of one sweep, in order.

    Args:
        store: Where rows are, and go.
        sweep: The sweep's name.
        shared: What all trials share.
        design: The planned trainings.
        refinement: How to go on, or None.
        seeds: Training seeds of every cell.
        study: Told of every training at the first seed.
        resources: What a job may use.
        added: True if the design's cells come on top of what the sweep is planned to be.
        lease: That of the sweep's one driver, looked at before anything is begun or concluded; None where nobody asks.
        clock: Seconds that only grow.

    Attributes:
        halted: Why no further job is started, or None.
        finished_jobs: Jobs that came to an end here.
        cached_jobs: Jobs whose rows were there already.
    """

    def __init__(
        self,
        store: Store,
        sweep: str,
        shared: Shared,
        design: Sequence[PlannedTraining],
        *,
        refinement: Refinement | None,
        seeds: int,
        study: Study,
        resources: Resources,
        added: bool = False,
        lease: Lease | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if seeds < 1:
            raise ValueError(f"--seeds must be at least 1, got {seeds}")
        self._store, self._study, self._seeds, self._resources = store, study, seeds, resources
        self._lease = lease
        self._cells = Cells(store, sweep, shared, added=added)
        self._rounds = Rounds(refinement or Refinement(bases=(), proposals=0), store, self._cells, study)
        self._queue = Queue()
        self._running = Running()
        self._required_once: set[str] = set()
        self._lost = Counter[str]()
        self._clock = clock
        self._sent = clock()
        self._due: dict[str, float] = {}  # when jobs that were lost may be begun again
        self._asked_for: set[str] = set()  # dropped weights that steps with something to do are made from, or act with
        self.halted: str | None = None
        self.finished_jobs = 0
        self.cached_jobs = 0
        numbered = [(study.enqueue(training), training) for training in sorted(design, key=_depth)]
        self._design = {number for number, _ in numbered}  # those that have not ended
        self._want(numbered)

    @property
    def members(self) -> set[str]:
        """Keys of all rows that belong to the sweep as it is planned now."""
        return self._cells.members

    @property
    def wanted_jobs(self) -> int:
        """Jobs there are, as far as is known: those done, running, waiting, and proposals still to be made."""
        proposals = self._rounds.left * self._seeds
        return self.finished_jobs + self.cached_jobs + len(self._running) + len(self._queue) + proposals

    @property
    def running_names(self) -> list[str]:
        """The names of the jobs that run."""
        return self._running.names

    def check(self) -> None:
        """Do nothing if the sweep is ours to drive.

        Raises:
            LeaseLostError: Another process has followed this one, which was not heard of for a while.
        """
        if self._lease is not None:
            self._lease.check()

    def next_job(self) -> tuple[str, Job] | None:
        """The next job and its name, or None if none can start now; `is_over` tells whether one ever will.

        Raises:
            LeaseLostError: See `check`; nothing was written.
        """
        self.check()
        self.halted = self.halted or no_room(self._store.folder)
        self._look_again()
        while self.halted is None:
            self._open_rounds()
            ready = self._next_ready()
            if ready is None:
                return None
            if self._is_recorded(ready):
                self._tidy(ready)
                self.cached_jobs += 1
                self._ended(ready)
                continue
            if (reason := self._broken_start(ready)) is not None:
                self._store.put("training", ready.spec.weights_id, _failure(ready, reason), self._lease)
                self.finished_jobs += 1
                self._ended(ready)
                continue
            self._running.add(ready)
            job = Job(
                store=str(self._store.folder),
                training=ready.spec.to_json(),
                evaluations=tuple(trial.to_json() for trial in ready.trials if ready.training.decodes),
                resources=self._resources,
                keep_trajectory=ready.keep_trajectory,
                remote=None if self._store.replica is None else self._store.replica.url,
            )
            return ready.name, job
        return None

    @property
    def is_over(self) -> bool:
        """True if nothing runs, nothing waits, and nothing is left to propose."""
        return not (self._running or self._queue or self._rounds.undecided or self._rounds.left)

    def job_ended(self, name: str, error: str | None) -> None:
        """A job came to its end; `error` is what its machine failed of, if it did.

        Raises:
            LeaseLostError: See `check`; nothing was written.
        """
        self.check()
        self._hear()
        step = self._running.pop(name)
        self.finished_jobs += 1
        if error is not None and not self._store.has("weights", step.spec.weights_id):
            self._store.put("training", step.spec.weights_id, _failure(step, error), self._lease)
        elif error is not None:
            for trial in unevaluated(self._store, step.trials):
                failed: Record = {"status": "failed", "reason": error, "finished_at": utc()}
                self._store.put("evaluation", trial.trial_id, failed, self._lease)
        self._ended(step)

    def _hear(self) -> None:
        """Get what a job has recorded where it has no folder in common with us; send now and then what we have.

        Our own records are many, and nobody waits for them.
        """
        if self._clock() - self._sent >= SENT_SECONDS:
            self._store.sync()
            self._sent = self._clock()
        else:
            self._store.pull()

    def job_left(self, name: str) -> None:
        """A job was stopped from outside, at whatever point: nothing is concluded from what it has not done."""
        self._running.pop(name)

    def job_lost(self, name: str, reason: str) -> float | None:
        """A machine failed under a job: it waits, before all else, and is begun again, but not more than `TRIES` times.

        Args:
            name: The job's.
            reason: What the machine did.

        Returns:
            Seconds that it waits; None if it was tried often enough, and has failed of that reason.

        Raises:
            LeaseLostError: See `check`.
        """
        self.check()
        self._lost[name] += 1
        if self._lost[name] >= TRIES:
            self.job_ended(name, f"{reason}; tried {TRIES} times")
            return None
        wait = back_off_seconds(self._lost[name])
        self._due[name] = self._clock() + wait
        self._queue.prepend([self._running.pop(name)])
        return wait

    def all_lost(self, reason: str) -> dict[str, float | None]:
        """Whatever runs was lost, of one cause. Of several it may have been any of them: so none has had a try.

        Args:
            reason: The cause.

        Returns:
            For each job, what `job_lost` gives; 0 for those that are begun again at once.
        """
        names = self.running_names
        if len(names) == 1:
            return {names[0]: self.job_lost(names[0], reason)}
        self._queue.prepend([self._running.pop(name) for name in names])
        return dict.fromkeys(names, 0.0)

    def _want(self, numbered: Sequence[Numbered], *, front: bool = False) -> None:
        """Queue trainings, each the study's trial of that number, at every seed, and their rows' places."""
        places: dict[str, Mapping[str, Any]] = {}
        firsts: list[Step] = []
        replicates: list[Step] = []
        for number, training in numbered:
            for seed in range(self._seeds):
                tune, report = self._cells.shared.on_both(training, seed)
                places |= self._cells.places(training, tune, report)
                if seed == 0:
                    firsts.append(Step(training, seed, tune + report, trial_number=number))
                else:
                    replicates.append(Step(training, seed, tune + report))
        self._cells.put(places)
        # What more of the others start from comes first: of two critics, the one that four policies are waiting for.
        unblocks = Counter(spec.weights_id for step in (*firsts, *replicates) for spec in step.spec.required)
        firsts.sort(key=lambda step: -unblocks[step.spec.weights_id])
        if front:
            self._queue.prepend(firsts)
        # The study waits for the first seed; replicates fill whatever time is left.
        for step in replicates if front else [*firsts, *replicates]:
            self._queue.append(step)
        self._add_required([*firsts, *replicates])

    def _add_required(self, wanted: Iterable[Step]) -> None:
        """Queue, before everything, the trainings that these start from and that are in no cell of the sweep.

        Each is queued once: what failed by its own fault is not tried again for every round of proposals.
        """
        bare: list[Step] = []
        dropped, made = dict[str, bool](), dict[str, bool]()
        for step in wanted:
            for spec in step.spec.required:
                weights = spec.weights_id
                if weights not in dropped:
                    dropped[weights] = self._store.dropped_weights(weights) is not None
                if dropped[weights]:
                    if self._is_recorded(step):
                        continue
                    self._asked_for.add(weights)
                if weights in self._queue or self._running.have(weights) or weights in self._required_once:
                    continue
                if weights not in made:
                    made[weights] = self._store.has("weights", weights) and self._has_record(weights)
                if not made[weights]:
                    self._required_once.add(weights)
                    needed = PlannedTraining(spec.method, spec.method, spec.train, (), "design")
                    bare.append(Step(needed, spec.seed, [spec]))
        self._queue.prepend(sorted(bare, key=lambda step: _depth(step.training)))

    def _look_again(self) -> None:
        """Let steps be looked at that are due, or wait for a stage which a running job has made meanwhile."""
        for name in [name for name, due in self._due.items() if due <= self._clock()]:
            del self._due[name]
            self._queue.release(("due", name))
        for step in self._running.take_turns(LOOKS):
            for kind, key in step.makes():
                if self._queue.blocks((kind, key)) and self._store.has(kind, key):
                    self._queue.release((kind, key))

    def _release_waiting(self, step: Step) -> None:
        """A step has come to its end, whatever end: let those that waited for it be looked at."""
        for blocker in (*step.makes(), ("end", step.spec.weights_id)):
            self._queue.release(blocker)

    def _next_ready(self) -> Step | None:
        """Take out the first step that can start now; those before it are parked for what they wait for."""
        while (found := self._queue.pop()) is not None:
            place, step = found
            blocker = self._blocker(step)
            if blocker is None:
                return step
            self._queue.park(place, step, blocker)
        return None

    def _blocker(self, step: Step) -> Blocker | None:
        """What a step waits for; None if what it starts from is there, or is known to have failed."""
        if step.name in self._due:
            return "due", step.name
        for earlier in step.spec.required:
            weights = earlier.weights_id
            waits = weights in self._queue or self._running.have(weights)
            if waits and not self._store.has("weights", weights):
                return "weights", weights
        # Two arms may act with the same weights: the second waits until the first has trained them.
        if self._running.have(step.spec.weights_id):
            return "end", step.spec.weights_id
        return ("candidates", str(step.spec.candidates_key)) if self._is_being_drawn(step) else None

    def _is_being_drawn(self, step: Step) -> bool:
        """True if a running job is drawing the candidates that this one needs, too."""
        key = step.spec.candidates_key
        if key is None or self._store.has("candidates", key):
            return False
        return self._running.draw(key)

    def _broken_start(self, step: Step) -> str | None:
        """Why a step cannot be done for want of what it starts from; None if all of that is there."""
        for spec in step.spec.required:
            if not self._store.has("weights", spec.weights_id):
                record = self._store.get("training", spec.weights_id) or {}
                what = "behaviour policy" if spec.method == "bc" else "critic"
                return f"its {what} failed: {record.get('reason', 'no reason recorded')}"
        return None

    def _is_recorded(self, step: Step) -> bool:
        """True if there is nothing left to do for a step: not even its weights are needed, where they were dropped."""
        weights, plays = step.spec.weights_id, bool(step.training.decodes)
        if not self._store.has("weights", weights) and not (
            plays and weights not in self._asked_for and self._store.dropped_weights(weights) is not None
        ):
            return False
        return self._cells.are_finished(step.trials) if plays else self._has_record(weights)

    def _tidy(self, step: Step) -> None:
        """Drop what a finished job left because it was killed behind its last record: checkpoints, a group's notes."""
        trajectory = step.spec.trajectory_id
        drops = {"group": drop_group_notes} | ({} if step.keep_trajectory else {"trajectory": drop_trajectory})
        left = [drop for kind, drop in drops.items() if self._store.scratch_path(kind, trajectory).is_dir()]
        if left and (lease := self._store.try_lease(trajectory)) is not None:  # else somebody trains further from there
            with lease:
                for drop in left:
                    drop(self._store, step.spec)

    def _has_record(self, weights: str) -> bool:
        """True if a training is recorded as finished; of weights that are there, too, a kill may have left none."""
        return (self._store.get("training", weights) or {}).get("status") == "finished"

    def _ended(self, step: Step) -> None:
        """A step has come to its end, whatever end: let others be looked at, and tell the study or the round."""
        self._release_waiting(step)
        if step.trial_number is None:
            return
        self._design.discard(step.trial_number)
        was_last = self._rounds.ended(step.training.arm, step.trial_number)
        if step.at_rung:
            if was_last:
                self._go_on_from_rung(step.training.arm)
        elif scores := self._cells.tune_scores(step.trials):
            self._study.tell(step.trial_number, scores)
        else:
            self._study.fail(step.trial_number, self._cells.failure(step.trials)[0])

    def _open_rounds(self) -> None:
        """Ask for a round of proposals for each arm whose earlier ones have ended, once the design has."""
        if self._design:
            return
        for base in self._rounds.to_open():
            proposals = self._rounds.propose(base)
            if self._rounds.have_rung:
                steps = self._rounds.steps_to_rung(proposals)
                self._queue.prepend(steps[::-1])
                self._add_required(steps)
            else:
                self._want(proposals)

    def _go_on_from_rung(self, arm: str) -> None:
        """All proposals of an arm's round stand at the rung: queue the better half of them."""
        going, stopped = self._rounds.divide(arm)
        self._want(going[::-1], front=True)
        for proposal in stopped:
            self._rounds.stop(proposal)


def no_room(folder: Path) -> str | None:
    """One line if the disk has too little room to go on safely, else None."""
    free = shutil.disk_usage(folder).free
    if free >= LEAST_FREE_BYTES:
        return None
    return f"the store's disk must have {LEAST_FREE_BYTES / 2**20:.0f} MiB free, got {free / 2**20:.1f} in {folder}"


def _depth(training: PlannedTraining) -> int:
    """How many trainings must come before this one, one after the other."""
    method = method_named(training.method)
    return 2 if method.critic(training.train) is not None else int(method.needs_behaviour)


def _failure(step: Step, reason: str) -> Record:
    """The record of a training that never came to an end of its own."""
    about = {"method": step.training.method, "seed": step.seed, "finished_at": utc()}
    return {"status": "failed", "reason": reason, **about}
