"""What a Ray that we start listens on, and whom it listens to; measured from outside, in the kernel's own tables."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not Path("/proc/net/tcp").is_file(), reason="sockets are read from /proc, which Linux has"),
]

PROGRAM = """
import json, os, pathlib, sys
sys.path.insert(0, {root!r})
from cluster.call import call
from cluster.connect import ConnectOptions, connect

def process(item, tell):
    return os.getpid()

packages = tuple(pathlib.Path({root!r}) / name for name in ("ilql", "cluster", "analysis", "sweeps"))
with connect(ConnectOptions(cpus=2, gpus=0, packages=packages)) as info:
    call(process, None, print)  # a worker is there
    import ray
    print(json.dumps([info.address, info.state_api, os.environ.get("RAY_AUTH_TOKEN"),
                      ray._private.worker._global_node.get_session_dir_path()]), flush=True)
    sys.stdin.read()
"""

GROUP = """
import pathlib, sys
sys.path.insert(0, {root!r})
from cluster.connect import ConnectOptions, connect
from cluster.workers import run_group

def loop(folder, group):
    import time
    import torch
    torch.distributed.all_reduce(torch.ones(1))
    (pathlib.Path(folder) / f"there-{{group.rank}}").touch()
    while not (pathlib.Path(folder) / "measured").exists():
        time.sleep(0.1)

packages = tuple(pathlib.Path({root!r}) / name for name in ("ilql", "cluster", "analysis", "sweeps"))
with connect(ConnectOptions(cpus=2, gpus=0, packages=packages)):
    ended = run_group(loop, sys.argv[1], workers=2, storage=pathlib.Path(sys.argv[1]), name="group")
    print(ended.fault)
"""

JOIN = """
import sys, ray
ray.init(address=sys.argv[1], logging_level="error")
print("JOINED", len(ray.nodes()))
"""


@dataclass(frozen=True)
class Here:
    """A Ray that a program of ours started, without anything of Ray's in its environment."""

    address: str
    state_api: str
    token: str
    folder: Path
    process: int


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return kept | {"RAY_USAGE_STATS_ENABLED": "0"} | more


@pytest.fixture(scope="module")
def here() -> Iterator[Here]:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(root=str(ROOT))], env=environment(),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        address, state_api, token, folder = json.loads(process.stdout.readline())
        yield Here(address, state_api, token, Path(folder), process.pid)
        process.communicate("", timeout=60)


def listening(ancestor: int) -> set[tuple[str, int, str]]:
    """Address, port and program of every TCP socket on which a process or a descendant of it listens."""
    sockets = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":  # LISTEN
                address, port = fields[1].split(":")
                sockets[f"socket:[{fields[9]}]"] = (_host(address), int(port, 16))
    found = set()
    for process in family(ancestor):
        folder = Path(f"/proc/{process}")
        try:
            program = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            links = [os.readlink(link) for link in (folder / "fd").iterdir()]
        except OSError:  # it ended while we looked
            continue
        found |= {(*sockets[link], program) for link in links if link in sockets}
    return found


