"""The Optuna study of a sweep: the design's trainings enqueued, then seeded proposals of the refinement.

A trial is one training (a method and its `train.*`) at the first training seed. Its value is the best decoding's mean
return on the tune scenes. The study is a client of the store: it is made anew, from the store's scores, every time a
sweep runs, and its proposals depend on those scores and the seed alone; so a sweep that was killed proposes the same
again, and finds it done. `optuna-dashboard FILE` opens it.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from ilql.methods import method_named
from sweeps.space import Between, PlannedTraining
from sweeps.store import Store

optuna.logging.set_verbosity(optuna.logging.WARNING)


def study_file(store: Store, sweep: str) -> Path:
    """Where the study of a sweep lies."""
    return store.folder / "optuna" / f"{sweep}.log"


def parameter(arm: str, column: str) -> str:
    """A column's name in a study: what one arm learnt of it says nothing of another's."""
    return f"{arm} {column}"


def parts_of(name: str) -> tuple[str, str]:
    """The arm and the column of a parameter's name."""
    arm, _, column = name.rpartition(" ")
    return arm, column


def scored_trials(store: Store, sweep: str) -> list[FrozenTrial]:
    """The trials of a sweep's stored study that vary something and have a value; none where there is no study."""
    file = study_file(store, sweep)
    if not file.is_file():
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.load_study(study_name=sweep, storage=JournalStorage(JournalFileBackend(str(file))))
        return [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE and t.params]


class _OwnJournal(BaseJournalBackend):
    """A journal file of Optuna's that one process makes, and nobody else appends to.

    Optuna's own backend takes a lock and waits for the disk at every change, since many may write: milliseconds for
    each, and a sweep that is resumed makes several changes for each of its trainings. This file is made anew by every
    run; what it must survive is being read meanwhile, by `optuna-dashboard` or `JournalFileBackend`.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._logs: list[dict[str, Any]] = []

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append whole lines."""
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        with self._file.open("a", encoding="utf-8") as file:
            file.write("".join(line + "\n" for line in lines))
        self._logs += map(json.loads, lines)  # as a reader has it

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """What was appended from that number on, from memory."""
        return iter(self._logs[log_number_from:])


