"""What a sweep does next: pure bookkeeping between a plan, the store and the study, with no cluster in it.

A sweep is first its design, then the refinement, each arm's in rounds of its own. The first training seed of everything
comes first: its scores on the tune scenes are what the study is told. Further seeds are replicates, done whenever a
worker is free. A proposal is asked for when the design and all earlier rounds of its arm have ended, so it depends on
the store's scores alone and not on who finished first.

With rungs, the proposals of a round are first trained to the rung; the better half of them, by their score on the tune
scenes, is trained on from there, and the others are stopped: an early stop is a training that is not continued, never
one that is killed. Nothing can leak or hang that way.
"""

from __future__ import annotations

import dataclasses
import heapq
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ilql.methods import method_named
from sweeps.exact_json import Record
from sweeps.space import Training, settings
from sweeps.spec import Backbone, Data, Evaluation, TrialSpec
from sweeps.stages import drop_trajectory
from sweeps.store import Store
from sweeps.study import Study
from sweeps.work import Job, Resources, is_evaluated

LEAST_FREE_BYTES = 32 * 2**20
"""With less room than this no job is started: a disk that fills up while a job runs costs that job."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all trials of a sweep share: data, backbone, and what they are judged on.

    Attributes:
        data: What is learnt from.
        backbone: What it starts from.
        tune: The evaluation that settings are chosen on.
        report: The evaluation that tables score.
    """

    data: Data
    backbone: Backbone
    tune: Evaluation
    report: Evaluation

    def trials(self, training: Training, seed: int, *, split: str) -> list[TrialSpec]:
        """The training's cells at one seed, on the tune or the report scenes."""
        evaluation = self.tune if split == "tune" else self.report
        trials: list[TrialSpec] = []
        for decode in training.decodes:
            if trials:
                trials.append(trials[0].acting(decode, evaluation))
            else:
                shared = (training.method, self.data, self.backbone, training.train, seed)
                trials.append(TrialSpec(*shared, decode, evaluation))
        return trials


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """How the search goes on after the design.

    Attributes:
        bases: The trainings and decodings that proposals vary, one of each arm that is refined.
        proposals: How many for each.
        round_size: Proposals that are asked for, and compared at a rung, together.
        rung: Share of the steps after which the worse half of a round is stopped; 1 stops none.
    """

    bases: tuple[Training, ...]
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


@dataclass
class _Step:
    """One job: some weights, and evaluations on them."""

    training: Training
    seed: int
    trials: list[TrialSpec]
    trial_number: int | None = None
    at_rung: bool = False
    keep_trajectory: bool = False
    spec: TrialSpec = field(init=False)

    def __post_init__(self) -> None:
        self.spec = self.trials[0]


@dataclass
class _Round:
    """The proposals of one arm that have not come to their end.

    Attributes:
        open: The numbers of those that are being trained.
        at_rung: Those that go to the rung, until all of them are there and the better half goes on.
    """

    open: set[int] = field(default_factory=set)
    at_rung: list[tuple[int, Training]] = field(default_factory=list)


_Blocker = tuple[str, str]
"""What a step waits for: a stage, by kind and key, or the `end` of whatever job has some weights."""


