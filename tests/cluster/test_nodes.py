"""A sweep on several nodes: it spreads, a node joins, a node is killed, and the numbers are those of one machine.

The nodes are processes of their own on this machine, `ray start --block`, and the sweep is a submitted job.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from services import BIN, Nodes, ObjectServer, cut, environment, wait_for

from ilql.checkpoint import file_digest
from sweeps.journal_reader import JournalReader
from sweeps.store import Store, joined

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.timeout(1500)

BANDIT = (
    "sweeps/bandit_ablation.py", "--preset", "smoke", "--methods", "bc,sarsa,ilql", "--trials", "0", "--seeds", "3",
    "--set", "train.steps=3000", "--no-mlflow", "--name", "nodes",
)  # fmt: skip
SHORT = ("sweeps/bandit_ablation.py", "--preset", "smoke", "--methods", "bc", "--trials", "0", "--episodes", "64",
         "--no-mlflow")  # fmt: skip
ALONE = (*SHORT, "--set", "behaviour.steps=4000")
RESULTS = ("trial_id", "weights_id", "method", "seed", "status", "reason", "score", "score_sd", "tune_score")


@dataclass
class Watch:
    """Who works for a store: which node every lease was held by, and every record written by.

    Attributes:
        nodes: The cluster.
        store: The store's folder.
        names: Of the nodes, the head's among them.
        at: What each node held a lease on, as far as was seen.
        node_of: The node of every process that was seen.
    """

    nodes: Nodes
    store: Path
    names: tuple[str, ...]
    at: dict[str, set[str]] = field(default_factory=dict)
    node_of: dict[str, str] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)

    def look(self) -> None:
        """Look once."""
        for name in self.names:
            self.node_of |= {str(process): name for process in self.nodes.processes(name)}
        if (self.store / "store.json").is_file():
            for key, _, holder in Store(self.store).leases():
                if holder is not None and holder.number in self.node_of and not key.startswith("sweep-"):
                    self.at.setdefault(self.node_of[holder.number], set()).add(key)

    def keep_looking(self) -> None:
        """Look until told to end."""
        while not self.ended.wait(0.2):
            self.look()

    def wrote(self, kind: str) -> dict[str, set[str]]:
        """By node, the keys of the records of a kind that its processes wrote."""
        written: dict[str, set[str]] = {}
        for entry in chain.from_iterable(JournalReader(self.store / "journals").read()):
            if entry.kind == kind:
                node = self.node_of.get(entry.stamp.writer.rsplit("-", 2)[1], "elsewhere")
                written.setdefault(node, set()).add(entry.key)
        return written


def rows_of(store: Path, sweep: str = "nodes") -> dict[str, dict[str, Any]]:
    """What must not depend on where it was done, by trial."""
    return {row["trial_id"]: {name: row.get(name) for name in RESULTS} for row in Store(store).rows(sweep)}


def weights_of(store: Path) -> dict[str, str]:
    """The digest of every training's weights."""
    return {folder.parent.name: file_digest(folder) for folder in store.glob("stages/weights/*/*/weights.safetensors")}