class Study:
    """A fresh study in a journal file.

    Args:
        file: Where; an older study there is replaced.
        name: The sweep's name.
        seed: Decides the proposals, together with the values told.
        space: What proposals vary, by arm.
    """

    def __init__(self, file: Path, *, name: str, seed: int, space: Mapping[str, Sequence[Between]]) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        self.file = file
        self._seed = seed
        self._space: dict[str, dict[str, BaseDistribution]] = {
            arm: {d.column: _distribution(d) for d in dimensions} for arm, dimensions in space.items()
        }
        self._storage = JournalStorage(_OwnJournal(file))
        self._study = optuna.create_study(storage=self._storage, study_name=name, direction="maximize")
        self._study_id = self._storage.get_study_id_from_name(name)
        self._ids: dict[int, int] = {}  # Optuna's id of a trial, by its number

    def enqueue(self, training: PlannedTraining) -> int:
        """A planned training as a trial; returns its number.

        Its values of its arm's columns inform the arm's proposals; those of other columns are attributes.
        """
        columns = _columns(training)
        known = {
            (arm, name): value
            for arm in _informs(training)
            for name, distribution in self._space.get(arm, {}).items()
            if isinstance(value := columns.get(name), _kind(distribution)) and distribution._contains(value)
        }
        searched = {name for _, name in known}
        train = {name: value for name, value in columns.items() if name not in searched}
        return self._begin(
            {parameter(arm, name): value for (arm, name), value in known.items()},
            {parameter(arm, name): self._space[arm][name] for arm, name in known},
            _about(training.method, training.arm, training.origin) | {"train": train},
        )

    def propose(self, method: str, arm: str) -> tuple[int, dict[str, int | float]]:
        """The next proposal for an arm: its trial's number, and a value for every column of the arm's space."""
        space = {parameter(arm, name): distribution for name, distribution in self._space[arm].items()}
        # The sampler sees the arm's own trials alone: it would rank those of all arms together, and take what is low in
        # a better arm for good. One sampler per proposal: the n-th depends on the values told before it, not on how
        # often we were restarted, nor on what other arms there are.
        own = self._trials_of(space)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = TPESampler(seed=self._seed * 100_003 + len(own), n_startup_trials=4, constant_liar=True)
        alone = optuna.create_study(direction="maximize", sampler=sampler)
        alone.add_trials(own)
        params = alone.ask(space).params
        number = self._begin(params, space, _about(method, arm, "refinement"))
        return number, {name: _kind(how)(params[parameter(arm, name)]) for name, how in self._space[arm].items()}

    def tell(self, number: int, scores: Mapping[str, float]) -> None:
        """A training's scores on the tune scenes, by decoding; its value is the best of them."""
        self._storage.set_trial_user_attr(self._ids[number], "scores", dict(scores))
        self._study.tell(number, max(scores.values()))

    def stop(self, number: int, *, step: int, score: float) -> None:
        """A training that was stopped at a rung with this score."""
        self._storage.set_trial_intermediate_value(self._ids[number], step, score)
        self._study.tell(number, state=TrialState.PRUNED)

    def fail(self, number: int, reason: str) -> None:
        """A training that failed."""
        self._storage.set_trial_user_attr(self._ids[number], "reason", reason)
        self._study.tell(number, state=TrialState.FAIL)

    def _begin(
        self, params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution], about: Mapping[str, Any]
    ) -> int:
        """A running trial with all that is known of it, in one record; returns its number.

        Optuna's `ask` looks through all trials for one that waits: what a trial costs would grow with their number.
        """
        trial = create_trial(
            state=TrialState.RUNNING, params=dict(params), distributions=dict(distributions), user_attrs=dict(about)
        )
        made = self._storage.create_new_trial(self._study_id, template_trial=trial)
        number = self._storage.get_trial_number_from_id(made)
        self._ids[number] = made
        return number

    def _trials_of(self, space: Mapping[str, BaseDistribution]) -> list[FrozenTrial]:
        """The trials that have one of the parameters, in order, with nothing but those."""
        found = []
        for trial in self._study.get_trials(deepcopy=False):
            params = {name: value for name, value in trial.params.items() if name in space}
            if params:
                distributions = {name: space[name] for name in params}
                found.append(
                    create_trial(
                        state=trial.state,
                        value=trial.value,
                        params=params,
                        distributions=distributions,
                        intermediate_values=trial.intermediate_values,
                    )
                )
        return found


def _distribution(dimension: Between) -> BaseDistribution:
    """Where Optuna draws a column from."""
    if dimension.whole:
        return IntDistribution(round(dimension.low), round(dimension.high), log=dimension.search.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.search.log)


def _kind(distribution: BaseDistribution) -> type[int] | type[float]:
    """The type of what is drawn."""
    return int if isinstance(distribution, IntDistribution) else float


def _about(method: str, arm: str, origin: str) -> dict[str, Any]:
    """What every trial says of itself."""
    return {"method": method, "arm": arm, "origin": origin}


def _informs(training: PlannedTraining) -> tuple[str, ...]:
    """The arms whose proposals a training's score informs: SARSA's informs ILQL's too, being ILQL at τ = ½."""
    if training.arm != training.method:
        return (training.arm,)
    return tuple(dict.fromkeys((training.arm, method_named(training.method).trained_as(training.train)[0])))


def _columns(training: PlannedTraining) -> dict[str, object]:
    """The training's columns, under the name its weights go by: SARSA informs proposals as ILQL at τ = ½."""
    _, train = method_named(training.method).trained_as(training.train)
    return {f"train.{name}": value for name, value in dataclasses.asdict(train).items()}
