"""Kill what runs a sweep, with signal 9, run the same command again, and compare with a run that nobody disturbed.

    python tests/crash/matrix.py --kills 60                       every cell of the matrix, five times each
    python tests/crash/matrix.py --kills 4 --seed 1 --sweep grid  four cells, drawn, of a sweep that proposes nothing

Killed are {the driver, a training worker, a whole Ray node, the MLflow server} in the middle of {training, evaluation,
report}, at a random moment of it. The victim is ended as a power cut would: no handler runs. After that the command is
run again until it ends. The sweep has a grid, proposals, and rungs at which some of them stop; it trains in groups of
Ray Train's at every other kill of a driver, a worker and a node. Asserted every time:

- the rows are those of the undisturbed run, scores and weights equal to the bit, none lost and none doubled;
- the victim was there, and the sweep in the middle of what it did;
- no more was lost of a training than what came after its last checkpoint: they came as often as promised, and none was
  written a second time;
- `sweeps doctor` finds nothing but what a kill must leave (a torn last line is none), and no partial work stays;
- MLflow has each run once, none of them still RUNNING, as many as after the undisturbed run;
- no process of ours is left.

Results are written line by line, so an interrupted run shows what it found; the same `--out` goes on where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from services import Broken, Nodes, Tracker, cut, demand, environment, marked, name_of, users_of, wait_for

from ilql.checkpoint import CheckpointError, check_checkpoint, file_digest
from sweeps.doctor import findings
from sweeps.store import Store

ROOT = Path(__file__).resolve().parents[2]

VICTIMS = ("driver", "worker", "node", "mlflow")
PHASES = ("training", "evaluation", "report")
IN_GROUPS = ("driver", "worker", "node")
"""The victims for which a sweep trains in groups of Ray Train's every other time."""

CHECKPOINT_EVERY = 50
"""Steps; the bandit's smoke preset has it so."""
SWEEPS: dict[str, tuple[str, ...]] = {
    "search": ("--preset", "smoke", "--methods", "bc,ilql", "--trials", "2", "--name", "crash"),
    "grid": ("--preset", "smoke", "--methods", "bc,sarsa,filtered_bc", "--trials", "0", "--name", "crash"),
}
ROWS = {"search": 13, "grid": 5}
"""How many rows each ends with."""
RESULTS = ("trial_id", "weights_id", "origin", "method", "seed", "status", "reason", "score", "score_sd", "tune_score")

PATIENCE = 420.0
"""Seconds after which a command counts as hung."""


# One run


@dataclass
class Sweep:
    """The command on a store, as a process."""

    store: Path
    arguments: tuple[str, ...]
    rows: int
    mark: str
    tracking: str
    address: str | None = None
    process: subprocess.Popen[str] | None = None
    ray: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="r", dir="/tmp")))  # short, for sockets

    @property
    def output(self) -> Path:
        """Where what it prints goes."""
        return self.store.with_suffix(".out")

    def processes(self) -> set[int]:
        """All it has started that are there, itself among them, but for what its jobs run in on others' clusters."""
        return marked(self.mark) | users_of(self.ray)

    def clean(self) -> None:
        """Leave nothing of it: no process, and no folder but its store."""
        cut(self.processes())
        shutil.rmtree(self.ray, ignore_errors=True)

    def start(self) -> None:
        """Start it."""
        more = {"MLFLOW_TRACKING_URI": self.tracking, "RAY_TMPDIR": str(self.ray)}
        more |= {"RAY_ADDRESS": self.address} if self.address else {}
        with self.output.open("a") as out:
            self.process = subprocess.Popen(
                [sys.executable, ROOT / "sweeps" / "bandit_ablation.py", *self.arguments, "--store", self.store],
                env=environment(self.mark) | more, stdout=out, stderr=out, text=True, start_new_session=True,
            )  # fmt: skip

    def wait(self) -> int:
        """Its exit status."""
        assert self.process is not None
        try:
            return self.process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise Broken(f"the command ended within {PATIENCE:.0f} s; it hangs, see {self.output}") from None

    def has_begun(self, phase: str) -> bool:
        """Whether it is in the middle of a phase."""
        assert self.process is not None
        demand(self.process.poll() is None, f"it was still running when {phase} was waited for: see {self.output}")
        if phase == "training":
            return any(self.store.glob("scratch/trajectory/*/*/checkpoints/step-*"))
        if not (self.store / "store.json").is_file():
            return False
        store = Store(self.store)  # what it prints comes every ten seconds, and these last one
        played, members = store.all("evaluation"), list(store.members())
        if phase == "evaluation":
            return any(
                member["trial_id"] not in played and store.stage("weights", member["weights_id"]) is not None
                for member in members
            )
        # When the last score is there: a moment later the workers have nothing to do, and leave.
        statuses = [row["status"] for row in store.rows("crash")] if len(members) == self.rows else []
        return bool(statuses) and all(status in ("finished", "stopped") for status in statuses)


