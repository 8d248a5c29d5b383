"""Groups of Ray Train workers: train on several CPUs or on GPUs, from inside a Tune trial or from a plain program.

Why no group can be leaked. Ray Train keeps a group's CPUs in a placement group that outlives its maker: when a Tune
trial is killed (by a scheduler's early stop, for one), the CPUs stay taken and the sweep waits for ever. Four things
stand against it, each enough for the cases it covers:

1. Nobody kills trials: sweeps decide on early stopping between trials, and every trial runs to its natural end.
2. A group is fitted in a Ray task of its own, owned by whoever called `run_group`. If the caller's block is left in any
   way (an exception, Ctrl-C), the task is killed and the reservation is given back before `run_group` raises.
3. If the caller's whole process dies (SIGTERM, kill -9, memory), Ray kills the task, with it the controller and the
   workers. The reservation is then an orphan, and every waiting group, every new group and the sweep's watchdog release
   orphans (`cluster.placement.release_orphans`), by the cluster's own table, whether or not the State API answers.
4. When the whole job is gone, Ray removes what is left.

Who can reach a group. In a Ray that lives on the loopback, as those that we start do, workers meet in a file and listen
on the loopback alone; elsewhere torch and its backends listen where they like (docs/security.md).
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic

import ray
import ray.train
from ray.train.backend import Backend, BackendConfig
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.faults import Fault, classify, nodes_lost
from cluster.group import Config, GroupResult, Report, TrainLoop, check_metrics, combine
from cluster.nodes import nodes_in_use, this_node
from cluster.placement import release_orphans
from cluster.shapes import Machine, Need, places, workers_that_fit

# Ray Train's own annotations are still those of its first version, whose classes take other arguments.
train: Any = ray.train

CALLER_RESOURCES: Mapping[str, float] = MappingProxyType({"CPU": 0, "memory": 1})
"""What a Tune trial should ask for that does nothing but call `run_group`: one byte. Tune refuses trials that ask for
nothing, and the customary hundredth of a CPU keeps a group that needs all CPUs of the cluster waiting for ever."""

LOOPBACKS = ("lo", "lo0")
"""What systems call the loopback among their networks: Linux, and macOS with the other BSDs."""

_NETWORKS = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""By which variables gloo and NCCL are told the network to listen on."""

_NODE_OF = "node-of-"
"""How the names of the files begin in which each worker says on which node it is; its rank ends them."""
_POLL_SECONDS = 0.1
_TEND_SECONDS = 5.0
_NO_ROOM_SECONDS = 15.0
"""For so long the nodes that are left may have no room for a group before one that can be smaller is taken back."""
_ABORT_SECONDS = 5.0


@dataclass(frozen=True)
class _Order(Generic[Config]):
    """Everything the fitting task needs to know.

    `elastic`: whether `workers`, so many as there are this time, are more than the group makes do with. It is then
    taken back where it would wait for nodes that are gone.
    """

    train_loop: TrainLoop[Config]
    config: Config
    workers: int
    gpus_per_worker: float
    storage: Path
    name: str
    elastic: bool


def run_group(
    train_loop: TrainLoop[Config],
    config: Config,
    *,
    workers: int,
    least_workers: int | None = None,
    gpus_per_worker: float = 0.0,
    storage: Path,
    name: str,
    on_report: Callable[[Report], None] | None = None,
    at: Callable[[Sequence[str]], None] = lambda nodes: None,
) -> GroupResult:
    """Train in a group of workers, a CPU each, and give how it ended; failures of workers come back as a value.

    A group is begun once: whoever calls tries again, and the loop finds its own checkpoints. But one that may be
    smaller, and for which there is no longer room, is taken back and begun with as many as fit.

    Args:
        train_loop: Called as `train_loop(config, group)` on every worker; must be importable there, or picklable.
        config: Any picklable value.
        workers: How many, at least 1. Above 1, torch.distributed is initialised: NCCL on GPUs, gloo on CPUs.
        least_workers: With so many it makes do where the nodes have room for no more; with all of them alone if None.
        gpus_per_worker: 0, or a positive number; a fraction shares a GPU.
        storage: An absolute folder that all machines see, for Ray Train's notes.
        name: One path component, stable across restarts: a weights_id, never a time.
        on_report: Called in this process with each report, in order. What it raises ends the group and is raised here.
        at: Called at its end with Ray's ids of the nodes on which its workers had begun.

    Raises:
        ValueError: A number is out of its range, or `storage` or `name` is not as described.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if gpus_per_worker < 0:
        raise ValueError(f"gpus_per_worker must not be negative, got {gpus_per_worker}")
    check_place(storage, name)
    need = Need(workers=workers, gpus=gpus_per_worker, least_workers=least_workers)
    while True:
        machines = _machines() if need.fewest < workers else None
        now = workers if machines is None else workers_that_fit(machines, need)
        order = _Order(train_loop, config, now, gpus_per_worker, storage, name, elastic=need.fewest < now)
        ended = _run_group_once(order, on_report)
        if ended is not None:
            at(sorted(set(_nodes_of(order).values())))
            return ended
        shutil.rmtree(storage / name, ignore_errors=True)  # Ray Train would go on from its notes of that group


def _run_group_once(order: _Order[Config], on_report: Callable[[Report], None] | None) -> GroupResult | None:
    """Run one group to its end; None where it would have waited for nodes that are gone."""
    for file in order.storage.glob(f"{_NODE_OF}*"):
        file.unlink(missing_ok=True)
    release_orphans()
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    fitting: Any = ray.remote(_fit)
    events = fitting.options(
        num_cpus=0, max_retries=0, num_returns="streaming", scheduling_strategy=here, name=f"group {order.name}"
    ).remote(order)
    metrics: Mapping[str, float] = {}
    fault: Fault | None = None
    try:
        while True:
            try:
                event = ray.get(next(events))
            except StopIteration:
                break
            except ray.exceptions.RayError as error:
                fault = classify(error)
                break
            if isinstance(event, _Waits):
                _abort(events)
                return None
            if isinstance(event, _Ended):
                fault = event.fault
            else:
                metrics = event.metrics
                if on_report is not None:
                    on_report(event)
    except BaseException:
        _abort(events)
        raise
    return GroupResult(metrics, fault, order.workers)


def _nodes_of(order: _Order[Config]) -> dict[int, str]:
    """By rank, Ray's id of the node of each worker that had begun, as far as that is seen here."""
    found = {}
    for rank in range(order.workers):
        with contextlib.suppress(OSError):
            found[rank] = (order.storage / f"{_NODE_OF}{rank}").read_text(encoding="utf-8")
    return found


