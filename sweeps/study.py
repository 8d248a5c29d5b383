"""The Optuna study of a sweep: the design's trainings enqueued, then seeded proposals of the refinement.

A trial is one training (a method and its `train.*`) at the first training seed. Its value is the best decoding's mean
return on the tune scenes. The study is a client of the store: it is made anew, from the store's scores, every time a
sweep runs, and its proposals depend on those scores and the seed alone; so a sweep that was killed proposes the same
again, and finds it done. `optuna-dashboard FILE` opens it.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from ilql.methods import method_named
from sweeps.space import Between, Training

optuna.logging.set_verbosity(optuna.logging.WARNING)


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
            arm: {d.column: FloatDistribution(d.low, d.high, log=d.log) for d in dimensions}
            for arm, dimensions in space.items()
        }
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(file))), study_name=name, direction="maximize"
        )
        self._trials: dict[int, Trial] = {}

    def enqueue(self, training: Training) -> int:
        """A planned training as a trial; returns its number.

        Its values of its arm's columns inform the arm's proposals; those of other columns are attributes.
        """
        columns = _columns(training)
        known = {
            (arm, name): value
            for arm in _informs(training)
            for name, distribution in self._space.get(arm, {}).items()
            if isinstance(value := columns.get(name), float) and distribution._contains(value)
        }
        self._study.enqueue_trial({_parameter(arm, name): value for (arm, name), value in known.items()})
        trial = self._study.ask({_parameter(arm, name): self._space[arm][name] for arm, name in known})
        self._annotate(trial, training.method, training.arm, training.origin)
        searched = {name for _, name in known}
        trial.set_user_attr("train", {name: value for name, value in columns.items() if name not in searched})
        return trial.number

    def propose(self, method: str, arm: str) -> tuple[int, dict[str, float]]:
        """The next proposal for an arm: its trial's number, and a value for every column of the arm's space."""
        space = {_parameter(arm, name): distribution for name, distribution in self._space[arm].items()}
        # The sampler sees the arm's own trials alone: it would rank those of all arms together, and take what is low in
        # a better arm for good. One sampler per proposal: the n-th depends on the values told before it, not on how
        # often we were restarted, nor on what other arms there are.
        own = self._trials_of(space)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = TPESampler(seed=self._seed * 100_003 + len(own), n_startup_trials=4, constant_liar=True)
        alone = optuna.create_study(direction="maximize", sampler=sampler)
        alone.add_trials(own)
        self._study.enqueue_trial(alone.ask(space).params)
        trial = self._study.ask(space)
        self._annotate(trial, method, arm, "refinement")
        return trial.number, {name: float(trial.params[_parameter(arm, name)]) for name in self._space[arm]}

    def tell(self, number: int, scores: Mapping[str, float]) -> None:
        """A training's scores on the tune scenes, by decoding; its value is the best of them."""
        trial = self._trials[number]
        trial.set_user_attr("scores", dict(scores))
        self._study.tell(trial, max(scores.values()))

    def stop(self, number: int, *, step: int, score: float) -> None:
        """A training that was stopped at a rung with this score."""
        trial = self._trials[number]
        trial.report(score, step)
        self._study.tell(trial, state=TrialState.PRUNED)

    def fail(self, number: int, reason: str) -> None:
        """A training that failed."""
        trial = self._trials[number]
        trial.set_user_attr("reason", reason)
        self._study.tell(trial, state=TrialState.FAIL)

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

    def _annotate(self, trial: Trial, method: str, arm: str, origin: str) -> None:
        self._trials[trial.number] = trial
        for name, value in (("method", method), ("arm", arm), ("origin", origin)):
            trial.set_user_attr(name, value)


def _parameter(arm: str, column: str) -> str:
    """A column's name in the study: what one arm learnt of it says nothing of another's."""
    return f"{arm} {column}"


def _informs(training: Training) -> tuple[str, ...]:
    """The arms whose proposals a training's score informs: SARSA's informs ILQL's too, being ILQL at τ = ½."""
    if training.arm != training.method:
        return (training.arm,)
    return tuple(dict.fromkeys((training.arm, method_named(training.method).trained_as(training.train)[0])))


def _columns(training: Training) -> dict[str, object]:
    """The training's columns, under the name its weights go by: SARSA informs proposals as ILQL at τ = ½."""
    _, train = method_named(training.method).trained_as(training.train)
    return {f"train.{name}": value for name, value in dataclasses.asdict(train).items()}
