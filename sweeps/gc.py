"""What of a store can be made again and is not worth its room: found under a rule, told, and freed.

Freed are weights, tokenised data, drawn candidates and fitted critics that the rule does not keep, checkpoints of
trainings that nobody goes on with, and what killed processes left. Never touched are rows, episodes with their
transcripts, loss curves, what a user's data became (worlds, tokenisers, initial models), and what language models
wrote.

That a training's weights were dropped is recorded with the time and the rule before they are removed, so they are not
missing: a sweep's command takes evaluations that are recorded for done, and trains again only where something new needs
the weights. `restore` does so for one trial.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
import statistics
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from analysis.text import count
from sweeps.exact_json import Record
from sweeps.job import Job, Resources
from sweeps.leases import CLEANING, Lease, LeaseLostError, is_key
from sweeps.leftovers import leftovers
from sweeps.plain_files import read_plain
from sweeps.spec import TrialSpec
from sweeps.store import Store
from sweeps.train_weights import SECONDS_FILE
from sweeps.work import run_job

RuleName = Literal["sweeps", "best", "none"]

STAGES = ("weights", "tokens", "candidates", "fitted_q")
"""The kinds of stages that are dropped: each is made again, from what stays, by whoever needs it."""


@dataclass(frozen=True)
class Rule:
    """What is kept.

    Attributes:
        name: `sweeps`: what any sweep of the store needs. `best`: of each sweep and arm the cells with the highest mean
            score on the tune scenes, and those that still wait for an evaluation. `none`: nothing.
        cells: How many cells `best` keeps.
    """

    name: RuleName
    cells: int = 0

    def __post_init__(self) -> None:
        if self.name not in get_args(RuleName) or (self.cells < 1) == (self.name == "best"):
            raise ValueError(f"--keep must be sweeps, best:K with K at least 1, or none, got {self}")

    @staticmethod
    def parse(text: str) -> Rule:
        """From `sweeps`, `best:3` or `none`.

        Raises:
            ValueError: It is none of these.
        """
        found = re.fullmatch(r"best:([1-9][0-9]{0,8})", text)
        if found is not None:
            return Rule("best", int(found[1]))
        if text not in ("sweeps", "none"):
            raise ValueError(f"--keep must be sweeps, best:K with K at least 1, or none, got {text!r}")
        return Rule(text)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"best:{self.cells}" if self.name == "best" else self.name


@dataclass(frozen=True)
class Item:
    """A folder that can be freed.

    Attributes:
        kind: A stage's kind, `checkpoints` or `leftover`.
        key: The stage's or the trajectory's; a leftover's name.
        folder: Where it lies.
        size_bytes: Of all its files.
        seconds: What making it took, as recorded; 0 where nothing will be made again.
        lease: The key of the lease under which it would be made or read by a job; None without one.
    """

    kind: str
    key: str
    folder: Path
    size_bytes: int
    seconds: float
    lease: str | None = None


@dataclass
class _Kept:
    """The keys of what a rule keeps, by kind."""

    keys: dict[str, set[str]] = field(default_factory=lambda: {kind: set() for kind in STAGES})

    def add(self, weights_id: str, spec: TrialSpec | None) -> None:
        """Keep what loading a trial's weights reads, and what its training learns from."""
        self.keys["weights"].add(weights_id)  # also those that another version of the program calls otherwise
        for each in () if spec is None else (spec, *spec.required):
            self.keys["weights"].add(each.weights_id)
            self.keys["tokens"].add(each.tokens_key)
            if each.candidates_key is not None:
                self.keys["candidates"].add(each.candidates_key)


def find(store: Store, rule: Rule, ours: Container[str] = ()) -> list[Item]:
    """What a rule does not keep, the largest first; `ours` are the keys of leases that we hold. Changes nothing."""
    kept = _kept(store, rule)
    items = [*_stages(store, kept), *_checkpoints(store, rule), *_leftovers(store, ours)]
    return sorted(items, key=lambda item: (-item.size_bytes, item.kind, item.key))


def free(store: Store, rule: Rule, say: Callable[[str], None]) -> list[Item]:
    """Drop what a rule does not keep, and return what was dropped. Again, after a kill, goes on.

    Raises:
        ValueError: Somebody works on the store.
        LeaseLostError: Somebody else does since, for this process was not heard of for a while. What it had dropped is
            dropped, of what was left it touched nothing.
    """
    with ExitStack() as held:
        begun = store.lease(CLEANING, lambda: say("waiting for another `sweeps gc`, or a driver to begin"))
        cleaning = held.enter_context(dataclasses.replace(begun, what="the cleaning of this store"))
        ours = set[str]()
        for lease in _nobody_works(store, say):
            if lease.key.startswith("sweep-"):
                held.enter_context(lease)
                ours.add(lease.key)
            else:
                lease.release()
        gone: list[Item] = []
        for item in find(store, rule, ours):
            with ExitStack() as meanwhile:
                if item.lease is not None and item.lease not in ours:
                    taken = store.try_lease(item.lease)
                    if taken is None:  # a job that nobody drives has begun since we looked
                        say(f"{item.kind} {item.key}: is in use, and stays")
                        continue
                    meanwhile.enter_context(taken)
                _check(cleaning, gone)
                _drop(store, item, rule)
            gone.append(item)
        return gone


