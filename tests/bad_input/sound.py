"""What is sound: a store with a finished sweep, made without a cluster, for faults to differ from."""

from __future__ import annotations

from pathlib import Path

from ilql.language_model import Architecture
from ilql.methods import bc
from ilql.tasks import bandit
from sweeps.cells import Shared
from sweeps.job import Resources
from sweeps.schedule import Schedule
from sweeps.space import Grid
from sweeps.spec import Backbone, Data, Evaluation
from sweeps.stages import ensure_start, ensure_world
from sweeps.store import Store
from sweeps.study import Study
from sweeps.work import run_job

SWEEP = "sound"
CLONING = {"train.steps": 3, "train.batch_size": 8, "train.learning_rate": 1e-2, "train.max_tokens": 16}
DECODING = {"decode.greedy": True, "decode.max_new_tokens": 2}


def make_store(folder: Path) -> Store:
    """A store with one finished sweep of two trials: `bc`, and `sarsa`, which has values."""
    store = Store(folder, durable=False)
    world = ensure_world(store, bandit.KIND, bandit.Settings(), {})
    backbone = Backbone(
        architecture=Architecture(layers=1, width=16, heads=2, context=16),
        vocabulary=64,
        behaviour=bc.Train(steps=3, batch_size=8, learning_rate=1e-2, max_tokens=16),
    )
    shared = Shared(
        data=Data(task="bandit", world=world.key, reward="standard"),
        backbone=backbone,
        tune=Evaluation(world=world.key, reward="standard", split="tune", episodes=2),
        report=Evaluation(world=world.key, reward="standard", split="report", episodes=2),
    )
    design = [*Grid("bc", {}).trainings(CLONING | DECODING), *Grid("sarsa", {}).trainings(CLONING | DECODING)]
    ensure_start(store, shared.trials(design[0], 0, shared.tune)[0], None)
    record = {"question": "bandit", "task": "bandit", "methods": ["bc", "sarsa"], "created_at": "2026-01-01T00:00:00Z"}
    store.put("sweep", SWEEP, record)
    (folder / "optuna").mkdir()
    study = Study(folder / "optuna" / f"{SWEEP}.log", name=SWEEP, seed=0, space={})
    resources = Resources(checkpoint_every=2, log_every=1)
    schedule = Schedule(
        store, SWEEP, shared, design, refinement=None, seeds=1, study=study, resources=resources
    )  # fmt: skip
    while (found := schedule.next_job()) is not None:
        name, job = found
        assert run_job(job, lambda numbers: None) == "finished"
        schedule.job_ended(name, None)
    assert schedule.is_over
    return store


def trial_of(store: Path, method: str) -> str:
    """The id of the sound sweep's trial of a method."""
    return next(row["trial_id"] for row in Store(store).rows(SWEEP) if row["method"] == method)
