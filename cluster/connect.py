"""Connect to Ray: start a small cluster on this machine, or join the one we were pointed at.

Which of the two is decided by where the program runs, never by what happens to run beside it:

- `RAY_ADDRESS` set (by the user, or by `ray job submit` inside a job), or an address in the options: join that cluster.
- otherwise: start one on this machine, and end it afterwards. A cluster started here by somebody else is left alone.

One started here listens on the loopback alone and has a token of its own (docs/security.md); there is no option to let
it listen elsewhere. One that is joined at another address must have been told whether it asks for a token.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import signal
import socket
import stat
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import ray
import ray._private.utils as ray_utils
from ray._common.utils import get_default_system_temp_dir
from ray._private import ray_constants

from cluster.gpus import local_gpus
from cluster.leftovers import end_writers
from cluster.shapes import Machine

ADDRESS = "RAY_ADDRESS"
STATE_API = "RAY_API_SERVER_ADDRESS"
_AUTH_MODE, _AUTH_TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"
_TIMED_OUT = "timed out during startup"
"""How Ray says that the processes it has started did not answer in time: by an Exception without a class of its own."""
_LOOPBACK, _LOOPBACKS = "127.0.0.1", ("127.0.0.1", "localhost", "::1", "[::1]")
# Ray replaces a loopback address by the machine's own, also where it is asked for one, and then listens everywhere. On
# laptops whose firewall asks at every open port it does not, and this says that ours is one (0: no cluster of several).
_SEVERAL_MACHINES = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
# While it starts, Ray's core takes SIGTERM for itself, prints a trace, and ends the process without cleaning up.
_LEAVE_SIGNALS = "RAY_DISABLE_FAILURE_SIGNAL_HANDLER"
_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
_OVERRIDE = "RAY_OVERRIDE_JOB_RUNTIME_ENV"

_TUNED = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # default 2: reports and ends would lag by 2 to 5 seconds
    "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": "1800",  # default none: one rank that reports less often would hang the others
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths keep their meaning in workers
}
_TUNED_LOCAL = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # nobody preempts a laptop; on a real cluster the watcher is of use
}

_TOLD = b"stopping: Ray ends as soon as it has started; once more stops at once\n"

# Ray's own workers listen on 10002-19999: a dashboard there is refused.
_FIRST_FREE_PORT = 20000


@dataclass(frozen=True)
class ConnectOptions:
    """What to connect to, and what workers are given.

    Attributes:
        cpus: Logical CPUs of a cluster started here, at least 1; None takes those this process may use.
        gpus: GPUs of a cluster started here, at least 0; None takes those this process may use.
        address: The cluster to join as `host:port`, or "auto"; None takes `RAY_ADDRESS`, and without it starts one.
        packages: Folders of the import packages that workers need: absolute, existing, not within one another.
        threads: CPU threads each worker's arithmetic may use, at least 1. One by default: two processes with two
            threads each on two cores run at 40 % of the speed of two with one each.
        worker_env: Further environment variables of every worker.
        object_store_bytes: Shared memory of a cluster started here; what does not fit spills to disk.
        groups: Whether Ray Train's worker groups will run. Ray Train cleans up after a killed trial through the State
            API, and with that come a dozen processes of the dashboard's.
    """

    cpus: int | None = None
    gpus: int | None = None
    address: str | None = None
    packages: tuple[Path, ...] = ()
    threads: int = 1
    worker_env: Mapping[str, str] = field(default_factory=dict)
    object_store_bytes: int = 256 * 2**20
    groups: bool = True

    def __post_init__(self) -> None:
        if self.cpus is not None and self.cpus < 1:
            raise ValueError(f"cpus must be at least 1, got {self.cpus}")
        if self.gpus is not None and self.gpus < 0:
            raise ValueError(f"gpus must be at least 0, got {self.gpus}")
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")
        if self.object_store_bytes < 80 * 2**20:
            raise ValueError(f"object_store_bytes must be at least 80 MiB (Ray's limit), got {self.object_store_bytes}")
        for package in self.packages:
            if not package.is_absolute() or not package.is_dir():
                raise ValueError(f"packages must be absolute folders that exist, got {str(package)!r}")


@dataclass(frozen=True)
class ClusterInfo:
    """The cluster we are connected to.

    Attributes:
        address: Its own address, `host:port`.
        state_api: Its State API (the dashboard's server), `http://host:port`, or None where it runs none.
        started: True if this connection started it and will end it.
        in_job: True inside `ray job submit`.
        nodes: Machines alive at the time of connecting.
        cpus: Their logical CPUs.
        gpus: Their GPUs.
    """

    address: str
    state_api: str | None
    started: bool
    in_job: bool
    nodes: int
    cpus: float
    gpus: float

    def __str__(self) -> str:
        where = "Ray on this machine" if self.started else f"Ray at {self.address}"
        machines = "" if self.started else f", {self.nodes} machine{'' if self.nodes == 1 else 's'}"
        return f"{where}{machines}, {self.cpus:g} CPUs, {self.gpus:g} GPUs"


def available_cpus() -> int:
    """Give the number of CPUs this process may use: on shared machines and in containers fewer than are built in."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def this_machine() -> Machine:
    """What a cluster that is started here has."""
    return Machine(cpus=available_cpus(), gpus=local_gpus())


def joins() -> bool:
    """Tell whether `connect` would join a cluster that is there, as far as the environment decides."""
    return ray.is_initialized() or ADDRESS in os.environ


def in_job() -> bool:
    """Tell whether this process was started by `ray job submit`."""
    return _JOB_CONFIG in os.environ


@contextmanager
def connect(options: ConnectOptions) -> Iterator[ClusterInfo]:
    """Be connected to Ray within the block; afterwards end what was started here, and nothing else.

    A process that is already connected stays as it is: the block then adds nothing and ends nothing. What answered
    SIGINT and SIGTERM before answers them in the block.

    Raises:
        ValueError: The address is one of a job server or of the Ray Client, which cannot be joined; or it is no
            loopback address, and `RAY_AUTH_MODE` does not say whether the cluster asks for a token.
        ConnectionError: No cluster answers at the address, or none was up in time that was to be started here.
        KeyboardInterrupt: SIGINT or SIGTERM came while Ray started; none of its processes is left then.
    """
    if ray.is_initialized():
        yield _info(state_api=os.environ.get(STATE_API), started=False)
        return
    address = options.address or os.environ.get(ADDRESS)
    if address is None:
        state_api = f"http://{_LOOPBACK}:{free_port()}" if options.groups else None
        changes = {_SEVERAL_MACHINES: "0"}
    else:
        _check_joinable(address)
        state_api = _discover_state_api(address)
        changes = {_OVERRIDE: "1"} if in_job() else {}
    # Ray reads the State API's address from the environment before any argument: a stranger's would win otherwise.
    with _environment({STATE_API: state_api, **changes}):
        if address is None:
            with _ended_with_all(folder := _private_folder()):
                with _held_signals():
                    _start(options, state_api, folder)
                yield _info(state_api=state_api, started=True)
        else:
            try:
                with _held_signals():
                    _join(options, address)
                yield _info(state_api=state_api, started=False)
            finally:
                ray.shutdown()


def worker_environment(options: ConnectOptions, *, state_api: str | None, local: bool) -> dict[str, str]:
    """Give the environment variables of every worker.

    Ray Train cleans up after a killed trial through the State API, which it looks for in `RAY_API_SERVER_ADDRESS`. With
    another cluster on the machine it finds two, gives up and leaks the trial's CPUs: so it is always told ours.
    """
    environment = {**_TUNED, "OMP_NUM_THREADS": str(options.threads)}
    if local:
        environment |= _TUNED_LOCAL
        parents = dict.fromkeys(str(package.parent) for package in options.packages)
        search = [*parents, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        if search:
            environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(search))
    environment |= options.worker_env
    if state_api is not None:
        environment[STATE_API] = state_api
    return environment


@contextmanager
def _ended_with_all(folder: Path) -> Iterator[None]:
    """End Ray after the block, and what is left of a Ray that this process has started in the folder meanwhile."""
    own = f"session_*_{os.getpid()}"
    before = set(folder.glob(own))
    try:
        yield
    finally:
        try:
            ray.shutdown()
        finally:
            sessions = [session.resolve() for session in set(folder.glob(own)) - before]
            end_writers(sessions)


@contextmanager
def _held_signals() -> Iterator[None]:
    """Within the block, which starts Ray or joins it, the first SIGINT or SIGTERM waits for the block's end.

    A Ray that is interrupted while it starts no longer knows what it has started. A second signal interrupts at once.
    Signals reach the main thread alone: in others nothing is held. What was ignored is still ignored.

    Raises:
        KeyboardInterrupt: There was a signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def hold(number: int, frame: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        os.write(2, _TOLD)  # not by print, in the middle of which we may be

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    held = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}
    taken, ray_utils.set_sigterm_handler = ray_utils.set_sigterm_handler, _leave_it  # it would end us without a word
    for number in held:
        signal.signal(number, hold)
    try:
        with _environment({_LEAVE_SIGNALS: "1"}):
            yield
    except Exception as error:
        if received:
            raise KeyboardInterrupt from error  # Ctrl-C reaches Ray's processes, too
        raise
    finally:
        ray_utils.set_sigterm_handler = taken
        for number, old in held.items():
            signal.signal(number, old)
    if received:
        raise KeyboardInterrupt


def _leave_it(handler: object) -> None:
    """In place of a function of Ray's that answers SIGTERM."""


def _start(options: ConnectOptions, state_api: str | None, folder: Path) -> None:
    if _AUTH_MODE not in os.environ:
        # Left to itself, Ray turns authentication on for a local cluster and writes a token into the user's home, which
        # changes what `ray start` and `ray job submit` do from then on. A token of this process alone does not.
        os.environ.setdefault(_AUTH_TOKEN, secrets.token_hex(32))
    # Read from the environment when ray is imported: that was before us. Whoever Ray starts reads it anew.
    several, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        _init_local(options, state_api, folder)
    except Exception as error:
        if _TIMED_OUT not in str(error):
            raise
        raise ConnectionError(
            "Ray must be up half a minute after it is started, it was not: this machine has too much to do, or what "
            f"lies in {folder} says why; the same command tries again"
        ) from error
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = several


def _init_local(options: ConnectOptions, state_api: str | None, folder: Path) -> None:
    ray.init(
        address="local",  # never the cluster somebody else started on this machine
        _node_ip_address=_LOOPBACK,
        _temp_dir=str(folder),
        num_cpus=options.cpus if options.cpus is not None else available_cpus(),
        num_gpus=options.gpus if options.gpus is not None else local_gpus(),
        object_store_memory=options.object_store_bytes,
        include_dashboard=state_api is not None,
        dashboard_host=_LOOPBACK,
        dashboard_port=free_port() if state_api is None else int(state_api.rpartition(":")[2]),  # never a user's 8265
        logging_level=logging.ERROR,
        log_to_driver=False,
        runtime_env={"env_vars": {_LEAVE_SIGNALS: "0"} | worker_environment(options, state_api=state_api, local=True)},
    )


def _private_folder() -> Path:
    """A folder for Ray's sockets, logs and copies of our packages that no other user of this machine can look into.

    Ray's own choice, `/tmp/ray`, is shared by all users, and Ray lets all of them write into whatever it is given: so
    what it is given lies in a folder that is ours alone.
    """
    shared = Path(get_default_system_temp_dir())  # type: ignore[no-untyped-call]
    folder = shared / f"ray-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o077:
        folder = Path(tempfile.mkdtemp(prefix="ray-", dir=shared))  # somebody else was there first
    return folder / "ray"


def _join(options: ConnectOptions, address: str) -> None:
    job = _job_runtime_env()
    environment = worker_environment(options, state_api=os.environ.get(STATE_API), local=False)
    given = job.get("env_vars")
    if isinstance(given, dict):  # what the submitter chose stays, except for the State API's address
        environment = {name: value for name, value in environment.items() if name == STATE_API or name not in given}
    runtime_env: dict[str, object] = {"env_vars": environment}
    if options.packages and "working_dir" not in job and "py_modules" not in job:
        runtime_env["py_modules"] = [str(package) for package in options.packages]
        runtime_env["excludes"] = ["__pycache__"]  # of a working directory Ray leaves it out by itself, of modules not
    ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, runtime_env=runtime_env)