def check_place(storage: Path, name: str) -> None:
    """Refuse a storage folder that workers elsewhere would understand differently, and a name that leaves it."""
    if not storage.is_absolute():
        raise ValueError(f"storage must be an absolute folder that all machines see, got {str(storage)!r}")
    if Path(name).name != name or name in ("", "..") or "\0" in name:
        raise ValueError(f"a group's name must be one path component, such as its weights_id, got {name!r}")


@dataclass(frozen=True)
class _Ended:
    """The last event of a fitting: what ended it, if the loop did not return everywhere."""

    fault: Fault | None


@dataclass(frozen=True)
class _Waits:
    """The last event that is heard of a fitting whose group could be smaller, and waits for nodes that are gone."""


def _abort(events: Any) -> None:
    """Kill the fitting task and give back what its group reserved, before the caller goes on."""
    ray.cancel(events, force=True)
    deadline = time.monotonic() + _ABORT_SECONDS
    # The controller dies a moment after the task that owns it; only then is its reservation an orphan. A group that had
    # not reserved anything yet leaves nothing to release, so the wait has an end.
    while time.monotonic() < deadline and not release_orphans():
        time.sleep(_POLL_SECONDS)


def _fit(order: _Order[Config]) -> Iterator[Report | _Ended | _Waits]:
    """Fit a group and yield what happens; runs in a Ray task, whose death is the group's end."""
    with tempfile.TemporaryDirectory(prefix="group_") as scratch:
        journal = Path(scratch) / "events.jsonl"
        journal.touch()
        endings: list[_Ended] = []
        fitting = threading.Thread(target=lambda: endings.append(_fit_quietly(order, journal)), daemon=True)
        fitting.start()
        tended = had_room_at = time.monotonic()
        with journal.open(encoding="utf-8") as lines:
            partial = ""
            while True:
                running = fitting.is_alive()  # asked before reading: what comes after the end is never missed
                while chunk := lines.readline():
                    partial += chunk
                    if partial.endswith("\n"):
                        yield _read_report(partial)
                        partial = ""
                if not running:
                    break
                if time.monotonic() - tended > _TEND_SECONDS:
                    release_orphans()  # we may be waiting for what a dead trial still holds
                    tended = time.monotonic()
                    if not order.elastic or len(_nodes_of(order)) == order.workers or _has_room(order):
                        had_room_at = tended  # or all have begun: a group that loses one of these ends by itself
                    if tended - had_room_at > _NO_ROOM_SECONDS:
                        yield _Waits()
                time.sleep(_POLL_SECONDS)
        yield endings[0]


def _has_room(order: _Order[Config]) -> bool:
    """Whether the nodes that are used hold the group, or do not say what they are."""
    machines = _machines()
    return machines is None or places(machines, Need(workers=order.workers, gpus=order.gpus_per_worker)) > 0


def _machines() -> list[Machine] | None:
    """What the nodes have that are used; None where nobody says."""
    try:
        return [node.machine for node in nodes_in_use()]
    except Exception:  # noqa: BLE001  whatever a cluster in trouble raises, it says nothing of its nodes
        return None


def _fit_quietly(order: _Order[Config], journal: Path) -> _Ended:
    try:
        _trainer(order, journal).fit()
    except Exception as error:  # noqa: BLE001  (whatever ended the group is its result)
        return _Ended(replace(classify(error), nodes=nodes_lost(error, _nodes_of(order))))
    return _Ended(None)


