"""Kill what runs a sweep, with signal 9, run the same command again, and compare with a run that nobody disturbed.

    python tests/crash/matrix.py --kills 60                       every cell of the matrix, five times each
    python tests/crash/matrix.py --kills 4                        each victim once, in a phase that is drawn
    python tests/crash/matrix.py --sweep grid                     of a sweep that proposes nothing, and is sooner done

Killed are {the driver, a training worker, a whole Ray node, the MLflow server} in the middle of {training, evaluation,
report}, at a random moment of it: the victim, or the sweep where the victim does no such work, is at it just before the
kill and not at its end just after, else another moment is drawn. The victim is ended as a power cut would: no handler
runs. Then the command is run again at once, beside what a dead driver has left, until it ends. The sweep has a grid,
proposals, and rungs at which some of them stop; it trains in groups of Ray Train's at every other kill of a driver, a
worker and a node, and of few kills at the worker's. Asserted every time:

- the rows are those of the undisturbed run, scores and weights equal to the bit, none lost and none doubled;
- the victim was there, and the phase held: of a training, steps were made and others were still to go;
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
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from running import PATIENCE, Sweep
from services import Broken, Nodes, Tracker, demand, name_of, wait_for
from strike import Scene, Strike
from underway import Ends, checkpoints_of, ends_of, trajectories_of

from ilql.checkpoint import file_digest
from sweeps.doctor import findings
from sweeps.store import Store

VICTIMS = ("driver", "worker", "node", "mlflow")
PHASES = ("training", "evaluation", "report")
IN_GROUPS = ("driver", "worker", "node")
"""The victims for which a sweep trains in groups of Ray Train's every other time."""

CHECKPOINT_EVERY = 50
"""Steps; the bandit's smoke preset has it so."""
SWEEPS: dict[str, tuple[str, ...]] = {
    "search": ("--preset", "smoke", "--methods", "bc,ilql", "--trials", "2", "--name", "crash"),
    "grid": ("--preset", "smoke", "--methods", "bc,sarsa", "--trials", "0", "--name", "crash"),
}
ROWS = {"search": 13, "grid": 4}
"""How many rows each ends with."""
RESULTS = ("trial_id", "weights_id", "origin", "method", "seed", "status", "reason", "score", "score_sd", "tune_score")

SLOWER = 6
"""So many times as long as undisturbed a command may take: in groups, after a kill, beside others' work."""
ATTEMPTS = 6
"""So many moments are drawn until one hits."""
DEEPEST = 0.85
"""Before so much of a training is over, its curve has a line that a strike can wait for."""


# One run


@dataclass(frozen=True)
class Reference:
    """What the undisturbed run ended with, and how long it took; how long after its last score."""

    rows: dict[str, dict[str, Any]]
    weights: dict[str, str]
    runs: Counter[str]
    ends: Ends
    seconds: float
    reporting: float

    @property
    def patience(self) -> float:
        """Seconds after which a command counts as hung on a machine as busy as it was then."""
        return max(PATIENCE, SLOWER * self.seconds)


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


class Repeats:
    """Watches, from a kill on, for checkpoints of steps that a training had a sound one of, or of a later one, before.

    What was trained again is then more than what came after the last checkpoint.
    """

    def __init__(self, store: Path) -> None:
        self._before = checkpoints_of(trajectories_of(store))
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
    mark, patience = f"{os.getpid()}-undisturbed", SLOWER * PATIENCE
    sweep = Sweep(folder / "undisturbed", SWEEPS[kind], ROWS[kind], mark, tracker.uri, patience=patience)
    try:
        tracker.start()
        begin = time.monotonic()
        sweep.start()
        wait_for(lambda: sweep.has_begun("report", {}), patience, "report began")
        scored = time.monotonic()
        demand(sweep.wait() == 0, f"the undisturbed command succeeds: see {sweep.output}")
        end = time.monotonic()
        check_gone(sweep)
        check_store(sweep.store)
        found = rows_of(sweep.store), weights_of(sweep.store), runs_of(tracker.uri), ends_of(Store(sweep.store))
        return Reference(*found, seconds=end - begin, reporting=end - scored)
    finally:
        sweep.clean()
        tracker.kill()