class _Queue:
    """Steps that wait, in order, so that none is looked at again before what it waits for has changed.

    A rerun of a sweep finds all its steps done, and a worker that is free asks again and again while most steps wait
    for one training: looking through all of them each time would cost each step in proportion to their number.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[tuple[int, int], _Step]] = []
        self._parked: dict[_Blocker, list[tuple[tuple[int, int], _Step]]] = {}
        self._weights: Counter[str] = Counter()
        self._first, self._last, self._steps = 0, 0, 0

    def __len__(self) -> int:
        return self._steps

    def __contains__(self, weights_id: object) -> bool:
        """True if a step of these weights waits."""
        return weights_id in self._weights

    def append(self, step: _Step) -> None:
        """Put a step behind those of its kind: replicates come after all first seeds."""
        self._last += 1
        self._add((min(step.seed, 1), self._last), step)

    def prepend(self, steps: Sequence[_Step]) -> None:
        """Put steps, in their order, before everything."""
        self._first -= len(steps)
        for place, step in enumerate(steps):
            self._add((0, self._first + place), step)

    def pop(self) -> tuple[tuple[int, int], _Step] | None:
        """Take out the next step that is not parked, with its place; None if there is none."""
        if not self._heap:
            return None
        place, step = heapq.heappop(self._heap)
        self._count(step, -1)
        return place, step

    def park(self, place: tuple[int, int], step: _Step, blocker: _Blocker) -> None:
        """Put a step back at its place, not to be looked at before `release` says that its blocker may be gone."""
        self._count(step, 1)
        self._parked.setdefault(blocker, []).append((place, step))

    def blocks(self, blocker: _Blocker) -> bool:
        """True if a step is parked for this."""
        return blocker in self._parked

    def release(self, blocker: _Blocker) -> None:
        """Let the steps that are parked for this be looked at again."""
        for parked in self._parked.pop(blocker, ()):
            heapq.heappush(self._heap, parked)

    def _add(self, place: tuple[int, int], step: _Step) -> None:
        self._count(step, 1)
        heapq.heappush(self._heap, (place, step))

    def _count(self, step: _Step, change: int) -> None:
        self._steps += change
        self._weights[step.spec.weights_id] += change
        if not self._weights[step.spec.weights_id]:
            del self._weights[step.spec.weights_id]


class Schedule:
    """The jobs of one sweep, in order.

    Args:
        store: Where rows are, and go.
        sweep: The sweep's name.
        setting: What all trials share.
        design: The planned trainings.
        refinement: How to go on, or None.
        seeds: Training seeds of every cell.
        study: Told of every training at the first seed.
        resources: What a job may use.

    Attributes:
        halted: Why no further job is started, or None.
        members: Keys of all rows that belong to the sweep as it is planned now.
        finished_jobs: Jobs that came to an end here.
        cached_jobs: Jobs whose rows were there already.
    """

    def __init__(
        self,
        store: Store,
        sweep: str,
        setting: Setting,
        design: Sequence[Training],
        *,
        refinement: Refinement | None,
        seeds: int,
        study: Study,
        resources: Resources,
    ) -> None:
        if seeds < 1:
            raise ValueError(f"--seeds must be at least 1, got {seeds}")
        self._store, self._sweep, self._setting = store, sweep, setting
        self._refinement, self._seeds, self._study, self._resources = refinement, seeds, study, resources
        self._queue = _Queue()
        self._running: dict[str, _Step] = {}
        self._design: set[int] = set()
        self._required_once: set[str] = set()
        arms = [base.arm for base in refinement.bases] if refinement is not None else []
        self._rounds = {arm: _Round() for arm in arms}
        self._proposed = dict.fromkeys(arms, 0)
        self.members: set[str] = set()
        self.halted: str | None = None
        self.finished_jobs = 0
        self.cached_jobs = 0
        numbers = [(study.enqueue(training), training) for training in sorted(design, key=_depth)]
        self._design.update(number for number, _ in numbers)
        self._want(numbers)

    @property
    def _left_to_propose(self) -> int:
        return 0 if self._refinement is None else self._refinement.total - sum(self._proposed.values())

    @property
    def wanted_jobs(self) -> int:
        """Jobs there are, as far as is known: those done, running, waiting, and proposals still to be made."""
        proposals = self._left_to_propose * self._seeds
        return self.finished_jobs + self.cached_jobs + len(self._running) + len(self._queue) + proposals

    @property
    def running_names(self) -> list[str]:
        """The names of the jobs that run."""
        return list(self._running)

    def next_job(self) -> tuple[str, Job] | None:
        """The next job and its name, or None if none can start now; `is_over` tells whether one ever will."""
        self.halted = self.halted or no_room(self._store.folder)
        self._look_again()
        while self.halted is None:
            self._open_rounds()
            ready = self._next_ready()
            if ready is None:
                return None
            if self._is_recorded(ready):
                self.cached_jobs += 1
                self._ended(ready)
                continue
            if (reason := self._broken_start(ready)) is not None:
                self._store.put("training", ready.spec.weights_id, _failure(ready, reason))
                self.finished_jobs += 1
                self._ended(ready)
                continue
            name = f"{ready.training.arm}-{ready.spec.weights_id[:8]}-{ready.seed}" + ("-rung" * ready.at_rung)
            self._running[name] = ready
            job = Job(
                store=str(self._store.folder),
                training=ready.spec.to_json(),
                evaluations=tuple(trial.to_json() for trial in ready.trials if ready.training.decodes),
                resources=self._resources,
                keep_trajectory=ready.keep_trajectory,
            )
            return name, job
        return None

    @property
    def is_over(self) -> bool:
        """True if nothing runs, nothing waits, and nothing is left to propose."""
        at_rung = any(each.at_rung for each in self._rounds.values())
        return not (self._running or self._queue or at_rung or self._left_to_propose)

    def job_ended(self, name: str, error: str | None) -> None:
        """A job came to its end; `error` is what its machine failed of, if it did."""
        step = self._running.pop(name)
        self.finished_jobs += 1
        if error is not None and self._store.stage("weights", step.spec.weights_id) is None:
            self._store.put("training", step.spec.weights_id, _failure(step, error))
        elif error is not None:
            for trial in step.trials:
                if not is_evaluated(self._store, trial):
                    self._store.put("evaluation", trial.trial_id, {"status": "failed", "reason": error})
        self._ended(step)

    def _want(self, numbered: Sequence[tuple[int, Training]], *, front: bool = False) -> None:
        """Queue trainings, each the study's trial of that number, at every seed, and their rows' places."""
        members: dict[str, Mapping[str, Any]] = {}
        firsts: list[_Step] = []
        replicates: list[_Step] = []
        for number, training in numbered:
            for seed in range(self._seeds):
                tune = self._setting.trials(training, seed, split="tune")
                report = self._setting.trials(training, seed, split="report")
                for trial, chosen_on in zip(report, tune, strict=True):
                    members[f"{self._sweep}/{trial.trial_id}"] = _member(self._sweep, trial, chosen_on, training)
                step = _Step(training, seed, tune + report, trial_number=number if seed == 0 else None)
                (firsts if seed == 0 else replicates).append(step)
        self._put(members)
        if front:
            self._queue.prepend(firsts)
        # The study waits for the first seed; replicates fill whatever time is left.
        for step in replicates if front else [*firsts, *replicates]:
            self._queue.append(step)
        self._add_required([*firsts, *replicates])

    def _add_required(self, wanted: Iterable[_Step]) -> None:
        """Queue, before everything, the trainings that these start from and that are in no cell of the sweep.

        Each is queued once: what failed by its own fault is not tried again for every round of proposals.
        """
        running = {step.spec.weights_id for step in self._running.values()}
        bare: list[_Step] = []
        for step in wanted:
            for spec in step.spec.required:
                weights = spec.weights_id
                if weights in self._queue or weights in running or weights in self._required_once:
                    continue
                if self._store.stage("weights", weights) is None:
                    self._required_once.add(weights)
                    needed = Training(spec.method, spec.method, spec.train, (), "design")
                    bare.append(_Step(needed, spec.seed, [spec]))
        self._queue.prepend(sorted(bare, key=lambda step: _depth(step.training)))

    def _look_again(self) -> None:
        """Let steps be looked at that wait for a stage which a running job has made meanwhile."""
        for step in self._running.values():
            for kind, key in _makes(step.spec):
                if self._queue.blocks((kind, key)) and self._store.stage(kind, key) is not None:
                    self._queue.release((kind, key))

    def _left(self, step: _Step) -> None:
        """A step has come to its end, whatever end: let those that waited for it be looked at."""
        for blocker in (*_makes(step.spec), ("end", step.spec.weights_id)):
            self._queue.release(blocker)

    def _next_ready(self) -> _Step | None:
        """Take out the first step that can start now; those before it are parked for what they wait for."""
        while (found := self._queue.pop()) is not None:
            place, step = found
            blocker = self._blocker(step)
            if blocker is None:
                return step
            self._queue.park(place, step, blocker)
        return None

    def _blocker(self, step: _Step) -> _Blocker | None:
        """What a step waits for; None if what it starts from is there, or is known to have failed."""
        running = {other.spec.weights_id for other in self._running.values()}
        for weights in _required(step.spec):
            waits = weights in self._queue or weights in running
            if waits and self._store.stage("weights", weights) is None:
                return "weights", weights
        # Two arms may act with the same weights: the second waits until the first has trained them.
        if step.spec.weights_id in running:
            return "end", step.spec.weights_id
        return ("candidates", str(step.spec.candidates_key)) if self._is_being_drawn(step) else None

    def _is_being_drawn(self, step: _Step) -> bool:
        """True if a running job is drawing the candidates that this one needs, too."""
        key = step.spec.candidates_key
        if key is None or self._store.stage("candidates", key) is not None:
            return False
        return any(other.spec.candidates_key == key for other in self._running.values())

    def _broken_start(self, step: _Step) -> str | None:
        for spec in step.spec.required:
            if self._store.stage("weights", spec.weights_id) is None:
                record = self._store.get("training", spec.weights_id) or {}
                what = "behaviour policy" if spec.method == "bc" else "critic"
                return f"its {what} failed: {record.get('reason', 'no reason recorded')}"
        return None

    def _is_recorded(self, step: _Step) -> bool:
        if self._store.stage("weights", step.spec.weights_id) is None:
            return False
        if not step.training.decodes:
            return True
        records = self._store.some("evaluation", [trial.trial_id for trial in step.trials])
        return all(records.get(trial.trial_id, {}).get("status") == "finished" for trial in step.trials)

    def _ended(self, step: _Step) -> None:
        self._left(step)
        if step.trial_number is None:
            return
        proposals = self._rounds.get(step.training.arm, _Round())
        for numbers in (self._design, proposals.open):
            numbers.discard(step.trial_number)
        if step.at_rung:
            if not proposals.open:
                self._close_rung(proposals)
            return
        scores = self._tune_scores(step.trials)
        if scores:
            self._study.tell(step.trial_number, scores)
        else:
            self._study.fail(step.trial_number, self._reason(step))

    def _tune_scores(self, trials: Sequence[TrialSpec]) -> dict[str, float]:
        """Mean returns on the tune scenes by decoding, of the trials that have one."""
        scores = {}
        varying = _varying([trial.decode for trial in trials])
        records = self._store.some("evaluation", [trial.trial_id for trial in trials])
        for trial in trials:
            record = records.get(trial.trial_id)
            if trial.evaluation == self._setting.tune and record is not None and record["status"] == "finished":
                scores[_name(trial.decode, varying)] = float(record["score"])
        return scores

    def _reason(self, step: _Step) -> str:
        records = [self._store.get("training", step.spec.weights_id)]
        records += [self._store.get("evaluation", trial.trial_id) for trial in step.trials]
        return next((str(r["reason"]) for r in records if r is not None and r.get("reason")), "no reason recorded")

    def _open_rounds(self) -> None:
        """Ask for a round of proposals for each arm whose earlier ones have ended, once the design has."""
        if self._refinement is None or self._design:
            return
        for base in self._refinement.bases:
            proposals = self._rounds[base.arm]
            if not proposals.open and self._proposed[base.arm] < self._refinement.proposals:
                self._open_round(base, proposals, self._refinement)

    def _open_round(self, base: Training, proposals: _Round, plan: Refinement) -> None:
        made: list[tuple[int, Training]] = []
        for _ in range(min(plan.round_size, plan.proposals - self._proposed[base.arm])):
            number, columns = self._study.propose(base.method, base.arm)
            values = {f"train.{name}": v for name, v in dataclasses.asdict(base.train).items()} | columns
            train = settings(base.method, "train", values)
            made.append((number, dataclasses.replace(base, train=train, origin="refinement")))
            self._proposed[base.arm] += 1
            proposals.open.add(number)
        if plan.rung == 1:
            self._want(made)
            return
        proposals.at_rung += made
        steps = []
        for number, training in made:
            short = self._to_rung(training)
            trials = self._setting.trials(short, 0, split="tune")
            whole = self._setting.trials(training, 0, split="tune")[0]
            goes_on = trials[0].trajectory_id == whole.trajectory_id  # not if it learns from a shorter critic, too
            steps.append(_Step(short, 0, trials, trial_number=number, at_rung=True, keep_trajectory=goes_on))
        self._queue.prepend(steps[::-1])
        self._add_required(steps)

    def _to_rung(self, training: Training) -> Training:
        assert self._refinement is not None
        steps = max(1, round(training.train.steps * self._refinement.rung))
        return dataclasses.replace(training, train=dataclasses.replace(training.train, steps=steps))

    def _close_rung(self, proposals: _Round) -> None:
        """All proposals of a round stand at the rung: go on with the better half of them."""
        ranked: list[tuple[float, int, Training]] = []
        for number, training in proposals.at_rung:
            short = self._to_rung(training)
            scores = self._tune_scores(self._setting.trials(short, 0, split="tune"))
            if scores:
                ranked.append((max(scores.values()), number, training))
            else:
                step = _Step(short, 0, self._setting.trials(short, 0, split="tune"))
                self._put_members(training, "failed", self._reason(step), step.spec)
                self._study.fail(number, self._reason(step))
                drop_trajectory(self._store, step.spec)
        proposals.at_rung = []
        ranked.sort(key=lambda item: (-item[0], item[1]))
        going = (len(ranked) + 1) // 2
        proposals.open.update(number for _, number, _ in ranked[:going])
        self._want([(number, training) for _, number, training in ranked[:going]][::-1], front=True)
        for place, (score, number, training) in enumerate(ranked):
            if place < going:
                continue
            steps = self._to_rung(training).train.steps
            reason = f"stopped at step {steps}: {score:.2f} on the tune scenes, place {place + 1} of {len(ranked)}"
            self._put_members(
                training, "stopped", reason, self._setting.trials(self._to_rung(training), 0, split="tune")[0]
            )
            self._study.stop(number, step=steps, score=score)
            drop_trajectory(self._store, self._setting.trials(training, 0, split="tune")[0])

    def _put_members(self, training: Training, status: str, reason: str, short: TrialSpec) -> None:
        """Rows, at the first seed, for cells that will have no evaluation; `short` is as far as they were trained."""
        record = self._store.get("training", short.weights_id) or {}
        tune = self._setting.trials(training, 0, split="tune")
        report = self._setting.trials(training, 0, split="report")
        self._put(
            {
                f"{self._sweep}/{trial.trial_id}": _member(self._sweep, trial, chosen_on, training)
                | {"status": status, "reason": reason, "train_seconds": record.get("train_seconds")}
                for trial, chosen_on in zip(report, tune, strict=True)
            }
        )

    def _put(self, members: Mapping[str, Mapping[str, Any]]) -> None:
        """Record the sweep's cells that are not recorded just so: a rerun adds nothing."""
        self.members |= members.keys()
        known = self._store.all("member")
        self._store.put_all("member", {key: value for key, value in members.items() if known.get(key) != value})


