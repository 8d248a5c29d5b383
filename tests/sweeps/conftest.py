"""Trials, settings and a small trained store that the tests of this folder share."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from services import ObjectServer
from surrogate import drive

from ilql.language_model import Architecture
from ilql.methods import bc, method_named
from ilql.tasks import bandit
from sweeps import leases
from sweeps.cells import Shared
from sweeps.job import Job, Resources
from sweeps.leases import Lease
from sweeps.refinement import Refinement
from sweeps.schedule import Schedule
from sweeps.space import Between, Grid, PlannedTraining
from sweeps.spec import Backbone, Data, Evaluation, TrialSpec
from sweeps.stages import ensure_start, ensure_world
from sweeps.store import Store
from sweeps.study import Study
from sweeps.work import run_job

ROOT = Path(__file__).resolve().parents[2]

BEHAVIOUR = bc.Train(steps=12, batch_size=16, learning_rate=1e-2, max_tokens=16)
BACKBONE = Backbone(
    architecture=Architecture(layers=1, width=16, heads=2, context=16), vocabulary=64, behaviour=BEHAVIOUR
)
VALUE_TRAINING = {"train.steps": 20, "train.batch_size": 16, "train.learning_rate": 5e-3, "train.max_tokens": 16}
CLONING = {f"train.{name}": value for name, value in dataclasses.asdict(BEHAVIOUR).items()}
DECODING = {"decode.greedy": False, "decode.max_new_tokens": 4}

MakeTrial = Callable[..., TrialSpec]
MakeTrainings = Callable[..., list[PlannedTraining]]


@pytest.fixture
def make_trial() -> MakeTrial:
    """A trial of the bandit by method, with its parts' fields overridden by name: `train={"tau": 0.9}`."""
    return _trial


@pytest.fixture(scope="session")
def make_trainings() -> MakeTrainings:
    """A grid's trainings on the small settings: `("ilql", {"train.tau": (0.7, 0.9)}, variant="mine")`."""

    def trainings(
        method: str,
        columns: Mapping[str, Any] | None = None,
        *,
        variant: str | None = None,
        switch: Mapping[str, Any] | None = None,
    ) -> list[PlannedTraining]:
        base = (VALUE_TRAINING if method_named(method).needs_behaviour else CLONING) | DECODING
        return Grid(method, columns or {}, variant, switch or {}).trainings(base)

    return trainings


def _trial(
    method: str = "ilql",
    *,
    seed: int = 0,
    data: Mapping[str, Any] | None = None,
    backbone: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
    decode: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
) -> TrialSpec:
    kind = method_named(method)
    settings = VALUE_TRAINING if kind.needs_behaviour else CLONING
    plain = {name.removeprefix("train."): value for name, value in settings.items()}
    judged: dict[str, Any] = {"world": "w0", "reward": "standard", "episodes": 8} | dict(evaluation or {})
    return TrialSpec(
        method=method,
        data=Data(**{"task": "bandit", "world": "w0", "reward": "standard"} | dict(data or {})),
        backbone=dataclasses.replace(BACKBONE, **dict(backbone or {})),
        train=kind.train(**plain | dict(train or {})),
        seed=seed,
        decode=kind.decode(**{"greedy": False, "max_new_tokens": 4} | dict(decode or {})),
        evaluation=Evaluation(**judged),
    )


@dataclass(frozen=True)
class Bench:
    """A store with a built bandit and its trained behaviour policy, and trials that fit it."""

    store: Store
    world: str

    def trial(self, method: str = "ilql", **parts: Any) -> TrialSpec:
        """As `make_trial`, in this store's world."""
        parts["data"] = {"world": self.world} | parts.get("data", {})
        parts["evaluation"] = {"world": self.world} | parts.get("evaluation", {})
        return _trial(method, **parts)

    def member(self, trial: TrialSpec, sweep: str = "s", **more: Any) -> dict[str, Any]:
        """The record by which a sweep wants a trial's evaluation."""
        return {
            "sweep": sweep, "trial_id": trial.trial_id, "weights_id": trial.weights_id, "cell_id": trial.cell_id,
            "method": trial.method, "origin": "design", "seed": trial.seed, "columns": trial.columns(),
            "tune_trial_id": None, "spec": trial.to_json(),
        } | more  # fmt: skip

    def job(self, training: TrialSpec, *evaluations: TrialSpec, keep_trajectory: bool = False) -> Job:
        """The job that trains and plays them."""
        return Job(
            store=str(self.store.folder),
            training=training.to_json(),
            evaluations=tuple(trial.to_json() for trial in evaluations),
            resources=Resources(checkpoint_every=5, log_every=4),
            keep_trajectory=keep_trajectory,
        )

    def weights(self, trial: TrialSpec) -> bytes:
        """The bytes of a trial's weights."""
        folder = self.store.stage("weights", trial.weights_id)
        assert folder is not None
        return (folder / "weights.safetensors").read_bytes()