@dataclass(frozen=True)
class Reference:
    """What the undisturbed run ended with, and how long it took; how long after its last score."""

    rows: dict[str, dict[str, Any]]
    weights: dict[str, str]
    runs: Counter[str]
    seconds: float
    reporting: float


def rows_of(store: Path) -> dict[str, dict[str, Any]]:
    """What must not depend on interruptions, by trial."""
    rows = Store(store).rows("crash")
    demand(len({row["trial_id"] for row in rows}) == len(rows), "no row is doubled")
    return {row["trial_id"]: {name: row.get(name) for name in RESULTS} for row in rows}


def weights_of(store: Path) -> dict[str, str]:
    """The digest of every training's weights."""
    return {folder.parent.name: file_digest(folder) for folder in store.glob("stages/weights/*/*/weights.safetensors")}


def runs_of(uri: str) -> Counter[str]:
    """How many runs of each kind MLflow has; none may be doubled or running."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("ilql-ablations")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    keys = Counter((run.data.tags["sweeps.kind"], run.data.tags["sweeps.key"]) for run in runs)
    demand(max(keys.values()) == 1, f"no run of MLflow is doubled, {[key for key, n in keys.items() if n > 1]} are")
    running = [run.info.run_name for run in runs if run.info.status == "RUNNING"]
    demand(not running, f"no run of MLflow is left RUNNING, {running} are")
    return Counter(kind for kind, _ in keys)


def checkpoints_of(store: Path) -> dict[Path, tuple[int, int]]:
    """The sound checkpoints of all trainings under way: the step of each, and what tells it from one of its name."""
    found = {}
    for path in store.glob("scratch/trajectory/*/*/checkpoints/step-*"):
        with contextlib.suppress(CheckpointError, OSError):
            found[path] = check_checkpoint(path), path.stat().st_ino
    return found


def lost_steps(store: Path) -> int:
    """The most steps that any training under way has made since its newest sound checkpoint, as its curve says."""
    lost, sound = 0, checkpoints_of(store)
    for trajectory in store.glob("scratch/trajectory/*/*"):
        try:
            last = [json.loads(line)["step"] for line in (trajectory / "curve.jsonl").read_text().splitlines()][-1]
        except (OSError, ValueError, IndexError):
            continue
        newest = max((step for path, (step, _) in sound.items() if trajectory in path.parents), default=0)
        lost = max(lost, last - newest)
    return lost


class Repeats:
    """Watches, from a kill on, for checkpoints of steps that a training had a sound one of, or of a later one, before.

    What was trained again is then more than what came after the last checkpoint.
    """

    def __init__(self, store: Path) -> None:
        self._before = checkpoints_of(store)
        self._newest: dict[Path, int] = {}
        for path, (step, _) in self._before.items():
            self._newest[path.parent] = max(step, self._newest.get(path.parent, 0))
        self.found: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Repeats:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            for folder, newest in self._newest.items():
                for path in folder.glob("step-*"):
                    with contextlib.suppress(OSError):
                        same = path.stat().st_ino == self._before.get(path, (0, 0))[1]
                        if int(path.name.removeprefix("step-")) <= newest and not same:
                            self.found.add(f"{path.name} of {folder.parent.name}")


def check_store(store: Path) -> None:
    """The doctor finds nothing but what a kill must leave, and nobody's partial work is left."""
    left = [str(path) for path in store.glob("scratch/*/*/*")]
    demand(not left, f"no partial work is left, {left[:3]} are")
    scars = ("was not completed", "died with it")
    bad = [line for line in findings(Store(store)) if not any(scar in line for scar in scars)]
    demand(not bad, f"the store is sound: {bad}")


def check_gone(sweep: Sweep) -> None:
    """No process of a sweep is left half a minute after the command's end."""
    deadline = time.monotonic() + 30
    while (left := sweep.processes()) and time.monotonic() < deadline:
        time.sleep(0.2)
    names = [name_of(process)[:80] for process in left]
    demand(not left, f"no process is left, {names} are")


# The matrix


