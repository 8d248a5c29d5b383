"""What the crash matrix kills, as processes: MLflow's server, a Ray cluster of two nodes, and whoever bears a mark."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
        self.process = subprocess.Popen(
            command, env=environment("tracker"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        wait_for(lambda: answers(f"{self.uri}/health"), 90, "MLflow's server answered")

    def kill(self) -> None:
        """End it and all its workers."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@dataclass
class Nodes:
    """A Ray cluster of a head with one CPU and a second node with two, on this machine."""

    mark: str
    folder: Path
    port: int = field(default_factory=free_port)
    heads: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Of the head."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start both."""
        dashboard = free_port()
        self._begin("head", "--head", "--num-cpus=1", f"--port={self.port}", f"--dashboard-port={dashboard}",
                    f"--dashboard-agent-listen-port={free_port()}", f"--ray-client-server-port={free_port()}",
                    f"--temp-dir={self.folder}")  # fmt: skip
        version = f"http://127.0.0.1:{dashboard}/api/version"
        wait_for(lambda: answers(version), 90, "the head's dashboard answered")
        self.start_second()

    def start_second(self) -> None:
        """Start the second node; also again after it was killed."""
        self._begin("second", f"--address={self.address}", "--num-cpus=2",
                    f"--dashboard-agent-listen-port={free_port()}")  # fmt: skip

    def _begin(self, which: str, *options: str) -> None:
        self.heads.append(
            subprocess.Popen(
                ["ray", "start", "--block", "--disable-usage-stats", "--object-store-memory=100000000",
                 "--node-ip-address=127.0.0.1", *options],
                env=environment(f"{self.mark}-{which}"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )  # fmt: skip

    def kill_second(self) -> None:
        """Cut its power: raylet, agents and workers."""
        cut(marked(f"{self.mark}-second"))

    def stop(self) -> None:
        """End all of it."""
        for which in ("second", "head"):
            cut(marked(f"{self.mark}-{which}"))
        for process in self.heads:
            process.wait()