@pytest.fixture(scope="session")
def bench_template(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The store that every `bench` is a copy of: made once."""
    store = Store(tmp_path_factory.mktemp("bench") / "store", durable=False)
    world = ensure_world(store, bandit.KIND, bandit.Settings(dialogues=16), {})
    bench = Bench(store, world.key)
    behaviour = bench.trial("bc")
    ensure_start(store, behaviour, None)
    assert run_job(bench.job(behaviour), lambda numbers: None) == "finished"
    return bench


CopyBench = Callable[[], Bench]


@pytest.fixture(scope="session")
def copy_bench(bench_template: Bench, tmp_path_factory: pytest.TempPathFactory) -> CopyBench:
    """Makes a copy of the template that lives as long as it is used."""
    return lambda: copy_of(bench_template, tmp_path_factory.mktemp("bench") / "copy")


@pytest.fixture
def bench(bench_template: Bench, tmp_path: Path) -> Bench:
    """A store of the test's own, to train in."""
    return copy_of(bench_template, tmp_path / "bench")


@pytest.fixture
def other_bench(bench_template: Bench, tmp_path: Path) -> Bench:
    """A second one, equal to the first, to compare with."""
    return copy_of(bench_template, tmp_path / "other")


def copy_of(bench: Bench, folder: Path) -> Bench:
    """An equal store elsewhere."""
    shutil.copytree(bench.store.folder, folder)
    return Bench(Store(folder, durable=False), bench.world)


@pytest.fixture
def shared() -> Shared:
    """What the trials of a pretended sweep share."""
    trial = _trial()
    judged: dict[str, Any] = {"world": "w0", "reward": "standard", "episodes": 8}
    return Shared(
        data=trial.data,
        backbone=trial.backbone,
        tune=Evaluation(**judged, split="tune"),
        report=Evaluation(**judged, split="report"),
    )


Score = Callable[[TrialSpec], float]


def _by_tau(trial: TrialSpec) -> float:
    _, train = method_named(trial.method).trained_as(trial.train)
    return float(getattr(train, "tau", 0.0) + train.steps / 1000 - trial.seed / 100)


@dataclass
class Worker:
    """Does jobs by writing what a real worker would leave behind; remembers them.

    Attributes:
        store: Where.
        score: Of a trial; by default the best proposal is the one with the largest tau, and more steps are a little
            better.
        broken: Why a training fails, or None.
        done: The jobs, in order.
    """

    store: Store
    score: Score = _by_tau
    broken: Callable[[TrialSpec], str | None] = lambda trial: None
    done: list[Job] = field(default_factory=list)

    def work(self, job: Job) -> None:
        """Pretend to train and to play."""
        self.done.append(job)
        spec = TrialSpec.from_json(job.training)
        if (reason := self.broken(spec)) is not None:
            self.store.put("training", spec.weights_id, {"status": "failed", "reason": reason})
            return
        if (key := spec.candidates_key) is not None:
            self.store.build("candidates", key, lambda folder: None, {})
        self.store.build("weights", spec.weights_id, lambda folder: None, {})
        record: dict[str, Any] = {"status": "finished", "reason": None}
        self.store.put("training", spec.weights_id, record | {"steps": spec.train.steps, "train_seconds": 2.0})
        for text in job.evaluations:
            trial = TrialSpec.from_json(text)
            result = {"score": self.score(trial), "score_sd": 1.0, "episodes": trial.evaluation.episodes}
            self.store.put("evaluation", trial.trial_id, record | result | {"evaluate_seconds": 1.0})

    def drive(self, schedule: Schedule, *, places: int = 1, pick: int = 0) -> None:
        """Run to the end with some places; of the jobs that run, the one at `pick` ends first."""
        drive(schedule, self.work, places=places, pick=pick)

    @property
    def trained(self) -> list[str]:
        """Method, tau where there is one, steps and seed of every job, in order."""
        return [_name(TrialSpec.from_json(job.training)) for job in self.done]


def _name(spec: TrialSpec) -> str:
    tau = f" {spec.train.tau:.2f}" if spec.method == "ilql" else ""
    return f"{spec.method}{tau} {spec.train.steps} #{spec.seed}"


@dataclass(frozen=True)
class PretendedSweep:
    """Makes the schedule of the same sweep again and again, as a rerun does.

    Attributes:
        store: Where its rows go.
        shared: What its trials share.
        folder: Where its studies lie.
        design: Its planned trainings.
        space: What proposals vary, by arm.
    """

    store: Store
    shared: Shared
    folder: Path
    design: Sequence[PlannedTraining]
    space: Mapping[str, Sequence[Between]]

    def schedule(
        self,
        *,
        refinement: Refinement | None = None,
        seeds: int = 1,
        name: str = "sweep",
        lease: Lease | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> Schedule:
        """A fresh schedule, and a fresh study."""
        study = Study(self.folder / f"{name}.log", name=name, seed=0, space=self.space)
        return Schedule(
            self.store, name, self.shared, self.design, refinement=refinement, seeds=seeds, study=study,
            resources=Resources(), lease=lease, clock=clock,
        )  # fmt: skip

    def proposals(self, count: int, *, rung: float = 1.0, round_size: int = 2) -> Refinement:
        """So many proposals for every arm that has a space."""
        bases = tuple(next(training for training in self.design if training.arm == arm) for arm in self.space)
        return Refinement(bases=bases, proposals=count, rung=rung, round_size=round_size)

    def worker(self) -> Worker:
        """A fresh worker of its store."""
        return Worker(self.store)

    def read_study(self) -> optuna.Study:
        """The study as Optuna reads it."""
        storage = JournalStorage(JournalFileBackend(str(self.folder / "sweep.log")))
        return optuna.load_study(study_name="sweep", storage=storage)


Follow = Callable[[Store, Lease], Lease]


@pytest.fixture
def follow(monkeypatch: pytest.MonkeyPatch) -> Follow:
    """Lets somebody else take a lease over, as if its holder had been suspended for longer than anybody waits."""

    def take_over(store: Store, lease: Lease) -> Lease:
        leases._HEART.drop(lease)
        with monkeypatch.context() as patch:
            patch.setattr(leases.Holder, "is_dead", lambda self: True)
            theirs = Store(store.folder).try_lease(lease.key)
        assert theirs is not None
        return theirs

    return take_over


MakeSweep = Callable[..., PretendedSweep]


@pytest.fixture
def make_sweep(shared: Shared, tmp_path: Path) -> MakeSweep:
    """A pretended sweep of some trainings in a store of its own, with what its arms' proposals vary."""

    def sweep(design: Sequence[PlannedTraining], **space: Sequence[Between]) -> PretendedSweep:
        return PretendedSweep(Store(tmp_path / "store", durable=False), shared, tmp_path, design, space)

    return sweep


@pytest.fixture(scope="session")
def object_server() -> Iterator[ObjectServer]:
    """One that runs."""
    server = ObjectServer()
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def s3_address(object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty place there, with what opens it in the environment."""
    for name, value in ObjectServer.KEYS.items():
        monkeypatch.setenv(name, value)
    return object_server.place()


@dataclass(frozen=True)
class Finished:
    """A command that came to its end."""

    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Commands:
    """Runs our programs as a user would, from a folder that is not the checkout."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """The user's environment: nothing of Ray or of the sweeps is set in it, and one thread each."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SWEEPS_", "MLFLOW_"))
        }
        return kept | {"OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}

    def start(self, *command: str | Path, **more: str) -> subprocess.Popen[str]:
        """Start a program of this interpreter, its output piped, in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=self.folder,
            env=self.environment | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # As from a terminal: what a shell starts in the background ignores Ctrl-C, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )

    def run(self, *command: str | Path, timeout: float = 840) -> Finished:
        """Run one to its end."""
        process = self.start(*command)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return Finished(process.returncode, out, err)

    def bandit(self, store: Path, *options: str) -> Finished:
        """Run the bandit's smoke sweep."""
        return self.run(ROOT / "sweeps" / "bandit_ablation.py", "--preset", "smoke", "--store", str(store), *options)

    def sweeps(self, *arguments: str) -> Finished:
        """Run the `sweeps` command."""
        # `-m` puts the working directory on the path; the checkout's packages must be found wherever we are.
        return self.run("-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); from sweeps.cli import main; "
                        "sys.exit(main())", *arguments)  # fmt: skip


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Commands:
    """Runs our programs from an empty folder."""
    return Commands(tmp_path_factory.mktemp("elsewhere"))


@dataclass(frozen=True)
class BanditSweep:
    """The bandit's smoke sweep, run to its end. Tests read its store and change nothing in it."""

    store: Store
    name: str
    out: str


@pytest.fixture(scope="session")
def bandit_sweep(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> BanditSweep:
    """`python sweeps/bandit_ablation.py --preset smoke`, from another directory."""
    folder = tmp_path_factory.mktemp("bandit") / "store"
    done = commands.bandit(folder)
    assert done.status == 0, done.out + done.err
    return BanditSweep(Store(folder), "bandit-smoke-generated-standard", done.out)


@pytest.fixture
def copied(bandit_sweep: BanditSweep, tmp_path: Path) -> BanditSweep:
    """The finished sweep's store, to change."""
    folder = tmp_path / "store"
    shutil.copytree(bandit_sweep.store.folder, folder, ignore=shutil.ignore_patterns("tune", "mlflow*"))
    return type(bandit_sweep)(Store(folder), bandit_sweep.name, bandit_sweep.out)