def undisturbed(kind: str, folder: Path) -> Reference:
    """Run a sweep to its end, once."""
    tracker = Tracker(folder)
    sweep = Sweep(folder / "undisturbed", SWEEPS[kind], ROWS[kind], f"{os.getpid()}-undisturbed", tracker.uri)
    try:
        tracker.start()
        begin = time.monotonic()
        sweep.start()
        wait_for(lambda: sweep.has_begun("report"), PATIENCE, "report began")
        scored = time.monotonic()
        demand(sweep.wait() == 0, f"the undisturbed command succeeds: see {sweep.output}")
        end = time.monotonic()
        check_gone(sweep)
        check_store(sweep.store)
        found = rows_of(sweep.store), weights_of(sweep.store), runs_of(tracker.uri)
        return Reference(*found, seconds=end - begin, reporting=end - scored)
    finally:
        sweep.clean()
        tracker.kill()


def one_kill(
    victim: str, phase: str, delay: float, arguments: tuple[str, ...], reference: Reference, folder: Path
) -> dict[str, Any]:
    """Kill once and check everything; returns what is worth noting.

    Raises:
        Broken: A promise did not hold.
    """
    mark = f"{os.getpid()}-{folder.parent.name}-{folder.name}"
    tracker, nodes = Tracker(folder), None
    sweep = Sweep(folder / "store", arguments, len(reference.rows), mark, tracker.uri)
    try:
        tracker.start()
        if victim == "node":
            nodes = Nodes(mark, Path(tempfile.mkdtemp(prefix="r", dir="/tmp")))
            nodes.start_head(1)
            nodes.start_node("second", 2)
            sweep.address = nodes.address
        sweep.start()
        assert sweep.process is not None
        wait_for(lambda: sweep.has_begun(phase), PATIENCE, f"{phase} began")
        time.sleep(delay)
        alive = sweep.process.poll() is None
        lost = lost_steps(sweep.store)
        killed = kill(victim, sweep, tracker, nodes)
        with Repeats(sweep.store) as repeats:
            status = sweep.wait()
            if victim == "driver":
                wait_for(lambda: not sweep.processes(), 90, "what a killed driver had started went away")
            demand(victim != "mlflow" or status == 0, f"a sweep goes on without MLflow, its exit status was {status}")
            demand(lost <= CHECKPOINT_EVERY, f"at most {CHECKPOINT_EVERY} steps are lost, {lost} were")
            if victim == "mlflow":
                tracker.start()
            with sweep.output.open("a") as out:
                out.write("\nrun again\n")
            sweep.start()
            demand(sweep.wait() == 0, f"the same command succeeds: see {sweep.output}")
        demand(not repeats.found, f"a training goes on from its checkpoint, written again were {sorted(repeats.found)}")
        check_gone(sweep)
        found, weights = rows_of(sweep.store), weights_of(sweep.store)
        demand(found.keys() == reference.rows.keys(), "no row is lost and none is new")
        demand(found == reference.rows, "the rows are those of an undisturbed run, to the bit")
        demand(weights == reference.weights, "the weights are those of an undisturbed run, to the bit")
        demand(runs_of(tracker.uri) == reference.runs, "MLflow has the runs of an undisturbed run")
        check_store(sweep.store)
        return {"killed": killed, "running": alive, "status_of_killed": status, "lost_steps": lost}
    finally:
        sweep.clean()
        if nodes is not None:
            nodes.stop()
            shutil.rmtree(nodes.folder, ignore_errors=True)
        tracker.kill()


def one_kill_that_hits(
    victim: str, phase: str, delay: float, arguments: tuple[str, ...], reference: Reference, folder: Path
) -> dict[str, Any]:
    """Kill as `one_kill` does; sooner, in a run of its own, as long as victim or sweep had ended before that."""
    for attempt in range(6):
        place = folder / str(attempt)
        place.mkdir(parents=True)
        notes = one_kill(victim, phase, delay / 2**attempt, arguments, reference, place)
        if notes["killed"] and notes["running"]:
            return {"delay": round(delay / 2**attempt, 3), **notes}
    raise Broken(f"a {victim} is there to be killed in the {phase}")


def kill(victim: str, sweep: Sweep, tracker: Tracker, nodes: Nodes | None) -> int:
    """Kill; returns how many processes that were."""
    assert sweep.process is not None
    if victim == "driver":
        cut({sweep.process.pid})
        return 1
    if victim == "worker":
        # Whoever works, if anybody does: in the report's time there may be nobody left.
        named = {process: name_of(process) for process in sweep.processes()}
        # Ray's own agents have such names, too: with one of them goes its node, which is another cell.
        workers = {process for process, name in named.items() if name.startswith("ray::") and "Agent" not in name}
        busy = {process for process in workers if "IDLE" not in name_of(process)}
        group = {process for process, name in named.items() if "RayTrainWorker" in name}
        chosen = set(sorted(group or busy or workers)[:1])
        cut(chosen)
        return len(chosen)
    if victim == "node":
        assert nodes is not None
        there = len(nodes.processes("second"))
        nodes.kill_node("second")
        return there
    tracker.kill()
    return 1