def one_kill(strike: Strike, arguments: tuple[str, ...], reference: Reference, folder: Path) -> dict[str, Any] | None:
    """Kill once and check everything; returns what is worth noting, or None if the moment never came.

    Raises:
        Broken: A promise did not hold.
    """
    mark, victim = f"{os.getpid()}-{folder.parent.name}-{folder.name}", strike.victim
    tracker, nodes = Tracker(folder), None
    sweep = Sweep(folder / "store", arguments, len(reference.rows), mark, tracker.uri, patience=reference.patience)
    try:
        tracker.start()
        if victim == "node":
            nodes = Nodes(mark, Path(tempfile.mkdtemp(prefix="r", dir="/tmp")))
            nodes.start_head(1)
            nodes.start_node("second", 2)
            sweep.address = nodes.address
        sweep.start()
        wait_for(lambda: sweep.has_begun(strike.phase, reference.ends), sweep.patience, f"{strike.phase} began")
        scene = Scene(strike, sweep, tracker, nodes, reference.ends)
        if not scene.wait():
            return None
        noted = scene.hit()
        with Repeats(sweep.store) as repeats:
            status = sweep.wait()
            orphans = sweep.processes()  # of a killed driver: the same command is run again beside them
            demand(victim != "mlflow" or status == 0, f"a sweep goes on without MLflow, its exit status was {status}")
            lost = noted["lost_steps"]
            demand(lost <= CHECKPOINT_EVERY, f"at most {CHECKPOINT_EVERY} steps are lost, {lost} were")
            if victim == "mlflow":
                tracker.start()
            with sweep.output.open("a") as out:
                out.write("\nrun again\n")
            sweep.start()
            demand(sweep.wait() == 0, f"the same command succeeds: see {sweep.output}")
            wait_for(lambda: not orphans & sweep.processes(), 90, "what the command before had started went away")
        demand(not repeats.found, f"a training goes on from its checkpoint, written again were {sorted(repeats.found)}")
        check_gone(sweep)
        found, weights = rows_of(sweep.store), weights_of(sweep.store)
        demand(found.keys() == reference.rows.keys(), "no row is lost and none is new")
        demand(found == reference.rows, "the rows are those of an undisturbed run, to the bit")
        demand(weights == reference.weights, "the weights are those of an undisturbed run, to the bit")
        demand(runs_of(tracker.uri) == reference.runs, "MLflow has the runs of an undisturbed run")
        check_store(sweep.store)
        return {"status_of_killed": status, **noted}
    finally:
        sweep.clean()
        if nodes is not None:
            nodes.stop()
            shutil.rmtree(nodes.folder, ignore_errors=True)
        tracker.kill()


def one_kill_that_hits(
    strike: Strike, arguments: tuple[str, ...], reference: Reference, folder: Path
) -> dict[str, Any]:
    """Kill as `one_kill` does; sooner, in a run of its own, as long as victim, sweep or phase had ended before that."""
    for attempt in range(ATTEMPTS):
        place, moment = folder / str(attempt), strike.sooner(attempt)
        place.mkdir(parents=True)
        notes = one_kill(moment, arguments, reference, place)
        if notes is not None and all(notes[each] for each in ("killed", "running", "held_before", "held_after")):
            times = {"delay": round(moment.delay, 3), "depth": round(moment.depth, 3)}
            return {"attempts": attempt + 1, **times, **notes}
    raise Broken(f"a {strike.victim} is there to be killed in the {strike.phase}")


def cells(kills: int, generator: random.Random, *, reporting: float) -> Iterator[Strike]:
    """Who is killed when in what phase, and whether in a group: every cell equally often, if it can be.

    Struck is up to two seconds after the first training began, up to one after the first evaluation, or as soon as the
    victim is at one of them; in the report at any time of it. But a sweep's workers leave when its last job has ended:
    in the report's time there is one for a moment only.

    Args:
        kills: How many.
        generator: Draws the moments.
        reporting: Seconds that a sweep takes after its last score.
    """
    matrix = [(victim, phase) for victim in VICTIMS for phase in PHASES]
    few = kills < len(matrix)
    if few:
        phases = generator.sample(PHASES, len(PHASES))
        matrix = [(victim, phases[place % len(phases)]) for place, victim in enumerate(VICTIMS)]
    longest = {"training": 2.0, "evaluation": 1.0, "report": reporting}
    for number in range(kills):
        victim, phase = matrix[number % len(matrix)]
        seconds = 0.02 if (victim, phase) == ("worker", "report") else longest[phase]
        grouped = victim == "worker" if few else victim in IN_GROUPS and number // len(matrix) % 2 == 1
        yield Strike(victim, phase, generator.random() * seconds, generator.random() * DEEPEST, grouped)


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
    lost, trained = behind_a_checkpoint(results)
    return "\n".join([
        *lines, "", f"{whole} of 12 cells hold; {good} of {len(results)} kills left nothing lost, doubled or running; "
        f"{lost} of {trained} in a training came when it had steps to lose, at most {CHECKPOINT_EVERY}",
    ])  # fmt: skip


def behind_a_checkpoint(results: list[dict[str, Any]]) -> tuple[int, int]:
    """How many kills in a training came when steps had been made since its last checkpoint; and how many did in all."""
    trained = [result for result in results if result["phase"] == "training" and result["broken"] is None]
    return sum(result["lost_steps"] > 0 for result in trained), len(trained)


def hold(results: list[dict[str, Any]]) -> bool:
    """Whether every promise held, and was put to the test: of many kills in a training some cost it steps."""
    lost, trained = behind_a_checkpoint(results)
    return bool(results) and all(result["broken"] is None for result in results) and (lost > 0 or trained < 4)


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
        strikes = cells(asked.kills, random.Random(asked.seed), reporting=reference.reporting)
        for number, strike in enumerate(strikes):
            others = asked.victim not in (None, strike.victim) or asked.phase not in (None, strike.phase)
            if number < len(results) or others:
                continue
            begin, broken, notes = time.monotonic(), None, dict[str, Any]()
            place, more = folder / f"kill-{number}", ("--ray-train",) if strike.grouped else ()
            try:
                notes = one_kill_that_hits(strike, arguments + more, reference, place)
            except Broken as promise:
                broken = str(promise)
            drawn = {"delay": round(strike.delay, 3), "depth": round(strike.depth, 3)}
            result = {"victim": strike.victim, "phase": strike.phase, "grouped": strike.grouped, **drawn}
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
    return 0 if hold(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
