"""What a cell costs where many are recorded: to plan it, to find it done, to list it, at 10², 10³, 10⁴ and 10⁵ cells.

A store is filled with the records, members and weights stages of a finished sweep, as its driver and its workers write
them: an ILQL grid of trainings that are decoded with four betas each, played on the tune and on the report scenes. Then
each operation is done as a fresh process would, with a store that has read nothing yet:

- `plan`: what `--plan` prints (`make_plan`): the weights and evaluations of every cell looked for.
- `resume`: what the driver does when the command of a finished sweep is given again, up to "nothing is left to do":
  the members compared, the study made anew and told every score, every job found done.
- `status`: the command `sweeps status`, its lines written to memory.

A cost is the whole operation's seconds by the number of cells, so a fixed start stands in it, and weighs most where
cells are few. What must not grow is the cost at the largest size; `details` has it at every size, and the worst of them
by that at 1,000 cells, where the start no longer counts.

Nothing outside is measured here: the other side is ourselves with few cells. No public implementation keeps a record of
a sweep to be planned from; what Optuna's storage does per trial is in `benchmarks/store.py`.
"""

from __future__ import annotations

import contextlib
import gc
import io
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Benchmark, Line, seconds
from cluster.shapes import Need
from ilql.language_model import Architecture
from ilql.methods import bc
from sweeps import cli
from sweeps.cells import Shared
from sweeps.exact_json import Record
from sweeps.job import Resources
from sweeps.journal import utc
from sweeps.plan import make_plan
from sweeps.provenance import code_digest, host, library_versions
from sweeps.schedule import Schedule
from sweeps.space import Grid, PlannedTraining
from sweeps.spec import Backbone, Data, Evaluation, TrialSpec
from sweeps.store import Store
from sweeps.study import Study

SIZES = (100, 1_000, 10_000, 100_000)
QUICK = (100, 1_000)
REFERENCE = 1_000
"""The size whose cost the worst one is held against, too."""

BETAS = (1.0, 4.0, 8.0, 16.0)
SWEEP = "made-up"
GOAL = 1.5

BEHAVIOUR = bc.Train(steps=500, batch_size=64, learning_rate=1e-4, max_tokens=256)
SHARED = Shared(
    data=Data(task="visdial", world="0" * 20, reward="standard"),
    backbone=Backbone(
        architecture=Architecture(layers=2, width=96, heads=4, context=256), vocabulary=512, behaviour=BEHAVIOUR
    ),
    tune=Evaluation(world="0" * 20, reward="standard", split="tune", episodes=256),
    report=Evaluation(world="0" * 20, reward="standard", split="report", episodes=256),
)
BASE = {"train.steps": 500, "train.batch_size": 64, "train.learning_rate": 1e-4, "train.max_tokens": 256}


@dataclass(frozen=True)
class Filled:
    """A store in which a sweep of so many cells is done."""

    folder: Path
    design: Sequence[PlannedTraining]
    cells: int

    def schedule(self, store: Store) -> Schedule:
        """The sweep's schedule as a driver makes it, with its study."""
        study = Study(self.folder / "optuna" / f"{SWEEP}.log", name=SWEEP, seed=0, space={})
        return Schedule(
            store, SWEEP, SHARED, self.design, refinement=None, seeds=1, study=study, resources=Resources()
        )  # fmt: skip


def design_of(cells: int) -> list[PlannedTraining]:
    """An ILQL grid of at least so many cells."""
    trainings = cells // len(BETAS)
    taus = [0.5 + 0.499 * (place + 1) / trainings for place in range(trainings)]
    return Grid("ilql", {"train.tau": taus, "decode.beta": BETAS}).trainings(BASE)


def fill(folder: Path, cells: int) -> Filled:
    """Write a finished sweep of so many cells into a new store."""
    filled = Filled(folder, design_of(cells), cells)
    store = Store(folder, durable=False)
    store.put("sweep", SWEEP, {"created_at": utc(), "task": SHARED.data.task})
    filled.schedule(store)  # records the members
    trainings: dict[str, Record] = {}
    evaluations: dict[str, Record] = {}
    for training in filled.design:
        tune, report = SHARED.on_both(training, 0)
        trials = [*tune, *report]
        for spec in (*trials[0].required, trials[0]):
            if spec.weights_id not in trainings:
                trainings[spec.weights_id] = training_record(spec)
                store.build("weights", spec.weights_id, leave_files, {"spec": spec.to_json()})
        evaluations |= {trial.trial_id: evaluation_record(trial, place) for place, trial in enumerate(trials)}
    store.put_all("training", trainings)
    store.put_all("evaluation", evaluations)
    return filled


