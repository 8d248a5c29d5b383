"""From a question to its table: plan, run, mirror, report. What every runnable question of this folder shares."""

from __future__ import annotations

import dataclasses
import functools
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

from analysis.text import count
from cluster.connect import ClusterInfo, ConnectOptions, connect, joins, this_machine
from cluster.nodes import alive_nodes
from cluster.shapes import Machine, described
from cluster.watchdog import StuckError
from sweeps.cells import take_back_lost
from sweeps.forecast import Forecast, forecast
from sweeps.job import Resources
from sweeps.journal import StoreError, utc
from sweeps.leases import CLEANING, Lease, driver_key
from sweeps.machines import Fleet, check_fits
from sweeps.options import Options
from sweeps.plan import Plan, make_plan, remaining
from sweeps.planning import asked_sweeps
from sweeps.play import invitation
from sweeps.power import power_of
from sweeps.progress import Progress, reasons
from sweeps.provenance import package_folders
from sweeps.question import Question, Sweep, any_trial, chosen_preset, side_effects, unreached
from sweeps.reporting import files_to_show, print_report, write_sweep_report
from sweeps.reward_report import write_reward_report, write_varied_report
from sweeps.schedule import Schedule, no_room
from sweeps.search import run_schedule
from sweeps.shares import shares_line
from sweeps.stages import load_task
from sweeps.store import Store
from sweeps.study import Study
from sweeps.tracking import Mirror

SHOWN_FORMATS = ("svg",)
"""Static figures that a run ends with: what MLflow shows. `sweeps report` writes those that a paper takes, too."""

INTERRUPTED = 130
"""The exit status after Ctrl-C, as shells have it."""


def run_question(question: Question, options: Options, say: Callable[[str], None]) -> int:
    """Answer a question: print the plan, do what is missing, print the table; returns the exit status.

    Raises:
        ValueError: Something the user gave is wrong; one line.
        KeyError: A name the user gave does not exist; one line.
    """
    preset = chosen_preset(question, options)
    check_room(preset.resources, options.cluster)
    store = Store(options.store)
    say(f"store {store.folder}")
    if (full := no_room(store.folder)) is not None:
        raise StoreError(full)
    if preset.paper:
        say(f"preset {preset.name}; against the paper it changes")
        for line in preset.differences():
            say(f"  {line}")
    for line in (*unreached(question, preset, options), *side_effects(question, options)):
        say(line)
    sweeps = asked_sweeps(question, preset, options, store, say)
    if options.plan_only:
        for sweep in sweeps.values():
            say(f"sweep {sweep.name}")
            for line in _plan(store, sweep).lines(concurrent=options.concurrent or 1):
                say(line)
            if options.cluster is not None:
                say(f"on a cluster {options.cluster}, of its design:")
                for line in _forecast(store, sweep, described(options.cluster)).lines():
                    say(f"  {line}")
            for line in power_of(store, sweep.name, seeds=sweep.seeds, episodes=sweep.setting.report.episodes):
                say(line)
        return 0
    status = 0
    with ExitStack() as stack:
        info = stack.enter_context(connected())
        on_gpus = any(sweep.resources.need.gpus > 0 for sweep in sweeps.values())
        fleet = stack.enter_context(Fleet(store.folder, say, own=info.started, on_gpus=on_gpus))
        for sweep in sweeps.values():
            with driving(store, sweep.name, say) as lease:
                ended = _run_sweep(question, sweep, options, store, lease, info, fleet, say)
            if ended is None or ended == INTERRUPTED:
                return ended or 1
            status = max(status, ended)
    if len(sweeps) > 1 or options.transfer:
        names = {asked: sweep.name for asked, sweep in sweeps.items()}
        if options.vary is not None:
            paths, lines = write_varied_report(store, options.vary[0], names)
        else:
            by_reward = {str(reward): name for reward, name in names.items()}
            paths, lines = write_reward_report(store, by_reward, transfer=options.transfer)
        for line in [*lines, *(f"        {path}" for path in paths)]:
            say(line)
    return status


@contextmanager
def connected() -> Iterator[ClusterInfo]:
    """A cluster to work on: the one that the environment names, or one of our own until the end of the context."""
    with connect(ConnectOptions(packages=package_folders())) as info:
        yield info


