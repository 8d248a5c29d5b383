"""Joining a cluster that somebody else started: from inside a job, and from a program beside it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.connect import free_port

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

pytestmark = [pytest.mark.timeout(240), pytest.mark.long]

PROGRAM = """
import importlib, os, pathlib, cluster
from cluster.call import call
from cluster.connect import ConnectOptions, connect

def where(name, tell):
    return importlib.import_module(name).__file__, os.environ["RAY_API_SERVER_ADDRESS"], os.environ.get("GIVEN")

root = pathlib.Path(cluster.__file__).resolve().parents[1]
packages = tuple(root / name for name in ("ilql", "cluster", "analysis", "sweeps"))
with connect(ConnectOptions(packages=packages, worker_env={"GIVEN": "by the program"})) as info:
    path, state_api, given = call(where, "ilql.dialogue", print)
    print("FOUND", info.started, info.in_job, info.state_api == state_api, state_api, path, given, sep="|")
"""


@dataclass(frozen=True)
class Head:
    """A running head node."""

    address: str
    job_server: str
    environment: dict[str, str]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """Start a head node as a user would, and end it by its process, never by `ray stop`."""
    ports = [free_port() for _ in range(4)]
    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")  # short: unix sockets lie in it
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    command: list[str | Path] = [
        BIN / "ray", "start", "--head", "--block", "--num-cpus=2", f"--port={ports[0]}", f"--dashboard-port={ports[1]}",
        f"--dashboard-agent-listen-port={ports[2]}", f"--ray-client-server-port={ports[3]}", f"--temp-dir={folder}",
    ]  # fmt: skip
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    job_server = f"http://127.0.0.1:{ports[1]}"
    try:
        _wait_until_answering(f"{job_server}/api/version", process)
        yield Head(f"127.0.0.1:{ports[0]}", job_server, environment)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_job_works_in_its_copy_and_knows_its_own_cluster(head: Head) -> None:
    done = subprocess.run(
        [BIN / "ray", "job", "submit", "--working-dir", ROOT, "--runtime-env-json",
         '{"env_vars": {"GIVEN": "by the submitter", "RAY_API_SERVER_ADDRESS": "http://stranger:8265"}}',
         "--", "python", "-c", PROGRAM],
        env=head.environment | {"RAY_ADDRESS": head.job_server},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    started, in_job, told, state_api, path, given = _found(done.stdout)
    assert (started, in_job, told, given) == ("False", "True", "True", "by the submitter")
    assert state_api.rpartition(":")[2] == head.job_server.rpartition(":")[2]
    assert "working_dir_files" in path


def test_a_program_beside_the_cluster_takes_our_packages_along(head: Head, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=head.environment | {"RAY_ADDRESS": head.address, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    started, in_job, told, _, path, given = _found(done.stdout)
    assert (started, in_job, told, given) == ("False", "False", "True", "by the program")
    assert "py_modules_files" in path


def _found(output: str) -> list[str]:
    lines = [line for line in output.splitlines() if "FOUND|" in line]
    assert len(lines) == 1, output
    return lines[0].partition("FOUND|")[2].split("|")


def _wait_until_answering(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 90
    while True:
        assert process.poll() is None, "ray start ended by itself"
        try:
            urllib.request.urlopen(url, timeout=5).close()  # noqa: S310  (our own loopback)
        except (urllib.error.URLError, OSError):
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.5)
        else:
            return