def leave_files(folder: Path) -> None:
    """A weights stage's files, without the weights."""
    (folder / "weights.safetensors").write_bytes(b"\0" * 64)
    (folder / "curve.jsonl").write_text('{"step": 1, "loss": 1.0}\n')


def training_record(spec: TrialSpec) -> Record:
    """As a worker writes it when a training has come to its end."""
    about = {"method": spec.method, "seed": spec.seed, "steps": spec.train.steps, "backbone": spec.backbone_key}
    metrics = dict.fromkeys(("loss", "td", "expectile", "conservative", "q_mean", "v_mean"), 0.5)
    cut = {"workers": 1, "micro_batch": 0}
    return {"status": "finished", "reason": None, "train_seconds": 12.5, "metrics": metrics} | cut | about | _made()


def evaluation_record(trial: TrialSpec, place: int) -> Record:
    """As a worker writes it when a trial has been played."""
    measures = dict.fromkeys(("turns", "log_ratio", "empty_share", "repeated_share", "broken_share"), 0.25)
    result = {"score": -5.0 - place / 7, "score_sd": 2.0, "episodes": trial.evaluation.episodes, "measures": measures}
    cost = {"evaluate_seconds": 3.5, "backbone": trial.backbone_key}
    return {"status": "finished", "reason": None} | result | cost | _made()


def _made() -> Record:
    time = {"started_at": "2026-11-21T01:36:11Z", "finished_at": "2026-11-21T01:36:29Z"}
    return time | {"code_digest": code_digest(), "versions": library_versions(), "host": host()}


def plan(filled: Filled) -> None:
    """Open the store and compare what the design needs with what it has."""
    made = make_plan(Store(filled.folder), SHARED, filled.design, seeds=1, refinement=None, need=Need())
    assert (made.cells, made.evaluated, made.seconds) == (filled.cells, made.evaluations, 0.0)


def resume(filled: Filled) -> None:
    """Open the store, make the schedule of the same command again and let it find that everything is done."""
    schedule = filled.schedule(Store(filled.folder))
    assert schedule.next_job() is None
    assert schedule.is_over
    assert schedule.cached_jobs == len(filled.design)


def status(filled: Filled) -> None:
    """Run the command that lists a sweep's rows."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert cli.main(["status", SWEEP, "--store", str(filled.folder)]) == 0
    assert len(out.getvalue().splitlines()) == 2 + filled.cells  # and a header


OPERATIONS: dict[str, Callable[[Filled], None]] = {"plan": plan, "resume": resume, "status": status}


def _rounds(cells: int) -> int:
    """Often where it is quick, and once where it takes long."""
    return 1 if cells > 10_000 else 3 if cells > 1_000 else 7


def _measured(filled: Filled) -> Iterator[tuple[str, float]]:
    """Seconds per cell of each operation, the median of some rounds; the operations take turns."""
    found: dict[str, list[float]] = {name: [] for name in OPERATIONS}
    for _ in range(_rounds(filled.cells)):
        for name, operation in OPERATIONS.items():
            gc.collect()  # what an earlier operation left is not this one's to clear away
            found[name].append(seconds(lambda: operation(filled)) / filled.cells)  # noqa: B023  called at once
    return ((name, statistics.median(each)) for name, each in found.items())


def run(quick: bool) -> list[Line]:
    """A line for each operation."""
    sizes = QUICK if quick else SIZES
    costs: dict[str, dict[int, float]] = {name: {} for name in OPERATIONS}
    for cells in sizes:
        with tempfile.TemporaryDirectory() as folder:
            for name, cost in _measured(fill(Path(folder) / "store", cells)):
                costs[name][cells] = cost
    return [_line(name, cost) for name, cost in costs.items()]


def _line(name: str, cost: dict[int, float]) -> Line:
    smallest, largest = min(cost), max(cost)
    worst = max(cost[cells] for cells in cost if cells >= REFERENCE) / cost[REFERENCE]
    each = ", ".join(f"{seconds_ * 1e6:,.0f} µs at {cells:,}" for cells, seconds_ in cost.items())
    return Line(
        name=f"{name}: seconds per cell with {largest:,} recorded",
        unit="s",
        ours=(cost[largest],),
        other=(cost[smallest],),
        other_is=f"ours with {smallest:,}",
        goal=GOAL,
        at_least=False,
        more_is_better=False,
        note=f"a cell costs {each}; the worst from {REFERENCE:,} on is {worst:.2f} times that at {REFERENCE:,}",
        details={"seconds_per_cell": {str(cells): value for cells, value in cost.items()}, "worst_by_1000": worst},
    )


BENCHMARK = Benchmark(
    name="cells",
    question="Does a cell cost the same to plan, to find done and to list, however many are recorded?",
    run=run,
)
