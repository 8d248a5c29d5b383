"""What the crash matrix kills, as processes: MLflow's server, a Ray cluster of two nodes, and whoever bears a mark."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from cluster.connect import free_port

BIN = Path(sys.executable).parent
MARK = "SWEEPS_CRASH_MARK"


class Broken(AssertionError):  # noqa: N818  a promise is
    """A promise that did not hold."""


def demand(holds: bool, what: str) -> None:
    """Raise `Broken` unless it holds."""
    if not holds:
        raise Broken(what)


# Processes


def marked(mark: str) -> set[int]:
    """Processes that carry the mark in their environment, children of the marked one included."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{MARK}={mark}\0".encode() in (folder / "environ").read_bytes():
                found.add(int(folder.name))
    return found


def users_of(folder: Path) -> set[int]:
    """Processes that have a file below the folder open.

    What Ray starts for a sweep logs into the sweep's Ray folder. A worker that renames itself may write its new name
    over its environment, and with it over the mark.
    """
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended while we looked
            if any(os.readlink(link).startswith(f"{folder}/") for link in (process / "fd").iterdir()):
                found.add(int(process.name))
    return found


def name_of(process: int) -> str:
    """What a process calls itself; empty if it is gone."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def cut(processes: set[int]) -> None:
    """End them as a power cut does."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """What the condition gives as soon as it gives something."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        demand(time.monotonic() < deadline, f"{what} within {seconds:.0f} s")
        time.sleep(0.02)
    return found


def answers(url: str) -> bool:
    """Whether a server on loopback does."""
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310  our own loopback
        return bool(answer.status == 200)
    return False


def environment(mark: str) -> dict[str, str]:
    """A user's, and the mark."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SWEEPS_", "MLFLOW_"))}
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return kept | {"OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled", "PATH": path, MARK: mark}


# What a sweep stands on


@dataclass
class Tracker:
    """MLflow's server on loopback, that can be killed and started again on what it had."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = ["mlflow", "server", "--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}",
                   "--artifacts-destination", str(self.folder / "artefacts"), "--host", "127.0.0.1",
                   "--port", str(self.port), "--workers", "1"]  # fmt: skip
        # Eight processes of its own for jobs that nobody here gives it take twenty processor seconds to start.
        env = environment("tracker") | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self.process = subprocess.Popen(
            command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        wait_for(lambda: answers(f"{self.uri}/health"), 90, "MLflow's server answered")

    def kill(self) -> None:
        """End it and all its workers."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@dataclass
class ObjectServer:
    """moto's object store in memory, which speaks S3, on loopback. Whoever uses it needs `KEYS` in the environment."""

    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    KEYS: ClassVar[Mapping[str, str]] = {
        "AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: answers(f"http://127.0.0.1:{self.port}/moto-api/"), 120, "moto's server answered")

    def place(self) -> str:
        """The address of a place in a new bucket."""
        bucket = f"sweeps-{secrets.token_hex(6)}"
        made = urllib.request.Request(f"http://127.0.0.1:{self.port}/{bucket}", method="PUT")
        urllib.request.urlopen(made, timeout=30).close()  # noqa: S310
        return f"s3://{bucket}/store?endpoint_override=127.0.0.1:{self.port}&scheme=http&region=us-east-1"

    def kill(self) -> None:
        """End it, and all that it held."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@dataclass
class Nodes:
    """A Ray cluster of several nodes on this machine, each of them `ray start --block` with ports of its own.

    Each has a folder of its own, too: nodes that share one remove each other's copy of a job's working directory.
    """

    mark: str
    folder: Path
    port: int = field(default_factory=free_port)
    dashboard: int = field(default_factory=free_port)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Of the head."""
        return f"127.0.0.1:{self.port}"

    @property
    def job_server(self) -> str:
        """Where jobs are submitted."""
        return f"http://127.0.0.1:{self.dashboard}"

    def start_head(self, cpus: int) -> None:
        """Start the head, and wait until it takes jobs."""
        self._begin("head", cpus, "--head", f"--port={self.port}", f"--dashboard-port={self.dashboard}",
                    "--dashboard-host=127.0.0.1", f"--ray-client-server-port={free_port()}")  # fmt: skip
        wait_for(lambda: answers(f"{self.job_server}/api/version"), 480, "the head's dashboard answered")

    def start_node(self, name: str, cpus: int, *, prefix: tuple[str, ...] = (), **environment: str) -> None:
        """Start another node, or one of that name again after it was killed.

        Args:
            name: What it is called here.
            cpus: Its logical CPUs.
            prefix: What its command is put behind, such as one that takes a folder out of its sight.
            environment: More of its environment.
        """
        self._begin(name, cpus, f"--address={self.address}", prefix=prefix, **environment)

    def _begin(self, name: str, cpus: int, *options: str, prefix: tuple[str, ...] = (), **more: str) -> None:
        self.running[name] = subprocess.Popen(
            [*prefix, BIN / "ray", "start", "--block", "--disable-usage-stats", "--object-store-memory=100000000",
             "--node-ip-address=127.0.0.1", f"--num-cpus={cpus}", f"--dashboard-agent-listen-port={free_port()}",
             f"--temp-dir={self.folder / name}", *options],
            env=environment(f"{self.mark}-{name}") | more, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip

    def alive(self) -> int:
        """How many nodes the head takes for alive."""
        url = f"{self.job_server}/api/v0/nodes?filter_keys=state&filter_predicates=%3D&filter_values=ALIVE"
        with contextlib.suppress(OSError, ValueError, KeyError), urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
            return len(json.load(answer)["data"]["result"]["result"])
        return 0

    def processes(self, name: str) -> set[int]:
        """A node's: raylet, agents and workers."""
        return marked(f"{self.mark}-{name}")

    def kill_node(self, name: str) -> None:
        """Cut its power."""
        cut(self.processes(name))
        self.running.pop(name).wait()

    def stop(self) -> None:
        """End all of it."""
        for name in list(self.running):
            self.kill_node(name)
