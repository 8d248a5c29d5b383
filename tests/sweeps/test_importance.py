from __future__ import annotations

from pathlib import Path

import optuna
from optuna.distributions import FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial

from sweeps.importance import FEWEST_TRAININGS, adaptive_importances
from sweeps.store import Store
from sweeps.study import study_file


def study_of(store: Store, trainings: int) -> None:
    """A sweep's study in which the score is τ's distance from .8, whatever γ is."""
    file = study_file(store, "s")
    file.parent.mkdir(exist_ok=True)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(file))), study_name="s", direction="maximize"
    )
    unit = FloatDistribution(0.0, 1.0)
    for place in range(trainings):
        tau, gamma = (place * 0.37) % 1.0, (place * 0.61) % 1.0
        params = {"ilql train.tau": tau, "ilql train.gamma": gamma}
        study.add_trial(create_trial(value=-abs(tau - 0.8), params=params, distributions=dict.fromkeys(params, unit)))
    study.add_trial(
        create_trial(state=TrialState.FAIL, params={"ilql train.tau": 0.1}, distributions={"ilql train.tau": unit})
    )


def test_what_decides_the_score_tells_the_best_from_the_rest(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", durable=False)
    study_of(store, 60)
    (found,) = adaptive_importances(store, "s")
    assert (found.arm, found.trainings, found.quantile) == ("ilql", 60, 0.1)
    assert list(found.shares) == ["train.tau", "train.gamma"]
    assert found.shares["train.tau"] > 0.8


def test_a_short_search_and_none_at_all_say_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", durable=False)
    assert adaptive_importances(store, "s") == ()
    study_of(store, FEWEST_TRAININGS - 1)
    assert adaptive_importances(store, "s") == ()