def family(ancestor: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(file.read_bytes().rpartition(b")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(file.parent.name))
    found = [ancestor]
    for process in found:
        found += children.get(process, [])
    return found


def _host(digits: str) -> str:
    """The address behind the kernel's hexadecimal digits: words of 32 bits, each in the machine's own order."""
    words = [int(digits[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(digits), 8)]
    address = ipaddress.ip_address(b"".join(words))
    return str(getattr(address, "ipv4_mapped", None) or address)


def beyond_loopback(found: set[tuple[str, int, str]]) -> list[tuple[str, int, str]]:
    return sorted(each for each in found if not ipaddress.ip_address(each[0]).is_loopback)


def test_nothing_that_we_start_listens_beyond_the_loopback(here: Here) -> None:
    parts = {"gcs_server", "raylet/raylet", "dashboard.py", "ray::DashboardAgent", "ray::RuntimeEnvAgent"}
    deadline = time.monotonic() + 60  # the agents come last
    while missing := {part for part in parts if not any(part in program for *_, program in listening(here.process))}:
        assert time.monotonic() < deadline, f"{missing} were not seen to listen: the test has lost its object"
        time.sleep(0.5)
    assert beyond_loopback(listening(here.process)) == []


def test_sockets_and_logs_lie_where_no_other_user_looks(here: Here) -> None:
    private = here.folder.parents[1]
    assert (private.name, private.stat().st_uid) == (f"ray-{os.getuid()}", os.getuid())
    assert stat.S_IMODE(private.stat().st_mode) == 0o700


def status_of(url: str, token: str | None = None, body: bytes | None = None) -> int:
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})  # noqa: S310
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        return int(urllib.request.urlopen(request, timeout=30).status)  # noqa: S310  (our own loopback)
    except urllib.error.HTTPError as error:
        return error.code


def test_the_job_server_runs_nothing_for_who_has_no_token(here: Here, tmp_path: Path) -> None:
    jobs = f"{here.state_api}/api/jobs/"
    order = json.dumps({"entrypoint": f"touch {tmp_path / 'ran'}"}).encode()
    assert status_of(jobs, here.token) == 200
    assert (status_of(jobs), status_of(jobs, "wrong"), status_of(jobs, None, order)) == (401, 403, 401)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("token", "joined"),
    [("the right one", True), pytest.param("a wrong one", False, marks=pytest.mark.long), (None, False)],
    ids=str,
)
def test_the_cluster_takes_no_driver_without_its_token(here: Here, token: str | None, joined: bool) -> None:
    given = {"RAY_AUTH_MODE": "disabled"} if token is None else {"RAY_AUTH_MODE": "token"}
    if token is not None:
        given["RAY_AUTH_TOKEN"] = here.token if joined else "0" * 64
    done = subprocess.run(
        [sys.executable, "-c", JOIN, here.address], env=environment(**given, RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0"),
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert ("JOINED 1" in done.stdout, done.returncode == 0) == (joined, joined), done.stdout + done.stderr
    if not joined:
        assert "uthenticat" in done.stdout + done.stderr, done.stderr


def test_the_token_stands_in_no_file_of_ray_s(here: Here) -> None:
    files = [path for path in here.folder.rglob("*") if path.is_file()]
    assert files
    assert [str(path) for path in files if here.token.encode() in path.read_bytes()] == []


def named_as_in_a_network() -> list[str]:
    """What to put before a command so that the machine's name leads to an address that others reach.

    On many laptops and servers it does; on others it leads to the loopback, and gloo would listen there by itself.
    Nothing where we may not (one must be root) or cannot (there must be a network): the machine is then as it is.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nothing_is_sent:
        try:
            nothing_is_sent.connect(("192.0.2.1", 9))
        except OSError:  # no network
            return []
        address = str(nothing_is_sent.getsockname()[0])
    before = ["unshare", "--uts", "sh", "-c", 'echo "$0" > /proc/sys/kernel/hostname && exec "$@"', address]
    try:
        may = subprocess.run([*before, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return []
    return before if may else []


def test_a_group_of_workers_listens_on_the_loopback_alone(tmp_path: Path) -> None:
    before = named_as_in_a_network()
    with subprocess.Popen(
        [*before, sys.executable, "-c", GROUP.format(root=str(ROOT)), tmp_path], env=environment(),
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        while not all((tmp_path / f"there-{rank}").exists() for rank in (0, 1)):
            assert process.poll() is None
            time.sleep(0.1)
        found = listening(process.pid)
        (tmp_path / "measured").touch()
        assert process.communicate(timeout=120)[0].strip() == "None"
    workers = [program for _, _, program in found if program == "ray::RayTrainWorker"]
    assert len(workers) >= 4, "Ray and gloo of both were not seen to listen: the test has lost its object"
    assert beyond_loopback(found) == []