def _trainer(order: _Order[Config], journal: Path) -> Any:
    from ray.train.torch import TorchConfig, TorchTrainer  # noqa: PLC0415  (imports torch)

    backend = backend_of(order.workers, order.gpus_per_worker)
    alone = ipaddress.ip_address(ray.util.get_node_ip_address()).is_loopback  # type: ignore[no-untyped-call]
    resources = {"CPU": 1.0} | ({"GPU": order.gpus_per_worker} if order.gpus_per_worker else {})
    met: Any = _OnLoopback(backend, journal.parent) if alone else TorchConfig(backend=backend)
    return TorchTrainer(
        _worker,
        train_loop_config={"order": order},
        torch_config=met,
        scaling_config=train.ScalingConfig(
            num_workers=order.workers, use_gpu=order.gpus_per_worker > 0, resources_per_worker=resources
        ),
        run_config=train.RunConfig(
            name=order.name,
            storage_path=str(order.storage),
            failure_config=train.FailureConfig(max_failures=0),
            callbacks=[_Journal(journal)],
            logging_config=train.LoggingConfig(log_level="ERROR"),
        ),
    )


def backend_of(workers: int, gpus_per_worker: float) -> str:
    """What workers sum gradients over: NCCL between whole GPUs, which it needs one each of, and gloo otherwise.

    A worker alone sums with nobody, and is spared what NCCL begins with.
    """
    return "nccl" if workers > 1 and gpus_per_worker >= 1 else "gloo"


@dataclass(frozen=True)
class _OnLoopback(BackendConfig):
    """What Ray Train is told of torch.distributed where all workers are on one machine.

    Attributes:
        backend: What sums gradients.
        folder: One that only this user may enter, for as long as the group lives.
    """

    backend: str
    folder: Path

    @property
    def backend_cls(self) -> type[Backend]:
        return _LoopbackBackend

    @property
    def train_func_context(self) -> Any:
        from ray.train.torch.config import TorchConfigContextManager  # noqa: PLC0415  (imports torch)

        return TorchConfigContextManager


class _LoopbackBackend(Backend):
    """Ray's own way of setting torch.distributed up, but for the place where workers meet: a file.

    Ray has them meet at a `TCPStore`, which takes no address to listen on: it listens on all.
    """

    share_cuda_visible_devices = True  # as Ray's own has it: NCCL reaches the others' GPUs

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        from ray.train.torch import TorchConfig  # noqa: PLC0415  (imports torch)
        from ray.train.torch import config as rays  # noqa: PLC0415

        worker_group.execute(keep_to_loopback)
        worker_group.execute(rays._set_torch_distributed_env_vars)
        meeting = backend_config.folder / f"meeting-{secrets.token_hex(8)}"  # another for every attempt
        begun = [
            worker_group.execute_single_async(
                rank,
                rays._setup_torch_process_group,
                backend=backend_config.backend,
                world_rank=rank,
                world_size=len(worker_group),
                init_method=meeting.as_uri(),
                timeout_s=TorchConfig().timeout_s,
            )
            for rank in range(len(worker_group))
        ]
        ray.get(begun)

    def on_shutdown(self, worker_group: Any, backend_config: BackendConfig) -> None:
        from ray.train.torch import TorchConfig  # noqa: PLC0415  (imports torch)

        TorchConfig().backend_cls().on_shutdown(worker_group, backend_config)


def keep_to_loopback() -> None:
    """Have this worker's gloo and NCCL listen on the loopback, unless the user has named another network.

    By itself gloo takes the address that the machine's name has, and NCCL the first network that is no loopback.
    """
    here = [name for _, name in socket.if_nameindex() if name in LOOPBACKS]
    for variable in _NETWORKS if here else ():
        os.environ.setdefault(variable, here[0])


class _Journal(ray.train.UserCallback):
    """Runs in Ray Train's controller, beside the fitting task: hands it each report as a line of a file.

    A file, because Ray's own queue between processes is a process more, a second of start and a hop per report.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        with self._path.open("a", encoding="utf-8") as journal:
            journal.write(json.dumps({"metrics": combine(metrics), "by_rank": metrics}) + "\n")


def _read_report(line: str) -> Report:
    event = json.loads(line)
    return Report(event["metrics"], tuple(event["by_rank"]))


@dataclass(frozen=True)
class _Member:
    """A worker's view of its group, inside Ray Train."""

    rank: int
    world_size: int
    device: str

    def report(self, metrics: Mapping[str, float]) -> None:
        train.report(check_metrics(metrics))


def _worker(settings: dict[str, _Order[Config]]) -> None:
    """What Ray Train calls on every worker."""
    from ray.train.torch import get_device  # noqa: PLC0415  (imports torch)

    order = settings["order"]
    context = train.get_context()
    order.storage.mkdir(parents=True, exist_ok=True)
    (order.storage / f"{_NODE_OF}{context.get_world_rank()}").write_text(this_node(), encoding="utf-8")
    order.train_loop(order.config, _Member(context.get_world_rank(), context.get_world_size(), str(get_device())))
