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
from optuna.trial import Trial, TrialState

from ilql.methods import method_named
from sweeps.space import Between, Training

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Study:
    """A fresh study in a journal file.

    Args:
        file: Where; an older study there is replaced.
        name: The sweep's name.
        seed: Decides the proposals, together with the values told.
        space: What proposals vary.
    """

    def __init__(self, file: Path, *, name: str, seed: int, space: Sequence[Between]) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        self.file = file
        self._seed = seed
        self._space: dict[str, BaseDistribution] = {
            dimension.column: FloatDistribution(dimension.low, dimension.high, log=dimension.log) for dimension in space
        }
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(file))), study_name=name, direction="maximize"
        )
        self._trials: dict[int, Trial] = {}

    def enqueue(self, training: Training) -> int:
        """A planned training as a trial; returns its number.

        Its values of the space's columns inform the proposals; those of other columns are attributes.
        """
        columns = _columns(training)
        inside = {name: columns[name] for name in self._space if name in columns}
        known = {
            name: value
            for name, value in inside.items()
            if isinstance(value, float) and self._space[name]._contains(value)
        }
        self._study.enqueue_trial(known)
        return self._ask(training, {name: self._space[name] for name in known})

    def propose(self, method: str) -> tuple[int, dict[str, float]]:
        """The next proposal for a method: its trial's number, and a value for every column of the space."""
        # One sampler per proposal: the n-th depends on the values told before it, not on how often we were restarted.
        sampler_seed = self._seed * 100_003 + len(self._trials)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.sampler = TPESampler(seed=sampler_seed, n_startup_trials=4, constant_liar=True)
        trial = self._study.ask(self._space)
        trial.set_user_attr("method", method)
        trial.set_user_attr("origin", "refinement")
        self._trials[trial.number] = trial
        return trial.number, {name: float(trial.params[name]) for name in self._space}

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

    def _ask(self, training: Training, distributions: Mapping[str, BaseDistribution]) -> int:
        trial = self._study.ask(dict(distributions))
        trial.set_user_attr("method", training.method)
        trial.set_user_attr("origin", training.origin)
        trial.set_user_attr(
            "train", {name: value for name, value in _columns(training).items() if name not in trial.params}
        )
        self._trials[trial.number] = trial
        return trial.number


def _columns(training: Training) -> dict[str, object]:
    """The training's columns, under the name its weights go by: SARSA informs proposals as ILQL at τ = ½."""
    _, train = method_named(training.method).canonical(training.train)
    return {f"train.{name}": value for name, value in dataclasses.asdict(train).items()}
