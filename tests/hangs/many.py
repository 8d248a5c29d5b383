"""Run sweeps of tiny trainings with early stop through Ray Train, the dashboard on and off in turn: does any hang?

    PYTHONPATH=tests/crash python tests/hangs/many.py --sweeps 50 --out build/hangs.jsonl

Each is the bandit's smoke preset with proposals that are compared at a rung, of which the worse half is stopped there,
every training in a worker group of two CPU workers. It counts as hung when its command takes longer than `--limit`
seconds, or leaves a process behind; and as of no use when it ends without a row that was stopped at the rung. Each is a
line of `--out` as soon as it ends; the same file goes on where it was. Ended from outside, it ends what it has started.
A machine of many cores runs several of them beside each other, each with a Ray of its own: `--at-once`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from services import cut, environment, marked, users_of

from cluster.connect import free_port
from sweeps.store import Store

ROOT = Path(__file__).resolve().parents[2]
COMMAND = ("--preset", "smoke", "--methods", "bc,ilql", "--trials", "2", "--workers", "2", "--no-mlflow")


def main(arguments: Sequence[str]) -> int:
    """Run what is missing of them; 0 if every one ended, and ended well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=50)
    parser.add_argument("--limit", type=float, default=1200.0, help="seconds after which one counts as hung")
    parser.add_argument("--at-once", type=int, default=1, help="how many run beside each other")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in asked.out.read_text().splitlines()] if asked.out.exists() else []
    missing = sorted(set(range(asked.sweeps)) - {result["sweep"] for result in done})
    home = Path(tempfile.mkdtemp(prefix="h", dir="/tmp"))  # short, for sockets
    with ThreadPoolExecutor(asked.at_once) as pool:
        running = [
            pool.submit(one_sweep, number, home, dashboard=number % 2 == 0, limit_seconds=asked.limit)
            for number in missing
        ]
        try:
            for ended in as_completed(running):
                result = ended.result()
                done.append(result)
                with asked.out.open("a", encoding="utf-8") as out:
                    out.write(json.dumps(result) + "\n")
                print(json.dumps(result), flush=True)
                if is_bad(result):
                    print(f"what it said is kept in {home / str(result['sweep'])}", file=sys.stderr)
        except BaseException:
            end(running, missing, home)
            raise
    if not any(home.iterdir()):
        home.rmdir()
    bad = [result for result in done if is_bad(result)]
    seconds = sorted(result["seconds"] for result in done)
    print(
        f"{len(done)} sweeps, {len(bad)} hung, failed or stopped nothing; {seconds[0]:.0f} to {seconds[-1]:.0f} s each"
    )
    return 1 if bad else 0


def is_bad(result: Mapping[str, Any]) -> bool:
    """Whether a sweep hung, failed, left a process, or stopped no proposal early, which is what it is there for."""
    return result["status"] != 0 or bool(result["left"]) or not result["rows"].get("stopped")


def end(running: Sequence[Future[dict[str, Any]]], numbers: Sequence[int], home: Path) -> None:
    """End the sweeps that are under way, their heads, and all they have started; what they said goes, too."""
    for each in running:
        each.cancel()
    while True:
        over = all(each.done() for each in running)  # asked first: what began meanwhile is ended below, too
        marks = [f"{os.getpid()}-{number}{whose}" for number in numbers for whose in ("", "-head")]
        cut(users_of(home).union(*map(marked, marks)) - {os.getpid()})  # we write down what they say
        if over:
            break
        time.sleep(0.2)
    shutil.rmtree(home, ignore_errors=True)


def one_sweep(number: int, home: Path, *, dashboard: bool, limit_seconds: float) -> dict[str, Any]:
    """How one ended: its exit status (None if it hung), seconds, rows by status, its last word, processes it left.

    The last word tells one that stood still from one that a busy machine did not let come to its end.
    """
    folder, mark = home / str(number), f"{os.getpid()}-{number}"
    ray = folder / "ray"
    ray.mkdir(parents=True)
    address = {} if dashboard else {"RAY_ADDRESS": _start_bare_head(folder, f"{mark}-head")}
    begin = time.monotonic()
    with (folder / "out").open("w") as out:
        process = subprocess.Popen(
            [sys.executable, ROOT / "sweeps" / "bandit_ablation.py", *COMMAND, "--store", folder / "store"],
            env=environment(mark) | address | {"RAY_TMPDIR": str(ray)}, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
        try:
            status: int | None = process.wait(timeout=limit_seconds)
        except subprocess.TimeoutExpired:
            status = None
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    seconds = time.monotonic() - begin
    deadline = time.monotonic() + 30
    while (left := marked(mark) | users_of(ray)) and time.monotonic() < deadline:
        time.sleep(0.2)
    cut(left)
    result = {
        "sweep": number,
        "dashboard": dashboard,
        "status": status,
        "seconds": round(seconds, 1),
        "rows": _rows(folder / "store"),
        "said": (folder / "out").read_text(encoding="utf-8").splitlines()[-1:],
        "left": len(left),
    }
    cut(marked(f"{mark}-head"))
    if not is_bad(result):
        shutil.rmtree(folder)
    return result


def _start_bare_head(folder: Path, mark: str) -> str:
    """The address of a Ray cluster of one node without a dashboard: one that a sweep starts itself always has one."""
    port = free_port()
    command = ["start", "--head", "--block", "--include-dashboard=false", "--disable-usage-stats", "--num-cpus=2",
               "--node-ip-address=127.0.0.1", f"--port={port}", "--object-store-memory=100000000",
               # Those that are fixed unless they are named, so that several heads can stand beside each other.
               f"--ray-client-server-port={free_port()}", f"--dashboard-agent-listen-port={free_port()}",
               f"--temp-dir={folder / 'head-ray'}"]  # fmt: skip
    with (folder / "head").open("w") as out:
        head = subprocess.Popen(
            [Path(sys.executable).with_name("ray"), *command],
            env=environment(mark), stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + 120
    while "Ray runtime started" not in (folder / "head").read_text() and time.monotonic() < deadline:
        if head.poll() is not None:
            break
        time.sleep(0.2)
    return f"127.0.0.1:{port}"


def _rows(store: Path) -> dict[str, int]:
    if not (store / "store.json").exists():
        return {}
    statuses = [str(row["status"]) for row in Store(store).rows()]
    return {status: statuses.count(status) for status in sorted(set(statuses))}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
