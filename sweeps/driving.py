"""Being the one driver of a sweep: on a cluster that has room, from its first job to its printed table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from analysis.text import count
from cluster.connect import ClusterInfo, ConnectOptions, connect, joins, this_machine
from cluster.nodes import alive_nodes
from cluster.shapes import Machine, described
from cluster.watchdog import StuckError
from sweeps.guard import STOPPED
from sweeps.job import Resources
from sweeps.journal import StoreError
from sweeps.leases import CLEANING, Lease, driver_key
from sweeps.machines import check_fits
from sweeps.mirror import Mirror
from sweeps.progress import Progress
from sweeps.provenance import package_folders
from sweeps.question import Question
from sweeps.reporting import files_to_show, print_report, write_sweep_report
from sweeps.schedule import Schedule
from sweeps.search import Places, run_schedule
from sweeps.shares import shares_line
from sweeps.store import Store

SHOWN_FORMATS = ("svg",)
"""Static figures that a run ends with: what MLflow shows. `sweeps report` writes those that a paper takes, too."""


@contextmanager
def connected(*, groups: bool = False) -> Iterator[ClusterInfo]:
    """A cluster to work on: the one that the environment names, or one of our own until the end of the context.

    Args:
        groups: Whether trainings will go through Ray Train's worker groups.
    """
    with connect(ConnectOptions(packages=package_folders(), groups=groups)) as info:
        yield info


def check_room(resources: Resources, cluster: str | None = None) -> Sequence[Machine]:
    """The machines that a job would run on, if it fits; asked before anything is built or begun for it.

    Args:
        resources: What a job uses.
        cluster: The description of a cluster that is only planned for. Without one, it runs on the cluster that the
            environment names, which is asked for its nodes, or else on this machine.

    Raises:
        ValueError: It does not fit, or the description is none.
        ConnectionError: No cluster answers.
    """
    need = resources.need
    machines: Sequence[Machine]
    if cluster is not None:
        check_fits(machines := described(cluster), need, whose=f"a cluster {cluster}")
    elif joins():
        with connected():
            check_fits(machines := [node.machine for node in alive_nodes()], need)
    else:
        machines = [this_machine()]
        check_fits(machines, need, whose="this machine", hint="--cluster plans for others, RAY_ADDRESS joins them")
    return machines


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


@contextmanager
def with_copy(store: Store, say: Callable[[str], None]) -> Iterator[None]:
    """Within the block the store's copy, if there is one, has what is here; behind it, what was recorded meanwhile.

    Raises:
        StoreError: The copy does not answer for seven minutes: a driver has patience, since with it a whole sweep
            would end.
    """
    if store.replica is not None:
        store.replica.be_patient()
    if sent := store.send_all():
        say(f"{count(sent, 'stage')} sent to the store's copy")
    try:
        yield
    except BaseException:
        with suppress(StoreError):  # what ended the block is what is told
            store.send_all()
        raise
    store.send_all()


def carry_out(
    store: Store,
    sweep: str,
    schedule: Schedule,
    resources: Resources,
    places: Places,
    resume: str,
    say: Callable[[str], None],
) -> int | None:
    """Do a schedule's jobs on the connected cluster, and say how far they are.

    Returns:
        0 if all are done, `STOPPED` after Ctrl-C, None if they could not be brought to their end.

    Raises:
        StoreError: The disk is full.
    """
    try:
        run_schedule(
            schedule,
            places=places,
            resources=resources,
            folder=store.folder / "tune" / sweep,
            watcher=Progress(store, sweep, schedule),
            away=store.replica,
        )
    except KeyboardInterrupt:
        say(f"stopped; nothing that was finished is lost, and {resume}")
        return STOPPED
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
    if (shared := shares_line(store, sweep)) is not None:
        say(shared)