def check_room(resources: Resources, cluster: str | None = None) -> None:
    """Do nothing if a job fits where it would run; asked before anything is built or begun for it.

    Args:
        resources: What a job uses.
        cluster: The description of a cluster that is only planned for. Without one, it runs on the cluster that the
            environment names, which is asked for its nodes, or else on this machine.

    Raises:
        ValueError: It does not fit, or the description is none.
        ConnectionError: No cluster answers.
    """
    need = resources.need
    if cluster is not None:
        check_fits(described(cluster), need, whose=f"a cluster {cluster}")
    elif joins():
        with connected():
            check_fits([node.machine for node in alive_nodes()], need)
    else:
        check_fits(
            [this_machine()], need, whose="this machine", hint="--cluster plans for others, RAY_ADDRESS joins them"
        )


def driving(store: Store, sweep: str, say: Callable[[str], None]) -> Lease:
    """The lease of a sweep's one driver. After a machine was switched off it takes a minute to know that it is gone.

    Raises:
        ValueError: Somebody else drives it.
    """
    key = driver_key(sweep)
    asked = False

    def who() -> str:
        holder = store.holder(key)
        return "" if holder is None else f", since {holder.since} process {holder.number} of {holder.host}"

    def each() -> None:
        nonlocal asked
        if not asked:
            asked = True
            say(f"{sweep} has had a driver{who()}; it takes up to a minute to see whether that lives")

    lease = store.settle_lease(key, each)
    if lease is None:
        raise ValueError(
            f"a sweep must have one driver at a time, {sweep} has one{who()}; wait for it, or give yours another "
            "--name: what both need is done once"
        )
    # Who cleans up looks for drivers when it has its lease, and we for it when we have ours: one sees the other.
    store.lease(CLEANING, lambda: say("waiting for `sweeps gc`, which is at this store")).release()
    return dataclasses.replace(lease, what=f"the sweep {sweep}")


def _run_sweep(
    question: Question,
    sweep: Sweep,
    options: Options,
    store: Store,
    lease: Lease,
    info: ClusterInfo,
    fleet: Fleet,
    say: Callable[[str], None],
) -> int | None:
    """Do what is missing of one sweep and print its table.

    Returns:
        The exit status: 0, 1 if nothing has finished, `INTERRUPTED`; None if it could not be brought to its end.

    Raises:
        LeaseLostError: Another process drives it, since this one was not heard of for a while.
    """
    resume = f"the same command goes on from here: {shlex.join([*options.command])}"
    need = sweep.resources.need
    check_fits(fleet.machines, need)
    concurrent = fleet.places(need, options.concurrent)
    say(f"sweep {sweep.name} on {info}, {concurrent} jobs at a time")
    if lost := take_back_lost(store, sweep.name):
        say(f"{count(len(lost), 'evaluation')} lost the episodes or part of them, {lost[0]} the first: played again")
    for line in _plan(store, sweep).lines(concurrent=concurrent):
        say(line)
    mirror = Mirror(store, sweep.name, options.tracking) if options.mirror else None
    store.put("sweep", sweep.name, _record(store, question, sweep, options), lease)
    study = Study(
        store.folder / "optuna" / f"{sweep.name}.log",
        name=sweep.name,
        seed=options.search_seed,
        space=sweep.space,
    )
    _drop_other_blocks(store, sweep, lease)
    schedule = Schedule(
        store,
        sweep.name,
        sweep.setting,
        sweep.design,
        refinement=sweep.refinement,
        seeds=sweep.seeds,
        study=study,
        resources=sweep.resources,
        lease=lease,
    )
    limit = functools.partial(fleet.places, need, options.concurrent)
    with nullcontext() if mirror is None else mirror:
        ended = carry_out(store, sweep.name, schedule, sweep.resources, limit, resume, say)
        if ended != 0:
            return ended
        _drop_stale(store, sweep.name, schedule.members, lease)
        present(store, sweep.name, question, mirror, say)
    task = load_task(store, sweep.setting.data.task, sweep.setting.report.world)
    if (invited := invitation(store, sweep.name, task)) is not None:
        say(invited)
    say(f"Optuna's view: optuna-dashboard {study.file}")
    if mirror is not None:
        say(f"MLflow's view: {mirror.command}")
    rows = store.rows(sweep.name)
    if not any(row["status"] == "finished" for row in rows):
        say(f"nothing has finished; `sweeps status {sweep.name}` has every row and its reason")
        for line in reasons(rows):
            say(f"failed: {line}")
        return 1
    return 0


