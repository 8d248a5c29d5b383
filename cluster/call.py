"""Call a function somewhere on the cluster: its result and its fault both come back as values."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import ray

from cluster.faults import Fault, classify
from cluster.nodes import this_node

Item = TypeVar("Item")
Result = TypeVar("Result")
Told = TypeVar("Told")

TELL_SECONDS = 1.0
"""What a function tells comes through no more often; of what is told in between, the newest."""


def call(
    function: Callable[[Item, Callable[[Told], None]], Result],
    item: Item,
    tell: Callable[[Told], None],
    *,
    gpus: float = 0.0,
    at: Callable[[str], None] = lambda node: None,
) -> Result | Fault:
    """Give `function(item, tell)`, run on the cluster once, or the fault that ended it.

    It runs wherever there is room, also for a caller in a placement group. If this process is interrupted, or `tell`
    raises here, the function is cancelled.

    Args:
        function: Importable on workers, or picklable. It is given an item and whom to tell how far it is.
        item: Picklable.
        tell: Called here with what the function tells there.
        gpus: GPUs of the call, beside one logical CPU; not negative.
        at: Called here with Ray's id of the node where it begins.

    Raises:
        ValueError: `gpus` is negative.
    """
    if gpus < 0:
        raise ValueError(f"gpus must not be negative, got {gpus}")
    remote: Any = ray.remote(
        num_cpus=1, num_gpus=gpus, max_retries=0, num_returns="streaming",
        # Anywhere: one who runs in a placement group, as Tune's trials do, would else have its calls held to its share.
        scheduling_strategy="DEFAULT",
    )(_running)  # fmt: skip
    answers: Any = remote.remote(function, item)
    nodes: tuple[str, ...] = ()
    try:
        while True:
            try:
                what, value = ray.get(next(answers))
            except Exception as error:  # noqa: BLE001  (whatever the function raised is its result)
                return replace(classify(error), nodes=nodes)
            if what == "begun":
                nodes = (value,)
                at(value)
            elif what == "ended":
                result: Result = value
                return result
            else:
                tell(value)
    except BaseException:
        ray.cancel(answers, force=True)
        raise


def _running(
    function: Callable[[Item, Callable[[Told], None]], Result], item: Item
) -> Iterator[tuple[str, str | Told | Result]]:
    """On a worker: where it has `begun`, what the function has `told`, and what it returned when it `ended`."""
    yield "begun", this_node()
    heard: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

    def run() -> None:
        try:
            heard.put(("ended", function(item, lambda told: heard.put(("told", told)))))
        except BaseException as error:  # noqa: BLE001  (raised below, where Ray sees it)
            heard.put(("raised", error))

    threading.Thread(target=run, name="called", daemon=True).start()
    newest: list[Any] = []
    due = 0.0
    while True:
        wait = max(0.0, due - time.monotonic()) if newest else None
        if wait == 0:
            due = time.monotonic() + TELL_SECONDS
            yield "told", newest.pop()
            continue
        try:
            what, value = heard.get(timeout=wait)
        except queue.Empty:
            continue
        if what == "raised":
            raise value
        if what == "ended":
            yield "ended", value
            return
        newest = [value]
