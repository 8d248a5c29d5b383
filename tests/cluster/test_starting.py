"""SIGINT and SIGTERM while Ray starts: none of its processes stays, and nobody else's is touched."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from services import name_of, users_of

from cluster import leftovers

pytestmark = pytest.mark.timeout(300)

DRIVER = """
import signal, sys, time
from sweeps.guard import guarded
from sweeps.driving import connected

signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that run in the background inherit that it is ignored

def run():
    with connected(groups=True) as info:  # with all the processes that there can be
        print("up", flush=True)
        time.sleep(float(sys.argv[1]))
    return 0

sys.exit(guarded(run))
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # short: unix sockets lie in it
    yield made
    for process in users_of(made):
        os.kill(process, signal.SIGKILL)
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def drive(folder: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a program that connects; in a group of its own, as a terminal's foreground is."""
    begun: list[subprocess.Popen[str]] = []

    def start(*, seconds: float = 0) -> subprocess.Popen[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(seconds)], env=environment | {"RAY_TMPDIR": str(folder)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        begun.append(process)
        return process

    yield start
    for process in begun:
        if process.poll() is None:
            process.kill()
            process.communicate()


def wait_for(process: subprocess.Popen[str], condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "".join(process.communicate())
        assert time.monotonic() < deadline
        time.sleep(0.01)


def has_begun(folder: Path, name: str) -> bool:
    """True once a process of that name has a file of Ray's open."""
    return any(name in name_of(process) for process in users_of(folder))


def tell(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Ctrl-C reaches all processes of the terminal's group; whoever ends a job tells its first process."""
    if number is signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)


@pytest.mark.parametrize(
    ("begun", "number"),
    [
        ("gcs_server", signal.SIGTERM),
        ("raylet", signal.SIGINT),
        ("DashboardAgent", signal.SIGTERM),
        pytest.param("gcs_server", signal.SIGINT, marks=pytest.mark.long),
        pytest.param("raylet", signal.SIGTERM, marks=pytest.mark.long),
        pytest.param("DashboardAgent", signal.SIGINT, marks=pytest.mark.long),
    ],
)
def test_a_signal_while_ray_starts_leaves_nothing_and_is_answered(
    drive: Callable[..., subprocess.Popen[str]], folder: Path, begun: str, number: signal.Signals
) -> None:
    process = drive()
    wait_for(process, lambda: has_begun(folder, begun))
    tell(process, number)
    out, err = process.communicate(timeout=120)
    left = [name_of(each) for each in users_of(folder)]
    assert (process.returncode, left) == (130, []), out + err
    if "up" not in out:  # on a quick machine it may have been just too late
        assert [line.partition(":")[0] for line in err.splitlines()] == ["stopping", "stopped"], err


def test_a_second_signal_does_not_wait_for_ray(drive: Callable[..., subprocess.Popen[str]], folder: Path) -> None:
    process = drive()
    wait_for(process, lambda: has_begun(folder, "raylet"))
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
    out, err = process.communicate(timeout=120)
    left = [name_of(each) for each in users_of(folder)]
    assert (process.returncode, left) == (130, []), out + err
    assert err.splitlines()[-1] == "stopped"


def test_a_signal_between_and_after_is_answered_as_before(
    drive: Callable[..., subprocess.Popen[str]], folder: Path
) -> None:
    process = drive(seconds=60)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "stopped\n")
    assert users_of(folder) == set()


# Who is ended, and who is not


@pytest.fixture
def session(tmp_path: Path) -> Path:
    (tmp_path / "session" / "logs").mkdir(parents=True)
    return tmp_path / "session"


@pytest.fixture
def holders() -> Iterator[Callable[[Path, str], subprocess.Popen[bytes]]]:
    """Starts processes that have a file open in some mode."""
    begun = []

    def start(file: Path, mode: str) -> subprocess.Popen[bytes]:
        file.touch()
        with file.open(mode) as opened:
            begun.append(subprocess.Popen(["/bin/sleep", "60"], stdout=opened))
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.wait()


def test_who_writes_a_log_is_ended_and_nobody_else(
    holders: Callable[[Path, str], subprocess.Popen[bytes]], session: Path, tmp_path: Path
) -> None:
    agent = holders(session / "logs" / "agent.err", "a")
    tail = holders(session / "logs" / "agent.err", "r")
    editor = holders(session / "logs" / ".agent.err.swp", "r+")
    elsewhere = holders(tmp_path / "session.log", "a")
    with (session / "logs" / "driver.log").open("a"):  # as this process itself has one
        assert leftovers.writers_of([session]) == {agent.pid}
        assert leftovers.writers_of([tmp_path / "another"]) == set()
        assert leftovers.writers_of([]) == set()
        leftovers.end_writers([session], grace_seconds=0, gone_seconds=10)
    assert agent.wait(10) == -signal.SIGKILL
    assert [each.poll() for each in (tail, editor, elsewhere)] == [None, None, None]


def test_a_signal_in_the_grace_ends_them_at_once(
    holders: Callable[[Path, str], subprocess.Popen[bytes]], session: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = holders(session / "logs" / "agent.err", "a")

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(leftovers.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        leftovers.end_writers([session])
    monkeypatch.undo()
    assert agent.wait(10) == -signal.SIGKILL