def carry_out(
    store: Store,
    sweep: str,
    schedule: Schedule,
    resources: Resources,
    concurrent: Callable[[], int],
    resume: str,
    say: Callable[[str], None],
) -> int | None:
    """Do a schedule's jobs on the connected cluster, and say how far they are.

    Returns:
        0 if all are done, `INTERRUPTED` after Ctrl-C, None if they could not be brought to their end.

    Raises:
        StoreError: The disk is full.
    """
    try:
        run_schedule(
            schedule,
            concurrent=concurrent,
            resources=resources,
            folder=store.folder / "tune" / sweep,
            watcher=Progress(store, sweep, schedule),
        )
    except KeyboardInterrupt:
        say(f"stopped; nothing that was finished is lost, and {resume}")
        return INTERRUPTED
    except StuckError as stuck:
        say(f"{stuck}; {resume}")
        return None
    if schedule.halted is not None:
        raise StoreError(f"{schedule.halted}; {resume}")
    if not schedule.is_over:
        say(f"the sweep ended before its plan was done; {resume}")
        return None
    return 0


def present(store: Store, sweep: str, question: Question, mirror: Mirror | None, say: Callable[[str], None]) -> None:
    """Write a sweep's report, send it to MLflow, and print it."""
    report, comparisons = write_sweep_report(
        store, sweep, question.against, sections=question.sections, static_formats=SHOWN_FORMATS
    )
    if mirror is not None:
        mirror.finish(files_to_show(report))
    print_report(report, comparisons, say)
    say(shares_line(store, sweep))


def _plan(store: Store, sweep: Sweep) -> Plan:
    need = sweep.resources.need
    return make_plan(store, sweep.setting, sweep.design, seeds=sweep.seeds, refinement=sweep.refinement, need=need)


def _forecast(store: Store, sweep: Sweep, machines: Sequence[Machine]) -> Forecast:
    found = remaining(store, sweep.setting, sweep.design, seeds=sweep.seeds)
    return forecast(store, found, sweep.resources, machines)


def _record(store: Store, question: Question, sweep: Sweep, options: Options) -> dict[str, Any]:
    earlier = store.get("sweep", sweep.name) or {}
    return {
        "created_at": earlier.get("created_at") or utc(),
        "question": question.name,
        "task": sweep.setting.data.task,
        "methods": sorted({training.method for training in sweep.design}),
        "arms": list(dict.fromkeys(training.arm for training in sweep.design)),
        "data.reward": sweep.setting.data.reward,
        "evaluation.reward": sweep.setting.report.reward,
        "seeds": sweep.seeds,
        "episodes": sweep.setting.report.episodes,
        "proposals": 0 if sweep.refinement is None else sweep.refinement.proposals,
        "tune": dataclasses.asdict(sweep.setting.tune),
        "command": shlex.join(options.command),
    }


def _drop_other_blocks(store: Store, sweep: Sweep, lease: Lease) -> None:
    """Take rows of an earlier plan out of the sweep if they were judged on another block; their results stay."""
    trial = any_trial(sweep.setting, sweep.design)
    block = dataclasses.replace(trial, evaluation=sweep.setting.report).columns()
    shared = [name for name in block if name.startswith(("evaluation.", "data.", "backbone.", "task"))]
    for member in store.members(sweep.name):
        if any(member["columns"].get(name) != block[name] for name in shared):
            lease.check()
            store.remove("member", f"{sweep.name}/{member['trial_id']}")


def _drop_stale(store: Store, sweep: str, members: set[str], lease: Lease) -> None:
    """Take rows that are no longer planned out of a sweep whose plan is done; their results stay.

    What was added to it stays in it, as long as the weights belong to the plan.

    Raises:
        LeaseLostError: Another process drives the sweep, and plans otherwise.
    """
    there = {f"{sweep}/{member['trial_id']}": member for member in store.members(sweep)}
    planned = {member["weights_id"] for key, member in there.items() if key in members}
    for key, member in there.items():
        if key not in members and not (member.get("added") and member["weights_id"] in planned):
            lease.check()
            store.remove("member", key)