def _job_runtime_env() -> dict[str, object]:
    """Give the runtime environment `ray job submit` was called with, empty outside a job."""
    config = json.loads(os.environ.get(_JOB_CONFIG, "{}"))
    runtime_env = config.get("runtime_env") if isinstance(config, dict) else None
    return runtime_env if isinstance(runtime_env, dict) else {}


def _check_joinable(address: str) -> None:
    if "://" in address:
        raise ValueError(
            f"{ADDRESS} must be a cluster's host:port, or auto, got {address!r}; "
            "to run on the cluster behind a job server use `ray job submit`, to run here unset it"
        )
    host = address.rpartition(":")[0]
    if address != "auto" and host not in _LOOPBACKS and _AUTH_MODE not in os.environ:
        raise ValueError(
            f"a Ray that other machines reach must ask for a token, got {address} and no {_AUTH_MODE}; set it to token "
            "with the cluster's token, or to disabled if all who reach it may run programs as you"
        )


def _discover_state_api(address: str) -> str | None:
    """Ask a running cluster for the address of its State API; None where it runs none.

    Raises:
        ConnectionError: No cluster answers at `address`.
    """
    from ray.dashboard.utils import ray_address_to_api_server_url  # noqa: PLC0415  (loads the dashboard's libraries)

    if address != "auto":
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, ValueError) as error:
            raise ConnectionError(f"a Ray cluster must answer at {address}: {error}") from error
    try:
        url = ray_address_to_api_server_url(address)
    except (RuntimeError, ValueError):
        return None
    return str(url)


def _info(*, state_api: str | None, started: bool) -> ClusterInfo:
    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return ClusterInfo(
        address=ray.get_runtime_context().gcs_address,
        state_api=state_api,
        started=started,
        in_job=in_job(),
        nodes=len(nodes),
        cpus=float(resources.get("CPU", 0.0)),
        gpus=float(resources.get("GPU", 0.0)),
    )


def free_port() -> int:
    """Give a port of loopback that nobody listens on, above those of Ray's own workers."""
    while True:
        with socket.socket() as listener:
            listener.bind((_LOOPBACK, 0))
            port = int(listener.getsockname()[1])
        if port >= _FIRST_FREE_PORT:
            return port


@contextmanager
def _environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables (None removes one) within the block."""
    before = {name: os.environ.get(name) for name in changes}
    _apply(changes)
    try:
        yield
    finally:
        _apply(before)


def _apply(changes: Mapping[str, str | None]) -> None:
    for name, value in changes.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
