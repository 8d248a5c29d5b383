"""What a sweep is in the middle of, read from outside: which trainings and evaluations, and which processes do them."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from services import name_of

from ilql.checkpoint import CheckpointError, check_checkpoint
from sweeps.spec import TrialSpec
from sweeps.store import Store

Ends: TypeAlias = Mapping[str, Mapping[str, int]]
"""Of each trajectory the weights that lie on it, and after how many steps: at a rung, and at its end."""


@dataclass(frozen=True)
class Work:
    """A job that is in the middle of something.

    Attributes:
        key: Its trajectory's, or the trial's that it plays.
        process: The number of the process that holds its lease.
        step: The last that its curve has; 0 of an evaluation.
        lost: Steps since its last sound checkpoint; 0 of an evaluation.
        left: Steps to go; 0 of an evaluation.
    """

    key: str
    process: int
    step: int = 0
    lost: int = 0
    left: int = 0


def ends_of(store: Store) -> Ends:
    """Where the trainings of a sweep end that is done."""
    found: dict[str, dict[str, int]] = {}
    for kind, key in store.stages():
        about = store.about(kind, key) if kind == "weights" else None
        if about is not None:
            spec = _spec(json.dumps(about["about"]["spec"]))
            found.setdefault(spec.trajectory_id, {})[key] = spec.train.steps
    return found


def trainings(store: Store, ends: Ends) -> list[Work]:
    """Those that have made a step, have one to go, and are held by somebody who lives."""
    found = []
    for folder in trajectories_of(store.folder):
        step, holder = _last_step(folder), store.holder(folder.name)
        if holder is None or holder.is_dead():
            continue
        steps = ends.get(folder.name, {})
        missing = {key: end for key, end in steps.items() if store.stage("weights", key) is None}
        built = max((end for key, end in steps.items() if key not in missing), default=0)
        if missing and built < step < (end := min(missing.values())):
            newest = max((at for at, _ in checkpoints_of([folder]).values()), default=0)
            found.append(Work(folder.name, int(holder.number), step, max(0, step - newest), end - step))
    return found


def trajectories_of(store: Path) -> list[Path]:
    """The folders of trainings that have begun and that somebody may go on with."""
    return list(store.glob("scratch/trajectory/*/*"))


def evaluations(store: Store) -> list[Work]:
    """The rows whose weights are there and whose score is not, of jobs that are held by somebody who lives."""
    played, found = store.all("evaluation"), []
    for member in store.members():
        if member["trial_id"] in played or store.stage("weights", member["weights_id"]) is None:
            continue
        holder = store.holder(_spec(member["spec"]).trajectory_id)
        if holder is not None and not holder.is_dead():
            found.append(Work(member["trial_id"], int(holder.number)))
    return found


def step_of(store: Store, ends: Ends, work: Work) -> int | None:
    """The last step of some work; None if it has come to its end."""
    if not work.left:
        return None if work.key in store.all("evaluation") else 0
    built = [key for key, end in ends[work.key].items() if end == work.step + work.left and store.stage("weights", key)]
    return None if built else _last_step(store.scratch_path("trajectory", work.key))


def who_does(work: Iterable[Work], phase: str, processes: set[int], *, grouped: bool) -> list[int]:
    """Those of the processes that are at some work: who holds its lease or, in groups, whom that one waits for.

    In groups it is not known which of them is at which work. The oldest comes first: it has come furthest.
    """
    if not grouped:
        return sorted(processes & {each.process for each in work})
    name = "RayTrainWorker" if phase == "training" else "_running"  # of `cluster.call`, in which a group's job plays
    return sorted((each for each in processes if name in name_of(each)), key=_begun) if list(work) else []


def checkpoints_of(trajectories: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    """The sound checkpoints of some: the step of each, and what tells it from one of its name."""
    found = {}
    for path in (path for folder in trajectories for path in folder.glob("checkpoints/step-*")):
        with contextlib.suppress(CheckpointError, OSError):
            found[path] = check_checkpoint(path), path.stat().st_ino
    return found


def _last_step(trajectory: Path) -> int:
    """The last whole line's of its curve; 0 without one."""
    try:
        return int(json.loads((trajectory / "curve.jsonl").read_text().rpartition("\n")[0].rpartition("\n")[2])["step"])
    except (OSError, ValueError):
        return 0


def _begun(process: int) -> int:
    """When a process began, in ticks of the system's clock; late, if it is gone."""
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return 2**62


@functools.lru_cache(maxsize=256)
def _spec(text: str) -> TrialSpec:
    return TrialSpec.from_json(text)
