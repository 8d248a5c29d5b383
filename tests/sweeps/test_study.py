"""The Optuna study: told scores, it proposes, and proposes the same when it is made again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from ilql.hyperparameters import Search
from sweeps.space import Between
from sweeps.study import Study, parameter, parts_of

if TYPE_CHECKING:
    from conftest import MakeTrainings

SPACE = (Between("train.tau", Search(0.5, 0.95)), Between("train.cql_weight", Search(0.01, 10.0, log=True)))

Score = Callable[[float], float]


def near_08(tau: float) -> float:
    return -((tau - 0.8) ** 2)


def near_06(tau: float) -> float:
    return -((tau - 0.6) ** 2)


def make_study(file: Path, *, seed: int = 0) -> Study:
    return Study(file, name="sweep", seed=seed, space={"ilql": SPACE})


def told(study: Study, make_trainings: MakeTrainings, score: Score, *, backwards: bool = False) -> Study:
    """A design of five trainings, all scored."""
    taus = (0.55, 0.6, 0.7, 0.8, 0.9)
    numbers = [study.enqueue(training) for training in make_trainings("ilql", {"train.tau": taus})]
    pairs = list(zip(numbers, taus, strict=True))
    for number, tau in reversed(pairs) if backwards else pairs:
        study.tell(number, {"beta=4": score(tau) - 1, "beta=8": score(tau)})
    return study


def proposals(study: Study, score: Score, count: int = 6) -> list[dict[str, float]]:
    """Rounds of two, each told before the next is asked for."""
    made = []
    for _ in range(count // 2):
        asked = [study.propose("ilql", "ilql") for _ in range(2)]
        for number, values in asked:
            study.tell(number, {"beta=8": score(values["train.tau"])})
            made.append(values)
    return made


def read(file: Path) -> optuna.Study:
    return optuna.load_study(study_name="sweep", storage=JournalStorage(JournalFileBackend(str(file))))


def test_a_study_made_again_proposes_the_same(tmp_path: Path, make_trainings: MakeTrainings) -> None:
    first = proposals(told(make_study(tmp_path / "a.log"), make_trainings, near_08), near_08)
    again = proposals(told(make_study(tmp_path / "a.log"), make_trainings, near_08), near_08)
    elsewhere = proposals(told(make_study(tmp_path / "b.log"), make_trainings, near_08), near_08)
    assert first == again == elsewhere
    assert len({values["train.tau"] for values in first}) == 6


def test_proposals_do_not_depend_on_the_order_in_which_scores_came(
    tmp_path: Path, make_trainings: MakeTrainings
) -> None:
    forwards = told(make_study(tmp_path / "a.log"), make_trainings, near_08)
    backwards = told(make_study(tmp_path / "b.log"), make_trainings, near_08, backwards=True)
    assert proposals(forwards, near_08) == proposals(backwards, near_08)


def test_proposals_depend_on_the_scores(tmp_path: Path, make_trainings: MakeTrainings) -> None:
    high = told(make_study(tmp_path / "a.log"), make_trainings, near_08)
    low = told(make_study(tmp_path / "b.log"), make_trainings, near_06)
    assert proposals(high, near_08) != proposals(low, near_06)


def test_proposals_depend_on_the_seed(tmp_path: Path, make_trainings: MakeTrainings) -> None:
    one = told(make_study(tmp_path / "a.log", seed=1), make_trainings, near_08)
    two = told(make_study(tmp_path / "b.log", seed=2), make_trainings, near_08)
    assert proposals(one, near_08) != proposals(two, near_08)


def test_proposals_stay_inside_the_space(tmp_path: Path, make_trainings: MakeTrainings) -> None:
    for values in proposals(told(make_study(tmp_path / "a.log"), make_trainings, near_08), near_08, count=10):
        assert set(values) == {"train.tau", "train.cql_weight"}
        assert 0.5 <= values["train.tau"] <= 0.95
        assert 0.01 <= values["train.cql_weight"] <= 10.0


def test_a_trials_value_is_its_best_decodings_and_all_scores_are_kept(
    tmp_path: Path, make_trainings: MakeTrainings
) -> None:
    study = make_study(tmp_path / "a.log")
    (training,) = make_trainings("ilql", {"train.tau": (0.7,)})
    study.tell(study.enqueue(training), {"beta=4": -8.0, "beta=8": -5.5, "beta=16": -7.0})
    (trial,) = read(tmp_path / "a.log").trials
    assert trial.value == -5.5
    assert trial.user_attrs["scores"] == {"beta=4": -8.0, "beta=8": -5.5, "beta=16": -7.0}
    assert (trial.user_attrs["method"], trial.user_attrs["origin"]) == ("ilql", "design")


def test_sarsa_informs_proposals_as_ilql_at_one_half(tmp_path: Path, make_trainings: MakeTrainings) -> None:
    study = make_study(tmp_path / "a.log")
    (training,) = make_trainings("sarsa")
    study.tell(study.enqueue(training), {"beta=8": -5.0})
    (trial,) = read(tmp_path / "a.log").trials
    assert trial.params["ilql train.tau"] == 0.5
    assert trial.user_attrs["method"] == "sarsa"


def test_what_one_method_scores_is_nothing_to_another(tmp_path: Path, make_trainings: MakeTrainings) -> None:
    found = []
    for name, others in (("low", -9.0), ("high", 9.0), ("none", None)):
        space = {"ilql": SPACE, "cql": (Between("train.gamma", Search(0.9, 1.0)),)}
        study = Study(tmp_path / f"{name}.log", name="sweep", seed=0, space=space)
        for training in make_trainings("cql", {"train.gamma": (0.91, 0.95, 0.99)}):
            if others is not None:
                study.tell(study.enqueue(training), {"beta=8": others})
        found.append(proposals(told(study, make_trainings, near_08), near_08))
        assert len(read(tmp_path / f"{name}.log").trials) == 5 + 6 + (0 if others is None else 3)
    assert found[0] == found[1] == found[2]


def test_a_variant_learns_from_its_own_trials_alone(tmp_path: Path, make_trainings: MakeTrainings) -> None:
    space = {"ilql": SPACE, "ilql_single": SPACE}
    study = Study(tmp_path / "a.log", name="sweep", seed=0, space=space)
    single = make_trainings("ilql", {"train.tau": (0.6,)}, variant="ilql_single", switch={"train.double_q": False})
    study.tell(study.enqueue(single[0]), {"beta=8": -1.0})
    (number, values) = study.propose("ilql", "ilql_single")
    planned, proposed = read(tmp_path / "a.log").trials
    assert set(planned.params) == {"ilql_single train.tau", "ilql_single train.cql_weight"}
    assert proposed.number == number
    assert proposed.params == {f"ilql_single {name}": value for name, value in values.items()}
    assert (proposed.user_attrs["method"], proposed.user_attrs["arm"]) == ("ilql", "ilql_single")


def test_an_arm_that_is_not_refined_is_a_trial_too(tmp_path: Path, make_trainings: MakeTrainings) -> None:
    study = make_study(tmp_path / "a.log")
    (training,) = make_trainings("cql")
    study.tell(study.enqueue(training), {"beta=8": -5.0})
    (trial,) = read(tmp_path / "a.log").trials
    assert (trial.params, trial.value, trial.user_attrs["arm"]) == ({}, -5.0, "cql")


def test_sarsa_that_is_refined_informs_itself_and_ilql(tmp_path: Path, make_trainings: MakeTrainings) -> None:
    space = {"ilql": SPACE, "sarsa": (Between("train.cql_weight", Search(0.01, 10.0, log=True)),)}
    study = Study(tmp_path / "a.log", name="sweep", seed=0, space=space)
    (training,) = make_trainings("sarsa", {"train.cql_weight": (2.0,)})
    study.enqueue(training)
    (trial,) = read(tmp_path / "a.log").trials
    assert trial.params == {"ilql train.tau": 0.5, "ilql train.cql_weight": 2.0, "sarsa train.cql_weight": 2.0}


def test_a_method_without_the_spaces_columns_is_a_trial_too(tmp_path: Path, make_trainings: MakeTrainings) -> None:
    study = make_study(tmp_path / "a.log")
    (training,) = make_trainings("bc")
    study.tell(study.enqueue(training), {"as trained": -5.0})
    (trial,) = read(tmp_path / "a.log").trials
    assert (trial.params, trial.value) == ({}, -5.0)
    assert trial.user_attrs["train"]["train.steps"] == 12


def test_a_planned_value_outside_the_space_is_an_attribute(tmp_path: Path, make_trainings: MakeTrainings) -> None:
    study = make_study(tmp_path / "a.log")
    (training,) = make_trainings("ilql", {"train.tau": (0.99,)})
    study.tell(study.enqueue(training), {"beta=8": -5.0})
    (trial,) = read(tmp_path / "a.log").trials
    assert "ilql train.tau" not in trial.params
    assert trial.user_attrs["train"]["train.tau"] == 0.99


def test_a_training_stopped_at_its_rung_is_pruned_with_its_score(tmp_path: Path, make_trainings: MakeTrainings) -> None:
    study = told(make_study(tmp_path / "a.log"), make_trainings, near_08)
    number, _ = study.propose("ilql", "ilql")
    study.stop(number, step=10, score=-3.0)
    trial = read(tmp_path / "a.log").trials[number]
    assert trial.state is TrialState.PRUNED
    assert trial.intermediate_values == {10: -3.0}
    assert trial.user_attrs["origin"] == "refinement"


def test_a_failed_training_is_failed_with_its_reason(tmp_path: Path, make_trainings: MakeTrainings) -> None:
    study = make_study(tmp_path / "a.log")
    (training,) = make_trainings("ilql")
    study.fail(study.enqueue(training), "the training has diverged")
    (trial,) = read(tmp_path / "a.log").trials
    assert trial.state is TrialState.FAIL
    assert trial.user_attrs["reason"] == "the training has diverged"


def test_proposals_go_on_after_failures_and_stops(tmp_path: Path, make_trainings: MakeTrainings) -> None:
    def run(file: Path) -> list[dict[str, float]]:
        study = told(make_study(file), make_trainings, near_08)
        study.fail(study.propose("ilql", "ilql")[0], "diverged")
        study.stop(study.propose("ilql", "ilql")[0], step=10, score=-3.0)
        return proposals(study, near_08, count=2)

    assert run(tmp_path / "a.log") == run(tmp_path / "b.log")


def test_the_file_opens_as_any_optuna_study(tmp_path: Path, make_trainings: MakeTrainings) -> None:
    file = tmp_path / "deep" / "a.log"
    study = told(make_study(file), make_trainings, near_08)
    found = read(file)
    assert study.file == file
    assert found.best_value == pytest.approx(0.0)
    assert found.best_params["ilql train.tau"] == 0.8
    assert [trial.state for trial in found.trials] == [TrialState.COMPLETE] * 5


def test_a_parameter_is_of_one_arm_and_one_column() -> None:
    names = [parameter(arm, "train.tau") for arm in ("ilql", "ilql without lm")]
    assert [parts_of(name) for name in names] == [("ilql", "train.tau"), ("ilql without lm", "train.tau")]
