"""From a question to its table: plan, run, mirror, report. What every runnable question of this folder shares."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from typing import Any

from analysis.text import count
from cluster.connect import ClusterInfo
from cluster.shapes import workers_that_fit
from sweeps.cells import drop_other_blocks, drop_stale, take_back_lost
from sweeps.driving import carry_out, connected, driving, present, with_copy
from sweeps.guard import STOPPED
from sweeps.journal import utc
from sweeps.leases import Lease
from sweeps.machines import Fleet, Share, check_fits
from sweeps.mirror import Mirror
from sweeps.options import Options
from sweeps.paths import store_option
from sweeps.planning import made_ready, plan_of
from sweeps.play import invitation
from sweeps.progress import reasons
from sweeps.question import Question, Sweep
from sweeps.reward_report import write_reward_report, write_varied_report
from sweeps.schedule import Schedule
from sweeps.stages import load_task
from sweeps.store import Store
from sweeps.study import Study, study_file


def run_question(question: Question, options: Options, say: Callable[[str], None]) -> int:
    """Answer a question: print the plan, do what is missing, print the table; returns the exit status.

    Raises:
        ValueError: Something the user gave is wrong; one line.
        KeyError: A name the user gave does not exist; one line.
    """
    ready = made_ready(question, options, say)
    store, sweeps = ready.store, ready.sweeps
    status = 0
    with ExitStack() as stack:
        groups = any(sweep.resources.in_group for sweep in sweeps.values())
        info = stack.enter_context(connected(groups=groups))
        on_gpus = any(sweep.resources.need.gpus > 0 for sweep in sweeps.values())
        fleet = stack.enter_context(Fleet(store, say, own=info.started, on_gpus=on_gpus))
        for sweep in sweeps.values():
            with with_copy(store, say), driving(store, sweep.name, say) as lease:
                ended = _run_sweep(question, sweep, options, store, lease, info, fleet, say)
            if ended is None or ended == STOPPED:
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
        The exit status: 0, 1 if nothing has finished, `STOPPED`; None if it could not be brought to its end.

    Raises:
        LeaseLostError: Another process drives it, since this one was not heard of for a while.
    """
    resume = f"the same command goes on from here: {shlex.join([*options.command])}"
    need = sweep.resources.need
    check_fits(fleet.machines, need)
    concurrent = fleet.places(need, options.concurrent)
    fit = workers_that_fit(fleet.machines, need)
    fewer = f", with {fit} of their {need.workers} workers: there is room for no more" if fit < need.workers else ""
    say(f"sweep {sweep.name} on {info}, {concurrent} jobs at a time{fewer}")
    if lost := take_back_lost(store, sweep.name):
        say(f"{count(len(lost), 'evaluation')} lost the episodes or part of them, {lost[0]} the first: played again")
    for line in plan_of(store, sweep, fleet.machines).lines(concurrent=concurrent):
        say(line)
    mirror = Mirror(store, sweep.name, options.tracking) if options.mirror else None
    store.put("sweep", sweep.name, _record(store, question, sweep, options), lease)
    study = Study(
        study_file(store, sweep.name),
        name=sweep.name,
        seed=options.search_seed,
        space=sweep.space,
    )
    drop_other_blocks(store, sweep.name, sweep.shared, sweep.design, lease)
    schedule = Schedule(
        store,
        sweep.name,
        sweep.shared,
        sweep.design,
        refinement=sweep.refinement,
        seeds=sweep.seeds,
        study=study,
        resources=sweep.resources,
        lease=lease,
    )
    share = Share(fleet, need, options.concurrent)
    with nullcontext() if mirror is None else mirror:
        ended = carry_out(store, sweep.name, schedule, sweep.resources, share, resume, say)
        if ended != 0:
            return ended
        drop_stale(store, sweep.name, schedule.members, lease)
        present(store, sweep.name, question, mirror, say)
    task = load_task(store, sweep.shared.data.task, sweep.shared.report.world)
    if (invited := invitation(store, sweep.name, task)) is not None:
        say(invited)
    say(f"Optuna's view: optuna-dashboard {study.file}")
    if mirror is not None:
        say(f"MLflow's view: {mirror.command}")
    rows = store.rows(sweep.name)
    if not any(row["status"] == "finished" for row in rows):
        named = shlex.join(["sweeps", "status", sweep.name, *store_option(store.folder)])
        say(f"nothing has finished; `{named}` has every row and its reason")
        for line in reasons(rows):
            say(f"failed: {line}")
        return 1
    return 0


def _record(store: Store, question: Question, sweep: Sweep, options: Options) -> dict[str, Any]:
    earlier = store.get("sweep", sweep.name) or {}
    return {
        "created_at": earlier.get("created_at") or utc(),
        "question": question.name,
        "task": sweep.shared.data.task,
        "methods": sorted({training.method for training in sweep.design}),
        "arms": list(dict.fromkeys(training.arm for training in sweep.design)),
        "data.reward": sweep.shared.data.reward,
        "evaluation.reward": sweep.shared.report.reward,
        "seeds": sweep.seeds,
        "episodes": sweep.shared.report.episodes,
        "proposals": 0 if sweep.refinement is None else sweep.refinement.proposals,
        "tune": dataclasses.asdict(sweep.shared.tune),
        "command": shlex.join(options.command),
    }