def _check(cleaning: Lease, gone: Sequence[Item]) -> None:
    """Do nothing if the store is ours to clean: drivers take that over before they begin.

    Raises:
        LeaseLostError: It is not; the message says how much was dropped while it was.
    """
    try:
        cleaning.check()
    except LeaseLostError as lost:
        raise LeaseLostError(f"{lost}; {count(len(gone), 'folder')} had been freed until then") from None


def lines(items: Iterable[Item], *, each: bool = False) -> list[str]:
    """What was or would be freed, in words.

    Args:
        items: They.
        each: A line for each before the sums.
    """
    by_kind: dict[str, list[Item]] = {}
    for item in items:
        by_kind.setdefault(item.kind, []).append(item)
    text = [
        f"{item.kind} {item.key}: {_size(item.size_bytes)}" + (f", {item.seconds:.1f} s" if item.seconds else "")
        for item in items
        if each
    ]
    for kind, some in by_kind.items():
        seconds = sum(item.seconds for item in some)
        again = f", {seconds:.1f} s to make again" if seconds else ""
        text.append(f"{kind}: {count(len(some), 'folder')}, {_size(sum(item.size_bytes for item in some))}{again}")
    whole = [item for some in by_kind.values() for item in some]
    seconds = sum(item.seconds for item in whole)
    text.append(f"in all {_size(sum(item.size_bytes for item in whole))}, {seconds:.1f} s to make again")
    return text


def restore(store: Store, spec: TrialSpec, say: Callable[[str], None]) -> int:
    """Train again, here and on the CPU, what of a trial's weights is not there; returns how many trainings it took.

    Raises:
        ValueError: One of them failed; the line says why.
    """
    missing = [each for each in (*spec.required, spec) if not store.has("weights", each.weights_id)]
    for each in missing:
        record = store.get("training", each.weights_id) or {}
        say(f"training {each.method} {each.weights_id} again, {each.train.steps} steps")
        resources = Resources(micro_batch=int(record.get("micro_batch") or 0))
        run_job(Job(store=str(store.folder), training=each.to_json(), evaluations=(), resources=resources), _keep_quiet)
        if not store.has("weights", each.weights_id):
            reason = (store.get("training", each.weights_id) or {}).get("reason") or "no reason recorded"
            raise ValueError(f"the training {each.weights_id} must end well to be restored, it failed: {reason}")
    return len(missing)


def _kept(store: Store, rule: Rule) -> _Kept:
    """What the sweeps of the store need, as far as the rule keeps it."""
    kept = _Kept()
    best = {pair for sweep in store.all("sweep") for pair in _best(store, sweep, rule)}
    evaluations = store.all("evaluation")
    for weights_id, members in _by_weights(store).items():
        wanted = rule.name == "sweeps" or (
            rule.name == "best"
            and any((each["sweep"], each["cell_id"]) in best or _waits(each, evaluations) for each in members)
        )
        if wanted:
            kept.add(weights_id, _spec(members[0].get("spec")))
    for spec in () if rule.name == "none" else _at_rungs(store):
        kept.add(spec.weights_id, spec)
    return kept


def _at_rungs(store: Store) -> Iterator[TrialSpec]:
    """Trainings that stand at a rung whose round is not decided, as far as a sweep of the store may decide it.

    They are no row's yet: their weights and checkpoints are there, and a sweep has others of the same data and method.
    """
    if not any(store.folder.glob("scratch/trajectory/*/*")):
        return
    rows = [spec for each in _by_weights(store).values() if (spec := _spec(each[0].get("spec"))) is not None]
    decided = {spec.trajectory_id for spec in rows}
    searched = {(spec.method, spec.data, spec.backbone_key) for spec in rows}
    for kind, key in store.stages():
        about = store.about(kind, key) if kind == "weights" else None
        spec = None if about is None else _spec(json.dumps(about["about"].get("spec")))
        if (
            spec is not None
            and spec.trajectory_id not in decided
            and (spec.method, spec.data, spec.backbone_key) in searched
            and store.scratch_path("trajectory", spec.trajectory_id).is_dir()
        ):
            yield spec


def _by_weights(store: Store) -> dict[str, list[Record]]:
    """The rows' places of all sweeps there are, by their weights."""
    sweeps, found = store.all("sweep"), dict[str, list[Record]]()
    for member in store.members():
        if member["sweep"] in sweeps:
            found.setdefault(member["weights_id"], []).append(member)
    return found