def submit(nodes: Nodes, store: Path, *command: str) -> subprocess.Popen[str]:
    """Submit the checkout as a user does, and follow it."""
    return subprocess.Popen(
        [BIN / "ray", "job", "submit", "--working-dir", ROOT, "--", "python", *command, "--store", store],
        env=environment("submitter") | {"RAY_ADDRESS": nodes.job_server}, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip


def end(job: subprocess.Popen[str]) -> None:
    """End a submitter that may have ended."""
    job.kill()
    job.communicate()


@contextlib.contextmanager
def three_nodes(name: str) -> Iterator[Nodes]:
    """Three nodes of one CPU each."""
    cluster = Nodes(f"{name}-{os.getpid()}", Path(tempfile.mkdtemp(prefix="r", dir="/tmp")))  # short: for unix sockets
    try:
        cluster.start_head(1)
        cluster.start_node("second", 1)
        cluster.start_node("third", 1)
        wait_for(lambda: cluster.alive() == 3, 480, "three nodes were alive")
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(cluster.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """Three nodes for all tests that leave them as they were."""
    with three_nodes("nodes") as cluster:
        yield cluster


@dataclass(frozen=True)
class Outcome:
    """A sweep that came to its end on a cluster which changed under it."""

    store: Path
    out: str
    watch: Watch
    lost: frozenset[str]


@pytest.fixture(scope="module")
def outcome(nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The bandit on three nodes; a fourth joins, and the second is killed while it is at something."""
    store = tmp_path_factory.mktemp("nodes") / "store"
    watch = Watch(nodes, store, ("head", "second", "third", "fourth"))
    watching = threading.Thread(target=watch.keep_looking)
    watching.start()
    job = submit(nodes, store, *BANDIT)
    try:
        wait_while(job, lambda: watch.at, "a node was at work")  # early: it takes as long to join as a job or two
        nodes.start_node("fourth", 1)
        wait_while(job, lambda: {"head", "second", "third"} <= watch.at.keys(), "all three nodes were at work")
        wait_while(job, lambda: watch.at.get("fourth"), "the node that had joined was at work")
        held = wait_while(job, lambda: holds(store, watch, "second"), "the second node was at something")
        nodes.kill_node("second")
        out, _ = job.communicate(timeout=900)  # beside other work what is left took more than 400 s
    finally:
        end(job)
        watch.ended.set()
        watching.join()
    assert job.returncode == 0, out
    return Outcome(store, out, watch, frozenset(held))


def wait_while(job: subprocess.Popen[str], condition: Callable[[], Any], what: str) -> Any:
    """What the condition gives as soon as it gives something, while a job goes on."""

    def found() -> Any:
        assert job.poll() is None, f"the job ended before {what}: {job.communicate()[0]}"
        return condition()

    return wait_for(found, 300, what)


def holds(store: Path, watch: Watch, name: str) -> set[str]:
    """The leases that a node's processes hold just now."""
    return {
        key
        for key, _, holder in Store(store).leases()
        if holder is not None and watch.node_of.get(holder.number) == name
    }


@pytest.mark.timeout(600)
def test_a_submitted_job_on_three_nodes_ends_though_one_is_killed(tmp_path: Path) -> None:
    # The short form of what follows.
    store, command = tmp_path / "store", [word for word in BANDIT if word not in ("--seeds", "3")]
    with three_nodes("short") as cluster:
        watch = Watch(cluster, store, ("head", "second", "third"))
        watching = threading.Thread(target=watch.keep_looking)
        watching.start()
        job = submit(cluster, store, *command)
        try:
            wait_while(job, lambda: holds(store, watch, "second"), "the second node was at something")
            cluster.kill_node("second")
            out, _ = job.communicate(timeout=400)
        finally:
            end(job)
            watch.ended.set()
            watching.join()
    assert job.returncode == 0, out
    assert ", 3 machines, 3 CPUs, 0 GPUs, 3 jobs at a time" in out
    assert out.count("is gone; what it was at is done elsewhere") == 1
    assert len(watch.wrote("training")) >= 2
    rows = rows_of(store)
    assert len(rows) == 1 + 3 + 2 * 3  # BC, SARSA at three betas, ILQL at two taus of three
    assert {row["status"] for row in rows.values()} == {"finished"}


@pytest.mark.long
def test_the_sweep_spreads_over_all_nodes_and_counts_their_places(outcome: Outcome) -> None:
    assert ", 3 machines, 3 CPUs, 0 GPUs, 3 jobs at a time" in outcome.out
    assert {"head", "second", "third"} <= set(outcome.watch.at)
    assert {"head", "third"} <= set(outcome.watch.wrote("training"))


@pytest.mark.long
def test_a_node_that_joins_is_told_of_and_used(outcome: Outcome) -> None:
    assert outcome.out.count(" has joined\n") == 1
    assert outcome.watch.wrote("training")["fourth"]


@pytest.mark.long
def test_what_a_killed_node_was_at_is_done_elsewhere(outcome: Outcome) -> None:
    assert outcome.out.count("is gone; what it was at is done elsewhere") == 1
    finished = {
        spec["trajectory_id"]: node
        for node, keys in outcome.watch.wrote("training").items()
        for spec in trained(outcome.store, keys)
    }
    # What it had under way when it was killed has its row now, by another node; or it was at the evaluation of what
    # it had trained, and then that is by another node.
    others = {"head", "third", "fourth"}
    played = outcome.watch.wrote("evaluation")
    for key in outcome.lost:
        trials = trials_of(outcome.store, key)
        assert finished[key] in others or {node for node, keys in played.items() if keys & trials} & others
    assert not holds(outcome.store, outcome.watch, "second")


def trials_of(store: Path, trajectory: str) -> set[str]:
    """The trials on weights of a trajectory."""
    from sweeps.spec import TrialSpec

    members = Store(store).members("nodes")
    return {m["trial_id"] for m in members if TrialSpec.from_json(m["spec"]).trajectory_id == trajectory}


def trained(store: Path, weights: set[str]) -> Iterator[dict[str, str]]:
    """The trajectories of some weights."""
    from sweeps.spec import TrialSpec

    for member in Store(store).members("nodes"):
        if member["weights_id"] in weights:
            yield {"trajectory_id": TrialSpec.from_json(member["spec"]).trajectory_id}


@pytest.mark.long
def test_rows_and_weights_are_those_of_one_machine_to_the_bit(outcome: Outcome, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    done = subprocess.run(
        [sys.executable, ROOT / BANDIT[0], *BANDIT[1:], "--store", alone],
        env=environment("alone"), capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(rows_of(alone)) == 3 * (1 + 3 + 2 * 3)  # seeds × (BC, SARSA at three betas, ILQL at two taus of three)
    assert rows_of(outcome.store) == rows_of(alone)
    assert weights_of(outcome.store) == weights_of(alone)


def refused(nodes: Nodes, store: Path) -> str:
    """The one line a sweep is refused with."""
    job = submit(nodes, store, *SHORT)
    out, _ = job.communicate(timeout=400)
    assert job.returncode != 0, out
    (line,) = {
        line for line in out.splitlines() if line.startswith("error: ")
    }  # of a job that fails Ray shows it twice
    assert "Traceback" not in out
    return line


@pytest.mark.long
def test_a_node_with_another_version_is_refused_by_name(nodes: Nodes, tmp_path: Path) -> None:
    about = tmp_path / "other" / "transformers-4.0.1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 4.0.1\n")
    before = nodes.alive()
    nodes.start_node("strange", 1, PYTHONPATH=f"{about.parent}{os.pathsep}{ROOT}")
    try:
        wait_for(lambda: nodes.alive() == before + 1, 480, "the node joined")
        line = refused(nodes, tmp_path / "store")
    finally:
        nodes.kill_node("strange")
        wait_for(lambda: nodes.alive() == before, 90, "the node was known to be gone")
    assert "all machines must have the same versions, the node " in line
    assert "has transformers 4.0.1, the driver has 5." in line


def can_hide_folders() -> bool:
    """Whether a process here may have mounts of its own."""
    hide = ["unshare", "-m", "sh", "-c", "mount -t tmpfs none /mnt"]
    return (
        shutil.which("unshare") is not None and subprocess.run(hide, check=False, capture_output=True).returncode == 0
    )


@pytest.mark.long
@pytest.mark.skipif(not can_hide_folders(), reason="takes the right to mount: unshare -m")
def test_a_node_that_does_not_see_the_store_is_refused_by_name(nodes: Nodes, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    before = nodes.alive()
    hidden = ("unshare", "-m", "sh", "-c", f'mount -t tmpfs none "{shared}" && exec "$@"', "sh")
    nodes.start_node("blind", 1, prefix=hidden)
    try:
        wait_for(lambda: nodes.alive() == before + 1, 480, "the node joined")
        line = refused(nodes, shared / "store")
    finally:
        nodes.kill_node("blind")
        wait_for(lambda: nodes.alive() == before, 90, "the node was known to be gone")
    assert "the store must be a folder that all machines share under one path; the node " in line
    assert f"does not see the driver's {shared / 'store'} (--remote names an object store" in line
    assert not list((shared / "store").glob("nodes/*"))


@pytest.mark.long
@pytest.mark.skipif(not can_hide_folders(), reason="takes the right to mount: unshare -m")
def test_a_node_that_joins_without_the_store_is_left_out_and_the_sweep_goes_on(nodes: Nodes, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    job = submit(nodes, shared / "store", *BANDIT[:4], "bc,sarsa", *BANDIT[5:])
    try:
        wait_while(job, lambda: list((shared / "store").glob("scratch/trajectory/*/*")), "a job was at work")
        hidden = ("unshare", "-m", "sh", "-c", f'mount -t tmpfs none "{shared}" && exec "$@"', "sh")
        nodes.start_node("blind", 1, prefix=hidden)
        out, _ = job.communicate(timeout=300)
    finally:
        end(job)
        nodes.kill_node("blind")
    assert job.returncode == 0, out
    assert "left out: the store must be a folder that all machines share under one path; the node " in out
    assert {row["status"] for row in Store(shared / "store").rows("nodes")} == {"finished"}


# Where nothing is shared


@pytest.mark.long
@pytest.mark.skipif(not can_hide_folders(), reason="takes the right to mount: unshare -m")
def test_nodes_that_share_no_folder_work_on_one_store_by_an_object_store_though_one_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each node has a folder of its own under one path: a file system that only its processes see."""
    for name, value in ObjectServer.KEYS.items():
        monkeypatch.setenv(name, value)
    own = tmp_path / "own"
    own.mkdir()
    hidden = ("unshare", "-m", "sh", "-c", f'mount -t tmpfs none "{own}" && exec "$@"', "sh")
    server = ObjectServer()
    cluster = Nodes(f"apart-{os.getpid()}", Path(tempfile.mkdtemp(prefix="r", dir="/tmp")))
    try:
        server.start()
        place = server.place()
        cluster.start_head(1)
        cluster.start_node("second", 1, prefix=hidden)
        cluster.start_node("third", 1, prefix=hidden)
        wait_for(lambda: cluster.alive() == 3, 480, "three nodes were alive")
        watch = Watch(cluster, own / "store", ("second", "third"))
        job = submit(cluster, own / "store", *BANDIT, "--remote", place)
        try:
            wait_while(job, lambda: _others(watch) == set(watch.names), "both others had sent what they recorded")
            cluster.kill_node("second")
            out, _ = job.communicate(timeout=900)
        finally:
            end(job)
        assert job.returncode == 0, out
        assert "is gone; what it was at is done elsewhere" in out
        assert {"second", "third"} <= set(watch.wrote("evaluation"))
        monkeypatch.setenv("RAY_ADDRESS", "")
        alone = subprocess.run(
            [sys.executable, *BANDIT, "--store", tmp_path / "alone"], cwd=ROOT, env=environment("alone"),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert alone.returncode == 0, alone.stdout + alone.stderr
        assert rows_of(own / "store") == rows_of(tmp_path / "alone")
        whole = joined(tmp_path / "laptop", place)  # a machine that had no part in it
        whole.sync()
        assert rows_of(whole.folder) == rows_of(tmp_path / "alone")
        for weights in {row["weights_id"] for row in whole.rows("nodes")}:
            assert whole.stage("weights", weights) is not None
        assert weights_of(whole.folder).items() <= weights_of(tmp_path / "alone").items()
    finally:
        cluster.stop()
        server.kill()
        shutil.rmtree(cluster.folder, ignore_errors=True)


def _others(watch: Watch) -> set[str]:
    """The nodes of whose evaluations the driver's folder knows, the head's aside."""
    for name in watch.names:
        watch.node_of |= {str(process): name for process in watch.nodes.processes(name)}
    return set(watch.wrote("evaluation")) & set(watch.names)


# What takes minutes


@pytest.mark.long
def test_a_node_that_kills_whatever_it_is_given_gets_no_more_and_the_sweep_ends_whole(tmp_path: Path) -> None:
    store, killed, ended = tmp_path / "store", list[int](), threading.Event()

    def kill_on(cluster: Nodes) -> None:
        while not ended.wait(0.1):
            there = cluster.processes("second") if (store / "store.json").is_file() else set()
            leases = Store(store).leases() if there else ()
            holders = {int(holder.number) for key, _, holder in leases if holder is not None and key[:6] != "sweep-"}
            killed.extend(there & holders)
            cut(there & holders)

    with three_nodes("killer") as cluster:
        killing = threading.Thread(target=kill_on, args=(cluster,))
        killing.start()
        job = submit(cluster, store, *BANDIT)
        try:
            out, _ = job.communicate(timeout=1200)
        finally:
            end(job)
            ended.set()
            killing.join()
    assert job.returncode == 0, out
    assert out.count(" has lost 3 jobs in a row; it gets none for 10 min") >= 1, out
    assert {row["status"] for row in rows_of(store).values()} == {"finished"}
    # One each time that it is tried again after ten minutes; one more may have begun before it was known.
    assert len(set(killed)) <= 4 + out.count(" gets jobs again"), out


@pytest.mark.long
def test_a_group_that_lost_a_node_goes_on_with_the_workers_that_fit(tmp_path: Path) -> None:
    store, folder = tmp_path / "store", Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    cluster = Nodes(f"group-{os.getpid()}", folder)

    def checkpoints() -> list[Path]:
        return list(store.glob("**/checkpoints/[!.]*"))

    try:
        cluster.start_head(1)
        cluster.start_node("second", 1)
        wait_for(lambda: cluster.alive() == 2, 480, "two nodes were alive")
        job = submit(cluster, store, *ALONE, "--workers", "2", "--least-workers", "1")
        try:
            wait_while(job, checkpoints, "a group of two had a checkpoint")
            cluster.kill_node("second")
            out, _ = job.communicate(timeout=900)
        finally:
            end(job)
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
    assert job.returncode == 0, out
    assert "jobs that begin from now on have 1 of 2 workers" in out
    (done,) = Store(store).all("training").values()
    assert (done["status"], done["workers"]) == ("finished", 1)

    command = [sys.executable, *ALONE, "--store", tmp_path / "alone"]
    subprocess.run(command, cwd=ROOT, env=environment("alone"), check=True, stdout=subprocess.DEVNULL)
    curves = [points_of(Store(place)) for place in (store, tmp_path / "alone")]
    assert curves[0].keys() == curves[1].keys()
    for step, loss in curves[0].items():  # rounding grows with the steps
        assert loss == pytest.approx(curves[1][step], abs=1e-5 if step <= 1000 else 5e-3), step


def points_of(store: Store) -> dict[int, float]:
    """The loss of the one training of a store, by step."""
    path = store.curve(next(iter(store.all("training"))))
    assert path is not None
    points = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {point["step"]: point["loss"] for point in points if "loss" in point}


@pytest.mark.long
def test_after_the_head_was_killed_the_same_command_on_a_new_one_goes_on_from_the_store(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """What survives is the store: Ray's own tables, the submitted job and its driver are gone with the head."""
    store = tmp_path_factory.mktemp("head") / "store"
    cluster = Nodes(f"head-{os.getpid()}", Path(tempfile.mkdtemp(prefix="r", dir="/tmp")))
    try:
        cluster.start_head(1)
        cluster.start_node("second", 1)
        wait_for(lambda: cluster.alive() == 2, 480, "two nodes were alive")
        job = submit(cluster, store, *BANDIT)
        wait_while(job, lambda: len(weights_of(store)) >= 4, "four trainings were done")
        cluster.kill_node("head")
        job.communicate(timeout=400)
        assert job.returncode != 0
        done = weights_of(store)
        assert len(done) < 12
        again = Nodes(cluster.mark, cluster.folder)  # on other ports; the second node has lost its head for good
        cluster.kill_node("second")
        again.start_head(1)
        cluster = again
        again.start_node("second", 1)
        wait_for(lambda: again.alive() == 2, 480, "two nodes were alive")
        job = submit(again, store, *BANDIT)
        out, _ = job.communicate(timeout=1200)
        assert job.returncode == 0, out
        assert f"; {len(done)} and " in out  # so many trainings are in the store: they were not done twice
        assert done.items() <= weights_of(store).items()
        assert {row["status"] for row in Store(store).rows("nodes")} == {"finished"}
    finally:
        cluster.stop()
        shutil.rmtree(cluster.folder, ignore_errors=True)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_visual_dialogue_as_a_job_on_three_nodes_finishes_though_one_is_killed(nodes: Nodes, tmp_path: Path) -> None:
    store = tmp_path / "store"
    if "second" not in nodes.running:
        nodes.start_node("second", 1)
    wait_for(lambda: nodes.alive() >= 3, 480, "three nodes were alive")
    job = submit(nodes, store, "sweeps/visdial_ablation.py", "--preset", "smoke", "--no-mlflow")
    watch = Watch(nodes, store, ("head", "second", "third", "fourth"))
    try:

        def at_work() -> bool:
            watch.look()
            return bool(watch.at.get("second"))

        wait_while(job, at_work, "the second node was at work")
        nodes.kill_node("second")
        out, _ = job.communicate(timeout=3000)
    finally:
        end(job)
    assert job.returncode == 0, out
    assert "Ablation on visdial" in out
    assert "is gone; what it was at is done elsewhere" in out
    assert {row["status"] for row in Store(store).rows()} <= {"finished", "stopped"}
