"""Evaluations added to a sweep: other ways of acting with the weights it has trained, and no new training."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ilql.hyperparameters import Value, make
from ilql.methods import method_named
from sweeps.cells import Shared
from sweeps.driving import carry_out, check_room, connected, driving, present, with_copy
from sweeps.job import Resources
from sweeps.machines import Fleet, Share, check_fits
from sweeps.mirror import Mirror
from sweeps.overrides import parted, resolved
from sweeps.questions import question_named
from sweeps.schedule import Schedule
from sweeps.space import PlannedTraining, column_names, settings
from sweeps.spec import Evaluation, TrialSpec
from sweeps.store import Store
from sweeps.study import Study

DECODE = "decode."


@dataclass(frozen=True)
class Addition:
    """What is to be added to a sweep.

    Attributes:
        shared: What its trials share.
        design: Its trainings, each with the decodings it has not been played with.
        seeds: Training seeds of all of them.
        notes: What is left out, and why, a line each.
    """

    shared: Shared
    design: tuple[PlannedTraining, ...]
    seeds: int
    notes: tuple[str, ...]

    @property
    def trial_ids(self) -> frozenset[str]:
        """The rows that it adds."""
        return frozenset(
            trial.trial_id
            for training in self.design
            for seed in range(self.seeds)
            for trial in self.shared.trials(training, seed, self.shared.report)
        )


def addition(store: Store, sweep: str, asked: Mapping[str, Sequence[Value]]) -> Addition:
    """The cells that a sweep has with other values of some decoding columns, less those that it has already.

    Args:
        store: Where the sweep is.
        sweep: Its name.
        asked: Values by `decode.COLUMN`, or by `ARM.decode.COLUMN` for one arm.

    Raises:
        KeyError: A column is none of a method's decoding.
        ValueError: A column shapes the weights, an arm is not in the sweep, or a value is out of range.
    """
    members = [member for member in store.members(sweep) if "status" not in member]  # those that were to be played
    recorded = store.get("sweep", sweep) or {}
    if not members or "tune" not in recorded:
        raise ValueError(f"a sweep must have been planned before it is added to, {sweep} has not; run its command once")
    specs = {member["trial_id"]: TrialSpec.from_json(member["spec"]) for member in members}
    any_spec = next(iter(specs.values()))
    tune = make(Evaluation, recorded["tune"], owner=f"the sweep {sweep}", prefix="tune")
    shared = Shared(data=any_spec.data, backbone=any_spec.backbone, tune=tune, report=any_spec.evaluation)
    arms = {member["arm"]: specs[member["trial_id"]].method for member in members}
    by_arm = _by_arm(asked, arms)
    groups: defaultdict[tuple[str, str, Any], list[Mapping[str, Any]]] = defaultdict(list)
    for member in members:
        groups[member["arm"], member["origin"], specs[member["trial_id"]].train].append(member)
    seeds = 1 + max(member["seed"] for member in members)
    design: list[PlannedTraining] = []
    untrained: list[str] = []
    for (arm, origin, train), of_training in groups.items():
        if not by_arm[arm]:
            continue
        played = dict.fromkeys(specs[member["trial_id"]].decode for member in of_training)
        wanted = dict.fromkeys(new for decode in played for new in _with(arms[arm], decode, by_arm[arm]))
        decodes = tuple(decode for decode in wanted if decode not in played)
        training = PlannedTraining(arms[arm], arm, train, decodes, origin)
        if not training.decodes:
            continue
        weights = {shared.trials(training, seed, shared.report)[0].weights_id for seed in range(seeds)}
        if all(store.has("weights", key) for key in weights):
            design.append(training)
        else:
            untrained.append(arm)
    notes = []
    if untrained:
        of = ", ".join(f"{untrained.count(arm)} of {arm}" for arm in dict.fromkeys(untrained))
        notes.append(f"left out: trainings whose weights are not all there, {of}; the sweep's command makes them")
    return Addition(shared, tuple(design), seeds, tuple(notes))


def _by_arm(asked: Mapping[str, Sequence[Value]], arms: Mapping[str, str]) -> dict[str, dict[str, Sequence[Value]]]:
    """By arm, the columns that it has and the values that were asked for; what names an arm goes before the rest."""
    for name in asked:
        if not parted(name, arms)[1].startswith(DECODE):
            there = ", ".join(sorted(arms))
            raise ValueError(
                f"what is trained can be played with other decode.* alone, of an arm of the sweep ({there}), got {name}"
            )
    found: dict[str, dict[str, Sequence[Value]]] = {arm: {} for arm in arms}
    known = {arm: column_names(method_named(method).decode, "decode") for arm, method in arms.items()}
    for name, column, having in resolved(asked, known):
        for arm in having:
            found[arm][column] = asked[name]
    return found


def _with(method: str, decode: Any, columns: Mapping[str, Sequence[Value]]) -> tuple[Any, ...]:
    """A decoding with every combination of the columns' values."""
    own: dict[str, Value] = {f"{DECODE}{name}": value for name, value in dataclasses.asdict(decode).items()}
    return tuple(
        settings(method, "decode", own | dict(zip(columns, combination, strict=True)))
        for combination in itertools.product(*columns.values())
    )


def add_evaluations(
    store: Store,
    sweep: str,
    asked: Mapping[str, Sequence[Value]],
    say: Callable[[str], None],
    *,
    gpus: float = 0.0,
    concurrent: int | None = None,
    mirror: Mirror | None = None,
) -> int:
    """Play a sweep's weights in the ways that are asked for, and print its table with what is new; the exit status.

    Args:
        store: Where the sweep is.
        sweep: Its name.
        asked: As for `addition`.
        say: Told what happens.
        gpus: GPUs that a job has, 0 to play on CPUs.
        concurrent: Jobs at a time, or None for as many as fit.
        mirror: Of the sweep, or None.

    Raises:
        KeyError, ValueError: As `addition` does, or a job does not fit the machines.
        LeaseLostError: Another process drives the sweep, since this one was not heard of for a while.
    """
    resources = Resources(gpus_per_worker=gpus)
    check_room(resources)
    question = question_named(str((store.get("sweep", sweep) or {}).get("question")))
    store.sync()
    found = addition(store, sweep, asked)
    for note in found.notes:
        say(note)
    cells = sum(len(training.decodes) for training in found.design)
    if not cells:
        say("nothing to add: what is asked for is there")
        return 0
    say(f"{cells} cells are added, at {found.seeds} training seeds each; nothing is trained")
    with with_copy(store, say), tempfile.TemporaryDirectory() as folder, driving(store, sweep, say) as lease:
        schedule = Schedule(
            store,
            sweep,
            found.shared,
            found.design,
            refinement=None,
            seeds=found.seeds,
            study=Study(Path(folder) / "study.log", name=sweep, seed=0, space={}),  # proposals are not what this is for
            resources=resources,
            added=True,
            lease=lease,
        )
        with connected() as info, Fleet(store, say, own=info.started, on_gpus=gpus > 0) as fleet:
            need = resources.need
            check_fits(fleet.machines, need)
            resume = "the same command goes on from here"
            share = Share(fleet, need, concurrent)
            with nullcontext() if mirror is None else mirror:
                ended = carry_out(store, sweep, schedule, resources, share, resume, say)
                if ended != 0:
                    return ended or 1
                present(store, sweep, question, mirror, say)
    return 0
