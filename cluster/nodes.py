"""The nodes of the connected cluster: which there are, a call on each of them, and keeping work away from one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import ray
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.faults import Fault, classify
from cluster.placement import SET_ASIDE
from cluster.shapes import Machine

Item = TypeVar("Item")
Result = TypeVar("Result")

ANSWER_SECONDS = 120.0
"""For so long a node may take to answer: it starts a process and unpacks our code."""

_NODE_ID = "ray.io/node-id"  # a label that Ray gives every node


@dataclass(frozen=True)
class Node:
    """A node of the cluster that is alive.

    Attributes:
        id: Ray's, hexadecimal.
        host: Its machine's name.
        ip: Its address.
        machine: What it has.
    """

    id: str
    host: str
    ip: str
    machine: Machine

    def __str__(self) -> str:
        return f"{self.host} ({self.ip}, node {self.id[:8]})"


def alive_nodes() -> list[Node]:
    """The nodes that are alive, in the order of their ids."""
    found = []
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        if node["Alive"]:
            has = node["Resources"]
            machine = Machine(cpus=float(has.get("CPU", 0)), gpus=float(has.get("GPU", 0)))
            found.append(Node(node["NodeID"], node["NodeManagerHostname"], node["NodeManagerAddress"], machine))
    return sorted(found, key=lambda node: node.id)


def nodes_in_use() -> list[Node]:
    """Those of them that no program has set aside."""
    names = [group["name"] for group in placement_group_table().values() if group["state"] != "REMOVED"]
    return [node for node in alive_nodes() if not any(name.startswith(f"{SET_ASIDE}{node.id} ") for name in names)]


def why_hopeless() -> str | None:
    """Why nothing will ever be done on the connected cluster: no node of it is alive. None if one is, or nobody knows.

    A cluster whose head is away does not say what nodes it has; it may come back.
    """
    try:
        return None if alive_nodes() else "no node of the cluster is alive any more"
    except Exception:  # noqa: BLE001  whatever a cluster in trouble raises, it says nothing of its nodes
        return None


def call_on_nodes(
    function: Callable[[Item], Result], item: Item, nodes: Iterable[Node], *, seconds: float = ANSWER_SECONDS
) -> dict[Node, Result | Fault]:
    """Give `function(item)` as called on each of some nodes at once, or the fault that came of it.

    It takes no CPU: nodes whose CPUs are all in use answer, too.

    Args:
        function: Importable on workers, or picklable.
        item: A picklable value.
        nodes: Which.
        seconds: A node that takes longer has a machine's fault.
    """
    remote: Any = ray.remote(num_cpus=0, max_retries=0)(function)
    calls = {
        node: remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote(item)
        for node in nodes
    }
    if calls:
        ray.wait(list(calls.values()), num_returns=len(calls), timeout=seconds)
    return {node: _outcome(reference, seconds) for node, reference in calls.items()}


Reserved: TypeAlias = Sequence[PlacementGroup]
"""What keeps work away from a node."""


def set_aside(node: Node) -> Reserved:
    """Reserve every CPU of a node, each as soon as it is free, so that no job of ours begins there.

    Ray gives them back when this program ends; or `let_back` does.
    """
    return [
        placement_group([{"CPU": 1}], name=f"{SET_ASIDE}{node.id} {cpu}", bundle_label_selector=[{_NODE_ID: node.id}])
        for cpu in range(int(node.machine.cpus))
    ]


def let_back(reserved: Reserved) -> None:
    """Give back the CPUs of a node that was set aside."""
    for group in reserved:
        remove_placement_group(group)


def this_node() -> str:
    """Ray's id of the node that this process is on; empty where it is connected to no cluster."""
    return ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""


def _outcome(reference: Any, seconds: float) -> Any:
    try:
        return ray.get(reference, timeout=0)
    except ray.exceptions.GetTimeoutError:
        ray.cancel(reference, force=True)
        return Fault("machine", "GetTimeoutError", f"it did not answer within {seconds:.0f} s")
    except Exception as error:  # noqa: BLE001  (whatever the function raised is its result)
        return classify(error)