def _best(store: Store, sweep: str, rule: Rule) -> Iterator[tuple[str, str]]:
    """Sweep and id of the cells that the rule calls the best, of each arm, by their mean over training seeds."""
    scores: dict[str, dict[str, list[float]]] = {}
    for row in store.rows(sweep) if rule.name == "best" else ():
        if row["status"] == "finished" and row["tune_score"] is not None:
            scores.setdefault(row["arm"], {}).setdefault(row["cell_id"], []).append(row["tune_score"])
    for cells in scores.values():
        ranked = sorted(cells, key=lambda cell: (-statistics.fmean(cells[cell]), cell))
        yield from ((sweep, cell) for cell in ranked[: rule.cells])


def _waits(member: Record, evaluations: Mapping[str, Record]) -> bool:
    """True if a row has an evaluation still to come."""
    if member.get("status") in ("failed", "stopped"):
        return False
    asked = [trial for trial in (member["trial_id"], member.get("tune_trial_id")) if trial is not None]
    return any(evaluations.get(trial, {}).get("status") != "finished" for trial in asked)


def _spec(text: object) -> TrialSpec | None:
    """The trial of a text, or None where another version of the program wrote it."""
    try:
        return TrialSpec.from_json(str(text))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return None


def _stages(store: Store, kept: _Kept) -> Iterator[Item]:
    trainings, there = store.all("training"), list(store.stages())
    for kind in STAGES:
        for _, key in (each for each in there if each[0] == kind):
            folder, about = store.stage(kind, key), store.about(kind, key)
            if folder is None or about is None or key in kept.keys[kind]:
                continue  # what is not whole is set aside by whoever builds it anew
            spec, seconds, told = None, about["seconds"], about["about"]
            if kind == "fitted_q" and told.get("weights") in kept.keys["weights"]:
                continue
            if kind == "weights":
                spec = _spec(json.dumps(told.get("spec")))
                seconds = trainings.get(key, {}).get("train_seconds") or seconds
            lease = None if spec is None else spec.trajectory_id
            yield Item(kind, key, folder, _bytes(folder), float(seconds), lease)


def _checkpoints(store: Store, rule: Rule) -> Iterator[Item]:
    """Checkpoints of trainings that no sweep goes on with: it does with rows that wait, and from rungs."""
    folders = sorted(store.folder.glob("scratch/trajectory/*/*"))
    if not folders:
        return
    evaluations = store.all("evaluation")
    going_on = {spec.trajectory_id for spec in _at_rungs(store)}
    for members in _by_weights(store).values():
        spec = _spec(members[0].get("spec"))
        if spec is not None and any(_waits(member, evaluations) for member in members):
            going_on |= {each.trajectory_id for each in (spec, *spec.required)}
    for folder in folders:
        if is_key(folder.name) and (rule.name == "none" or folder.name not in going_on):
            yield Item("checkpoints", folder.name, folder, _bytes(folder), _seconds(folder), folder.name)


def _seconds(trajectory: Path) -> float:
    """What a training has taken so far; 0 where it does not say."""
    try:
        seconds = float(read_plain(trajectory / SECONDS_FILE, longest=1000))
    except (OSError, ValueError):
        return 0.0
    return seconds if math.isfinite(seconds) else 0.0


def _leftovers(store: Store, ours: Container[str]) -> Iterator[Item]:
    for folder in store.leftovers():
        yield Item("leftover", folder.name, folder, _bytes(folder), 0.0)
    for left in leftovers(store, ours):
        yield Item("leftover", left.path.name, left.path, _bytes(left.path), 0.0, left.lease)


def _bytes(path: Path) -> int:
    """Of a file, or of all files of a folder."""
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.lstat().st_size for file in files if file.is_file())


def _drop(store: Store, item: Item, rule: Rule) -> None:
    if item.kind == "weights":
        store.drop_weights(item.key, str(rule))
    elif item.kind in STAGES:
        store.drop(item.kind, item.key)
    elif item.folder.is_dir():
        shutil.rmtree(item.folder, ignore_errors=True)
    else:
        item.folder.unlink(missing_ok=True)


def _nobody_works(store: Store, say: Callable[[str], None]) -> Iterator[Lease]:
    """The leases of drivers that are gone, one by one; leases of jobs that are gone are given back.

    Raises:
        ValueError: Somebody lives who drives a sweep, or is at a job.
    """
    for key, _, _ in list(store.leases()):
        if key == CLEANING:
            continue
        lease = store.settle_lease(key, lambda: say("looking for up to a minute whether somebody works on the store"))
        if lease is None:
            holder = store.holder(key)
            who = "somebody" if holder is None else f"process {holder.number} of {holder.host}, since {holder.since},"
            raise ValueError(f"a store must be at rest to be cleaned, {who} works on it; wait for it, or stop it")
        yield lease


def _size(size_bytes: int) -> str:
    """In the largest unit of which there is one."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} B"


def _keep_quiet(numbers: Mapping[str, float]) -> None:
    """Nothing."""