def _member(sweep: str, trial: TrialSpec, tune: TrialSpec, training: Training) -> dict[str, Any]:
    """A row's place in a sweep; its result is looked up by its ids."""
    return {
        "sweep": sweep,
        "trial_id": trial.trial_id,
        "weights_id": trial.weights_id,
        "cell_id": trial.cell_id,
        "method": trial.method,
        "arm": training.arm,
        "origin": training.origin,
        "seed": trial.seed,
        "split": trial.evaluation.split,
        "columns": trial.columns(),
        "tune_trial_id": tune.trial_id,
        "spec": trial.to_json(),
    }


def no_room(folder: Path) -> str | None:
    """One line if the disk has too little room to go on safely, else None."""
    free = shutil.disk_usage(folder).free
    if free >= LEAST_FREE_BYTES:
        return None
    return f"the store's disk must have {LEAST_FREE_BYTES / 2**20:.0f} MiB free, got {free / 2**20:.1f} in {folder}"


def _makes(spec: TrialSpec) -> Iterator[_Blocker]:
    """The stages a job may leave that others wait for."""
    yield "weights", spec.weights_id
    if spec.candidates_key is not None:
        yield "candidates", spec.candidates_key


def _required(spec: TrialSpec) -> list[str]:
    """The weights a training starts from."""
    return [earlier.weights_id for earlier in spec.required]


def _depth(training: Training) -> int:
    """How many trainings must come before this one, one after the other."""
    method = method_named(training.method)
    return 2 if method.critic(training.train) is not None else int(method.needs_behaviour)


def _failure(step: _Step, reason: str) -> Record:
    """The record of a training that never came to an end of its own."""
    return {"status": "failed", "reason": reason, "method": step.training.method, "seed": step.seed}


def _varying(decodes: Sequence[Any]) -> list[str]:
    """The decoding hyperparameters in which some of these differ."""
    values = [dataclasses.asdict(decode) for decode in decodes]
    return [name for name in values[0] if len({value[name] for value in values}) > 1]


def _name(decode: Any, varying: Sequence[str]) -> str:
    """A decoding in a few words, for an attribute of a study; different decodings have different names."""
    return " ".join(f"{name}={getattr(decode, name)}" for name in varying) or "as trained"
