"""Call functions on the cluster: results and faults both come back as values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import ray

from cluster.faults import Fault, classify

Item = TypeVar("Item")
Result = TypeVar("Result")


def call_each(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    cpus: float = 1.0,
    gpus: float = 0.0,
    retries: int = 0,
    on_done: Callable[[int, Result | Fault], None] | None = None,
) -> list[Result | Fault]:
    """Give `function(item)` for each item, or the fault that ended the call, in the order of the items.

    As many run at once as the cluster has room for. If this process is interrupted, what still runs is cancelled.

    Args:
        function: Importable on workers, or picklable.
        items: Picklable values.
        cpus: Logical CPUs of each call, not negative.
        gpus: GPUs of each call, not negative.
        retries: How often a call is repeated after a machine's fault; a program's fault is never repeated.
        on_done: Called here with an item's index and its result, in the order in which they end.

    Raises:
        ValueError: A number is negative.
    """
    if cpus < 0 or gpus < 0 or retries < 0:
        raise ValueError(f"cpus, gpus and retries must not be negative, got {cpus}, {gpus}, {retries}")
    remote = ray.remote(
        num_cpus=cpus, num_gpus=gpus, max_retries=retries, retry_exceptions=False,
        # Anywhere: one who runs in a placement group, as Tune's trials do, would else have its calls held to its share.
        scheduling_strategy="DEFAULT",
    )(function)  # fmt: skip
    calls: list[Any] = [remote.remote(item) for item in items]
    index_of = {call: index for index, call in enumerate(calls)}
    outcomes: dict[int, Result | Fault] = {}
    waiting = list(calls)
    try:
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1)
            index = index_of[done[0]]
            outcomes[index] = _outcome(done[0])
            if on_done is not None:
                on_done(index, outcomes[index])
    except BaseException:
        for unfinished in waiting:
            ray.cancel(unfinished, force=True)
        raise
    return [outcomes[index] for index in range(len(calls))]


def call(
    function: Callable[[Item], Result], item: Item, *, cpus: float = 1.0, gpus: float = 0.0, retries: int = 0
) -> Result | Fault:
    """Give `function(item)`, run on the cluster, or the fault that ended it; as `call_each` for one item."""
    return call_each(function, [item], cpus=cpus, gpus=gpus, retries=retries)[0]


def _outcome(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except Exception as error:  # noqa: BLE001  (whatever the function raised is its result)
        return classify(error)
