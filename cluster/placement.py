"""What holds the cluster's resources, and giving back what nobody will use again.

A Ray Train worker group reserves its CPUs and GPUs in a placement group made by its controller. Ray removes a
placement group when both its maker and the whole job are gone, so a controller that dies early leaves the reservation
behind until the job ends, and whoever waits for these CPUs waits for ever. Ray Train's own helper against this depends
on the State API and does not know a group that is still starting. `release_orphans` asks the cluster's own table
instead, and removes what a dead actor of this job reserved, however far its group had come.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group

from cluster.connect import STATE_API

SET_ASIDE = "set aside "
"""How the names of placement groups begin that are there to keep work away from a node."""


def release_orphans() -> int:
    """Remove this job's placement groups whose maker is dead, and give their number.

    Safe at any time and from any process of the job: a dead actor never comes back for what it reserved, and groups
    made by living actors, by drivers or by other jobs are not touched.
    """
    return _release(lambda group: group.creator_actor_id.strip(b"\xff") != b"" and group.creator_actor_dead)


def release_all() -> int:
    """Remove all of this job's placement groups, and give their number: for a driver whose work has come to nothing.

    Those that keep work away from a node (`cluster.nodes.set_aside`) stay.
    """
    return _release(lambda group: not group.name.startswith(SET_ASIDE))


def _release(wanted: Callable[[Any], bool]) -> int:
    # The table Ray shows in public leaves out who made a group; the record behind it has it. Pinned to ray 2.60 by
    # pyproject.toml, held by tests/cluster/test_placement.py.
    from ray._private.state import state  # noqa: PLC0415
    from ray.core.generated import gcs_pb2  # noqa: PLC0415

    records: Any = gcs_pb2.PlacementGroupTableData  # type: ignore[attr-defined]  # made when protobuf loads it
    job = bytes.fromhex(ray.get_runtime_context().get_job_id())
    released = 0
    for record in state._connect_and_get_accessor().get_placement_group_table():
        group = records.FromString(record)
        gone = group.state == records.REMOVED
        if gone or group.is_detached or group.creator_job_id != job or not wanted(group):
            continue
        remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))
        released += 1
    return released


def live_placement_groups() -> tuple[str, ...]:
    """Describe every placement group that holds or waits for resources, as `STATE 2 x {CPU: 1}`."""
    table = placement_group_table()
    return tuple(
        f"{group['state']} {_bundles(group['bundles'])}" for group in table.values() if group["state"] != "REMOVED"
    )


def describe_cluster() -> str:
    """Say in one line what holds the resources and what waits for them; for the log of a sweep that stands still."""
    total, free = ray.cluster_resources(), ray.available_resources()  # type: ignore[no-untyped-call]
    resources = ", ".join(
        f"{free.get(name, 0):g} of {total[name]:g} {name} free" for name in ("CPU", "GPU") if name in total
    )
    groups = Counter(live_placement_groups())
    held = "; ".join(f"{count} x {text}" for text, count in sorted(groups.items())) or "none"
    return f"{resources}; placement groups: {held}; waiting: {_waiting()}"


def _bundles(bundles: dict[int, dict[str, float]]) -> str:
    counts = Counter(
        str({name: f"{amount:g}" for name, amount in bundle.items()}).replace("'", "") for bundle in bundles.values()
    )
    return ", ".join(f"{count} x {bundle}" for bundle, count in counts.items())


def _waiting() -> str:
    """Name tasks and actors that wait for resources, through the State API; says so where that does not answer.

    Ray would look for one by itself where we know of none, and that may be a stranger's.
    """
    if STATE_API not in os.environ:
        return "unknown (this Ray runs no State API)"
    from ray.util.state import list_actors, list_tasks  # noqa: PLC0415  (loads the dashboard's libraries)
    from ray.util.state.exception import RayStateApiException  # noqa: PLC0415

    try:
        tasks = list_tasks(filters=[("state", "=", "PENDING_NODE_ASSIGNMENT")], limit=100, timeout=10)
        actors = list_actors(filters=[("state", "=", "PENDING_CREATION")], limit=100, timeout=10)
    except (RayStateApiException, OSError) as error:
        return f"unknown (the State API does not answer: {type(error).__name__})"
    names = Counter([f"task {task.name}" for task in tasks] + [f"actor {actor.class_name}" for actor in actors])
    return ", ".join(f"{count} x {name}" for name, count in sorted(names.items())) or "nothing"