def cells(kills: int, generator: random.Random) -> Iterator[tuple[str, str, float, bool]]:
    """Who is killed in what phase, how much of it later, and whether in a group: every cell equally often, if it can.

    The moment is a share: of two seconds of training, of one of evaluation, of all of the report; but a sweep's workers
    leave when its last job has ended, and in the report's time there is one for a moment only.
    """
    matrix = [(victim, phase) for victim in VICTIMS for phase in PHASES]
    if kills < len(matrix):
        phases = generator.sample(PHASES, len(PHASES))
        matrix = [(victim, phases[place % len(phases)]) for place, victim in enumerate(VICTIMS)]
    for number in range(kills):
        victim, phase = matrix[number % len(matrix)]
        yield victim, phase, generator.random(), victim in IN_GROUPS and number // len(matrix) % 2 == 1


def longest(victim: str, phase: str, reference: Reference) -> float:
    """Seconds from a phase's beginning in which a victim is struck."""
    if phase == "report":
        return 0.02 if victim == "worker" else reference.reporting
    return 2.0 if phase == "training" else 1.0


def table(results: list[dict[str, Any]]) -> str:
    """The matrix as Markdown."""
    lines = ["| killed | " + " | ".join(f"during {phase}" for phase in PHASES) + " |", "| --- |" + " ---: |" * 3]
    whole = 0
    for victim in VICTIMS:
        row = []
        for phase in PHASES:
            each = [result for result in results if (result["victim"], result["phase"]) == (victim, phase)]
            good = sum(result["broken"] is None for result in each)
            whole += bool(each) and good == len(each)
            row.append(f"{good} of {len(each)}")
        lines.append(f"| {victim} | " + " | ".join(row) + " |")
    good = sum(result["broken"] is None for result in results)
    lines += ["", f"{whole} of 12 cells hold; {good} of {len(results)} kills left nothing lost, doubled or running"]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """The command; its exit status says whether every promise held."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=60, help="how many in all")
    parser.add_argument("--seed", type=int, default=0, help="decides the moments")
    parser.add_argument("--out", type=Path, default=None, help="file of results, a line each; goes on where it was")
    parser.add_argument("--sweep", choices=SWEEPS, default="search", help="what is run")
    parser.add_argument("--victim", choices=VICTIMS, default=None, help="this one only")
    parser.add_argument("--phase", choices=PHASES, default=None, help="this one only")
    asked = parser.parse_args(arguments)
    # What it has started goes with it, also where it is ended from outside.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    folder = Path(tempfile.mkdtemp(prefix="crash"))
    results: list[dict[str, Any]] = []
    if asked.out is not None and asked.out.is_file():
        results = [json.loads(line) for line in asked.out.read_text().splitlines()]
    try:
        arguments = SWEEPS[asked.sweep]
        reference = undisturbed(asked.sweep, folder)
        times = f"{reference.seconds:.0f} s, {reference.reporting:.1f} of them after the last score"
        print(f"undisturbed: {len(reference.rows)} rows, {dict(reference.runs)} MLflow runs, {times}", flush=True)
        for number, (victim, phase, share, grouped) in enumerate(cells(asked.kills, random.Random(asked.seed))):
            if number < len(results) or asked.victim not in (None, victim) or asked.phase not in (None, phase):
                continue
            begin, broken, notes = time.monotonic(), None, dict[str, Any]()
            place, delay = folder / f"kill-{number}", share * longest(victim, phase, reference)
            more = ("--ray-train",) if grouped else ()
            try:
                notes = one_kill_that_hits(victim, phase, delay, arguments + more, reference, place)
            except Broken as promise:
                broken = str(promise)
            result = {"victim": victim, "phase": phase, "grouped": grouped, "delay": round(delay, 3)}
            result |= {"broken": broken, **notes}
            result["seconds"] = round(time.monotonic() - begin, 1)
            results.append(result)
            print(json.dumps(result), flush=True)
            if asked.out is not None:
                asked.out.parent.mkdir(parents=True, exist_ok=True)
                with asked.out.open("a") as out:
                    out.write(json.dumps(result) + "\n")
            if broken is None:
                shutil.rmtree(place, ignore_errors=True)
    finally:
        if all(result["broken"] is None for result in results):
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"what broke is kept in {folder}", file=sys.stderr)
    print(table(results))
    return 0 if results and all(result["broken"] is None for result in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
