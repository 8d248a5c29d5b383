"""The questions as Ray jobs: `ray start --head`, then `ray job submit --working-dir . -- python sweeps/...`."""

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
from typing import TYPE_CHECKING

import pytest

from cluster.connect import free_port
from sweeps.store import Store

if TYPE_CHECKING:
    from conftest import Commands

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True)
class Head:
    """A head node of Ray that takes jobs, and drivers beside it."""

    address: str
    job_server: str
    environment: dict[str, str]
    process: subprocess.Popen[bytes]

    def submit(self, *entrypoint: str) -> subprocess.CompletedProcess[str]:
        """Submit the checkout as a job, and wait for its end."""
        return subprocess.run(
            [BIN / "ray", "job", "submit", "--working-dir", ROOT, "--", *entrypoint],
            env=self.environment | {"RAY_ADDRESS": self.job_server},
            capture_output=True, text=True, timeout=800, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """Start a head as a user would, on ports of its own, and end it by its process: never by `ray stop`."""
    ports = [free_port() for _ in range(4)]
    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")  # short: unix sockets lie in it
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SWEEPS_"))}
    environment |= {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",  # the entrypoint's `python` is found here
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    command: list[str | Path] = [
        BIN / "ray", "start", "--head", "--block", "--num-cpus=2", f"--port={ports[0]}", f"--dashboard-port={ports[1]}",
        f"--dashboard-agent-listen-port={ports[2]}", f"--ray-client-server-port={ports[3]}", f"--temp-dir={folder}",
        "--dashboard-host=127.0.0.1", "--node-ip-address=127.0.0.1",
    ]  # fmt: skip
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    job_server = f"http://127.0.0.1:{ports[1]}"
    try:
        _wait_until_answering(f"{job_server}/api/version", process)
        yield Head(f"127.0.0.1:{ports[0]}", job_server, environment, process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=90)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.long
def test_the_bandit_as_a_job_ends_in_its_table(head: Head, tmp_path: Path) -> None:
    store = tmp_path / "store"
    done = head.submit("python", "sweeps/bandit_ablation.py", "--preset", "smoke", "--store", str(store))
    assert done.returncode == 0, done.stdout + done.stderr
    _check_log(done.stdout, store, "Ablation on bandit")
    rows = Store(store).rows("bandit-smoke-generated-standard")
    assert [row["status"] for row in rows].count("finished") == 14


def test_a_small_job_ends_in_its_table(head: Head, tmp_path: Path) -> None:
    store = tmp_path / "store"
    done = head.submit(
        "python", "sweeps/bandit_ablation.py", "--preset", "smoke", "--store", str(store), "--methods", "bc,sarsa",
        "--trials", "0", "--episodes", "64", "--set", "train.steps=20",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    _check_log(done.stdout, store, "Ablation on bandit")


def test_a_job_with_bad_input_fails_in_one_line(head: Head, tmp_path: Path) -> None:
    done = head.submit(
        "python", "sweeps/bandit_ablation.py", "--preset", "smoke", "--store", str(tmp_path / "store"),
        "--methods", "iqll",
    )  # fmt: skip
    assert done.returncode == 1
    assert "error: 'iqll' is no method of a bandit sweep; known: " in done.stdout + done.stderr
    assert "sweeps/experiment.py" not in done.stdout + done.stderr


def test_a_signal_to_a_driver_beside_the_head_ends_the_sweep_and_leaves_the_cluster(
    head: Head, commands: Commands, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    process = commands.start(
        ROOT / "sweeps" / "bandit_ablation.py", "--preset", "smoke", "--methods", "bc", "--trials", "0",
        "--set", "behaviour.steps=20000", "--store", str(store), "--no-mlflow", RAY_ADDRESS=head.address,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 300
        while not any(store.glob("scratch/trajectory/*/*/checkpoints/step-*")):
            assert process.poll() is None, "".join(process.communicate())
            assert time.monotonic() < deadline, "it does not train"
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, out + err
    assert "Traceback" not in out + err
    time.sleep(3.5)  # so long after its end a Ray of our own would be ended by force
    assert head.process.poll() is None
    done = head.submit("python", "-c", "import ray; ray.init(); print('NODES', len(ray.nodes()))")
    assert "NODES 1" in done.stdout, done.stdout + done.stderr


@pytest.mark.long
def test_visual_dialogue_as_a_job_ends_in_its_table(head: Head, tmp_path: Path) -> None:
    store = tmp_path / "store"
    done = head.submit("python", "sweeps/visdial_ablation.py", "--preset", "smoke", "--store", str(store))
    assert done.returncode == 0, done.stdout + done.stderr
    _check_log(done.stdout, store, "Ablation on visdial")


@pytest.mark.long
@pytest.mark.parametrize(
    ("question", "heading"),
    [("wordle", "Ablation on wordle"), ("reddit", "Ablation on reddit"), ("dialogue", "Ablation on dialogues")],
)
def test_every_other_question_as_a_job_ends_in_its_table(
    head: Head, tmp_path: Path, question: str, heading: str
) -> None:
    store = tmp_path / "store"
    options = ("--preset", "smoke", "--methods", "bc,sarsa", "--store", str(store))
    done = head.submit("python", f"sweeps/{question}_ablation.py", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    _check_log(done.stdout, store, heading)


def _check_log(log: str, store: Path, heading: str) -> None:
    """The job joined the cluster that ran it, wrote to the store and nowhere else, and printed its table."""
    assert f"store {store}" in log
    assert ", 1 machine, 2 CPUs, 0 GPUs, 2 jobs at a time" in log  # not a cluster of its own
    table = log[log.index(heading) :]
    for title in ("| SARSA", "| BC"):
        assert title in table
    assert f"report  {store}/reports/" in table
    assert "MLflow's view: " in table


def _wait_until_answering(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None, "ray start ended by itself"
        try:
            urllib.request.urlopen(url, timeout=5).close()  # noqa: S310  our own loopback
        except (urllib.error.URLError, OSError):
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.5)
        else:
            return
